/*
 * nc/wire/pagestream.h
 *	  Requests and responses of pagestream v2 and v3 as structs, and their codec.
 *
 * Each message is the body of one CopyData.  The layouts are those of
 * ../shared/docs/protocol.md section 2, checked by golden vectors.  Nothing
 * here allocates: decoded variable-length parts point into the input.
 *
 * The encoder and the decoder of a message stand side by side in pagestream.c;
 * the protocol version (2 or 3) is an argument, never a global.
 */
#ifndef NC_WIRE_PAGESTREAM_H
#define NC_WIRE_PAGESTREAM_H

#include "nc/base/bytes.h"
#include "nc/base/check.h"
#include "nc/base/key.h"
#include "nc/base/trace_id.h"
#include "nc/base/units.h"

/* Request tags; the response tag is not always request + 100, see below. */
typedef enum NcReqTag
{
	NC_REQ_EXISTS = 0,
	NC_REQ_NBLOCKS = 1,
	NC_REQ_GETPAGE = 2,
	NC_REQ_DBSIZE = 3,
	NC_REQ_SLRU = 4
} NcReqTag;

typedef enum NcRespTag
{
	NC_RESP_EXISTS = 100,
	NC_RESP_NBLOCKS = 101,
	NC_RESP_GETPAGE = 102,
	NC_RESP_ERROR = 103,
	NC_RESP_DBSIZE = 104,
	NC_RESP_SLRU = 105
} NcRespTag;

typedef enum NcSlruKind
{
	NC_SLRU_CLOG = 0,
	NC_SLRU_MULTIXACT_MEMBERS = 1,
	NC_SLRU_MULTIXACT_OFFSETS = 2
} NcSlruKind;

#define NC_SLRU_SEGMENT_BLOCKS 32

/*
 * Behind a v3 request that is traced: this byte, trace id, span id of who asks.  Nothing of the
 * protocol: page servers ignore what follows a request, ours looks whether it is this.
 */
#define NC_REQUEST_TRACE_MARK 'T'
#define NC_REQUEST_TRACE_BYTES (1 + NC_TRACE_ID_BYTES + NC_SPAN_ID_BYTES)

/* The largest request body any encoder here produces (v3 GetPage is 42 bytes, 67 when traced). */
#define NC_REQUEST_BYTES_MAX 80

/* Header of a v3 response before its body, and the largest response that a client accepts. */
#define NC_RESP_V3_HEADER_BYTES 25
#define NC_RESPONSE_BYTES_MAX (34 + NC_SLRU_SEGMENT_BLOCKS * NC_PAGE_BYTES)

typedef struct NcPsRequest
{
	NcReqTag	tag;
	uint64_t	reqid;			/* v3 only; 0 when decoded from v2 */
	NcLsn		request_lsn;	/* version wanted; NC_LSN_MAX = newest */
	NcLsn		not_modified_since;
	NcRelKey	rel;			/* EXISTS, NBLOCKS, GETPAGE */
	uint32_t	block;			/* GETPAGE */
	uint32_t	db;				/* DBSIZE */
	uint8_t		slru_kind;		/* SLRU: an NcSlruKind, not yet validated when decoded */
	uint32_t	slru_segno;		/* SLRU */
	const NcTraceContext *trace;	/* v3 only: goes with it; NULL = it is not traced. Decoded: in the body */
} NcPsRequest;

typedef struct NcPsResponse
{
	NcRespTag	tag;
	/* v3 echo of the request; zero when decoded from v2 */
	uint64_t	reqid;
	NcLsn		request_lsn;
	NcLsn		not_modified_since;
	NcRelKey	rel;			/* v3 EXISTS, NBLOCKS, GETPAGE */
	uint32_t	block;			/* v3 GETPAGE */
	uint32_t	db;				/* v3 DBSIZE */
	uint8_t		slru_kind;		/* v3 SLRU */
	uint32_t	slru_segno;		/* v3 SLRU */
	/* answers */
	bool		exists;
	uint32_t	nblocks;		/* NBLOCKS, SLRU (<= NC_SLRU_SEGMENT_BLOCKS) */
	int64_t		db_bytes;
	const uint8_t *page;		/* GETPAGE: NC_PAGE_BYTES; SLRU: nblocks pages */
	const char *message;		/* ERROR: text, message_bytes long, NUL not included */
	size_t		message_bytes;
} NcPsResponse;

/*
 * Encodes a request body (without the CopyData frame).  False when the buffer
 * is too small or the version is neither 2 nor 3.
 */
extern bool nc_ps_request_encode(NcWriter *w, int version, const NcPsRequest *req);

/*
 * Decodes a request body.  False on an unknown tag, a short body or an unknown
 * version.  Trailing bytes are ignored, as the reference page server does, unless they
 * are the context of a trace and nothing else.
 */
extern bool nc_ps_request_decode(const uint8_t *body, size_t bytes, int version,
								 NcPsRequest *req);

/*
 * Encodes a response body.  The v3 echo fields are taken from resp.  For large
 * responses the page bytes are copied, so the writer needs room for them.
 */
extern bool nc_ps_response_encode(NcWriter *w, int version, const NcPsResponse *resp);

/*
 * Decodes a response body.  False on an unknown tag, a short or an over-long
 * body, an SLRU block count above NC_SLRU_SEGMENT_BLOCKS, a boolean that is
 * neither 0 nor 1, or an error text without its NUL.
 */
extern bool nc_ps_response_decode(const uint8_t *body, size_t bytes, int version,
								  NcPsResponse *resp);

/*
 * Does the response answer this request?  Checks the tag always and the whole
 * echo (id, LSNs, relation, block, db, SLRU) for v3; an ERROR response matches
 * by its header.  Returns NULL when it does, else a static text naming the
 * field that differs.
 */
extern const char *nc_ps_response_mismatch(const NcPsResponse *resp, const NcPsRequest *req,
										   int version);

/* What an ERROR answer means for whoever asked. */
typedef enum NcErrorKind
{
	NC_ERROR_FINAL,				/* asking again gives the same */
	NC_ERROR_TRANSIENT,			/* the server cannot answer now: WAL, start-up, attaching */
	NC_ERROR_MISROUTED,			/* it serves other blocks: one side's shard map is old */
	NC_ERROR_HOST				/* this server cannot, and another one that has the block may */
} NcErrorKind;

/* Judges by how the text begins, which is all that the protocol has. */
extern NcErrorKind nc_ps_error_kind(const char *message, size_t bytes);

/* "GetPage", "Nblocks", ... for messages. */
extern const char *nc_ps_request_name(NcReqTag tag);

#endif							/* NC_WIRE_PAGESTREAM_H */
