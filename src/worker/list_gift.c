/*
 * list_gift.c
 *	  Gives page servers the list of the file cache's pages: it is in the image that
 *	  the next compute begins with (docs/lfc.md).
 *
 * Runs in the background worker "neon_comm cache list", which nobody waits for.  Over
 * a connection of its own to each host of each shard: query cache_list of the page
 * service.  A page server that is away, or does not take it, is told in the log and
 * gets the next one.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/latch.h"

#include "nc/base/clock.h"
#include "nc/boot/image.h"
#include "nc/feed/feed.h"
#include "nc/filecache/filecache.h"
#include "nc/net/handshake.h"
#include "nc/net/resolve.h"
#include "nc/shard/shard_map.h"
#include "nc/shared/identity.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"
#include "nc/shared/waits.h"

#include "list_gift.h"

/* Bytes of one message. */
#define PIECE_BYTES (32 * 1024)

/* One page server has so long. */
#define GIFT_SECONDS_MAX 60

#define LOOK_MS 10

/* What is given to one page server, and until when. */
typedef struct Gift
{
	const char *conninfo;		/* of one host */
	const uint8 *list;
	size_t		bytes;
	uint64		until_us;
	const char *why;			/* it failed */
	char		text[256];
} Gift;

/* Goes on at a signal, too; false when the time is over. */
static bool
wait_a_while(Gift *gift, int events, int fd)
{
	CHECK_FOR_INTERRUPTS();
	if (nc_clock_us() > gift->until_us)
	{
		gift->why = "it took too long";
		return false;
	}
	(void) WaitLatchOrSocket(MyLatch, events | WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 fd, fd < 0 ? LOOK_MS : 1000, nc_wait_event(NC_WAIT_CACHE_LIST));
	ResetLatch(MyLatch);
	return true;
}

static bool
wait_for_step(Gift *gift, NcHandshake *h, NcHandshakeStep step)
{
	int			events = (step != NC_HANDSHAKE_WRITE ? WL_SOCKET_READABLE : 0) |
		(step != NC_HANDSHAKE_READ ? WL_SOCKET_WRITEABLE : 0);

	return wait_a_while(gift, events, nc_handshake_socket(h));
}

/* The text is the handshake's, which ends. */
static bool
gift_failed(Gift *gift, const char *why)
{
	strlcpy(gift->text, why, sizeof(gift->text));
	gift->why = gift->text;
	return false;
}

/* The address of a host that has a name; false when it has none. */
static bool
find_address(Gift *gift, char *address, size_t bytes)
{
	NcConninfoParts parts;
	NcResolve  *resolve;
	bool		found;

	address[0] = '\0';
	if (!nc_conninfo_parts(gift->conninfo, &parts, gift->text, sizeof(gift->text)))
	{
		gift->why = gift->text;
		return false;
	}
	if (parts.host[0] == '\0')
		return true;
	resolve = nc_resolve_start(parts.host, -1);
	if (resolve == NULL)
		return gift_failed(gift, "no thread to resolve its name");
	while (!nc_resolve_done(resolve) && wait_a_while(gift, 0, PGINVALID_SOCKET))
		;
	found = nc_resolve_done(resolve) && nc_resolve_count(resolve) > 0;
	if (found)
		strlcpy(address, nc_resolve_address(resolve, 0), bytes);
	else if (gift->why == NULL)
		(void) gift_failed(gift, nc_resolve_error(resolve));
	nc_resolve_release(resolve);
	return found;
}

static NcHandshake *
start_gift(Gift *gift, const char *address)
{
	char		options[NC_OPTIONS_BYTES];
	char		command[96];
	NcHandshakeParams params = {
		.conninfo = gift->conninfo,
		.hostaddr = address[0] != '\0' ? address : NULL,
		.token_file = nc_guc_token_file,
		.options = options,
		.token_in_clear = nc_guc_allow_token_in_clear,
		.protocol_version = nc_guc_protocol_version,
		.tenant_id = nc_guc_tenant_id,
		.timeline_id = nc_guc_timeline_id,
		.command = command,
		.user_timeout_ms = nc_guc_silence_timeout
	};

	nc_identity_options(options, sizeof(options));
	snprintf(command, sizeof(command), "cache_list %s %s %zu", nc_guc_tenant_id, nc_guc_timeline_id,
			 gift->bytes);
	return nc_handshake_start(&params);
}

