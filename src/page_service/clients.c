/*
 * clients.c
 *	  How many connections that have logged in each client has, over all workers.
 *
 * Each worker counts its own sessions in a table in shared memory that only it
 * writes; everybody adds up all of them.  So nothing is locked, and two workers
 * that let somebody in at the same moment may together go one beyond the limit.
 *
 * Who logs in when all places are taken gets one: somebody of the address that has
 * most connections leaves, so who floods displaces himself, and a compute gets in.  Who
 * is in another worker is asked to leave there, which takes a sweep of it at most.
 */
#include "page_service.h"

uint32
nc_svc_client_sessions(uint64 client)
{
	uint32		total = 0;

	for (int i = 0; i < nc_svc_workers; i++)
	{
		for (int n = 0; n < NC_SVC_CLIENTS; n++)
		{
			NcSvcClient *c = &nc_svc_shared->workers[i].clients[n];

			if (pg_atomic_read_u64(&c->key) == client)
				total += pg_atomic_read_u32(&c->sessions);
		}
	}
	return total;
}

/* This worker's entry of a client, or of nobody (client 0); NULL if there is none. */
static NcSvcClient *
find_client(uint64 client)
{
	for (int n = 0; n < NC_SVC_CLIENTS; n++)
	{
		NcSvcClient *c = &nc_svc_self()->clients[n];

		if (pg_atomic_read_u64(&c->key) == client)
			return c;
	}
	return NULL;
}

/* Connections of the address that has most. */
uint32
nc_svc_client_most(void)
{
	uint32		most = 0;

	for (int i = 0; i < nc_svc_workers; i++)
	{
		for (int n = 0; n < NC_SVC_CLIENTS; n++)
		{
			uint64		key = pg_atomic_read_u64(&nc_svc_shared->workers[i].clients[n].key);

			if (key != 0)
				most = Max(most, nc_svc_client_sessions(key));
		}
	}
	return most;
}

/* Connections in this worker of the addresses that have most, without those that are to leave already. */
static int
in_worker(NcSvcWorkerState *worker, uint32 most)
{
	int			total = 0;

	for (int n = 0; n < NC_SVC_CLIENTS; n++)
	{
		uint64		key = pg_atomic_read_u64(&worker->clients[n].key);

		if (key != 0 && nc_svc_client_sessions(key) >= most)
			total += pg_atomic_read_u32(&worker->clients[n].sessions);
	}
	return total - (int) pg_atomic_read_u32(&worker->displace);
}

/* Where there are most; not here if the newcomer is the only one. */
static void
ask_to_leave(void)
{
	uint32		most = nc_svc_client_most();
	NcSvcWorkerState *where = nc_svc_self();
	int			there = in_worker(where, most);

	if (there < 2)
		there = 0;
	for (int i = 0; i < nc_svc_workers; i++)
	{
		int			n = in_worker(&nc_svc_shared->workers[i], most);

		if (n > there)
		{
			where = &nc_svc_shared->workers[i];
			there = n;
		}
	}
	pg_atomic_fetch_add_u32(&where->displace, 1);
}

void
nc_svc_client_logged_in(NcSvcSession *s)
{
	uint32		total = 0;

	s->counted = true;
	pg_atomic_write_u32(&nc_svc_self()->logged_in, pg_atomic_read_u32(&nc_svc_self()->logged_in) + 1);
	for (int i = 0; i < nc_svc_workers; i++)
		total += pg_atomic_read_u32(&nc_svc_shared->workers[i].logged_in) -
			pg_atomic_read_u32(&nc_svc_shared->workers[i].displace);
	if ((int32) total > nc_svc_max_connections)
		ask_to_leave();
}

/* It is gone, or has been told to leave. */
void
nc_svc_client_leaves(NcSvcSession *s)
{
	if (s->counted)
		pg_atomic_write_u32(&nc_svc_self()->logged_in, pg_atomic_read_u32(&nc_svc_self()->logged_in) - 1);
	s->counted = false;
}

/* With the table full, clients beyond it are not counted; max_connections holds for them. */
void
nc_svc_client_add(NcSvcSession *s)
{
	NcSvcClient *c = find_client(s->client);

	if (c == NULL && (c = find_client(0)) != NULL)
		pg_atomic_write_u64(&c->key, s->client);
	if (c == NULL)
		s->client = 0;
	else
		pg_atomic_write_u32(&c->sessions, pg_atomic_read_u32(&c->sessions) + 1);
}

void
nc_svc_client_remove(NcSvcSession *s)
{
	NcSvcClient *c = s->client == 0 ? NULL : find_client(s->client);

	if (c == NULL)
		return;
	pg_atomic_write_u32(&c->sessions, pg_atomic_read_u32(&c->sessions) - 1);
	if (pg_atomic_read_u32(&c->sessions) == 0)
		pg_atomic_write_u64(&c->key, 0);
	s->client = 0;
}

/* The slot in shared memory outlives the process. */
void
nc_svc_client_forget_all(void)
{
	for (int n = 0; n < NC_SVC_CLIENTS; n++)
	{
		pg_atomic_write_u64(&nc_svc_self()->clients[n].key, 0);
		pg_atomic_write_u32(&nc_svc_self()->clients[n].sessions, 0);
	}
}
