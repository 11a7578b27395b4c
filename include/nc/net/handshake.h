/*
 * nc/net/handshake.h
 *	  From a conninfo string to a pagestream in COPY_BOTH, or to the answer of one
 *	  question, through libpq.
 *
 * handshake.c is the only file that knows libpq.  No call blocks: the caller
 * polls the socket as told and calls again.  After NC_HANDSHAKE_DONE the caller
 * takes the socket over, or OpenSSL's object on it; libpq then only closes both in
 * the end.
 */
#ifndef NC_NET_HANDSHAKE_H
#define NC_NET_HANDSHAKE_H

#include "nc/auth/tls.h"
#include "nc/net/settings.h"

typedef struct NcHandshake NcHandshake;

typedef struct NcHandshakeParams
{
	const char *conninfo;
	const char *hostaddr;		/* resolved address of its host, or NULL */
	const char *token_file;		/* "" = none */
	const char *options;		/* "" = none; told behind the options of the string */
	bool		token_in_clear; /* it may leave this machine without a verified server */
	int			protocol_version;	/* 2 or 3 */
	const char *tenant_id;
	const char *timeline_id;
	const char *question;		/* a query that is asked instead of a pagestream; NULL = none */
	const char *command;		/* one for another stream instead of a pagestream; NULL = none */
	uint32_t	user_timeout_ms;	/* TCP_USER_TIMEOUT, 0 = the system's */
} NcHandshakeParams;

typedef enum NcHandshakeStep
{
	NC_HANDSHAKE_READ,			/* call again when the socket is readable */
	NC_HANDSHAKE_WRITE,			/* ... writable */
	NC_HANDSHAKE_READ_WRITE,	/* ... either */
	NC_HANDSHAKE_DONE,
	NC_HANDSHAKE_FAILED			/* nc_handshake_error() tells why */
} NcHandshakeStep;

/* Longest token file that is read: tokens have some hundred bytes. */
#define NC_TOKEN_BYTES_MAX 8192

/* Begins. Never NULL for want of a server, only for want of memory. */
extern NcHandshake *nc_handshake_start(const NcHandshakeParams *params);

/* Goes on; the caller calls it at once after the start and then as told. */
extern NcHandshakeStep nc_handshake_advance(NcHandshake *h);

/*
 * Bytes that have come at a socket, read or not: the kernel counts them, so they are known
 * before libpq takes them.  0 for a socket in a directory, where nobody counts.
 */
extern uint64_t nc_handshake_heard(int fd);

/* True once the pagestream command was sent. */
extern bool nc_handshake_authenticated(const NcHandshake *h);

/* The socket; may be another one after each advance. -1 if there is none. */
extern int	nc_handshake_socket(const NcHandshake *h);

/* Is the established stream inside TLS? */
extern bool nc_handshake_encrypted(const NcHandshake *h);

/*
 * The TLS object of an established stream, for nc/auth/tls.h; NULL when libpq was
 * built with another library.  libpq still owns it: nc_handshake_free() frees it.
 */
extern NcTls *nc_handshake_take_tls(NcHandshake *h);

/*
 * After NC_HANDSHAKE_DONE of a question: the second column of the row that begins with this name;
 * NULL = there is none.
 */
extern const char *nc_handshake_answer(const NcHandshake *h, const char *name);

/* When the certificate of the peer ends, in seconds since 1970; false without TLS. */
NC_MUST_USE extern bool nc_handshake_certificate_until(const NcHandshake *h, int64_t *until_s);

/* One line, without control characters. */
extern const char *nc_handshake_error(const NcHandshake *h);

/* Closes the socket, too. */
extern void nc_handshake_free(NcHandshake *h);

/*
 * What libpq has read behind CopyBoth: the body of one CopyData, freed with
 * nc_handshake_release().  Its length, 0 = nothing, < 0 = the stream is over, see error.
 */
extern int	nc_handshake_get(NcHandshake *h, char **body);
extern void nc_handshake_release(char *body);

/*
 * Sends one CopyData by libpq, whose stream it then has to stay; NULL goes on with what is
 * left of earlier ones.  Takes in what has come, for nc_handshake_get().  DONE: all is sent.
 */
NC_MUST_USE extern NcHandshakeStep nc_handshake_put(NcHandshake *h, const void *body, size_t bytes);

/* ---- conninfo strings ---- */

typedef struct NcConninfoParts
{
	char		host[256];		/* what has to be resolved, or "" if nothing has */
	char		address[128];	/* host:port for people */
	char		options[512];	/* of the start-up packet, "" = none */
	bool		has_dbname;
	bool		sends_password; /* it has one, or a file of passwords */
	bool		has_password;	/* as above, or a key's password */
	bool		has_service;	/* which may add to it whatever it likes */
	bool		is_local;		/* leads to this machine only, "localhost" by its name */
	bool		verifies;		/* sslmode=verify-full */
} NcConninfoParts;

/*
 * Picks a conninfo string apart; false and a reason when libpq does not accept it (then all
 * parts are empty), or when its options are too long (then all but those are there).
 */
NC_MUST_USE extern bool nc_conninfo_parts(const char *conninfo, NcConninfoParts *parts,
										  char *err, size_t err_bytes);

/* Hosts that one string may name, and what the string of one of them may take. */
#define NC_HOSTS_MAX 8
#define NC_HOST_CONNINFO_BYTES 1024

/*
 * How many hosts a string names, at least one, and the string of the host with this index,
 * which names no other: all else in it is the same.  A string that names one, or that libpq
 * does not accept, is copied as it is.
 */
extern uint32_t nc_conninfo_host(const char *conninfo, uint32_t index, char *out, size_t bytes);

/*
 * Would libpq try to connect by this string?  libpq itself judges all of it: keywords, ports,
 * modes.  False and a reason, which repeats nothing of the string, if not.  Any process; resolves
 * no name and reaches no host.
 */
NC_MUST_USE extern bool nc_conninfo_check(const char *conninfo, NcConninfoParts *parts,
										  char *err, size_t err_bytes);

/*
 * The file where libpq looks for a password when a string has neither one nor a file; false if
 * there is none that this process can read.
 */
NC_MUST_USE extern bool nc_conninfo_home_passfile(char *path, size_t bytes);

/* Makes one line of a text from outside: control characters become blanks, ends trimmed. */
extern void nc_text_one_line(char *out, size_t out_bytes, const char *text, size_t text_bytes);

#endif							/* NC_NET_HANDSHAKE_H */
