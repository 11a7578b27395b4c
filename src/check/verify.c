/*
 * verify.c
 *	  Compares what page servers have of a relation, block by block, at one LSN.
 *
 * Runs in a session, and for scrub.c in a process without a database.  All hosts of a block's shard are asked for it with the same
 * not_modified_since.  A page whose LSN is not beyond that is, on every page server, what
 * all WAL up to there makes of it, so it is the same everywhere but for what readers of a
 * hot standby may have written (mask()).  One that is newer was changed meanwhile: if it is the
 * same everywhere all the same, that is well, else it is asked for again, with a newer LSN, some
 * times.
 *
 * In a session AccessShareLock keeps the relation from being truncated or rewritten meanwhile.
 */
#include "postgres.h"

#include <poll.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "nc/base/clock.h"
#include "nc/check/verify.h"
#include "nc/compat/page.h"
#include "nc/compat/pg.h"
#include "nc/feed/feed.h"
#include "nc/shared/settings.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/skeleton.h"
#include "nc/wire/pagestream.h"

#include "check_int.h"

#define BATCH NC_VERIFY_BATCH	/* blocks under way with each page server */
#define ROUNDS 20
#define RECENT_US 1000000
#define ROUND_PAUSE_US 50000
#define SLICE_MS 50

/* What a page server says of one block. */
typedef struct Version
{
	bool		asked;
	bool		got;
	bool		is_error;		/* text is the page server's */
	char		text[256];
	PGAlignedBlock page;
} Version;

/* A page server, beside its Asked. */
typedef struct Host
{
	Asked	   *asked;
	NcPsRequest sent[BATCH + 1];	/* not answered yet, in their order */
	uint32		first;
	uint32		count;
	bool		lost;			/* told already */
	bool		has_length;
	BlockNumber nblocks;
	Version		of[BATCH];
} Host;

struct Verify
{
	NcVerifyPut put;
	void	   *arg;
	AskedAll   *all;
	Host	   *hosts;			/* [all->n] */
	NcRelKey	key;
	Relation	rel;			/* locked; NULL outside of a session */
	bool		is_heap;
	uint64		until_us;		/* nobody is waited for longer */
	int			seconds;
	uint64		reqid;
};

/* What is wrong with a block, or was changed meanwhile. */
typedef struct Judgement
{
	NcVerifyState state;
	char		page_server[288];
	char		what[320];
} Judgement;

const char *
nc_verify_state_name(NcVerifyState state)
{
	switch (state)
	{
		case NC_VERIFY_SAME:
			return "same";
		case NC_VERIFY_BUSY:
			return "busy";
		case NC_VERIFY_LOST:
			return "no answer";
		case NC_VERIFY_DAMAGED:
			return "damaged";
		case NC_VERIFY_MISSING:
			return "missing";
		case NC_VERIFY_FUTURE:
			return "future";
		case NC_VERIFY_LONGER:
			return "longer";
		case NC_VERIFY_DIFFERS:
			break;
	}
	return "differs";
}

/* ---- what may differ ---- */

/*
 * A standby with hot_standby = on lets queries in, and they note in a tuple whether its
 * transactions have ended; neon_dev starts page servers so while they are copied.  That is in
 * no WAL.  Whether it was frozen is, and stays.
 */
static void
mask_tuple(HeapTupleHeader tuple)
{
	tuple->t_infomask &= ~(HEAP_XMAX_COMMITTED | HEAP_XMAX_INVALID);
	if (!HeapTupleHeaderXminFrozen(tuple))
		tuple->t_infomask &= ~(HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID);
}

/*
 * Whatever is not compared: the checksum, which is of the rest; two flags and an xid that are only
 * hints; what is between line pointers and tuples, which nobody reads and full-page images leave
 * out.  PD_ALL_VISIBLE is no hint.
 */
