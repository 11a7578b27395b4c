/*
 * answers.c
 *	  Nothing leaves a backend that no lease covers (docs/takeover.md, docs/decisions/0032).
 *
 * Runs in backends that serve a client.  The server's table of functions that send to the
 * client (PqCommMethods) is replaced by one whose putmessage looks at the leases first: what the
 * message tells was read before, so a lease that holds now held then.  Bytes that have passed
 * may leave at any time; so nothing is looked at where they are flushed.
 *
 * Guarantees that who waits here can be ended: terminate, shutdown and the end of the postmaster
 * always do, a cancel where a statement can still fail.
 *
 * Not here: messages put with putmessage_noblock, which are WAL that walsenders send, and
 * processes without a client.
 */
#include "postgres.h"

/* The headers of Kerberos need not be here; nothing below looks into what depends on them. */
#undef ENABLE_GSS

#include <signal.h>

#include "access/xact.h"
#include "libpq/libpq.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "utils/wait_event.h"

#include "feed_internal.h"
#include "nc/feed/lease.h"
#include "nc/shared/waits.h"

#define LOOK_MS 10

/* How long a login waits before it is refused. */
#define LOGIN_PATIENCE_MS 10000

static const PQcommMethods *stock;
static PQcommMethods covered;

/* A wait for a lease has been cancelled, and what comes now says so. */
static bool cancelled = false;

/* Severity fields of ErrorResponse: S is for people, V is not translated. */
static bool
is_fatal(const char *body, size_t len)
{
	const char *end = body + len;

	while (body < end && *body != '\0')
	{
		if (*body == 'V')
			return strcmp(body + 1, "FATAL") == 0 || strcmp(body + 1, "PANIC") == 0;
		body += strlen(body) + 1;
	}
	return false;
}

/* Says nothing that was read: the end of a session, of a wait, or that the next query may come. */
static bool
tells_nothing(char type, const char *body, size_t len)
{
	bool		told = cancelled;

	cancelled = false;
	return type == 'Z' || (type == 'E' && (told || is_fatal(body, len)));
}

/* In the handler of SIGQUIT, which says goodbye. */
static bool
is_ending_at_once(void)
{
	sigset_t	blocked;

	return sigprocmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, SIGQUIT) == 1;
}

static bool
are_interrupts_held(void)
{
	return InterruptHoldoffCount > 0 || CritSectionCount > 0;
}

/*
 * Rows, as printtup() and COPY put them: output functions fail there, too.  Behind the end of a
 * transaction an error would say of what is committed that it is not.
 */
static bool
may_fail(char type)
{
	return (type == 'D' || type == 'd' || type == 'T') && IsTransactionState();
}

/* Within an error's or a notice's way to the client nothing may be raised. */
static bool
is_report(char type)
{
	return type == 'E' || type == 'N';
}

/* False: this session is ending, and the message with it. */
static bool
heed_interrupts(char type)
{
	if (may_fail(type))
	{
		cancelled = true;
		CHECK_FOR_INTERRUPTS();
		cancelled = false;
	}
	if (!ProcDiePending)
	{
		if (ProcSignalBarrierPending && !is_report(type) && !are_interrupts_held())
			ProcessProcSignalBarrier();
		return true;
	}
	if (!is_report(type) && !are_interrupts_held())
		CHECK_FOR_INTERRUPTS();
	return false;
}

static bool
wait_for_lease(char type)
{
	bool		goes_on = !is_ending_at_once();

	while (goes_on && !nc_lease_holds())
	{
		goes_on = heed_interrupts(type);
		if (!goes_on)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_MS,
						 nc_wait_event(NC_WAIT_LEASE));
		ResetLatch(MyLatch);
	}
	/* somebody else may have been woken by it */
	SetLatch(MyLatch);
	return goes_on;
}

static int
put_covered(char type, const char *body, size_t len)
{
	if (tells_nothing(type, body, len) || nc_lease_holds() || wait_for_lease(type))
		return stock->putmessage(type, body, len);
	return 0;
}

/* In each backend, and walsender, that has been let in. */
void
nc_feed_answers_begin(void)
{
	for (int waited = 0; !nc_lease_holds(); waited += LOOK_MS)
	{
		if (waited >= LOGIN_PATIENCE_MS)
			ereport(FATAL,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("page servers have not granted leases to this compute"),
					 errdetail("%d of them have to, so that it knows that no other one has taken its place.",
							   nc_feed_write_quorum)));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_MS,
						 nc_wait_event(NC_WAIT_LEASE));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	stock = PqCommMethods;
	covered = *stock;
	covered.putmessage = put_covered;
	PqCommMethods = &covered;
}
