/*
 * handshake.c
 *	  The only file that knows libpq.
 *
 * Runs in the communicator.  libpq does what is hard to do again: connecting,
 * authentication and TLS.  It never blocks here: names are resolved before (see
 * resolve.c), connecting is polled, the connection is set non-blocking before
 * anything is sent on it.  The token is read at each connect, because tokens
 * rotate, and appears in no message of ours.
 */
#include "nc/net/handshake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <linux/tcp.h>
#include <pwd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/net/resolve.h"

#define ERROR_BYTES 256

/* What a server may say before the stream begins, and in how many pieces. */
#define HANDSHAKE_BYTES_MAX (256 * 1024)
#define ADVANCES_MAX 1000

/* Settings passed to libpq, the terminating NULL included. */
#define PARAMS_MAX 20

/* Keywords that libpq knows, and room for more. */
#define CONNINFO_OPTIONS_MAX 128

struct NcHandshake
{
	PGconn	   *pg;
	NcTls	   *tls;			/* of the handshake, held to learn why it failed */
	bool		polling;		/* PQconnectPoll not finished */
	bool		command_sent;
	bool		flushing;		/* the command is not completely sent */
	int			advances;		/* so often it went on */
	bool		asks;			/* the command is a question */
	PGresult   *answer;			/* to the question; NULL = none yet */
	char		command[96];
	char		error[ERROR_BYTES];
};

