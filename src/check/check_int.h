/*
 * check_int.h
 *	  What the files of check share.  Private to src/check.
 */
#ifndef CHECK_INT_H
#define CHECK_INT_H

#include "nc/check/check.h"
#include "nc/check/verify.h"
#include "nc/net/handshake.h"
#include "nc/net/resolve.h"
#include "nc/shard/shard_map.h"

typedef struct Report
{
	const NcCheckLimits *limits;
	NcCheckPut	put;
	void	   *arg;
} Report;

/* A row; fmt makes `what`. */
extern void nc_check_row(Report *r, const char *item, const char *subject, NcCheckState state,
						 const char *remedy, const char *fmt,...) pg_attribute_printf(6, 7);

/* Seconds since 1970: tokens and certificates end by that clock. */
extern int64 nc_check_now(void);

/* A row about something that ends at this time. */
extern void nc_check_until(Report *r, const char *item, const char *subject, int64 until_s,
						   const char *remedy);

/* A row about a file system; wanted = bytes that will be written there, 0 = not known. */
extern void nc_check_room(Report *r, const char *subject, uint64 free_bytes, uint64 bytes,
						  uint64 wanted);

/* ---- ask.c ---- */

/* A page server that is asked, once, for however many shards it is in the map. */
typedef struct Asked
{
	char		conninfo[NC_HOST_CONNINFO_BYTES];	/* of this host alone */
	char		address[128];
	bool		shards[NC_SHARDS_MAX];
	NcHandshake *handshake;
	NcHandshakeStep step;
	NcResolve  *resolve;
	bool		holds_fd;
	bool		answered;		/* nc_handshake_answer() has what */
	char		error[256];		/* not answered: why */
} Asked;

typedef struct AskedAll
{
	NcShardMap	map;
	uint32		n;
	Asked	   *at;				/* [n] */
} AskedAll;

/* Those of the map in force; false and a reason when there is none. */
extern bool nc_ask_collect(AskedAll *all, char *err, Size err_bytes);

/* Asks all of them at once, for so many seconds. Raises an error only for who interrupts us. */
extern void nc_ask(AskedAll *all, const char *question, int seconds);

/* After it, and after an error of it. */
extern void nc_ask_end(AskedAll *all);

/* ---- page_servers.c, compute.c ---- */

extern void nc_check_page_servers(Report *r, AskedAll *all);
extern void nc_check_compute(Report *r);

/* ---- verify.c: for who has no lock, and looks again before he believes what is put ---- */

#define NC_VERIFY_BATCH 32

typedef struct Verify Verify;

/* Connects to all page servers of the map in force; those that do not answer are put as lost. */
extern Verify *nc_verify_open(int seconds, NcVerifyPut put, void *arg);

/* Whose main fork is meant from now on. */
extern void nc_verify_file(Verify *v, const NcRelKey *key);

extern void nc_verify_lengths(Verify *v);

/* At most NC_VERIFY_BATCH blocks from this one on; puts what is not the same, in their order. */
extern void nc_verify_blocks(Verify *v, BlockNumber first, int n);

/* Does one of the page servers not answer? It is asked no more. */
extern bool nc_verify_lost(const Verify *v);

/* After it, and after an error of the others. */
extern void nc_verify_close(Verify *v);

#endif							/* CHECK_INT_H */
