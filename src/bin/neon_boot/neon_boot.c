/*
 * neon_boot.c
 *	  Lays the data directory of a compute from a page server.  docs/boot.md.
 *
 * Asks for the boot image, reads it as it comes and gives it to lay.c.  Nothing is
 * made before the page server has begun to answer; from then on whatever ends the
 * program, but for SIGKILL, removes what was made.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <libpq-fe.h>

#include "lay.h"
#include "nc/base/clock.h"
#include "nc/wire/pagestream.h"

#define ID_DIGITS 32

/* Between two attempts while the page server says that it passes. */
#define RETRY_US 200000

/* A page server that sends nothing for so long is given up. */
#define SILENCE_MS 60000

#define UNZIPPED_BYTES (256 * 1024)

/* More were not followed since the end of the log that is booted from. */
#define UNBEGUN_MAX 256

#define STATUS_USAGE 2
#define STATUS_SIGNAL 130

typedef struct Options
{
	const char *conninfo;
	const char *tenant;
	const char *timeline;
	const char *pgdata;
	const char *lsn;			/* NULL = latest */
	const char *wal_from;		/* NULL = not asked for */
	NcId		life;
	NcId		unbegun[UNBEGUN_MAX];
	int			nunbegun;
	const char *beside;			/* NULL = not given */
	int			wait_s;
	bool		gzip;
	bool		live;
	bool		quiet;
} Options;

typedef struct Download
{
	Lay			lay;
	NcTarReader tar;
	NcTarSink	sink;
	bool		gzip;
	z_stream	zip;
	bool		zip_ended;
	uint64_t	received;
	uint64_t	told_us;
} Download;

static volatile sig_atomic_t ended_by = 0;
static bool quiet = false;

/* ---- messages ---- */

static void say(const char *fmt,...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt,...) __attribute__((format(printf, 1, 2)));

