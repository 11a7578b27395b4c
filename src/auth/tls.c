/*
 * tls.c
 *	  OpenSSL behind the few calls that an event loop needs.
 *
 * Runs in the page service, the WAL feed and, on connections that libpq has set
 * up, in the communicator.  Every call leaves OpenSSL's error queue empty, since
 * libpq and the server use the same one.  SIGPIPE must be ignored, as it is in
 * all processes of a server.
 */
#include "nc/auth/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "nc/base/file.h"

/* ---- the server's certificate ---- */

/* A passphrase would be asked for on a terminal that is not there. */
static int
no_passphrase(char *buffer, int size, int rwflag, void *arg)
{
	return 0;
}

static const char *
reason_of(unsigned long code)
{
	const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);

	if (reason == NULL && ERR_GET_LIB(code) == ERR_LIB_SYS)
		reason = strerror(ERR_GET_REASON(code));
	return reason == NULL ? "no reason given" : reason;
}

static const char *
last_reason(void)
{
	return reason_of(ERR_peek_last_error());
}

/* As the server is with its own key. */
static bool
key_is_private(const char *path, char *err, size_t err_bytes)
{
	struct stat st;

	if (stat(path, &st) != 0)
		snprintf(err, err_bytes, "cannot read \"%s\": %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		snprintf(err, err_bytes, "\"%s\" is not a file", path);
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		snprintf(err, err_bytes, "\"%s\" belongs neither to the server's user nor to root", path);
	else if ((st.st_mode & (st.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO)) != 0)
		snprintf(err, err_bytes, "\"%s\" can be read by others: its mode must be 0600, or 0640 if it "
				 "belongs to root", path);
	else
		return true;
	return false;
}

/* OpenSSL would wait for who writes to a fifo. What is not there it tells itself. */
static bool
may_be_read(const char *path, char *err, size_t err_bytes)
{
	struct stat st;

	if (stat(path, &st) != 0 || S_ISREG(st.st_mode))
		return true;
	snprintf(err, err_bytes, "\"%s\" is not a file", path);
	return false;
}

static bool
load_into(SSL_CTX *ctx, const char *cert_file, const char *key_file, char *err, size_t err_bytes)
{
	if (!may_be_read(cert_file, err, err_bytes))
		return false;
	if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1)
		snprintf(err, err_bytes, "cannot load the certificate \"%s\": %s", cert_file, last_reason());
	else if (!key_is_private(key_file, err, err_bytes))
		return false;
	else if (SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1)
		snprintf(err, err_bytes, "cannot load the private key \"%s\" (it must have no passphrase and "
				 "fit the certificate): %s", key_file, last_reason());
	else if (SSL_CTX_check_private_key(ctx) != 1)
		snprintf(err, err_bytes, "the private key \"%s\" does not belong to the certificate \"%s\"",
				 key_file, cert_file);
	else
		return true;
	return false;
}

NcTlsContext *
nc_tls_context_load(const char *cert_file, const char *key_file, char *err, size_t err_bytes)
{
	SSL_CTX    *ctx;

	ERR_clear_error();
	ctx = SSL_CTX_new(TLS_server_method());
	if (ctx == NULL)
	{
		snprintf(err, err_bytes, "cannot set up TLS: %s", last_reason());
		ERR_clear_error();
		return NULL;
	}
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	(void) SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
						SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void) SSL_CTX_set_num_tickets(ctx, 0);
	if (!load_into(ctx, cert_file, key_file, err, err_bytes))
	{
		SSL_CTX_free(ctx);
		ctx = NULL;
	}
	ERR_clear_error();
	return ctx;
}

void
nc_tls_context_free(NcTlsContext *context)
{
	SSL_CTX_free(context);
}

/* ---- a connection ---- */

NcTls *
nc_tls_start(NcTlsContext *context, int fd)
{
	SSL		   *ssl = SSL_new(context);

	if (ssl != NULL && SSL_set_fd(ssl, fd) != 1)
	{
		SSL_free(ssl);
		ssl = NULL;
	}
	if (ssl != NULL)
	{
		SSL_set_accept_state(ssl);
		nc_tls_adopt(ssl);
	}
	ERR_clear_error();
	return ssl;
}

void
nc_tls_adopt(NcTls *tls)
{
	(void) SSL_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void) SSL_set_options(tls, SSL_OP_NO_RENEGOTIATION);
}

