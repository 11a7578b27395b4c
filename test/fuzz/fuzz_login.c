/*
 * fuzz_login.c
 *	  Any bytes, in any pieces, from somebody who connects: at a door with and
 *	  without certificate and keys.
 *
 * The first byte chooses the door and how the bytes are cut.  Checked: nobody gets
 * in without a token where one is asked for, nor in clear text where TLS is; the
 * assertions of the door after every turn; what we say is messages; and when he has
 * gone, or the time for a login is over, nothing is left.
 */
#include "nc/serve/door.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TENANT "0123456789abcdef0123456789abcdef"
#define LOGIN_US UINT64_C(60000000)

#define WITH_TLS 1
#define WITH_KEYS 2
#define INSISTS 4

static uint64_t clock_us = 1000000;
static int	opened;
static NcVisitor *present;

static void
check(bool fact)
{
	if (!fact)
		abort();
}

/* ---- the host ---- */

static uint64_t
now_us(void)
{
	return clock_us;
}

static uint64_t
unix_s(void)
{
	return 1700000000;
}

static void
log_line(NcDoor *door, const char *text, const char *detail)
{
	check(text[0] != '\0');
}

static bool
came(NcVisitor *v)
{
	present = v;
	return true;
}

/* As long as he is asked, his parameters end within his packet. */
static bool
startup(NcVisitor *v, const NcStartup *packet, NcRefusal *no)
{
	const char *user = nc_startup_param(packet, "user");

	*no = (NcRefusal) {"0A000", "not for you", NULL, NULL};
	return user == NULL || strlen(user) < 9;
}

static void
when_opened(NcVisitor *v, const NcJwt *token)
{
	NcGuard    *guard = v->door->guard;

	opened++;
	check(guard->asks == (token != NULL));
	check(!guard->asks);		/* no token of a fuzzer is signed */
	check(v->channel.secure || !nc_guard_insists(guard, v->door->settings.require_ssl));
}

/* Takes bytes and says them again. */
static NcStep
message(NcVisitor *v)
{
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&v->channel, &bytes);
	NcWriter	w;

	if (bytes == 0)
		return NC_STEP_INPUT;
	w = nc_visitor_writer(v);
	nc_write_u8(&w, input[0]);
	nc_visitor_commit(v, &w);
	nc_channel_take(&v->channel, 1);
	return NC_STEP_MORE;
}

static bool
silent(NcVisitor *v)
{
	return true;
}

static void
gone(NcVisitor *v)
{
	check(present == v);
	present = NULL;
}

static const char *const parameters[][2] = {{"server_version", "15"}, {NULL, NULL}};

static const NcDoorHost host = {
	.name = "fuzzed",
	.visitor_bytes = sizeof(NcVisitor),
	.in_bytes = 16384,
	.out_bytes = 8192,
	.answer_bytes = 1024,
	.full = 4096,
	.scope = NC_SCOPE_PAGE_SERVER,
	.parameters = parameters,
	.tls_wanted = {"28000", "must connect with TLS", NULL, NULL},
	.now_us = now_us,
	.unix_s = unix_s,
	.log = log_line,
	.came = came,
	.startup = startup,
	.opened = when_opened,
	.message = message,
	.silent = silent,
	.gone = gone
};

/* ---- certificate and keys ---- */

static FILE *
make_file(char *path)
{
	int			fd = mkstemp(path);

	check(fd >= 0);
	return fdopen(fd, "w");
}

static void
make_guard(NcGuard *guard)
{
	char		cert_file[] = "/tmp/nc_fuzz_XXXXXX";
	char		key_file[] = "/tmp/nc_fuzz_XXXXXX";
	char		keys_file[] = "/tmp/nc_fuzz_XXXXXX";
	char		err[256];
	EVP_PKEY   *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	X509	   *cert = X509_new();
	FILE	   *f;

	X509_gmtime_adj(X509_getm_notBefore(cert), 0);
	X509_gmtime_adj(X509_getm_notAfter(cert), 360000);
	X509_set_pubkey(cert, key);
	check(X509_sign(cert, key, NULL) > 0);
	f = make_file(cert_file);
	PEM_write_X509(f, cert);
	fclose(f);
	f = make_file(key_file);
	PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	f = make_file(keys_file);
	PEM_write_PUBKEY(f, key);
	fclose(f);
	check(nc_guard_take_certificate(guard, cert_file, key_file, err, sizeof(err)));
	check(nc_guard_take_keys(guard, keys_file, err, sizeof(err)));
	unlink(cert_file);
	unlink(key_file);
	unlink(keys_file);
	X509_free(cert);
	EVP_PKEY_free(key);
}

/* ---- one client ---- */

static NcLoop *
the_loop(void)
{
	static NcLoop *loop;
	char		err[128];

	if (loop == NULL)
	{
		signal(SIGPIPE, SIG_IGN);
		loop = nc_loop_create(NC_LOOP_EPOLL, err, sizeof(err));
	}
	check(loop != NULL);
	return loop;
}

static void
settle(NcDoor *door)
{
	do
	{
		nc_loop_wait(door->loop, 0);
		nc_door_turn(door);
	} while (nc_door_sleep_us(door) == 0 || nc_loop_ready(door->loop));
	check(present == NULL || nc_visitor_check(present));
}

/* Letters that answer requests for encryption, then whole messages, or records of TLS. */
static void
check_answers(int fd, bool secure)
{
	static uint8_t answer[16384];
	ssize_t		n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
	uint8_t    *at = answer;
	NcFrame		frame;

	while (n > 0 && (*at == 'N' || (*at == 'S' && (n == 1 || at[1] == 0x15 || at[1] == 0x16))))
	{
		at++;
		n--;
	}
	if (n > 0 && !secure && opened == 0 && *at != 0x15 && *at != 0x16)
		check(nc_frame_parse(at, (size_t) n, sizeof(answer), &frame) == NC_FRAME_OK);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static NcGuard full;
	NcGuard		guard = {0};
	NcDoorSettings settings = {true, TENANT, LOGIN_US, LOGIN_US, LOGIN_US, 4};
	struct sockaddr_storage peer = {0};
	NcDoor		door;
	size_t		piece;
	int			fds[2];

	if (size == 0)
		return 0;
	if (full.tls == NULL)
		make_guard(&full);
	guard.tls = data[0] & WITH_TLS ? full.tls : NULL;
	guard.keys = data[0] & WITH_KEYS ? full.keys : NULL;
	guard.asks = (data[0] & WITH_KEYS) != 0;
	guard.certified = (data[0] & INSISTS) != 0;
	piece = data[0] >> 3 == 0 ? 16384 : data[0] >> 3;
	opened = 0;
	nc_door_init(&door, &host, the_loop(), &guard, &settings);
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	(void) nc_door_admit(&door, fds[1], &peer);
	for (size_t at = 1; at < size && present != NULL; at += piece)
	{
		(void) !send(fds[0], data + at, piece < size - at ? piece : size - at, MSG_NOSIGNAL);
		settle(&door);
		check_answers(fds[0], present != NULL && present->channel.tls != NULL);
	}
	if (size % 2)
		close(fds[0]);
	settle(&door);
	clock_us += 2 * LOGIN_US;
	settle(&door);
	/* who was refused in this very moment has his patience left */
	clock_us += 2 * LOGIN_US;
	settle(&door);
	check(present == NULL && door.visitors == 0);
	if (size % 2 == 0)
		close(fds[0]);
	nc_door_shut(&door);
	return 0;
}
