/*
 * direct_conn.c
 *	  One connection of one process to one shard, in direct mode.
 *
 * Runs in any process of the compute.  libpq moves the bytes, with TLS and
 * without, as in the servers that this mode stands for.  No call blocks but the
 * waits on latch and socket; a connection that fails says so in few lines, is
 * left alone for a while that doubles, and is opened again.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "nc/base/clock.h"
#include "nc/direct/direct.h"
#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/net/handshake.h"
#include "nc/net/net.h"
#include "nc/net/resolve.h"
#include "direct_int.h"

/* Requests in flight, those of cancelled calls included. When full it is opened anew. */
#define PENDING_MAX 128

/* While a host name is being resolved by a thread we look this often. */
#define RESOLVE_SLICE_MS 10

typedef struct Pending
{
	NcPsRequest msg;
	int			index;			/* message of the call under way, -1: nobody waits */
} Pending;

struct NcDirectConn
{
	uint32		shard;
	char		conninfo[NC_CONNINFO_BYTES_MAX];
	NcConninfoParts parts;

	/* Being opened: handshake without a set. Ready: both. */
	NcHandshake *handshake;
	NcHandshakeStep step;		/* what it waits for */
	WaitEventSet *set;
	bool		holds_fd;		/* AcquireExternalFD() for its socket */
	int			version;
	uint64		opened_us;		/* when the attempt began */
	bool		answered;		/* an answer was verified on it */
	NcResolve  *resolve;		/* of its host, if that is a name */

	uint64		backoff_us;
	uint64		retry_us;		/* no attempt before */
	uint64		trouble_since_us;
	uint64		log_next_us;
	bool		trouble_logged;

	Pending		pending[PENDING_MAX];	/* circular */
	uint32		first;
	uint32		count;
	uint64		progress_us;	/* when something was sent into silence, or came */
};

static uint64 last_reqid = 0;

NcDirectConn *
nc_direct_conn_make(uint32 shard, const char *conninfo)
{
	NcDirectConn *c = calloc(1, sizeof(*c));
	char		err[256];

	if (c == NULL)
		return NULL;
	c->shard = shard;
	strlcpy(c->conninfo, conninfo, sizeof(c->conninfo));
	/* a string that libpq refuses is told when connecting fails */
	if (!nc_conninfo_parts(c->conninfo, &c->parts, err, sizeof(err)))
		strlcpy(c->parts.address, "?", sizeof(c->parts.address));
	return c;
}

bool
nc_direct_conn_ready(const NcDirectConn *c)
{
	return c->set != NULL;
}

/* ---- ending ---- */

static void
close_conn(NcDirectConn *c)
{
	if (c->set != NULL)
		FreeWaitEventSet(c->set);
	if (c->handshake != NULL)
		nc_handshake_free(c->handshake);
	if (c->holds_fd)
		ReleaseExternalFD();
	if (c->resolve != NULL)
		nc_resolve_release(c->resolve);
	c->set = NULL;
	c->handshake = NULL;
	c->holds_fd = false;
	c->resolve = NULL;
	while (c->count > 0)
	{
		int			index = c->pending[c->first].index;

		c->first = (c->first + 1) % PENDING_MAX;
		c->count--;
		if (index >= 0)
			nc_direct_lost(index);
	}
}

void
nc_direct_conn_free(NcDirectConn *c)
{
	close_conn(c);
	free(c);
}

void
nc_direct_conn_orphan(NcDirectConn *c)
{
	for (uint32 i = 0; i < c->count; i++)
		c->pending[(c->first + i) % PENDING_MAX].index = -1;
}

static void
log_trouble(NcDirectConn *c, const char *what, const char *reason)
{
	uint64		now_us = nc_clock_us();

	if (c->trouble_since_us == 0)
		c->trouble_since_us = now_us;
	if (now_us < c->log_next_us)
		return;
	c->log_next_us = now_us + NC_POOL_LOG_INTERVAL_US;
	c->trouble_logged = true;
	ereport(LOG,
			(errmsg("shard %u (%s): %s: %s; trouble for %.1f s", c->shard, c->parts.address,
					what, reason, (now_us - c->trouble_since_us) / 1e6),
			 errhidestmt(true)));
}

/* Ends it after a failure, with the delay and the words that the communicator has for that. */
static void
fail(NcDirectConn *c, NcCounter counter, const char *what, const char *why)
{
	char		reason[NC_CONN_ERROR_BYTES];
	uint64		delay_us = c->answered ? 0 : c->backoff_us * 2;

	/* the reason may be a text of the handshake that is freed below */
	strlcpy(reason, why, sizeof(reason));
	nc_stat(c->set != NULL ? NC_COUNTER_DISCONNECTS : NC_COUNTER_CONNECT_FAILURES, 1);
	if (counter != NC_COUNTERS)
		nc_stat(counter, 1);
	delay_us = Max(delay_us, NC_BACKOFF_MIN_US);
	if (counter == NC_COUNTER_POISONED)
		delay_us = Max(delay_us, NC_BACKOFF_POISONED_US);
	delay_us = Min(delay_us, NC_BACKOFF_MAX_US);
	close_conn(c);
	c->backoff_us = delay_us;
	c->retry_us = nc_clock_us() + delay_us / 2 +
		(uint64) (pg_prng_double(&pg_global_prng_state) * (delay_us / 2));
	log_trouble(c, what, reason);
}

