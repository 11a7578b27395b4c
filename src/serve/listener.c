/*
 * listener.c
 *	  Lists of addresses, listening sockets, accept.
 *
 * Every worker of a server may have its own socket on the same port
 * (SO_REUSEPORT), so that the kernel spreads connections without a lock.  That
 * option would also let two servers of one user share a port by mistake and mix
 * their answers; so the first process binds and listens without it, which fails
 * if anybody else is there, and sets it afterwards.  Who is first the caller knows.
 */
#include "nc/serve/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 512

/* ---- addresses ---- */

bool
nc_listen_next(const char **list, char address[NC_LISTEN_ADDRESS_BYTES])
{
	size_t		length;

	*list += strspn(*list, ", \t\n");
	if (**list == '\0')
		return false;
	length = strcspn(*list, ", \t\n");
	snprintf(address, NC_LISTEN_ADDRESS_BYTES, "%.*s", (int) length, *list);
	*list += length;
	return true;
}

bool
nc_listen_address_is_loopback(const char *address)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, address, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, address, &v6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&v6);
	return strcmp(address, "localhost") == 0 || nc_listen_address_is_path(address);
}

bool
nc_listen_address_is_path(const char *address)
{
	return address[0] == '/' && strlen(address) < sizeof(((struct sockaddr_un *) NULL)->sun_path);
}

bool
nc_listen_is_loopback(const char *addresses)
{
	char		address[NC_LISTEN_ADDRESS_BYTES];

	while (nc_listen_next(&addresses, address))
	{
		if (!nc_listen_address_is_loopback(address))
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
bind_and_listen(int fd, const struct addrinfo *ai, const NcListenHow *how)
{
	if (!set_on(fd, SOL_SOCKET, SO_REUSEADDR))
		return false;
	if (ai->ai_family == AF_INET6 && !set_on(fd, IPPROTO_IPV6, IPV6_V6ONLY))
		return false;
	if (how->shared && !how->first && !set_on(fd, SOL_SOCKET, SO_REUSEPORT))
		return false;
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0)
		return false;
	return !how->shared || !how->first || set_on(fd, SOL_SOCKET, SO_REUSEPORT);
}

static int
open_socket(const struct addrinfo *ai, const NcListenHow *how)
{
	int			fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			error;

	if (fd < 0 || bind_and_listen(fd, ai, how))
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

static struct addrinfo *
resolve(const char *address, const NcListenHow *how, NcListenFault *fault)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
	.ai_flags = AI_PASSIVE};
	struct addrinfo *list = NULL;
	char		port[12];
	int			rc;

	if (!how->names)
	{
		hints.ai_flags |= AI_NUMERICHOST;
		if (strcmp(address, "localhost") == 0)
			address = "127.0.0.1";
	}
	snprintf(port, sizeof(port), "%d", how->port);
	rc = getaddrinfo(how->names && strcmp(address, "*") == 0 ? NULL : address, port, &hints, &list);
	if (rc == 0)
		return list;
	fault->error = 0;
	fault->text = gai_strerror(rc);
	return NULL;
}

/* Opens the sockets of one address. */
static bool
open_address(const char *address, const NcListenHow *how, int *fds, int *nfds, NcListenFault *fault)
{
	struct addrinfo *list = resolve(address, how, fault);
	bool		ok = list != NULL;

	for (struct addrinfo *ai = list; ai != NULL && ok; ai = ai->ai_next)
	{
		int			fd;

		if (*nfds == NC_LISTENERS_MAX)
		{
			*fault = (NcListenFault) {.text = "there are too many addresses"};
			ok = false;
			break;
		}
		fd = open_socket(ai, how);
		/* a machine without IPv6 may still resolve to its addresses */
		if (fd < 0 && errno == EAFNOSUPPORT)
			continue;
		ok = fd >= 0;
		if (ok)
			fds[(*nfds)++] = fd;
		else
			*fault = (NcListenFault) {.error = errno,.text = strerror(errno)};
	}
	if (list != NULL)
		freeaddrinfo(list);
	return ok;
}

/* ---- sockets with a path ---- */

