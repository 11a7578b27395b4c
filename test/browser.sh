#!/usr/bin/env bash
#
# "neon_dev report" in a real browser, Debian's chromium without a window: a page about a cluster under load of which
# a page server is killed, and one about a bench. Each at 400 and 1600 pixels, light and dark: nothing is wider than the
# window, no text outside of its box, contrasts, nothing on the console, nothing asked of the network.
#
#   test/browser.sh       needs installed libraries (PG_CONFIG), and root if chromium is to be installed
#
# One line an item, then: N passed, N failed. Logs and pictures: build/browser.

set -u -o pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$top/scripts/lib.sh"
case ${1:-} in
	'') ;;
	-h | --help) sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
	*) fatal "unknown argument \"$1\" (see --help)" ;;
esac
command -v chromium >/dev/null || need_packages chromium fonts-dejavu-core
choose_version
find_pg_config

neon_dev=$("$PG_CONFIG" --bindir)/neon_dev
out=$top/build/browser
rm -rf "$out"
mkdir -p "$out" "${CHECK_DIR:-/var/tmp}" || exit 1
work=$(mktemp -d "${CHECK_DIR:-/var/tmp}/nc_browser.XXXXXX") || exit 1
chmod 755 "$work"
cleanup() {
	touch "$work/enough"
	"$neon_dev" destroy -q -D "$work/c" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# ---- pages

[ "$(id -un)" = "$(server_user)" ] || chown "$(server_user):" "$work"
"$neon_dev" init -q -D "$work/c" --page-servers 3 --conf shared_buffers=1MB --conf neon_comm.lfc_size=8MB &&
	"$neon_dev" start -q -D "$work/c" || exit 1
sql() { "$neon_dev" psql -D "$work/c" -XAtqc "$1"; }
sql "CREATE TABLE t AS SELECT g AS id, repeat('x', 700) AS f FROM generate_series(1, 40000) g" &&
	sql CHECKPOINT || exit 1
# reads until it is ended, whatever becomes of page servers
while [ ! -e "$work/enough" ]; do sql 'SELECT sum(id) FROM t; UPDATE t SET id = id WHERE id % 100 = 0' >/dev/null; done &
reader=$!
"$neon_dev" top -D "$work/c" --record "$out/looks" --iterations 6 >/dev/null &&
	"$neon_dev" kill -q -D "$work/c" page-server 2 &&
	"$neon_dev" top -D "$work/c" --record "$out/looks" --iterations 3 >/dev/null &&
	"$neon_dev" report -q --record "$out/looks" -o "$out/cluster.html" &&
	"$neon_dev" report -q --bench "$top/test/browser/results.json" -o "$out/bench.html" || exit 1
touch "$work/enough"
wait "$reader"
grep -c 'page server 2 is crashed' "$out/cluster.html" >/dev/null || { echo "no look met what was wrong" >&2; exit 1; }

# ---- what is wrong with them is found

# One with everything that must not be.
sed -e 's/<meta http-equiv[^>]*>//' -e '/prefers-color-scheme: dark/,/^}/d' \
	-e 's,<main>,<main><p style="color: #999">pale</p><p style="width: 2000px">wide</p><script>console.error("said")</script><img src="http://127.0.0.1:9/picture">,' \
	-e 's,</svg><div class="table,<text x="370" y="50">far to the right</text>&,' "$out/bench.html" >"$out/wrong.html"

passed=0 failed=0
item() {						# GOOD NAME WHY
	if [ "$1" = 0 ]; then passed=$((passed + 1)); printf 'ok      %s\n' "$2"; else failed=$((failed + 1)); printf 'not ok  %s # %s\n' "$2" "$3"; fi
}
"$top/test/browser/look.pl" chromium "$out" "$out/wrong.html" >"$out/wrong.log" 2>&1
for what in 'it is dark' 'not wider' 'no text outside' 'contrasts' 'asks nobody' 'nothing on the console'; do
	grep -q "^not ok  wrong-.*: $what" "$out/wrong.log"
	item $? "a page that is wrong is found: $what" "see $out/wrong.log"
done

# ---- how they are

"$top/test/browser/look.pl" chromium "$out" "$out/cluster.html" "$out/bench.html" >"$out/pages.log" 2>&1
status=$?
while IFS= read -r line; do
	case $line in
		'ok '*) item 0 "${line#ok      }" '' ;;
		'not ok '*) line=${line#not ok  }; item 1 "${line%% # *}" "${line#* # }" ;;
	esac
done <"$out/pages.log"
[ "$(grep -c ': nothing on the console' "$out/pages.log")" = 8 ] || { cat "$out/pages.log" >&2; item 1 'each page was looked at' "status $status, see $out/pages.log"; }
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
