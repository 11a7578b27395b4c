/*
 * session.c
 *	  Startup packets, typed messages and the server's answers of the
 *	  PostgreSQL v3 protocol.
 *
 * Runs in the page service and in the WAL feed, the two places where we are the
 * server.  Parsing guarantees that a length from a client is compared with its
 * bound before anything else is done with it, and that every string handed out
 * ends inside its packet.  It never allocates, never reads a socket and knows
 * nothing about what a command means.
 */
#include "nc/wire/session.h"

/* Special values in the place of the protocol version: 1234 in the high half. */
#define CODE_CANCEL 80877102
#define CODE_SSL 80877103
#define CODE_GSSENC 80877104
#define PROTOCOL_MAJOR 3

/* ---- startup packets ---- */

/*
 * Names and values in pairs, an empty name as the end, and nothing behind it.
 * A minor version is not looked at: what 3.1 and later change (the length of a
 * cancel key) is never sent by us.
 */
static NcStartupKind
parse_params(NcReader *r, NcStartup *out)
{
	for (;;)
	{
		const char *name = nc_read_cstring(r);

		if (name == NULL)
			return NC_STARTUP_INVALID;
		if (*name == '\0')
			return nc_reader_left(r) == 0 ? NC_STARTUP_V3 : NC_STARTUP_INVALID;
		if (out->nparams == NC_STARTUP_PARAMS_MAX)
			return NC_STARTUP_INVALID;
		out->params[out->nparams].name = name;
		out->params[out->nparams].value = nc_read_cstring(r);
		if (r->failed)
			return NC_STARTUP_INVALID;
		out->nparams++;
	}
}

/* The packet is complete and its length within bounds. */
static NcStartupKind
parse_packet(NcReader *r, NcStartup *out)
{
	uint32_t	code = nc_read_u32(r);

	switch (code)
	{
		case CODE_CANCEL:
			return NC_STARTUP_CANCEL;
		case CODE_SSL:
			return nc_reader_left(r) == 0 ? NC_STARTUP_SSL : NC_STARTUP_INVALID;
		case CODE_GSSENC:
			return nc_reader_left(r) == 0 ? NC_STARTUP_GSSENC : NC_STARTUP_INVALID;
		default:
			return code >> 16 == PROTOCOL_MAJOR ? parse_params(r, out) : NC_STARTUP_INVALID;
	}
}

void
nc_startup_parse(const uint8_t *data, size_t bytes, NcStartup *out)
{
	NcReader	window = nc_reader(data, bytes);
	NcReader	packet;
	uint32_t	length = nc_read_u32(&window);

	memset(out, 0, sizeof(*out));
	out->kind = NC_STARTUP_INCOMPLETE;
	if (window.failed)
		return;
	if (length < NC_STARTUP_BYTES_MIN || length > NC_STARTUP_BYTES_MAX)
	{
		out->kind = NC_STARTUP_INVALID;
		return;
	}
	if (bytes < length)
		return;
	packet = nc_reader(window.at, length - sizeof(length));
	out->kind = parse_packet(&packet, out);
	out->consumed = length;
	if (out->kind != NC_STARTUP_V3)
		out->nparams = 0;
}

/* A parameter given twice counts as given last, as in the server. */
const char *
nc_startup_param(const NcStartup *s, const char *name)
{
	for (int i = s->nparams; i-- > 0;)
	{
		if (strcmp(s->params[i].name, name) == 0)
			return s->params[i].value;
	}
	return NULL;
}

/* ---- typed messages ---- */

NcFrameResult
nc_frame_parse(const uint8_t *data, size_t bytes, size_t body_max, NcFrame *out)
{
	NcReader	r = nc_reader(data, bytes);
	uint8_t		type = nc_read_u8(&r);
	uint32_t	length = nc_read_u32(&r);

	*out = (NcFrame) {0};
	if (r.failed)
		return NC_FRAME_INCOMPLETE;
	if (length < sizeof(length) || length - sizeof(length) > body_max)
		return NC_FRAME_INVALID;
	out->type = (char) type;
	out->body_bytes = length - sizeof(length);
	out->body = nc_read_bytes(&r, out->body_bytes);
	if (r.failed)
	{
		*out = (NcFrame) {0};
		return NC_FRAME_INCOMPLETE;
	}
	out->consumed = 1 + (size_t) length;
	return NC_FRAME_OK;
}

