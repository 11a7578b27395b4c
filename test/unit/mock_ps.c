/*
 * mock_ps.c
 *	  The page server of the engine's tests, see mock_ps.h.
 */
#include "mock_ps.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc/wire/pagestream.h"
#include "nc/wire/session.h"

#define IN_BYTES (256 * 1024)
#define OUT_BYTES (16 * 1024 * 1024)
#define ANSWER_BYTES (16 * 1024)
#define HELD_MAX 1024
#define RULES_MAX 8

typedef enum MockPhase
{
	PHASE_STARTUP,
	PHASE_TLS,					/* its handshake; then STARTUP again */
	PHASE_PASSWORD,
	PHASE_QUERY,
	PHASE_STREAM,
	PHASE_DEAD					/* reads and says nothing */
} MockPhase;

typedef struct MockConn
{
	int			fd;				/* -1 = free */
	MockPhase	phase;
	bool		deaf;			/* reads nothing */
	NcTls	   *tls;
	uint32_t	tls_writes;
	int			version;
	uint8_t    *in;
	size_t		in_bytes;
	uint8_t    *out;
	size_t		out_bytes;
	bool		close_after;	/* once out is empty */
	bool		stalled;		/* sends only so many bytes of out */
	size_t		may_send;
	bool		swap_pending;
	NcPsRequest swap_first;
	NcPsRequest held[HELD_MAX];
	uint32_t	nheld;
} MockConn;

typedef struct MockRule
{
	MockFault	fault;
	uint32_t	skip;
	uint32_t	times;
} MockRule;

struct MockPs
{
	uint32_t	id;
	uint32_t	traced;
	NcTraceContext last_trace;
	int			listen_fd;
	uint16_t	port;
	char		conninfo[128];
	MockDoor	door;
	MockRule	rules[RULES_MAX];
	uint32_t	nrules;
	char		error_text[512];
	char		password[64];
	NcTlsContext *tls;
	size_t		tls_record_bytes;
	uint32_t	tls_new_keys;	/* after so many records, 0 = never */
	char		last_command[128];
	char		last_params[NC_STARTUP_PARAMS_MAX][2][128];
	int			nlast_params;
	uint32_t	accepted;
	uint32_t	open_now;
	uint32_t	open_max;
	uint32_t	requests;
	uint32_t	history[MOCK_HISTORY];
	MockConn	conns[MOCK_CONNS_MAX];
};

static void
die(const char *what)
{
	perror(what);
	abort();
}

/* ---- pages ---- */

void
mock_page_fill(uint8_t *page, uint32_t server_id, const NcRelKey *rel, uint32_t block)
{
	for (uint32_t at = 0; at < NC_PAGE_BYTES; at += 32)
	{
		NcWriter	w = nc_writer(page + at, 32);

		nc_write_u32(&w, server_id);
		nc_write_u32(&w, rel->spc);
		nc_write_u32(&w, rel->db);
		nc_write_u32(&w, rel->rel);
		nc_write_u32(&w, rel->fork);
		nc_write_u32(&w, block);
		nc_write_u32(&w, at);
		nc_write_u32(&w, ~block);
	}
}

bool
mock_page_is(const uint8_t *page, uint32_t server_id, const NcRelKey *rel, uint32_t block)
{
	uint8_t		want[NC_PAGE_BYTES];

	mock_page_fill(want, server_id, rel, block);
	return memcmp(want, page, NC_PAGE_BYTES) == 0;
}

/* ---- life ---- */

static int
make_listener(uint16_t *port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(*port)};
	socklen_t	len = sizeof(addr);
	int			one = 1;
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *) &addr, sizeof(addr)) < 0 || listen(fd, 256) < 0)
		die("bind");
	if (getsockname(fd, (struct sockaddr *) &addr, &len) < 0)
		die("getsockname");
	*port = ntohs(addr.sin_port);
	return fd;
}

