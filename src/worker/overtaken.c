/*
 * overtaken.c
 *	  A compute that was overtaken is refused at its start, and ends itself while it runs
 *	  (docs/takeover.md).
 *
 * At the start this runs in the postmaster while libraries are preloaded: no port is open, no
 * shared memory made, and nothing of the directory was changed.  While the server runs, and has
 * no leases, the background worker "neon_comm overtaken" is started every PERIOD_MS, asks and
 * ends.  In both a child asks the page servers, with libpq, which the postmaster itself does
 * not touch; it is killed when the time is up.
 *
 * Guarantees that a start goes on within ASK_MS, whatever page servers do.  Who does not
 * answer says nothing against it: nobody is let in before a write quorum has joined.
 */
#include "postgres.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "nc/base/clock.h"
#include "nc/feed/feed.h"
#include "nc/feed/lease.h"
#include "nc/identity/files.h"
#include "nc/net/handshake.h"
#include "nc/shard/shard_map.h"
#include "nc/shared/settings.h"
#include "nc/worker/overtaken.h"

#include "program.h"

/* All page servers are asked at the same time, and so long. */
#define ASK_MS 3000
#define ASKED_MAX 128

/* So often while no leases hold, and so long after the last ones did. */
#define PERIOD_MS 5000

/* The working directory: whoever has taken over may have moved it, and have another one at its path. */
#define HERE "."

/* What a page server says, as the child writes it into the pipe: one write each, smaller than PIPE_BUF. */
typedef struct Said
{
	NcId		member;
	NcId		promised;
	NcId		incarnation;	/* that it follows */
	bool		began;
} Said;

typedef struct Asked
{
	NcHandshake *handshake;		/* NULL: is over */
	NcHandshakeStep step;
} Asked;

/* ---- in the child ---- */

/* False: it says something else. */
static bool
told_id(const NcHandshake *h, const char *name, NcId *id)
{
	const char *value = nc_handshake_answer(h, name);

	return value == NULL || nc_id_parse(value, true, id);
}

static void
tell_what_was_said(const NcHandshake *h, int to)
{
	Said		said = {0};
	const char *began = nc_handshake_answer(h, "incarnation_began");

	said.began = began != NULL && strcmp(began, "0/0") != 0;
	if (told_id(h, "member", &said.member) && told_id(h, "promised", &said.promised) &&
		told_id(h, "incarnation", &said.incarnation))
		(void) !write(to, &said, sizeof(said));
}

static NcHandshake *
start_asking(const char *conninfo)
{
	NcHandshakeParams params = {
		.conninfo = conninfo,
		.token_file = nc_guc_token_file,
		.options = "",
		.token_in_clear = nc_guc_allow_token_in_clear,
		.tenant_id = nc_guc_tenant_id,
		.timeline_id = nc_guc_timeline_id,
		.question = "show status"
	};

	return nc_handshake_start(&params);
}

/* Every host of every shard. */
static int
start_asking_all(Asked *asked)
{
	static NcShardMap map;
	char		conninfo[NC_HOST_CONNINFO_BYTES];
	char		err[256];
	int			n = 0;

	if (!nc_shard_map_parse(nc_guc_page_servers, nc_guc_stripe_size, &map, err, sizeof(err)))
		return 0;
	for (uint32 shard = 0; shard < map.shard_count; shard++)
	{
		uint32		hosts = 1;

		for (uint32 host = 0; host < hosts && n < ASKED_MAX; host++)
		{
			hosts = nc_conninfo_host(map.conninfo[shard], host, conninfo, sizeof(conninfo));
			asked[n].handshake = start_asking(conninfo);
			if (asked[n].handshake != NULL)
				asked[n].step = nc_handshake_advance(asked[n].handshake);
			n++;
		}
	}
	return n;
}

/* Does its socket let it go on? Then it does; true while it is not over. */
static bool
go_on(Asked *a, short happened, int to)
{
	if (happened != 0)
		a->step = nc_handshake_advance(a->handshake);
	if (a->step == NC_HANDSHAKE_DONE)
		tell_what_was_said(a->handshake, to);
	if (a->step != NC_HANDSHAKE_DONE && a->step != NC_HANDSHAKE_FAILED)
		return true;
	nc_handshake_free(a->handshake);
	a->handshake = NULL;
	return false;
}

/* Never returns. Nothing of the server is used: no memory contexts, no errors, no exit callbacks. */
static void
ask_page_servers(int to)
{
	static Asked asked[ASKED_MAX];
	struct pollfd fds[ASKED_MAX];
	int			n = start_asking_all(asked);
	bool		waits = true;

	(void) prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(fds, 0, sizeof(fds));
	while (waits)
	{
		waits = false;
		for (int i = 0; i < n; i++)
		{
			if (asked[i].handshake != NULL && go_on(&asked[i], fds[i].revents, to))
				waits = true;
			fds[i].fd = asked[i].handshake == NULL ? -1 : nc_handshake_socket(asked[i].handshake);
			fds[i].revents = 0;
			fds[i].events = asked[i].step == NC_HANDSHAKE_READ ? POLLIN :
				asked[i].step == NC_HANDSHAKE_WRITE ? POLLOUT : POLLIN | POLLOUT;
		}
		if (waits)
			(void) poll(fds, n, -1);
	}
	_exit(0);
}

/* ---- in the postmaster, or in the worker ---- */

