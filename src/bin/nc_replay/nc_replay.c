/*
 * nc_replay.c
 *	  Plays a recording of requests against page servers and tells how they did.
 *	  docs/record.md.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc/net/net.h"
#include "replay.h"

#define STATUS_FAILED 1
#define STATUS_USAGE 2

#define SPEED_MAX 1e6

static bool quiet = false;

/* ---- messages ---- */

static void
say_list(const char *fmt, va_list args)
{
	fputs("nc_replay: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
}

void
say(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	say_list(fmt, args);
	va_end(args);
}

void
tell(const char *fmt,...)
{
	va_list		args;

	if (quiet)
		return;
	va_start(args, fmt);
	say_list(fmt, args);
	va_end(args);
}

/* ---- the command line ---- */

static const char help[] =
"nc_replay - plays a recording of requests against page servers\n"
"\n"
"  nc_replay FILE --conninfo LIST [options]\n"
"  nc_replay FILE --dump\n"
"\n"
"  --conninfo LIST    connection string of each page server, shard 0 first, with commas between\n"
"  --speed X          X times as fast as it was recorded (default 1), or max: as fast as answers come\n"
"  --connections N    connections to each shard, as neon_comm.connections_per_shard (default 8)\n"
"  --depth N          requests on a connection, as neon_comm.connection_depth (default 4)\n"
"  --lsn WHICH        latest: the newest version that the page server has (default); recorded: as the compute\n"
"                     asked, so a page server that is behind lets wait\n"
"  --class LIST       of these only: foreground, ahead, prewarm, async\n"
"  --tenant ID        instead of the recording's\n"
"  --timeline ID      instead of the recording's\n"
"  --token-file FILE  token for page servers\n"
"  --token-in-clear   also to other machines whose certificate is not verified\n"
"  --wait SECONDS     for the first connection to each page server (default 10)\n"
"  --timeout SECONDS  without any answer, after which it is broken off (default 60)\n"
"  --json             the report as one JSON object\n"
"  --dump             prints the recording as text, and asks nobody\n"
"  --quiet            no progress lines\n"
"\n"
"Pages are read and dropped; nothing is changed. Exit status: 0 every request was answered without an error,\n"
"1 some were not, or nobody could be reached, 2 wrong command line.\n";

static void usage(const char *fmt,...) NC_PRINTF(1, 2) __attribute__((noreturn));

static void
usage(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	say_list(fmt, args);
	va_end(args);
	say("try: nc_replay --help");
	exit(STATUS_USAGE);
}

static bool
is_id(const char *text)
{
	return strlen(text) == NC_RECORD_ID_DIGITS &&
		strspn(text, "0123456789abcdefABCDEF") == NC_RECORD_ID_DIGITS;
}

static uint32_t
number(const char *option, const char *text, uint32_t min, uint32_t max)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno != 0 || *text == '\0' || *end != '\0' || n < (long) min || n > (long) max)
		usage("%s needs a number from %u to %u, not \"%s\"", option, min, max, text);
	return (uint32_t) n;
}

static double
speed_of(const char *text)
{
	char	   *end;
	double		x;

	if (strcmp(text, "max") == 0)
		return 0;
	x = strtod(text, &end);
	if (*text == '\0' || *end != '\0' || !(x >= 1e-3 && x <= SPEED_MAX))
		usage("--speed needs a number from 0.001 to %.0f, or max, not \"%s\"", SPEED_MAX, text);
	return x;
}

static void
choose_classes(Options *o, char *list)
{
	char	   *rest = list;
	char	   *word;

	memset(o->classes, 0, sizeof(o->classes));
	while ((word = strsep(&rest, ",")) != NULL)
	{
		uint32_t	c = 0;

		while (c < NC_RECORD_CLASSES && strcmp(word, nc_record_class_name(c)) != 0)
			c++;
		if (c == NC_RECORD_CLASSES)
			usage("there is no class \"%s\": foreground, ahead, prewarm, async", word);
		o->classes[c] = true;
	}
}

static void
check_options(const Options *o)
{
	if (o->file == NULL)
		usage("a recording is needed");
	if (o->conninfo == NULL && !o->dump)
		usage("--conninfo is needed, or --dump");
	if ((o->tenant != NULL && !is_id(o->tenant)) || (o->timeline != NULL && !is_id(o->timeline)))
		usage("a tenant or timeline id is 32 hexadecimal digits");
	if (strlen(o->token_file) >= sizeof(((NcNetSettings *) NULL)->token_file))
		usage("the name of the token file is too long");
}

