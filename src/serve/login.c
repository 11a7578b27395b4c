/*
 * login.c
 *	  From a connected socket to a visitor who may come in: encryption, start-up
 *	  packet, token, greeting.
 *
 * Runs wherever strangers are let in.  What can happen is the table below: in each
 * state of a stranger, each thing he can say has one row, with what is done and the
 * states that may follow; the end of a visitor (GONE) may follow always.  A token
 * is never kept, logged or sent back; what is said of a refused one is why.
 */
#include "serve_int.h"

#include "nc/serve/http.h"

#include <stdio.h>
#include <string.h>

/* Requests for TLS or GSSAPI that one visitor may make. */
#define NEGOTIATIONS_MAX 4

/* The first byte of TLS. */
#define TLS_RECORD 0x16

/* What a stranger has said. */
typedef enum Said
{
	SAID_NOTHING = 0,			/* nothing complete */
	SAID_SSL,
	SAID_GSSENC,
	SAID_STARTUP,
	SAID_NONSENSE,				/* no packet, or a request to cancel, which needs no login */
	SAID_HANDS_SHAKEN,
	SAID_NO_TLS,				/* the handshake has failed */
	SAID_TOKEN,
	SAID_TOO_LONG,
	SAID_HELLO,					/* HTTP: TLS begins */
	SAID_REQUEST,
	SAID_NO_REQUEST,
	SAID_TERMINATE,				/* so ends libpq when it has no password to send */
	SAID_OTHER
} Said;

typedef struct Words
{
	Said		said;
	size_t		consumed;
	NcStartup	startup;
	NcFrame		frame;
	NcHttpRequest http;
	NcTlsFault	fault;
} Words;

static NcRefusal
protocol_violation(const char *message)
{
	return (NcRefusal) {.sqlstate = "08P01",.message = message};
}

/* ---- what was said ---- */

static void
read_startup(NcVisitor *v, Words *words)
{
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&v->channel, &bytes);

	nc_startup_parse(input, bytes, &words->startup);
	words->consumed = words->startup.consumed;
	switch (words->startup.kind)
	{
		case NC_STARTUP_INCOMPLETE:
			words->said = SAID_NOTHING;
			break;
		case NC_STARTUP_SSL:
			words->said = SAID_SSL;
			break;
		case NC_STARTUP_GSSENC:
			words->said = SAID_GSSENC;
			break;
		case NC_STARTUP_V3:
			words->said = SAID_STARTUP;
			break;
		case NC_STARTUP_CANCEL:
		case NC_STARTUP_INVALID:
			words->said = SAID_NONSENSE;
			break;
	}
}

/* What is said stays in the buffer: a request is judged here, and answered by the host. */
static void
read_http(NcVisitor *v, Words *words)
{
	size_t		bytes;
	const uint8_t *input;

	if (nc_visitor_may_begin_tls(v))
	{
		int			first = nc_channel_peek(&v->channel);

		if (first == NC_CHANNEL_NOTHING)
			return;
		words->said = first == NC_CHANNEL_ENDED ? SAID_NONSENSE : SAID_HELLO;
		if (first == NC_CHANNEL_ENDED || first == TLS_RECORD)
			return;
		words->said = nc_channel_receive(&v->channel) < 0 ? SAID_NONSENSE : SAID_NOTHING;
		if (words->said == SAID_NONSENSE)
			return;
	}
	input = nc_channel_input(&v->channel, &bytes);
	switch (nc_http_parse(input, bytes, &words->http))
	{
		case NC_HTTP_INCOMPLETE:
			words->said = SAID_NOTHING;
			break;
		case NC_HTTP_INVALID:
			words->said = SAID_NO_REQUEST;
			break;
		case NC_HTTP_OK:
			words->said = SAID_REQUEST;
			break;
	}
}