static void
say_list(const char *fmt, va_list args)
{
	fputs("neon_boot: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
}

static void
say(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	say_list(fmt, args);
	va_end(args);
}

/* Progress. */
static void
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
"neon_boot - lays the data directory of a neon_comm compute from a page server\n"
"\n"
"  neon_boot --conninfo STRING --tenant ID --timeline ID -D PGDATA [options]\n"
"\n"
"  --conninfo STRING   connection string of the page server (libpq's; NEON_AUTH_TOKEN is its password)\n"
"  --tenant ID         32 hexadecimal digits\n"
"  --timeline ID       32 hexadecimal digits\n"
"  -D, --pgdata PGDATA is made; must not exist, or be empty\n"
"  --lsn LSN           the page server must have replayed this (default: all that it has received)\n"
"  --wal-from LSN      bring WAL from here on, for page servers that lack it\n"
"  --incarnation ID    the one that page servers have promised themselves to (docs/takeover.md)\n"
"  --unbegun ID        one that wrote nothing that counts, but was followed; oldest first, may be repeated\n"
"  --beside DIR        data directory of that page server, if it is one of neon_comm's on this machine: brings\n"
"                      what an image in Neon's form lacks, identity and WAL before its LSN\n"
"  --gzip              compressed on its way\n"
"  --live              also while a compute is connected to the page server: there will be two\n"
"  --wait SECONDS      for a page server that is not ready, or still connected (default 10)\n"
"  --quiet             no progress lines\n"
"\n"
"Configuration is not in the image: postgresql.conf, pg_hba.conf and pg_ident.conf are empty. The old\n"
"compute must never run again. Exit status: 0, 1 failed and nothing was left, 2 wrong command line.\n";

static void
usage(const char *what)
{
	say("%s", what);
	say("try: neon_boot --help");
	exit(STATUS_USAGE);
}

static bool
is_id(const char *text)
{
	return strlen(text) == ID_DIGITS && strspn(text, "0123456789abcdefABCDEF") == ID_DIGITS;
}

/* Goes into a query. */
static bool
is_lsn(const char *text)
{
	size_t		digits = strspn(text, "0123456789abcdefABCDEF");

	return digits >= 1 && digits <= 8 && text[digits] == '/' && strlen(text + digits + 1) <= 8 &&
		text[digits + 1] != '\0' && strspn(text + digits + 1, "0123456789abcdefABCDEF") == strlen(text + digits + 1);
}

static NcLsn
number_of_lsn(const char *text)
{
	unsigned int high;
	unsigned int low;

	return sscanf(text, "%X/%X", &high, &low) == 2 ? (NcLsn) high << 32 | low : 0;
}

static void
check_options(const Options *o)
{
	if (o->conninfo == NULL || o->tenant == NULL || o->timeline == NULL || o->pgdata == NULL)
		usage("--conninfo, --tenant, --timeline and -D are needed");
	if (!is_id(o->tenant) || !is_id(o->timeline))
		usage("a tenant or timeline id is 32 hexadecimal digits");
	if ((o->lsn != NULL && !is_lsn(o->lsn)) || (o->wal_from != NULL && !is_lsn(o->wal_from)))
		usage("an LSN is two hexadecimal numbers with a slash between");
	if (o->wait_s < 0)
		usage("--wait needs a number of seconds");
}

static Options
parse_options(int argc, char **argv)
{
	static const struct option known[] = {
		{"conninfo", required_argument, NULL, 'c'}, {"tenant", required_argument, NULL, 't'},
		{"timeline", required_argument, NULL, 'l'}, {"pgdata", required_argument, NULL, 'D'},
		{"lsn", required_argument, NULL, 'L'}, {"wal-from", required_argument, NULL, 'w'},
		{"beside", required_argument, NULL, 'b'},
		{"wait", required_argument, NULL, 'W'}, {"gzip", no_argument, NULL, 'z'},
		{"live", no_argument, NULL, 'v'}, {"quiet", no_argument, NULL, 'q'},
		{"incarnation", required_argument, NULL, 'i'},
		{"unbegun", required_argument, NULL, 'u'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}
	};
	Options		o = {.wait_s = 10};
	int			c;
	char	   *end;

	while ((c = getopt_long(argc, argv, "D:", known, NULL)) != -1)
	{
		switch (c)
		{
			case 'c': o.conninfo = optarg; break;
			case 't': o.tenant = optarg; break;
			case 'l': o.timeline = optarg; break;
			case 'D': o.pgdata = optarg; break;
			case 'L': o.lsn = optarg; break;
			case 'w': o.wal_from = optarg; break;
			case 'b': o.beside = optarg; break;
			case 'W':
				o.wait_s = (int) strtol(optarg, &end, 10);
				if (*optarg == '\0' || *end != '\0')
					o.wait_s = -1;
				break;
			case 'i':
				if (!nc_id_parse(optarg, false, &o.life))
					usage("an incarnation is 32 hexadecimal digits, in lower case");
				break;
			case 'u':
				if (o.nunbegun == UNBEGUN_MAX || !nc_id_parse(optarg, false, &o.unbegun[o.nunbegun++]))
					usage("an incarnation is 32 hexadecimal digits, in lower case");
				break;
			case 'z': o.gzip = true; break;
			case 'v': o.live = true; break;
			case 'q': o.quiet = true; break;
			case 'h': fputs(help, stdout); exit(0);
			default: usage("unknown argument");
		}
	}
	if (optind < argc)
		usage("unknown argument");
	check_options(&o);
	return o;
}

/* ---- asking ---- */

static PGconn *
connect_page_server(const Options *o)
{
	const char *names[4] = {"fallback_application_name", "dbname"};
	const char *values[4] = {"neon_boot", o->conninfo};
	const char *token = getenv("NEON_AUTH_TOKEN");

	if (token != NULL && *token != '\0')
	{
		names[2] = "password";
		values[2] = token;
	}
	return PQconnectdbParams(names, values, 1);
}

/* Will it be otherwise in a moment? */
static bool
may_pass(const PGconn *conn, const PGresult *result)
{
	const char *state = result == NULL ? NULL : PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (PQstatus(conn) != CONNECTION_OK)
		return true;
	return state != NULL && (strcmp(state, "57P03") == 0 || strcmp(state, "55006") == 0 || strcmp(state, "57P01") == 0);
}

/* A connection on which the image comes, or NULL, said why. */
static PGconn *
ask(const Options *o)
{
	uint64_t	give_up = nc_clock_us() + (uint64_t) o->wait_s * 1000000;
	char		query[256];
	bool		told = false;

	snprintf(query, sizeof(query), "basebackup %s %s %s%s%s%s%s", o->tenant, o->timeline,
			 o->lsn != NULL ? o->lsn : "latest", o->gzip ? " --gzip" : "", o->live ? " --live" : "",
			 o->wal_from != NULL ? " --wal-from " : "", o->wal_from != NULL ? o->wal_from : "");
	for (;;)
	{
		PGconn	   *conn = connect_page_server(o);
		PGresult   *result = NULL;
		const char *why;

		if (PQstatus(conn) == CONNECTION_OK)
			result = PQexec(conn, query);
		if (PQresultStatus(result) == PGRES_COPY_OUT)
		{
			PQclear(result);
			return conn;
		}
		why = result != NULL && PQresultStatus(result) == PGRES_TUPLES_OK ? "it answered with rows\n" :
			PQerrorMessage(conn);
		if (!may_pass(conn, result) || nc_clock_us() >= give_up)
		{
			say("the page server gives no boot image: %.*s", (int) strcspn(why, "\n"), why);
			PQclear(result);
			PQfinish(conn);
			return NULL;
		}
		if (!told)
			tell("waiting: %.*s", (int) strcspn(why, "\n"), why);
		told = true;
		PQclear(result);
		PQfinish(conn);
		usleep(RETRY_US);
	}
}

/* ---- receiving ---- */

static void
note_signal(int signal)
{
	ended_by = signal;
}

/* From here on a signal is noticed, and only while we wait. */
static void
catch_signals(sigset_t *while_waiting)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = note_signal};
	sigset_t	ours;

	sigemptyset(&ours);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
	{
		sigaction(signals[i], &action, NULL);
		sigaddset(&ours, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &ours, while_waiting);
}

