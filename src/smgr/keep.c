/*
 * keep.c
 *	  Which pages must stay on the compute (docs/local_pages.md), decided from the bytes
 *	  of the page and a conservative horizon.  Any process; allocates nothing,
 *	  reads no catalog, and never asks multixact or subtransaction code, because
 *	  it runs in the checkpointer and the background writer too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "storage/procarray.h"
#include "storage/bufpage.h"
#include "storage/proc.h"

#include "nc/base/clock.h"
#include "nc/smgr/keep.h"

/* The LSN that bootstrap gives to its pages; every page server has them in its seed. */
#define BOOTSTRAP_LSN 0x28

/* Magic number in the special space of a sequence, commands/sequence.c. */
#define SEQUENCE_MAGIC 0x1717

/* A horizon this old is still right (it only keeps more) and spares the scan, microseconds. */
#define HORIZON_REUSE_US 20000

bool
nc_page_is_zero(const char *page)
{
	const uint64 *w = (const uint64 *) page;

	for (size_t i = 0; i < BLCKSZ / sizeof(uint64); i++)
		if (w[i] != 0)
			return false;
	return true;
}

bool
nc_page_was_not_logged(const char *page)
{
	XLogRecPtr	lsn = PageGetLSN(unconstify(char *, page));

	return lsn != BOOTSTRAP_LSN && lsn < (XLogRecPtr) wal_segment_size;
}

static uint32
special_bytes(const char *page)
{
	uint16		special = ((PageHeader) unconstify(char *, page))->pd_special;

	return special <= BLCKSZ ? BLCKSZ - special : 0;
}

bool
nc_page_is_sequence(const char *page, BlockNumber block)
{
	return block == 0 && special_bytes(page) == MAXALIGN(sizeof(uint32)) &&
		*(const uint32 *) (page + BLCKSZ - MAXALIGN(sizeof(uint32))) == SEQUENCE_MAGIC;
}

bool
nc_page_lsn_may_lag(const char *page)
{
	PageHeader	header = (PageHeader) unconstify(char *, page);

	return header->pd_special == BLCKSZ && (header->pd_flags & PD_ALL_VISIBLE) != 0;
}

FullTransactionId
nc_keep_horizon(void)
{
	static FullTransactionId cached;
	static uint64 cached_at = 0;
	uint64		now = nc_clock_us();
	FullTransactionId next;
	TransactionId oldest;

	if (cached_at != 0 && now - cached_at < HORIZON_REUSE_US)
		return cached;

	/*
	 * Every xid below next has been advertised in its PGPROC before
	 * XidGenLock was released, so one not seen below has ended.  A process's
	 * own entry counts like any other: the checkpointer must not take the
	 * first one for itself.
	 */
	next = ReadNextFullTransactionId();
	pg_memory_barrier();
	oldest = XidFromFullTransactionId(next);
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		TransactionId xid = *(volatile TransactionId *) &proc->xid;

		if (*(volatile int *) &proc->pid != 0 && TransactionIdIsNormal(xid) &&
			TransactionIdPrecedes(xid, oldest))
			oldest = xid;
	}
	cached = FullTransactionIdFromU64(U64FromFullTransactionId(next) -
									  (uint32) (XidFromFullTransactionId(next) - oldest));
	cached_at = now;
	return cached;
}

/*
 * The relation that this process has extended last, and in which transaction.  Who
 * builds an index extends it, and CREATE INDEX CONCURRENTLY has no xid meanwhile.
 */
static NcRelKey extended_rel;
static LocalTransactionId extended_in = InvalidLocalTransactionId;

void
nc_keep_note_extended(const NcRelKey *rel)
{
	extended_rel = *rel;
	extended_in = MyProc != NULL ? NC_PROC_LXID(MyProc) : InvalidLocalTransactionId;
}

/* Has the transaction that runs in this process now extended anything? */
static bool
may_be_building(void)
{
	return MyProc != NULL && LocalTransactionIdIsValid(extended_in) && extended_in == NC_PROC_LXID(MyProc);
}

bool
nc_keep_snapshot_open(FullTransactionId until)
{
	bool		own_counts = may_be_building();

	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		TransactionId xmin = *(volatile TransactionId *) &proc->xmin;

		if ((proc != MyProc || own_counts) && TransactionIdIsNormal(xmin) &&
			TransactionIdPrecedesOrEquals(xmin, XidFromFullTransactionId(until)))
			return true;
	}
	return false;
}

bool
nc_keep_vacuum_running(void)
{
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];

		if (proc->pid != 0 && (*(volatile uint8 *) &proc->statusFlags & PROC_IN_VACUUM) != 0)
			return true;
	}
	return false;
}

