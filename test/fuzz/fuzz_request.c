/*
 * fuzz_request.c
 *	  Any bytes as a pagestream request.
 *
 * What is accepted must encode to the very bytes that were read; what follows
 * them was ignored, as promised to old and new clients.
 */
#include "nc/wire/pagestream.h"

#include <stdlib.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int version = 2; version <= 3; version++)
	{
		uint8_t		again[NC_REQUEST_BYTES_MAX];
		NcWriter	w = nc_writer(again, sizeof(again));
		NcPsRequest req;
		NcPsRequest again_req;

		if (!nc_ps_request_decode(data, size, version, &req))
			continue;
		check(nc_ps_request_encode(&w, version, &req));
		check(nc_writer_bytes(&w) <= size);
		check(memcmp(again, data, nc_writer_bytes(&w)) == 0);
		/* A request cut by one byte is no request, or one that is not traced. */
		check(nc_ps_request_decode(data, nc_writer_bytes(&w) - 1, version, &again_req) == (req.trace != NULL));
		check(req.trace == NULL || again_req.trace == NULL);
	}
	return 0;
}