static Options
parse_options(int argc, char **argv)
{
	static const struct option known[] = {
		{"conninfo", required_argument, NULL, 'c'}, {"speed", required_argument, NULL, 's'},
		{"connections", required_argument, NULL, 'n'}, {"depth", required_argument, NULL, 'd'},
		{"lsn", required_argument, NULL, 'L'}, {"class", required_argument, NULL, 'C'},
		{"tenant", required_argument, NULL, 't'}, {"timeline", required_argument, NULL, 'l'},
		{"token-file", required_argument, NULL, 'T'}, {"token-in-clear", no_argument, NULL, 'k'},
		{"wait", required_argument, NULL, 'W'}, {"timeout", required_argument, NULL, 'o'},
		{"json", no_argument, NULL, 'j'}, {"dump", no_argument, NULL, 'D'},
		{"quiet", no_argument, NULL, 'q'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}
	};
	Options		o = {.speed = 1, .connections = 8, .depth = 4, .wait_s = 10, .timeout_s = 60, .token_file = "",
	.classes = {true, true, true, true}};
	int			c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1)
	{
		switch (c)
		{
			case 'c': o.conninfo = optarg; break;
			case 's': o.speed = speed_of(optarg); break;
			case 'n': o.connections = number("--connections", optarg, 1, NC_POOL_CONNS_MAX); break;
			case 'd': o.depth = number("--depth", optarg, 1, NC_CONN_DEPTH_MAX); break;
			case 'L':
				o.lsn_recorded = strcmp(optarg, "recorded") == 0;
				if (!o.lsn_recorded && strcmp(optarg, "latest") != 0)
					usage("--lsn needs latest or recorded, not \"%s\"", optarg);
				break;
			case 'C': choose_classes(&o, optarg); break;
			case 't': o.tenant = optarg; break;
			case 'l': o.timeline = optarg; break;
			case 'T': o.token_file = optarg; break;
			case 'k': o.token_in_clear = true; break;
			case 'W': o.wait_s = number("--wait", optarg, 0, 86400); break;
			case 'o': o.timeout_s = number("--timeout", optarg, 1, 86400); break;
			case 'j': o.json = true; break;
			case 'D': o.dump = true; break;
			case 'q': o.quiet = true; break;
			case 'h': fputs(help, stdout); exit(0);
			default: usage("unknown argument");
		}
	}
	if (optind < argc)
		o.file = argv[optind++];
	if (optind < argc)
		usage("one recording at a time, not \"%s\" too", argv[optind]);
	check_options(&o);
	return o;
}

/* ---- what is done ---- */

static void
on_signal(int signal)
{
	play_broken_off = 1;
}

static void
catch_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int) SA_RESETHAND};

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int
dump(const Options *o)
{
	Recording	recording;

	if (!load_recording(o->file, &recording, report_dump))
		return STATUS_FAILED;
	report_dump_tail(&recording);
	return 0;
}

/* Page servers of the command line, blocks on them as the recording's compute had it. */
static bool
make_map(const Options *o, const Recording *recording, NcShardMap *map)
{
	uint32_t	stripe = recording->map.stripe_blocks > 0 ? recording->map.stripe_blocks : 1;
	NcConninfoParts parts;
	char		err[256];

	if (!nc_shard_map_parse(o->conninfo, stripe, map, err, sizeof(err)) || map->shard_count == 0)
	{
		say("--conninfo is not usable: %s", map->shard_count == 0 && o->conninfo[0] == '\0' ? "it is empty" : err);
		return false;
	}
	for (uint32_t i = 0; i < map->shard_count; i++)
		if (!nc_conninfo_check(map->conninfo[i], &parts, err, sizeof(err)))
		{
			say("--conninfo is not usable: shard %u: %s", i, err);
			return false;
		}
	if (map->shard_count != recording->map.shards)
		tell("recorded with %u shards, played against %u", recording->map.shards, map->shard_count);
	if (recording->maps > 1)
		tell("the map of shards changed while it was recorded; the last stripe is used, %u blocks", stripe);
	return true;
}

static void
tell_recording(const Recording *r)
{
	if (!r->ended)
		say("the recording is incomplete: its end is missing%s", r->unread > 0 ? " or damaged" : "");
	if (r->unread > 0)
		say("the last %" PRIu64 " of %" PRIu64 " bytes cannot be read", r->unread, r->bytes);
	if (r->ended && r->end.dropped > 0)
		say("%" PRIu64 " requests are not in the recording, because the disk was slow", r->end.dropped);
	tell("%" PRIu64 " requests", r->count);
}

static bool
all_answered(const Result *result)
{
	for (uint32_t c = 0; c < NC_RECORD_CLASSES; c++)
	{
		uint64_t	requests = 0;

		for (int k = 0; k < KINDS; k++)
			requests += result->of[c].requests[k];
		if (result->of[c].answered != requests)
			return false;
	}
	return result->why[0] == '\0';
}

int
main(int argc, char **argv)
{
	Options		o = parse_options(argc, argv);
	static Recording recording;
	static NcShardMap map;
	static Result result;

	quiet = o.quiet;
	if (o.dump)
		return dump(&o);
	if (!load_recording(o.file, &recording, NULL))
		return STATUS_FAILED;
	tell_recording(&recording);
	sort_recording(&recording);
	if (!make_map(&o, &recording, &map))
		return STATUS_FAILED;
	catch_signals();
	if (!play(&o, &recording, &map, &result))
	{
		say("%s", result.why);
		return STATUS_FAILED;
	}
	if (result.why[0] != '\0')
		say("broken off: %s", result.why);
	if (!o.json)
		report_text(&o, &recording, &result);
	else if (!report_json(&o, &recording, &result))
	{
		say("the report is too long");
		return STATUS_FAILED;
	}
	return all_answered(&result) ? 0 : STATUS_FAILED;
}
