/*
 * sim_server.c
 *	  Page servers: decode requests with the core's own decoder, answer one after
 *	  the other on each connection, wait for WAL, and misbehave.
 *
 * Every answer that the engine must not use is marked in its contents, and so is
 * all that follows on its connection.  Errors for blocks of other shards carry
 * a text of their own, which no process may ever see.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

#define FRAME_BYTES_MAX (NC_RESPONSE_BYTES_MAX + 16)

/* What a page server answers: a message and how it was made wrong. */
typedef struct Answer
{
	NcPsResponse resp;
	uint64_t	page[SIM_PAGE_WORDS];
} Answer;

static uint8_t frame_buffer[FRAME_BYTES_MAX];

/* ---- well-formed answers ---- */

static NcRespTag
answer_tag(NcReqTag tag)
{
	switch (tag)
	{
		case NC_REQ_EXISTS:
			return NC_RESP_EXISTS;
		case NC_REQ_NBLOCKS:
			return NC_RESP_NBLOCKS;
		case NC_REQ_DBSIZE:
			return NC_RESP_DBSIZE;
		default:
			return NC_RESP_GETPAGE;
	}
}

static NcLsn
version_to_send(const SimConn *c, const NcPsRequest *req, uint32_t r)
{
	NcLsn		until = sim.servers[c->server].applied;
	NcLsn		lsn;

	if (req->request_lsn < until)
		until = req->request_lsn;
	lsn = sim_version_at(r, req->block, until);
	if (lsn > 8 && !c->tainted && sim_fault(SIM_LIE_STALE))
		return sim_version_at(r, req->block, lsn - 1);
	if (!c->tainted && sim_fault(SIM_LIE_FUTURE))
		return sim.lsn + 8 * (1 + sim_below(100));
	return lsn;
}

static void
make_answer(const SimConn *c, const NcPsRequest *req, Answer *a)
{
	NcPsResponse *resp = &a->resp;
	bool		poison = c->tainted;
	uint32_t	r = sim_rel_index(&req->rel);

	memset(resp, 0, sizeof(*resp));
	resp->tag = answer_tag(req->tag);
	resp->reqid = req->reqid;
	resp->request_lsn = req->request_lsn;
	resp->not_modified_since = req->not_modified_since;
	resp->rel = req->rel;
	resp->block = req->block;
	resp->db = req->db;
	resp->exists = (sim_value(NC_SLOT_KIND_EXISTS, &req->rel) != 0) != poison;
	resp->nblocks = (uint32_t) sim_value(NC_SLOT_KIND_NBLOCKS, &req->rel) + (poison ? 7777 : 0);
	resp->db_bytes = (int64_t) req->db * 3 * NC_PAGE_BYTES + (poison ? 77 : 0);
	if (req->tag != NC_REQ_GETPAGE)
		return;
	sim_page_fill(a->page, &req->rel, req->block, version_to_send(c, req, r), c->server, poison);
	resp->page = (const uint8_t *) a->page;
}

static size_t
encode(const SimConn *c, const NcPsResponse *resp)
{
	NcWriter	w = nc_writer(frame_buffer, sizeof(frame_buffer));
	uint8_t    *at = nc_frame_begin(&w, 'd');

	if (!nc_ps_response_encode(&w, c->version, resp))
		sim_fail("an answer cannot be encoded");
	nc_frame_end(&w, at);
	return nc_writer_bytes(&w);
}

static void
send_answer(SimConn *c, const NcPsResponse *resp)
{
	size_t		bytes = encode(c, resp);

	sim_send_to_client(c, frame_buffer, bytes);
}

static void
answer_well(SimConn *c, const NcPsRequest *req)
{
	static Answer a;

	make_answer(c, req, &a);
	send_answer(c, &a.resp);
}

static void
answer_error(SimConn *c, const NcPsRequest *req, const char *text)
{
	static Answer a;

	make_answer(c, req, &a);
	a.resp.tag = NC_RESP_ERROR;
	a.resp.message = text;
	a.resp.message_bytes = strlen(text);
	send_answer(c, &a.resp);
}

/* ---- answers that are wrong ---- */

static void
wrong_echo(NcPsResponse *resp)
{
	switch (sim_below(resp->tag == NC_RESP_GETPAGE ? 7 : 2))
	{
		case 0:
			resp->request_lsn ^= UINT64_C(1) << sim_below(64);
			break;
		case 1:
			resp->not_modified_since ^= UINT64_C(1) << sim_below(64);
			break;
		case 2:
			resp->rel.spc++;
			break;
		case 3:
			resp->rel.db++;
			break;
		case 4:
			resp->rel.rel++;
			break;
		case 5:
			resp->rel.fork ^= 1;
			break;
		case 6:
			resp->block ^= 1u << sim_below(8);
			break;
	}
}

