/*
 * clients.c
 *	  How many connections each client address has, over all workers.
 *
 * Each worker counts its own sessions in a table in shared memory that only it
 * writes; everybody adds up all of them.  So nothing is locked, and two workers
 * that accept at the same moment may together go one beyond the limit.
 */
#include "page_service.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/hashfn.h"

/* Fills in address and key of the peer; an unknown one shares the key of all unknown ones. */
void
nc_svc_client_identify(NcSvcSession *s)
{
	struct sockaddr_storage peer = {0};
	socklen_t	bytes = sizeof(peer);
	const struct sockaddr_in *v4 = (const struct sockaddr_in *) &peer;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) &peer;
	char		host[INET6_ADDRSTRLEN] = "?";
	uint64		key = 0;

	if (getpeername(s->fd, (struct sockaddr *) &peer, &bytes) == 0 && peer.ss_family == AF_INET)
	{
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(s->address, sizeof(s->address), "%s:%d", host, ntohs(v4->sin_port));
		key = hash_bytes_extended((const unsigned char *) &v4->sin_addr, sizeof(v4->sin_addr), 0);
	}
	else if (peer.ss_family == AF_INET6)
	{
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(s->address, sizeof(s->address), "[%s]:%d", host, ntohs(v6->sin6_port));
		key = hash_bytes_extended((const unsigned char *) &v6->sin6_addr, sizeof(v6->sin6_addr), 0);
	}
	else
		strlcpy(s->address, "an unknown address", sizeof(s->address));
	s->client = key | 1;
}

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
find(uint64 client)
{
	for (int n = 0; n < NC_SVC_CLIENTS; n++)
	{
		NcSvcClient *c = &nc_svc_self()->clients[n];

		if (pg_atomic_read_u64(&c->key) == client)
			return c;
	}
	return NULL;
}

/* With the table full, clients beyond it are not counted; max_connections holds for them. */
void
nc_svc_client_add(NcSvcSession *s)
{
	NcSvcClient *c = find(s->client);

	if (c == NULL && (c = find(0)) != NULL)
		pg_atomic_write_u64(&c->key, s->client);
	if (c == NULL)
		s->client = 0;
	else
		pg_atomic_write_u32(&c->sessions, pg_atomic_read_u32(&c->sessions) + 1);
}

void
nc_svc_client_remove(NcSvcSession *s)
{
	NcSvcClient *c = s->client == 0 ? NULL : find(s->client);

	if (c == NULL)
		return;
	pg_atomic_write_u32(&c->sessions, pg_atomic_read_u32(&c->sessions) - 1);
	if (pg_atomic_read_u32(&c->sessions) == 0)
		pg_atomic_write_u64(&c->key, 0);
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
