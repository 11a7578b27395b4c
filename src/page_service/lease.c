/*
 * lease.c
 *	  Leases of a page server: what it grants to its compute, and for how long (docs/takeover.md).
 *
 * The walreceiver is asked by the compute, on the stream of WAL, and answers there.  What was
 * granted is in shared memory before the answer is on its way, and longer there than the
 * compute was told.
 *
 * Guarantees that nothing is granted to an incarnation once this page server has promised
 * itself to a newer one: both are under NC_SVC_LOCK_PROMISE.  Nothing of it is on disk, so
 * each start of shared memory counts as if a lease had been granted just before.
 */
#include "page_service.h"

/* In the postmaster, whenever shared memory is made. */
void
nc_svc_lease_start(void)
{
	nc_svc_shared->lease_until = nc_boot_clock_us() + nc_lease_counted_us(nc_svc_lease_ms);
	nc_svc_shared->lease_older_until = 0;
}

static uint32
left_ms(uint64 until, uint64 now)
{
	return until <= now ? 0 : (uint32) ((until - now + 999) / 1000);
}

/* The incarnation that this walreceiver has joined gets a lease from now on; how long others' may run. */
static uint32
grant(const NcId *incarnation)
{
	uint64		now = nc_boot_clock_us();
	uint64		older;

	SpinLockAcquire(&nc_svc_shared->joins_lock);
	if (!nc_id_equal(&nc_svc_shared->lease_to, incarnation))
	{
		nc_svc_shared->lease_older_until = Max(nc_svc_shared->lease_older_until, nc_svc_shared->lease_until);
		nc_svc_shared->lease_to = *incarnation;
	}
	older = nc_svc_shared->lease_older_until;
	nc_svc_shared->lease_until = now + nc_lease_counted_us(nc_svc_lease_ms);
	SpinLockRelease(&nc_svc_shared->joins_lock);
	return left_ms(older, now);
}

bool
nc_svc_lease_answer(const NcId *incarnation, const char *message, int bytes, char answer[NC_SVC_LEASE_ANSWER_BYTES])
{
	NcReader	r = nc_reader((const uint8_t *) message, bytes);
	NcWriter	w = nc_writer((uint8_t *) answer, NC_SVC_LEASE_ANSWER_BYTES);
	uint32		older_ms = 0;
	uint64		asked;
	bool		granted;

	if (bytes < 1 || message[0] != NC_LEASE_MESSAGE)
		return false;
	(void) nc_read_u8(&r);
	asked = nc_read_u64(&r);
	if (r.failed)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("page service: the compute asks for a lease in a way that is not understood"),
				 errhint("Page server and compute need the same version of neon_comm.")));
	LWLockAcquire(nc_svc_promise_lock(), LW_SHARED);
	granted = nc_svc_promise_stream_holds();
	if (granted)
		older_ms = grant(incarnation);
	LWLockRelease(nc_svc_promise_lock());
	nc_write_u8(&w, NC_LEASE_MESSAGE);
	nc_write_u64(&w, asked);
	nc_write_u32(&w, granted ? nc_svc_lease_ms : 0);
	nc_write_u32(&w, older_ms);
	return true;
}

uint32
nc_svc_lease_left_ms(void)
{
	uint64		until;

	SpinLockAcquire(&nc_svc_shared->joins_lock);
	until = Max(nc_svc_shared->lease_until, nc_svc_shared->lease_older_until);
	SpinLockRelease(&nc_svc_shared->joins_lock);
	return left_ms(until, nc_boot_clock_us());
}

void
nc_svc_lease_status(void (*put) (void *arg, const char *name, const char *value), void *arg)
{
	char		text[NC_ID_TEXT];
	NcId		to;

	SpinLockAcquire(&nc_svc_shared->joins_lock);
	to = nc_svc_shared->lease_to;
	SpinLockRelease(&nc_svc_shared->joins_lock);
	put(arg, "lease_to", nc_id_text(&to, text));
	snprintf(text, sizeof(text), "%u", nc_svc_lease_left_ms());
	put(arg, "lease_ms", text);
}