static void
read_handshake(NcVisitor *v, Words *words)
{
	int			rc = nc_channel_handshake(&v->channel, &words->fault);

	words->said = rc == 0 ? SAID_NOTHING : rc > 0 ? SAID_HANDS_SHAKEN : SAID_NO_TLS;
}

static void
read_visitor_token(NcVisitor *v, Words *words)
{
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&v->channel, &bytes);

	if (bytes == 0)
		words->said = SAID_NOTHING;
	else if (input[0] == 'X')
		words->said = SAID_TERMINATE;
	else if (input[0] != 'p')
		words->said = SAID_OTHER;
	else
	{
		NcFrameResult result = nc_frame_parse(input, bytes, NC_JWT_BYTES_MAX + 1, &words->frame);

		words->consumed = words->frame.consumed;
		words->said = result == NC_FRAME_OK ? SAID_TOKEN :
			result == NC_FRAME_INVALID ? SAID_TOO_LONG : SAID_NOTHING;
	}
}

/* ---- what is done ---- */

/* Says one letter to a request for encryption; true unless he asked too often. */
static bool
answer_letter(NcVisitor *v, char letter)
{
	NcWriter	w = nc_visitor_writer(v);

	if (++v->negotiations > NEGOTIATIONS_MAX)
		return false;
	nc_write_u8(&w, (uint8_t) letter);
	return nc_visitor_commit(v, &w);
}

static NcVisitorState
refuse_encryption(NcVisitor *v, const Words *words)
{
	return answer_letter(v, 'N') ? NC_VISITOR_STARTUP : NC_VISITOR_GONE;
}

/*
 * Behind a request that is granted nothing may follow in clear text: it would be
 * taken for bytes that came inside TLS.
 */
static NcVisitorState
begin_tls(NcVisitor *v, const Words *words)
{
	NcTlsContext *context = v->door->guard->tls;
	size_t		bytes;

	(void) nc_channel_input(&v->channel, &bytes);
	if (context == NULL || v->channel.tls != NULL)
		return refuse_encryption(v, words);
	if (bytes != words->consumed)
		return NC_VISITOR_GONE;
	if (!nc_channel_start_tls(&v->channel, context))
		return refuse_encryption(v, words);
	return answer_letter(v, 'S') ? NC_VISITOR_HANDSHAKE : NC_VISITOR_GONE;
}

static NcVisitorState
begin_tls_at_once(NcVisitor *v, const Words *words)
{
	NcTlsContext *context = v->door->guard->tls;

	return context != NULL && nc_channel_start_tls(&v->channel, context) ? NC_VISITOR_HANDSHAKE :
		NC_VISITOR_GONE;
}

static NcVisitorState
after_handshake(NcVisitor *v, const Words *words)
{
	return NC_VISITOR_STARTUP;
}

/* Somebody who closes within the handshake has given no reason, and none is logged. */
static NcVisitorState
handshake_failed(NcVisitor *v, const Words *words)
{
	if (words->fault.text[0] != '\0')
		nc_visitor_refused(v, words->fault.text);
	return NC_VISITOR_GONE;
}

static NcVisitorState
refuse_login(NcVisitor *v, const NcRefusal *why)
{
	nc_visitor_refuse(v, why);
	return v->state;
}

static NcVisitorState
welcome(NcVisitor *v, const NcJwt *token)
{
	const NcDoorHost *host = v->door->host;
	const char *const (*parameter)[2] = host->parameters;
	NcRefusal	no = {0};
	NcWriter	w;

	if (host->place != NULL && !host->place(v, &no))
		return refuse_login(v, &no);
	w = nc_visitor_writer(v);
	nc_session_auth_ok(&w);
	for (; (*parameter)[0] != NULL; parameter++)
		nc_session_parameter_status(&w, (*parameter)[0], (*parameter)[1]);
	nc_session_ready(&w);
	if (!nc_visitor_commit(v, &w))
		return NC_VISITOR_GONE;
	v->logged_in = true;
	if (host->opened != NULL)
		host->opened(v, token);
	return NC_VISITOR_OPEN;
}

