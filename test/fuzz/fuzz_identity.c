/*
 * fuzz_identity.c
 *	  Any bytes as a text of identity: the command, its answer, the files, a
 *	  reader's options, a takeover of what was parsed.
 *
 * Checked: what is accepted is written as the same text again (numbers and LSNs
 * have one form only when this program wrote them, so it is the second writing
 * that must equal the first), and bounds hold.
 */
#include "nc/identity/judge.h"

#include <stdlib.h>
#include <string.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

static char first[NC_IDENTITY_FILE_BYTES_MAX];
static char second[NC_IDENTITY_FILE_BYTES_MAX];

static void
command(const char *text)
{
	NcEvidence	e;
	NcEvidence	again;

	if (!nc_join_parse(text, &e))
		return;
	check(nc_join_write(&e, first) > 0);
	check(nc_join_parse(first, &again));
	check(memcmp(&e, &again, sizeof(e)) == 0);
}

static void
answer(const char *text, size_t bytes)
{
	static NcJoinAnswer a;
	static NcMemberIdentity member;
	size_t		n;

	if (!nc_join_answer_parse(text, bytes, &a))
		return;
	n = nc_join_answer_write(&a, first, NC_JOIN_ANSWER_BYTES_MAX);
	check(n > 0 && nc_join_answer_parse(first, n, &a));
	check(nc_join_answer_write(&a, second, sizeof(second)) == n && memcmp(first, second, n) == 0);
	if (nc_judge_compute(&member, 1, false, &a).kind == NC_JOINED)
		nc_member_adopt(&member, &a);
	else
		nc_member_refuse(&member, &a);
	check(member.followed.n <= NC_LINEAGE_MAX && member.refused.n <= NC_PARTED_MAX);
}

static void
files(const char *text, size_t bytes)
{
	static NcComputeIdentity compute;
	static NcMemberIdentity member;
	static NcPromise promise;
	NcUnjudgedWal wal;
	NcUnjudgedWal again;
	size_t		n;

	if (nc_promise_parse(text, bytes, &promise) == NULL)
	{
		n = nc_promise_write(&promise, first, NC_PROMISE_BYTES_MAX);
		check(n > 0 && nc_promise_parse(first, n, &promise) == NULL);
		check(promise.members.now.write_quorum <= promise.members.now.n);
		check(nc_promise_write(&promise, second, sizeof(second)) == n && memcmp(first, second, n) == 0);
	}

	if (nc_compute_identity_parse(text, bytes, &compute) == NULL)
	{
		n = nc_compute_identity_write(&compute, first, sizeof(first));
		check(n > 0 && nc_compute_identity_parse(first, n, &compute) == NULL);
		check(nc_compute_identity_write(&compute, second, sizeof(second)) == n &&
			  memcmp(first, second, n) == 0);
	}
	if (nc_member_identity_parse(text, bytes, &member) == NULL)
	{
		n = nc_member_identity_write(&member, first, sizeof(first));
		check(n > 0 && nc_member_identity_parse(first, n, &member) == NULL);
		check(nc_member_identity_write(&member, second, sizeof(second)) == n &&
			  memcmp(first, second, n) == 0);
	}
	if (nc_unjudged_parse(text, bytes, &wal) == NULL)
	{
		n = nc_unjudged_write(&wal, first);
		check((n > 0) == wal.ends && nc_unjudged_parse(first, n, &again) == NULL);
		check(memcmp(&wal, &again, sizeof(wal)) == 0);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text = malloc(size + 1);
	NcReaderIdentity reader;

	memcpy(text, data, size);
	text[size] = '\0';
	command(text);
	answer((const char *) data, size);
	files((const char *) data, size);
	check(nc_reader_from_options(text, &reader) <= 1);
	free(text);
	return 0;
}
