/*
 * play.c
 *	  Requests of a recording to page servers.
 *
 * Over the pools, connections and checks that the communicator has (nc/net/), so that
 * what is measured is what a compute would see: its handshake, its TLS, how many
 * requests are on a connection, what nobody waits for behind what somebody does.
 * Nothing is asked twice: an error answer is a result here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nc/base/clock.h"
#include "nc/net/net.h"
#include "replay.h"

/* The longest sleep, for progress and signals. */
#define TURN_US 100000

#define PROGRESS_US 1000000

/* A recording says what it likes; no number of microseconds that is used goes beyond this. */
#define NEVER_US 1e18

/* While it ends. */
#define END_ROUNDS 200
#define END_ROUND_US 10000

typedef struct Play Play;

/* A request, and its messages. */
typedef struct Job
{
	Play	   *play;
	const NcRecord *record;
	uint64_t	sent_us;
	uint32_t	outstanding;
	bool		failed;
	struct Part
	{
		NcFlight	flight;		/* first, so that one becomes the other */
		struct Job *job;
	}			parts[];
} Job;

typedef struct Part Part;

struct Play
{
	const Options *options;
	const Recording *recording;
	const NcShardMap *map;
	Result	   *result;
	NcLoop	   *loop;
	NcNet	   *net;
	NcCounters	counters;
	int			wake_fd;
	uint64_t	wake_count;
	NcOp		wake_op;
	uint64_t	now_us;
	uint64_t	begin_us;
	uint64_t	next;			/* index of the first record that is not sent */
	uint64_t	jobs;			/* on their way */
	uint64_t	messages;		/* the same, of them */
	uint64_t	last_group;
	uint64_t	answer_us;		/* the last one came, or nothing was waited for */
	uint64_t	told_us;
};

volatile int play_broken_off = 0;

/* ---- what comes back ---- */

static void
end_job(Job *job)
{
	Play	   *p = job->play;
	ClassResult *of = &p->result->of[job->record->class];

	p->jobs--;
	if (!job->failed)
	{
		of->answered++;
		note_duration(&of->played, p->now_us - job->sent_us);
	}
	free(job);
}

static void
end_part(NcFlight *flight, bool answered)
{
	Job		   *job = ((Part *) flight)->job;
	Play	   *p = job->play;

	p->messages--;
	p->answer_us = p->now_us;
	if (!answered)
		job->failed = true;
	else if (job->record->kind == NC_REQ_GETPAGE)
		p->result->of[job->record->class].blocks_answered++;
	if (--job->outstanding == 0)
		end_job(job);
}

static void
note_trouble(Play *p, Trouble trouble, const char *text, size_t bytes)
{
	if (p->result->trouble[trouble]++ == 0)
		nc_text_one_line(p->result->example[trouble], sizeof(p->result->example[trouble]), text, bytes);
}

static Trouble
trouble_of(const NcPsResponse *resp)
{
	switch (nc_ps_error_kind(resp->message, resp->message_bytes))
	{
		case NC_ERROR_TRANSIENT:
			return TROUBLE_NOT_NOW;
		case NC_ERROR_MISROUTED:
			return TROUBLE_MISROUTED;
		case NC_ERROR_HOST:
			return TROUBLE_HOST;
		case NC_ERROR_FINAL:
			break;
	}
	return TROUBLE_ERROR;
}

static bool
on_answer(void *ctx, NcConn *conn, NcFlight *flight, const NcPsResponse *resp)
{
	Play	   *p = ctx;
	bool		error = resp->tag == NC_RESP_ERROR;

	/* a batch of answers takes its time to be gone through */
	p->now_us = nc_clock_us();
	if (error)
		note_trouble(p, trouble_of(resp), resp->message, resp->message_bytes);
	end_part(flight, !error);
	return true;
}