void
nc_text_one_line(char *out, size_t out_bytes, const char *text, size_t text_bytes)
{
	size_t		n = 0;

	NC_ASSERT(out_bytes > 0);
	for (size_t i = 0; i < text_bytes && text[i] != '\0' && n + 1 < out_bytes; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c < 0x20 || c == 0x7f)
			c = ' ';
		if (c == ' ' && (n == 0 || out[n - 1] == ' '))
			continue;
		out[n++] = (char) c;
	}
	/* A multi-byte character must not be cut in the middle. */
	if (n + 1 == out_bytes)
	{
		while (n > 0 && ((unsigned char) out[n - 1] & 0xc0) == 0x80)
			n--;
		if (n > 0 && ((unsigned char) out[n - 1] & 0x80) != 0)
			n--;
	}
	while (n > 0 && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

/* Can this process make a socket? Else errno says why not. */
static bool
may_have_socket(void)
{
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static NcHandshakeStep
fail_handshake(NcHandshake *h, const char *text)
{
	char		why[ERROR_BYTES] = "no reason given";

	/*
	 * libpq of 17 and 18 says nothing when it gets no socket: it goes on to the next
	 * address as if there were one (PQconnectPoll() in fe-connect.c).
	 */
	if (text == NULL || text[0] == '\0')
	{
		if (!may_have_socket())
			snprintf(why, sizeof(why), "could not create socket: %s", strerror(errno));
		text = why;
	}
	nc_text_one_line(h->error, sizeof(h->error), text, strlen(text));
	return NC_HANDSHAKE_FAILED;
}

/*
 * What libpq says in front of a reason is said by our address already.  What is
 * wrong with a certificate it does not say.
 */
static NcHandshakeStep
fail_connect(NcHandshake *h)
{
	const char *text = PQerrorMessage(h->pg);
	const char *reason = strstr(text, " failed: ");
	const char *problem = h->tls == NULL ? NULL : nc_tls_certificate_problem(h->tls);
	char		both[ERROR_BYTES];

	if (strncmp(text, "connection to server ", 21) == 0 && reason != NULL)
		text = reason + 9;
	if (problem == NULL)
		return fail_handshake(h, text);
	snprintf(both, sizeof(both), "%.160s (%.80s)", text, problem);
	return fail_handshake(h, both);
}

static void
ignore_notice(void *arg, const PGresult *res)
{
	/* libpq would print it to stderr */
}

/* As libpq is with private keys: nobody else may read the token. */
static const char *
token_file_fault(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return strerror(errno);
	if (!S_ISREG(st.st_mode))
		return "it is not a file";
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return "it belongs neither to the server's user nor to root";
	if ((st.st_mode & (st.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO)) != 0)
		return "others can read it; its mode must be 0600, or 0640 if it belongs to root";
	return NULL;
}

/* Reads the token; false when there is a file and it cannot be used. */
static bool
read_token_file(const char *path, char *token, size_t bytes, char *err, size_t err_bytes)
{
	const char *fault = NULL;
	ssize_t		n = 0;
	int			fd;

	token[0] = '\0';
	if (path[0] == '\0')
		return true;
	/* never wait: the path may name a fifo */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fault = strerror(errno);
	else
		fault = token_file_fault(fd);
	if (fault == NULL && (n = read(fd, token, bytes - 1)) < 0)
		fault = strerror(errno);
	if (fault == NULL && (size_t) n == bytes - 1)
		fault = "it is too long for a token";
	if (fd >= 0)
		close(fd);
	if (fault == NULL)
	{
		token[n] = '\0';
		token[strcspn(token, "\r\n")] = '\0';
		if (token[0] != '\0')
			return true;
		fault = "its first line is empty";
	}
	explicit_bzero(token, bytes);
	snprintf(err, err_bytes, "cannot use the token file \"%s\": %s", path, fault);
	return false;
}

/* An address of this machine, its name for itself, or a socket in a directory. */
static bool
name_is_local(const char *host)
{
	struct in_addr v4;

	if (host[0] == '/' || host[0] == '@' || strcmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return strcmp(host, "::1") == 0;
}

/*
 * A list leads to each of its hosts, so all must be here.  None at all is the server's own
 * socket; an empty place in a list may stand for what another list names, and is not here.
 */
static bool
hosts_are_local(const char *hosts)
{
	char		name[256];

	if (hosts[0] == '\0')
		return true;
	for (;; hosts++)
	{
		size_t		n = strcspn(hosts, ",");

		snprintf(name, sizeof(name), "%.*s", (int) n, hosts);
		if (n >= sizeof(name) || !name_is_local(name))
			return false;
		hosts += n;
		if (hosts[0] == '\0')
			return true;
	}
}

/*
 * A server that is not verified may be anybody, and gets the token by asking for it:
 * so it goes to this machine or to who has shown a certificate for his name.
 */
static bool
may_send_token(const NcHandshakeParams *params, const NcConninfoParts *parts, char *err,
			   size_t err_bytes)
{
	bool		local = params->hostaddr != NULL ? hosts_are_local(params->hostaddr) :
		parts->is_local;

	if (params->token_file[0] == '\0' || params->token_in_clear || parts->verifies || local)
		return true;
	snprintf(err, err_bytes, "no token is sent to another machine without sslmode=verify-full "
			 "(neon_comm.allow_token_in_clear)");
	return false;
}

typedef struct Params
{
	const char *keyword[PARAMS_MAX];
	const char *value[PARAMS_MAX];
	int			count;
} Params;

static void
add(Params *p, const char *keyword, const char *value)
{
	NC_ASSERT(p->count < PARAMS_MAX - 1);
	p->keyword[p->count] = keyword;
	p->value[p->count] = value;
	p->count++;
}

static const char *
option_value(const PQconninfoOption *options, const char *keyword)
{
	for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
		if (strcmp(o->keyword, keyword) == 0 && o->val != NULL)
			return o->val;
	return "";
}

/*
 * libpq opens what these name, and would wait for who writes to a fifo.  What is not
 * there it tells itself.
 */
static const char *
no_file_at(const PQconninfoOption *options)
{
	static const char *const keywords[] = {"sslcert", "sslkey", "sslrootcert", "sslcrl"};
	struct stat st;

	for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
	{
		const char *path = option_value(options, keywords[i]);

		if (path[0] != '\0' && stat(path, &st) == 0 && !S_ISREG(st.st_mode))
			return keywords[i];
	}
	return NULL;
}

/* Looked at before each attempt: a file may have gone since the string was judged. */
static bool
has_files(const char *conninfo, char *err, size_t err_bytes)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	const char *keyword = options != NULL ? no_file_at(options) : NULL;

	PQconninfoFree(options);
	if (keyword == NULL)
		return true;
	snprintf(err, err_bytes, "%s does not name a regular file", keyword);
	return false;
}

static PGconn *
connect_start(const NcHandshakeParams *params, const NcConninfoParts *parts, const char *token)
{
	Params		p = {0};
	char		timeout[16];
	char		options[sizeof(parts->options) + NC_OPTIONS_BYTES + 40];

	/* all are told, where libpq would tell the last ones only */
	snprintf(options, sizeof(options), "%s%s-c neon.compute_mode=primary%s%s", parts->options,
			 parts->options[0] != '\0' ? " " : "", params->options[0] != '\0' ? " " : "",
			 params->options);
	snprintf(timeout, sizeof(timeout), "%u", params->user_timeout_ms);
	/* before the conninfo string: defaults that it may override */
	add(&p, "application_name", "neon_comm");
	add(&p, "user", "neon_comm");
	add(&p, "gssencmode", "disable");
	add(&p, "keepalives", "1");
	add(&p, "keepalives_idle", "10");
	add(&p, "keepalives_interval", "5");
	add(&p, "keepalives_count", "3");
	add(&p, "tcp_user_timeout", timeout);
	add(&p, "dbname", params->conninfo);
	/*
	 * Behind it: what it may not override.  Passwords come from the token file only: a
	 * path below what is no directory cannot exist, so libpq reads no file of its own.
	 */
	add(&p, "passfile", "/dev/null/none");
	if (!parts->has_dbname)
		add(&p, "dbname", "neon_comm");
	add(&p, "options", options);
	if (params->hostaddr != NULL)
		add(&p, "hostaddr", params->hostaddr);
	if (token[0] != '\0')
		add(&p, "password", token);
	return PQconnectStartParams(p.keyword, p.value, 1);
}

NcHandshake *
nc_handshake_start(const NcHandshakeParams *params)
{
	NcHandshake *h = calloc(1, sizeof(*h));
	NcConninfoParts parts;
	char		token[NC_TOKEN_BYTES_MAX];

	if (h == NULL)
		return NULL;
	h->asks = params->question != NULL;
	if (h->asks || params->command != NULL)
		snprintf(h->command, sizeof(h->command), "%s", h->asks ? params->question : params->command);
	else
		snprintf(h->command, sizeof(h->command), "pagestream_v%d %s %s", params->protocol_version,
				 params->tenant_id, params->timeline_id);
	if (!nc_conninfo_parts(params->conninfo, &parts, h->error, sizeof(h->error)) ||
		!has_files(params->conninfo, h->error, sizeof(h->error)) ||
		!may_send_token(params, &parts, h->error, sizeof(h->error)) ||
		!read_token_file(params->token_file, token, sizeof(token), h->error, sizeof(h->error)))
		return h;
	h->pg = connect_start(params, &parts, token);
	explicit_bzero(token, sizeof(token));
	if (h->pg == NULL)
		fail_handshake(h, "out of memory");
	else if (PQstatus(h->pg) == CONNECTION_BAD)
		fail_handshake(h, PQerrorMessage(h->pg));
	else
	{
		PQsetNoticeReceiver(h->pg, ignore_notice, NULL);
		h->polling = true;
	}
	return h;
}

/* The connection stands: sends the command. */
static NcHandshakeStep
send_command(NcHandshake *h)
{
	h->polling = false;
	/* held to learn why a handshake fails, and this one has not */
	nc_tls_release(h->tls);
	h->tls = NULL;
	if (PQsetnonblocking(h->pg, 1) != 0 || PQsendQuery(h->pg, h->command) != 1)
		return fail_handshake(h, PQerrorMessage(h->pg));
	h->command_sent = true;
	h->flushing = true;
	return NC_HANDSHAKE_READ_WRITE;
}

/* "not busy" proves nothing: the answer has to be CopyBoth. */
static NcHandshakeStep
check_answer(NcHandshake *h)
{
	PGresult   *res = PQgetResult(h->pg);
	ExecStatusType status = PQresultStatus(res);
	NcHandshakeStep step = NC_HANDSHAKE_DONE;

	if (status == PGRES_FATAL_ERROR)
		step = fail_handshake(h, PQresultErrorMessage(res));
	else if (status != PGRES_COPY_BOTH)
		step = fail_handshake(h, "the server did not answer the pagestream command with CopyBoth");
	PQclear(res);
	return step;
}

/* Rows of names and values, all of them: libpq has them when it is not busy. */
static NcHandshakeStep
keep_answer(NcHandshake *h)
{
	PGresult   *res = PQgetResult(h->pg);

	if (PQresultStatus(res) == PGRES_TUPLES_OK && PQnfields(res) >= 2)
	{
		h->answer = res;
		return NC_HANDSHAKE_DONE;
	}
	fail_handshake(h, PQresultStatus(res) == PGRES_FATAL_ERROR ? PQresultErrorMessage(res) :
				   "the server did not answer the question with rows");
	PQclear(res);
	return NC_HANDSHAKE_FAILED;
}

static NcHandshakeStep
advance_connect(NcHandshake *h)
{
	/* libpq frees it when the handshake fails, and with it why */
	if (h->tls == NULL && (h->tls = PQsslStruct(h->pg, "OpenSSL")) != NULL)
		nc_tls_hold(h->tls);
	switch (PQconnectPoll(h->pg))
	{
		case PGRES_POLLING_READING:
			return NC_HANDSHAKE_READ;
		case PGRES_POLLING_WRITING:
			return NC_HANDSHAKE_WRITE;
		case PGRES_POLLING_OK:
			return send_command(h);
		default:
			return fail_connect(h);
	}
}

static NcHandshakeStep
advance_command(NcHandshake *h)
{
	int			rc;

	if (PQconsumeInput(h->pg) == 0)
		return fail_handshake(h, PQerrorMessage(h->pg));
	if (h->flushing)
	{
		rc = PQflush(h->pg);
		if (rc < 0)
			return fail_handshake(h, PQerrorMessage(h->pg));
		h->flushing = rc > 0;
	}
	if (h->flushing)
		return NC_HANDSHAKE_READ_WRITE;
	if (PQisBusy(h->pg))
		return NC_HANDSHAKE_READ;
	return h->asks ? keep_answer(h) : check_answer(h);
}

uint64_t
nc_handshake_heard(int fd)
{
	struct tcp_info info = {0};
	socklen_t	bytes = sizeof(info);

	if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
		return 0;
	return info.tcpi_bytes_received;
}

/*
 * libpq keeps what a server says before the stream begins: notices, notifications,
 * parameters, messages as long as they claim to be.  What an honest one says, its
 * certificates included, is some kilobytes.
 */
static bool
says_too_much(NcHandshake *h)
{
	return ++h->advances > ADVANCES_MAX ||
		(h->pg != NULL && nc_handshake_heard(PQsocket(h->pg)) > HANDSHAKE_BYTES_MAX);
}

NcHandshakeStep
nc_handshake_advance(NcHandshake *h)
{
	NcHandshakeStep step;

	if (h->error[0] != '\0')
		return NC_HANDSHAKE_FAILED;
	if (says_too_much(h))
		return fail_handshake(h, "the server said more than 256 kB before the stream began");
	step = h->polling ? advance_connect(h) : advance_command(h);
	/* the command usually leaves at once */
	if (h->command_sent && step == NC_HANDSHAKE_READ_WRITE)
		step = advance_command(h);
	return step;
}

bool
nc_handshake_authenticated(const NcHandshake *h)
{
	return h->command_sent;
}

int
nc_handshake_socket(const NcHandshake *h)
{
	return h->pg != NULL ? PQsocket(h->pg) : -1;
}

bool
nc_handshake_encrypted(const NcHandshake *h)
{
	return PQsslInUse(h->pg) != 0;
}

const char *
nc_handshake_answer(const NcHandshake *h, const char *name)
{
	for (int i = 0; i < PQntuples(h->answer); i++)
		if (strcmp(PQgetvalue(h->answer, i, 0), name) == 0)
			return PQgetvalue(h->answer, i, 1);
	return NULL;
}

bool
nc_handshake_certificate_until(const NcHandshake *h, int64_t *until_s)
{
	const NcTls *tls = PQsslStruct(h->pg, "OpenSSL");

	return tls != NULL && nc_tls_peer_until(tls, until_s);
}

const char *
nc_handshake_error(const NcHandshake *h)
{
	return h->error;
}

void
nc_handshake_free(NcHandshake *h)
{
	nc_tls_release(h->tls);
	PQclear(h->answer);
	if (h->pg != NULL)
		PQfinish(h->pg);
	free(h);
}

int
nc_handshake_get(NcHandshake *h, char **body)
{
	int			rc = PQgetCopyData(h->pg, body, 1);
	PGresult   *res;

	if (rc >= 0)
		return rc;
	if (rc == -2)
	{
		fail_handshake(h, PQerrorMessage(h->pg));
		return -1;
	}
	/* the end of the stream: its reason is only in the result behind it */
	res = PQgetResult(h->pg);
	fail_handshake(h, res != NULL && PQresultStatus(res) == PGRES_FATAL_ERROR ?
		 PQresultErrorMessage(res) : "the server ended the stream");
	PQclear(res);
	return -1;
}

void
nc_handshake_release(char *body)
{
	PQfreemem(body);
}

NcHandshakeStep
nc_handshake_put(NcHandshake *h, const void *body, size_t bytes)
{
	int			rc;

	if ((body != NULL && PQputCopyData(h->pg, body, (int) bytes) != 1) || PQconsumeInput(h->pg) == 0 ||
		(rc = PQflush(h->pg)) < 0)
		return fail_handshake(h, PQerrorMessage(h->pg));
	return rc > 0 ? NC_HANDSHAKE_READ_WRITE : NC_HANDSHAKE_DONE;
}

NcTls *
nc_handshake_take_tls(NcHandshake *h)
{
	NcTls	   *tls = PQsslStruct(h->pg, "OpenSSL");

	if (tls != NULL)
		nc_tls_adopt(tls);
	return tls;
}

bool
nc_conninfo_parts(const char *conninfo, NcConninfoParts *parts, char *err, size_t err_bytes)
{
	char	   *message = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &message);
	const char *host;
	const char *hostaddr;
	const char *port;
	bool		fits;

	memset(parts, 0, sizeof(*parts));
	if (options == NULL)
	{
		nc_text_one_line(err, err_bytes, message != NULL ? message : "out of memory",
						 err_bytes);
		PQfreemem(message);
		return false;
	}
	host = option_value(options, "host");
	hostaddr = option_value(options, "hostaddr");
	port = option_value(options, "port");
	if (hostaddr[0] == '\0' && !nc_resolve_is_literal(host))
		snprintf(parts->host, sizeof(parts->host), "%s", host);
	snprintf(parts->address, sizeof(parts->address), "%.100s:%.16s",
			 host[0] != '\0' ? host : hostaddr, port[0] != '\0' ? port : "5432");
	parts->has_dbname = option_value(options, "dbname")[0] != '\0';
	parts->sends_password = option_value(options, "password")[0] != '\0' ||
		option_value(options, "passfile")[0] != '\0';
	parts->has_password = parts->sends_password || option_value(options, "sslpassword")[0] != '\0';
	parts->has_service = option_value(options, "service")[0] != '\0';
	parts->verifies = strcmp(option_value(options, "sslmode"), "verify-full") == 0;
	parts->is_local = hosts_are_local(hostaddr[0] != '\0' ? hostaddr : host);
	fits = strlen(option_value(options, "options")) < sizeof(parts->options);
	if (fits)
		strcpy(parts->options, option_value(options, "options"));
	else
		snprintf(err, err_bytes, "its options have more than %zu bytes", sizeof(parts->options) - 1);
	PQconninfoFree(options);
	return fits;
}

/* ---- lists of hosts ---- */

static uint32_t
count_items(const char *list)
{
	uint32_t	n = list[0] != '\0' ? 1 : 0;

	for (; *list != '\0'; list++)
		n += *list == ',';
	return n;
}

/* A list of one item holds for all hosts. */
static const char *
item_of(const char *list, uint32_t index, size_t *bytes)
{
	if (count_items(list) > 1)
		for (; index > 0; index--)
			list += strcspn(list, ",") + 1;
	*bytes = strcspn(list, ",");
	return list;
}

static uint32_t
count_hosts(const PQconninfoOption *options)
{
	const char *hostaddr = option_value(options, "hostaddr");
	uint32_t	n = count_items(hostaddr[0] != '\0' ? hostaddr : option_value(options, "host"));

	return n < 1 ? 1 : n;
}

static bool
has_empty_item(const char *list)
{
	return list[0] == ',' || strstr(list, ",,") != NULL ||
		(list[0] != '\0' && list[strlen(list) - 1] == ',');
}

/* Why a list of hosts cannot be used, or NULL. */
static const char *
hosts_fault(const PQconninfoOption *options)
{
	const char *host = option_value(options, "host");
	const char *hostaddr = option_value(options, "hostaddr");
	const char *port = option_value(options, "port");
	uint32_t	n = count_hosts(options);

	if (n > NC_HOSTS_MAX)
		return "it names more than 8 hosts";
	if (has_empty_item(host) || has_empty_item(hostaddr))
		return "one of its hosts is empty";
	if (host[0] != '\0' && count_items(host) != n)
		return "it has not as many hosts as addresses of hosts";
	if (count_items(port) > 1 && count_items(port) != n)
		return "it has not as many ports as hosts";
	return NULL;
}

/* keyword=value, in quotes if it has to be. */
static void
append_option(char *out, size_t bytes, const char *keyword, const char *value, size_t n)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/@%-";
	size_t		at = strlen(out);
	bool		quoted = strspn(value, plain) < n;

	/* no string of a map is so long */
	if (at + strlen(keyword) + 2 * n + 6 > bytes)
		return;
	at += (size_t) snprintf(out + at, bytes - at, "%s%s=%s", at > 0 ? " " : "", keyword, quoted ? "'" : "");
	for (size_t i = 0; i < n; i++)
	{
		if (value[i] == '\'' || value[i] == '\\')
			out[at++] = '\\';
		out[at++] = value[i];
	}
	if (quoted)
		out[at++] = '\'';
	out[at] = '\0';
}