static void
mask(char *page, bool is_heap)
{
	PageHeader	header = (PageHeader) page;

	if (PageIsNew(page) || !nc_page_header_is_sane(header) || header->pd_lower < SizeOfPageHeaderData)
		return;
	header->pd_checksum = 0;
	header->pd_prune_xid = InvalidTransactionId;
	header->pd_flags &= ~(PD_PAGE_FULL | PD_HAS_FREE_LINES);
	memset(page + header->pd_lower, 0, header->pd_upper - header->pd_lower);
	if (!is_heap)
		return;
	for (OffsetNumber i = 1; i <= PageGetMaxOffsetNumber(page); i++)
	{
		ItemId		item = PageGetItemId(page, i);

		if (ItemIdIsNormal(item) && ItemIdGetLength(item) >= SizeofHeapTupleHeader &&
			ItemIdGetOffset(item) + ItemIdGetLength(item) <= BLCKSZ)
			mask_tuple((HeapTupleHeader) PageGetItem(page, item));
	}
}

/* Without a catalog: pages of indexes and sequences have a special space. */
static bool
may_be_heap(const Verify *v, const char *page)
{
	return v->rel != NULL ? v->is_heap : ((const PageHeaderData *) page)->pd_special == BLCKSZ;
}

/* The first byte in which they differ; -1 = none. */
static int
first_difference(const char *a, const char *b, bool is_heap)
{
	static PGAlignedBlock x;
	static PGAlignedBlock y;

	memcpy(x.data, a, BLCKSZ);
	memcpy(y.data, b, BLCKSZ);
	mask(x.data, is_heap);
	mask(y.data, is_heap);
	for (int i = 0; i < BLCKSZ; i++)
		if (x.data[i] != y.data[i])
			return i;
	return -1;
}

/* ---- asking ---- */

static void
lose(Verify *v, Host *h, const char *why)
{
	if (!h->lost)
		v->put(v->arg, -1, h->asked->address, NC_VERIFY_LOST, why);
	h->lost = true;
	h->count = 0;
}

static void
send_request(Verify *v, Host *h, NcReqTag tag, BlockNumber block, XLogRecPtr nms)
{
	NcPsRequest *req = &h->sent[(h->first + h->count) % lengthof(h->sent)];
	uint8_t		bytes[NC_REQUEST_BYTES_MAX];
	NcWriter	w = nc_writer(bytes, sizeof(bytes));

	*req = (NcPsRequest) {.tag = tag, .reqid = ++v->reqid, .request_lsn = NC_LSN_MAX,
		.not_modified_since = nms, .rel = v->key, .block = block};
	if (nc_ps_request_encode(&w, nc_guc_protocol_version, req) &&
		nc_handshake_put(h->asked->handshake, bytes, w.at - bytes) != NC_HANDSHAKE_FAILED)
		h->count++;
	else
		lose(v, h, nc_handshake_error(h->asked->handshake));
}

/* One answer, to the request that is first. */
static void
take_answer(Verify *v, Host *h, BlockNumber first, const uint8_t *body, size_t bytes)
{
	NcPsRequest *req = &h->sent[h->first];
	NcPsResponse resp;
	Version    *version;

	if (h->count == 0 || !nc_ps_response_decode(body, bytes, nc_guc_protocol_version, &resp) ||
		nc_ps_response_mismatch(&resp, req, nc_guc_protocol_version) != NULL)
	{
		lose(v, h, "an answer did not match its request");
		return;
	}
	h->first = (h->first + 1) % lengthof(h->sent);
	h->count--;
	if (req->tag == NC_REQ_NBLOCKS)
	{
		h->has_length = resp.tag == NC_RESP_NBLOCKS;
		h->nblocks = resp.nblocks;
		return;
	}
	version = &h->of[req->block - first];
	version->got = true;
	version->is_error = resp.tag == NC_RESP_ERROR;
	if (version->is_error)
		nc_text_one_line(version->text, sizeof(version->text), resp.message, resp.message_bytes);
	else
		memcpy(version->page.data, resp.page, BLCKSZ);
}