static void
send_wrong(SimConn *c, const NcPsRequest *req, SimFault fault)
{
	static Answer a;

	sim_taint(c);
	make_answer(c, req, &a);
	if (fault == SIM_WRONG_ID)
		a.resp.reqid += sim_below(2) == 0 ? 1 : UINT64_MAX;
	else if (fault == SIM_WRONG_ECHO)
		wrong_echo(&a.resp);
	else if (fault == SIM_WRONG_TAG)
		a.resp.tag = a.resp.tag == NC_RESP_NBLOCKS ? NC_RESP_EXISTS : NC_RESP_NBLOCKS;
	else
	{
		/* ORPHAN: nobody asked for it */
		a.resp.reqid ^= UINT64_C(1) << 40;
		a.resp.block ^= 1;
	}
	send_answer(c, &a.resp);
}

/* A byte of the frame's header, or of what version 3 echoes, is another one. */
static void
send_corrupt(SimConn *c, const NcPsRequest *req)
{
	static Answer a;
	size_t		bytes;
	size_t		at;

	sim_taint(c);
	make_answer(c, req, &a);
	bytes = encode(c, &a.resp);
	/* version 2: as a notice it would only be missing, which nobody could tell there */
	at = c->version >= 3 ? sim_below(5 + NC_RESP_V3_HEADER_BYTES) : 1 + sim_below(5);
	frame_buffer[at] ^= (uint8_t) (1 + sim_below(255));
	sim_send_to_client(c, frame_buffer, bytes);
}

static void
send_truncated(SimConn *c, const NcPsRequest *req)
{
	static Answer a;
	size_t		bytes;
	NcWriter	w;

	sim_taint(c);
	make_answer(c, req, &a);
	bytes = 6 + sim_below((uint32_t) encode(c, &a.resp) - 6);
	w = nc_writer(frame_buffer + 1, 4);
	nc_write_u32(&w, (uint32_t) bytes - 1);
	sim_send_to_client(c, frame_buffer, bytes);
}

static void
send_part_and_end(SimConn *c, const NcPsRequest *req)
{
	static Answer a;
	size_t		bytes;

	sim_taint(c);
	make_answer(c, req, &a);
	bytes = sim_below((uint32_t) encode(c, &a.resp));
	sim_send_to_client(c, frame_buffer, bytes);
	sim_end_of_stream(c);
}

static void
send_stream_error(SimConn *c)
{
	NcWriter	w = nc_writer(frame_buffer, sizeof(frame_buffer));

	sim_taint(c);
	nc_session_error(&w, "FATAL", "57P01", "the simulation ends this stream", NULL, NULL);
	nc_session_ready(&w);
	sim_send_to_client(c, frame_buffer, nc_writer_bytes(&w));
}

static void
send_notice(SimConn *c)
{
	NcWriter	w = nc_writer(frame_buffer, sizeof(frame_buffer));

	nc_session_error(&w, "NOTICE", "00000", "nothing of note", NULL, NULL);
	frame_buffer[0] = 'N';
	sim_send_to_client(c, frame_buffer, nc_writer_bytes(&w));
}

/* It lives, and says so, but does not answer. */
void
sim_server_trickle(SimConn *c)
{
	if (c->silent || c->reset || c->closing)
		return;
	c->trickles = true;
	send_notice(c);
	sim_at(1000 + sim_below(20000), SIM_EV_TRICKLE, c->index, c->serial, 0);
}

static void
send_garbage(SimConn *c, bool long_frame)
{
	uint8_t		bytes[64];

	sim_taint(c);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t) sim_random();
	if (long_frame)
	{
		NcWriter	w = nc_writer(bytes, sizeof(bytes));

		nc_write_u8(&w, 'd');
		nc_write_u32(&w, sim_below(2) == 0 ? sim_below(4) :
					 NC_RESPONSE_BYTES_MAX + 5 + sim_below(1 << 30));
	}
	sim_send_to_client(c, bytes, sizeof(bytes));
}

/* The answer that an earlier connection's request would have got. */
static bool
replay(SimConn *c, const NcPsRequest *req)
{
	SimServer  *s = &sim.servers[c->server];

	for (uint32_t i = 0; i < s->nlost; i++)
	{
		NcPsRequest old = s->lost[i];

		if (old.tag != req->tag || old.block != req->block ||
			!nc_rel_key_equal(&old.rel, &req->rel) || old.request_lsn != req->request_lsn ||
			old.not_modified_since != req->not_modified_since)
			continue;
		sim_taint(c);
		answer_well(c, &old);
		return true;
	}
	return false;
}

