/*
 * publish.c
 *	  What page service workers tell the exporter (metrics.c), by shared memory.
 *
 * Runs in the workers.  Each counts its own requests; the first one asks the server
 * every second for what is behind its locks.
 */
#include "page_service.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "executor/instrument.h"
#include "replication/walreceiver.h"

void
nc_svc_note_request(const NcPsRequest *req, uint64 waited_us, uint64 answered_us)
{
	NcSvcWorkerState *self = nc_svc_self();

	if (req->tag <= NC_REQ_SLRU)
		nc_svc_count(&self->by_class[req->tag]);
	nc_histogram_note(&self->wait, waited_us);
	nc_histogram_note(&self->answer, answered_us);
}

/* The server counts since the process began; the worker before this one has left its sums. */
void
nc_svc_publish_buffers(void)
{
	static bool begun = false;
	static uint64 hits_before;
	static uint64 reads_before;
	NcSvcWorkerState *self = nc_svc_self();

	if (!begun)
	{
		hits_before = pg_atomic_read_u64(&self->buffer_hits);
		reads_before = pg_atomic_read_u64(&self->buffer_reads);
		begun = true;
	}
	pg_atomic_write_u64(&self->buffer_hits, hits_before + pgBufferUsage.shared_blks_hit);
	pg_atomic_write_u64(&self->buffer_reads, reads_before + pgBufferUsage.shared_blks_read);
}

static void
publish_ids(NcSvcPublished *p)
{
	static const NcId none;
	const NcMemberIdentity *identity = nc_svc_identity_current();
	NcId		promised = nc_svc_promised();
	uint32		n = identity != NULL ? identity->followed.n : 0;
	NcSvcJoins	joins;

	nc_svc_joins_get(&joins);
	strlcpy(p->standing, nc_svc_standing_name(&joins), sizeof(p->standing));
	nc_id_text(identity != NULL ? &identity->member : &none, p->member);
	nc_id_text(identity != NULL ? &identity->birth : &none, p->birth);
	nc_id_text(n > 0 ? &identity->followed.at[n - 1].id : &none, p->incarnation);
	nc_id_text(&promised, p->promised);
}

/* Into the place that nobody reads; then that one is read. */
void
nc_svc_publish(void)
{
	uint32		next = 1 - pg_atomic_read_u32(&nc_svc_shared->published_at);
	NcSvcPublished *p = &nc_svc_shared->published[next];

	p->us = nc_clock_us();
	p->in_recovery = RecoveryInProgress();
	p->consistent = p->in_recovery && nc_svc_source_consistent();
	p->streaming = WalRcvStreaming();
	p->paused = GetRecoveryPauseState() != RECOVERY_NOT_PAUSED;
	p->replay = GetXLogReplayRecPtr(NULL);
	p->received = GetWalRcvFlushRecPtr(NULL, NULL);
	publish_ids(p);
	pg_write_barrier();
	pg_atomic_write_u32(&nc_svc_shared->published_at, next);
}