static bool
open_stream(Gift *gift, NcHandshake *h)
{
	for (;;)
	{
		NcHandshakeStep step = nc_handshake_advance(h);

		if (step == NC_HANDSHAKE_DONE)
			return true;
		if (step == NC_HANDSHAKE_FAILED)
			return gift_failed(gift, nc_handshake_error(h));
		if (!wait_for_step(gift, h, step))
			return false;
	}
}

static bool
send_bytes(Gift *gift, NcHandshake *h)
{
	for (size_t at = 0; at < gift->bytes; at += PIECE_BYTES)
	{
		NcHandshakeStep step = nc_handshake_put(h, gift->list + at, Min(PIECE_BYTES, gift->bytes - at));

		while (step == NC_HANDSHAKE_READ_WRITE && wait_for_step(gift, h, step))
			step = nc_handshake_put(h, NULL, 0);
		if (step == NC_HANDSHAKE_FAILED)
			return gift_failed(gift, nc_handshake_error(h));
		if (step != NC_HANDSHAKE_DONE)
			return false;
	}
	return true;
}

/* One message says that it is kept. */
static bool
wait_until_kept(Gift *gift, NcHandshake *h)
{
	for (;;)
	{
		char	   *body;
		int			rc = nc_handshake_get(h, &body);

		if (rc > 0)
			nc_handshake_release(body);
		if (rc > 0)
			return true;
		if (rc < 0)
			return gift_failed(gift, nc_handshake_error(h));
		if (!wait_for_step(gift, h, NC_HANDSHAKE_READ))
			return false;
		if (nc_handshake_put(h, NULL, 0) == NC_HANDSHAKE_FAILED)
			return gift_failed(gift, nc_handshake_error(h));
	}
}

static bool
give_list(Gift *gift)
{
	char		address[NC_RESOLVE_ADDRESS_BYTES];
	NcHandshake *h;
	bool		given;

	gift->until_us = nc_clock_us() + GIFT_SECONDS_MAX * UINT64CONST(1000000);
	if (!find_address(gift, address, sizeof(address)))
		return false;
	h = start_gift(gift, address);
	if (h == NULL)
		return gift_failed(gift, "out of memory");
	given = open_stream(gift, h) && send_bytes(gift, h) && wait_until_kept(gift, h);
	nc_handshake_free(h);
	return given;
}

/* Says once for each page server what was wrong. */
static void
give_to(const char *conninfo, const uint8 *list, size_t bytes)
{
	Gift		gift = {.conninfo = conninfo, .list = list, .bytes = bytes};
	NcConninfoParts parts;
	char		ignored[64];

	if (give_list(&gift))
		return;
	if (!nc_conninfo_parts(conninfo, &parts, ignored, sizeof(ignored)))
		strlcpy(parts.address, "?", sizeof(parts.address));
	ereport(LOG,
			(errmsg("neon_comm: page server %s did not take the list of cached pages: %s", parts.address,
					gift.why)));
}

/* Was it given to this host already?  One page server may serve several shards. */
static bool
remember(List **given, const char *conninfo)
{
	ListCell   *cell;

	foreach(cell, *given)
	{
		if (strcmp(lfirst(cell), conninfo) == 0)
			return false;
	}
	*given = lappend(*given, pstrdup(conninfo));
	return true;
}

bool
nc_list_gift_wanted(void)
{
	/* without a feed page servers are Neon's, who do not know such lists */
	return nc_guc_lfc_list_to_page_servers && nc_feed_enabled();
}

void
nc_list_gift_give(void)
{
	static NcShardMap map;
	NcMapSettings in_force = nc_map_settings();
	char		err[256];
	char		one[NC_HOST_CONNINFO_BYTES];
	size_t		bytes;
	uint8	   *list = nc_filecache_list_bytes(NC_BOOT_CACHE_LIST_BYTES_MAX, &bytes, err, sizeof(err));
	List	   *given = NIL;

	if (list == NULL)
	{
		ereport(LOG, (errmsg("neon_comm: page servers get no list of cached pages: %s", err)));
		return;
	}
	if (!nc_shard_map_parse(in_force.page_servers, in_force.stripe_size, &map, err, sizeof(err)))
		return;
	for (uint32 shard = 0; shard < map.shard_count; shard++)
	{
		uint32		hosts = nc_conninfo_host(map.conninfo[shard], 0, one, sizeof(one));

		for (uint32 host = 0; host < hosts; host++)
		{
			(void) nc_conninfo_host(map.conninfo[shard], host, one, sizeof(one));
			if (remember(&given, one))
				give_to(one, list, bytes);
		}
	}
	pfree(list);
	list_free_deep(given);
}
