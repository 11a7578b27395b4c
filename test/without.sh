#!/usr/bin/env bash
#
# Takes away what tests prove, one entry of the catalogue after the other, and runs
# the test that the entry names: that test must fail. A test that passes without what
# it tests proves nothing. test/without/catalogue.pl says what an entry is.
#
#   test/without.sh [NAME|ROW|KIND...]       needs the right to install; as root the tests run as postgres
#   test/without.sh --table                  rows, tests, and what is taken away
#
# ROW is one of docs/faults.md, "By number"; KIND is unit, tap, rule, simulation or identity.
#
# Works on a copy of the tree, which it builds and installs, and installs the tree
# it was called in again. Can be interrupted: called again for all or for a kind it goes
# on where it stopped, as long as the tree is the same. What is asked for by name or
# row is run again. One line an entry, then how long they took, and: N passed, N failed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
tree=$PWD
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
pg_config=${PG_CONFIG:-pg_config}
bindir=$("$pg_config" --bindir)
major=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
pgxs_test=$(dirname "$("$pg_config" --pgxs)")/../test
logs=$tree/build/without
seconds=${NEON_WITHOUT_SECONDS:-300}
catalogue=test/without/catalogue.pl

case ${1:-} in
	-h | --help) sed -n '3,18s/^# \{0,1\}//p' "$0"; exit 0 ;;
	--table)
		"$catalogue" list | awk -F '\t' '{ printf "%-10s %-30s %-24s %s\n", $3, $2, $1, $4 }' | sort -n
		exit 0
		;;
esac
todo=$("$catalogue" list "$@") || exit 2
again=
for w in "$@"; do
	case $w in
		unit | tap | rule | simulation | identity) ;;
		*) again=1 ;;
	esac
done
mkdir -p "$logs"

# "ok|not ok", name, test, seconds, words; the first line is the tree it was seen with.
progress=$logs/progress
this_tree=$(tree_files | sort -z | xargs -0 sha1sum 2>/dev/null | sha1sum)
[ "$(head -n 1 "$progress" 2>/dev/null)" = "$this_tree" ] || printf '%s\n' "$this_tree" >"$progress"

copy=$(mktemp -d "${TMPDIR:-/var/tmp}/nc_without.XXXXXX") || exit 1
installed=

leave() {
	kill_servers "$copy"
	[ -z "$installed" ] || make -C "$tree" install PG_CONFIG="$pg_config" >"$logs/restore.log" 2>&1
	rm -rf "$copy"
}
trap leave EXIT
trap 'exit 130' INT TERM

tree_files | cpio -0pdm --quiet "$copy" 2>/dev/null
catalogue=$copy/test/without/catalogue.pl
mkdir "$copy/tmp"
chmod -R a+rX "$copy"
[ "$(id -u)" != 0 ] || chown "$(server_user)" "$copy/tmp"
# the fault proxy is not what is tested
make -s -C "$copy" proxy >"$logs/proxy.log" 2>&1 || { tail -n 5 "$logs/proxy.log"; exit 1; }

# What is only called by what was taken away is no error.
build_unit() {					# TEST
	make -C "$copy" -f test/unit.mk BUILD=build/unit SANITIZE=-Wno-error "build/unit/$1"
}

build_tap() {
	installed=1
	make -C "$copy" PG_CONFIG="$pg_config" EXTRA_CFLAGS="-DNC_TEST_RULES -Wno-error" \
		CORE_EXTRA_CFLAGS=-Wno-error install
}

# a test that is blocked is a failed one before it is one that does not end
run_unit() { (cd "$copy" && NC_TEST_HANG_SECONDS=$((seconds / 3)) timeout -k 10 "$seconds" "build/unit/$1"); }

