/*
 * outlet.c
 *	  See nc/trace/outlet.h.
 */
#include "nc/trace/outlet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/base/file.h"

/* ---- the file ---- */

static bool
write_all(int fd, const char *at, size_t bytes)
{
	while (bytes > 0)
	{
		ssize_t		n = write(fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		bytes -= (size_t) n;
	}
	return true;
}

/* Opens it for one more line; a longer one is put aside. -1 and errno. */
static int
open_file(const char *path, uint64_t limit_bytes, size_t bytes)
{
	char		older[4096];
	struct stat st;
	int			fd = nc_file_open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);

	if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0 ||
		(uint64_t) st.st_size + bytes <= limit_bytes)
		return fd;
	close(fd);
	if (snprintf(older, sizeof(older), "%s.1", path) >= (int) sizeof(older))
	{
		errno = ENAMETOOLONG;
		return -1;
	}
	if (rename(path, older) != 0)
		return -1;
	return nc_file_open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
}

bool
nc_trace_file_append(const char *path, uint64_t limit_bytes, const void *line, size_t bytes)
{
	int			fd = open_file(path, limit_bytes, bytes);
	bool		written;
	int			saved;

	if (fd < 0)
		return false;
	written = write_all(fd, line, bytes);
	saved = errno;
	close(fd);
	errno = saved;
	return written;
}

/* ---- the address ---- */

static bool
is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* Copies [from, until); false when it is empty or too long. */
static bool
cut(char *to, size_t size, const char *from, const char *until)
{
	size_t		bytes = (size_t) (until - from);

	if (bytes == 0 || bytes >= size)
		return false;
	memcpy(to, from, bytes);
	to[bytes] = '\0';
	return true;
}

static const char *
parse_port(const char *at, const char *end, int *port)
{
	char		digits[6];

	if (!cut(digits, sizeof(digits), at, end) || strspn(digits, "0123456789") != strlen(digits))
		return "its port is not a number from 1 to 65535";
	*port = atoi(digits);
	return *port >= 1 && *port <= 65535 ? NULL : "its port is not a number from 1 to 65535";
}

/* What would end the line of the request, or begin something else in it. */
static bool
path_is_plain(const char *path)
{
	for (; *path != '\0'; path++)
		if (*path <= ' ' || *path >= 0x7f || *path == '#')
			return false;
	return true;
}

const char *
nc_trace_url_parse(const char *text, NcTraceUrl *url)
{
	static const char scheme[] = "http://";
	const char *host = text + sizeof(scheme) - 1;
	const char *end;
	const char *host_end;
	const char *wrong;

	*url = (NcTraceUrl) {.path = "/v1/traces",.port = 4318};
	if (strncmp(text, scheme, sizeof(scheme) - 1) != 0)
		return "it does not begin with http://";
	end = host + strcspn(host, "/?#");
	if (*end != '\0' && (!cut(url->path, sizeof(url->path), end, end + strlen(end)) ||
						 url->path[0] != '/' || !path_is_plain(url->path)))
		return "its path is too long, or has characters that no path has";
	if (*host == '[')
	{
		host++;
		host_end = memchr(host, ']', (size_t) (end - host));
		if (host_end == NULL)
			return "its address lacks a ]";
	}
	else
		for (host_end = host; host_end < end && *host_end != ':';)
			host_end++;
	if (!cut(url->host, sizeof(url->host), host, host_end))
		return "it names no host";
	if (*host_end == ']')
		host_end++;
	if (host_end < end)
	{
		if (*host_end != ':')
			return "what follows its host is no port";
		wrong = parse_port(host_end + 1, end, &url->port);
		if (wrong != NULL)
			return wrong;
	}
	/* asked of nobody: names can take long */
	if (strcmp(url->host, "localhost") == 0)
		strcpy(url->host, "127.0.0.1");
	return is_loopback(url->host) ? NULL : "its host is not a loopback address";
}

/* ---- the post ---- */

void
nc_trace_post_end(NcTracePost *p)
{
	if (p->state != NC_TRACE_POST_IDLE)
		close(p->fd);
	p->state = NC_TRACE_POST_IDLE;
}

static bool
fail(NcTracePost *p, const char *what, const char *why)
{
	snprintf(p->error, sizeof(p->error), "%s: %s", what, why);
	nc_trace_post_end(p);
	return true;
}