static void
on_dropped(void *ctx, NcFlight *flight, const char *reason)
{
	note_trouble(ctx, TROUBLE_LOST, reason, strlen(reason));
	end_part(flight, false);
}

static void
on_unwanted(void *ctx, NcFlight *flight)
{
	on_dropped(ctx, flight, "not sent");
}

static bool
on_keep(void *ctx, const NcFlight *flight)
{
	return true;
}

static bool
on_promoted(void *ctx, const NcFlight *flight)
{
	return false;
}

static NcFlight *
on_twin(void *ctx, NcFlight *flight)
{
	return NULL;
}

static bool
on_rerouted(void *ctx, NcFlight *flight, uint32_t shard)
{
	return true;
}

static void
on_log(void *ctx, NcNetLevel level, const char *message)
{
	tell("%s", message);
}

static void
on_wake(NcOp *op)
{
}

/* ---- sending ---- */

static uint32_t
shard_of(const Play *p, const NcPsRequest *msg)
{
	/* sizes and existence are exact on shard 0 only */
	if (msg->tag != NC_REQ_GETPAGE || p->map->shard_count == 1)
		return 0;
	return nc_shard_of_block(p->map->shard_count, p->map->stripe_blocks, &msg->rel, msg->block);
}

static NcPsRequest
message_of(const Play *p, const NcRecord *record, uint32_t index)
{
	NcPsRequest msg = {
		.tag = (NcReqTag) record->kind,
		.request_lsn = record->request_lsn,
		.not_modified_since = record->not_modified_since,
		.rel = record->rel,
		.block = record->kind == NC_REQ_GETPAGE ? record->block + index : 0,
		.db = record->rel.db
	};

	if (!p->options->lsn_recorded)
	{
		msg.request_lsn = NC_LSN_MAX;
		/* the lowest that is one: what the page server has is new enough */
		msg.not_modified_since = 1;
	}
	return msg;
}

/* False: no memory. */
static bool
send_record(Play *p, const NcRecord *record)
{
	Job		   *job = calloc(1, sizeof(Job) + record->nblocks * sizeof(Part));
	ClassResult *of = &p->result->of[record->class];

	if (job == NULL)
	{
		snprintf(p->result->why, sizeof(p->result->why), "no memory for requests on their way");
		return false;
	}
	job->play = p;
	job->record = record;
	job->sent_us = p->now_us;
	job->outstanding = record->nblocks;
	of->requests[record->kind]++;
	if (record->kind == NC_REQ_GETPAGE)
		of->blocks += record->nblocks;
	p->jobs++;
	p->last_group++;
	for (uint32_t i = 0; i < record->nblocks; i++)
	{
		Part	   *part = &job->parts[i];

		part->job = job;
		part->flight.msg = message_of(p, record, i);
		part->flight.group = p->last_group;
		part->flight.first_us = p->now_us;
		/* as the engine has it (src/engine/route.c) */
		part->flight.background = record->class == NC_RECORD_AHEAD || record->class == NC_RECORD_ASYNC;
		part->flight.lasting = record->class == NC_RECORD_ASYNC;
		p->messages++;
		p->result->messages++;
		nc_net_submit(p->net, shard_of(p, &part->flight.msg), &part->flight);
	}
	return true;
}

/* When a record is due, since the beginning. */
static uint64_t
due_us(const Play *p, const NcRecord *record)
{
	double		us = (double) (record->start_us - p->recording->records[0].start_us) / p->options->speed;

	return us < NEVER_US ? (uint64_t) us : (uint64_t) NEVER_US;
}

static bool
wanted(const Play *p, const NcRecord *record)
{
	return p->options->classes[record->class];
}

