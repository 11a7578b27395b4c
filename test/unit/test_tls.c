/*
 * test_tls.c
 *	  TLS over a pair of sockets in one thread: handshake, bytes that stay inside
 *	  the library, key updates, ends, and certificates that cannot be used.
 *
 * Runs without a server.  The client is OpenSSL's, used directly.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include <openssl/ssl.h>

#include "nc/auth/guard.h"
#include "tls_files.h"

static TlsFiles files;

/* Turns of a handshake or a transfer after which it is stuck. */
#define TURNS_MAX 10000

typedef struct Pair
{
	NcTlsContext *context;
	SSL_CTX    *client_context;
	int			fds[2];			/* client, server */
	SSL		   *client;
	NcTls	   *server;
	NcTlsFault	fault;
} Pair;

/* ---- a connection ---- */

static Pair
open_pair(int max_version)
{
	Pair		p = {0};
	char		err[256] = "";
	int			small = 4096;

	p.context = nc_tls_context_load(files.cert, files.key, err, sizeof(err));
	assert_string_equal(p.context ? "" : err, "");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p.fds), 0);
	setsockopt(p.fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	p.client_context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_security_level(p.client_context, 0);
	SSL_CTX_set_max_proto_version(p.client_context, max_version);
	p.client = SSL_new(p.client_context);
	SSL_set_fd(p.client, p.fds[0]);
	SSL_set_connect_state(p.client);
	p.server = nc_tls_start(p.context, p.fds[1]);
	assert_non_null(p.server);
	return p;
}

static void
close_pair(Pair *p)
{
	nc_tls_end(p->server);
	SSL_free(p->client);
	SSL_CTX_free(p->client_context);
	nc_tls_context_free(p->context);
	close(p->fds[0]);
	close(p->fds[1]);
}

/* > 0 when both are done, < 0 when the server refused. */
static int
shake_hands(Pair *p)
{
	int			server = 0;

	for (int i = 0; i < TURNS_MAX; i++)
	{
		int			client = SSL_do_handshake(p->client);

		if (server == 0)
			server = nc_tls_handshake(p->server, &p->fault);
		if (server < 0)
			return server;
		if (server > 0 && client == 1)
			return 1;
	}
	fail_msg("the handshake does not end");
	return 0;
}

/* Reads what the client sent, until there is so much of it. */
static void
expect_bytes(Pair *p, size_t want, size_t chunk)
{
	char		buffer[16384];
	size_t		have = 0;

	for (int i = 0; i < TURNS_MAX && have < want; i++)
	{
		ssize_t		n = nc_tls_read(p->server, buffer, chunk, &p->fault);

		assert_true(n >= 0);
		have += (size_t) n;
	}
	assert_int_equal(have, want);
}

static void
test_versions(void **state)
{
	const int	versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	Pair		p;

	for (int i = 0; i < 2; i++)
	{
		p = open_pair(versions[i]);
		assert_int_equal(shake_hands(&p), 1);
		assert_int_equal(SSL_version(p.client), versions[i]);
		close_pair(&p);
	}
	p = open_pair(TLS1_1_VERSION);
	assert_true(shake_hands(&p) < 0);
	assert_non_null(strstr(p.fault.text, "unsupported protocol"));
	close_pair(&p);
}

/* Bytes that were decrypted and not taken are announced, and polling would not show them. */
static void
test_pending(void **state)
{
	Pair		p = open_pair(TLS1_3_VERSION);
	char		record[8000] = "";
	char		byte;

	assert_int_equal(shake_hands(&p), 1);
	assert_false(nc_tls_pending(p.server));
	assert_int_equal(SSL_write(p.client, record, sizeof(record)), sizeof(record));
	assert_int_equal(nc_tls_read(p.server, &byte, 1, &p.fault), 1);
	assert_true(nc_tls_pending(p.server));
	assert_int_equal(recv(p.fds[1], &byte, 1, MSG_PEEK), -1);
	expect_bytes(&p, sizeof(record) - 1, 1000);
	assert_false(nc_tls_pending(p.server));
	assert_int_equal(nc_tls_read(p.server, &byte, 1, &p.fault), 0);
	close_pair(&p);
}

/* The peer may ask for new keys at any time, also while the socket takes nothing. */
static void
test_key_update(void **state)
{
	Pair		p = open_pair(TLS1_3_VERSION);
	char		data[30000];
	char		back[30000];
	size_t		sent = 0;
	size_t		got = 0;

	memset(data, 'x', sizeof(data));
	assert_int_equal(shake_hands(&p), 1);
	for (int round = 0; round < 3; round++)
	{
		assert_int_equal(SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED), 1);
		assert_int_equal(SSL_write(p.client, data, 100), 100);
		expect_bytes(&p, 100, sizeof(back) / 2);
	}
	/* fill the socket, then ask */
	for (ssize_t n = 1; n > 0 && sent < sizeof(data); sent += (size_t) n)
	{
		n = nc_tls_write(p.server, data + sent, sizeof(data) - sent, &p.fault);
		assert_true(n >= 0);
	}
	assert_true(sent < sizeof(data) && nc_tls_wants_write(p.server));
	assert_int_equal(SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED), 1);
	assert_int_equal(SSL_write(p.client, data, 100), 100);
	for (int i = 0; i < TURNS_MAX && got < sizeof(data); i++)
	{
		ssize_t		n = nc_tls_write(p.server, data + sent, sizeof(data) - sent, &p.fault);
		int			r = SSL_read(p.client, back + got, (int) (sizeof(back) - got));

		if (sent < sizeof(data))
			assert_true(n >= 0);
		sent += n > 0 ? (size_t) n : 0;
		got += r > 0 ? (size_t) r : 0;
	}
	assert_int_equal(got, sizeof(data));
	assert_memory_equal(data, back, sizeof(data));
	expect_bytes(&p, 100, 100);
	close_pair(&p);
}

