/*
 * sqlload.c
 *	  Latencies of one prepared statement, run by N clients for some seconds.
 *
 * A thread and a connection for each client.  The statement has at most one
 * parameter, a text made of a random number.  pgbench's log would give the same
 * percentiles at the price of a line written for each statement.  Prints one line of
 * JSON; fails when a statement fails.
 *
 * More sessions may be there that run it three times and are idle then.  With --tell it prints
 * "begin" and "end" when that is measured begins and has ended, and stays connected
 * until it reads a line: whoever wants to know what all others did meanwhile looks then.
 */
#include <getopt.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"

#define CLIENTS_MAX 1000
#define IDLE_MAX 5000

typedef struct Client
{
	pthread_t	thread;
	PGconn	   *pg;
	uint64_t	random;
	Histogram	histogram;
	double		seconds;
} Client;

static const char *conninfo = "";
static const char *setup[16];
static int	nsetup;
static const char *query;
static const char *format;
static uint32_t range = 1;
static double seconds = 3;
static double warmup = 0.3;
static uint64_t begin_ns;
static bool tell;
static pthread_barrier_t ready;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "sqlload: %s: %s\n", what, why);
	exit(1);
}

static void
expect(PGconn *pg, PGresult *res, const char *what)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		die(what, PQerrorMessage(pg));
	PQclear(res);
}

static void
connect_client(Client *c)
{
	c->pg = PQconnectdb(conninfo);
	if (PQstatus(c->pg) != CONNECTION_OK)
		die("connect", PQerrorMessage(c->pg));
	for (int i = 0; i < nsetup; i++)
		expect(c->pg, PQexec(c->pg, setup[i]), setup[i]);
	expect(c->pg, PQprepare(c->pg, "q", query, format != NULL ? 1 : 0, NULL), query);
}

static void
run_once(Client *c)
{
	char		text[64];
	const char *value = text;

	if (format != NULL)
	{
		c->random ^= c->random << 13;
		c->random ^= c->random >> 7;
		c->random ^= c->random << 17;
		snprintf(text, sizeof(text), format, (uint32_t) (c->random >> 32) % range);
	}
	expect(c->pg, PQexecPrepared(c->pg, "q", format != NULL ? 1 : 0, &value, NULL, NULL, 0), query);
}

static void *
client_main(void *arg)
{
	Client	   *c = arg;
	uint64_t	start;
	uint64_t	before;
	uint64_t	now;

	pthread_barrier_wait(&ready);
	for (now = clock_ns(); now < begin_ns + (uint64_t) (warmup * 1e9); now = clock_ns())
		run_once(c);
	start = before = now;
	while (before < start + (uint64_t) (seconds * 1e9))
	{
		run_once(c);
		now = clock_ns();
		histogram_add(&c->histogram, now - before);
		before = now;
	}
	c->seconds = (double) (before - start) / 1e9;
	return NULL;
}

static void
say(const char *word)
{
	if (!tell)
		return;
	printf("%s\n", word);
	fflush(stdout);
}

static const char usage[] =
"sqlload --conninfo C --query SQL [--param FORMAT --range N] [--setup SQL]...\n"
"        [--clients N] [--idle N] [--seconds S] [--warmup S] [--tell]\n"
"FORMAT: printf's, with one %u that becomes a random number below N; it is $1 of the statement\n";

int
main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"conninfo", required_argument, NULL, 'd'}, {"query", required_argument, NULL, 'q'},
		{"param", required_argument, NULL, 'p'}, {"range", required_argument, NULL, 'r'},
		{"setup", required_argument, NULL, 'u'}, {"clients", required_argument, NULL, 'c'},
		{"seconds", required_argument, NULL, 's'}, {"warmup", required_argument, NULL, 'w'},
		{"idle", required_argument, NULL, 'i'}, {"tell", no_argument, NULL, 't'},
		{NULL, 0, NULL, 0}
	};
	int			o;
	unsigned	clients = 1;
	unsigned	idle = 0;
	Client	   *all;
	Histogram	total = {0};
	double		took = 0;
	double		cpu;
	struct rlimit files;
	struct timespec until;

	while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1)
	{
		switch (o)
		{
			case 'd': conninfo = optarg; break;
			case 'q': query = optarg; break;
			case 'p': format = optarg; break;
			case 'r': range = (uint32_t) strtoul(optarg, NULL, 10); break;
			case 'u':
				if (nsetup < 16)
					setup[nsetup++] = optarg;
				break;
			case 'c': clients = (unsigned) strtoul(optarg, NULL, 10); break;
			case 'i': idle = (unsigned) strtoul(optarg, NULL, 10); break;
			case 't': tell = true; break;
			case 's': seconds = strtod(optarg, NULL); break;
			case 'w': warmup = strtod(optarg, NULL); break;
			default: die("arguments", usage);
		}
	}
	if (query == NULL || range == 0 || clients < 1 || clients > CLIENTS_MAX || idle > IDLE_MAX)
		die("arguments", usage);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
	{
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	all = calloc(clients + idle, sizeof(*all));
	if (all == NULL)
		die("memory", "out of it");
	pthread_barrier_init(&ready, NULL, clients + 1);
	for (unsigned i = 0; i < clients + idle; i++)
	{
		all[i].random = (clock_ns() ^ (uint64_t) i << 40) * UINT64_C(0x9e3779b97f4a7c15) | 1;
		connect_client(&all[i]);
		/* thrice: one read may find its page at hand and need no connection */
		for (unsigned n = 0; n < 3 && i >= clients; n++)
			run_once(&all[i]);
		if (i < clients && pthread_create(&all[i].thread, NULL, client_main, &all[i]) != 0)
			die("thread", "cannot be made");
	}
	begin_ns = clock_ns();
	pthread_barrier_wait(&ready);
	until.tv_sec = (time_t) ((begin_ns + (uint64_t) (warmup * 1e9)) / 1000000000u);
	until.tv_nsec = (long) ((begin_ns + (uint64_t) (warmup * 1e9)) % 1000000000u);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	cpu = cpu_seconds();
	say("begin");
	for (unsigned i = 0; i < clients; i++)
	{
		pthread_join(all[i].thread, NULL);
		histogram_merge(&total, &all[i].histogram);
		if (all[i].seconds > took)
			took = all[i].seconds;
	}
	cpu = cpu_seconds() - cpu;
	say("end");
	while (tell && (o = getchar()) != '\n' && o != EOF)
		;
	for (unsigned i = 0; i < clients + idle; i++)
		PQfinish(all[i].pg);
	printf("{\"clients\": %u, \"idle\": %u, \"cpu_seconds\": %.6f, ", clients, idle, cpu);
	histogram_print(stdout, &total, took);
	printf("}\n");
	free(all);
	return 0;
}
