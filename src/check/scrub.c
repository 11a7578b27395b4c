/*
 * scrub.c
 *	  Compares page servers all the time, slowly: all relations of all databases in turn.
 *
 * nc_scrub_round() runs in a process without a database.  It finds relations by their files and
 * asks page servers over connections of its own, at neon_comm.scrub_rate blocks a second, with at
 * most a batch under way; nothing passes through shared buffers, the communicator or a lock that
 * others wait for.  A relation that is truncated or dropped meanwhile, or is being made, may look
 * wrong to it.  So nobody is told before nc_scrub_look_again(), which is in a session and holds
 * the relation's lock, has found the same.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "nc/base/clock.h"
#include "nc/check/scrub.h"
#include "nc/compat/pg.h"
#include "nc/compat/server.h"
#include "nc/feed/feed.h"
#include "nc/shared/settings.h"
#include "nc/smgr/skeleton.h"

#include "check_int.h"

/* For a batch to be answered, and a page server to be reached; in a session, where others wait for its lock, too. */
#define SECONDS 10
#define SESSION_SECONDS 5

/* So often a session tries to get the lock, which it never queues for. */
#define LOCK_TRIES 20
#define LOCK_PAUSE_US 100000

/* While a page server does not answer, or writers wait for one. */
#define AWAY_MS 5000
#define PAUSE_MS 500

/* So many of a relation are told in a round; it is damaged, and the rest is skipped. */
#define RELATION_FINDINGS_MAX 32

NcScrub    *nc_scrub = NULL;

const char *
nc_scrub_state_name(NcScrubState state)
{
	switch (state)
	{
		case NC_SCRUB_RUNNING:
			return "running";
		case NC_SCRUB_PAUSED:
			return "paused";
		case NC_SCRUB_AWAY:
			return "page server away";
		case NC_SCRUB_OFF:
			break;
	}
	return "off";
}

/* For views; nothing is timed by it. */
static TimestampTz
shown_time(void)
{
	return GetCurrentTimestamp();
}

/* ---- shared memory ---- */

Size
nc_scrub_shmem_bytes(void)
{
	return nc_enabled ? sizeof(NcScrub) : 0;
}

void
nc_scrub_shmem_startup(void)
{
	bool		there;

	if (!nc_enabled)
		return;
	nc_scrub = ShmemInitStruct("neon_comm scrub", sizeof(NcScrub), &there);
	if (!there)
		memset(nc_scrub, 0, sizeof(NcScrub));
}

bool
nc_scrub_finding(int i, NcScrubFinding *out)
{
	NcScrubPlace *place = &nc_scrub->places[i];

	if ((uint64) i >= atomic_load(&nc_scrub->places_used))
		return false;
	/* whoever writes may be stopped in the middle */
	for (int attempt = 0; attempt < 100; attempt++)
	{
		uint64		before = atomic_load(&place->version);

		memcpy(out, &place->finding, sizeof(*out));
		atomic_thread_fence(memory_order_acquire);
		if (before % 2 == 0 && atomic_load(&place->version) == before)
			return true;
		pg_usleep(100);
	}
	return false;
}

/* ---- looking again ---- */

static NcScrubPlace *
place_of(const NcScrubFinding *f)
{
	NcScrubPlace *oldest = &nc_scrub->places[0];
	uint64		used = atomic_load(&nc_scrub->places_used);

	for (uint64 i = 0; i < used; i++)
	{
		NcScrubPlace *p = &nc_scrub->places[i];

		if (nc_rel_key_equal(&p->finding.rel, &f->rel) && p->finding.block == f->block)
			return p;
		if (p->finding.last < oldest->finding.last)
			oldest = p;
	}
	return used < NC_SCRUB_FINDINGS ? &nc_scrub->places[used] : oldest;
}

static void
keep_finding(NcScrubFinding *f)
{
	NcScrubPlace *p = place_of(f);
	uint64		used = atomic_load(&nc_scrub->places_used);

	f->first = f->last = shown_time();
	f->times = 1;
	if (nc_rel_key_equal(&p->finding.rel, &f->rel) && p->finding.block == f->block)
	{
		f->first = p->finding.first;
		f->times = p->finding.times + 1;
	}
	/* who wrote here before may have ended in the middle */
	atomic_store(&p->version, atomic_load(&p->version) | 1);
	atomic_thread_fence(memory_order_release);
	p->finding = *f;
	atomic_fetch_add(&p->version, 1);
	if (used < NC_SCRUB_FINDINGS && p == &nc_scrub->places[used])
		atomic_store(&nc_scrub->places_used, used + 1);
	atomic_fetch_add(&nc_scrub->found, 1);
}