/* Does nobody listen there any more? Whatever else is at that place stays there. */
static bool
is_stale(const struct sockaddr_un *at)
{
	int			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct stat st;
	bool		refused;

	if (fd < 0)
		return false;
	refused = connect(fd, (const struct sockaddr *) at, sizeof(*at)) != 0 && errno == ECONNREFUSED;
	close(fd);
	return refused && lstat(at->sun_path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* Nobody but the owner and his group ever has it, not for a moment. */
static bool
bind_path(int fd, const struct sockaddr_un *at)
{
	mode_t		before = umask(0117);
	bool		bound = bind(fd, (const struct sockaddr *) at, sizeof(*at)) == 0;

	umask(before);
	return bound;
}

static int
open_path(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			error;

	if (fd < 0)
		return -1;
	/* who told that it is a path has looked at its length */
	memcpy(at.sun_path, path, strnlen(path, sizeof(at.sun_path) - 1));
	if ((bind_path(fd, &at) ||
		 (errno == EADDRINUSE && is_stale(&at) && unlink(path) == 0 && bind_path(fd, &at))) &&
		listen(fd, BACKLOG) == 0)
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Opens what one word of the list names. */
static bool
open_named(const char *address, const NcListenHow *how, int *fds, int *nfds, NcListenFault *fault)
{
	if (!how->paths)
		return open_address(address, how, fds, nfds, fault);
	if (!nc_listen_address_is_path(address))
		return how->port == 0 || open_address(address, how, fds, nfds, fault);
	if (*nfds == NC_LISTENERS_MAX)
	{
		*fault = (NcListenFault) {.text = "there are too many addresses"};
		return false;
	}
	fds[*nfds] = open_path(address);
	if (fds[*nfds] < 0)
	{
		*fault = (NcListenFault) {.error = errno,.text = strerror(errno)};
		return false;
	}
	(*nfds)++;
	return true;
}

int
nc_listen_open(const NcListenHow *how, int fds[NC_LISTENERS_MAX], NcListenFault *fault)
{
	const char *list = how->addresses;
	char		address[NC_LISTEN_ADDRESS_BYTES] = "";
	int			nfds = 0;
	bool		ok = true;

	*fault = (NcListenFault) {.text = "there is no address"};
	while (ok && nc_listen_next(&list, address))
		ok = open_named(address, how, fds, &nfds, fault);
	if (ok && nfds > 0)
		return nfds;
	memcpy(fault->address, address, sizeof(address));
	while (nfds > 0)
		close(fds[--nfds]);
	return 0;
}

int
nc_listen_accept(int fd, struct sockaddr_storage *peer)
{
	socklen_t	bytes = sizeof(*peer);
	int			got;

	memset(peer, 0, sizeof(*peer));
	got = accept4(fd, (struct sockaddr *) peer, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (got >= 0)
	{
		(void) set_on(got, IPPROTO_TCP, TCP_NODELAY);
		(void) set_on(got, SOL_SOCKET, SO_KEEPALIVE);
	}
	return got;
}

/* ---- who it is ---- */

void
nc_peer_text(const struct sockaddr_storage *peer, char out[NC_PEER_BYTES])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *) peer;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) peer;
	char		host[INET6_ADDRSTRLEN] = "?";

	if (peer->ss_family == AF_INET)
	{
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(out, NC_PEER_BYTES, "%s:%d", host, ntohs(v4->sin_port));
	}
	else if (peer->ss_family == AF_INET6)
	{
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(out, NC_PEER_BYTES, "[%s]:%d", host, ntohs(v6->sin6_port));
	}
	else
		snprintf(out, NC_PEER_BYTES, "%s", peer->ss_family == AF_UNIX ? "a Unix socket" : "an unknown address");
}

uint64_t
nc_peer_machine(const struct sockaddr_storage *peer)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *) peer;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) peer;
	uint64_t	net = 0;

	if (peer->ss_family == AF_INET)
		return UINT64_C(1) << 32 | ntohl(v4->sin_addr.s_addr);
	if (peer->ss_family == AF_INET6)
		memcpy(&net, &v6->sin6_addr, sizeof(net));
	/* no net begins with 64 zeroes but that of ::1 */
	return net == 0 ? 1 : net;
}