static void
tell_progress(Download *d)
{
	uint64_t	now = nc_clock_us();

	if (now < d->told_us + 1000000)
		return;
	d->told_us = now;
	tell("%.1f MB received, %llu relations laid", (double) d->received / 1048576,
		 (unsigned long long) d->lay.relations);
}

static bool
take_tar(Download *d, const uint8_t *data, size_t bytes)
{
	if (nc_tar_read(&d->tar, &d->sink, data, bytes))
		return true;
	if (d->tar.why != NULL)
		snprintf(d->lay.why, sizeof(d->lay.why), "the image cannot be read: %s", d->tar.why);
	return false;
}

static bool
take_zipped(Download *d, char *data, size_t bytes)
{
	static uint8_t unzipped[UNZIPPED_BYTES];

	d->zip.next_in = (Bytef *) data;
	d->zip.avail_in = (uInt) bytes;
	while (d->zip.avail_in > 0 && !d->zip_ended)
	{
		int			rc;

		d->zip.next_out = unzipped;
		d->zip.avail_out = sizeof(unzipped);
		rc = inflate(&d->zip, Z_NO_FLUSH);
		if (rc != Z_OK && rc != Z_STREAM_END)
		{
			snprintf(d->lay.why, sizeof(d->lay.why), "the image cannot be read: it is not what gzip has made");
			return false;
		}
		d->zip_ended = rc == Z_STREAM_END;
		if (!take_tar(d, unzipped, sizeof(unzipped) - d->zip.avail_out))
			return false;
	}
	return true;
}

/* Waits for bytes; false: a signal, or silence. */
static bool
wait_for_bytes(Download *d, PGconn *conn, const sigset_t *while_waiting)
{
	struct pollfd pfd = {.fd = PQsocket(conn), .events = POLLIN};
	struct timespec silence = {.tv_sec = SILENCE_MS / 1000};
	int			rc = ppoll(&pfd, 1, &silence, while_waiting);

	if (ended_by != 0)
	{
		snprintf(d->lay.why, sizeof(d->lay.why), "ended by signal %d", (int) ended_by);
		return false;
	}
	if (rc == 0)
		snprintf(d->lay.why, sizeof(d->lay.why), "the page server has sent nothing for %d s", SILENCE_MS / 1000);
	if (rc == 0 || (rc < 0 && errno != EINTR))
		return false;
	if (PQconsumeInput(conn) != 0)
		return true;
	snprintf(d->lay.why, sizeof(d->lay.why), "the connection was lost: %.*s",
			 (int) strcspn(PQerrorMessage(conn), "\n"), PQerrorMessage(conn));
	return false;
}