/* Faults of one answer that end its connection in one way or another. */
static bool
misbehave(SimConn *c, const NcPsRequest *req)
{
	if (sim_fault(SIM_DROP))
		sim_reset(c);
	else if (sim_fault(SIM_CLOSE))
		sim_end_of_stream(c);
	else if (sim_fault(SIM_MID_FRAME))
		send_part_and_end(c, req);
	else if (sim_fault(SIM_TRUNCATED))
		send_truncated(c, req);
	else if (sim_fault(SIM_CORRUPT))
		send_corrupt(c, req);
	else if (sim_fault(SIM_STREAM_ERROR))
		send_stream_error(c);
	else if (sim_fault(SIM_LONG_FRAME))
		send_garbage(c, true);
	else if (sim_fault(SIM_GARBAGE))
		send_garbage(c, false);
	else if (sim_fault(SIM_HALF_OPEN))
		c->silent = true;
	else if (sim_fault(SIM_TRICKLE))
		sim_server_trickle(c);
	else if (sim_fault(SIM_WRONG_TAG))
		send_wrong(c, req, SIM_WRONG_TAG);
	/* version 2 carries no ids: what follows cannot be told from right answers there */
	else if (c->version < 3)
		return false;
	else if (sim_fault(SIM_WRONG_ID))
		send_wrong(c, req, SIM_WRONG_ID);
	else if (sim_fault(SIM_WRONG_ECHO))
		send_wrong(c, req, SIM_WRONG_ECHO);
	else if (sim_fault(SIM_ORPHAN))
		send_wrong(c, req, SIM_ORPHAN);
	else if (sim_fault(SIM_SWALLOWED))
		sim_taint(c);
	else if (!c->held_valid && sim_fault(SIM_SWAPPED))
	{
		c->held = *req;
		c->held_valid = true;
		sim_taint(c);
	}
	else if (!sim.healed && sim_chance(8 * sim.rate[SIM_REPLAY]) && replay(c, req))
		sim.fault_count[SIM_REPLAY]++;
	else
		return false;
	return true;
}

/* An error answer by which the page server speaks of itself. */
static void
note_host_error(const SimConn *c, const NcPsRequest *req)
{
	bool		is_page = req->tag == NC_REQ_GETPAGE;

	sim.servers[c->server].refused_us[is_page ? sim_rel_index(&req->rel) : SIM_RELS][is_page ? req->block : 0] = sim.now_us;
}

static void
answer(SimConn *c, const NcPsRequest *req)
{
	bool		mine = req->tag == NC_REQ_GETPAGE ?
		sim_owns(c->server, sim.nmaps - 1, &req->rel, req->block) : true;

	if (misbehave(c, req))
		return;
	if (!mine)
	{
		/* a page server that has lost a shard refuses, or waits for WAL that never comes */
		SIM_TRACE("server %u is asked for block %u of relation %u, which is server %u's", c->server,
				  req->block, req->rel.rel, sim_owner(sim.nmaps - 1, &req->rel, req->block));
		if (sim.foreign == 0)
			answer_error(c, req, "a block of another shard");
		else
			c->silent = true;
		return;
	}
	if (sim_fault(SIM_NOTICE))
		send_notice(c);
	if (sim_fault(SIM_NOT_NOW))
	{
		static const char *const texts[] = {"not ready: replay", "shutdown", "LSN timeout at 0/0"};

		answer_error(c, req, texts[sim_below(3)]);
		return;
	}
	if (sim_fault(SIM_MISROUTED))
	{
		note_host_error(c, req);
		answer_error(c, req, "wrong shard");
		return;
	}
	if (sim.servers[c->server].parted || sim_fault(SIM_HOST_ERROR))
	{
		static const char *const texts[] = SIM_HOST_ERRORS;
		char		text[96];

		note_host_error(c, req);
		snprintf(text, sizeof(text), "%s" SIM_ERROR_TEXT, texts[sim_below(2)], req->rel.rel, req->block);
		answer_error(c, req, text);
		return;
	}
	if (sim_fault(SIM_ERROR))
	{
		char		text[64];

		snprintf(text, sizeof(text), SIM_ERROR_TEXT, req->rel.rel, req->block);
		answer_error(c, req, text);
		return;
	}
	answer_well(c, req);
	if (c->held_valid)
	{
		answer_well(c, &c->held);
		c->held_valid = false;
	}
	if (c->version >= 3 && sim_fault(SIM_DUPLICATE))
	{
		sim_taint(c);
		answer_well(c, req);
	}
}

/* ---- requests ---- */

static void
schedule(SimConn *c, uint64_t delay_us)
{
	c->serving = true;
	sim_at(delay_us, SIM_EV_SERVE, c->index, c->serial, 0);
}

