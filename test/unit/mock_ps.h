/*
 * mock_ps.h
 *	  A page server for tests: speaks the startup handshake and pagestream v2 and
 *	  v3 over 127.0.0.1, in the process and the thread of the test, one step at a
 *	  time, and misbehaves when told so.
 *
 * Pages identify themselves: every 32 bytes of a page name its key, its place
 * in the page and the server, so that a test checks each byte.
 */
#ifndef MOCK_PS_H
#define MOCK_PS_H

#include "nc/auth/tls.h"
#include "nc/base/key.h"
#include "nc/base/trace_id.h"
#include "nc/base/units.h"

typedef enum MockFault
{
	MOCK_NONE = 0,
	MOCK_SILENT,				/* swallow the request */
	MOCK_HOLD,					/* answer when mock_ps_release() is called */
	MOCK_CLOSE,					/* close instead of answering */
	MOCK_CLOSE_MID_FRAME,		/* close in the middle of the answer */
	MOCK_STALL,					/* half of the answer, the rest when mock_ps_go_on() is called */
	MOCK_WRONG_ID,				/* v3: another request id */
	MOCK_WRONG_BLOCK,			/* v3: another block */
	MOCK_WRONG_TAG,				/* an Nblocks answer to whatever */
	MOCK_SWAP,					/* answer this and the next request in the wrong order */
	MOCK_GARBAGE,				/* bytes that are no message */
	MOCK_LONG_FRAME,			/* a frame with an impossible length */
	MOCK_UNASKED,				/* the answer twice */
	MOCK_ERROR,					/* message 103 with mock_ps_error_text */
	MOCK_STREAM_ERROR			/* ErrorResponse and ReadyForQuery: the stream is over */
} MockFault;

typedef enum MockDoor
{
	MOCK_DOOR_OPEN = 0,
	MOCK_DOOR_SILENT,			/* accepts and never says a word */
	MOCK_DOOR_REFUSES,			/* ErrorResponse to the pagestream command */
	MOCK_DOOR_SELECT,			/* answers the pagestream command as an ordinary query */
	MOCK_DOOR_CLOSES			/* closes right after accepting */
} MockDoor;

#define MOCK_CONNS_MAX 256

typedef struct MockPs MockPs;

extern MockPs *mock_ps_open(uint32_t server_id);
extern void mock_ps_close(MockPs *m);

/* "host=127.0.0.1 port=N sslmode=disable" */
extern const char *mock_ps_conninfo(const MockPs *m);
extern uint16_t mock_ps_port(const MockPs *m);

/* Accepts, reads, answers what can be done without waiting. */
extern void mock_ps_step(MockPs *m);

/* The next `times` requests after `skip` good ones get the fault. */
extern void mock_ps_fault(MockPs *m, MockFault fault, uint32_t skip, uint32_t times);

/* Answers what was held; the first n of each connection. */
extern void mock_ps_release(MockPs *m);
extern void mock_ps_release_some(MockPs *m, uint32_t n);

/* What stalled goes on. */
extern void mock_ps_go_on(MockPs *m);

/* How new connections are treated. */
extern void mock_ps_door(MockPs *m, MockDoor door);

/* Closes the listening socket (connects are refused) and opens it again. */
extern void mock_ps_down(MockPs *m);
extern void mock_ps_up(MockPs *m);

/* New connections have a receive buffer of so many bytes. */
extern void mock_ps_small_buffer(MockPs *m, int bytes);

/* The present connections are not read any more, or again. */
extern void mock_ps_deaf(MockPs *m, bool deaf);

/* Says a page on each connection, asked or not: in v2 it may be the answer to any request. */
extern void mock_ps_say_page(MockPs *m);

/* Closes all connections. */
extern void mock_ps_drop_all(MockPs *m);

extern void mock_ps_error_text(MockPs *m, const char *text);

/* Demand a password. */
extern void mock_ps_password(MockPs *m, const char *password);

/*
 * Offers TLS to new connections: records of so many bytes, every fifth with new
 * keys that the peer must follow.  The context stays the caller's.
 */
extern void mock_ps_tls(MockPs *m, NcTlsContext *context, size_t record_bytes);

/* TLS without new keys. */
extern void mock_ps_same_keys(MockPs *m);

/* What happened so far. */
extern uint32_t mock_ps_accepted(const MockPs *m);
extern uint32_t mock_ps_open_now(const MockPs *m);
extern uint32_t mock_ps_open_max(const MockPs *m);
extern uint32_t mock_ps_requests(const MockPs *m);

/* Block of the request with this number (from 0, the first MOCK_HISTORY of them). */
#define MOCK_HISTORY 128
extern uint32_t mock_ps_block_of_request(const MockPs *m, uint32_t index);
extern uint32_t mock_ps_held(const MockPs *m);

/* How many requests were traced, and the context of the last of them. */
extern uint32_t mock_ps_traced(const MockPs *m, NcTraceContext *last);
extern const char *mock_ps_last_command(const MockPs *m);
extern const char *mock_ps_last_param(const MockPs *m, const char *name);

/* The page of a key on a server, and whether `page` is it, every byte. */
extern void mock_page_fill(uint8_t *page, uint32_t server_id, const NcRelKey *rel, uint32_t block);
extern bool mock_page_is(const uint8_t *page, uint32_t server_id, const NcRelKey *rel,
						 uint32_t block);

#endif							/* MOCK_PS_H */
