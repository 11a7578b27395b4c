/*
 * control.c
 *	  Commands: a line of words in, lines out.  From the command line and from
 *	  clients of a unix socket.
 */
#include "proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX 32
#define LINE_BYTES 1024
#define WORDS_MAX 32

typedef struct Client
{
	int			fd;
	size_t		bytes;
	char		line[LINE_BYTES];
} Client;

static int	listen_fd = -1;
static Client clients[CLIENTS_MAX];

/* Tags of events: 1 is the listening socket, 2.. are clients. */
#define TAG_LISTEN 1
#define TAG_CLIENT 2

const char *
control_listen(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(sa.sun_path))
		return "the path of the control socket is too long";
	strcpy(sa.sun_path, path);
	unlink(path);
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *) &sa, sizeof(sa)) != 0 ||
		listen(listen_fd, 16) != 0)
		return "cannot listen on the control socket";
	for (int i = 0; i < CLIENTS_MAX; i++)
		clients[i].fd = -1;
	event_add(listen_fd, EPOLLIN, (void *) TAG_LISTEN);
	return NULL;
}

/* ---- commands ---- */

static bool
number(const char *text, uint64_t max, uint64_t *value)
{
	char	   *end;

	*value = strtoull(text, &end, 10);
	return end != text && *end == '\0' && *value <= max;
}

static bool
host_port(char *text, const char **host, uint16_t *port)
{
	char	   *colon = strrchr(text, ':');
	uint64_t	n;

	if (colon == NULL || !number(colon + 1, 65535, &n))
		return false;
	*colon = '\0';
	*host = text;
	*port = (uint16_t) n;
	return true;
}

static const char *
do_link(char **w, int n, char *out, size_t bytes)
{
	const char *host;
	const char *err;
	const char *listen_host = "127.0.0.1";
	uint16_t	port;
	uint16_t	listen_port;
	uint64_t	only_port;

	if (n != 4 || !host_port(w[3], &host, &port))
		return "link NAME [ADDRESS:]LISTEN-PORT HOST:PORT";
	if (number(w[2], 65535, &only_port))
		listen_port = (uint16_t) only_port;
	else if (!host_port(w[2], &listen_host, &listen_port))
		return "link NAME [ADDRESS:]LISTEN-PORT HOST:PORT";
	err = link_add(w[1], listen_host, listen_port, host, port);
	if (err == NULL)
		snprintf(out, bytes, "ok %u\n", links[nlinks - 1].listen_port);
	return err;
}

static const char *
do_target(char **w, int n)
{
	Link	   *link = n == 3 ? link_find(w[1]) : NULL;
	const char *host;
	uint16_t	port;

	if (link == NULL || !host_port(w[2], &host, &port))
		return "target NAME HOST:PORT";
	snprintf(link->host, sizeof(link->host), "%s", host);
	link->port = port;
	return NULL;
}

static const char *
on_link(Link *link, char **w, int n)
{
	uint64_t	us[2];

	if (strcmp(w[0], "up") == 0)
		return link_up(link);
	if (strcmp(w[0], "down") == 0)
		link_down(link);
	else if (strcmp(w[0], "cut") == 0)
		link_cut(link, n > 2 && strcmp(w[2], "rst") == 0);
	else if (strcmp(w[0], "release") == 0)
		link_release(link);
	else
	{
		if (n < 3 || !number(w[2], 60000000, &us[TO_SERVER]) ||
			!number(w[n > 3 ? 3 : 2], 60000000, &us[TO_CLIENT]))
			return "delay NAME|* US [US]";
		memcpy(link->delay_us, us, sizeof(us));
	}
	return NULL;
}

/* A command about one link or all. */
static const char *
do_links(char **w, int n)
{
	const char *err = NULL;

	if (n < 2)
		return "which link?";
	if (strcmp(w[1], "*") != 0)
	{
		Link	   *link = link_find(w[1]);

		return link != NULL ? on_link(link, w, n) : "there is no such link";
	}
	for (int i = 0; i < nlinks && err == NULL; i++)
		err = on_link(&links[i], w, n);
	return err;
}