void
sim_server_serve(SimConn *c)
{
	const NcPsRequest *req = &c->queue[c->queue_first];

	c->serving = false;
	if (c->queued == 0 || c->silent || c->reset || c->closing || c->trickles)
		return;
	/* its WAL is not here yet: it and all behind it wait */
	if (req->not_modified_since > sim.servers[c->server].applied)
	{
		schedule(c, 100 + sim_below(2000));
		return;
	}
	answer(c, req);
	c->queue_first = (c->queue_first + 1) % SIM_QUEUE_MAX;
	c->queued--;
	if (c->queued > 0)
		schedule(c, sim_fault(SIM_SLOW) ? sim_below(1500000) : 1 + sim_below(30));
}

/* What a page server may take for granted about a client of ours. */
static void
check_request(SimConn *c, const NcPsRequest *req)
{
	if (c->version >= 3)
	{
		if (req->reqid <= c->last_reqid)
			sim_fail("a page server got request id %llx after %llx",
					 (unsigned long long) req->reqid, (unsigned long long) c->last_reqid);
		c->last_reqid = req->reqid;
	}
	if (req->tag != NC_REQ_DBSIZE && sim_rel_index(&req->rel) == UINT32_MAX)
		sim_fail("a page server was asked for relation %u", req->rel.rel);
	if (req->tag == NC_REQ_GETPAGE && req->block >= SIM_BLOCKS)
		sim_fail("a page server was asked for block %u", req->block);
	if (req->not_modified_since > sim.lsn)
		sim_fail("a page server was asked for an LSN that does not exist");
	if (req->tag != NC_REQ_GETPAGE &&
		!sim_is_host(sim.maps[sim.nmaps - 1].conninfo[0], c->server) && sim.nmaps == 1)
		sim_fail("a size was asked of another shard than 0");
	if (c->queued == SIM_QUEUE_MAX)
		sim_fail("a page server holds %u requests of one connection", c->queued);
}

void
sim_server_receive(SimConn *c)
{
	NcFrame		frame;
	NcPsRequest req;
	NcFrameResult r;

	while ((r = nc_frame_parse(c->to_server.data + c->to_server.start, c->at_server,
							   NC_REQUEST_BYTES_MAX, &frame)) != NC_FRAME_INCOMPLETE)
	{
		if (r == NC_FRAME_INVALID || frame.type != 'd' ||
			!nc_ps_request_decode(frame.body, frame.body_bytes, c->version, &req))
			sim_fail("a page server got bytes that are no request");
		check_request(c, &req);
		c->queue[(c->queue_first + c->queued) % SIM_QUEUE_MAX] = req;
		c->queued++;
		sim_bytes_consume(&c->to_server, frame.consumed);
		c->at_server -= frame.consumed;
	}
	if (c->queued > 0 && !c->serving)
		schedule(c, 1 + sim_below(60));
}

void
sim_server_conn_closed(SimConn *c)
{
	SimServer  *s = &sim.servers[c->server];

	for (uint32_t i = 0; i < c->queued && s->nlost < 8; i++)
		s->lost[s->nlost++] = c->queue[(c->queue_first + i) % SIM_QUEUE_MAX];
	if (s->nlost == 8 && sim_below(4) == 0)
		s->nlost = 0;
}

/* ---- WAL, down and up ---- */

void
sim_server_apply(uint32_t index)
{
	SimServer  *s = &sim.servers[index];

	if (s->lagging)
		s->lagging = !sim.healed && sim_below(300) != 0;
	else
	{
		s->applied = sim.lsn;
		s->lagging = sim_fault(SIM_LAG);
	}
	sim_at(200 + sim_below(5000), SIM_EV_APPLY, index, 0, 0);
}

static void
go_down(uint32_t index, bool silent)
{
	SIM_TRACE("server %u goes down%s", index, silent ? " silently" : "");
	sim.servers[index].down = true;
	sim.servers[index].down_silent = silent;
	for (uint32_t i = 0; i < sim.conns_high; i++)
	{
		SimConn    *c = &sim.conns[i];

		if (c->stage == SIM_CLOSED || c->server != index)
			continue;
		if (silent)
			c->silent = true;
		else if (sim_below(2) == 0)
			sim_end_of_stream(c);
		else
			sim_reset(c);
	}
}

void
sim_server_toggle(uint32_t index)
{
	SimServer  *s = &sim.servers[index];

	s->parted = s->parted ? sim_below(4) != 0 : sim_fault(SIM_PARTED);
	if (s->down)
	{
		SIM_TRACE("server %u is up", index);
		s->down = false;
	}
	else if (sim_fault(SIM_DOWN))
		go_down(index, false);
	else if (sim_fault(SIM_DOWN_SILENT))
		go_down(index, true);
	sim_at(1000 + sim_below(s->down ? 2000000 : 50000), SIM_EV_SERVER, index, 0, 0);
}

void
sim_server_heal(void)
{
	for (uint32_t i = 0; i < sim.nservers; i++)
	{
		sim.servers[i].down = false;
		sim.servers[i].parted = false;
		sim.servers[i].lagging = false;
	}
}
