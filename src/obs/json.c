/*
 * json.c
 *	  See nc/obs/json.h.
 */
#include "nc/obs/json.h"

#include <inttypes.h>
#include <stdio.h>

static void
put(NcJsonWriter *j, const char *text)
{
	nc_write_bytes(j->w, text, strlen(text));
}

static void
put_string(NcJsonWriter *j, const char *text)
{
	put(j, "\"");
	for (; *text != '\0'; text++)
	{
		unsigned char c = (unsigned char) *text;
		char		escaped[8];

		if (c == '"' || c == '\\')
			snprintf(escaped, sizeof(escaped), "\\%c", c);
		else if (c < ' ')
			snprintf(escaped, sizeof(escaped), "\\u%04x", c);
		else
			snprintf(escaped, sizeof(escaped), "%c", c >= 0x7f ? '?' : c);
		put(j, escaped);
	}
	put(j, "\"");
}

static void
begin_value(NcJsonWriter *j, const char *name)
{
	if (j->comma)
		put(j, ",");
	j->comma = true;
	if (name != NULL)
	{
		put_string(j, name);
		put(j, ":");
	}
}

void
nc_json_open(NcJsonWriter *j, const char *name, char bracket)
{
	begin_value(j, name);
	nc_write_u8(j->w, (uint8_t) bracket);
	j->comma = false;
}

void
nc_json_close(NcJsonWriter *j, char bracket)
{
	nc_write_u8(j->w, (uint8_t) bracket);
	j->comma = true;
}

void
nc_json_text(NcJsonWriter *j, const char *name, const char *text)
{
	begin_value(j, name);
	put_string(j, text);
}

void
nc_json_number(NcJsonWriter *j, const char *name, uint64_t value)
{
	char		text[32];

	begin_value(j, name);
	snprintf(text, sizeof(text), "%" PRIu64, value);
	put(j, text);
}

void
nc_json_bool(NcJsonWriter *j, const char *name, bool value)
{
	begin_value(j, name);
	put(j, value ? "true" : "false");
}

void
nc_json_us(NcJsonWriter *j, const char *name, uint64_t us)
{
	char		text[32];

	begin_value(j, name);
	snprintf(text, sizeof(text), "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
	put(j, text);
}
