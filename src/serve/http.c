/*
 * http.c
 *	  Requests for a page taken apart, and their answers.
 *
 * Runs wherever strangers ask by HTTP, on bytes of anybody who can connect.
 * Guarantees that nothing is read outside of the head and that work is bounded by
 * its length.  Whatever is doubtful is refused: a line that does not end as it
 * should, a folded one, a header without a name, a body, a second token.
 */
#include "nc/serve/http.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- texts ---- */

typedef struct Text
{
	const char *at;
	size_t		bytes;
} Text;

static bool
text_is(Text text, const char *word)
{
	return text.bytes == strlen(word) && strncasecmp(text.at, word, text.bytes) == 0;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static Text
trimmed(Text text)
{
	while (text.bytes > 0 && is_blank(text.at[0]))
	{
		text.at++;
		text.bytes--;
	}
	while (text.bytes > 0 && is_blank(text.at[text.bytes - 1]))
		text.bytes--;
	return text;
}

/* Cuts off what comes before the next `end`, or all of it; false when nothing is left. */
static bool
cut_off(Text *from, char end, Text *out)
{
	const char *found;

	if (from->bytes == 0)
		return false;
	found = memchr(from->at, end, from->bytes);
	*out = (Text) {from->at, found == NULL ? from->bytes : (size_t) (found - from->at)};
	from->at += out->bytes + (found != NULL);
	from->bytes -= out->bytes + (found != NULL);
	*out = trimmed(*out);
	return true;
}

/* ---- which format ---- */

/* "q=0.5" in thousandths; what is none counts as 0. */
static int
quality(Text parameters)
{
	Text		p;

	while (cut_off(&parameters, ';', &p))
	{
		int			value;

		if (p.bytes < 3 || strncasecmp(p.at, "q=", 2) != 0)
			continue;
		value = p.at[2] == '1' ? 1000 : 0;
		for (size_t i = 4, unit = 100; i < p.bytes && p.at[3] == '.' && value < 1000; i++, unit /= 10)
			value += p.at[i] >= '0' && p.at[i] <= '9' ? (int) unit * (p.at[i] - '0') : 0;
		return value;
	}
	return 1000;
}

/* Is OpenMetrics asked for, and not less than plain text? */
static bool
wants_openmetrics(Text accept)
{
	int			open = 0;
	int			plain = 0;
	Text		item;

	while (cut_off(&accept, ',', &item))
	{
		Text		type;
		int			q;

		if (!cut_off(&item, ';', &type))
			continue;
		q = quality(item);
		if (text_is(type, "application/openmetrics-text") && q > open)
			open = q;
		else if (text_is(type, "text/plain") && q > plain)
			plain = q;
	}
	return open > 0 && open >= plain;
}

/* ---- the head ---- */

static NcHttpResult
invalid(NcHttpRequest *out, int status)
{
	out->status = status;
	return NC_HTTP_INVALID;
}

/* Up to CR LF, which must not be torn; other control characters but a tab are refused. */
static bool
take_line(Text *head, Text *line)
{
	const char *nl = memchr(head->at, '\n', head->bytes);

	if (nl == NULL || nl == head->at || nl[-1] != '\r')
		return false;
	*line = (Text) {head->at, (size_t) (nl - head->at) - 1};
	head->bytes -= (size_t) (nl + 1 - head->at);
	head->at = nl + 1;
	for (size_t i = 0; i < line->bytes; i++)
	{
		if (((unsigned char) line->at[i] < ' ' && line->at[i] != '\t') || line->at[i] == 0x7f)
			return false;
	}
	return true;
}

/* 0, or the status of a refusal. */
static int
take_request_line(Text line, NcHttpRequest *out)
{
	const char *space = memchr(line.at, ' ', line.bytes);
	const char *end = line.at + line.bytes;
	Text		method;
	Text		target;
	const char *query;

	if (space == NULL)
		return 400;
	method = (Text) {line.at, (size_t) (space - line.at)};
	target.at = space + 1;
	space = memchr(target.at, ' ', (size_t) (end - target.at));
	if (space == NULL || *target.at != '/')
		return 400;
	target.bytes = (size_t) (space - target.at);
	if (end - space != 9 || memcmp(space + 1, "HTTP/1.", 7) != 0)
		return end - space > 5 && memcmp(space + 1, "HTTP/", 5) == 0 ? 505 : 400;
	if (space[8] < '0' || space[8] > '9')
		return 400;
	out->head_only = method.bytes == 4 && memcmp(method.at, "HEAD", 4) == 0;
	if (!out->head_only && !(method.bytes == 3 && memcmp(method.at, "GET", 3) == 0))
		return 405;
	query = memchr(target.at, '?', target.bytes);
	out->path = target.at;
	out->path_bytes = query != NULL ? (size_t) (query - target.at) : target.bytes;
	return 0;
}

static bool
is_token_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		(c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static int
take_authorization(Text value, NcHttpRequest *out)
{
	Text		scheme;

	if (out->token != NULL)
		return 400;
	if (!cut_off(&value, ' ', &scheme) || !text_is(scheme, "Bearer"))
		return 401;
	value = trimmed(value);
	out->token = value.at;
	out->token_bytes = value.bytes;
	return 0;
}

static int
take_header(Text line, NcHttpRequest *out)
{
	const char *colon = memchr(line.at, ':', line.bytes);
	Text		name;
	Text		value;

	if (colon == NULL || colon == line.at)
		return 400;
	name = (Text) {line.at, (size_t) (colon - line.at)};
	for (size_t i = 0; i < name.bytes; i++)
	{
		if (!is_token_character(name.at[i]))
			return 400;
	}
	value = trimmed((Text) {colon + 1, line.bytes - name.bytes - 1});
	if (text_is(name, "Authorization"))
		return take_authorization(value, out);
	if (text_is(name, "Accept"))
		out->openmetrics = out->openmetrics || wants_openmetrics(value);
	else if (text_is(name, "Transfer-Encoding") ||
			 (text_is(name, "Content-Length") && !text_is(value, "0")))
		return 400;
	return 0;
}

NcHttpResult
nc_http_parse(const uint8_t *input, size_t bytes, NcHttpRequest *out)
{
	const uint8_t *end;
	Text		head;
	Text		line;
	int			status;

	*out = (NcHttpRequest) {0};
	if (bytes == 0)
		return NC_HTTP_INCOMPLETE;
	/* whoever speaks something else is not kept waiting */
	if (input[0] < 'A' || input[0] > 'Z')
		return invalid(out, 400);
	end = memmem(input, bytes < NC_HTTP_HEAD_MAX ? bytes : NC_HTTP_HEAD_MAX, "\r\n\r\n", 4);
	if (end == NULL)
		return bytes < NC_HTTP_HEAD_MAX ? NC_HTTP_INCOMPLETE : invalid(out, 431);
	out->consumed = (size_t) (end - input) + 4;
	head = (Text) {(const char *) input, out->consumed - 2};
	if (!take_line(&head, &line))
		return invalid(out, 400);
	status = take_request_line(line, out);
	while (status == 0 && head.bytes > 0)
		status = take_line(&head, &line) ? take_header(line, out) : 400;
	return status == 0 ? NC_HTTP_OK : invalid(out, status);
}

/* ---- answers ---- */

#define TEXT_TYPE "text/plain; charset=utf-8"
#define PLAIN_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define OPEN_METRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define JSON_TYPE "application/json"

/* Digits of a status and of a length, filled in when the body is there. */
#define STATUS_DIGITS 3
#define LENGTH_DIGITS 10

typedef struct Head
{
	uint8_t    *status;
	uint8_t    *length;
	uint8_t    *body;
} Head;

static void
write_text(NcWriter *w, const char *text)
{
	nc_write_bytes(w, text, strlen(text));
}

static void
put_digits(uint8_t *at, int digits, size_t value)
{
	for (; digits > 0; digits--, value /= 10)
		at[digits - 1] = (uint8_t) ('0' + value % 10);
}

static Head
begin_answer(NcWriter *w, const char *type, const char *header)
{
	Head		head;

	write_text(w, "HTTP/1.1 ");
	head.status = nc_write_space(w, STATUS_DIGITS);
	write_text(w, " \r\nConnection: close\r\nCache-Control: no-store\r\n"
			   "X-Content-Type-Options: nosniff\r\n");
	write_text(w, header);
	write_text(w, "Content-Type: ");
	write_text(w, type);
	write_text(w, "\r\nContent-Length: ");
	head.length = nc_write_space(w, LENGTH_DIGITS);
	write_text(w, "\r\n\r\n");
	head.body = w->at;
	return head;
}

static void
end_answer(NcWriter *w, const Head *head, int status, bool head_only)
{
	if (w->failed)
		return;
	put_digits(head->status, STATUS_DIGITS, (size_t) status);
	put_digits(head->length, LENGTH_DIGITS, (size_t) (w->at - head->body));
	if (head_only)
		w->at = head->body;
}

static void
answer_line(NcWriter *w, int status, const char *text, bool head_only)
{
	const char *header = status == 401 ? "WWW-Authenticate: Bearer\r\n" :
		status == 405 ? "Allow: GET, HEAD\r\n" : "";
	Head		head = begin_answer(w, TEXT_TYPE, header);

	write_text(w, text);
	write_text(w, "\n");
	end_answer(w, &head, status, head_only);
}

void
nc_http_answer_text(NcWriter *w, int status, const char *text)
{
	answer_line(w, status, text, false);
}

static void
answer_page(NcWriter *w, const NcHttpRequest *request, const NcHttpPage *page)
{
	NcWriter	before = *w;
	const char *type = !page->metrics ? JSON_TYPE : request->openmetrics ? OPEN_METRICS_TYPE :
		PLAIN_METRICS_TYPE;
	Head		head = begin_answer(w, type, "Vary: Accept\r\n");
	int			status = page->write(w, request->openmetrics);

	end_answer(w, &head, status, request->head_only);
	if (!w->failed)
		return;
	*w = before;
	answer_line(w, 500, "the answer would be longer than this server lets it be", request->head_only);
}

void
nc_http_answer(NcWriter *w, const NcHttpRequest *request, const NcHttpPage *pages)
{
	for (; pages->path != NULL; pages++)
	{
		if (request->path_bytes == strlen(pages->path) &&
			memcmp(request->path, pages->path, request->path_bytes) == 0)
		{
			answer_page(w, request, pages);
			return;
		}
	}
	answer_line(w, 404, "no such page", request->head_only);
}

NcStep
nc_http_message(NcVisitor *v)
{
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&v->channel, &bytes);
	NcWriter	w = nc_visitor_writer(v);
	NcHttpRequest request;

	/* he is in because his request was judged, and it is still there */
	if (nc_http_parse(input, bytes, &request) == NC_HTTP_OK)
		nc_http_answer(&w, &request, v->door->host->pages);
	nc_channel_take(&v->channel, bytes);
	nc_channel_wipe(&v->channel);
	if (nc_visitor_commit(v, &w))
		nc_visitor_close(v);
	return NC_STEP_MORE;
}
