/*
 * pagestream.c
 *	  Codec of pagestream v2 and v3.
 *
 * Runs in the communicator worker (requests out, responses in) and in the page
 * service (the other way round).  It guarantees that a decoder never reads past
 * the body that it was given, and that a response is accepted only when its
 * length is exactly the length of its message.  It never allocates, never
 * copies a page while decoding and never asserts on bytes of a peer.
 *
 * A message is: tag, header (v3 puts the request id before the two LSNs; v2
 * responses have no header at all), then the fields that name the object, then
 * the answer.  Each part has a put_ and a get_ function, kept side by side.
 */
#include "nc/wire/pagestream.h"

NC_STATIC_ASSERT(1 + 3 * sizeof(uint64_t) == NC_RESP_V3_HEADER_BYTES,
				 "a v3 header is the tag, the request id and two LSNs");

/* Parts of fixed length, which are looked for and laid down as one. */
#define LSNS_BYTES 16
#define REL_BYTES 13

static bool
version_known(int version)
{
	return version == 2 || version == 3;
}

/* ---- parts that requests and v3 responses share ---- */

static void
put_header(NcWriter *w, int version, uint64_t reqid, NcLsn request_lsn, NcLsn not_modified_since)
{
	uint8_t    *p;

	if (version >= 3)
		nc_write_u64(w, reqid);
	p = nc_write_space(w, LSNS_BYTES);
	if (p == NULL)
		return;
	nc_store_u64(p, request_lsn);
	nc_store_u64(p + 8, not_modified_since);
}

static void
get_header(NcReader *r, int version, uint64_t *reqid, NcLsn *request_lsn,
		   NcLsn *not_modified_since)
{
	const uint8_t *p;

	*reqid = version >= 3 ? nc_read_u64(r) : 0;
	*request_lsn = *not_modified_since = 0;
	p = nc_read_bytes(r, LSNS_BYTES);
	if (p == NULL)
		return;
	*request_lsn = nc_load_u64(p);
	*not_modified_since = nc_load_u64(p + 8);
}

/* A fork number is one byte on the wire; a larger one must not become another fork. */
static void
put_rel(NcWriter *w, const NcRelKey *rel)
{
	uint8_t    *p;

	if (rel->fork > UINT8_MAX)
		w->failed = true;
	p = nc_write_space(w, REL_BYTES);
	if (p == NULL)
		return;
	nc_store_u32(p, rel->spc);
	nc_store_u32(p + 4, rel->db);
	nc_store_u32(p + 8, rel->rel);
	p[12] = (uint8_t) rel->fork;
}

static void
get_rel(NcReader *r, NcRelKey *rel)
{
	const uint8_t *p = nc_read_bytes(r, REL_BYTES);

	*rel = (NcRelKey) {0};
	if (p == NULL)
		return;
	rel->spc = nc_load_u32(p);
	rel->db = nc_load_u32(p + 4);
	rel->rel = nc_load_u32(p + 8);
	rel->fork = p[12];
}

static void
put_slru_name(NcWriter *w, uint8_t kind, uint32_t segno)
{
	nc_write_u8(w, kind);
	nc_write_u32(w, segno);
}

static void
get_slru_name(NcReader *r, uint8_t *kind, uint32_t *segno)
{
	*kind = nc_read_u8(r);
	*segno = nc_read_u32(r);
}

/* ---- requests ---- */

static void
put_request_body(NcWriter *w, const NcPsRequest *req)
{
	switch (req->tag)
	{
		case NC_REQ_EXISTS:
		case NC_REQ_NBLOCKS:
			put_rel(w, &req->rel);
			return;
		case NC_REQ_GETPAGE:
			put_rel(w, &req->rel);
			nc_write_u32(w, req->block);
			return;
		case NC_REQ_DBSIZE:
			nc_write_u32(w, req->db);
			return;
		case NC_REQ_SLRU:
			put_slru_name(w, req->slru_kind, req->slru_segno);
			return;
	}
	w->failed = true;
}