static NcVisitorState
ask_for_token(NcVisitor *v)
{
	NcWriter	w = nc_visitor_writer(v);

	nc_session_auth_cleartext(&w);
	return nc_visitor_commit(v, &w) ? NC_VISITOR_TOKEN : NC_VISITOR_GONE;
}

static NcVisitorState
judge_startup(NcVisitor *v, const Words *words)
{
	NcDoor	   *door = v->door;
	NcRefusal	no = door->host->tls_wanted;

	if (nc_guard_insists(door->guard, door->settings.require_ssl) && !v->channel.secure)
		return refuse_login(v, &no);
	no = (NcRefusal) {0};
	if (!door->host->startup(v, &words->startup, &no))
		return refuse_login(v, &no);
	return door->guard->asks ? ask_for_token(v) : welcome(v, NULL);
}

static NcVisitorState
judge_token(NcVisitor *v, const Words *words)
{
	NcDoor	   *door = v->door;
	char		text[160];
	NcRefusal	no = {.sqlstate = "28P01",.message = text};
	NcJwt		token;
	const char *wrong = nc_guard_judge(door->guard, words->frame.body, words->frame.body_bytes,
									   door->host->scope, door->settings.tenant_id,
									   door->host->unix_s(), &token);

	if (wrong == NULL)
		return welcome(v, &token);
	snprintf(text, sizeof(text), "the token is refused: %s", wrong);
	return refuse_login(v, &no);
}

static NcVisitorState
token_too_long(NcVisitor *v, const Words *words)
{
	NcRefusal	no = {.sqlstate = "28P01",.message = "the token is refused: it is too long"};

	return refuse_login(v, &no);
}

static NcVisitorState
token_expected(NcVisitor *v, const Words *words)
{
	NcRefusal	no = protocol_violation("a token was expected, as password");

	return refuse_login(v, &no);
}

/* ---- the same by HTTP ---- */

static NcVisitorState
let_in(NcVisitor *v, const NcJwt *token)
{
	v->logged_in = true;
	if (v->door->host->opened != NULL)
		v->door->host->opened(v, token);
	return NC_VISITOR_OPEN;
}

static const char *
judge_bearer(NcVisitor *v, const NcHttpRequest *request, NcJwt *token)
{
	NcDoor	   *door = v->door;
	uint8_t		password[NC_JWT_BYTES_MAX + 1];
	const char *wrong;

	if (request->token == NULL)
		return "there is none";
	if (request->token_bytes > NC_JWT_BYTES_MAX)
		return "it is too long";
	memcpy(password, request->token, request->token_bytes);
	password[request->token_bytes] = '\0';
	wrong = nc_guard_judge(door->guard, password, request->token_bytes + 1, door->host->scope,
						   door->settings.tenant_id, door->host->unix_s(), token);
	explicit_bzero(password, sizeof(password));
	return wrong;
}

static NcVisitorState
judge_request(NcVisitor *v, const Words *words)
{
	NcDoor	   *door = v->door;
	char		text[160];
	NcRefusal	no = {.sqlstate = "401",.message = text};
	NcJwt		token;
	const char *wrong;

	if (nc_guard_insists(door->guard, door->settings.require_ssl) && !v->channel.secure && !v->by_path)
	{
		no = door->host->tls_wanted;
		return refuse_login(v, &no);
	}
	if (!door->guard->asks)
		return let_in(v, NULL);
	wrong = judge_bearer(v, &words->http, &token);
	if (wrong == NULL)
		return let_in(v, &token);
	snprintf(text, sizeof(text), "the token is refused: %s", wrong);
	return refuse_login(v, &no);
}

