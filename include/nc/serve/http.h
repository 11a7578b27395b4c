/*
 * nc/serve/http.h
 *	  HTTP at a door: one request for a page, its answer, the end.
 *
 * As much of HTTP/1.1 as who looks at a server needs: GET and HEAD, no body, one
 * request to a connection (the answer says so).  The head of a request is looked at
 * as a whole, when it is there, and has a bound.  A token comes as "Authorization:
 * Bearer ...".  TLS begins with the first byte.
 */
#ifndef NC_SERVE_HTTP_H
#define NC_SERVE_HTTP_H

#include "nc/serve/door.h"

/* The longest head, from the request line to the empty line; a token of any length fits. */
#define NC_HTTP_HEAD_MAX 8192

typedef enum NcHttpResult
{
	NC_HTTP_INCOMPLETE,
	NC_HTTP_INVALID,			/* status says how it is refused */
	NC_HTTP_OK
} NcHttpResult;

/* Texts point into the head. */
typedef struct NcHttpRequest
{
	int			status;			/* INVALID */
	bool		head_only;		/* HEAD */
	bool		openmetrics;	/* rather than plain text */
	const char *path;			/* without its query */
	size_t		path_bytes;
	const char *token;			/* NULL = none */
	size_t		token_bytes;
	size_t		consumed;
} NcHttpRequest;

extern NcHttpResult nc_http_parse(const uint8_t *input, size_t bytes, NcHttpRequest *out);

/* A page of a host. */
struct NcHttpPage
{
	const char *path;
	bool		metrics;		/* in one of the two formats of metrics; else JSON */

	/* Writes its body; its status. */
	int			(*write) (NcWriter *w, bool openmetrics);
};

/* The answer to a request for one of the pages; the last one has no path. */
extern void nc_http_answer(NcWriter *w, const NcHttpRequest *request, const NcHttpPage *pages);

/* The same with a line of text. */
extern void nc_http_answer_text(NcWriter *w, int status, const char *text);

/* message() of a host that has pages. */
extern NcStep nc_http_message(NcVisitor *v);

#endif							/* NC_SERVE_HTTP_H */