uint8_t *
nc_frame_begin(NcWriter *w, char type)
{
	nc_write_u8(w, (uint8_t) type);
	return nc_write_space(w, sizeof(uint32_t));
}

void
nc_frame_end(NcWriter *w, uint8_t *length_at)
{
	nc_write_length_at(w, length_at);
}

/* ---- what a server says ---- */

static void
authentication(NcWriter *w, uint32_t kind)
{
	uint8_t    *length_at = nc_frame_begin(w, 'R');

	nc_write_u32(w, kind);
	nc_frame_end(w, length_at);
}

void
nc_session_auth_ok(NcWriter *w)
{
	authentication(w, 0);
}

void
nc_session_auth_cleartext(NcWriter *w)
{
	authentication(w, 3);
}

void
nc_session_parameter_status(NcWriter *w, const char *name, const char *value)
{
	uint8_t    *length_at = nc_frame_begin(w, 'S');

	nc_write_cstring(w, name);
	nc_write_cstring(w, value);
	nc_frame_end(w, length_at);
}

/* Always idle: there are no transactions here. */
void
nc_session_ready(NcWriter *w)
{
	uint8_t    *length_at = nc_frame_begin(w, 'Z');

	nc_write_u8(w, 'I');
	nc_frame_end(w, length_at);
}

void
nc_session_command_complete(NcWriter *w, const char *tag)
{
	uint8_t    *length_at = nc_frame_begin(w, 'C');

	nc_write_cstring(w, tag);
	nc_frame_end(w, length_at);
}

/* Text format and no columns, as walsenders and page servers say it. */
static void
copy_begins(NcWriter *w, char type)
{
	uint8_t    *length_at = nc_frame_begin(w, type);

	nc_write_u8(w, 0);
	nc_write_u16(w, 0);
	nc_frame_end(w, length_at);
}

void
nc_session_copy_both(NcWriter *w)
{
	copy_begins(w, 'W');
}

void
nc_session_copy_out(NcWriter *w)
{
	copy_begins(w, 'H');
}

void
nc_session_copy_done(NcWriter *w)
{
	nc_frame_end(w, nc_frame_begin(w, 'c'));
}

static void
error_field(NcWriter *w, char code, const char *text)
{
	if (text != NULL)
	{
		nc_write_u8(w, (uint8_t) code);
		nc_write_cstring(w, text);
	}
}

void
nc_session_error(NcWriter *w, const char *severity, const char *sqlstate, const char *message,
				 const char *detail, const char *hint)
{
	uint8_t    *length_at = nc_frame_begin(w, 'E');

	error_field(w, 'S', severity);
	error_field(w, 'V', severity);
	error_field(w, 'C', sqlstate);
	error_field(w, 'M', message);
	error_field(w, 'D', detail);
	error_field(w, 'H', hint);
	nc_write_u8(w, 0);
	nc_frame_end(w, length_at);
}

void
nc_session_row_description(NcWriter *w, const NcColumn *cols, int ncols)
{
	uint8_t    *length_at = nc_frame_begin(w, 'T');

	NC_ASSERT(ncols >= 0 && ncols <= INT16_MAX);
	nc_write_u16(w, (uint16_t) ncols);
	for (int i = 0; i < ncols; i++)
	{
		nc_write_cstring(w, cols[i].name);
		nc_write_u32(w, 0);		/* no table */
		nc_write_u16(w, 0);		/* no column of one */
		nc_write_u32(w, cols[i].type_oid);
		nc_write_u16(w, (uint16_t) cols[i].type_len);
		nc_write_u32(w, UINT32_MAX);	/* type modifier -1 */
		nc_write_u16(w, 0);		/* text format */
	}
	nc_frame_end(w, length_at);
}

void
nc_session_data_row(NcWriter *w, int ncols, const char *const *values, const int *lens)
{
	uint8_t    *length_at = nc_frame_begin(w, 'D');

	NC_ASSERT(ncols >= 0 && ncols <= INT16_MAX);
	nc_write_u16(w, (uint16_t) ncols);
	for (int i = 0; i < ncols; i++)
	{
		if (lens[i] < 0)
		{
			nc_write_u32(w, UINT32_MAX);	/* length -1: NULL */
			continue;
		}
		nc_write_u32(w, (uint32_t) lens[i]);
		nc_write_bytes(w, values[i], (size_t) lens[i]);
	}
	nc_frame_end(w, length_at);
}
