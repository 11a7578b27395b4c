/*
 * nc/identity/members.h
 *	  Page servers that count for takeovers, what they promise, and the order of
 *	  incarnations (docs/takeover.md).
 *
 * Plain values and their text.  An ordered incarnation carries its number in its
 * id, so that whoever knows two of them knows which is newer.
 */
#ifndef NC_IDENTITY_MEMBERS_H
#define NC_IDENTITY_MEMBERS_H

#include "nc/identity/identity.h"

/* A slot name is one word. */
#define NC_MEMBER_NAME_BYTES 64

#define NC_MEMBERS_MAX 128

/* ---- the order of incarnations ---- */

/* False: it is not ordered, as those of computes without a write quorum. */
NC_MUST_USE extern bool nc_id_number(const NcId *id, uint32_t *number);

/* With this number, which is not 0, and random bytes behind it; false: the kernel has none to give. */
NC_MUST_USE extern bool nc_id_make_numbered(NcId *id, uint32_t number);

/* Both are ordered, and a is the newer one. */
extern bool nc_id_newer(const NcId *a, const NcId *b);

/* ---- members ---- */

typedef struct NcMember
{
	NcId		id;				/* of the page server's directory */
	char		name[NC_MEMBER_NAME_BYTES]; /* its slot */
} NcMember;

typedef struct NcMembers
{
	uint32_t	write_quorum;	/* so many of them have to confirm; 0 = members are not known */
	uint32_t	n;
	NcMember	at[NC_MEMBERS_MAX];
} NcMembers;

/*
 * Those that count, by the entries of a log.  A change is two entries: from the first one on both lists count,
 * from the second one on the list that it has in `now` alone.  Compared as bytes.
 */
typedef struct NcMemberLists
{
	uint32_t	change;			/* one higher with each entry */
	uint32_t	decided;		/* of a compute only: its log may have the second entry already */
	NcMembers	now;
	NcMembers	next;			/* both count; write quorum 0: no change goes on */
} NcMemberLists;

static inline bool
nc_members_change(const NcMemberLists *lists)
{
	return lists->next.write_quorum != 0;
}

/* The first entry; no change goes on. */
extern void nc_members_first(NcMemberLists *lists, const NcMembers *next);

/* The second one, or that which takes the first one back. */
extern void nc_members_second(NcMemberLists *lists, bool back);

/* NULL = is none. */
extern const NcMember *nc_member_find(const NcMembers *members, const NcId *id);

/* In one of the lists that count. */
extern const NcMember *nc_member_of_any(const NcMemberLists *lists, const NcId *id);

/* Any two write quorums and takeovers have one in common. */
static inline uint32_t
nc_members_takeover(const NcMembers *members)
{
	return members->n - members->write_quorum + 1;
}

/* ---- what is written down: page_service_promise, and compute_members without a promise ---- */

typedef struct NcPromise
{
	NcId		promised;		/* nothing is taken from, confirmed or granted to an older one; none: no promise */
	NcMemberLists members;
} NcPromise;

/* The length; 0: does not fit. */
#define NC_PROMISE_BYTES_MAX (32 * 1024)
extern size_t nc_promise_write(const NcPromise *promise, char *to, size_t room);

/* An entry of the log begins so; behind it is what counts from there on. Written: the length; 0: does not fit. */
#define NC_MEMBERS_ENTRY "neon_comm members 1\n"
extern size_t nc_members_write(const NcMemberLists *lists, char *to, size_t room);
NC_MUST_USE extern bool nc_members_parse(const char *text, size_t bytes, NcMemberLists *out);

/* NULL, or what is wrong with the text. */
NC_MUST_USE extern const char *nc_promise_parse(const char *text, size_t bytes, NcPromise *out);

#endif							/* NC_IDENTITY_MEMBERS_H */