static void
tell_finding(const NcScrubFinding *f)
{
	char		at[32] = "";

	if (f->block >= 0)
		snprintf(at, sizeof(at), " block " INT64_FORMAT, f->block);
	ereport(WARNING,
			(errmsg("page servers do not have the same: database \"%s\", relation %s, main fork%s: %s",
					f->database, f->relation, at, nc_verify_state_name(f->state)),
			 errdetail("Relation %u/%u/%u, page server %s: %s.", f->rel.spc, f->rel.db, f->rel.rel,
					   f->page_server, f->what),
			 errhint("See docs/operations.md, \"Page servers do not have the same\".")));
}

/* What the session finds. */
typedef struct Again
{
	NcScrubFinding finding;		/* database and relation are filled in */
	bool		lost;
} Again;

static void
put_again(void *arg, int64 block, const char *page_server, NcVerifyState state, const char *what)
{
	Again	   *again = arg;
	NcScrubFinding *f = &again->finding;

	if (state == NC_VERIFY_BUSY)
		return;
	if (state == NC_VERIFY_LOST)
	{
		again->lost = true;
		return;
	}
	f->block = block;
	f->state = state;
	strlcpy(f->page_server, page_server, sizeof(f->page_server));
	strlcpy(f->what, what, sizeof(f->what));
	keep_finding(f);
	tell_finding(f);
}

/* False when there is no such relation (any more). */
static bool
name_relation(Oid relation, NcScrubFinding *f)
{
	char	   *name = get_rel_name(relation);
	char	   *schema = name != NULL ? get_namespace_name(get_rel_namespace(relation)) : NULL;
	char	   *database = get_database_name(MyDatabaseId);

	if (name == NULL)
		return false;
	strlcpy(f->relation, quote_qualified_identifier(schema, name), sizeof(f->relation));
	strlcpy(f->database, database != NULL ? database : "?", sizeof(f->database));
	return true;
}

/*
 * Somebody who changes the relation in one go, or has dropped it and waits for his commit to be confirmed, has
 * it for himself: what looked wrong was his work, or will be seen in the next round.
 */
static bool
lock_soon(Oid relation)
{
	for (int i = 0; i < LOCK_TRIES; i++)
	{
		if (ConditionalLockRelationOid(relation, AccessShareLock))
			return true;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(LOCK_PAUSE_US);
	}
	return false;
}

/* One block, or the length, in a transaction of its own. False: the relation is not there, or somebody has it. */
static bool
look_at_block(Again *again, int64 block)
{
	Oid			relation;
	bool		locked;

	StartTransactionCommand();
	relation = nc_pg_relation_of_file(again->finding.rel.spc, again->finding.rel.rel);
	locked = OidIsValid(relation) && lock_soon(relation) && name_relation(relation, &again->finding);
	if (locked)
		nc_verify_relation(relation, block < 0 ? 0 : (BlockNumber) block, block < 0 ? 0 : 1,
						   SESSION_SECONDS, put_again, again);
	CommitTransactionCommand();
	return locked;
}

/* One that is being made, file by file, is in the catalog when that is done. */
static bool
has_database(Oid db)
{
	bool		there;

	StartTransactionCommand();
	there = get_database_name(db) != NULL;
	CommitTransactionCommand();
	return there;
}

void
nc_scrub_look_again(void)
{
	Again		again = {.finding = {.rel = nc_scrub->suspect_rel}};
	Oid			db = again.finding.rel.db;

	if (OidIsValid(db) && db != MyDatabaseId)
	{
		atomic_store(&nc_scrub->passed_by, !has_database(db));
		return;
	}
	for (int i = 0; i < nc_scrub->suspects; i++)
	{
		if (!look_at_block(&again, nc_scrub->suspect[i]))
		{
			atomic_store(&nc_scrub->passed_by, 1);
			return;
		}
		if (again.lost)
			return;
		atomic_fetch_add(&nc_scrub->looked_at, 1);
	}
}

