/*
 * fuzz_response.c
 *	  Any bytes as a pagestream response.
 *
 * What is accepted must encode to exactly the whole input, its page and text
 * must lie inside the input, and it must match the request that it echoes and
 * no request with another id.
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

static NcReqTag
request_tag(NcRespTag tag)
{
	switch (tag)
	{
		case NC_RESP_EXISTS:
			return NC_REQ_EXISTS;
		case NC_RESP_NBLOCKS:
			return NC_REQ_NBLOCKS;
		case NC_RESP_GETPAGE:
		case NC_RESP_ERROR:
			return NC_REQ_GETPAGE;
		case NC_RESP_DBSIZE:
			return NC_REQ_DBSIZE;
		case NC_RESP_SLRU:
			return NC_REQ_SLRU;
	}
	abort();
}

static void
check_pairing(const NcPsResponse *resp, int version)
{
	NcPsRequest req = {
		.tag = request_tag(resp->tag), .reqid = resp->reqid, .request_lsn = resp->request_lsn,
		.not_modified_since = resp->not_modified_since, .rel = resp->rel, .block = resp->block,
		.db = resp->db, .slru_kind = resp->slru_kind, .slru_segno = resp->slru_segno
	};

	check(nc_ps_response_mismatch(resp, &req, version) == NULL);
	req.reqid++;
	check((nc_ps_response_mismatch(resp, &req, version) != NULL) == (version == 3));
}

static void
check_inside(const NcPsResponse *resp, const uint8_t *data, size_t size)
{
	size_t		bytes = resp->tag == NC_RESP_SLRU ? (size_t) resp->nblocks * NC_PAGE_BYTES :
		NC_PAGE_BYTES;

	if (resp->page != NULL)
		check(resp->page >= data && resp->page + bytes == data + size);
	if (resp->message != NULL)
		check((const uint8_t *) resp->message + resp->message_bytes + 1 == data + size);
}

static void
check_encoding(const NcPsResponse *resp, int version, const uint8_t *data, size_t size)
{
	uint8_t    *again = malloc(size);
	NcWriter	w = nc_writer(again, size);

	check(nc_ps_response_encode(&w, version, resp));
	check(nc_writer_bytes(&w) == size);
	check(memcmp(again, data, size) == 0);
	free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int version = 2; version <= 3; version++)
	{
		NcPsResponse resp;

		if (!nc_ps_response_decode(data, size, version, &resp))
			continue;
		check_inside(&resp, data, size);
		check_encoding(&resp, version, data, size);
		check_pairing(&resp, version);
	}
	return 0;
}
