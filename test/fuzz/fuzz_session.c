/*
 * fuzz_session.c
 *	  Any bytes as a startup packet, as a row of typed messages, and as the
 *	  texts of an error that a server sends.
 *
 * Checked: nothing outside the window is handed out, progress is made with
 * every frame, and what we build can be parsed.
 */
#include "nc/wire/session.h"

#include <stdlib.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

static void
check_text(const char *text, const uint8_t *data, size_t consumed)
{
	check((const uint8_t *) text >= data);
	check((const uint8_t *) text + strlen(text) < data + consumed);
}

static void
startup(const uint8_t *data, size_t size)
{
	NcStartup	s;

	nc_startup_parse(data, size, &s);
	check(s.consumed <= size && s.consumed <= NC_STARTUP_BYTES_MAX);
	check(s.nparams >= 0 && s.nparams <= NC_STARTUP_PARAMS_MAX);
	check(s.kind == NC_STARTUP_V3 || s.nparams == 0);
	check(s.kind == NC_STARTUP_INCOMPLETE || s.kind == NC_STARTUP_INVALID || s.consumed >= 8);
	for (int i = 0; i < s.nparams; i++)
	{
		check_text(s.params[i].name, data, s.consumed);
		check_text(s.params[i].value, data, s.consumed);
		check(nc_startup_param(&s, s.params[i].name) != NULL);
	}
}

static void
frames(const uint8_t *data, size_t size, size_t body_max)
{
	NcFrame		f;

	while (nc_frame_parse(data, size, body_max, &f) == NC_FRAME_OK)
	{
		check(f.body == data + 5 && f.body_bytes <= body_max);
		check(f.consumed == 5 + f.body_bytes && f.consumed <= size);
		data += f.consumed;
		size -= f.consumed;
	}
	check(f.body == NULL && f.consumed == 0);
}

/* The first byte is how much room there is; the rest is the text. */
static void
builders(const uint8_t *data, size_t size)
{
	size_t		room = (size_t) data[0] * 8;
	uint8_t    *out = malloc(room + 1);
	char	   *text = strndup((const char *) data + 1, size - 1);
	NcWriter	w = nc_writer(out, room);
	NcFrame		f;

	nc_session_error(&w, "ERROR", "XX000", text, text, size % 2 ? text : NULL);
	check(nc_writer_bytes(&w) <= room);
	if (!w.failed)
	{
		check(nc_frame_parse(out, nc_writer_bytes(&w), room, &f) == NC_FRAME_OK);
		check(f.type == 'E' && f.consumed == nc_writer_bytes(&w));
	}
	free(text);
	free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	startup(data, size);
	frames(data, size, NC_CLIENT_MESSAGE_BYTES_MAX);
	frames(data, size, 16);
	if (size > 0)
		builders(data, size);
	return 0;
}