/* ---- a round ---- */

typedef struct Round
{
	const NcScrubHost *host;
	MemoryContext memory;		/* of connections */
	Verify	   *verify;			/* NULL = not connected */
	int			told;			/* suspects of this relation */
} Round;

static void
set_state(NcScrubState state)
{
	atomic_store(&nc_scrub->state, state);
	if (state != NC_SCRUB_AWAY)
		nc_scrub->problem[0] = '\0';
}

static void
put_suspect(void *arg, int64 block, const char *page_server, NcVerifyState state, const char *what)
{
	if (state == NC_VERIFY_LOST)
		snprintf(nc_scrub->problem, sizeof(nc_scrub->problem), "page server %s: %s", page_server, what);
	else if (state != NC_VERIFY_BUSY && nc_scrub->suspects < NC_SCRUB_SUSPECTS)
		nc_scrub->suspect[nc_scrub->suspects++] = block;
}

static void
disconnect(Round *r)
{
	if (r->verify != NULL)
		nc_verify_close(r->verify);
	r->verify = NULL;
	MemoryContextReset(r->memory);
}

/* What the settings say about page servers may have changed. */
static void
rest(Round *r, long ms)
{
	if (r->host->rest(ms))
		disconnect(r);
}

static bool
writers_wait(void)
{
	static NcFeedPeer peers[NC_SHARDS_MAX];
	int			n = nc_feed_peers(peers, NC_SHARDS_MAX);

	for (int i = 0; i < n; i++)
		if (peers[i].throttles)
			return true;
	return false;
}

/* Waits until nobody else needs page servers more. */
static void
wait_for_writers(Round *r)
{
	while (nc_guc_scrub_rate > 0 && writers_wait())
	{
		set_state(NC_SCRUB_PAUSED);
		rest(r, PAUSE_MS);
	}
	if (atomic_load(&nc_scrub->state) == NC_SCRUB_PAUSED)
		set_state(NC_SCRUB_RUNNING);
}

/* Until all page servers answer: what only some of them have said is not compared. False: it is off. */
static bool
connect_all(Round *r)
{
	MemoryContext before;

	while (r->verify == NULL && nc_guc_scrub_rate > 0)
	{
		before = MemoryContextSwitchTo(r->memory);
		r->verify = nc_verify_open(SECONDS, put_suspect, NULL);
		MemoryContextSwitchTo(before);
		if (!nc_verify_lost(r->verify))
			break;
		set_state(NC_SCRUB_AWAY);
		disconnect(r);
		rest(r, AWAY_MS);
	}
	if (r->verify != NULL)
		set_state(NC_SCRUB_RUNNING);
	return nc_guc_scrub_rate > 0;
}

/* So that blocks, or one at least, have taken their time since then. */
static void
keep_rate(Round *r, uint64 began_us, int blocks)
{
	uint64		due_us = began_us + (uint64) Max(blocks, 1) * 1000000 / Max(nc_guc_scrub_rate, 1);
	uint64		now;

	while (nc_guc_scrub_rate > 0 && (now = nc_clock_us()) < due_us)
		rest(r, Min(1000, (long) ((due_us - now) / 1000) + 1));
}

/* Has what is suspected looked at. */
static void
resolve_suspects(Round *r, const NcRelKey *key)
{
	if (nc_scrub->suspects == 0)
		return;
	r->told += nc_scrub->suspects;
	nc_scrub->suspect_rel = *key;
	atomic_store(&nc_scrub->looked_at, 0);
	atomic_store(&nc_scrub->passed_by, 0);
	r->host->look_again(key->db);
	if (atomic_load(&nc_scrub->passed_by) != 0)
		r->told = RELATION_FINDINGS_MAX;
	else if (atomic_load(&nc_scrub->looked_at) < nc_scrub->suspects)
	{
		atomic_fetch_add(&nc_scrub->unconfirmed, nc_scrub->suspects - atomic_load(&nc_scrub->looked_at));
		ereport(WARNING,
				(errmsg("page servers may not have the same of relation %u/%u/%u", key->spc, key->db, key->rel),
				 errdetail("%d blocks of it looked wrong, the first is " INT64_FORMAT "; they could not be looked at again in a session.",
						   nc_scrub->suspects, nc_scrub->suspect[0]),
				 errhint("neon_comm.verify_relation() looks at them.")));
	}
	nc_scrub->suspects = 0;
}