/* After the last byte: was that the end, or an error in its place? */
static bool
ended_well(Download *d, PGconn *conn)
{
	PGresult   *result = PQgetResult(conn);
	bool		ok = PQresultStatus(result) == PGRES_COMMAND_OK;

	if (!ok)
		snprintf(d->lay.why, sizeof(d->lay.why), "the page server broke off: %.*s",
				 (int) strcspn(PQerrorMessage(conn), "\n"), PQerrorMessage(conn));
	else if (d->tar.state != NC_TAR_ENDED || (d->gzip && !d->zip_ended))
	{
		ok = false;
		snprintf(d->lay.why, sizeof(d->lay.why), "the image ends in the middle");
	}
	PQclear(result);
	return ok;
}

static bool
receive(Download *d, PGconn *conn, const sigset_t *while_waiting)
{
	for (;;)
	{
		char	   *data;
		int			n = PQgetCopyData(conn, &data, 1);
		bool		ok;

		if (n == 0 && !wait_for_bytes(d, conn, while_waiting))
			return false;
		if (n == 0)
			continue;
		if (n < 0)
			return ended_well(d, conn);
		d->received += (uint64_t) n;
		ok = d->gzip ? take_zipped(d, data, (size_t) n) : take_tar(d, (const uint8_t *) data, (size_t) n);
		PQfreemem(data);
		if (!ok)
			return false;
		tell_progress(d);
	}
}

/* ---- segments that are not in the image ---- */

/* A stream of pages beside the image; NULL: none was needed yet. */
typedef struct Fetch
{
	Download   *d;
	const Options *o;
	const sigset_t *while_waiting;
	PGconn	   *conn;
} Fetch;

static bool
open_stream(Fetch *f)
{
	char		query[128];
	PGresult   *result;
	bool		ok;

	if (f->conn != NULL)
		return true;
	f->conn = connect_page_server(f->o);
	snprintf(query, sizeof(query), "pagestream_v3 %s %s", f->o->tenant, f->o->timeline);
	result = PQexec(f->conn, query);
	ok = PQresultStatus(result) == PGRES_COPY_BOTH;
	if (!ok)
		snprintf(f->d->lay.why, sizeof(f->d->lay.why), "the page server gives no pages: %.*s",
				 (int) strcspn(PQerrorMessage(f->conn), "\n"), PQerrorMessage(f->conn));
	PQclear(result);
	return ok;
}

/* The answer, which PQfreemem() frees; NULL: said why not. */
static char *
exchange(Fetch *f, const NcPsRequest *req, int *bytes)
{
	uint8_t		body[NC_REQUEST_BYTES_MAX];
	NcWriter	w = nc_writer(body, sizeof(body));
	char	   *answer = NULL;

	if (!nc_ps_request_encode(&w, 3, req) || PQputCopyData(f->conn, (char *) body, (int) nc_writer_bytes(&w)) != 1 ||
		PQflush(f->conn) != 0)
		*bytes = -1;
	else
		while ((*bytes = PQgetCopyData(f->conn, &answer, 1)) == 0)
			if (!wait_for_bytes(f->d, f->conn, f->while_waiting))
				return NULL;
	if (*bytes < 0)
		snprintf(f->d->lay.why, sizeof(f->d->lay.why), "the page server broke off its stream");
	return *bytes < 0 ? NULL : answer;
}

