#!/usr/bin/env bash
#
# A real Prometheus (scripts/prometheus fetches Debian's) scrapes a compute and page servers, with the rules of
# contrib/prometheus, their times divided by 20:
#
#   outages   one outage for each rule fires exactly that rule, and those that the cause implies; after it none.
#             That of NeonFoundLate needs a test build, which test/rules.sh makes and takes away again
#   quiet     minutes of quiet pgbench fire none; each query of the dashboard has data; promtool finds nothing wrong
#
#   test/prometheus.sh [outages|quiet|NeonFoundLate...]   needs installed libraries (PG_CONFIG); as root servers run as
#                                                        postgres. PROM_QUIET_MINUTES=N (2), PROM_OUTAGES="ALARM ..."
#
# One line a check, then: N passed, N failed. Logs: build/prometheus.

set -u -o pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$top/scripts/lib.sh"
case ${1:-} in
	-h | --help) sed -n '3,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
parts=("$@")
[ $# -gt 0 ] || parts=(outages NeonFoundLate quiet)
for part in "${parts[@]}"; do
	[[ " outages quiet NeonFoundLate " == *" $part "* ]] || fatal "unknown argument \"$part\" (see --help)"
done
choose_version
find_pg_config
PROMETHEUS_BIN=$("$top/scripts/prometheus") || exit 1
export PROMETHEUS_BIN

logs=$top/build/prometheus
rm -rf "$logs"
mkdir -p "$logs" "${CHECK_DIR:-/var/tmp}" || exit 1
# servers' user may not be allowed into the tree
work=$(mktemp -d "${CHECK_DIR:-/var/tmp}/nc_prom.XXXXXX") || exit 1
child=
cleanup() {
	local rc=$?
	trap - EXIT INT TERM HUP
	if [ -n "$child" ]; then
		kill -TERM -- "-$child" 2>/dev/null
		wait "$child" 2>/dev/null
	fi
	kill_servers "$work"
	rm -rf --one-file-system "$work"
	exit $rc
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
make -s -C "$top" PG_CONFIG="$PG_CONFIG" proxy >"$logs/proxy.log" 2>&1 || fatal "the fault proxy cannot be made: build/prometheus/proxy.log"
mkdir "$work/tree" "$work/tmp"
cp -R "$top/test" "$top/contrib" "$top/build/proxy/nc_proxy" "$work/tree/"
rm -rf "$work/tree/test/fuzz"
chmod -R a+rX "$work"
chmod 1777 "$work/tmp"
bindir=$("$PG_CONFIG" --bindir)
pgxs_perl=$(realpath "$(dirname "$("$PG_CONFIG" --pgxs)")/../test/perl")

run() {							# PART
	setsid "$BASH" -c ". '$top/scripts/lib.sh'
		SERVER_CWD='$work/tree' as_server_user env PATH='$bindir:$PATH' PG_CONFIG='$PG_CONFIG' NC_PROXY='$work/tree/nc_proxy' \
			TMPDIR='$work/tmp' TESTDIR='$work/tmp' TESTDATADIR='$work/tmp/check' TESTLOGDIR='$work/tmp/log' LC_ALL=C PGCTLTIMEOUT=300 \
			PERL5LIB='$pgxs_perl:$work/tree/test/perl' perl 'test/prometheus/$1.pl'" \
		>"$logs/$1.log" 2>&1 </dev/null &
	child=$!
	wait "$child"
	local rc=$?
	child=
	return $rc
}

passed=0 failed=0
not_ok() { failed=$((failed + 1)); printf 'not ok  %s\n' "$*"; }
ok() { passed=$((passed + 1)); printf 'ok      %s\n' "$*"; }

for part in "${parts[@]}"; do
	if [ "$part" = NeonFoundLate ]; then
		if PG_CONFIG=$PG_CONFIG CHECK_DIR=$work "$top/test/rules.sh" 389_figures_of_faults >"$logs/$part.log" 2>&1; then
			ok "$part"
		else
			tail -n 20 "$logs/$part.log" | sed 's/^/      /'
			not_ok "$part # build/prometheus/$part.log, build/rules"
		fi
		continue
	fi
	run "$part"
	rc=$?
	while IFS= read -r line; do
		case $line in
			'ok '*) ok "$part/${line#ok * - }" ;;
			'not ok '*) not_ok "$part/${line#not ok * - }" ;;
			'#  '*) printf '      %s\n' "$line" ;;
		esac
	done < <(grep -E '^(not )?ok |^#  ' "$logs/$part.log")
	[ $rc = 0 ] && grep -q '^1\.\.' "$logs/$part.log" || { tail -n 15 "$logs/$part.log" | sed 's/^/      /'; not_ok "$part/run # status $rc, build/prometheus/$part.log"; }
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
