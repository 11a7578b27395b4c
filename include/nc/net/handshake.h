/*
 * nc/net/handshake.h
 *	  From a conninfo string to a pagestream in COPY_BOTH, through libpq, and
 *	  the libpq calls of streams that stay inside TLS.
 *
 * handshake.c is the only file that knows libpq.  No call blocks: the caller
 * polls the socket as told and calls again.  Without TLS the caller takes the
 * socket over after NC_HANDSHAKE_DONE; libpq then only closes it in the end.
 */
#ifndef NC_NET_HANDSHAKE_H
#define NC_NET_HANDSHAKE_H

#include "nc/base/check.h"

typedef struct NcHandshake NcHandshake;

typedef struct NcHandshakeParams
{
	const char *conninfo;
	const char *hostaddr;		/* resolved address of its host, or NULL */
	const char *password_file;	/* "" = none */
	int			protocol_version;	/* 2 or 3 */
	const char *tenant_id;
	const char *timeline_id;
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

/* Longest password file that is read: tokens have some hundred bytes. */
#define NC_PASSWORD_BYTES_MAX 8192

/* Begins. Never NULL for want of a server, only for want of memory. */
extern NcHandshake *nc_handshake_start(const NcHandshakeParams *params);

/* Goes on; the caller calls it at once after the start and then as told. */
extern NcHandshakeStep nc_handshake_advance(NcHandshake *h);

/* True once the pagestream command was sent. */
extern bool nc_handshake_authenticated(const NcHandshake *h);

/* The socket; may be another one after each advance. -1 if there is none. */
extern int	nc_handshake_socket(const NcHandshake *h);

/* Is the established stream inside TLS? */
extern bool nc_handshake_tls(const NcHandshake *h);

/* One line, without control characters. */
extern const char *nc_handshake_error(const NcHandshake *h);

/* Closes the socket, too. */
extern void nc_handshake_free(NcHandshake *h);

/* ---- streams inside TLS: results are > 0, 0 = would block, < 0 = dead, see error ---- */

/* Queues the body of one CopyData. */
extern int	nc_handshake_put(NcHandshake *h, const void *body, size_t bytes);

/* Sends what is queued: 1 = all sent. */
extern int	nc_handshake_flush(NcHandshake *h);

/* Reads from the socket what is there. */
extern int	nc_handshake_consume(NcHandshake *h);

/* Takes the next CopyData body; *body is freed with nc_handshake_release(). */
extern int	nc_handshake_get(NcHandshake *h, char **body);
extern void nc_handshake_release(char *body);

/* ---- conninfo strings ---- */

typedef struct NcConninfoParts
{
	char		host[256];		/* what has to be resolved, or "" if nothing has */
	char		address[128];	/* host:port for people */
	bool		has_dbname;
} NcConninfoParts;

/* Picks a conninfo string apart; false and a reason when libpq does not accept it. */
NC_MUST_USE extern bool nc_conninfo_parts(const char *conninfo, NcConninfoParts *parts,
										  char *err, size_t err_bytes);

/* Makes one line of a text from outside: control characters become blanks, ends trimmed. */
extern void nc_text_one_line(char *out, size_t out_bytes, const char *text, size_t text_bytes);

#endif							/* NC_NET_HANDSHAKE_H */
