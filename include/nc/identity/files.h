/*
 * nc/identity/files.h
 *	  What a compute and a page server keep about themselves, as text and on disk.
 *
 * Both files are small text; what is not understood is refused, never guessed.
 * Whole files are written by write, fsync, rename, fsync of the directory.  Beside
 * each stays a spare one, NAME.new, with the text before: it has the blocks that the
 * next text is written to, so a full disk does not keep a server from coming up
 * again.  The directory is fsynced before the spare one is written to as well, since on disk
 * that may have the name still.  One process writes at a time: the postmaster or the
 * feed, the postmaster or the walreceiver, the startup process or the walreceiver.
 */
#ifndef NC_IDENTITY_FILES_H
#define NC_IDENTITY_FILES_H

#include "nc/identity/identity.h"
#include "nc/identity/join.h"

#define NC_COMPUTE_IDENTITY "compute_identity"
#define NC_COMPUTE_TAKEOVER "compute_takeover"
#define NC_MEMBER_IDENTITY "page_service_identity"
#define NC_MEMBER_TAKEOVER "page_service_takeover"
#define NC_MEMBER_MOVED "page_service_moved"
#define NC_MEMBER_UNJUDGED "page_service_unjudged"
#define NC_MEMBER_PROMISE "page_service_promise"
#define NC_COMPUTE_MEMBERS "compute_members"

/* Larger files are refused before they are read. */
#define NC_IDENTITY_FILE_BYTES_MAX (2 * 1024 * 1024)

/* Where a data directory is, as one word. */
#define NC_PLACE_BYTES 128

/* The last session that was given to a member, and by which incarnation. */
typedef struct NcSession
{
	NcId		member;
	NcId		incarnation;
	NcChain		chain;
} NcSession;

/* compute_identity */
typedef struct NcComputeIdentity
{
	NcId		birth;
	char		place[NC_PLACE_BYTES];
	NcLineage	lineage;		/* the last one is the present one */
	/*
	 * The directory was laid from a page server: sessions of this incarnation, the last one that page server
	 * knew, and of earlier ones were given by a directory that is lost.  None: it was not.
	 */
	NcId		booted;
	NcPartedList parted;		/* members */
	uint32_t	nsessions;		/* as many as there is room for: others may be forgotten */
	NcSession	sessions[NC_SESSIONS_MAX];
} NcComputeIdentity;

/* NULL = none is remembered. */
extern const NcSession *nc_session_find(const NcComputeIdentity *identity, const NcId *member);

/* The next session of a member with the present incarnation; its random number is the caller's. */
extern NcChain nc_session_give(NcComputeIdentity *identity, const NcId *member, uint64_t random);

/* page_service_identity */
typedef struct NcMemberIdentity
{
	NcId		member;
	char		place[NC_PLACE_BYTES];
	NcId		birth;			/* none: has not followed a compute yet */
	uint32_t	timeline;		/* 0 = as above */
	NcLineage	followed;
	NcChain		chain;
	NcPartedList refused;		/* incarnations */
	bool		promoted;
} NcMemberIdentity;

/* A record, as far as another one can be told from it. */
typedef struct NcWalRecord
{
	NcLsn		start;
	uint8_t		header[NC_WAL_HEADER_BYTES];
} NcWalRecord;

/*
 * page_service_unjudged: WAL was replayed since the last agreement.  While it is replayed the text is
 * empty, as that of earlier versions always was.
 */
typedef struct NcUnjudgedWal
{
	bool		ends;			/* last is known, and nothing was replayed since */
	NcWalRecord last;
} NcUnjudgedWal;

/* These return NULL, or what is wrong with the text. */
NC_MUST_USE extern const char *nc_compute_identity_parse(const char *text, size_t bytes,
														 NcComputeIdentity *out);
NC_MUST_USE extern const char *nc_member_identity_parse(const char *text, size_t bytes,
														NcMemberIdentity *out);
NC_MUST_USE extern const char *nc_unjudged_parse(const char *text, size_t bytes, NcUnjudgedWal *out);

/* These return the length; 0: does not fit. NC_IDENTITY_FILE_BYTES_MAX are always enough. */
extern size_t nc_compute_identity_write(const NcComputeIdentity *identity, char *to, size_t room);
extern size_t nc_member_identity_write(const NcMemberIdentity *identity, char *to, size_t room);

/* The length, which may be 0. */
#define NC_UNJUDGED_BYTES_MAX 128
extern size_t nc_unjudged_write(const NcUnjudgedWal *wal, char to[NC_UNJUDGED_BYTES_MAX]);

/* ---- on disk; names are relative to `directory`, errors are errno ---- */

typedef enum NcFileResult
{
	NC_FILE_OK,
	NC_FILE_ABSENT,
	NC_FILE_INVALID,			/* *why says what is wrong */
	NC_FILE_ERROR				/* errno says */
} NcFileResult;

NC_MUST_USE extern NcFileResult nc_compute_identity_load(const char *directory,
														 NcComputeIdentity *out, const char **why);
NC_MUST_USE extern NcFileResult nc_member_identity_load(const char *directory,
														NcMemberIdentity *out, const char **why);
NC_MUST_USE extern NcFileResult nc_promise_load(const char *directory, const char *name, NcPromise *out,
											   const char **why);
NC_MUST_USE extern NcFileResult nc_unjudged_load(const char *directory, NcUnjudgedWal *out,
												 const char **why);

/* Durable when they return true; otherwise errno says why not, and the old file stands. */
NC_MUST_USE extern bool nc_compute_identity_save(const char *directory,
												 const NcComputeIdentity *identity);
NC_MUST_USE extern bool nc_member_identity_save(const char *directory,
												const NcMemberIdentity *identity);
NC_MUST_USE extern bool nc_promise_save(const char *directory, const char *name, const NcPromise *promise);
NC_MUST_USE extern bool nc_unjudged_save(const char *directory, const NcUnjudgedWal *wal);

/*
 * Where the directory is now: machine id, inode, time of birth; the file system's id instead of
 * a time of birth where it has none. False: errno.
 */
NC_MUST_USE extern bool nc_place_of(const char *directory, char place[NC_PLACE_BYTES]);

/*
 * The word that a takeover file must hold to let the directory start at `place`: it names both
 * places, so that a file left by an earlier takeover, or copied along, allows nothing. Eight digits.
 */
#define NC_TAKEOVER_WORD 9
extern char *nc_takeover_word(const char *kept, const char *place, char word[NC_TAKEOVER_WORD]);

/* Does the takeover file `name` hold this word? */
NC_MUST_USE extern bool nc_takeover_granted(const char *directory, const char *name,
											const char *word);

/* Removes it, once the new place has been saved. False: errno. */
extern bool nc_takeover_done(const char *directory, const char *name);

#endif							/* NC_IDENTITY_FILES_H */