static void
receive(Verify *v, Host *h, BlockNumber first)
{
	char	   *body;
	int			n;

	if (nc_handshake_put(h->asked->handshake, NULL, 0) == NC_HANDSHAKE_FAILED)
	{
		lose(v, h, nc_handshake_error(h->asked->handshake));
		return;
	}
	while (!h->lost && (n = nc_handshake_get(h->asked->handshake, &body)) != 0)
	{
		if (n < 0)
		{
			lose(v, h, nc_handshake_error(h->asked->handshake));
			return;
		}
		take_answer(v, h, first, (const uint8_t *) body, n);
		nc_handshake_release(body);
	}
}

/* Until every page server has answered everything, or the time is over. */
static void
receive_all(Verify *v, BlockNumber first)
{
	struct pollfd *pfds = palloc0(v->all->n * sizeof(struct pollfd));
	bool		waits = true;

	/* sending has taken in what had come */
	for (uint32 i = 0; i < v->all->n; i++)
		pfds[i].revents = POLLIN;
	while (waits)
	{
		waits = false;
		for (uint32 i = 0; i < v->all->n; i++)
		{
			Host	   *h = &v->hosts[i];

			if (pfds[i].revents != 0)
				receive(v, h, first);
			if (h->count > 0 && nc_clock_us() >= v->until_us)
				lose(v, h, psprintf("no answer in %d s", v->seconds));
			pfds[i] = (struct pollfd) {.fd = h->count > 0 ? nc_handshake_socket(h->asked->handshake) : -1,
				.events = POLLIN};
			waits |= h->count > 0;
		}
		CHECK_FOR_INTERRUPTS();
		if (waits && poll(pfds, v->all->n, SLICE_MS) < 0)
			for (uint32 i = 0; i < v->all->n; i++)
				pfds[i].revents = 0;
	}
	pfree(pfds);
}

/* ---- judging ---- */

static void
found(Judgement *j, NcVerifyState state, const char *page_server, const char *fmt,...) pg_attribute_printf(4, 5);

static void
found(Judgement *j, NcVerifyState state, const char *page_server, const char *fmt,...)
{
	va_list		args;

	j->state = state;
	strlcpy(j->page_server, page_server, sizeof(j->page_server));
	va_start(args, fmt);
	vsnprintf(j->what, sizeof(j->what), fmt, args);
	va_end(args);
}

/* One version by itself: is it a page that may be? */
static bool
is_good(Verify *v, Host *h, Version *version, BlockNumber block, Judgement *j)
{
	XLogRecPtr	lsn = PageGetLSN(version->page.data);
	XLogRecPtr	end;

	if (version->is_error)
		found(j, NC_VERIFY_DAMAGED, h->asked->address, "%s", version->text);
	else if (!nc_page_is_sound(version->page.data, block))
		found(j, NC_VERIFY_DAMAGED, h->asked->address, "its header or checksum is wrong");
	else if (lsn > (end = GetFlushRecPtr(NULL)))
		found(j, NC_VERIFY_FUTURE, h->asked->address, "its LSN is %X/%X, the WAL of this compute ends at %X/%X",
			  LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(end));
	else if (!nc_empty_may_be(&v->key, block, version->page.data))
		found(j, NC_VERIFY_MISSING, h->asked->address, "it is empty, and the block has been logged");
	else
		return true;
	return false;
}

/* Of three page servers it tells who is alone. */
static uint32
page_crc(const char *page)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, page, BLCKSZ);
	FIN_CRC32C(crc);
	return crc;
}

/* Newer pages may be of different moments. */
static void
found_difference(Judgement *j, Host *a, Host *b, int index, int at, XLogRecPtr nms)
{
	XLogRecPtr	lsn_a = PageGetLSN(a->of[index].page.data);
	XLogRecPtr	lsn_b = PageGetLSN(b->of[index].page.data);
	const char *both = psprintf("%s, %s", a->asked->address, b->asked->address);

	if (lsn_a > nms || lsn_b > nms)
		found(j, NC_VERIFY_BUSY, both, "it is changed again and again");
	else
		found(j, NC_VERIFY_DIFFERS, both, "from byte %d on; LSNs %X/%X and %X/%X, CRCs %08x and %08x", at,
			  LSN_FORMAT_ARGS(lsn_a), LSN_FORMAT_ARGS(lsn_b), page_crc(a->of[index].page.data),
			  page_crc(b->of[index].page.data));
}

