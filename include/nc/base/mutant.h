/*
 * nc/base/mutant.h
 *	  Deliberate faults of the core, for a test build.
 *
 * A simulation proves a rule only if it fails without it.  Built with
 * -DNC_MUTANTS, the simulation switches one of these on (test/sim, `make
 * mutants`); in any other build NC_MUTANT() is false and costs nothing.
 */
#ifndef NC_BASE_MUTANT_H
#define NC_BASE_MUTANT_H

#include <stdbool.h>

/* M(id, "name", "what it does wrong"): one list for enum, names and documentation. */
#define NC_MUTANT_LIST(M) \
	M(NO_GENERATION, "no_generation", "delivers to whatever life of the slot is TAKEN now") \
	M(COPY_EARLY, "copy_early", "copies a page before the slot is in COPYING") \
	M(SEND_CANCELLED, "send_cancelled", "sends requests that were withdrawn") \
	M(NO_ID_CHECK, "no_id_check", "does not compare request ids") \
	M(NO_ECHO_CHECK, "no_echo_check", "does not compare relation and block of an answer") \
	M(NO_LSN_ECHO, "no_lsn_echo", "does not compare the LSNs that an answer echoes") \
	M(NO_TAG_CHECK, "no_tag_check", "takes an answer of any kind") \
	M(UNASKED_IGNORED, "unasked_ignored", "keeps a connection that sent an answer to nothing") \
	M(POISON_KEPT, "poison_kept", "keeps a connection after a wrong answer") \
	M(SAME_ID, "same_id", "sends a request again under its old id: stale answers fit") \
	M(LOST_RESEND, "lost_resend", "forgets what was in flight on a lost connection") \
	M(DROPPED_FORGOTTEN, "dropped_forgotten", "prefetches are lost with their connection and never ended") \
	M(NO_SILENCE, "no_silence", "waits for ever for a silent connection") \
	M(BYTES_ARE_PROGRESS, "bytes_are_progress", "takes any bytes for a sign that answers will come") \
	M(NO_CONNECT_TIMEOUT, "no_connect_timeout", "waits for ever for a handshake") \
	M(NO_BACKOFF, "no_backoff", "connects again at once") \
	M(WRONG_SHARD, "wrong_shard", "routes as if the stripe were one block") \
	M(RANGE_SHARD, "range_shard", "routes a range by its first block") \
	M(OLD_MAP, "old_map", "keeps the shard map while the number of shards is the same") \
	M(NO_REROUTE, "no_reroute", "leaves requests in flight where the old map put them") \
	M(DOUBLE_DELIVERY, "double_delivery", "a rerouted request counts at both places") \
	M(SEND_BUFFER_KEPT, "send_buffer_kept", "a new connection sends what the old one had left") \
	M(PARTIAL_FRAME, "partial_frame", "drops the part of a frame that is here") \
	M(LOST_DOORBELL, "lost_doorbell", "sleeps without a second look at the doorbell") \
	M(BIT_LOST, "bit_lost", "clears a doorbell bit and looks at half of the slots") \
	M(LOST_WAKE, "lost_wake", "wakes only the first client of a turn") \
	M(NO_ADOPTION, "no_adoption", "leaves a predecessor's slots TAKEN") \
	M(LEAK_STAGING, "leak_staging", "does not give back staging pages of withdrawn ranges") \
	M(LEAK_UNFINISHED, "leak_unfinished", "does not count withdrawn requests as ended") \
	M(RESENT_UNCOUNTED, "resent_uncounted", "does not count repetitions") \
	M(STALE_ACCEPTED, "stale_accepted", "accepts pages older than what was written here") \
	M(FUTURE_ACCEPTED, "future_accepted", "accepts pages from the future") \
	M(DESCRIPTOR_LEAK, "descriptor_leak", "forgets the socket of a failed attempt to connect") \
	M(EARLY_RELEASE, "early_release", "frees buffers before the kernel has let go of them")

#ifdef NC_MUTANTS
typedef enum NcMutant
{
	NC_MUTANT_NONE = 0,
#define NC_MUTANT_ENUM(id, name, what) NC_MUTANT_##id,
	NC_MUTANT_LIST(NC_MUTANT_ENUM)
#undef NC_MUTANT_ENUM
	NC_MUTANTS_END
} NcMutant;

/* The one that is on; defined by the test program. */
extern NcMutant nc_mutant;

#define NC_MUTANT(id) (__builtin_expect(nc_mutant == NC_MUTANT_##id, 0))
#else
#define NC_MUTANT(id) false
#endif

#endif							/* NC_BASE_MUTANT_H */