static void
do_stats(char *out, size_t bytes)
{
	size_t		at = 0;

	for (int i = 0; i < nlinks && at < bytes; i++)
	{
		Link	   *l = &links[i];

		at += (size_t) snprintf(out + at, bytes - at,
								"link=%s port=%u target=%s:%u up=%d accepted=%llu open=%u most=%u "
								"bytes_c2s=%llu bytes_s2c=%llu messages_c2s=%llu messages_s2c=%llu\n",
								l->name, l->listen_port, l->host, l->port, l->listen_fd >= 0,
								(unsigned long long) l->accepted, l->open, l->open_most,
								(unsigned long long) l->bytes[TO_SERVER],
								(unsigned long long) l->bytes[TO_CLIENT],
								(unsigned long long) l->messages[TO_SERVER],
								(unsigned long long) l->messages[TO_CLIENT]);
	}
	if (at < bytes)
		snprintf(out + at, bytes - at, "ok\n");
}

static const char *
run(char **w, int n, char *out, size_t bytes)
{
	uint64_t	value;
	int			id;
	const char *err;

	if (strcmp(w[0], "link") == 0)
		return do_link(w, n, out, bytes);
	if (strcmp(w[0], "target") == 0)
		return do_target(w, n);
	if (strcmp(w[0], "delay") == 0 || strcmp(w[0], "up") == 0 || strcmp(w[0], "down") == 0 ||
		strcmp(w[0], "cut") == 0 || strcmp(w[0], "release") == 0)
		return do_links(w, n);
	if (strcmp(w[0], "rule") == 0)
	{
		err = rule_add(w + 1, n - 1, &id);
		if (err == NULL)
			snprintf(out, bytes, "ok %d\n", id);
		return err;
	}
	if (strcmp(w[0], "unrule") == 0 && n == 2)
		return rule_remove(atoi(w[1])) ? NULL : "there is no such rule";
	if (strcmp(w[0], "rules") == 0)
	{
		int			at = rules_describe(out, bytes);

		snprintf(out + at, bytes - (size_t) at, "ok\n");
		return NULL;
	}
	if (strcmp(w[0], "stats") == 0)
	{
		do_stats(out, bytes);
		return NULL;
	}
	if (strcmp(w[0], "seed") == 0 && n == 2 && number(w[1], UINT64_MAX, &value))
	{
		rules_seed(value);
		return NULL;
	}
	if (strcmp(w[0], "quit") == 0)
	{
		quit_requested = true;
		return NULL;
	}
	return "unknown command, see --help";
}

/* Runs one line; false on an error. out gets whole lines. */
bool
control_command(char *line, char *out, size_t bytes)
{
	char	   *words[WORDS_MAX];
	int			n = 0;
	const char *err;

	for (char *w = strtok(line, " \t\r\n"); w != NULL && n < WORDS_MAX; w = strtok(NULL, " \t\r\n"))
		words[n++] = w;
	snprintf(out, bytes, "ok\n");
	err = n > 0 ? run(words, n, out, bytes) : "empty line";
	if (err != NULL)
		snprintf(out, bytes, "error %s\n", err);
	return err == NULL;
}

/* ---- the socket ---- */

static void
accept_client(void)
{
	int			fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	for (int i = 0; i < CLIENTS_MAX && fd >= 0; i++)
	{
		if (clients[i].fd >= 0)
			continue;
		clients[i].fd = fd;
		clients[i].bytes = 0;
		event_add(fd, EPOLLIN, (void *) (uintptr_t) (TAG_CLIENT + i));
		return;
	}
	if (fd >= 0)
		close(fd);
}

static bool
answer(Client *c, const char *text)
{
	size_t		bytes = strlen(text);

	/* answers are short and tests read them: what does not fit ends the client */
	return send(c->fd, text, bytes, MSG_NOSIGNAL) == (ssize_t) bytes;
}

static bool
read_client(Client *c)
{
	static char out[65536];
	ssize_t		n = recv(c->fd, c->line + c->bytes, sizeof(c->line) - 1 - c->bytes, 0);
	char	   *end;

	if (n <= 0)
		return false;
	c->bytes += (size_t) n;
	c->line[c->bytes] = '\0';
	while ((end = strchr(c->line, '\n')) != NULL)
	{
		size_t		used = (size_t) (end - c->line) + 1;

		*end = '\0';
		(void) control_command(c->line, out, sizeof(out));
		if (!answer(c, out))
			return false;
		memmove(c->line, c->line + used, c->bytes - used + 1);
		c->bytes -= used;
	}
	return c->bytes < sizeof(c->line) - 1;
}

void
control_event(int tag)
{
	Client	   *c = &clients[tag - TAG_CLIENT];

	if (tag == TAG_LISTEN)
		accept_client();
	else if (!read_client(c))
	{
		close(c->fd);
		c->fd = -1;
	}
}