static void
judge(Verify *v, int index, BlockNumber block, XLogRecPtr nms, Judgement *j)
{
	Host	   *base = NULL;

	j->state = NC_VERIFY_SAME;
	for (uint32 i = 0; i < v->all->n && j->state == NC_VERIFY_SAME; i++)
	{
		Host	   *h = &v->hosts[i];
		Version    *version = &h->of[index];
		int			at;

		if (h->lost || !version->got || !is_good(v, h, version, block, j))
			continue;
		if (base == NULL)
		{
			base = h;
			continue;
		}
		at = first_difference(base->of[index].page.data, version->page.data,
							  may_be_heap(v, version->page.data));
		if (at >= 0)
			found_difference(j, base, h, index, at, nms);
	}
}

/*
 * The end of the last record, flushed: what has been flushed may end within one, and replay stops
 * before that until the rest comes.
 */
static XLogRecPtr
all_wal(void)
{
	XLogRecPtr	lsn = nc_lsn_now();

	XLogFlush(lsn);
	nc_feed_ring(lsn);
	return lsn;
}

/*
 * What it was lately, so that not every relation waits for page servers to replay what was just written.  What changed
 * since then may differ, and is asked for again.
 */
static XLogRecPtr
recent_wal(void)
{
	static XLogRecPtr lsn = InvalidXLogRecPtr;
	static uint64 taken_us = 0;
	uint64		now = nc_clock_us();

	if (XLogRecPtrIsInvalid(lsn) || now - taken_us > RECENT_US)
	{
		lsn = all_wal();
		taken_us = now;
	}
	return lsn;
}

/* Asks for the blocks of the batch that are wanted. */
static XLogRecPtr
ask_round(Verify *v, BlockNumber first, int n, const bool *wanted, bool again)
{
	XLogRecPtr	nms = again ? all_wal() : recent_wal();

	v->until_us = nc_clock_us() + (uint64) v->seconds * 1000000;
	for (int k = 0; k < n; k++)
	{
		uint32		shard = nc_shard_of_block(v->all->map.shard_count, v->all->map.stripe_blocks, &v->key,
											  first + k);

		for (uint32 i = 0; i < v->all->n && wanted[k]; i++)
		{
			Host	   *h = &v->hosts[i];

			h->of[k].got = false;
			if (!h->lost && h->asked->shards[shard])
				send_request(v, h, NC_REQ_GETPAGE, first + k, nms);
		}
	}
	receive_all(v, first);
	return nms;
}

void
nc_verify_blocks(Verify *v, BlockNumber first, int n)
{
	bool		wanted[BATCH];
	Judgement	judged[BATCH];
	int			left = n;

	memset(wanted, true, sizeof(wanted));
	for (int round = 0; round < ROUNDS && left > 0; round++)
	{
		XLogRecPtr	nms;

		if (round > 0)
			pg_usleep(ROUND_PAUSE_US);
		nms = ask_round(v, first, n, wanted, round > 0);
		for (int k = 0; k < n; k++)
		{
			if (!wanted[k])
				continue;
			judge(v, k, first + k, nms, &judged[k]);
			wanted[k] = judged[k].state != NC_VERIFY_SAME;
			left -= !wanted[k];
		}
	}
	for (int k = 0; k < n; k++)
		if (wanted[k])
			v->put(v->arg, first + k, judged[k].page_server, judged[k].state, judged[k].what);
}

static BlockNumber
our_length(Verify *v)
{
	return v->rel != NULL ? RelationGetNumberOfBlocks(v->rel) : nc_skeleton_length(&v->key);
}