static bool
take_segment(Fetch *f, const LaySlru *slru, const NcPsRequest *req, const char *answer, int bytes)
{
	Lay		   *lay = &f->d->lay;
	NcPsResponse resp;
	const char *wrong = "it is malformed";

	if (nc_ps_response_decode((const uint8_t *) answer, (size_t) bytes, 3, &resp))
		wrong = nc_ps_response_mismatch(&resp, req, 3);
	if (wrong != NULL)
		return lay_complain(lay, "the page server's answer about %s cannot be used: %s", slru->name, wrong);
	if (resp.tag == NC_RESP_ERROR)
		return lay_complain(lay, "the image lacks %s, and the page server does not give it: %.*s", slru->name,
							(int) resp.message_bytes, resp.message);
	return lay_neon_put(lay, slru, resp.page, (size_t) resp.nblocks * NC_PAGE_BYTES);
}

static bool
fetch_segment(void *arg, const LaySlru *slru)
{
	Fetch	   *f = arg;
	NcPsRequest req = {.tag = NC_REQ_SLRU, .reqid = 1, .request_lsn = slru->lsn, .not_modified_since = slru->lsn,
	.slru_kind = slru->kind, .slru_segno = slru->segno};
	char	   *answer;
	int			bytes;
	bool		ok;

	if (!open_stream(f))
		return false;
	tell("fetching %s, which is not in the image", slru->name);
	answer = exchange(f, &req, &bytes);
	if (answer == NULL)
		return false;
	ok = take_segment(f, slru, &req, answer, bytes);
	PQfreemem(answer);
	return ok;
}

/* Neon's page servers may leave segments out of it, for a compute that asks for them; a stock server cannot. */
static bool
complete(Download *d, const Options *o, const sigset_t *while_waiting)
{
	Fetch		f = {d, o, while_waiting, NULL};
	bool		ok = !d->lay.neon || lay_neon_complete(&d->lay, fetch_segment, &f);

	PQfinish(f.conn);
	return ok;
}

/* A signal that came while nobody waited. */
static bool
was_ended(Download *d)
{
	sigset_t	pending;

	sigpending(&pending);
	if (ended_by == 0 && sigismember(&pending, SIGINT) != 1 && sigismember(&pending, SIGTERM) != 1 &&
		sigismember(&pending, SIGHUP) != 1)
		return false;
	ended_by = SIGTERM;
	snprintf(d->lay.why, sizeof(d->lay.why), "ended by a signal");
	return true;
}

static bool
download(Download *d, const Options *o, PGconn *conn)
{
	sigset_t	while_waiting;

	catch_signals(&while_waiting);
	d->lay.beside = o->beside;
	d->lay.wal_from = o->wal_from != NULL ? number_of_lsn(o->wal_from) : 0;
	if (!lay_begin(&d->lay, o->pgdata))
		return false;
	d->lay.life = o->life;
	d->lay.unbegun = o->unbegun;
	d->lay.nunbegun = o->nunbegun;
	d->sink = lay_sink(&d->lay);
	d->gzip = o->gzip;
	if (d->gzip && inflateInit2(&d->zip, MAX_WBITS + 16) != Z_OK)
	{
		snprintf(d->lay.why, sizeof(d->lay.why), "out of memory");
		return false;
	}
	return receive(d, conn, &while_waiting) && complete(d, o, &while_waiting) && !was_ended(d) && lay_finish(&d->lay);
}

int
main(int argc, char **argv)
{
	static Download d;
	Options		o = parse_options(argc, argv);
	uint64_t	began = nc_clock_us();
	PGconn	   *conn;
	bool		ok;

	quiet = o.quiet;
	umask(077);
	conn = ask(&o);
	if (conn == NULL)
		return 1;
	tell("the image comes; the old compute must not run again");
	ok = download(&d, &o, conn);
	if (!ok)
		say("%s", d.lay.why);
	lay_abandon(&d.lay);
	PQfinish(conn);
	if (!ok)
		return ended_by != 0 ? STATUS_SIGNAL : 1;
	tell("laid %s: the end of WAL is " NC_LSN_FMT ", %llu relations, %.1f MB received, %.2f s", o.pgdata,
		 NC_LSN_ARGS(d.lay.description.cut), (unsigned long long) d.lay.relations, (double) d.received / 1048576,
		 (double) (nc_clock_us() - began) / 1e6);
	tell("replication slots of the old compute are not in the image");
	return 0;
}
