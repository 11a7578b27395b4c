/*
 * login.c
 *	  The beginning of a session: TLS, start-up packet, token, greeting.
 *
 * Runs in page service workers.  Until a session has got through here its client
 * is nobody: it can make us hold its buffers for authentication_timeout, as one of
 * NC_SVC_LOGINS_MAX, and nothing else.  A token is never kept, logged or sent
 * back; what is said of a refused one is why.
 */
#include "page_service.h"

#include <time.h>

#include "miscadmin.h"
#include "utils/timestamp.h"

/* Requests for TLS or GSSAPI that one connection may make in clear text. */
#define NEGOTIATIONS_MAX 4

/* Refusals are logged at most this often. */
#define LOG_INTERVAL_MS 1000

NcGuard		nc_svc_guard;

/* ---- certificate and keys ---- */

/* What of it could be loaded is in use; false with the first reason why not all, others are logged. */
static bool
load(NcGuard *into, const char *auth_key_file, char why[NC_GUARD_REASON_BYTES])
{
	char		reasons[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];
	int			n = nc_guard_take(into, nc_svc_ssl_cert_file, nc_svc_ssl_key_file, auth_key_file,
								  reasons);

	for (int i = 1; i < n; i++)
		ereport(LOG, (errmsg("page service: %s", reasons[i])));
	if (n > 0)
		strlcpy(why, reasons[0], NC_GUARD_REASON_BYTES);
	return n == 0;
}

void
nc_svc_guard_check_files(void)
{
	NcGuard		guard = {0};
	char		err[NC_GUARD_REASON_BYTES];

	if (!load(&guard, nc_svc_auth_public_key_file, err))
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the page service cannot start: %s", err),
				 errhint("See neon_page_service.ssl_cert_file, neon_page_service.ssl_key_file and "
						 "neon_page_service.auth_public_key_file.")));
	nc_guard_clear(&guard);
}

void
nc_svc_guard_load(bool again)
{
	const char *key_file = nc_svc_auth_public_key_file;
	char		err[NC_GUARD_REASON_BYTES];

	if (key_file[0] == '\0' && nc_svc_guard.asks && !nc_svc_allow_unauthenticated &&
		!nc_svc_listener_is_loopback(nc_svc_listen_addresses))
	{
		ereport(LOG, (errmsg("page service: neon_page_service.auth_public_key_file was emptied, but "
							 "other hosts can connect: the keys loaded before stay in force")));
		if (!nc_guard_take_certificate(&nc_svc_guard, nc_svc_ssl_cert_file, nc_svc_ssl_key_file, err,
									   sizeof(err)))
			ereport(LOG, (errmsg("page service: %s: what was loaded before stays in use", err)));
	}
	else if (!load(&nc_svc_guard, key_file, err))
		ereport(LOG, (errmsg("page service: %s%s", err,
							 again ? ": what was loaded before stays in use" : "")));
}

/* ---- refusals ---- */

void
nc_svc_login_refused(NcSvcSession *s, TimestampTz now, const char *reason)
{
	static TimestampTz next_log = 0;
	static int	silent = 0;

	nc_svc_count(&nc_svc_self()->refused);
	if (now < next_log)
	{
		silent++;
		return;
	}
	ereport(LOG,
			(errmsg("page service refused %s: %s", s->address, reason),
			 silent > 0 ? errdetail_internal("%d others were refused since the last such message.",
											 silent) : 0));
	silent = 0;
	next_log = TimestampTzPlusMilliseconds(now, LOG_INTERVAL_MS);
}

static void
refuse(NcSvcSession *s, TimestampTz now, const char *sqlstate, const char *message)
{
	nc_svc_login_refused(s, now, message);
	nc_svc_session_end(s, "FATAL", sqlstate, message);
}

/* ---- start-up packets ---- */

static void
welcome(NcSvcSession *s)
{
	NcWriter	w = nc_svc_session_writer(s);

	nc_session_auth_ok(&w);
	nc_session_parameter_status(&w, "client_encoding", "UTF8");
	nc_session_parameter_status(&w, "integer_datetimes", "on");
	nc_session_parameter_status(&w, "server_version", PG_VERSION);
	nc_session_ready(&w);
	nc_svc_session_commit(s, &w);
	s->state = NC_SVC_SESSION_QUERY;
	s->logged_in = true;
}

