/*
 * nc/trace/outlet.h
 *	  Where batches of spans go: a file that is rotated by size, and a collector on
 *	  this machine that is sent them by HTTP.
 *
 * One process uses them, and nothing here waits: a file is written, a post goes on by
 * turns, whenever its socket is ready or its time is over.
 */
#ifndef NC_TRACE_OUTLET_H
#define NC_TRACE_OUTLET_H

#include <stddef.h>
#include <stdint.h>

#include "nc/base/check.h"

/*
 * Appends one line (newline included) to the file `path`.  If it were longer than limit_bytes
 * then, it first gets the name path.1, which is replaced.  False and errno on failure.
 */
NC_MUST_USE extern bool nc_trace_file_append(const char *path, uint64_t limit_bytes, const void *line,
											 size_t bytes);

#define NC_TRACE_HOST_BYTES 64
#define NC_TRACE_PATH_BYTES 256

typedef struct NcTraceUrl
{
	char		host[NC_TRACE_HOST_BYTES];	/* 127.0.0.1, ::1 */
	char		path[NC_TRACE_PATH_BYTES];
	int			port;
} NcTraceUrl;

/*
 * http://HOST[:PORT][/PATH], HOST a loopback address or localhost; 4318 and /v1/traces without.
 * NULL when it is one, else a static text that says why not.
 */
NC_MUST_USE extern const char *nc_trace_url_parse(const char *text, NcTraceUrl *url);

/* A post that takes longer has failed. */
#define NC_TRACE_POST_US 5000000

typedef enum NcTracePostState
{
	NC_TRACE_POST_IDLE = 0,		/* one may begin */
	NC_TRACE_POST_CONNECTING,
	NC_TRACE_POST_SENDING,
	NC_TRACE_POST_RECEIVING
} NcTracePostState;

typedef struct NcTracePost
{
	NcTracePostState state;
	int			fd;				/* while not IDLE */
	uint64_t	until_us;
	const char *body;			/* the caller's, until IDLE again */
	size_t		body_bytes;
	char		head[NC_TRACE_HOST_BYTES + NC_TRACE_PATH_BYTES + 256];
	size_t		head_bytes;
	size_t		sent;			/* of both */
	char		answer[512];
	size_t		answer_bytes;
	char		error[160];		/* of the last post, empty when it went well */
} NcTracePost;

/* All zero is one that has not begun.  False, with `error`: it has failed already. */
NC_MUST_USE extern bool nc_trace_post_begin(NcTracePost *p, const NcTraceUrl *url, const char *body,
											size_t bytes, uint64_t now_us);

/* Goes on as far as it can. True: it has ended just now, `error` says how. */
extern bool nc_trace_post_turn(NcTracePost *p, uint64_t now_us);

/* Gives it up. */
extern void nc_trace_post_end(NcTracePost *p);

#endif							/* NC_TRACE_OUTLET_H */
