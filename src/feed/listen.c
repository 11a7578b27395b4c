/*
 * listen.c
 *	  The sockets on which page servers reach the WAL feed.
 *
 * Runs in the feed.  Everything is non-blocking and close-on-exec; names are
 * never resolved.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "feed_internal.h"

#define LISTEN_BACKLOG 64
#define ACCEPT_PAUSE_US 10000

typedef struct Listeners
{
	int		   *fds;
	int			max;
	int			count;
} Listeners;

static socklen_t
make_address(const char *text, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *) out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
	{
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t) nc_feed_port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
	{
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t) nc_feed_port);
		return sizeof(*v6);
	}
	return 0;
}

static void
set_flag(int fd, int level, int option)
{
	int			on = 1;

	(void) setsockopt(fd, level, option, &on, sizeof(on));
}

static bool
listen_on(const char *text, void *arg)
{
	Listeners  *listeners = arg;
	struct sockaddr_storage address;
	socklen_t	bytes = make_address(text, &address);
	int			fd;

	if (listeners->count == listeners->max || bytes == 0)
		return false;
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0)
	{
		set_flag(fd, SOL_SOCKET, SO_REUSEADDR);
		if (address.ss_family == AF_INET6)
			set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	}
	if (fd < 0 || bind(fd, (struct sockaddr *) &address, bytes) < 0 ||
		listen(fd, LISTEN_BACKLOG) < 0)
		ereport(FATAL,
				(errcode_for_socket_access(),
				 errmsg("neon_comm could not listen for page servers on %s port %d: %m",
						text, nc_feed_port),
				 errhint("Is another server using the port? Otherwise set another "
						 "neon_comm.wal_feed_port and tell the page servers. It is tried again "
						 "every second.")));
	listeners->fds[listeners->count++] = fd;
	return true;
}

int
nc_feed_listen(int *fds, int max)
{
	Listeners	listeners = {.fds = fds, .max = max};

	if (!nc_feed_each_address(nc_feed_listen_addresses, listen_on, &listeners))
		ereport(FATAL,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("neon_comm.wal_feed_listen_addresses has more than %d addresses", max)));
	return listeners.count;
}

static void
format_address(const struct sockaddr_storage *address, char *out)
{
	char		host[INET6_ADDRSTRLEN] = "?";
	const struct sockaddr_in *v4 = (const struct sockaddr_in *) address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) address;

	if (address->ss_family == AF_INET6)
	{
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(out, NC_FEED_ADDRESS_BYTES, "[%s]:%d", host, ntohs(v6->sin6_port));
		return;
	}
	inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
	snprintf(out, NC_FEED_ADDRESS_BYTES, "%s:%d", host, ntohs(v4->sin_port));
}

/* The next waiting connection, or NULL when there is none. */
NcFeedConn *
nc_feed_accept(int listener, TimestampTz now)
{
	struct sockaddr_storage address;
	socklen_t	bytes = sizeof(address);
	char		text[NC_FEED_ADDRESS_BYTES];
	NcFeedConn *conn;
	int			fd = accept4(listener, (struct sockaddr *) &address, &bytes,
							 SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
	{
		/* Out of descriptors or memory: the socket stays readable, so do not come back at once. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		{
			ereport(LOG, (errcode_for_socket_access(),
						  errmsg("neon_comm could not accept a page server's connection: %m")));
			pg_usleep(ACCEPT_PAUSE_US);
		}
		return NULL;
	}
	set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
	set_flag(fd, SOL_SOCKET, SO_KEEPALIVE);
	format_address(&address, text);
	conn = nc_feed_conn_create(fd, text, now);
	if (conn == NULL)
		close(fd);
	return conn;
}
