#!/usr/bin/env bash
#
# Takes the handling of faults away, one at a time, and runs the test that
# docs/faults.md names for it: that test must fail. A test that passes without
# what it tests proves nothing.
#
# Each test/without/*.patch is one handling taken away: three lines of words
#
#   rows: 39 44                       rows of docs/faults.md, "By number"
#   test: tap 163_file_cache_races    or: unit test_engine
#   without: what is missing then
#
# and a patch against the tree, which must apply. Rules of the storage layer and
# faults of the core have switches instead: test/rules.sh, test/sim/mutants.sh.
#
#   test/without.sh [NAME|ROW|unit|tap...]   needs the right to install; as root the tests run as postgres
#   test/without.sh --table                  rows, tests, and what is taken away
#
# Works on a copy of the tree, which it builds and installs, and installs the tree
# it was called in again. One line a patch, then: N passed, N failed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
tree=$PWD
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
pg_config=${PG_CONFIG:-pg_config}
bindir=$("$pg_config" --bindir)
pgxs_test=$(dirname "$("$pg_config" --pgxs)")/../test
logs=$tree/build/without
seconds=${NEON_WITHOUT_SECONDS:-300}

word() { sed -n "s/^$2: *//p;/^---/q" "$1"; }	# PATCH WORD

asked_for() {					# PATCH
	local w
	[ ${#wanted[@]} -gt 0 ] || return 0
	for w in "${wanted[@]}"; do
		case $w in
			unit | tap) [[ $(word "$1" test) == "$w "* ]] && return 0 ;;
			[0-9] | [0-9][0-9]) [[ " $(word "$1" rows) " == *" $w "* ]] && return 0 ;;
			*) [ "$(basename "$1" .patch)" = "$w" ] && return 0 ;;
		esac
	done
	return 1
}

case ${1:-} in
	-h | --help) sed -n '3,20s/^# \{0,1\}//p' "$0"; exit 0 ;;
	--table)
		for p in test/without/*.patch; do
			printf '%-10s %-30s %s\n' "$(word "$p" rows)" "$(word "$p" test)" "$(word "$p" without)"
		done | sort -n
		exit 0
		;;
esac
wanted=("$@")
for w in "$@"; do
	case $w in
		unit | tap | [0-9] | [0-9][0-9]) ;;
		*) [ -f "test/without/$w.patch" ] || fatal "there is no patch \"$w\" (see --table)" ;;
	esac
done
mkdir -p "$logs"
copy=$(mktemp -d "${TMPDIR:-/var/tmp}/nc_without.XXXXXX") || exit 1
installed=

leave() {
	kill_servers "$copy"
	[ -z "$installed" ] || make -C "$tree" install PG_CONFIG="$pg_config" >"$logs/restore.log" 2>&1
	rm -rf "$copy"
}
trap leave EXIT
trap 'exit 130' INT TERM

git ls-files -co --exclude-standard -z | cpio -0pdm --quiet "$copy" 2>/dev/null
mkdir "$copy/tmp"
chmod -R a+rX "$copy"
[ "$(id -u)" != 0 ] || chown "$(server_user)" "$copy/tmp"
# the fault proxy is not what is tested
make -s -C "$copy" proxy >"$logs/proxy.log" 2>&1 || { tail -n 5 "$logs/proxy.log"; exit 1; }

build_unit() {					# TEST
	make -C "$copy" -f test/unit.mk BUILD=build/unit "build/unit/$1"
}

build_tap() {
	installed=1
	make -C "$copy" PG_CONFIG="$pg_config" EXTRA_CFLAGS=-DNC_TEST_RULES install
}

run_unit() { (cd "$copy" && timeout -k 10 "$seconds" "build/unit/$1"); }

run_tap() {
	local dir=$copy/tmp/$1 rc
	as_server_user mkdir -p "$dir"
	SERVER_CWD=$copy as_server_user env PATH="$bindir:$PATH" PG_CONFIG="$pg_config" NEON_TEST_FIRST_FAILURE=1 \
		NC_PROXY="$copy/build/proxy/nc_proxy" PG_REGRESS="$(realpath "$pgxs_test/regress/pg_regress")" \
		PERL5LIB="$(realpath "$pgxs_test/perl"):$copy/test/perl" TESTDIR="$dir" TMPDIR="$dir" LC_ALL=C \
		timeout -k 10 "$seconds" perl "$copy/test/t/$1.pl"
	rc=$?
	kill_servers "$copy"
	rm -rf "$dir"
	return $rc
}

first_failure() {				# LOG
	{
		grep -m1 -aE '^\[  ERROR|^not ok' "$1" ||
			grep -m1 -aE 'Failed test|[Aa]ssertion|Sanitizer|[Dd]ied|ERROR|FATAL|PANIC| at .* line ' "$1" ||
			tail -n 1 "$1"
	} | tr -s ' #' ' ' | sed "s|$copy/||g" | cut -c1-110
}

passed=0 failed=0
result() {						# WORD TEXT
	if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	printf '%-7s %s\n' "$1" "$2"
}

without() {						# PATCH
	local name kind test log rc
	name=$(basename "$1" .patch)
	read -r kind test <<<"$(word "$1" test)"
	log=$logs/$name.log
	if [[ $kind != unit && $kind != tap ]] || [ -z "$(word "$1" without)" ]; then
		result 'not ok' "$name # its first lines are not as test/without.sh wants them"
		return
	fi
	if ! patch -d "$copy" -p1 -s --no-backup-if-mismatch -F0 <"$1" >"$log" 2>&1; then
		result 'not ok' "$name # does not apply: build/without/$name.log"
		exit 1
	fi
	if ! "build_$kind" "$test" >"$log" 2>&1; then
		result 'not ok' "$name # does not build: build/without/$name.log"
	else
		"run_$kind" "$test" >"$log" 2>&1 </dev/null
		rc=$?
		if [ $rc = 0 ]; then
			result 'not ok' "$name # $test passes without it: $(word "$1" without)"
		elif [ $rc = 124 ] || [ $rc = 137 ]; then
			result 'not ok' "$name # $test did not end, which proves nothing"
		else
			result ok "$name # $test: $(first_failure "$log")"
		fi
	fi
	patch -d "$copy" -p1 -s -R --no-backup-if-mismatch -F0 <"$1" >/dev/null || exit 1
}

for p in test/without/*.patch; do
	! asked_for "$p" || without "$p"
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
