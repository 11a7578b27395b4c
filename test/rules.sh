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
	local env=(env PATH="$PATH:$bindir" PG_CONFIG="$pg_config" NEON_TEST_RULES_OFF="$1" NEON_DEV_PORTS="$ports")

	if [ "$(id -u)" = 0 ]; then
		(cd / && runuser -u postgres -- "${env[@]}" HOME=/tmp "${cmd[@]}")
	else
		"${env[@]}" "${cmd[@]}"
	fi </dev/null >"$log" 2>&1
}

# A test that uses test points must pass.
with_points() {					# TEST
	if run_test "" "$1"; then
		echo "ok      rules/$1"
	else
		printf '%s\n' "$(grep -E '^ *#|^[A-Za-z].* at .* line |^not ok' "$logs/$1.log" | tail -n 15 | sed 's/^/      /')" \
			"not ok  rules/$1 # build/rules/$1.log"
	fi
}

# A test must fail without its rule; it ends at its first failure (NeonComm::Cluster).
without_rule() {				# RULE TEST
	local rc
	run_test "$1" "$2"
	rc=$?
	if [ $rc = 0 ]; then
		echo "not ok  rules/$1-$2 # passes without it"
	elif [ $rc = 124 ] || [ $rc = 137 ]; then
		echo "not ok  rules/$1-$2 # did not end, which proves nothing"
	else
		echo "ok      rules/$1-$2 # fails without it: $(grep -m1 -E "Failed test|failed:|ERROR|died|Timeout" "$logs/$1-$2.log" | tr -s ' #' ' ' | cut -c1-100)"
	fi
}

asked_for() {					# NAME
	[ "$wanted" = "" ] || [[ " $wanted " == *" $1 "* ]]
}

# Every second line of the work, with ports of its own.
work_off() {					# WHICH
	local n=0 rule test
	ports=$((20000 + $1 * 6000))-$((25999 + $1 * 6000))
	while read -r rule test; do
		n=$((n + 1))
		[ $((n % 2)) = "$1" ] || continue
		if [ "$rule" = - ]; then with_points "$test"; else without_rule "$rule" "$test"; fi
	done <<<"$todo"
}

wanted=$*
todo=$(
	for test in $(grep -l '^use NeonComm::TestPoint;' "$copy"/test/t/*.pl | xargs -r -n 1 basename -s .pl | sort); do
		! asked_for "$test" || echo "- $test"
	done
	while read -r rule test; do
		[ -n "$rule" ] && asked_for "$rule" && echo "$rule $test"
	done <<<"$cases"
)
work_off 0 >"$logs/worker0.out" &
work_off 1 >"$logs/worker1.out" &
wait
cat "$logs"/worker[01].out
passed=$(cat "$logs"/worker[01].out | grep -c '^ok ')
failed=$(cat "$logs"/worker[01].out | grep -c '^not ok ')
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