uint32_t
nc_conninfo_host(const char *conninfo, uint32_t index, char *out, size_t bytes)
{
	static const char *const lists[] = {"host", "hostaddr", "port"};
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	uint32_t	n = options != NULL ? count_hosts(options) : 1;

	/* a list that was refused before, if anybody asked */
	if (n > 1 && (n > NC_HOSTS_MAX || hosts_fault(options) != NULL))
		n = 1;
	snprintf(out, bytes, "%s", n == 1 ? conninfo : "");
	for (const PQconninfoOption *o = options; n > 1 && o->keyword != NULL; o++)
	{
		bool		is_list = false;
		size_t		value_bytes;
		const char *value;

		if (o->val == NULL)
			continue;
		for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
			is_list = is_list || strcmp(o->keyword, lists[i]) == 0;
		value = o->val;
		value_bytes = strlen(value);
		if (is_list)
			value = item_of(value, index, &value_bytes);
		/* an empty port is the usual one */
		if (value_bytes > 0)
			append_option(out, bytes, o->keyword, value, value_bytes);
	}
	PQconninfoFree(options);
	return n;
}

bool
nc_conninfo_home_passfile(char *path, size_t bytes)
{
	const char *home = getenv("HOME");
	const struct passwd *user = home != NULL && home[0] != '\0' ? NULL : getpwuid(geteuid());

	if (user != NULL)
		home = user->pw_dir;
	return home != NULL && (size_t) snprintf(path, bytes, "%s/.pgpass", home) < bytes &&
		access(path, R_OK) == 0;
}

