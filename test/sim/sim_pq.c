/*
 * sim_pq.c
 *	  libpq as handshake.c sees it, TLS as stream.c sees it, and name resolution,
 *	  over the simulated network.
 *
 * The executable's own functions come before the library's, so that handshake.c
 * runs unchanged; parsing of conninfo strings stays with the real library.
 */
#include "sim.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

#include "nc/net/resolve.h"

/* Delay of a step of a handshake. */
#define STEP_US 100

struct pg_conn
{
	SimConn    *conn;
	bool		bad;
	bool		command_unsent;
	char		error[128];
};

struct pg_result
{
	ExecStatusType status;
};

static void
next_step(SimConn *c)
{
	c->ready = false;
	if (!c->hangs)
		sim_at(STEP_US + sim_below(STEP_US), SIM_EV_HANDSHAKE, c->index, c->serial, 0);
}

/* The step that was awaited can be made. */
void
sim_pq_event(SimConn *c)
{
	SimServer  *s = &sim.servers[c->server];

	if (c->stage == SIM_CONNECTING && s->down)
	{
		if (s->down_silent)
			return;
		c->refused = true;
	}
	c->ready = true;
}

static void
fail(PGconn *pg, const char *text)
{
	SimServer  *s = &sim.servers[pg->conn != NULL ? pg->conn->server : 0];

	snprintf(pg->error, sizeof(pg->error), "%s\n", text);
	pg->bad = true;
	s->failed_us = sim.now_us;
	s->failed_map = sim.nmaps;
}

/* A server that just failed is not asked again at once: half of the least delay. */
static void
check_back_off(const SimServer *s)
{
	if (!sim.same_address && !sim.hosts && s->failed_us != 0 && s->failed_map == sim.nmaps &&
		sim.now_us - s->failed_us < NC_BACKOFF_MIN_US / 2)
		sim_fail("an attempt to connect %llu us after the last one failed",
				 (unsigned long long) (sim.now_us - s->failed_us));
}

PGconn *
PQconnectStartParams(const char *const *keywords, const char *const *values, int expand)
{
	PGconn	   *pg = calloc(1, sizeof(*pg));
	const char *target = "";
	uint32_t	server;

	if (pg == NULL)
		abort();
	for (int i = 0; keywords[i] != NULL; i++)
	{
		/* the conninfo string comes before the plain database name */
		if (strcmp(keywords[i], "dbname") == 0 && target[0] == '\0')
			target = values[i];
		if (strcmp(keywords[i], "hostaddr") == 0)
			target = values[i];
	}
	server = sim_server_of(target);
	if (server >= sim.nservers)
		sim_fail("a connection to \"%s\", which is no page server", target);
	check_back_off(&sim.servers[server]);
	pg->conn = sim_conn_open(server);
	sim.total_connects++;
	SIM_TRACE("connection %u to server %u", pg->conn->index, server);
	pg->conn->hangs = sim_fault(SIM_HANG_CONNECT);
	pg->conn->refused = sim_fault(SIM_REFUSE);
	next_step(pg->conn);
	return pg;
}

ConnStatusType
PQstatus(const PGconn *pg)
{
	return pg->bad ? CONNECTION_BAD : CONNECTION_STARTED;
}

char *
PQerrorMessage(const PGconn *pg)
{
	return (char *) (uintptr_t) pg->error;
}

PQnoticeReceiver
PQsetNoticeReceiver(PGconn *pg, PQnoticeReceiver proc, void *arg)
{
	return proc;
}

int
PQsetnonblocking(PGconn *pg, int arg)
{
	return 0;
}

int
PQsocket(const PGconn *pg)
{
	return pg->conn != NULL ? SIM_FD_BASE + (int) pg->conn->index : -1;
}

int
PQsslInUse(PGconn *pg)
{
	return pg->conn->tls;
}

/* libpq goes on with another socket, which often has the same number. */
static void
change_socket(PGconn *pg)
{
	uint32_t	server = pg->conn->server;

	sim_conn_close(pg->conn);
	pg->conn = sim_conn_open(server);
	pg->conn->ready = true;
}

