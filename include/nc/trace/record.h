/*
 * nc/trace/record.h
 *	  One traced request, and the bounded memory through which records go from the
 *	  processes that trace to the one that writes them out.
 *
 * Any process puts, one takes.  Nobody waits: a cell that is not empty when its turn
 * comes costs the record, and is counted.  A process that is stopped in the middle of
 * a put holds its one cell and nothing else.
 */
#ifndef NC_TRACE_RECORD_H
#define NC_TRACE_RECORD_H

#include <stdatomic.h>
#include <stddef.h>

#include "nc/base/check.h"
#include "nc/base/key.h"
#include "nc/base/trace_id.h"
#include "nc/base/units.h"
#include "nc/wire/pagestream.h"

typedef enum NcTraceKind
{
	NC_TRACE_READ = 0,			/* of a compute: a request of a process, to its end */
	NC_TRACE_ANSWER				/* of a page server: one message, to its answer */
} NcTraceKind;

/* Times of a record.  A READ begins at SUBMITTED; 0 is what it did not come to. */
typedef enum NcTraceTime
{
	NC_TRACE_SUBMITTED = 0,		/* ANSWER: the message was first looked at */
	NC_TRACE_TAKEN,				/* ANSWER: its WAL was there, reading began */
	NC_TRACE_SENT,				/* ANSWER: the answer was in the send buffer, its end */
	NC_TRACE_RECEIVED,			/* the turn of the communicator that had the answer began */
	NC_TRACE_REACHED,			/* the answer was looked at */
	NC_TRACE_DONE,				/* the slot was DONE */
	NC_TRACE_WOKEN,				/* the process that waited ran again; 0 when nobody waited */
	NC_TRACE_TIMES
} NcTraceTime;

/* Who waits for it. */
typedef enum NcTraceClass
{
	NC_TRACE_DEMAND = 0,
	NC_TRACE_AHEAD,				/* read ahead: ends when its process came to look */
	NC_TRACE_AIO				/* of an AIO handle: ends when the communicator has completed it */
} NcTraceClass;

typedef struct NcTraceRecord
{
	NcTraceContext at;			/* its trace, its own span */
	uint8_t		parent_id[NC_SPAN_ID_BYTES];	/* zeroes: it has none */
	uint8_t		kind;			/* NcTraceKind */
	bool		failed;
	uint8_t		tag;			/* NcReqTag */
	uint8_t		class;			/* NcTraceClass */
	uint64_t	time_us[NC_TRACE_TIMES];	/* CLOCK_MONOTONIC */
	uint64_t	reqid;			/* on the wire, of the message answered last; 0 with version 2 */
	NcLsn		not_modified_since;
	NcRelKey	rel;
	uint32_t	block;
	uint32_t	nblocks;
	uint32_t	shard;			/* READ: of the message answered last */
	uint32_t	pid;			/* who asked; ANSWER: who answered */
} NcTraceRecord;

typedef enum NcTraceCellState
{
	NC_TRACE_EMPTY = 0,			/* who puts may take it */
	NC_TRACE_WRITING,			/* he does */
	NC_TRACE_FULL				/* who takes may */
} NcTraceCellState;

typedef struct NcTraceCell
{
	_Atomic uint32_t state;		/* NcTraceCellState */
	NcTraceRecord record;
} NcTraceCell;

#define NC_TRACE_CELLS 2048

/* All zero is what it is before anything has happened, as fresh shared memory. */
typedef struct NcTraceBuffer
{
	_Atomic uint32_t next;		/* the cell of the next put, modulo */
	_Atomic uint64_t recorded;
	_Atomic uint64_t dropped;	/* for want of a cell, or not taken by the collector or the file */
	NcTraceCell cells[NC_TRACE_CELLS];
} NcTraceBuffer;

/* Any process; never waits or fails. False: there was no room, and it is counted. */
extern bool nc_trace_put(NcTraceBuffer *b, const NcTraceRecord *record);

/*
 * The one process that takes: up to max records, oldest first.  Returns how many.
 */
extern uint32_t nc_trace_take(NcTraceBuffer *b, NcTraceRecord *records, uint32_t max);

#endif							/* NC_TRACE_RECORD_H */
