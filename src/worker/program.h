/*
 * program.h
 *	  What the processes of neon_comm have in common.  Private to src/worker.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "postgres.h"

#include "postmaster/bgworker.h"

#include "nc/compat/pg.h"

typedef struct NcProgram
{
	const char *name;
	const char *main;			/* function of this library, called in the new process */
	BgWorkerStartTime starts;
	bool		once;			/* is not started again after its end */
	bool		session;		/* will be in a database */

	/*
	 * SIGTERM ends it at its next check for interrupts; otherwise ShutdownRequestPending is
	 * set and it ends itself, when nobody is left who needs it.
	 */
	bool		dies;

	/* In the signal handlers: ends its wait, if that is not for its latch. NULL = it is. */
	void		(*kick) (void);
} NcProgram;

/* Postmaster, at the start: it is started, and again after its end unless it is for once. */
extern void nc_program_register(const NcProgram *program);

/* Any process: starts one now, with an argument. False: no room for it. */
extern bool nc_program_start(const NcProgram *program, int arg);

/* The same, with a handle that is the caller's, and is kept. */
extern bool nc_program_start_handle(const NcProgram *program, int arg, BackgroundWorkerHandle **handle);

/*
 * First call of a main: signals; and if it stays, it counts as ours (nc/shared/alone.h).
 * What it allocates from then on is kept.
 */
extern void nc_program_begin(const NcProgram *program);

/* Memory for a turn becomes the current one; who calls this resets it after each. */
extern void nc_program_turn_memory(const NcProgram *program);

/* Reads the configuration again if SIGHUP asked for it; true when it did. */
extern bool nc_program_reload(void);

/* Ends the process so that the postmaster starts it again. */
pg_noreturn extern void nc_program_end(void);

#endif							/* PROGRAM_H */