static void
get_request_body(NcReader *r, NcPsRequest *req)
{
	switch (req->tag)
	{
		case NC_REQ_EXISTS:
		case NC_REQ_NBLOCKS:
			get_rel(r, &req->rel);
			return;
		case NC_REQ_GETPAGE:
			get_rel(r, &req->rel);
			req->block = nc_read_u32(r);
			return;
		case NC_REQ_DBSIZE:
			req->db = nc_read_u32(r);
			return;
		case NC_REQ_SLRU:
			get_slru_name(r, &req->slru_kind, &req->slru_segno);
			return;
	}
	r->failed = true;
}

/* Of a request only: an answer has no bytes but its own. */
static NC_RARE void
put_trace(NcWriter *w, const NcTraceContext *trace)
{
	nc_write_u8(w, NC_REQUEST_TRACE_MARK);
	nc_write_bytes(w, trace->trace_id, NC_TRACE_ID_BYTES);
	nc_write_bytes(w, trace->span_id, NC_SPAN_ID_BYTES);
}

/* Whatever else follows a request may be of a later version, and is ignored. */
static const NcTraceContext *
get_trace(NcReader *r)
{
	const NcTraceContext *trace;

	if (r->failed || nc_reader_left(r) != NC_REQUEST_TRACE_BYTES ||
		nc_read_u8(r) != NC_REQUEST_TRACE_MARK)
		return NULL;
	/* bytes, which may stand anywhere */
	trace = (const NcTraceContext *) nc_read_bytes(r, sizeof(*trace));
	return nc_trace_context_valid(trace) ? trace : NULL;
}

NC_STATIC_ASSERT(sizeof(NcTraceContext) == NC_TRACE_ID_BYTES + NC_SPAN_ID_BYTES,
				 "a context is its bytes on the wire");

bool
nc_ps_request_encode(NcWriter *w, int version, const NcPsRequest *req)
{
	if (!version_known(version))
	{
		w->failed = true;
		return false;
	}
	nc_write_u8(w, (uint8_t) req->tag);
	put_header(w, version, req->reqid, req->request_lsn, req->not_modified_since);
	put_request_body(w, req);
	if (req->trace != NULL && version >= 3)
		put_trace(w, req->trace);
	return !w->failed;
}

bool
nc_ps_request_decode(const uint8_t *body, size_t bytes, int version, NcPsRequest *req)
{
	NcReader	r = nc_reader(body, bytes);

	*req = (NcPsRequest) {0};
	if (!version_known(version))
		return false;
	req->tag = (NcReqTag) nc_read_u8(&r);
	get_header(&r, version, &req->reqid, &req->request_lsn, &req->not_modified_since);
	get_request_body(&r, req);
	if (version >= 3)
		req->trace = get_trace(&r);
	return !r.failed;
}

/* ---- responses: the echo, which only v3 has ---- */

static void
put_echo(NcWriter *w, const NcPsResponse *resp)
{
	put_header(w, 3, resp->reqid, resp->request_lsn, resp->not_modified_since);
	switch (resp->tag)
	{
		case NC_RESP_EXISTS:
		case NC_RESP_NBLOCKS:
			put_rel(w, &resp->rel);
			return;
		case NC_RESP_GETPAGE:
			put_rel(w, &resp->rel);
			nc_write_u32(w, resp->block);
			return;
		case NC_RESP_ERROR:
			return;
		case NC_RESP_DBSIZE:
			nc_write_u32(w, resp->db);
			return;
		case NC_RESP_SLRU:
			put_slru_name(w, resp->slru_kind, resp->slru_segno);
			return;
	}
	w->failed = true;
}

static void
get_echo(NcReader *r, NcPsResponse *resp)
{
	get_header(r, 3, &resp->reqid, &resp->request_lsn, &resp->not_modified_since);
	switch (resp->tag)
	{
		case NC_RESP_EXISTS:
		case NC_RESP_NBLOCKS:
			get_rel(r, &resp->rel);
			return;
		case NC_RESP_GETPAGE:
			get_rel(r, &resp->rel);
			resp->block = nc_read_u32(r);
			return;
		case NC_RESP_ERROR:
			return;
		case NC_RESP_DBSIZE:
			resp->db = nc_read_u32(r);
			return;
		case NC_RESP_SLRU:
			get_slru_name(r, &resp->slru_kind, &resp->slru_segno);
			return;
	}
	r->failed = true;
}

