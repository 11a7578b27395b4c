/*
 * main.c
 *	  Options and the loop of the fault proxy.  See proxy.h.
 */
#include "proxy.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 256

int			epoll_fd = -1;
bool		quit_requested = false;
static bool verbose = false;

static const char help[] =
"nc_proxy - a fault proxy between a compute and its page servers, for tests\n"
"\n"
"  nc_proxy [--control PATH] [--seed N] [--verbose] [COMMAND]...\n"
"\n"
"  --control PATH   unix socket that takes commands, one line each; every answer ends with a\n"
"                   line that begins with \"ok\" or \"error\"\n"
"  --seed N         of everything that is left to chance (default 1)\n"
"  --verbose        says on stderr what rules did\n"
"  --stay           goes on when the process that started it has ended\n"
"\n"
"Each other argument is a command as on the socket. When all are done it prints one line\n"
"\"link NAME PORT\" for each link and \"ready\".\n"
"\n"
"commands\n"
"  link NAME [ADDRESS:]LISTEN-PORT HOST:PORT\n"
"                                    forwards a port (0: any free one) of 127.0.0.1 or that address\n"
"  target NAME HOST:PORT             for connections made from now on\n"
"  delay NAME|* US [US]              each byte waits so long: both directions, or to the server\n"
"                                    and to the client\n"
"  down NAME|*, up NAME|*            the port refuses connections, or takes them again\n"
"  cut NAME|* [rst]                  closes the connections that stand\n"
"  release NAME|*                    what rules hold back leaves\n"
"  rule KEY=VALUE... ACTION[=VALUE]  see below; answers \"ok ID\"\n"
"  unrule ID|*                       forgets a rule\n"
"  rules                             one line a rule: seen, fired\n"
"  stats                             one line a link\n"
"  seed N\n"
"  quit\n"
"\n"
"rules: the first one that matches and fires acts; all conditions are optional\n"
"  link=NAME     only there\n"
"  on=connect    acts on a connection that is made, not on a message\n"
"  dir=c2s|s2c   messages to the server, or to the client (default s2c)\n"
"  type=C        libpq's type of message (d is CopyData)\n"
"  tag=T         getpage exists nblocks dbsize slru error startup, or a number\n"
"  rel=N         about this relation (its relfilenode); not of error answers, protocol 3 only\n"
"  block=N       about this block of a main fork: getpage only\n"
"  nth=N         from the N-th match on     every=N   each N-th from there\n"
"  after=BYTES   once the direction has carried so many\n"
"  p=0.1         by chance                  count=N   at most so often\n"
"actions on connections: refuse (reset), drop, silent, delay=MS, throttle=BYTES/S\n"
"actions on messages:\n"
"  delay=MS      it and what comes behind it\n"
"  hold          it and what comes behind it wait for the command release\n"
"  drop          both sides closed           rst       the same, by reset\n"
"  silent        nothing passes any more, both sides stay open\n"
"  halfopen      the server's side closed, the client's stays open and silent\n"
"  truncate=N    its first N bytes, then closed\n"
"  stall=MS      its first half; the rest, and what comes behind it, so much later (-1: when it\n"
"                is released)\n"
"  corrupt=N     the bits of byte N flipped (of the message with its header; -1: any byte\n"
"                of the body)\n"
"  eat           it does not arrive          dup       it arrives twice\n"
"  swap          it arrives after the next one, if one is under way\n"
"  wrongid       another request id          wrongecho=lsn|rel|block\n"
"  lie=WHAT      a perfect answer with another page: zero, other (the one before), old (the\n"
"                first version seen of that block since the rule was made), lsn (a higher one)\n"
"  error=TEXT    an error answer (103) instead, _ for blanks\n"
"  pgerror=CODE  ErrorResponse with this SQLSTATE instead, then closed\n"
"  throttle=N    its direction carries N bytes a second from here on\n"
"  pass          nothing, but is counted\n";

uint64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

void
trace(const char *format,...)
{
	va_list		args;

	if (!verbose)
		return;
	va_start(args, format);
	fprintf(stderr, "%.6f ", (double) now_us() / 1e6);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

static void
die(const char *what)
{
	fprintf(stderr, "nc_proxy: %s\n", what);
	exit(1);
}

static void
wait_for_events(uint64_t until_us)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec timeout = {0};
	uint64_t	now = now_us();
	int			n;

	if (until_us != NEVER_US && until_us > now)
	{
		timeout.tv_sec = (time_t) ((until_us - now) / 1000000);
		timeout.tv_nsec = (long) ((until_us - now) % 1000000) * 1000;
	}
	n = epoll_pwait2(epoll_fd, events, EVENTS_MAX, until_us == NEVER_US ? NULL : &timeout, NULL);
	if (n < 0 && errno != EINTR)
		die("epoll_pwait2 failed");
	for (int i = 0; i < n; i++)
	{
		void	   *tag = events[i].data.ptr;

		if (tag >= (void *) links && tag < (void *) (links + LINKS_MAX))
			link_accept(tag);
		else if ((uintptr_t) tag < 1024)
			control_event((int) (uintptr_t) tag);
		else
			/* the low bit says which of the two sockets */
			relay_event((Conn *) ((uintptr_t) tag & ~(uintptr_t) 1),
						(int) ((uintptr_t) tag & 1), events[i].events);
	}
}

void
event_add(int fd, uint32_t events, void *tag)
{
	struct epoll_event ev = {.events = events, .data.ptr = tag};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
		die("epoll_ctl failed");
}

static void
run_argument(const char *argument)
{
	char		line[1024];
	char		out[65536];

	snprintf(line, sizeof(line), "%s", argument);
	if (!control_command(line, out, sizeof(out)))
	{
		fprintf(stderr, "nc_proxy: %s: %s", argument, out);
		exit(2);
	}
}

int
main(int argc, char **argv)
{
	bool		stay = false;
	const char *err = NULL;

	signal(SIGPIPE, SIG_IGN);
	/* a sleep ends when it should, not 50 us later */
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1 failed");
	rules_seed(1);
	for (int i = 1; i < argc && err == NULL; i++)
	{
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
		{
			fputs(help, stdout);
			return 0;
		}
		if (strcmp(argv[i], "--verbose") == 0)
			verbose = true;
		else if (strcmp(argv[i], "--stay") == 0)
			stay = true;
		else if (strcmp(argv[i], "--control") == 0 && i + 1 < argc)
			err = control_listen(argv[++i]);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			rules_seed(strtoull(argv[++i], NULL, 10));
		else if (argv[i][0] == '-')
			err = "unknown option, see --help";
		else
			run_argument(argv[i]);
	}
	if (err != NULL)
		die(err);
	if (!stay)
	{
		prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
		if (getppid() == 1)
			return 1;
	}
	for (int i = 0; i < nlinks; i++)
		printf("link %s %u\n", links[i].name, links[i].listen_port);
	printf("ready\n");
	fflush(stdout);
	while (!quit_requested)
	{
		wait_for_events(relay_turn());
		relay_reap();
	}
	return 0;
}