static void
ask_for_token(NcSvcSession *s)
{
	NcWriter	w = nc_svc_session_writer(s);

	nc_session_auth_cleartext(&w);
	nc_svc_session_commit(s, &w);
	s->state = NC_SVC_SESSION_PASSWORD;
}

/*
 * Answers SSLRequest and GSSENCRequest.  Behind a request that is granted nothing
 * may follow in clear text: it would be taken for bytes that came inside TLS.
 */
static void
negotiate(NcSvcSession *s, const NcStartup *packet)
{
	NcWriter	w = nc_svc_session_writer(s);
	bool		yes = packet->kind == NC_STARTUP_SSL && nc_svc_guard.tls != NULL && s->tls == NULL;

	if (++s->negotiations > NEGOTIATIONS_MAX ||
		(yes && s->in_end - s->in_start != packet->consumed))
	{
		s->state = NC_SVC_SESSION_CLOSING;
		return;
	}
	if (yes)
		s->tls = nc_tls_start(nc_svc_guard.tls, s->fd);
	nc_write_u8(&w, s->tls != NULL && yes ? 'S' : 'N');
	nc_svc_session_commit(s, &w);
	if (s->tls != NULL && yes)
		s->state = NC_SVC_SESSION_TLS;
}

static void
begin(NcSvcSession *s, TimestampTz now)
{
	if (s->surplus == NC_SVC_SURPLUS_TOTAL)
		refuse(s, now, "53300", "too many connections to the page service: "
			   "neon_page_service.max_connections is reached");
	else if (s->surplus == NC_SVC_SURPLUS_CLIENT)
		refuse(s, now, "53300", "too many connections from one client: "
			   "neon_page_service.max_connections_per_client is reached");
	else if (nc_svc_require_ssl && nc_svc_ssl_cert_file[0] != '\0' && s->tls == NULL)
		refuse(s, now, "28000", "must connect with TLS: set sslmode=verify-full (or turn "
			   "neon_page_service.require_ssl off)");
	else if (nc_svc_guard.asks)
		ask_for_token(s);
	else
		welcome(s);
}

bool
nc_svc_login_startup(NcSvcSession *s, TimestampTz now)
{
	NcStartup	packet;

	nc_startup_parse(s->in + s->in_start, s->in_end - s->in_start, &packet);
	if (packet.kind == NC_STARTUP_INCOMPLETE)
		return false;
	switch (packet.kind)
	{
		case NC_STARTUP_SSL:
		case NC_STARTUP_GSSENC:
			negotiate(s, &packet);
			break;
		case NC_STARTUP_V3:
			begin(s, now);
			break;
		default:
			s->state = NC_SVC_SESSION_CLOSING;
			break;
	}
	s->in_start += packet.consumed;
	return true;
}

/* ---- the token ---- */

static void
judge(NcSvcSession *s, TimestampTz now, const NcFrame *frame)
{
	char		text[160];
	NcJwt		jwt;
	const char *wrong = nc_guard_judge(&nc_svc_guard, frame->body, frame->body_bytes, NC_SCOPE_PAGE_SERVER,
									   nc_svc_tenant_id, (uint64_t) time(NULL), &jwt);

	if (wrong != NULL)
	{
		snprintf(text, sizeof(text), "the token is refused: %s", wrong);
		refuse(s, now, "28P01", text);
		return;
	}
	if (jwt.scope == NC_SCOPE_TENANT)
		strlcpy(s->token_tenant, jwt.tenant_id, sizeof(s->token_tenant));
	welcome(s);
}

bool
nc_svc_login_password(NcSvcSession *s, TimestampTz now)
{
	NcFrame		frame;

	if (s->in_start == s->in_end)
		return false;
	if (s->in[s->in_start] != 'p')
	{
		/* Terminate is how libpq ends when it has no password to send */
		if (s->in[s->in_start] == 'X')
			s->state = NC_SVC_SESSION_CLOSING;
		else
			refuse(s, now, "08P01", "a token was expected, as password");
		return true;
	}
	switch (nc_frame_parse(s->in + s->in_start, s->in_end - s->in_start, NC_JWT_BYTES_MAX + 1,
						   &frame))
	{
		case NC_FRAME_INCOMPLETE:
			return false;
		case NC_FRAME_INVALID:
			refuse(s, now, "28P01", "the token is refused: it is too long");
			return true;
		case NC_FRAME_OK:
			break;
	}
	judge(s, now, &frame);
	explicit_bzero(s->in + s->in_start, frame.consumed);
	s->in_start += frame.consumed;
	return true;
}