PostgresPollingStatusType
PQconnectPoll(PGconn *pg)
{
	SimConn    *c = pg->conn;

	if (c->stage == SIM_CONNECTING)
	{
		if (!c->ready)
			return PGRES_POLLING_WRITING;
		if (c->refused || c->reset)
		{
			fail(pg, "connection refused");
			return PGRES_POLLING_FAILED;
		}
		if (sim_below(10) == 0)
		{
			change_socket(pg);
			c = pg->conn;
		}
		c->stage = SIM_AUTHENTICATING;
		c->tls = sim.tls;
		c->hangs = sim_fault(SIM_HANG_AUTH);
		c->refused = sim_fault(SIM_REFUSE_AUTH);
		next_step(c);
		return PGRES_POLLING_READING;
	}
	if (!c->ready)
		return PGRES_POLLING_READING;
	if (c->refused || c->reset)
	{
		fail(pg, "authentication failed");
		return PGRES_POLLING_FAILED;
	}
	return PGRES_POLLING_OK;
}

int
PQsendQuery(PGconn *pg, const char *query)
{
	SimConn    *c = pg->conn;
	char		want[128];

	snprintf(want, sizeof(want), "pagestream_v%d %s %s", sim.config.protocol_version,
			 sim.config.tenant_id, sim.config.timeline_id);
	if (query[12] != '2' && query[12] != '3')
		sim_fail("command \"%s\"", query);
	c->version = query[12] - '0';
	if (c->version == sim.config.protocol_version && strcmp(query, want) != 0)
		sim_fail("command \"%s\" instead of \"%s\"", query, want);
	c->stage = SIM_COMMANDED;
	c->hangs = sim_fault(SIM_HANG_COMMAND);
	c->refused = sim_fault(SIM_REFUSE_COMMAND);
	c->not_copy = sim_fault(SIM_NOT_COPY);
	next_step(c);
	return 1;
}

int
PQflush(PGconn *pg)
{
	SimConn    *c = pg->conn;

	if (c->reset)
	{
		fail(pg, "could not send: connection reset");
		return -1;
	}
	pg->command_unsent = !pg->command_unsent && sim_below(4) == 0;
	return pg->command_unsent;
}

int
PQisBusy(PGconn *pg)
{
	return !pg->conn->ready;
}

int
PQconsumeInput(PGconn *pg)
{
	if (pg->conn->reset || pg->conn->eof)
	{
		fail(pg, "server closed the connection unexpectedly");
		return 0;
	}
	return 1;
}

PGresult *
PQgetResult(PGconn *pg)
{
	SimConn    *c = pg->conn;
	PGresult   *res = calloc(1, sizeof(*res));

	if (res == NULL)
		abort();
	res->status = PGRES_COPY_BOTH;
	if (c->refused)
		res->status = PGRES_FATAL_ERROR;
	else if (c->not_copy)
		res->status = PGRES_TUPLES_OK;
	else if (c->stage == SIM_COMMANDED)
	{
		c->stage = SIM_STREAM;
		sim.streams++;
		c->early = sim_fault(SIM_EARLY_ANSWER);
		if (c->early)
			sim_taint(c);
	}
	if (c->stage != SIM_STREAM)
	{
		SimServer  *s = &sim.servers[c->server];

		s->failed_us = sim.now_us;
		s->failed_map = sim.nmaps;
	}
	return res;
}

ExecStatusType
PQresultStatus(const PGresult *res)
{
	return res != NULL ? res->status : PGRES_FATAL_ERROR;
}

char *
PQresultErrorMessage(const PGresult *res)
{
	static char text[] = "ERROR:  refused by the simulation\n";

	return text;
}

void
PQclear(PGresult *res)
{
	free(res);
}

void
PQfinish(PGconn *pg)
{
	if (pg->conn != NULL)
	{
		SIM_TRACE("connection %u closed", pg->conn->index);
		sim_conn_close(pg->conn);
	}
	free(pg);
}

int
PQgetCopyData(PGconn *pg, char **buffer, int async)
{
	SimConn    *c = pg->conn;

	*buffer = NULL;
	if (!c->early)
		return 0;
	c->early = false;
	*buffer = calloc(1, 8);
	return 8;
}

/* ---- a stream inside TLS: OpenSSL's object is the connection ---- */

void *
PQsslStruct(PGconn *pg, const char *name)
{
	return pg->conn != NULL && pg->conn->tls && pg->conn->stage == SIM_STREAM ? pg->conn : NULL;
}

