#!/usr/bin/env bash
#
# Runs what needs a test build: makes a copy of the tree with -DNC_TEST_RULES,
# installs it, and in the end installs the tree it was called in again.
#
# 1. Tests that use test points (NeonComm::TestPoint) must pass.
# 2. Rules of the storage layer are taken away, one at a time, and the test
#    named for each must then fail: a test that passes without its rule proves
#    nothing. They are the entries of the catalogue with "test: rule"
#    (test/without/catalogue.pl). Each is a library of its own beside the
#    installed one; its test's servers load that.
#
#   test/rules.sh [RULE|TEST...]   needs the right to install; as root the tests run as postgres
#
# One line a test or rule, then: N passed, N failed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
tree=$PWD
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
pg_config=${PG_CONFIG:-pg_config}
bindir=$("$pg_config" --bindir)
pgxs_perl=$(realpath "$(dirname "$("$pg_config" --pgxs)")/../test/perl")
logs=$tree/build/rules
mkdir -p "$logs"

restore() { make -C "$tree" install PG_CONFIG="$pg_config" >"$logs/restore.log" 2>&1; rm -rf "$copy" "$copy.1"; }

copy=$(mktemp -d "${TMPDIR:-/var/tmp}/nc_rules.XXXXXX") || exit 1
trap restore EXIT
trap 'exit 130' INT TERM
tree_files | cpio -0pdm --quiet "$copy"
# functions, too, come from the library that the server has loaded
sed -i 's|\$libdir/||' "$copy/neon_comm.control"
# what only a rule has called is not called without it
make=(make PG_CONFIG="$pg_config" EXTRA_CFLAGS="-DNC_TEST_RULES -Wno-error" CORE_EXTRA_CFLAGS=-Wno-error)
if ! "${make[@]}" -C "$copy" -j "$(nproc)" all >"$logs/build.log" 2>&1 || ! "${make[@]}" -C "$copy" install >>"$logs/build.log" 2>&1; then
	tail -n 5 "$logs/build.log"
	echo "0 passed, 1 failed"
	exit 1
fi
chmod -R a+rX "$copy"
mkdir "$copy/tap" && chmod 1777 "$copy/tap"		# for PostgreSQL's Perl modules

# A worker builds in a tree of its own.
build_without() {				# RULE, or "none"; the libraries are in $tree_of_mine/without then
	local lib=$tree_of_mine/without
	rm -rf "$lib" # of servers that run it may be one
	mkdir -p "$lib"
	{ [ "$1" = none ] || "$copy/test/without/catalogue.pl" apply "$1" "$tree_of_mine"; } &&
		"${make[@]}" -C "$tree_of_mine" all && cp "$tree_of_mine"/neon_comm.so "$tree_of_mine"/src/page_service/*.so "$lib/" &&
		"$copy/test/without/catalogue.pl" restore "$tree_of_mine" && chmod -R a+rX "$lib"
}

run_test() {					# RULE TEST; status of the test. RULE "" for none
	local perl5=-I$copy/test/perl
	local log=$logs/${1:+$1-}$2.log
	local cmd=(timeout -k 10 "${NEON_RULE_SECONDS:-1800}" prove "$perl5" "$copy/test/t/$2.pl")
	local env=(env PATH="$PATH:$bindir" PG_CONFIG="$pg_config" NEON_DEV_PORTS="$ports" PERL5LIB="$pgxs_perl"
		TESTDIR="$copy/tap" TESTDATADIR="$copy/tap" TESTLOGDIR="$copy/tap/log")

	[ -z "$1" ] || env+=(NEON_TEST_LIBRARIES="$tree_of_mine/without" NEON_TEST_FIRST_FAILURE=1)

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

# A test must fail without its rule; it ends at its first failure (NeonComm::Cluster).  With
# a library made in the same way of the whole, it passes.
without_rule() {				# RULE TEST
	local rc
	if ! build_without "$1" >"$logs/$1-build.log" 2>&1; then
		echo "not ok  rules/$1-$2 # cannot be built: build/rules/$1-build.log"
		return
	fi
	run_test "$1" "$2"
	rc=$?
	if [ "$1" = none ]; then
		[ $rc = 0 ] && echo "ok      rules/none-$2" || echo "not ok  rules/none-$2 # fails with all rules: build/rules/none-$2.log"
	elif [ $rc = 0 ]; then
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
	local n=0 rule test tree_of_mine=$copy
	[ "$1" = 0 ] || tree_of_mine=$copy.1
	ports=$((ports_low + $1 * span))-$((ports_low + ($1 + 1) * span - 1))
	while read -r rule test; do
		n=$((n + 1))
		[ $((n % 2)) = "$1" ] || continue
		if [ "$rule" = - ]; then with_points "$test"; else without_rule "$rule" "$test"; fi
	done <<<"$todo"
}

wanted=$*
IFS=- read -r ports_low ports_high <<<"${NEON_DEV_PORTS:-20000-31999}"
span=$(((ports_high - ports_low + 1) / 2))
todo=$(
	for test in $(grep -l '^use NeonComm::TestPoint;' "$copy"/test/t/*.pl | xargs -r -n 1 basename -s .pl | sort); do
		! asked_for "$test" || echo "- $test"
	done
	! asked_for none || echo 'none 041_sequences'
	while IFS=$'\t' read -r rule test _; do
		! asked_for "$rule" || echo "$rule ${test#rule }"
	done < <("$copy/test/without/catalogue.pl" list rule)
)
[ "$(grep -vc '^-' <<<"$todo")" = 0 ] || cp -a "$copy" "$copy.1"
work_off 0 >"$logs/worker0.out" &
work_off 1 >"$logs/worker1.out" &
wait
cat "$logs"/worker[01].out
passed=$(cat "$logs"/worker[01].out | grep -c '^ok ')
failed=$(cat "$logs"/worker[01].out | grep -c '^not ok ')
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
