#!/usr/bin/env bash
#
# Runs what needs a test build: makes a copy of the tree with -DNC_TEST_RULES,
# installs it, and in the end installs the tree it was called in again.
#
# 1. Tests that use test points (NeonComm::TestPoint) must pass.
# 2. Rules of the storage layer are switched off, one at a time, and the test
#    named for each must then fail: a test that passes without its rule proves
#    nothing.
#
#   test/rules.sh [RULE|TEST...]   needs the right to install; as root the tests run as postgres
#
# One line a test or rule, then: N passed, N failed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
tree=$PWD
pg_config=${PG_CONFIG:-pg_config}
bindir=$("$pg_config" --bindir)
logs=$tree/build/rules
mkdir -p "$logs"

# RULE TEST: what must fail.  Growing every segment on the way to the target has
# no switch: without it md, which makes the last segment, makes those before it.
cases='
command_id       040_command_ids
own_horizon      043_evictors
own_horizon      063_bgwriter
low_lsn          042_indexes
sequence         041_sequences
cycle_id         045_vacuum_cycle
unlogged         046_unlogged
all_visible      044_lagging
database         044_lagging
page_lsn         044_lagging
relation_lsn     061_reuse
local_reserve    065_no_room
lfc_write        160_file_cache
lfc_forget       160_file_cache
lfc_database     160_file_cache
staged_lsn       172_prefetch_stale
'

restore() { make -C "$tree" install PG_CONFIG="$pg_config" >"$logs/restore.log" 2>&1; rm -rf "$copy"; }

copy=$(mktemp -d "${TMPDIR:-/var/tmp}/nc_rules.XXXXXX") || exit 1
trap restore EXIT
trap 'exit 130' INT TERM
git -C "$tree" ls-files -co --exclude-standard -z | (cd "$tree" && cpio -0pdm --quiet "$copy")
if ! make -C "$copy" PG_CONFIG="$pg_config" EXTRA_CFLAGS=-DNC_TEST_RULES install >"$logs/build.log" 2>&1; then
	tail -n 5 "$logs/build.log"
	echo "0 passed, 1 failed"
	exit 1
fi
chmod -R a+rX "$copy"

run_test() {					# RULE TEST; status of the test. RULE "" for none
	local perl5=-I$copy/test/perl
	local log=$logs/${1:+$1-}$2.log
	local cmd=(timeout -k 10 "${NEON_RULE_SECONDS:-240}" prove "$perl5" "$copy/test/t/$2.pl")

	if [ "$(id -u)" = 0 ]; then
		(cd / && runuser -u postgres -- env PATH="$PATH:$bindir" PG_CONFIG="$pg_config" HOME=/tmp \
			NEON_TEST_RULES_OFF="$1" "${cmd[@]}")
	else
		PATH="$PATH:$bindir" NEON_TEST_RULES_OFF="$1" "${cmd[@]}"
	fi </dev/null >"$log" 2>&1
}

asked_for() {					# NAME, and what was asked for
	[ "$wanted" = "" ] || [[ " $wanted " == *" $1 "* ]]
}

wanted=$*
passed=0 failed=0
for test in $(grep -l '^use NeonComm::TestPoint;' "$copy"/test/t/*.pl | xargs -r -n 1 basename -s .pl | sort); do
	asked_for "$test" || continue
	if run_test "" "$test"; then
		echo "ok      rules/$test"
		passed=$((passed + 1))
	else
		grep -E '^ *#|^[A-Za-z].* at .* line |^not ok' "$logs/$test.log" | tail -n 15 | sed 's/^/      /'
		echo "not ok  rules/$test # build/rules/$test.log"
		failed=$((failed + 1))
	fi
done
while read -r rule test; do
	[ -n "$rule" ] || continue
	asked_for "$rule" || continue
	run_test "$rule" "$test"
	rc=$?
	if [ $rc = 0 ]; then
		echo "not ok  rules/$rule # $test passes without it"
		failed=$((failed + 1))
	elif [ $rc = 124 ] || [ $rc = 137 ]; then
		echo "not ok  rules/$rule # $test did not end, which proves nothing"
		failed=$((failed + 1))
	else
		echo "ok      rules/$rule # $test fails without it: $(grep -m1 -E "Failed test|failed:|ERROR|died|Timeout" "$logs/$rule-$test.log" | tr -s ' #' ' ' | cut -c1-100)"
		passed=$((passed + 1))
	fi
done <<<"$cases"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