/* What a result of OpenSSL means; call at once, with errno of the call. */
static int
judge_ssl(SSL *ssl, int rc, NcTlsFault *fault)
{
	int			saved = errno;
	unsigned long first;

	fault->text[0] = '\0';
	if (rc > 0)
		return rc;
	switch (SSL_get_error(ssl, rc))
	{
		case SSL_ERROR_WANT_READ:
		case SSL_ERROR_WANT_WRITE:
			rc = 0;
			break;
		case SSL_ERROR_ZERO_RETURN:
			rc = -1;
			break;
		case SSL_ERROR_SYSCALL:
			/* without an errno: the peer closed the socket */
			if (saved != 0)
				snprintf(fault->text, sizeof(fault->text), "%s", strerror(saved));
			rc = -1;
			break;
		default:
			/* the first one is the cause: OpenSSL 3.5 then fails to send an alert to who is gone */
			first = ERR_peek_error();
			snprintf(fault->text, sizeof(fault->text), "TLS: %s", reason_of(first));
			/* so ends a peer that closes without a goodbye, which is common */
			if (ERR_GET_REASON(first) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
				fault->text[0] = '\0';
			rc = -1;
			break;
	}
	ERR_clear_error();
	return rc;
}

int
nc_tls_handshake(NcTls *tls, NcTlsFault *fault)
{
	ERR_clear_error();
	errno = 0;
	return judge_ssl(tls, SSL_do_handshake(tls), fault);
}

static int
bounded(size_t bytes)
{
	return bytes > 1024 * 1024 ? 1024 * 1024 : (int) bytes;
}

ssize_t
nc_tls_read(NcTls *tls, void *to, size_t bytes, NcTlsFault *fault)
{
	ERR_clear_error();
	errno = 0;
	return judge_ssl(tls, SSL_read(tls, to, bounded(bytes)), fault);
}

ssize_t
nc_tls_write(NcTls *tls, const void *from, size_t bytes, NcTlsFault *fault)
{
	ERR_clear_error();
	errno = 0;
	return judge_ssl(tls, SSL_write(tls, from, bounded(bytes)), fault);
}

bool
nc_tls_wants_write(const NcTls *tls)
{
	return SSL_want_write(tls);
}

bool
nc_tls_pending(const NcTls *tls)
{
	return SSL_pending(tls) > 0;
}

const char *
nc_tls_certificate_problem(const NcTls *tls)
{
	long		result = SSL_get_verify_result(tls);

	return result == X509_V_OK ? NULL : X509_verify_cert_error_string(result);
}

static bool
certificate_until(const X509 *certificate, int64_t *until_s)
{
	struct tm	tm;
	bool		known = certificate != NULL &&
		ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) == 1;

	if (known)
		*until_s = (int64_t) timegm(&tm);
	ERR_clear_error();
	return known;
}

bool
nc_tls_peer_until(const NcTls *tls, int64_t *until_s)
{
	X509	   *certificate = SSL_get1_peer_certificate(tls);
	bool		known = certificate_until(certificate, until_s);

	X509_free(certificate);
	return known;
}

bool
nc_tls_file_until(const char *path, int64_t *until_s, char *err, size_t err_bytes)
{
	FILE	   *file = nc_file_fopen(path, "r");
	X509	   *certificate = NULL;
	bool		known;

	if (file == NULL)
	{
		snprintf(err, err_bytes, "cannot read \"%s\": %s", path, nc_file_error(errno));
		return false;
	}
	certificate = PEM_read_X509(file, NULL, NULL, NULL);
	fclose(file);
	known = certificate_until(certificate, until_s);
	X509_free(certificate);
	if (!known)
		snprintf(err, err_bytes, "\"%s\" holds no certificate", path);
	return known;
}

void
nc_tls_hold(NcTls *tls)
{
	(void) SSL_up_ref(tls);
}

void
nc_tls_release(NcTls *tls)
{
	SSL_free(tls);
}

void
nc_tls_goodbye(NcTls *tls)
{
	/* OpenSSL forbids it in the middle of the handshake, and ignores it after a failure */
	if (tls == NULL || !SSL_is_init_finished(tls))
		return;
	ERR_clear_error();
	(void) SSL_shutdown(tls);
	ERR_clear_error();
}

void
nc_tls_end(NcTls *tls)
{
	nc_tls_goodbye(tls);
	SSL_free(tls);
}