static void
lost(NcDirectConn *c)
{
	fail(c, NC_COUNTERS, "connection lost", nc_handshake_error(c->handshake));
}

static void
poison(NcDirectConn *c, const char *reason)
{
	fail(c, NC_COUNTER_POISONED, "connection closed because of a wrong answer", reason);
}

/* ---- opening ---- */

/* Address for libpq: false while the name is being resolved, or when it cannot be. */
static bool
resolved(NcDirectConn *c, const char **hostaddr)
{
	*hostaddr = NULL;
	if (c->parts.host[0] == '\0')
		return true;
	if (c->resolve == NULL)
		c->resolve = nc_resolve_start(c->parts.host, -1);
	if (c->resolve == NULL)
		fail(c, NC_COUNTERS, "cannot resolve the host name", "no thread for it");
	else if (!nc_resolve_done(c->resolve))
		return false;
	else if (nc_resolve_count(c->resolve) == 0)
		fail(c, NC_COUNTERS, "cannot resolve the host name", nc_resolve_error(c->resolve));
	else
	{
		*hostaddr = nc_resolve_address(c->resolve, (uint32) MyProcPid %
									   nc_resolve_count(c->resolve));
		return true;
	}
	return false;
}

static void
start(NcDirectConn *c)
{
	NcHandshakeParams params = {
		.conninfo = c->conninfo,
		.token_file = nc_guc_token_file,
		.protocol_version = nc_guc_protocol_version,
		.tenant_id = nc_guc_tenant_id,
		.timeline_id = nc_guc_timeline_id,
		.user_timeout_ms = nc_guc_silence_timeout
	};

	c->opened_us = nc_clock_us();
	c->answered = false;
	if (!resolved(c, &params.hostaddr))
		return;
	if (!AcquireExternalFD())
	{
		fail(c, NC_COUNTERS, "cannot connect", "too many open files in this process");
		return;
	}
	c->holds_fd = true;
	c->version = params.protocol_version;
	c->handshake = nc_handshake_start(&params);
	if (c->handshake == NULL)
		fail(c, NC_COUNTERS, "cannot connect", "out of memory");
	else
		c->step = nc_handshake_advance(c->handshake);
}

/* The stream stands. Raises an error when there is no descriptor for the set. */
static void
finish_opening(NcDirectConn *c)
{
	WaitEventSet *set = CreateWaitEventSet(TopMemoryContext, 3);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, nc_handshake_socket(c->handshake), NULL, NULL);
	c->set = set;
	if (c->resolve != NULL)
		nc_resolve_release(c->resolve);
	c->resolve = NULL;
	nc_stat(NC_COUNTER_CONNECTS, 1);
	if (c->trouble_logged)
		ereport(LOG,
				(errmsg("shard %u (%s): connected again after %.1f s", c->shard,
						c->parts.address, (nc_clock_us() - c->trouble_since_us) / 1e6),
				 errhidestmt(true)));
	c->trouble_logged = false;
	c->trouble_since_us = 0;
}

static uint32
wait_latch(long timeout_ms)
{
	return WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
					 WAIT_EVENT_DATA_FILE_READ);
}

uint32
nc_direct_conn_open(NcDirectConn *c, int slice_ms)
{
	uint32		wanted = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
	uint32		events;

	if (c->handshake == NULL && nc_clock_us() < c->retry_us)
		return wait_latch(Min(slice_ms, (long) (c->retry_us - nc_clock_us()) / 1000 + 1));
	if (c->handshake == NULL)
		start(c);
	if (c->handshake == NULL)
		return c->resolve != NULL ? wait_latch(RESOLVE_SLICE_MS) : 0;
	switch (c->step)
	{
		case NC_HANDSHAKE_READ:
			wanted |= WL_SOCKET_READABLE;
			break;
		case NC_HANDSHAKE_WRITE:
			wanted |= WL_SOCKET_WRITEABLE;
			break;
		case NC_HANDSHAKE_READ_WRITE:
			wanted |= WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE;
			break;
		case NC_HANDSHAKE_FAILED:
			fail(c, NC_COUNTERS, "cannot connect", nc_handshake_error(c->handshake));
			return 0;
		case NC_HANDSHAKE_DONE:
			finish_opening(c);
			return 0;
	}
	events = WaitLatchOrSocket(MyLatch, wanted, nc_handshake_socket(c->handshake),
							   Min(slice_ms, nc_guc_connect_timeout), WAIT_EVENT_DATA_FILE_READ);
	if ((events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) != 0)
		c->step = nc_handshake_advance(c->handshake);
	else if (nc_clock_us() - c->opened_us >= (uint64) nc_guc_connect_timeout * 1000)
		fail(c, NC_COUNTERS, "cannot connect", "timed out while connecting");
	return events;
}

/* ---- requests and answers ---- */