/* ---- responses: the answer, the same bytes in v2 and v3 ---- */

/* The text ends at its first NUL, because the receiver refuses anything after it. */
static void
put_error_text(NcWriter *w, const char *message, size_t bytes)
{
	if (bytes > 0)
		nc_write_bytes(w, message, strnlen(message, bytes));
	nc_write_u8(w, 0);
}

static void
get_error_text(NcReader *r, NcPsResponse *resp)
{
	const char *message = nc_read_cstring(r);

	resp->message = message;
	resp->message_bytes = message ? strlen(message) : 0;
}

/* The bound is checked before the count is multiplied or any page byte is touched. */
static void
put_slru_segment(NcWriter *w, const NcPsResponse *resp)
{
	if (resp->nblocks > NC_SLRU_SEGMENT_BLOCKS)
	{
		w->failed = true;
		return;
	}
	nc_write_u32(w, resp->nblocks);
	nc_write_bytes(w, resp->page, (size_t) resp->nblocks * NC_PAGE_BYTES);
}

static void
get_slru_segment(NcReader *r, NcPsResponse *resp)
{
	resp->nblocks = nc_read_u32(r);
	if (resp->nblocks > NC_SLRU_SEGMENT_BLOCKS)
		r->failed = true;
	else
		resp->page = nc_read_bytes(r, (size_t) resp->nblocks * NC_PAGE_BYTES);
}

static void
get_exists(NcReader *r, NcPsResponse *resp)
{
	uint8_t		v = nc_read_u8(r);

	if (v > 1)
		r->failed = true;
	resp->exists = v == 1;
}

static void
put_answer(NcWriter *w, const NcPsResponse *resp)
{
	switch (resp->tag)
	{
		case NC_RESP_EXISTS:
			nc_write_u8(w, resp->exists ? 1 : 0);
			return;
		case NC_RESP_NBLOCKS:
			nc_write_u32(w, resp->nblocks);
			return;
		case NC_RESP_GETPAGE:
			nc_write_bytes(w, resp->page, NC_PAGE_BYTES);
			return;
		case NC_RESP_ERROR:
			put_error_text(w, resp->message, resp->message_bytes);
			return;
		case NC_RESP_DBSIZE:
			nc_write_u64(w, (uint64_t) resp->db_bytes);
			return;
		case NC_RESP_SLRU:
			put_slru_segment(w, resp);
			return;
	}
	w->failed = true;
}

static void
get_response_body(NcReader *r, NcPsResponse *resp)
{
	switch (resp->tag)
	{
		case NC_RESP_EXISTS:
			get_exists(r, resp);
			return;
		case NC_RESP_NBLOCKS:
			resp->nblocks = nc_read_u32(r);
			return;
		case NC_RESP_GETPAGE:
			resp->page = nc_read_bytes(r, NC_PAGE_BYTES);
			return;
		case NC_RESP_ERROR:
			get_error_text(r, resp);
			return;
		case NC_RESP_DBSIZE:
			resp->db_bytes = (int64_t) nc_read_u64(r);
			return;
		case NC_RESP_SLRU:
			get_slru_segment(r, resp);
			return;
	}
	r->failed = true;
}

bool
nc_ps_response_encode(NcWriter *w, int version, const NcPsResponse *resp)
{
	if (!version_known(version))
	{
		w->failed = true;
		return false;
	}
	nc_write_u8(w, (uint8_t) resp->tag);
	if (version >= 3)
		put_echo(w, resp);
	put_answer(w, resp);
	return !w->failed;
}

bool
nc_ps_response_decode(const uint8_t *body, size_t bytes, int version, NcPsResponse *resp)
{
	NcReader	r = nc_reader(body, bytes);

	*resp = (NcPsResponse) {0};
	if (!version_known(version))
		return false;
	resp->tag = (NcRespTag) nc_read_u8(&r);
	if (version >= 3)
		get_echo(&r, resp);
	get_response_body(&r, resp);
	return !r.failed && nc_reader_left(&r) == 0;
}