static SimConn *
conn_of_tls(const NcTls *tls)
{
	return (SimConn *) (uintptr_t) tls;
}

void
nc_tls_adopt(NcTls *tls)
{
}

void
nc_tls_hold(NcTls *tls)
{
}

void
nc_tls_release(NcTls *tls)
{
}

const char *
nc_tls_certificate_problem(const NcTls *tls)
{
	return NULL;
}

/* There are no certificates here. */
bool
nc_tls_peer_until(const NcTls *tls, int64_t *until_s)
{
	return false;
}

/* Bytes that OpenSSL has read and not handed out: polling the socket does not show them. */
bool
nc_tls_pending(const NcTls *tls)
{
	const SimConn *c = conn_of_tls(tls);

	return c->pq_in.end > c->pq_in.start;
}

bool
nc_tls_wants_write(const NcTls *tls)
{
	return sim_below(16) == 0;
}

ssize_t
nc_tls_read(NcTls *tls, void *to, size_t bytes, NcTlsFault *fault)
{
	SimConn    *c = conn_of_tls(tls);
	uint8_t		record[16384];
	size_t		n;

	fault->text[0] = '\0';
	if (!nc_tls_pending(tls) && c->arrived > 0)
	{
		n = sim_give_to_client(c, record, sizeof(record));
		sim_bytes_append(&c->pq_in, record, n);
	}
	if (nc_tls_pending(tls))
	{
		n = c->pq_in.end - c->pq_in.start;
		if (n > bytes)
			n = bytes;
		if (sim_below(4) == 0)
			n = 1 + sim_below((uint32_t) n);
		memcpy(to, c->pq_in.data + c->pq_in.start, n);
		sim_bytes_consume(&c->pq_in, n);
		sim.bytes_in += n;
		return (ssize_t) n;
	}
	if (c->reset)
		snprintf(fault->text, sizeof(fault->text), "connection reset");
	return c->reset || c->eof ? -1 : 0;
}

ssize_t
nc_tls_write(NcTls *tls, const void *from, size_t bytes, NcTlsFault *fault)
{
	SimConn    *c = conn_of_tls(tls);

	fault->text[0] = '\0';
	if (c->reset)
	{
		snprintf(fault->text, sizeof(fault->text), "connection reset");
		return -1;
	}
	return c->window_closed ? 0 : (ssize_t) sim_accept_from_client(c, from, bytes);
}

/* ---- name resolution ---- */

struct NcResolve
{
	uint64_t	serial;
	bool		done;
	bool		failed;
	bool		released;
	char		address[16];
	struct NcResolve *next;
};

static NcResolve *resolving;

NcResolve *
nc_resolve_start(const char *host, int wake_fd)
{
	NcResolve  *r = calloc(1, sizeof(*r));
	uint32_t	server = (uint32_t) atoi(host + 2);

	if (r == NULL)
		abort();
	r->serial = ++sim.last_serial;
	r->failed = sim_fault(SIM_NO_RESOLVE);
	snprintf(r->address, sizeof(r->address), "10.0.0.%u", server + 1);
	r->next = resolving;
	resolving = r;
	sim.resolving++;
	sim_at(10 + sim_below(2000), SIM_EV_RESOLVED, 0, r->serial, 0);
	return r;
}

static void
unlink_and_free(NcResolve *r)
{
	NcResolve **at = &resolving;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	free(r);
}

void
sim_resolve_event(uint64_t serial)
{
	for (NcResolve *r = resolving; r != NULL; r = r->next)
	{
		if (r->serial != serial)
			continue;
		r->done = true;
		if (r->released)
			unlink_and_free(r);
		else
			sim_bell_ring();
		return;
	}
}

bool
nc_resolve_done(NcResolve *r)
{
	return r->done;
}

uint32_t
nc_resolve_count(const NcResolve *r)
{
	return r->failed ? 0 : 1;
}

const char *
nc_resolve_error(const NcResolve *r)
{
	return "the simulation knows no such name";
}

const char *
nc_resolve_address(const NcResolve *r, uint32_t index)
{
	return r->address;
}

void
nc_resolve_release(NcResolve *r)
{
	sim.resolving--;
	r->released = true;
	if (r->done)
		unlink_and_free(r);
}

bool
nc_resolve_is_literal(const char *host)
{
	return strncmp(host, "ps", 2) != 0;
}