/* ---- judging a string without connecting ---- */

/* The directory of a socket that nobody has: connecting ends there at once. */
#define NOWHERE "/neon_comm-judges-this-string"

/* The options of a string, but for the host: of a connection to nowhere. */
static PGconn *
connect_nowhere(const PQconninfoOption *options)
{
	const char *keyword[CONNINFO_OPTIONS_MAX];
	const char *value[CONNINFO_OPTIONS_MAX];
	int			n = 0;

	for (const PQconninfoOption *o = options; o->keyword != NULL && n < CONNINFO_OPTIONS_MAX - 3; o++)
	{
		if (o->val == NULL || strcmp(o->keyword, "host") == 0 ||
			strcmp(o->keyword, "hostaddr") == 0 || strcmp(o->keyword, "password") == 0)
			continue;
		keyword[n] = o->keyword;
		value[n++] = o->val;
	}
	keyword[n] = "host";
	value[n++] = NOWHERE;
	/* or libpq looks for a file with passwords */
	keyword[n] = "password";
	value[n++] = "none";
	keyword[n] = NULL;
	value[n] = NULL;
	return PQconnectStartParams(keyword, value, 0);
}

/*
 * libpq judges what options mean only when it begins to connect.  Whatever its
 * language is, a complaint that names our socket comes after that; so does one
 * about a socket that it cannot have.
 */