static NcVisitorState
refuse_request(NcVisitor *v, const Words *words)
{
	static const char *const not_so = "this is not a request that is answered here";
	char		status[12];
	NcRefusal	no = {.sqlstate = status,.message = not_so};

	snprintf(status, sizeof(status), "%d", words->http.status);
	return refuse_login(v, &no);
}

static NcVisitorState
leave_login(NcVisitor *v, const Words *words)
{
	return NC_VISITOR_GONE;
}

/* ---- the table ---- */

#define TO(state) (1u << NC_VISITOR_##state)

typedef struct Transition
{
	NcVisitorState from;
	Said		said;
	NcVisitorState (*act) (NcVisitor *v, const Words *words);
	unsigned	next;			/* besides GONE */
} Transition;

static const Transition transitions[] = {
	{NC_VISITOR_STARTUP, SAID_SSL, begin_tls, TO(STARTUP) | TO(HANDSHAKE)},
	{NC_VISITOR_STARTUP, SAID_GSSENC, refuse_encryption, TO(STARTUP)},
	{NC_VISITOR_STARTUP, SAID_STARTUP, judge_startup, TO(TOKEN) | TO(OPEN) | TO(CLOSING)},
	{NC_VISITOR_STARTUP, SAID_NONSENSE, leave_login, 0},
	{NC_VISITOR_STARTUP, SAID_HELLO, begin_tls_at_once, TO(HANDSHAKE)},
	{NC_VISITOR_STARTUP, SAID_REQUEST, judge_request, TO(OPEN) | TO(CLOSING)},
	{NC_VISITOR_STARTUP, SAID_NO_REQUEST, refuse_request, TO(CLOSING)},
	{NC_VISITOR_HANDSHAKE, SAID_HANDS_SHAKEN, after_handshake, TO(STARTUP)},
	{NC_VISITOR_HANDSHAKE, SAID_NO_TLS, handshake_failed, 0},
	{NC_VISITOR_TOKEN, SAID_TOKEN, judge_token, TO(OPEN) | TO(CLOSING)},
	{NC_VISITOR_TOKEN, SAID_TOO_LONG, token_too_long, TO(CLOSING)},
	{NC_VISITOR_TOKEN, SAID_TERMINATE, leave_login, 0},
	{NC_VISITOR_TOKEN, SAID_OTHER, token_expected, TO(CLOSING)}
};

static const Transition *
find_transition(NcVisitorState from, Said said)
{
	for (size_t i = 0; i < sizeof(transitions) / sizeof(transitions[0]); i++)
	{
		if (transitions[i].from == from && transitions[i].said == said)
			return &transitions[i];
	}
	return NULL;
}

static void
listen_to(NcVisitor *v, Words *words)
{
	*words = (Words) {0};
	if (v->state == NC_VISITOR_STARTUP && v->door->host->pages != NULL)
		read_http(v, words);
	else if (v->state == NC_VISITOR_STARTUP)
		read_startup(v, words);
	else if (v->state == NC_VISITOR_HANDSHAKE)
		read_handshake(v, words);
	else
		read_visitor_token(v, words);
}

NcStep
nc_login_step(NcVisitor *v)
{
	const Transition *t;
	NcVisitorState next;
	Words		words;

	/* also what announces TLS: the handshake begins when that has left */
	if (!nc_visitor_flush(v))
		return NC_STEP_ROOM;
	listen_to(v, &words);
	if (words.said == SAID_NOTHING)
		return NC_STEP_INPUT;
	t = find_transition(v->state, words.said);
	NC_ASSERT(t != NULL);
	next = t->act(v, &words);
	NC_ASSERT(next == NC_VISITOR_GONE || (t->next & 1u << next) != 0);
	nc_channel_take(&v->channel, words.consumed);
	if (words.said == SAID_TOKEN)
		nc_channel_wipe(&v->channel);
	if (next == NC_VISITOR_GONE)
		nc_visitor_leave(v);
	else
		nc_visitor_become(v, next);
	return NC_STEP_MORE;
}