/* None may be longer: what is logged lies within our length. Blocks that one lacks come as empty ones. */
void
nc_verify_lengths(Verify *v)
{
	XLogRecPtr	nms = recent_wal();
	BlockNumber ours;

	v->until_us = nc_clock_us() + (uint64) v->seconds * 1000000;
	for (uint32 i = 0; i < v->all->n; i++)
		v->hosts[i].has_length = false;
	for (uint32 i = 0; i < v->all->n; i++)
		if (!v->hosts[i].lost)
			send_request(v, &v->hosts[i], NC_REQ_NBLOCKS, 0, nms);
	receive_all(v, 0);
	ours = our_length(v);
	for (uint32 i = 0; i < v->all->n; i++)
	{
		Host	   *h = &v->hosts[i];

		if (h->has_length && h->nblocks > ours)
			v->put(v->arg, -1, h->asked->address, NC_VERIFY_LONGER,
				   psprintf("%u blocks there, %u here", h->nblocks, ours));
	}
}

/* ---- who is asked ---- */

static void
open_hosts(Verify *v)
{
	v->hosts = palloc_extended(v->all->n * sizeof(Host), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	nc_ask(v->all, NULL, v->seconds);
	for (uint32 i = 0; i < v->all->n; i++)
	{
		v->hosts[i].asked = &v->all->at[i];
		if (!v->all->at[i].answered)
			lose(v, &v->hosts[i], v->all->at[i].error);
	}
}

static Verify *
make_verify(int seconds, NcVerifyPut put, void *arg)
{
	Verify	   *v = palloc0(sizeof(Verify));
	char		err[256];

	v->put = put;
	v->arg = arg;
	v->seconds = seconds;
	v->all = palloc0(sizeof(AskedAll));
	if (!nc_ask_collect(v->all, err, sizeof(err)))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("%s", err)));
	return v;
}

Verify *
nc_verify_open(int seconds, NcVerifyPut put, void *arg)
{
	Verify	   *v = make_verify(seconds, put, arg);

	open_hosts(v);
	return v;
}

void
nc_verify_file(Verify *v, const NcRelKey *key)
{
	v->key = *key;
}

bool
nc_verify_lost(const Verify *v)
{
	for (uint32 i = 0; i < v->all->n; i++)
		if (v->hosts[i].lost)
			return true;
	return false;
}

void
nc_verify_close(Verify *v)
{
	nc_ask_end(v->all);
}

/* ---- a relation ---- */

static void
verify_relation(Verify *v, BlockNumber first, int64 blocks)
{
	BlockNumber length = our_length(v);
	BlockNumber end = blocks < 0 || first + blocks > length ? length : (BlockNumber) (first + blocks);

	open_hosts(v);
	if (first == 0)
		nc_verify_lengths(v);
	for (BlockNumber at = first; at < end; at += BATCH)
		nc_verify_blocks(v, at, (int) Min(BATCH, end - at));
}

static bool
has_heap(Relation rel)
{
	char		kind = rel->rd_rel->relkind;

	return (kind == RELKIND_RELATION || kind == RELKIND_TOASTVALUE || kind == RELKIND_MATVIEW) &&
		rel->rd_rel->relam == HEAP_TABLE_AM_OID;
}

void
nc_verify_relation(Oid relation, BlockNumber first, int64 blocks, int seconds, NcVerifyPut put, void *arg)
{
	Relation	rel = try_relation_open(relation, AccessShareLock);
	Verify	   *v;

	if (rel == NULL)
		return;					/* dropped meanwhile */
	if (!RELKIND_HAS_STORAGE(rel->rd_rel->relkind) || rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
	{
		relation_close(rel, AccessShareLock);
		return;
	}
	v = make_verify(seconds, put, arg);
	v->rel = rel;
	v->is_heap = has_heap(rel);
	v->key = nc_reln_key(RelationGetSmgr(rel), MAIN_FORKNUM);
	PG_TRY();
	{
		verify_relation(v, first, blocks);
	}
	PG_FINALLY();
	{
		nc_verify_close(v);
	}
	PG_END_TRY();
	relation_close(rel, AccessShareLock);
}
