/*
 * fuzz_http.c
 *	  Any bytes as a request by HTTP.
 *
 * Checked: what is told of a request lies in its head, which ends where it says; a
 * head is judged alike whatever comes behind it, and not before it is there, unless
 * it cannot be one; every answer is whole.
 */
#include "nc/serve/http.h"

#include <stdlib.h>
#include <string.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

static int
write_page(NcWriter *w, bool openmetrics)
{
	nc_write_bytes(w, "x", 1);
	return openmetrics ? 200 : 503;
}

static const NcHttpPage pages[] = {{"/metrics", true, write_page}, {"/", false, write_page}, {NULL, false, NULL}};

static bool
is_inside(const char *text, size_t bytes, const uint8_t *data, size_t size)
{
	return text == NULL || ((const uint8_t *) text >= data && (const uint8_t *) text + bytes <= data + size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	NcHttpRequest request;
	NcHttpRequest again;
	NcHttpResult result = nc_http_parse(data, size, &request);
	char		text[2000];
	NcWriter	w = nc_writer(text, sizeof(text));

	check(request.consumed <= size && request.consumed <= NC_HTTP_HEAD_MAX);
	check((result == NC_HTTP_INVALID) == (request.status != 0));
	check(result != NC_HTTP_INCOMPLETE || size < NC_HTTP_HEAD_MAX);
	if (request.consumed > 0)
	{
		check(memcmp(data + request.consumed - 4, "\r\n\r\n", 4) == 0);
		check(nc_http_parse(data, request.consumed, &again) == result);
		check(again.status == request.status && again.token_bytes == request.token_bytes);
		check(nc_http_parse(data, request.consumed - 1, &again) == NC_HTTP_INCOMPLETE);
	}
	if (result != NC_HTTP_OK)
		return 0;
	check(is_inside(request.path, request.path_bytes, data, request.consumed) && request.path[0] == '/');
	check(is_inside(request.token, request.token_bytes, data, request.consumed));
	nc_http_answer(&w, &request, pages);
	check(!w.failed && memmem(text, nc_writer_bytes(&w), "\r\n\r\n", 4) != NULL);
	return 0;
}