/* ---- pairing ---- */

/* Not request + 100 throughout: 103 is the error response. */
static NcRespTag
answer_tag(NcReqTag tag)
{
	switch (tag)
	{
		case NC_REQ_EXISTS:
			return NC_RESP_EXISTS;
		case NC_REQ_NBLOCKS:
			return NC_RESP_NBLOCKS;
		case NC_REQ_GETPAGE:
			return NC_RESP_GETPAGE;
		case NC_REQ_DBSIZE:
			return NC_RESP_DBSIZE;
		case NC_REQ_SLRU:
			return NC_RESP_SLRU;
	}
	return NC_RESP_ERROR;
}

static const char *
rel_mismatch(const NcRelKey *a, const NcRelKey *b)
{
	if (a->spc != b->spc)
		return "tablespace";
	if (a->db != b->db)
		return "database";
	if (a->rel != b->rel)
		return "relation";
	if (a->fork != b->fork)
		return "fork";
	return NULL;
}

/* The fields that name the object; an error response has none. */
static const char *
object_mismatch(const NcPsResponse *resp, const NcPsRequest *req)
{
	const char *field;

	switch (resp->tag)
	{
		case NC_RESP_EXISTS:
		case NC_RESP_NBLOCKS:
			return rel_mismatch(&resp->rel, &req->rel);
		case NC_RESP_GETPAGE:
			field = rel_mismatch(&resp->rel, &req->rel);
			if (field == NULL && resp->block != req->block)
				field = "block";
			return field;
		case NC_RESP_ERROR:
			return NULL;
		case NC_RESP_DBSIZE:
			return resp->db != req->db ? "database" : NULL;
		case NC_RESP_SLRU:
			if (resp->slru_kind != req->slru_kind)
				return "SLRU kind";
			return resp->slru_segno != req->slru_segno ? "SLRU segment" : NULL;
	}
	return "tag";
}

const char *
nc_ps_response_mismatch(const NcPsResponse *resp, const NcPsRequest *req, int version)
{
	if (resp->tag != NC_RESP_ERROR && resp->tag != answer_tag(req->tag))
		return "tag";
	if (version < 3)
		return NULL;
	if (resp->reqid != req->reqid)
		return "request id";
	if (resp->request_lsn != req->request_lsn)
		return "request LSN";
	if (resp->not_modified_since != req->not_modified_since)
		return "not-modified-since LSN";
	return object_mismatch(resp, req);
}

NcErrorKind
nc_ps_error_kind(const char *message, size_t bytes)
{
	static const struct
	{
		const char *begin;
		NcErrorKind kind;
	}			known[] = {
		/* the reference page server */
		{"LSN timeout", NC_ERROR_TRANSIENT},
		{"Not found: Timed out", NC_ERROR_TRANSIENT},
		{"Not found: Timeline", NC_ERROR_TRANSIENT},
		{"shutdown", NC_ERROR_TRANSIENT},
		{"reconnect", NC_ERROR_TRANSIENT},
		/* either: theirs says it of all that goes wrong */
		{"Read error", NC_ERROR_HOST},
		/* ours */
		{"not ready", NC_ERROR_TRANSIENT},
		{"parted", NC_ERROR_HOST},
		{"wrong shard", NC_ERROR_MISROUTED},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		size_t		n = strlen(known[i].begin);

		if (bytes >= n && memcmp(message, known[i].begin, n) == 0)
			return known[i].kind;
	}
	return NC_ERROR_FINAL;
}

const char *
nc_ps_request_name(NcReqTag tag)
{
	switch (tag)
	{
		case NC_REQ_EXISTS:
			return "Exists";
		case NC_REQ_NBLOCKS:
			return "Nblocks";
		case NC_REQ_GETPAGE:
			return "GetPage";
		case NC_REQ_DBSIZE:
			return "DbSize";
		case NC_REQ_SLRU:
			return "GetSlruSegment";
	}
	return "unknown request";
}
