/*
 * ask.c
 *	  One question to all page servers of the map at once, each over a connection of
 *	  its own that ends with the answer.
 *
 * Runs in any process that may raise errors.  Nothing blocks but one poll() of at most
 * SLICE_MS, so that an interrupt is heard in that time; the whole ends when the time is
 * over, whoever has answered by then.
 */
#include "postgres.h"

#include <poll.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "nc/base/clock.h"
#include "nc/shared/identity.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"

#include "check_int.h"

#define SLICE_MS 50

/* ---- who is asked ---- */

static Asked *
find_or_add(AskedAll *all, const char *conninfo)
{
	NcConninfoParts parts;
	char		err[256];
	Asked	   *a;

	for (uint32 i = 0; i < all->n; i++)
		if (strcmp(all->at[i].conninfo, conninfo) == 0)
			return &all->at[i];
	all->at = repalloc(all->at, (all->n + 1) * sizeof(Asked));
	a = &all->at[all->n++];
	memset(a, 0, sizeof(*a));
	strlcpy(a->conninfo, conninfo, sizeof(a->conninfo));
	if (!nc_conninfo_parts(conninfo, &parts, err, sizeof(err)))
		strlcpy(a->error, err, sizeof(a->error));
	strlcpy(a->address, parts.address[0] != '\0' ? parts.address : "?", sizeof(a->address));
	return a;
}

bool
nc_ask_collect(AskedAll *all, char *err, Size err_bytes)
{
	NcMapSettings in_force = nc_map_settings();
	char		conninfo[NC_HOST_CONNINFO_BYTES];

	all->n = 0;
	all->at = palloc0(sizeof(Asked));
	if (!nc_shard_map_parse(in_force.page_servers, in_force.stripe_size, &all->map, err, err_bytes))
		return false;
	for (uint32 shard = 0; shard < all->map.shard_count; shard++)
	{
		uint32		hosts = 1;

		for (uint32 h = 0; h < hosts; h++)
		{
			hosts = nc_conninfo_host(all->map.conninfo[shard], h, conninfo, sizeof(conninfo));
			find_or_add(all, conninfo)->shards[shard] = true;
		}
	}
	strlcpy(err, "neon_comm.page_servers is empty", err_bytes);
	return all->n > 0;
}

/* ---- asking ---- */

static void
give_up(Asked *a, const char *why)
{
	if (a->error[0] == '\0')
		strlcpy(a->error, why, sizeof(a->error));
}

/* Address for libpq: false while the name is being resolved, or when it cannot be. */
static bool
resolved(Asked *a, const char **hostaddr)
{
	NcConninfoParts parts;
	char		err[256];

	*hostaddr = NULL;
	if (!nc_conninfo_parts(a->conninfo, &parts, err, sizeof(err)) || parts.host[0] == '\0')
		return true;
	if (a->resolve == NULL && (a->resolve = nc_resolve_start(parts.host, -1)) == NULL)
		give_up(a, "cannot resolve the host name: no thread for it");
	else if (!nc_resolve_done(a->resolve))
		return false;
	else if (nc_resolve_count(a->resolve) == 0)
		snprintf(a->error, sizeof(a->error), "cannot resolve the host name: %s",
				 nc_resolve_error(a->resolve));
	else
		*hostaddr = nc_resolve_address(a->resolve, 0);
	return *hostaddr != NULL;
}

static void
begin(Asked *a, const char *question)
{
	char		options[NC_OPTIONS_BYTES];
	NcHandshakeParams params = {
		.conninfo = a->conninfo,
		.token_file = nc_guc_token_file,
		.options = options,
		.token_in_clear = nc_guc_allow_token_in_clear,
		.protocol_version = nc_guc_protocol_version,
		.tenant_id = nc_guc_tenant_id,
		.timeline_id = nc_guc_timeline_id,
		.question = question
	};

	if (!resolved(a, &params.hostaddr))
		return;
	if (!AcquireExternalFD())
	{
		give_up(a, "too many open files in this process");
		return;
	}
	a->holds_fd = true;
	nc_identity_options(options, sizeof(options));
	a->handshake = nc_handshake_start(&params);
	if (a->handshake == NULL)
		give_up(a, "out of memory");
	else
		a->step = nc_handshake_advance(a->handshake);
}

static bool
is_over(const Asked *a)
{
	return a->answered || a->error[0] != '\0';
}

/* Goes on with one; what it waits for next is in pfd. False when it is over. */
static bool
go_on(Asked *a, const char *question, struct pollfd *pfd)
{
	short		ready = pfd->revents;

	*pfd = (struct pollfd) {.fd = -1};
	if (is_over(a))
		return false;
	if (a->handshake == NULL)
		begin(a, question);
	else if (ready != 0)
		a->step = nc_handshake_advance(a->handshake);
	if (a->handshake == NULL)
		return !is_over(a);
	switch (a->step)
	{
		case NC_HANDSHAKE_READ:
			pfd->events = POLLIN;
			break;
		case NC_HANDSHAKE_WRITE:
			pfd->events = POLLOUT;
			break;
		case NC_HANDSHAKE_READ_WRITE:
			pfd->events = POLLIN | POLLOUT;
			break;
		case NC_HANDSHAKE_DONE:
			a->answered = true;
			return false;
		case NC_HANDSHAKE_FAILED:
			give_up(a, nc_handshake_error(a->handshake));
			return false;
	}
	pfd->fd = nc_handshake_socket(a->handshake);
	return true;
}

void
nc_ask(AskedAll *all, const char *question, int seconds)
{
	struct pollfd *pfds = palloc0(all->n * sizeof(struct pollfd));
	uint64		until_us = nc_clock_us() + (uint64) seconds * 1000000;
	bool		waits = true;

	while (waits && nc_clock_us() < until_us)
	{
		waits = false;
		for (uint32 i = 0; i < all->n; i++)
			if (go_on(&all->at[i], question, &pfds[i]))
				waits = true;
		CHECK_FOR_INTERRUPTS();
		/* whom a signal interrupts sees nothing ready */
		if (waits && poll(pfds, all->n, SLICE_MS) < 0)
			for (uint32 i = 0; i < all->n; i++)
				pfds[i].revents = 0;
	}
	for (uint32 i = 0; i < all->n; i++)
		if (!is_over(&all->at[i]))
			snprintf(all->at[i].error, sizeof(all->at[i].error), "no answer in %d s", seconds);
	pfree(pfds);
}

void
nc_ask_end(AskedAll *all)
{
	for (uint32 i = 0; i < all->n; i++)
	{
		Asked	   *a = &all->at[i];

		if (a->handshake != NULL)
			nc_handshake_free(a->handshake);
		if (a->holds_fd)
			ReleaseExternalFD();
		if (a->resolve != NULL)
			nc_resolve_release(a->resolve);
	}
	all->n = 0;
}
