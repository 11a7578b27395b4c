/*
 * hook.c
 *	  The front door: servers that ask which storage manager serves a relation, and
 *	  tell of last-written LSNs.  Their table stays as it is (docs/interposition.md).
 *
 * Only compiled where the server's headers have it.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"

#include "hook.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/lengths.h"
#include "nc/smgr/lwlsn.h"

/*
 * A server without them loads the library all the same, and _PG_init says what is wrong
 * instead of the loader; hooks for LSNs are used where they are.
 */
#pragma weak dbsize_hook
#pragma weak set_lwlsn_block_hook
#pragma weak set_lwlsn_block_range_hook
#pragma weak set_lwlsn_block_v_hook
#pragma weak set_lwlsn_db_hook
#pragma weak set_lwlsn_relation_hook
#pragma weak set_max_lwlsn_hook

/* A range of so many blocks at most is entered block by block. */
#define RANGE_BY_BLOCK 64

/* ---- sizes of databases ---- */

static dbsize_hook_type next_dbsize;

/*
 * What the server would say without us, or what page servers say if that is more.  The
 * server's own answer is asked for with the hook taken out: in this process nobody
 * else looks meanwhile.
 */
static int64
database_size(Oid db)
{
	LOCAL_FCINFO(fcinfo, 1);
	dbsize_hook_type ours = dbsize_hook;
	volatile int64 here = 0;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(db);
	fcinfo->args[0].isnull = false;
	dbsize_hook = next_dbsize;
	PG_TRY();
	{
		Datum		size = pg_database_size_oid(fcinfo);

		if (!fcinfo->isnull)
			here = DatumGetInt64(size);
	}
	PG_FINALLY();
	{
		dbsize_hook = ours;
	}
	PG_END_TRY();
	return here == 0 ? 0 : nc_sizes_of_database(db, here);
}

/* ---- last-written LSNs ---- */

static set_lwlsn_block_hook_type next_block;
static set_lwlsn_block_range_hook_type next_block_range;
static set_lwlsn_block_v_hook_type next_block_v;
static set_lwlsn_db_hook_type next_db;
static set_lwlsn_relation_hook_type next_relation;
static set_max_lwlsn_hook_type next_max;

static XLogRecPtr
note_blocks(const XLogRecPtr *lsns, bool one, NcPgRel pgrel, ForkNumber fork, BlockNumber from,
			BlockNumber nblocks)
{
	NcRelKey	rel = NC_PGREL_KEY(pgrel, fork);

	for (BlockNumber i = 0; i < nblocks && fork == MAIN_FORKNUM; i++)
		nc_lwlsn_raise_page(&rel, from + i, lsns[one ? 0 : i]);
	return nblocks > 0 && !one ? lsns[nblocks - 1] : lsns[0];
}

static XLogRecPtr
note_block(XLogRecPtr lsn, NcPgRel rel, ForkNumber fork, BlockNumber block)
{
	if (next_block != NULL)
		(void) next_block(lsn, rel, fork, block);
	return note_blocks(&lsn, true, rel, fork, block, 1);
}

static XLogRecPtr
note_relation(XLogRecPtr lsn, NcPgRel pgrel, ForkNumber fork)
{
	NcRelKey	rel = NC_PGREL_KEY(pgrel, fork);

	if (next_relation != NULL)
		(void) next_relation(lsn, pgrel, fork);
	if (fork == MAIN_FORKNUM)
		nc_lwlsn_set_relation(&rel, lsn);
	return lsn;
}

static XLogRecPtr
note_block_range(XLogRecPtr lsn, NcPgRel pgrel, ForkNumber fork, BlockNumber from,
				 BlockNumber nblocks)
{
	NcRelKey	rel = NC_PGREL_KEY(pgrel, fork);

	if (next_block_range != NULL)
		(void) next_block_range(lsn, pgrel, fork, from, nblocks);
	if (nblocks <= RANGE_BY_BLOCK)
		return note_blocks(&lsn, true, pgrel, fork, from, nblocks);
	if (fork == MAIN_FORKNUM)
		nc_lwlsn_set_relation(&rel, lsn);
	return lsn;
}

static XLogRecPtr
note_block_v(const XLogRecPtr *lsns, NcPgRel rel, ForkNumber fork, BlockNumber from, int nblocks)
{
	if (next_block_v != NULL)
		(void) next_block_v(lsns, rel, fork, from, nblocks);
	return note_blocks(lsns, false, rel, fork, from, (BlockNumber) nblocks);
}

static XLogRecPtr
note_database(XLogRecPtr lsn)
{
	if (next_db != NULL)
		(void) next_db(lsn);
	nc_lwlsn_raise_all(lsn);
	return lsn;
}

static void
note_all(XLogRecPtr lsn)
{
	if (next_max != NULL)
		next_max(lsn);
	nc_lwlsn_raise_all(lsn);
}

/* ---- entering ---- */

/* One after the other: whoever had the hook is asked as well. */
#define CHAIN(hook, next, ours) \
	do { \
		if (&(hook) != NULL) \
		{ \
			(next) = (hook); \
			(hook) = (ours); \
		} \
	} while (0)

void
nc_hook_enter(void)
{
	nc_hook_become_manager();
	CHAIN(dbsize_hook, next_dbsize, database_size);
	CHAIN(set_lwlsn_block_hook, next_block, note_block);
	CHAIN(set_lwlsn_block_range_hook, next_block_range, note_block_range);
	CHAIN(set_lwlsn_block_v_hook, next_block_v, note_block_v);
	CHAIN(set_lwlsn_db_hook, next_db, note_database);
	CHAIN(set_lwlsn_relation_hook, next_relation, note_relation);
	CHAIN(set_max_lwlsn_hook, next_max, note_all);
}