static bool
options_work(const PQconninfoOption *options)
{
	PGconn	   *pg = connect_nowhere(options);
	bool		works = pg != NULL && (PQstatus(pg) != CONNECTION_BAD ||
									   strstr(PQerrorMessage(pg), NOWHERE) != NULL ||
									   !may_have_socket());

	PQfinish(pg);
	return works;
}

/* Each by itself: libpq would try the others in silence. */
static bool
each_host_works(const char *conninfo, const PQconninfoOption *options)
{
	char		one[NC_HOST_CONNINFO_BYTES];
	uint32_t	n = count_hosts(options);
	bool		works = true;

	for (uint32_t i = 0; i < n && works; i++)
	{
		PQconninfoOption *of;

		(void) nc_conninfo_host(conninfo, i, one, sizeof(one));
		of = PQconninfoParse(one, NULL);
		works = of != NULL && options_work(of);
		PQconninfoFree(of);
	}
	return works;
}

/* libpq's own words may repeat a piece of the string, and that may be a secret. */
bool
nc_conninfo_check(const char *conninfo, NcConninfoParts *parts, char *err, size_t err_bytes)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	char		ignored[ERROR_BYTES];
	const char *fault = NULL;

	if (options == NULL || !nc_conninfo_parts(conninfo, parts, ignored, sizeof(ignored)))
		fault = options == NULL ? "it is neither a list of keyword=value that libpq knows nor a URI" :
			"its options are too long";
	else if (hosts_fault(options) != NULL)
		fault = hosts_fault(options);
	else if (parts->has_service)
		fault = "it names a service: say here what the service would";
	else if (no_file_at(options) != NULL)
		fault = "one of the files that it names for TLS is not a regular file";
	else if (!each_host_works(conninfo, options))
		fault = "libpq does not take one of its values, such as its port or its sslmode";
	PQconninfoFree(options);
	if (fault == NULL)
		return true;
	snprintf(err, err_bytes, "%s", fault);
	return false;
}