/* Sends what is due, or what there is room for; false: it cannot go on. */
static bool
send_due(Play *p)
{
	uint64_t	window = (uint64_t) p->map->shard_count * p->options->connections * p->options->depth;
	uint64_t	at_us = p->now_us - p->begin_us;

	for (; p->next < p->recording->count; p->next++)
	{
		const NcRecord *record = &p->recording->records[p->next];

		if (!wanted(p, record))
			continue;
		if (p->options->speed == 0)
		{
			if (p->messages >= window)
				break;
		}
		else
		{
			uint64_t	due = due_us(p, record);

			if (due > at_us)
				break;
			if (at_us - due > p->result->late_us)
				p->result->late_us = at_us - due;
		}
		if (p->messages == 0)
			p->answer_us = p->now_us;
		if (!send_record(p, record))
			return false;
	}
	return true;
}

/* ---- the loop ---- */

/* Waits until something happens, at most so long, and acts on it. */
static void
turn(Play *p, uint64_t wait_us)
{
	uint64_t	deadline = nc_net_deadline_us(p->net);

	if (p->wake_op.state == NC_OP_IDLE)
		nc_loop_read(p->loop, &p->wake_op, p->wake_fd, &p->wake_count, sizeof(p->wake_count));
	nc_net_turn(p->net, p->now_us);
	if (deadline <= p->now_us)
		wait_us = 0;
	else if (deadline - p->now_us < wait_us)
		wait_us = deadline - p->now_us;
	nc_loop_wait(p->loop, wait_us);
	p->now_us = nc_clock_us();
	nc_net_set_now(p->net, p->now_us);
	(void) nc_loop_run(p->loop);
	p->now_us = nc_clock_us();
}

static bool
make_net(Play *p)
{
	const Options *o = p->options;
	NcNetSettings settings = {
		.protocol_version = p->recording->header.protocol_version,
		.connections_per_shard_max = o->connections,
		.depth_max = o->depth,
		.connect_timeout_ms = 5000,
		.silence_timeout_ms = o->timeout_s * 1000,
		.idle_timeout_ms = UINT32_MAX,
		.readahead_yields = true,
		.token_in_clear = o->token_in_clear
	};
	NcNetHost	host = {.ctx = p, .answer = on_answer, .keep = on_keep, .unwanted = on_unwanted,
		.promoted = on_promoted, .twin = on_twin, .dropped = on_dropped, .rerouted = on_rerouted, .log = on_log};
	NcFlightList displaced = {0};
	char		err[256];

	snprintf(settings.tenant_id, sizeof(settings.tenant_id), "%s",
			 o->tenant != NULL ? o->tenant : p->recording->header.tenant_id);
	snprintf(settings.timeline_id, sizeof(settings.timeline_id), "%s",
			 o->timeline != NULL ? o->timeline : p->recording->header.timeline_id);
	snprintf(settings.token_file, sizeof(settings.token_file), "%s", o->token_file);
	p->loop = nc_loop_create(NC_LOOP_AUTO, err, sizeof(err));
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->loop == NULL || p->wake_fd < 0)
	{
		snprintf(p->result->why, sizeof(p->result->why), "no event loop: %s", p->loop == NULL ? err : "eventfd");
		return false;
	}
	nc_loop_adopt(p->loop, p->wake_fd);
	p->wake_op.complete = on_wake;
	p->net = nc_net_create(p->loop, &settings, &host, &p->counters, p->wake_fd, (uint64_t) getpid());
	if (p->net == NULL)
	{
		snprintf(p->result->why, sizeof(p->result->why), "out of memory");
		return false;
	}
	nc_net_set_addresses(p->net, p->map->shard_count, p->map->conninfo, &displaced, p->now_us);
	return true;
}

/* Has this shard a connection that stands?  Else what its last attempt said. */
static bool
is_reached(Play *p, uint32_t shard, const char **said)
{
	*said = "no connection yet";
	for (uint32_t i = 0; i < nc_net_conns_used(p->net); i++)
	{
		const NcConn *c = nc_net_conn(p->net, i);

		if (c->shard != shard)
			continue;
		if (c->state == NC_CONN_READY)
			return true;
		if (c->last_error[0] != '\0')
			*said = c->last_error;
	}
	return false;
}

