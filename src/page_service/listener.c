/*
 * listener.c
 *	  Listening sockets of the page service workers.
 *
 * Runs in page service workers, and for the address check in the postmaster.
 * Every worker has its own socket on the same port (SO_REUSEPORT), so the kernel
 * spreads connections without a lock.  That option would also let two servers of
 * one user share a port by mistake and mix their answers; so the first worker of a
 * server binds and listens without it, which fails if anybody else is there, and
 * sets it afterwards.  A lock makes "first" certain.
 */
#include "page_service.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>


#define BACKLOG 512
#define ADDRESS_BYTES 256

/* ---- addresses ---- */

/* Takes the next element of a comma-separated list; false at the end or if it is too long. */
static bool
next_address(const char **list, char *address)
{
	const char *end;
	size_t		length;

	*list += strspn(*list, ", \t");
	if (**list == '\0')
		return false;
	end = *list + strcspn(*list, ", \t");
	length = Min(end - *list, ADDRESS_BYTES - 1);
	memcpy(address, *list, length);
	address[length] = '\0';
	*list = end;
	return true;
}

static bool
is_loopback(const char *address)
{
	struct in_addr v4;

	if (inet_pton(AF_INET, address, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return strcmp(address, "localhost") == 0 || strcmp(address, "::1") == 0;
}

/* A name other than localhost may resolve to anything, so it does not count as loopback. */
bool
nc_svc_listener_is_loopback(const char *addresses)
{
	char		address[ADDRESS_BYTES];

	while (next_address(&addresses, address))
	{
		if (!is_loopback(address))
			return false;
	}
	return true;
}

/* ---- sockets ---- */

static bool
set_on(int fd, int level, int option)
{
	int			on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on)) == 0;
}

static bool
bind_and_listen(int fd, const struct addrinfo *ai, bool first)
{
	if (!set_on(fd, SOL_SOCKET, SO_REUSEADDR))
		return false;
	if (ai->ai_family == AF_INET6 && !set_on(fd, IPPROTO_IPV6, IPV6_V6ONLY))
		return false;
	if (!first && !set_on(fd, SOL_SOCKET, SO_REUSEPORT))
		return false;
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0)
		return false;
	return !first || set_on(fd, SOL_SOCKET, SO_REUSEPORT);
}

static int
open_socket(const struct addrinfo *ai, bool first)
{
	int			fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			save_errno;

	if (fd < 0 || bind_and_listen(fd, ai, first))
		return fd;
	save_errno = errno;
	close(fd);
	errno = save_errno;
	return -1;
}

/* Called with errno of the failure. */
static void
report_no_socket(const char *address, bool in_use)
{
	ereport(LOG,
			(errmsg("page service: could not listen on address \"%s\", port %d: %m", address,
					nc_svc_port),
			 in_use ? errhint("Is another server using the port? Otherwise choose another one "
							  "with neon_page_service.port.") : 0));
}

/* Opens the sockets of one address; false (logged) if that fails. */
static bool
open_address(const char *address, bool first, int *fds, int *nfds)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
	.ai_flags = AI_PASSIVE};
	struct addrinfo *list;
	char		port[12];
	bool		ok = true;
	int			rc;

	snprintf(port, sizeof(port), "%d", nc_svc_port);
	rc = getaddrinfo(strcmp(address, "*") == 0 ? NULL : address, port, &hints, &list);
	if (rc != 0)
	{
		ereport(LOG, (errmsg("page service: could not resolve listen address \"%s\": %s", address,
							 gai_strerror(rc))));
		return false;
	}
	for (struct addrinfo *ai = list; ai != NULL && ok && *nfds < NC_SVC_LISTENERS_MAX;
		 ai = ai->ai_next)
	{
		int			fd = open_socket(ai, first);

		/* A machine without IPv6 may still resolve to its addresses. */
		if (fd < 0 && errno == EAFNOSUPPORT)
			continue;
		ok = fd >= 0;
		if (ok)
			fds[(*nfds)++] = fd;
		else
			report_no_socket(address, errno == EADDRINUSE);
	}
	freeaddrinfo(list);
	return ok;
}

static bool
open_all(bool first, int *fds, int *nfds)
{
	const char *list = nc_svc_listen_addresses;
	char		address[ADDRESS_BYTES];

	while (next_address(&list, address))
	{
		if (!open_address(address, first, fds, nfds))
			return false;
	}
	return *nfds > 0;
}

int
nc_svc_listener_open(int *fds)
{
	LWLock	   *lock = &nc_svc_shared->locks[NC_SVC_LOCK_LISTEN].lock;
	bool		first = true;
	int			nfds = 0;
	bool		ok;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (int i = 0; i < nc_svc_workers; i++)
		first = first && !nc_svc_shared->workers[i].listening;
	ok = open_all(first, fds, &nfds);
	nc_svc_self()->listening = ok;
	LWLockRelease(lock);

	while (!ok && nfds > 0)
		close(fds[--nfds]);
	return nfds;
}

int
nc_svc_listener_accept(int listen_fd)
{
	int			fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0)
	{
		(void) set_on(fd, IPPROTO_TCP, TCP_NODELAY);
		(void) set_on(fd, SOL_SOCKET, SO_KEEPALIVE);
	}
	return fd;
}