static void
test_ends(void **state)
{
	char		byte;
	Pair		p = open_pair(TLS1_3_VERSION);

	assert_int_equal(shake_hands(&p), 1);
	SSL_shutdown(p.client);
	assert_true(nc_tls_read(p.server, &byte, 1, &p.fault) < 0);
	assert_string_equal(p.fault.text, "");
	close_pair(&p);

	p = open_pair(TLS1_3_VERSION);
	assert_int_equal(shake_hands(&p), 1);
	shutdown(p.fds[0], SHUT_RDWR);
	assert_true(nc_tls_read(p.server, &byte, 1, &p.fault) < 0);
	assert_string_equal(p.fault.text, "");
	close_pair(&p);

	p = open_pair(TLS1_3_VERSION);
	assert_int_equal(shake_hands(&p), 1);
	assert_int_equal(send(p.fds[0], "no record of TLS at all", 23, 0), 23);
	assert_true(nc_tls_read(p.server, &byte, 1, &p.fault) < 0);
	assert_memory_equal(p.fault.text, "TLS: ", 5);
	close_pair(&p);

	p = open_pair(TLS1_3_VERSION);
	assert_int_equal(send(p.fds[0], "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
	assert_true(nc_tls_handshake(p.server, &p.fault) < 0);
	assert_memory_equal(p.fault.text, "TLS: ", 5);
	close_pair(&p);
}

/* ---- certificates ---- */

static void
refuse(const char *cert, const char *key, const char *part)
{
	char		err[256] = "";

	assert_null(nc_tls_context_load(cert, key, err, sizeof(err)));
	if (strstr(err, part) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err, part);
}

static void
test_bad_certificates(void **state)
{
	NcGuard		guard = {0};
	NcTlsContext *before;
	char		err[256];
	char		fifo[300];

	refuse("/nowhere/cert", files.key, "/nowhere/cert");
	refuse(files.cert, "/nowhere/key", "/nowhere/key");
	refuse(files.key, files.key, "cannot load the certificate");
	refuse(files.cert, files.cert, "cannot load the private key");
	refuse(files.cert, files.other_key, "fit the certificate");
	chmod(files.key, 0644);
	refuse(files.cert, files.key, "can be read by others");
	chmod(files.key, 0600);

	/* opening one would wait for who writes to it; who waits is ended */
	alarm(60);
	snprintf(fifo, sizeof(fifo), "%s.fifo", files.cert);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	refuse(fifo, files.key, "is not a file");
	refuse(files.cert, fifo, "is not a file");
	assert_int_equal(unlink(fifo), 0);
	alarm(0);

	/* a bad one does not replace a good one */
	assert_true(nc_guard_take_certificate(&guard, files.cert, files.key, err, sizeof(err)));
	before = guard.tls;
	assert_false(nc_guard_take_certificate(&guard, files.cert, files.other_key, err, sizeof(err)));
	assert_ptr_equal(guard.tls, before);
	assert_true(nc_guard_take_certificate(&guard, "", "", err, sizeof(err)));
	assert_null(guard.tls);
	nc_guard_clear(&guard);
}

/* Settings that were emptied while the server runs, in a process that has loaded and in a new one. */
static void
test_emptied(void **state)
{
	NcGuard		old = {0};
	NcGuard		fresh = {0};
	NcGuard		local = {0};
	NcGuardSettings settings = {"x.", files.cert, files.key, "", true, true};
	char		why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];
	NcJwt		jwt;

	settings.others_connect = false;
	assert_int_equal(nc_guard_take(&old, &settings, why), 0);
	assert_non_null(old.tls);
	assert_false(old.asks);
	settings.others_connect = true;
	settings.cert_file = settings.key_file = "";
	assert_int_equal(nc_guard_take(&old, &settings, why), 2);
	assert_non_null(old.tls);
	assert_true(nc_guard_insists(&old, true));
	assert_false(nc_guard_insists(&old, false));
	assert_true(old.asks);
	assert_non_null(strstr(why[0], "x.ssl_cert_file was emptied"));
	assert_non_null(strstr(why[1], "x.auth_public_key_file was emptied"));

	/* which has nothing to keep */
	assert_int_equal(nc_guard_take(&fresh, &settings, why), 2);
	assert_null(fresh.tls);
	assert_true(nc_guard_insists(&fresh, true));
	assert_true(fresh.asks);
	assert_null(fresh.keys);
	assert_non_null(nc_guard_judge(&fresh, (const uint8_t *) "t", 2, NC_SCOPE_PAGE_SERVER, "", 0, &jwt));

	/* where there never was a certificate, nor anybody else who can connect */
	settings.others_connect = settings.had_certificate = false;
	assert_int_equal(nc_guard_take(&local, &settings, why), 0);
	assert_false(local.asks);
	assert_false(nc_guard_insists(&local, true));
	nc_guard_clear(&old);
	nc_guard_clear(&fresh);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_key_update),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_bad_certificates),
		cmocka_unit_test(test_emptied),
	};
	int			rc;

	signal(SIGPIPE, SIG_IGN);
	tls_files_make(&files);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	tls_files_remove(&files);
	return rc;
}
