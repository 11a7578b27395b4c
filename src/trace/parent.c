/*
 * parent.c
 *	  See nc/trace/parent.h.
 */
#include "nc/trace/parent.h"

#include <stddef.h>

#define VALUE_DIGITS 55			/* 2 + 1 + 32 + 1 + 16 + 1 + 2 */

/* Lower case only, as the standard has it. */
static int
digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
read_hex(const char *text, uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		int			high = digit(text[2 * i]);
		int			low = high < 0 ? -1 : digit(text[2 * i + 1]);

		if (low < 0)
			return false;
		bytes[i] = (uint8_t) (high << 4 | low);
	}
	return true;
}

/* `bytes` are those up to the end of the comment. */
static bool
parse_value(const char *text, size_t bytes, NcTraceContext *parent, bool *sampled)
{
	uint8_t		version;
	uint8_t		flags;

	/* a later version may go on behind the flags, with a dash */
	if (bytes < VALUE_DIGITS || text[2] != '-' || text[35] != '-' || text[52] != '-' ||
		!read_hex(text, &version, 1) || !read_hex(text + 3, parent->trace_id, NC_TRACE_ID_BYTES) ||
		!read_hex(text + 36, parent->span_id, NC_SPAN_ID_BYTES) || !read_hex(text + 53, &flags, 1))
		return false;
	if (version == 0xff || (bytes > VALUE_DIGITS && text[VALUE_DIGITS] != '\'' &&
							(version == 0 || text[VALUE_DIGITS] != '-')))
		return false;
	*sampled = (flags & 1) != 0;
	return nc_trace_context_valid(parent);
}

static const char *
skip_blanks(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t'))
		at++;
	return at;
}

static bool
find_in_comment(const char *comment, const char *end, NcTraceContext *parent, bool *sampled)
{
	static const char name[] = "traceparent";

	for (const char *at = comment; at + sizeof(name) - 1 <= end; at++)
	{
		const char *value;

		if (memcmp(at, name, sizeof(name) - 1) != 0)
			continue;
		value = skip_blanks(at + sizeof(name) - 1, end);
		if (value == end || *value != '=')
			continue;
		value = skip_blanks(value + 1, end);
		if (value < end && *value == '\'' &&
			parse_value(value + 1, (size_t) (end - value - 1), parent, sampled))
			return true;
	}
	return false;
}

bool
nc_trace_parent_find(const char *statement, NcTraceContext *parent, bool *sampled)
{
	const char *at = statement;

	while ((at = strstr(at, "/*")) != NULL)
	{
		const char *end = strstr(at + 2, "*/");

		if (end == NULL)
			return false;
		if (find_in_comment(at + 2, end, parent, sampled))
			return true;
		at = end + 2;
	}
	return false;
}