MockPs *
mock_ps_open(uint32_t server_id)
{
	MockPs	   *m = calloc(1, sizeof(*m));

	if (m == NULL)
		die("calloc");
	m->id = server_id;
	m->listen_fd = make_listener(&m->port);
	for (int i = 0; i < MOCK_CONNS_MAX; i++)
		m->conns[i].fd = -1;
	snprintf(m->conninfo, sizeof(m->conninfo), "host=127.0.0.1 port=%u sslmode=disable", m->port);
	snprintf(m->error_text, sizeof(m->error_text), "Read error");
	return m;
}

static void
conn_close(MockPs *m, MockConn *c)
{
	/* an abrupt end must not lose to a polite one that waits for unread data */
	nc_tls_end(c->tls);
	c->tls = NULL;
	close(c->fd);
	c->fd = -1;
	free(c->in);
	free(c->out);
	c->in = c->out = NULL;
	m->open_now--;
}

void
mock_ps_drop_all(MockPs *m)
{
	for (int i = 0; i < MOCK_CONNS_MAX; i++)
		if (m->conns[i].fd >= 0)
			conn_close(m, &m->conns[i]);
}

void
mock_ps_down(MockPs *m)
{
	if (m->listen_fd >= 0)
		close(m->listen_fd);
	m->listen_fd = -1;
	mock_ps_drop_all(m);
}

void
mock_ps_up(MockPs *m)
{
	m->listen_fd = make_listener(&m->port);
}

void
mock_ps_close(MockPs *m)
{
	mock_ps_down(m);
	free(m);
}

/* ---- what a test asks and tells ---- */

const char *
mock_ps_conninfo(const MockPs *m)
{
	return m->conninfo;
}

uint16_t
mock_ps_port(const MockPs *m)
{
	return m->port;
}

void
mock_ps_fault(MockPs *m, MockFault fault, uint32_t skip, uint32_t times)
{
	if (m->nrules == RULES_MAX)
		die("too many rules");
	m->rules[m->nrules++] = (MockRule) {fault, skip, times};
}

void
mock_ps_door(MockPs *m, MockDoor door)
{
	m->door = door;
}

void
mock_ps_error_text(MockPs *m, const char *text)
{
	snprintf(m->error_text, sizeof(m->error_text), "%s", text);
}

void
mock_ps_password(MockPs *m, const char *password)
{
	snprintf(m->password, sizeof(m->password), "%s", password);
}

void
mock_ps_tls(MockPs *m, NcTlsContext *context, size_t record_bytes)
{
	m->tls = context;
	m->tls_record_bytes = record_bytes;
	m->tls_new_keys = 5;
}

void
mock_ps_same_keys(MockPs *m)
{
	m->tls_new_keys = 0;
}