run_tap() {
	local dir=$copy/tmp/$1 rc
	as_server_user mkdir -p "$dir"
	SERVER_CWD=$copy as_server_user env PATH="$bindir:$PATH" PG_CONFIG="$pg_config" NEON_TEST_FIRST_FAILURE=1 \
		NC_PROXY="$copy/build/proxy/nc_proxy" PG_REGRESS="$(realpath "$pgxs_test/regress/pg_regress")" \
		PERL5LIB="$(realpath "$pgxs_test/perl"):$copy/test/perl" TESTDIR="$dir" TESTDATADIR="$dir/tmp_check" TESTLOGDIR="$dir/log" TMPDIR="$dir" LC_ALL=C \
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

# The copy is changed, the test of it built and run; prints "ok|not ok" and why.
judge() {						# NAME KIND TEST WHAT LOG
	local rc
	if ! "build_$2" "$3" >"$5" 2>&1; then
		printf 'not ok\t%s' "does not build: build/without/$1.log"
		return
	fi
	"run_$2" "$3" >"$5" 2>&1 </dev/null
	rc=$?
	if [ $rc = 0 ] && grep -q '^1\.\.0 # SKIP' "$5"; then
		# of a later server: another run with that will tell
		printf 'skip\t%s' "$3: $(sed -n 's/^1\.\.0 # SKIP *//p' "$5")"
	elif [ $rc = 0 ]; then
		printf 'not ok\t%s' "$3 passes without it: $4"
	elif [ $rc = 124 ] || [ $rc = 137 ]; then
		printf 'not ok\t%s' "$3 did not end, which proves nothing"
	else
		printf 'ok\t%s' "$3: $(first_failure "$5")"
	fi
}

# These build what they need themselves.
judge_model() {					# NAME KIND LOG
	if (cd "$copy" && test/mutants.sh "$2" "$1") >"$3" 2>&1; then
		printf 'ok\t%s' "$(sed -n 's/^ok .* # //p' "$3")"
	else
		printf 'not ok\t%s' "$(tail -n 2 "$3" | head -n 1)"
	fi
}

without() {						# NAME KIND TEST WHAT SINCE
	local name=$1 kind=$2 began=$SECONDS log=$logs/$1.log result
	[ "$kind" != rule ] || kind=tap
	[ "$5" -le "$major" ] || kind=later
	case $kind in
		later) result="skip"$'\t'"$3: this is PostgreSQL $major, and $5 is the first that has it" ;;
		simulation | identity) result=$(judge_model "$name" "$kind" "$log") ;;
		*)
			"$catalogue" apply "$name" "$copy" >"$log" 2>&1 || { cat "$log"; exit 1; }
			[ "$kind" != tap ] || installed=1
			result=$(judge "$name" "$kind" "$3" "$4" "$log")
			"$catalogue" restore "$copy" || exit 1
			;;
	esac
	sed -i "\\|	$name	$2 $3	|d" "$progress"
	printf '%s\t%s\t%s\t%d\t%s\n' "${result%%$'\t'*}" "$name" "$2 $3" $((SECONDS - began)) "${result#*$'\t'}" >>"$progress"
	printf '%-7s %s\n' "${result%%$'\t'*}" "$name # ${result#*$'\t'}"
}

all() {
	local before=0 name test what since kind file

	while IFS=$'\t' read -r name test _ what since; do
		read -r kind file <<<"$test"
		if [ -z "$again" ] && grep -q "^ok	$name	$kind $file	" "$progress"; then
			before=$((before + 1))
		else
			[ $before = 0 ] || echo "$before were seen before"
			before=0
			without "$name" "$kind" "$file" "$what" "$since" </dev/null
		fi
	done <<<"$todo"
	[ $before = 0 ] || echo "$before were seen before"
}

# What was asked for, of this run and those before.
sum_up() {
	awk -F '\t' 'FNR == 1 { file++ } file == 1 { k = $2; wanted[$1, k ~ / / ? k : k " "] = 1; next }
		($2, $3) in wanted { if ($1 == "ok") passed++; else if ($1 == "skip") skipped++; else failed++; took += $4 }
		END { printf "they took %d h %d min %d s\n%d passed, %d failed%s\n", took / 3600, took % 3600 / 60, took % 60, passed, failed,
				skipped ? ", " skipped " skipped" : ""; exit failed != 0 }' <(printf '%s\n' "$todo") "$progress"
}

# in one line: who edits this script meanwhile does not change what runs
all; sum_up; exit