/* A batch, or (n = 0) the lengths; again when a page server went away. False: it is off. */
static bool
scrub_batch(Round *r, const NcRelKey *key, BlockNumber first, int n)
{
	for (;;)
	{
		uint64		began_us = nc_clock_us();

		wait_for_writers(r);
		if (!connect_all(r))
			return false;
		nc_scrub->suspects = 0;
		nc_verify_file(r->verify, key);
		if (n == 0)
			nc_verify_lengths(r->verify);
		else
			nc_verify_blocks(r->verify, first, n);
		if (nc_verify_lost(r->verify))
		{
			set_state(NC_SCRUB_AWAY);
			disconnect(r);
			rest(r, AWAY_MS);
			continue;
		}
		resolve_suspects(r, key);
		atomic_fetch_add(&nc_scrub->blocks, n);
		atomic_fetch_add(&nc_scrub->blocks_done, n);
		keep_rate(r, began_us, n);
		return nc_guc_scrub_rate > 0;
	}
}

static void
note_place(const NcRelKey *key, BlockNumber block)
{
	atomic_store(&nc_scrub->spc, key->spc);
	atomic_store(&nc_scrub->db, key->db);
	atomic_store(&nc_scrub->rel, key->rel);
	atomic_store(&nc_scrub->block, block);
}

/* Is it there, and on page servers? */
static bool
is_remote(const NcRelKey *key)
{
	SMgrRelation reln = NC_PG_SMGROPEN(NC_PGREL_MAKE(key));
	bool		unlogged = nc_skeleton_relation(reln).unlogged;

	smgrclose(reln);
	return !unlogged;
}

static bool
scrub_relation(Round *r, const NcRelKey *key)
{
	BlockNumber at = 0;
	BlockNumber length;

	r->told = 0;
	note_place(key, 0);
	if (!is_remote(key))
		return true;
	if (!scrub_batch(r, key, 0, 0))
		return false;
	/* what was added meanwhile waits for the next round */
	length = nc_skeleton_length(key);
	while (at < length && r->told < RELATION_FINDINGS_MAX)
	{
		int			n = (int) Min(Min(NC_VERIFY_BATCH, nc_guc_scrub_rate), length - at);

		note_place(key, at);
		/* a batch ends with the relation as it is now */
		n = (int) Min(n, Max((int64) nc_skeleton_length(key) - at, 0));
		if (n <= 0)
			break;
		if (!scrub_batch(r, key, at, n))
			return false;
		at += n;
	}
	return true;
}

static void
begin_round(uint64 relations, uint64 blocks)
{
	atomic_store(&nc_scrub->round_began, shown_time());
	atomic_store(&nc_scrub->relations_done, 0);
	atomic_store(&nc_scrub->relations_all, relations);
	atomic_store(&nc_scrub->blocks_done, 0);
	atomic_store(&nc_scrub->blocks_all, blocks);
}

void
nc_scrub_round(const NcScrubHost *host)
{
	Round		r = {.host = host};
	uint64		n;
	uint64		blocks;
	NcRelKey   *keys = nc_skeleton_list(&n, &blocks);
	MemoryContext turn = AllocSetContextCreate(CurrentMemoryContext, "neon_comm scrub turn",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(turn);
	bool		goes_on = true;

	r.memory = AllocSetContextCreate(outer, "neon_comm scrub connections", ALLOCSET_DEFAULT_SIZES);
	begin_round(n, blocks);
	set_state(NC_SCRUB_RUNNING);
	for (uint64 i = 0; i < n && goes_on; i++)
	{
		goes_on = scrub_relation(&r, &keys[i]);
		atomic_fetch_add(&nc_scrub->relations_done, goes_on);
		MemoryContextReset(turn);
	}
	disconnect(&r);
	MemoryContextSwitchTo(outer);
	if (!goes_on)
		return;
	atomic_store(&nc_scrub->round_ended, shown_time());
	atomic_fetch_add(&nc_scrub->rounds, 1);
}
