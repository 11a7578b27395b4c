/*
 * nc/compat/page.h
 *	  Would the buffer manager take this page?
 */
#ifndef NC_COMPAT_PAGE_H
#define NC_COMPAT_PAGE_H

#include "postgres.h"

#include "access/xlog.h"
#include "storage/bufpage.h"
#include "storage/checksum.h"

static inline bool
nc_page_header_is_sane(const PageHeaderData *p)
{
	return (p->pd_flags & ~PD_VALID_FLAG_BITS) == 0 && p->pd_lower <= p->pd_upper &&
		p->pd_upper <= p->pd_special && p->pd_special <= BLCKSZ &&
		p->pd_special == MAXALIGN(p->pd_special);
}

/*
 * As PageIsVerifiedExtended(), but for everybody: ignore_checksum_failure lets the
 * session that sets it see a damaged page, and nobody after it.  No report, no error.
 */
static inline bool
nc_page_is_sound(const char *page, BlockNumber block)
{
	const PageHeaderData *header = (const PageHeaderData *) page;

	if (header->pd_upper != 0)
		return nc_page_header_is_sane(header) &&
			(!DataChecksumsEnabled() ||
			 pg_checksum_page(unconstify(char *, page), block) == header->pd_checksum);
	for (size_t i = 0; i < BLCKSZ / sizeof(size_t); i++)
		if (((const size_t *) page)[i] != 0)
			return false;
	return true;
}

#endif							/* NC_COMPAT_PAGE_H */
