/*
 * recording.h
 *	  The communicator's recording of what is asked of page servers, as
 *	  neon_comm.record says.  Private to src/worker; docs/record.md.
 */
#ifndef RECORDING_H
#define RECORDING_H

#include "nc/engine/engine.h"

/* After the settings were read, at the start and again: begins, ends, or goes on. */
extern void nc_recording_apply(NcEngine *engine);

/* In each turn. */
extern void nc_recording_turn(NcEngine *engine);

/* The communicator ends; waits for the disk a moment, no longer. */
extern void nc_recording_end(NcEngine *engine);

#endif							/* RECORDING_H */
