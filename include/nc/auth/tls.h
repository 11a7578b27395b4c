/*
 * nc/auth/tls.h
 *	  TLS on non-blocking sockets: the server's certificate, and bytes in and out
 *	  for server and client alike.
 *
 * No call blocks.  A result > 0 is a number of bytes (or, of the handshake, the
 * end of it); 0 means that the socket must become readable, or writable if
 * nc_tls_wants_write() says so, before the same call is made again; < 0 means
 * that the connection is over, and NcTlsFault.text why.
 *
 * Bytes may be inside the TLS library that polling the socket does not show:
 * whoever goes to sleep asks nc_tls_pending() before.
 */
#ifndef NC_AUTH_TLS_H
#define NC_AUTH_TLS_H

#include <sys/types.h>

#include "nc/base/check.h"

/* OpenSSL's objects. */
typedef struct ssl_ctx_st NcTlsContext;
typedef struct ssl_st NcTls;

/* Why a connection is over; "" after an orderly end by the peer. */
typedef struct NcTlsFault
{
	char		text[160];
} NcTlsFault;

/*
 * Reads certificate chain and key.  The key must be readable by its owner only
 * (or by the group too, if it belongs to root) and have no passphrase.  TLS 1.2
 * or later; no renegotiation, no compression, no session resumption.
 * NULL and a reason that names the file.
 */
NC_MUST_USE extern NcTlsContext *nc_tls_context_load(const char *cert_file, const char *key_file,
													 char *err, size_t err_bytes);

/* Connections that were made with it go on. */
extern void nc_tls_context_free(NcTlsContext *context);

/* A server's end of TLS on a socket; NULL when there is no memory. */
NC_MUST_USE extern NcTls *nc_tls_start(NcTlsContext *context, int fd);

extern int	nc_tls_handshake(NcTls *tls, NcTlsFault *fault);

/*
 * Prepares an object that somebody else has set up for the calls below: what
 * nc_tls_write() did not take may be given again, longer and at another address,
 * and no renegotiation makes a write wait for input.
 */
extern void nc_tls_adopt(NcTls *tls);

extern ssize_t nc_tls_read(NcTls *tls, void *to, size_t bytes, NcTlsFault *fault);
extern ssize_t nc_tls_write(NcTls *tls, const void *from, size_t bytes, NcTlsFault *fault);

/* Did the last call return 0 because the socket takes no more? */
extern bool nc_tls_wants_write(const NcTls *tls);

/* Can nc_tls_read() return bytes without the socket being readable? */
extern bool nc_tls_pending(const NcTls *tls);

/*
 * What is wrong with the peer's certificate, NULL = nothing known.  Its library
 * may free the object with a failed handshake: hold it before, release it after.
 */
extern const char *nc_tls_certificate_problem(const NcTls *tls);
extern void nc_tls_hold(NcTls *tls);
extern void nc_tls_release(NcTls *tls);

/*
 * When a certificate ends, in seconds since 1970: the peer's, or the first one of a file.  False when
 * there is none; of a file with a reason that names it.
 */
NC_MUST_USE extern bool nc_tls_peer_until(const NcTls *tls, int64_t *until_s);
NC_MUST_USE extern bool nc_tls_file_until(const char *path, int64_t *until_s, char *err,
										  size_t err_bytes);

/* Tells the peer that nothing more comes, if that can be done at once.  NULL is allowed. */
extern void nc_tls_goodbye(NcTls *tls);

/* Says goodbye and frees.  NULL is allowed. */
extern void nc_tls_end(NcTls *tls);

#endif							/* NC_AUTH_TLS_H */