bool
nc_direct_conn_send(NcDirectConn *c, NcPsRequest *msg, int index)
{
	uint8		body[NC_REQUEST_BYTES_MAX];
	NcWriter	w = nc_writer(body, sizeof(body));
	int			rc;

	if (c->count == PENDING_MAX)
	{
		/* cancelled ones only: nobody misses their answers */
		close_conn(c);
		return false;
	}
	/* tells processes apart in a server's log */
	msg->reqid = (uint64) MyProcPid << 32 | ++last_reqid;
	if (!nc_ps_request_encode(&w, c->version, msg))
		elog(ERROR, "neon_comm: a request cannot be encoded");
	rc = nc_handshake_put(c->handshake, body, nc_writer_bytes(&w));
	if (rc > 0)
		rc = nc_handshake_flush(c->handshake) < 0 ? -1 : 1;
	else if (rc == 0)
		rc = -1;
	if (rc < 0)
	{
		lost(c);
		return false;
	}
	nc_stat(NC_COUNTER_SENDS, 1);
	nc_stat(NC_COUNTER_BYTES_SENT, nc_writer_bytes(&w) + 5);
	if (msg->tag == NC_REQ_GETPAGE)
		nc_stat(NC_COUNTER_PAGES_REQUESTED, 1);
	if (c->count == 0)
		c->progress_us = nc_clock_us();
	c->pending[(c->first + c->count) % PENDING_MAX] = (Pending) {.msg = *msg, .index = index};
	c->count++;
	return true;
}

/* The answer to the oldest request. False when the connection ended by it. */
static bool
handle_answer(NcDirectConn *c, const uint8 *body, size_t bytes)
{
	Pending    *p = &c->pending[c->first];
	NcPsResponse resp;
	const char *wrong;
	char		reason[NC_CONN_TEXT_BYTES];

	nc_stat(NC_COUNTER_BYTES_RECEIVED, bytes + 5);
	if (!nc_ps_response_decode(body, bytes, c->version, &resp))
	{
		poison(c, "a malformed answer");
		return false;
	}
	if (c->count == 0)
	{
		poison(c, "an answer that nobody asked for");
		return false;
	}
	wrong = nc_ps_response_mismatch(&resp, &p->msg, c->version);
	if (wrong != NULL)
	{
		snprintf(reason, sizeof(reason), "an answer does not match its request: %s", wrong);
		poison(c, reason);
		return false;
	}
	c->first = (c->first + 1) % PENDING_MAX;
	c->count--;
	c->answered = true;
	c->backoff_us = 0;
	if (resp.tag == NC_RESP_GETPAGE)
		nc_stat(NC_COUNTER_PAGES_RECEIVED, 1);
	if (resp.tag == NC_RESP_ERROR)
		nc_stat(NC_COUNTER_PS_ERRORS, 1);
	if (p->index >= 0)
		nc_direct_answer(p->index, &resp, c->shard, c->parts.address);
	else
		nc_stat(NC_COUNTER_LATE_ANSWERS, 1);
	return true;
}

/* Takes what libpq has. False when the connection ended. */
static bool
take_answers(NcDirectConn *c)
{
	char	   *body;
	int			rc;

	while ((rc = nc_handshake_get(c->handshake, &body)) > 0)
	{
		bool		ok = handle_answer(c, (const uint8 *) body, rc);

		nc_handshake_release(body);
		if (!ok)
			return false;
	}
	if (rc == 0)
		return true;
	lost(c);
	return false;
}

/*
 * Reads what is there.  OpenSSL may hold the rest of a record that polling does
 * not show, so nothing of it is left behind.
 */
static void
take_input(NcDirectConn *c)
{
	do
	{
		if (nc_handshake_consume(c->handshake) < 0)
		{
			lost(c);
			return;
		}
		if (!take_answers(c))
			return;
	} while (c->count > 0 && nc_handshake_pending(c->handshake));
}

uint32
nc_direct_conn_receive(NcDirectConn *c, int slice_ms)
{
	WaitEvent	event;
	int			rc = nc_handshake_flush(c->handshake);
	uint64		silent_us;

	if (rc < 0)
	{
		lost(c);
		return 0;
	}
	ModifyWaitEvent(c->set, 2, rc > 0 ? WL_SOCKET_READABLE :
					WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE, NULL);
	nc_stat(NC_COUNTER_CLIENT_SLEEPS, 1);
	if (WaitEventSetWait(c->set, Min(slice_ms, nc_guc_silence_timeout), &event, 1,
						 WAIT_EVENT_DATA_FILE_READ) == 0)
		event.events = WL_TIMEOUT;
	if ((event.events & WL_SOCKET_READABLE) != 0)
	{
		nc_stat(NC_COUNTER_RECEIVES, 1);
		c->progress_us = nc_clock_us();
		take_input(c);
		return event.events;
	}
	silent_us = nc_clock_us() - c->progress_us;
	if (c->count > 0 && silent_us >= (uint64) nc_guc_silence_timeout * 1000)
		fail(c, NC_COUNTER_SILENT, "connection abandoned", "no answer in time");
	return event.events;
}