void
mock_ps_small_buffer(MockPs *m, int bytes)
{
	setsockopt(m->listen_fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
}

void
mock_ps_deaf(MockPs *m, bool deaf)
{
	for (int i = 0; i < MOCK_CONNS_MAX; i++)
		m->conns[i].deaf = deaf;
}

uint32_t
mock_ps_accepted(const MockPs *m)
{
	return m->accepted;
}

uint32_t
mock_ps_open_now(const MockPs *m)
{
	return m->open_now;
}

uint32_t
mock_ps_open_max(const MockPs *m)
{
	return m->open_max;
}

uint32_t
mock_ps_requests(const MockPs *m)
{
	return m->requests;
}

uint32_t
mock_ps_block_of_request(const MockPs *m, uint32_t index)
{
	return m->history[index];
}

uint32_t
mock_ps_traced(const MockPs *m, NcTraceContext *last)
{
	*last = m->last_trace;
	return m->traced;
}

uint32_t
mock_ps_held(const MockPs *m)
{
	uint32_t	n = 0;

	for (int i = 0; i < MOCK_CONNS_MAX; i++)
		if (m->conns[i].fd >= 0)
			n += m->conns[i].nheld;
	return n;
}

const char *
mock_ps_last_command(const MockPs *m)
{
	return m->last_command;
}

const char *
mock_ps_last_param(const MockPs *m, const char *name)
{
	for (int i = 0; i < m->nlast_params; i++)
		if (strcmp(m->last_params[i][0], name) == 0)
			return m->last_params[i][1];
	return NULL;
}

/* ---- writing ---- */

static NcWriter
out_writer(MockConn *c)
{
	return nc_writer(c->out + c->out_bytes, OUT_BYTES - c->out_bytes);
}

static void
out_done(MockConn *c, const NcWriter *w)
{
	if (w->failed)
		die("mock output buffer");
	c->out_bytes += nc_writer_bytes(w);
}

static void
say_error(MockConn *c, const char *sqlstate, const char *message)
{
	NcWriter	w = out_writer(c);

	nc_session_error(&w, "ERROR", sqlstate, message, NULL, NULL);
	nc_session_ready(&w);
	out_done(c, &w);
}

static void
answer_body(const MockPs *m, const NcPsRequest *req, uint8_t *page, NcPsResponse *resp)
{
	*resp = (NcPsResponse) {
		.reqid = req->reqid, .request_lsn = req->request_lsn,
		.not_modified_since = req->not_modified_since, .rel = req->rel,
		.block = req->block, .db = req->db
	};
	switch (req->tag)
	{
		case NC_REQ_EXISTS:
			resp->tag = NC_RESP_EXISTS;
			resp->exists = req->rel.rel % 2 == 0;
			break;
		case NC_REQ_NBLOCKS:
			resp->tag = NC_RESP_NBLOCKS;
			resp->nblocks = req->rel.rel + 7;
			break;
		case NC_REQ_DBSIZE:
			resp->tag = NC_RESP_DBSIZE;
			resp->db_bytes = (int64_t) req->db * NC_PAGE_BYTES;
			break;
		default:
			resp->tag = NC_RESP_GETPAGE;
			mock_page_fill(page, m->id, &req->rel, req->block);
			resp->page = page;
			break;
	}
}

static void
say_response(MockConn *c, const NcPsResponse *resp)
{
	NcWriter	w = out_writer(c);
	uint8_t    *length_at = nc_frame_begin(&w, 'd');

	if (!nc_ps_response_encode(&w, c->version, resp))
		die("encode");
	nc_frame_end(&w, length_at);
	out_done(c, &w);
}

static void
answer(MockPs *m, MockConn *c, const NcPsRequest *req)
{
	uint8_t		page[NC_PAGE_BYTES];
	NcPsResponse resp;

	answer_body(m, req, page, &resp);
	say_response(c, &resp);
}

static void
answer_wrongly(MockPs *m, MockConn *c, const NcPsRequest *req, MockFault fault)
{
	uint8_t		page[NC_PAGE_BYTES];
	NcPsResponse resp;

	answer_body(m, req, page, &resp);
	if (fault == MOCK_WRONG_ID)
		resp.reqid++;
	else if (fault == MOCK_WRONG_BLOCK)
		resp.block++;
	else if (fault == MOCK_WRONG_TAG)
		resp.tag = resp.tag == NC_RESP_NBLOCKS ? NC_RESP_EXISTS : NC_RESP_NBLOCKS;
	else if (fault == MOCK_ERROR)
	{
		resp.tag = NC_RESP_ERROR;
		resp.message = m->error_text;
		resp.message_bytes = strlen(m->error_text);
	}
	say_response(c, &resp);
}

static void
say_bytes(MockConn *c, const void *bytes, size_t n)
{
	NcWriter	w = out_writer(c);

	nc_write_bytes(&w, bytes, n);
	out_done(c, &w);
}

/* ---- requests ---- */

static MockFault
next_fault(MockPs *m)
{
	MockRule   *r = &m->rules[0];
	MockFault	fault;

	if (m->nrules == 0)
		return MOCK_NONE;
	if (r->skip > 0)
	{
		r->skip--;
		return MOCK_NONE;
	}
	fault = r->fault;
	if (--r->times == 0)
		memmove(r, r + 1, --m->nrules * sizeof(*r));
	return fault;
}

static void
hold(MockConn *c, const NcPsRequest *req)
{
	if (c->nheld == HELD_MAX)
		die("too many held requests");
	c->held[c->nheld++] = *req;
}

static void
act(MockPs *m, MockConn *c, const NcPsRequest *req, MockFault fault)
{
	size_t		before = c->out_bytes;

	switch (fault)
	{
		case MOCK_NONE:
			answer(m, c, req);
			break;
		case MOCK_SILENT:
			c->phase = PHASE_DEAD;
			break;
		case MOCK_HOLD:
			hold(c, req);
			break;
		case MOCK_CLOSE:
			c->close_after = true;
			break;
		case MOCK_CLOSE_MID_FRAME:
			answer(m, c, req);
			c->out_bytes = before + (c->out_bytes - before) / 2;
			c->close_after = true;
			break;
		case MOCK_STALL:
			answer(m, c, req);
			c->stalled = true;
			c->may_send = before + (c->out_bytes - before) / 2;
			break;
		case MOCK_WRONG_ID:
		case MOCK_WRONG_BLOCK:
		case MOCK_WRONG_TAG:
		case MOCK_ERROR:
			answer_wrongly(m, c, req, fault);
			break;
		case MOCK_SWAP:
			c->swap_pending = true;
			c->swap_first = *req;
			break;
		case MOCK_GARBAGE:
			say_bytes(c, "d\0\0\0\x0czzzzzzzz", 13);
			break;
		case MOCK_LONG_FRAME:
			say_bytes(c, "d\x7f\xff\xff\xff", 5);
			break;
		case MOCK_UNASKED:
			answer(m, c, req);
			answer(m, c, req);
			break;
		case MOCK_STREAM_ERROR:
			if (strcmp(m->error_text, "reconnect") == 0)
				say_error(c, "08006", m->error_text);
			else
				say_error(c, "57P01", "shutdown");
			c->phase = PHASE_QUERY;
			break;
	}
}

static void
take_request(MockPs *m, MockConn *c, const NcFrame *f)
{
	NcPsRequest req;
	NcPsRequest first = c->swap_first;

	if (!nc_ps_request_decode(f->body, f->body_bytes, c->version, &req))
		die("the engine sent a malformed request");
	if (req.trace != NULL)
	{
		m->traced++;
		m->last_trace = *req.trace;
	}
	if (m->requests < MOCK_HISTORY)
		m->history[m->requests] = req.block;
	m->requests++;
	/* answers keep their order behind a held one */
	if (c->nheld > 0)
	{
		hold(c, &req);
		return;
	}
	if (c->swap_pending)
	{
		c->swap_pending = false;
		answer(m, c, &req);
		answer(m, c, &first);
		return;
	}
	act(m, c, &req, next_fault(m));
}

void
mock_ps_release(MockPs *m)
{
	mock_ps_release_some(m, UINT32_MAX);
}

void
mock_ps_go_on(MockPs *m)
{
	for (int i = 0; i < MOCK_CONNS_MAX; i++)
		m->conns[i].stalled = false;
}

void
mock_ps_release_some(MockPs *m, uint32_t n)
{
	for (int i = 0; i < MOCK_CONNS_MAX; i++)
	{
		MockConn   *c = &m->conns[i];
		uint32_t	some = n < c->nheld ? n : c->nheld;

		if (c->fd < 0)
			continue;
		for (uint32_t h = 0; h < some; h++)
			answer(m, c, &c->held[h]);
		c->nheld -= some;
		memmove(c->held, c->held + some, c->nheld * sizeof(c->held[0]));
	}
}

void
mock_ps_say_page(MockPs *m)
{
	NcPsRequest req = {.tag = NC_REQ_GETPAGE};

	for (int i = 0; i < MOCK_CONNS_MAX; i++)
		if (m->conns[i].fd >= 0 && m->conns[i].phase == PHASE_STREAM)
			answer(m, &m->conns[i], &req);
}

/* ---- session ---- */

static void
welcome(MockConn *c)
{
	NcWriter	w = out_writer(c);

	nc_session_auth_ok(&w);
	nc_session_parameter_status(&w, "client_encoding", "UTF8");
	nc_session_ready(&w);
	out_done(c, &w);
	c->phase = PHASE_QUERY;
}

static void
remember(MockPs *m, const NcStartup *s)
{
	m->nlast_params = s->nparams;
	for (int i = 0; i < s->nparams; i++)
	{
		snprintf(m->last_params[i][0], sizeof(m->last_params[i][0]), "%s", s->params[i].name);
		snprintf(m->last_params[i][1], sizeof(m->last_params[i][1]), "%s", s->params[i].value);
	}
}

/* Says yes in clear text; the next bytes are TLS. */
static void
begin_tls(MockPs *m, MockConn *c)
{
	if (send(c->fd, "S", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
		die("send");
	c->tls = nc_tls_start(m->tls, c->fd);
	c->phase = PHASE_TLS;
}

/* Handles one startup packet; bytes consumed, 0 = incomplete. */
static size_t
startup(MockPs *m, MockConn *c)
{
	NcStartup	s;
	NcWriter	w;

	nc_startup_parse(c->in, c->in_bytes, &s);
	switch (s.kind)
	{
		case NC_STARTUP_INCOMPLETE:
			return 0;
		case NC_STARTUP_SSL:
			if (m->tls != NULL && c->tls == NULL)
			{
				begin_tls(m, c);
				return s.consumed;
			}
			/* FALLTHROUGH */
		case NC_STARTUP_GSSENC:
			say_bytes(c, "N", 1);
			return s.consumed;
		case NC_STARTUP_V3:
			break;
		default:
			die("bad startup packet");
	}
	remember(m, &s);
	if (m->password[0] != '\0')
	{
		w = out_writer(c);
		nc_session_auth_cleartext(&w);
		out_done(c, &w);
		c->phase = PHASE_PASSWORD;
	}
	else
		welcome(c);
	return s.consumed;
}

static void
command(MockPs *m, MockConn *c, const char *text)
{
	NcWriter	w;

	snprintf(m->last_command, sizeof(m->last_command), "%s", text);
	if (sscanf(text, "pagestream_v%d", &c->version) != 1 || m->door == MOCK_DOOR_REFUSES)
	{
		say_error(c, "XX000", "tenant is not\nhere");
		return;
	}
	w = out_writer(c);
	if (m->door == MOCK_DOOR_SELECT)
	{
		nc_session_command_complete(&w, "SELECT 1");
		nc_session_ready(&w);
	}
	else
	{
		nc_session_copy_both(&w);
		c->phase = PHASE_STREAM;
	}
	out_done(c, &w);
}

static void
message(MockPs *m, MockConn *c, const NcFrame *f)
{
	if (f->type == 'X')
		c->close_after = true;
	else if (c->phase == PHASE_PASSWORD && f->type == 'p')
	{
		if (strcmp((const char *) f->body, m->password) == 0)
			welcome(c);
		else
		{
			NcWriter	w = out_writer(c);

			nc_session_error(&w, "FATAL", "28P01", "JWT authentication error", NULL, NULL);
			out_done(c, &w);
			c->close_after = true;
		}
	}
	else if (c->phase == PHASE_QUERY && f->type == 'Q')
		command(m, c, (const char *) f->body);
	else if (c->phase == PHASE_STREAM && f->type == 'd')
		take_request(m, c, f);
}

static void
process(MockPs *m, MockConn *c)
{
	size_t		used = 0;

	while (used < c->in_bytes && !c->close_after && c->phase != PHASE_DEAD && c->phase != PHASE_TLS)
	{
		NcFrame		f;

		if (c->phase == PHASE_STARTUP)
		{
			size_t		n;

			memmove(c->in, c->in + used, c->in_bytes - used);
			c->in_bytes -= used;
			used = 0;
			n = startup(m, c);
			if (n == 0)
				break;
			used = n;
			continue;
		}
		if (nc_frame_parse(c->in + used, c->in_bytes - used, NC_CLIENT_MESSAGE_BYTES_MAX,
						   &f) != NC_FRAME_OK)
			break;
		message(m, c, &f);
		used += f.consumed;
	}
	if (c->phase == PHASE_DEAD)
		used = c->in_bytes;
	memmove(c->in, c->in + used, c->in_bytes - used);
	c->in_bytes -= used;
}

/* ---- sockets ---- */

static void
accept_one(MockPs *m, int fd)
{
	int			one = 1;

	m->accepted++;
	if (m->door == MOCK_DOOR_CLOSES)
	{
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 0; i < MOCK_CONNS_MAX; i++)
	{
		MockConn   *c = &m->conns[i];

		if (c->fd >= 0)
			continue;
		memset(c, 0, sizeof(*c));
		c->fd = fd;
		c->in = malloc(IN_BYTES);
		c->out = malloc(OUT_BYTES);
		c->phase = m->door == MOCK_DOOR_SILENT ? PHASE_DEAD : PHASE_STARTUP;
		if (++m->open_now > m->open_max)
			m->open_max = m->open_now;
		return;
	}
	die("too many connections");
}

static ssize_t
receive(MockConn *c)
{
	NcTlsFault	fault;
	ssize_t		n;

	if (c->tls == NULL)
		return recv(c->fd, c->in + c->in_bytes, IN_BYTES - c->in_bytes, MSG_DONTWAIT);
	n = nc_tls_read(c->tls, c->in + c->in_bytes, IN_BYTES - c->in_bytes, &fault);
	errno = n == 0 ? EAGAIN : EPIPE;
	return n > 0 ? n : -1;
}

/* One record, now and then with a change of keys before it. */
static ssize_t
send_record(MockPs *m, MockConn *c, size_t at)
{
	NcTlsFault	fault;
	size_t		left = c->out_bytes - at;
	size_t		bytes = left < m->tls_record_bytes ? left : m->tls_record_bytes;
	ssize_t		n;

	if (m->tls_new_keys > 0 && ++c->tls_writes % m->tls_new_keys == 0)
		(void) SSL_key_update(c->tls, SSL_KEY_UPDATE_REQUESTED);
	n = nc_tls_write(c->tls, c->out + at, bytes, &fault);
	errno = n == 0 ? EAGAIN : EPIPE;
	return n > 0 ? n : -1;
}

/* False when the connection is gone. */
static bool
read_some(MockPs *m, MockConn *c)
{
	ssize_t		n;
	NcTlsFault	fault;

	if (c->deaf)
		return true;
	if (c->phase == PHASE_TLS)
	{
		n = nc_tls_handshake(c->tls, &fault);
		if (n > 0)
			c->phase = PHASE_STARTUP;
		return n >= 0;
	}

	while ((n = receive(c)) > 0)
	{
		c->in_bytes += (size_t) n;
		process(m, c);
		if (c->close_after)
			return true;
	}
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

static bool
write_some(MockPs *m, MockConn *c)
{
	size_t		done = 0;
	size_t		end = c->stalled ? c->may_send : c->out_bytes;
	ssize_t		n = 0;

	while (done < end && c->phase != PHASE_TLS)
	{
		if (c->tls != NULL)
			n = send_record(m, c, done);
		else
			n = send(c->fd, c->out + done, end - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			break;
		done += (size_t) n;
	}
	n = n < 0 ? errno : 0;
	memmove(c->out, c->out + done, c->out_bytes - done);
	c->out_bytes -= done;
	c->may_send -= c->stalled ? done : 0;
	return n == 0 || n == EAGAIN || n == EWOULDBLOCK;
}

void
mock_ps_step(MockPs *m)
{
	int			fd;

	while (m->listen_fd >= 0 &&
		   (fd = accept4(m->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		accept_one(m, fd);
	for (int i = 0; i < MOCK_CONNS_MAX; i++)
	{
		MockConn   *c = &m->conns[i];

		if (c->fd >= 0 && (!read_some(m, c) || !write_some(m, c) ||
						   (c->close_after && c->out_bytes == 0)))
			conn_close(m, c);
	}
}