/* What page servers say until the time is up, or the worker shall end; how many have. */
static int
read_said(int from, Said *said)
{
	uint64		until = nc_clock_us() + ASK_MS * UINT64CONST(1000);
	int			n = 0;

	while (n < ASKED_MAX)
	{
		uint64		now = nc_clock_us();
		struct pollfd fd = {.fd = from,.events = POLLIN};
		ssize_t		got = -1;

		if (now >= until || ProcDiePending)
			break;
		if (poll(&fd, 1, (int) ((until - now) / 1000) + 1) > 0)
			got = read(from, &said[n], sizeof(said[n]));
		if (got == sizeof(said[n]))
			n++;
		else if (got >= 0)
			break;
	}
	return n;
}

static int
ask(Said *said)
{
	int			ends[2];
	int			n = 0;
	pid_t		child;

	if (pipe(ends) != 0)
		return 0;
	fflush(NULL);
	child = fork();
	if (child == 0)
	{
		close(ends[0]);
		ask_page_servers(ends[1]);
	}
	close(ends[1]);
	if (child > 0)
	{
		n = read_said(ends[0], said);
		(void) kill(child, SIGKILL);
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close(ends[0]);
	return n;
}

/* Is it of a compute that did not come of this one, nor this one of it? */
static bool
is_foreign(const NcLineage *lineage, const NcId *incarnation)
{
	if (nc_id_is_none(incarnation) || nc_lineage_find(lineage, incarnation) >= 0)
		return false;
	return !lineage->forgotten || nc_id_newer(incarnation, &lineage->at[0].id);
}

/* True when page servers belong to a newer compute for good: those (allocated here), and the newest incarnation. */
static bool
is_overtaken(char **who, NcId *newest)
{
	static NcPromise kept;
	static Said said[ASKED_MAX];
	NcComputeIdentity *identity;
	StringInfoData names;
	const char *why;
	NcMembers  *lists[] = {&kept.members.now, &kept.members.next};
	uint32		promised[lengthof(lists)] = {0};
	bool		overtaken = false;
	int			n;

	if (!nc_feed_is_ordered() || nc_promise_load(HERE, NC_COMPUTE_MEMBERS, &kept, &why) != NC_FILE_OK)
		return false;
	identity = palloc0(sizeof(*identity));
	if (nc_compute_identity_load(HERE, identity, &why) != NC_FILE_OK)
		return false;
	initStringInfo(&names);
	n = ask(said);
	for (int i = 0; i < n; i++)
	{
		const NcMember *member = nc_member_of_any(&kept.members, &said[i].member);
		bool		gone = member != NULL && said[i].began && is_foreign(&identity->lineage, &said[i].incarnation);
		bool		lost = member != NULL && is_foreign(&identity->lineage, &said[i].promised);

		if (!gone && !lost)
			continue;
		overtaken |= gone;
		for (int list = 0; list < lengthof(lists) && lost; list++)
			promised[list] += nc_member_find(lists[list], &said[i].member) != NULL;
		*newest = lost ? said[i].promised : said[i].incarnation;
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", member->name);
	}
	pfree(identity);
	*who = names.data;
	/* while members change a write quorum of both lists is needed: one that cannot come is enough */
	overtaken |= promised[0] >= nc_members_takeover(lists[0]);
	overtaken |= nc_members_change(&kept.members) && promised[1] >= nc_members_takeover(lists[1]);
	return overtaken;
}

/* ---- at the start ---- */

void
nc_overtaken_check(void)
{
	NcId		newest = {0};
	char	   *who;
	char		id[NC_ID_TEXT];

	if (is_overtaken(&who, &newest))
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this compute was overtaken: it must not be started again"),
				 errdetail("Page servers belong to a newer compute, incarnation %s: %s.",
						   nc_id_text(&newest, id), who),
				 errhint("All that was acknowledged is there. Start that one, or make another one with \"neon_dev create-compute\"; see docs/takeover.md.")));
}

/* ---- while it runs ---- */

PGDLLEXPORT void nc_overtaken_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm overtaken",
	.main = "nc_overtaken_main",
	.starts = BgWorkerStart_PostmasterStart,
	.once = true,
	.dies = true
};

/* Whoever waits for page servers must not be released with a warning: the server ends as by an immediate shutdown. */
void
nc_overtaken_main(Datum arg)
{
	NcId		newest = {0};
	char	   *who;
	char		id[NC_ID_TEXT];

	nc_program_begin(&program);
	nc_program_turn_memory(&program);
	if (is_overtaken(&who, &newest))
	{
		(void) kill(PostmasterPid, SIGQUIT);
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this compute was overtaken and stops"),
				 errdetail("Page servers belong to a newer compute, incarnation %s: %s.",
						   nc_id_text(&newest, id), who),
				 errhint("It must not be started again; see docs/takeover.md.")));
	}
	CHECK_FOR_INTERRUPTS();
	proc_exit(0);
}

void
nc_overtaken_turn(void)
{
	static uint64 ask_at = 0;
	static bool said = false;
	uint64		now = nc_clock_us();

	if (!nc_feed_is_ordered() || *nc_guc_page_servers == '\0')
		return;
	if (ask_at == 0 || nc_lease_holds())
		ask_at = now + PERIOD_MS * UINT64CONST(1000);
	if (now < ask_at)
		return;
	ask_at = now + PERIOD_MS * UINT64CONST(1000);
	if (nc_program_start(&program, 0) || said)
		return;
	said = true;
	ereport(LOG,
			(errmsg("neon_comm: page servers are not asked whether this compute was overtaken"),
			 errdetail("No background worker is free."),
			 errhint("Raise max_worker_processes.")));
}