/* Could a transaction that is not over have this xid? Lazily asks for the horizon. */
static bool
xid_may_live(TransactionId xid)
{
	if (!TransactionIdIsNormal(xid))
		return false;
	return TransactionIdFollowsOrEquals(xid, XidFromFullTransactionId(nc_keep_horizon()));
}

/* Does this tuple hold memory of a live transaction that heap WAL does not carry? */
static bool
tuple_has_live_command_id(HeapTupleHeader tup)
{
	bool		speculative = HeapTupleHeaderIsSpeculative(tup);

	if ((tup->t_infomask & HEAP_MOVED) != 0)
		return false;
	if (tup->t_choice.t_heap.t_field3.t_cid == 0 && (tup->t_infomask & HEAP_COMBOCID) == 0 &&
		!speculative)
		return false;

	if ((tup->t_infomask & (HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID)) == 0 &&
		xid_may_live(HeapTupleHeaderGetRawXmin(tup)))
		return true;
	if ((tup->t_infomask & HEAP_XMAX_INVALID) != 0)
		return false;
	if ((tup->t_infomask & HEAP_XMAX_IS_MULTI) != 0)
		return true;			/* its members cannot be asked for here */
	return xid_may_live(HeapTupleHeaderGetRawXmax(tup));
}

static bool
heap_page_has_live_command_id(const char *page)
{
	PageHeader	header = (PageHeader) unconstify(char *, page);
	int			nitems;

	if (header->pd_special != BLCKSZ || header->pd_lower < SizeOfPageHeaderData ||
		header->pd_lower > header->pd_upper || header->pd_upper > BLCKSZ)
		return false;
	nitems = (header->pd_lower - SizeOfPageHeaderData) / sizeof(ItemIdData);
	for (int i = 0; i < nitems; i++)
	{
		ItemId		lp = &header->pd_linp[i];

		if (!ItemIdIsNormal(lp) ||
			ItemIdGetOffset(lp) + SizeofHeapTupleHeader > BLCKSZ)
			continue;
		if (tuple_has_live_command_id((HeapTupleHeader) (unconstify(char *, page) + ItemIdGetOffset(lp))))
			return true;
	}
	return false;
}

/* A heap page that was found to be sound, with a tuple that this transaction made or deleted? */
static bool
heap_page_is_own(const char *page)
{
	PageHeader	header = (PageHeader) unconstify(char *, page);
	int			nitems = (header->pd_lower - SizeOfPageHeaderData) / sizeof(ItemIdData);

	for (int i = 0; i < nitems; i++)
	{
		ItemId		lp = &header->pd_linp[i];
		HeapTupleHeader tup = (HeapTupleHeader) (unconstify(char *, page) + ItemIdGetOffset(lp));

		if (!ItemIdIsNormal(lp) || ItemIdGetOffset(lp) + SizeofHeapTupleHeader > BLCKSZ)
			continue;
		if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tup)) ||
			TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmax(tup)))
			return true;
	}
	return false;
}

bool
nc_keep_is_own(const NcRelKey *rel, const char *page, NcKeep why)
{
	if (RecoveryInProgress())
		return false;
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return why == NC_KEEP_LOW_LSN && may_be_building() && nc_rel_key_equal(rel, &extended_rel);
	return why != NC_KEEP_COMMAND_ID || heap_page_is_own(page);
}

static bool
btree_page_has_cycle_id(const char *page)
{
	uint16		cycle_id;

	if (special_bytes(page) != MAXALIGN(sizeof(BTPageOpaqueData)))
		return false;
	cycle_id = *(const uint16 *) (page + BLCKSZ - sizeof(uint16));
	return cycle_id >= 1 && cycle_id <= MAX_BT_CYCLE_ID;
}

NcKeep
nc_keep_page(const char *page, BlockNumber block, XLogRecPtr born,
			 FullTransactionId *keep_until)
{
	XLogRecPtr	lsn = PageGetLSN(unconstify(char *, page));
	NcKeep		why = NC_KEEP_NOT;

	if (nc_page_was_not_logged(page) || lsn < born)
	{
		if (PageIsNew(unconstify(char *, page)) && nc_page_is_zero(page))
			return NC_KEEP_NOT;
		why = NC_KEEP_LOW_LSN;
	}
	else if (RecoveryInProgress())
		return NC_KEEP_NOT;		/* the owners of all command ids are dead */
	else if (nc_page_is_sequence(page, block))
		why = NC_KEEP_SEQUENCE;
	else if (heap_page_has_live_command_id(page))
		why = NC_KEEP_COMMAND_ID;
	else if (btree_page_has_cycle_id(page) && nc_keep_vacuum_running())
		why = NC_KEEP_CYCLE_ID;

	if (why != NC_KEEP_NOT)
		*keep_until = ReadNextFullTransactionId();
	return why;
}
