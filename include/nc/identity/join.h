/*
 * nc/identity/join.h
 *	  NEON_COMM_JOIN and its answer as text.
 */
#ifndef NC_IDENTITY_JOIN_H
#define NC_IDENTITY_JOIN_H

#include "nc/identity/identity.h"
#include "nc/identity/members.h"
#include "nc/identity/wal_record.h"

#define NC_JOIN_COMMAND "NEON_COMM_JOIN"

/* How a feed begins to answer what it does not understand: it may be of another version. */
#define NC_JOIN_MALFORMED "malformed " NC_JOIN_COMMAND

/* Room for the command and for the answer. */
#define NC_JOIN_BYTES_MAX 512
#define NC_JOIN_ANSWER_BYTES_MAX (60 * 1024)

/* Incarnations in one answer, the newest; so many restarts may pass between two joins of a page server. */
#ifndef NC_JOIN_LINEAGE_MAX
#define NC_JOIN_LINEAGE_MAX 500
#endif

#define NC_JOIN_TEXT_BYTES 600

/* The (number, random) of a session; number 0 = none yet. */
typedef struct NcChain
{
	uint64_t	number;
	uint64_t	random;
} NcChain;

/* What a page server tells of its content. */
typedef struct NcEvidence
{
	uint64_t	system_identifier;
	uint32_t	timeline;
	NcId		birth;			/* none: has not followed a compute yet */
	NcId		member;
	NcId		incarnation;	/* the one followed last; none as above */
	NcLsn		start;			/* of the last record replayed */
	NcLsn		end;
	uint8_t		header[NC_WAL_HEADER_BYTES];
	NcChain		chain;
	char		name[NC_MEMBER_NAME_BYTES];	/* its slot, for messages; "" = not known */
	NcId		promised;		/* it belongs to this incarnation and newer ones; none: no promise */
} NcEvidence;

/* Writes the command; its length. `to` has NC_JOIN_BYTES_MAX bytes. */
extern size_t nc_join_write(const NcEvidence *evidence, char *to);

/* False: not exactly a command of this kind. */
NC_MUST_USE extern bool nc_join_parse(const char *text, NcEvidence *out);

typedef enum NcVerdictKind
{
	NC_JOINED,
	NC_PARTED,					/* two histories; for good, both sides remember it */
	NC_REFUSED					/* not now: may pass, or somebody has to do something */
} NcVerdictKind;

/* The answer. */
typedef struct NcJoinAnswer
{
	NcVerdictKind kind;
	NcId		birth;			/* of the compute */
	NcIncarnation present;		/* of the compute; began 0 = in recovery */

	/* Joined: from the page server's own incarnation to the present one, and its session. */
	NcLineage	lineage;
	NcChain		chain;
	NcMemberLists members;		/* of the compute, if it knows them */

	/* Otherwise: what to log and to tell clients. */
	char		message[NC_JOIN_TEXT_BYTES];
	char		detail[NC_JOIN_TEXT_BYTES];
	char		hint[NC_JOIN_TEXT_BYTES];
} NcJoinAnswer;

/* Its length; 0: does not fit in `room`. */
extern size_t nc_join_answer_write(const NcJoinAnswer *answer, char *to, size_t room);

/* False: not exactly an answer. The text need not end with a NUL. */
NC_MUST_USE extern bool nc_join_answer_parse(const char *text, size_t bytes, NcJoinAnswer *out);

/* The value of the setting in the start-up packet's options: <birth>.<incarnation>, 65 characters. */
#define NC_READER_SETTING "neon_comm_identity"
#define NC_READER_TEXT 66

typedef struct NcReaderIdentity
{
	NcId		birth;
	NcId		incarnation;
} NcReaderIdentity;

extern char *nc_reader_text(const NcReaderIdentity *reader, char *to);
NC_MUST_USE extern bool nc_reader_parse(const char *text, NcReaderIdentity *out);

/*
 * Finds "-c neon_comm_identity=..." in the options of a start-up packet. 1: there and right,
 * 0: not there, -1: there and wrong.
 */
NC_MUST_USE extern int nc_reader_from_options(const char *options, NcReaderIdentity *out);

#endif							/* NC_IDENTITY_JOIN_H */