static bool
wait_on(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static int
start_connect(const NcTraceUrl *url)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET,.sin_port = htons((uint16_t) url->port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6,.sin6_port = htons((uint16_t) url->port)};
	bool		is_v4 = inet_pton(AF_INET, url->host, &v4.sin_addr) == 1;
	int			fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (!is_v4)
		(void) inet_pton(AF_INET6, url->host, &v6.sin6_addr);
	if (connect(fd, is_v4 ? (struct sockaddr *) &v4 : (struct sockaddr *) &v6,
				is_v4 ? sizeof(v4) : sizeof(v6)) != 0 && errno != EINPROGRESS)
	{
		int			saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

bool
nc_trace_post_begin(NcTracePost *p, const NcTraceUrl *url, const char *body, size_t bytes,
					uint64_t now_us)
{
	NC_ASSERT(p->state == NC_TRACE_POST_IDLE);
	p->error[0] = '\0';
	p->fd = start_connect(url);
	if (p->fd < 0)
	{
		snprintf(p->error, sizeof(p->error), "could not connect: %s", strerror(errno));
		return false;
	}
	p->state = NC_TRACE_POST_CONNECTING;
	p->until_us = now_us + NC_TRACE_POST_US;
	p->body = body;
	p->body_bytes = bytes;
	p->sent = 0;
	p->answer_bytes = 0;
	p->head_bytes = (size_t) snprintf(p->head, sizeof(p->head),
									  "POST %s HTTP/1.1\r\nHost: %s%s%s:%d\r\n"
									  "Content-Type: application/json\r\nContent-Length: %zu\r\n"
									  "Connection: close\r\n\r\n", url->path,
									  strchr(url->host, ':') != NULL ? "[" : "", url->host,
									  strchr(url->host, ':') != NULL ? "]" : "", url->port, bytes);
	return true;
}

/* False: not yet, or it has failed. */
static bool
connected(NcTracePost *p)
{
	int			error = 0;
	socklen_t	bytes = sizeof(error);
	struct sockaddr_storage peer;
	socklen_t	peer_bytes = sizeof(peer);

	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) == 0 && error != 0)
	{
		fail(p, "could not connect", strerror(error));
		return false;
	}
	return getpeername(p->fd, (struct sockaddr *) &peer, &peer_bytes) == 0;
}

/* True: all is sent. */
static bool
send_some(NcTracePost *p)
{
	while (p->sent < p->head_bytes + p->body_bytes)
	{
		bool		in_head = p->sent < p->head_bytes;
		const char *at = in_head ? p->head + p->sent : p->body + (p->sent - p->head_bytes);
		size_t		left = in_head ? p->head_bytes - p->sent : p->head_bytes + p->body_bytes - p->sent;
		ssize_t		n = send(p->fd, at, left, MSG_NOSIGNAL);

		if (n < 0)
		{
			if (!wait_on(errno))
				fail(p, "could not send", strerror(errno));
			return false;
		}
		p->sent += (size_t) n;
	}
	return true;
}

/* The first line says it all. */
static bool
judge(NcTracePost *p)
{
	char		line[64];
	size_t		bytes = 0;

	if (memchr(p->answer, '\n', p->answer_bytes) == NULL)
		return fail(p, "the collector did not answer", "the connection was closed");
	while (bytes < sizeof(line) - 1 && bytes < p->answer_bytes && p->answer[bytes] >= ' ')
	{
		line[bytes] = p->answer[bytes] < 0x7f ? p->answer[bytes] : '?';
		bytes++;
	}
	line[bytes] = '\0';
	if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12 || line[9] != '2')
		return fail(p, "the collector refused", line);
	nc_trace_post_end(p);
	return true;
}

static bool
receive(NcTracePost *p)
{
	for (;;)
	{
		ssize_t		n = recv(p->fd, p->answer + p->answer_bytes,
							 sizeof(p->answer) - p->answer_bytes, 0);

		if (n < 0 && wait_on(errno))
			return false;
		if (n > 0)
			p->answer_bytes += (size_t) n;
		if (n <= 0 || p->answer_bytes == sizeof(p->answer) ||
			memchr(p->answer, '\n', p->answer_bytes) != NULL)
			return judge(p);
	}
}

bool
nc_trace_post_turn(NcTracePost *p, uint64_t now_us)
{
	if (p->state == NC_TRACE_POST_IDLE)
		return false;
	if (p->state == NC_TRACE_POST_CONNECTING && connected(p))
		p->state = NC_TRACE_POST_SENDING;
	if (p->state == NC_TRACE_POST_SENDING && send_some(p))
		p->state = NC_TRACE_POST_RECEIVING;
	if (p->state == NC_TRACE_POST_RECEIVING && receive(p))
		return true;
	if (p->state == NC_TRACE_POST_IDLE)
		return true;
	if (now_us >= p->until_us)
		return fail(p, "the collector did not answer", "too late");
	return false;
}
