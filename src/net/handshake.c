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

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/net/resolve.h"

#define ERROR_BYTES 256

/* Settings passed to libpq, the terminating NULL included. */
#define PARAMS_MAX 20

struct NcHandshake
{
	PGconn	   *pg;
	NcTls	   *tls;			/* of the handshake, held to learn why it failed */
	bool		polling;		/* PQconnectPoll not finished */
	bool		command_sent;
	bool		flushing;		/* the command is not completely sent */
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

static NcHandshakeStep
fail(NcHandshake *h, const char *text)
{
	if (text == NULL || text[0] == '\0')
		text = "no reason given";
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
		return fail(h, text);
	snprintf(both, sizeof(both), "%.160s (%.80s)", text, problem);
	return fail(h, both);
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
read_token(const char *path, char *token, size_t bytes, char *err, size_t err_bytes)
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

static PGconn *
connect_start(const NcHandshakeParams *params, bool has_dbname, const char *token)
{
	Params		p = {0};
	char		timeout[16];

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
	/* behind it: what it may not override */
	if (!has_dbname)
		add(&p, "dbname", "neon_comm");
	add(&p, "options", "-c neon.compute_mode=primary");
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
	snprintf(h->command, sizeof(h->command), "pagestream_v%d %s %s", params->protocol_version,
			 params->tenant_id, params->timeline_id);
	if (!nc_conninfo_parts(params->conninfo, &parts, h->error, sizeof(h->error)) ||
		!read_token(params->token_file, token, sizeof(token), h->error, sizeof(h->error)))
		return h;
	h->pg = connect_start(params, parts.has_dbname, token);
	explicit_bzero(token, sizeof(token));
	if (h->pg == NULL)
		fail(h, "out of memory");
	else if (PQstatus(h->pg) == CONNECTION_BAD)
		fail(h, PQerrorMessage(h->pg));
	else
	{
		PQsetNoticeReceiver(h->pg, ignore_notice, NULL);
		h->polling = true;
	}
	return h;
}

/* The connection stands: sends the pagestream command. */
static NcHandshakeStep
send_command(NcHandshake *h)
{
	h->polling = false;
	nc_tls_release(h->tls);
	h->tls = NULL;
	if (PQsetnonblocking(h->pg, 1) != 0 || PQsendQuery(h->pg, h->command) != 1)
		return fail(h, PQerrorMessage(h->pg));
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
		step = fail(h, PQresultErrorMessage(res));
	else if (status != PGRES_COPY_BOTH)
		step = fail(h, "the server did not answer the pagestream command with CopyBoth");
	PQclear(res);
	return step;
}

static NcHandshakeStep
advance_connect(NcHandshake *h)
{
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
		return fail(h, PQerrorMessage(h->pg));
	if (h->flushing)
	{
		rc = PQflush(h->pg);
		if (rc < 0)
			return fail(h, PQerrorMessage(h->pg));
		h->flushing = rc > 0;
	}
	if (h->flushing)
		return NC_HANDSHAKE_READ_WRITE;
	return PQisBusy(h->pg) ? NC_HANDSHAKE_READ : check_answer(h);
}

NcHandshakeStep
nc_handshake_advance(NcHandshake *h)
{
	NcHandshakeStep step;

	if (h->error[0] != '\0')
		return NC_HANDSHAKE_FAILED;
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
nc_handshake_error(const NcHandshake *h)
{
	return h->error;
}

void
nc_handshake_free(NcHandshake *h)
{
	nc_tls_release(h->tls);
	if (h->pg != NULL)
		PQfinish(h->pg);
	free(h);
}

int
nc_handshake_put(NcHandshake *h, const void *body, size_t bytes)
{
	int			rc = PQputCopyData(h->pg, body, (int) bytes);

	if (rc < 0)
		fail(h, PQerrorMessage(h->pg));
	return rc;
}

int
nc_handshake_flush(NcHandshake *h)
{
	int			rc = PQflush(h->pg);

	if (rc < 0)
	{
		fail(h, PQerrorMessage(h->pg));
		return -1;
	}
	return rc == 0 ? 1 : 0;
}

int
nc_handshake_consume(NcHandshake *h)
{
	if (PQconsumeInput(h->pg) != 0)
		return 1;
	fail(h, PQerrorMessage(h->pg));
	return -1;
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
		fail(h, PQerrorMessage(h->pg));
		return -1;
	}
	/* the end of the stream: its reason is only in the result behind it */
	res = PQgetResult(h->pg);
	fail(h, res != NULL && PQresultStatus(res) == PGRES_FATAL_ERROR ?
		 PQresultErrorMessage(res) : "the server ended the stream");
	PQclear(res);
	return -1;
}

void
nc_handshake_release(char *body)
{
	PQfreemem(body);
}

bool
nc_handshake_pending(const NcHandshake *h)
{
	NcTls	   *tls = PQsslStruct(h->pg, "OpenSSL");

	return tls != NULL && nc_tls_pending(tls);
}

NcTls *
nc_handshake_take_tls(NcHandshake *h)
{
	NcTls	   *tls = PQsslStruct(h->pg, "OpenSSL");

	if (tls != NULL)
		nc_tls_adopt(tls);
	return tls;
}

static const char *
option_value(const PQconninfoOption *options, const char *keyword)
{
	for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
		if (strcmp(o->keyword, keyword) == 0 && o->val != NULL)
			return o->val;
	return "";
}

bool
nc_conninfo_parts(const char *conninfo, NcConninfoParts *parts, char *err, size_t err_bytes)
{
	char	   *message = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &message);
	const char *host;
	const char *hostaddr;
	const char *port;

	memset(parts, 0, sizeof(*parts));
	if (options == NULL)
	{
		nc_text_one_line(err, err_bytes, message != NULL ? message : "out of memory",
						 ERROR_BYTES);
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
	PQconninfoFree(options);
	return true;
}