/* The first connection of each shard, before time is measured. */
static bool
reach(Play *p)
{
	uint64_t	give_up = p->now_us + (uint64_t) p->options->wait_s * 1000000;

	for (;;)
	{
		uint32_t	shard = 0;
		const char *said = "";

		while (shard < p->map->shard_count && is_reached(p, shard, &said))
			shard++;
		if (shard == p->map->shard_count)
			return true;
		if (play_broken_off || p->now_us >= give_up)
		{
			snprintf(p->result->why, sizeof(p->result->why), "page server of shard %u (%s): %s", shard,
					 nc_net_address(p->net, shard), said);
			return false;
		}
		turn(p, TURN_US);
	}
}

static void
tell_progress(Play *p)
{
	if (p->now_us < p->told_us + PROGRESS_US)
		return;
	p->told_us = p->now_us;
	tell("%" PRIu64 " of %" PRIu64 " requests sent, %" PRIu64 " on their way", p->next, p->recording->count,
		 p->jobs);
}

/* How long nothing has to be sent. */
static uint64_t
idle_us(const Play *p)
{
	uint64_t	due;
	uint64_t	at_us = p->now_us - p->begin_us;

	if (p->next >= p->recording->count || p->options->speed == 0)
		return TURN_US;
	due = due_us(p, &p->recording->records[p->next]);
	if (due <= at_us)
		return 0;
	return due - at_us < TURN_US ? due - at_us : TURN_US;
}

static void
run(Play *p)
{
	uint64_t	silence_us = (uint64_t) p->options->timeout_s * 1000000;

	p->begin_us = p->answer_us = p->told_us = p->now_us;
	while (p->result->why[0] == '\0')
	{
		if (!send_due(p))
			break;
		if (p->next == p->recording->count && p->messages == 0)
			break;
		turn(p, idle_us(p));
		tell_progress(p);
		if (play_broken_off)
			snprintf(p->result->why, sizeof(p->result->why), "ended by a signal");
		else if (p->messages > 0 && p->now_us > p->answer_us + silence_us)
			snprintf(p->result->why, sizeof(p->result->why), "no answer in %u s", p->options->timeout_s);
	}
	p->result->took_us = p->now_us - p->begin_us;
	p->result->unanswered = p->jobs;
	for (uint64_t i = p->next; i < p->recording->count; i++)
		p->result->unsent += wanted(p, &p->recording->records[i]);
}

/* What is on its way is forgotten; the process ends, and its memory with it. */
static void
close_net(Play *p)
{
	nc_net_close(p->net, nc_clock_us());
	nc_loop_cancel(p->loop, &p->wake_op);
	for (int i = 0; i < END_ROUNDS && nc_loop_started(p->loop) > 0; i++)
	{
		nc_loop_wait(p->loop, END_ROUND_US);
		(void) nc_loop_run(p->loop);
	}
}

/* Beside what was played: how long the same took when it was recorded. */
static void
note_recorded(const Play *p)
{
	for (uint64_t i = 0; i < p->next; i++)
	{
		const NcRecord *record = &p->recording->records[i];

		if (wanted(p, record) && record->result == NC_RECORD_OK)
			note_duration(&p->result->of[record->class].recorded, record->took_us);
	}
}

bool
play(const Options *o, const Recording *recording, const NcShardMap *map, Result *result)
{
	/* large: the table of counters is one of shared memory */
	static Play p;
	bool		reached;

	p = (Play) {.options = o, .recording = recording, .map = map, .result = result, .wake_fd = -1,
		.now_us = nc_clock_us()};
	memset(result, 0, sizeof(*result));
	if (!make_net(&p))
		return false;
	reached = reach(&p);
	if (reached)
	{
		run(&p);
		note_recorded(&p);
	}
	close_net(&p);
	return reached;
}
