/*
 * empty.c
 *	  Which blocks inside a relation's length page servers may have nothing of.
 *
 * A page server answers for a block that it does not have with a page of zeroes.
 * That is right for a block that was added to the file and never logged, and a loss
 * for every other.  So a block that is added without content gets a mark in the
 * skeleton file, by the very write that makes the file longer, and keeps it
 * until its page is dropped with an LSN.  The mark is the truth; the bits in the
 * index of local blocks only say where marks are to be taken away.
 *
 * Lost bits, a crash in between, a mark left behind: all make the check
 * milder, never an error out of nothing.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "port/pg_crc32c.h"
#include "storage/bufpage.h"

#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/local.h"
#include "nc/smgr/skeleton.h"

typedef struct Mark
{
	char		magic[8];
	uint32		block;
	uint32		crc;
} Mark;

StaticAssertDecl(sizeof(Mark) == NC_EMPTY_MARK_BYTES, "a mark fills its place");

void
nc_empty_make_mark(BlockNumber block, char mark[NC_EMPTY_MARK_BYTES])
{
	Mark		m = {.block = block};

	memcpy(m.magic, "nc-empty", sizeof(m.magic));
	INIT_CRC32C(m.crc);
	COMP_CRC32C(m.crc, &m, offsetof(Mark, crc));
	FIN_CRC32C(m.crc);
	memcpy(mark, &m, sizeof(m));
}

bool
nc_empty_is_mark(const char *content, BlockNumber block)
{
	char		mark[NC_EMPTY_MARK_BYTES];
	static const char zeroes[SizeOfPageHeaderData];

	/* a user may write anything into the last tuple of a page, but no page without a header */
	nc_empty_make_mark(block, mark);
	return memcmp(content + NC_EMPTY_MARK_AT, mark, sizeof(mark)) == 0 &&
		memcmp(content, zeroes, sizeof(zeroes)) == 0;
}

bool
nc_empty_says(const char *content, BlockNumber block)
{
	return nc_page_was_not_logged(content) && !nc_page_is_zero(content);
}

bool
nc_empty_known(const NcRelKey *rel, BlockNumber block)
{
	PGAlignedBlock content;

	return nc_skeleton_pread(rel, block, content.data) && nc_empty_says(content.data, block);
}

bool
nc_empty_may_be(const NcRelKey *rel, BlockNumber block, const char *page)
{
	/* what is not all zero is judged by its checksum and LSN */
	return !PageIsNew(unconstify(char *, page)) || !nc_page_is_zero(page) ||
		nc_shared->empty_marked == 0 || RecoveryInProgress() || nc_empty_known(rel, block);
}

/* The page has been logged, if it is durable here, and needs no mark any more. */
static void
take_mark(const NcRelKey *rel, BlockNumber block)
{
	NcLocalRef	ref;

	if (RecoveryInProgress() || nc_local_look(rel, block) != NC_BLOCK_EMPTY)
		return;
	nc_local_begin_change(rel, block, &ref);
	if (ref.chunk != NULL && (ref.chunk->empty & ref.bit) != 0)
	{
		nc_local_clear(&ref);
		nc_skeleton_punch(rel, block, 1);
	}
	nc_local_end(&ref);
}

void
nc_empty_check(const NcRelKey *rel, BlockNumber block, const char *page, bool may_have_mark)
{
	char		shard[NC_RING_ERROR_BYTES];

	if (!PageIsNew(unconstify(char *, page)))
	{
		if (may_have_mark)
			take_mark(rel, block);
		return;
	}
	if (nc_empty_may_be(rel, block, page))
		return;
	nc_stat(NC_COUNTER_MISSING_ANSWERS, 1);
	if (nc_guc_accept_missing_pages)
		return;
	nc_describe_shard(rel, block, shard, sizeof(shard));
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("page server does not have block %u of relation %u/%u/%u", block, rel->spc,
					rel->db, rel->rel),
			 errdetail("It answered with an empty page, but the block has been logged; the relation has %u blocks here. Asked was %s.",
					   nc_skeleton_length(rel), shard),
			 errhint("The page was not used. The page server has lost data; see docs/operations.md, \"An answer was refused\".")));
}

void
nc_empty_wipe(const NcRelKey *rel)
{
	BlockNumber length = nc_skeleton_length(rel);
	PGAlignedBlock content;
	NcLocalRef	ref;

	for (BlockNumber block = nc_skeleton_next_data(rel, 0); block < length;
		 block = nc_skeleton_next_data(rel, block + 1))
	{
		nc_local_begin_change(rel, block, &ref);
		if (nc_skeleton_pread(rel, block, content.data) && nc_empty_is_mark(content.data, block))
		{
			NC_TEST_POINT_REL("unlogged-wipe", rel->rel);
			nc_skeleton_punch(rel, block, 1);
		}
		nc_local_end(&ref);
	}
}
