#!/usr/bin/env bash
#
# The suites on a server with a storage-manager hook (18: it registers storage managers), entered through
# it; and that a library that was built for the other kind of server says so, both ways.
#
#   test/hook.sh [STAGE,...]     stages of scripts/check --brief (default: installcheck, tap, regress, isolation).
#                                Needs stock libraries that are installed (PG_CONFIG), and gcc
#
# The server is built from Debian's source and test/hook/postgresql-NN.patch (scripts/pg_hook) unless it is
# there; what is built for it, in a copy of the tree. PostgreSQL's suites compare it with itself without
# neon_comm. Without a patch for the version there is nothing to do.
# One line an item, then: N passed, N failed. Logs: build/hook.

set -u -o pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$top/scripts/lib.sh"
stages=installcheck,tap,regress,isolation
case ${1:-} in
	'') ;;
	-h | --help) sed -n '3,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
	-*) fatal "unknown argument \"$1\" (see --help)" ;;
	*) stages=$1 ;;
esac
choose_version
find_pg_config
stock=$PG_CONFIG

passed=0 failed=0
ok()     { passed=$((passed + 1)); printf 'ok      %s\n' "$1"; }
not_ok() { failed=$((failed + 1)); printf 'not ok  %s\n' "$1"; }
finish() { printf '%d passed, %d failed\n' "$passed" "$failed"; [ "$failed" = 0 ]; exit; }

[ -e "$top/test/hook/postgresql-$PG_MAJOR_WANTED.patch" ] || { info "no patch for PostgreSQL $PG_MAJOR_WANTED"; finish; }
logs=$top/build/hook/log
mkdir -p "$logs" "${CHECK_DIR:-/var/tmp}" || exit 1
work=$(mktemp -d "${CHECK_DIR:-/var/tmp}/nc_hook.XXXXXX") || exit 1
child=
cleanup() {
	local rc=$?
	trap - EXIT INT TERM HUP
	[ -z "$child" ] || { kill -TERM -- "-$child" 2>/dev/null; wait "$child" 2>/dev/null; }
	kill_servers "$work"
	rm -rf "$work"
	exit $rc
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$work"
mkdir "$work/run"
[ "$(id -un)" = "$(server_user)" ] || chown "$(server_user):" "$work/run"

hook=$("$top/scripts/pg_hook") || { not_ok server; finish; }
ok server

tree=$work/tree
mkdir "$tree"
(cd "$top" && tree_files | cpio -0pdm --quiet "$tree")
chmod -R a+rX "$tree"
if make -C "$tree" -j2 PG_CONFIG="$hook" all install >"$logs/build.log" 2>&1 </dev/null &&
	make -C "$tree/test/hook" PG_CONFIG="$hook" install >>"$logs/build.log" 2>&1 </dev/null; then
	ok build
else
	tail -n 15 "$logs/build.log" | sed 's/^/      /'
	not_ok build
	finish
fi

# ---- a library for the other kind of server

refused() {						# NAME PG_CONFIG LIBRARY TEXT
	local data=$work/run/$1 bin log=$logs/$1.log library=$work/run/$1_$(basename "$3")
	bin=$("$2" --bindir)
	cp "$3" "$library" && chmod 644 "$library"
	as_server_user "$bin/initdb" -A trust -D "$data" >"$log" 2>&1 || { tail -n 5 "$log"; not_ok "$1"; return; }
	as_server_user "$bin/postgres" -D "$data" -c listen_addresses= -c unix_socket_directories="$work/run" \
		-c shared_preload_libraries="$library" </dev/null >>"$log" 2>&1
	if grep -q "FATAL: .*was built for servers $4" "$log" && grep -q 'HINT: .*with the headers of this server' "$log"; then
		ok "$1"
	else
		tail -n 5 "$log" | sed 's/^/      /'
		not_ok "$1"
	fi
}
for library in neon_comm neon_page_service; do
	refused "stock-$library-on-a-server-with-the-hook" "$hook" "$("$stock" --pkglibdir)/$library.so" \
		'without a storage-manager hook, and this server has one'
	refused "$library-for-the-hook-on-a-stock-server" "$stock" "$("$hook" --pkglibdir)/$library.so" \
		'with a storage-manager hook, and this server has none'
done

# ---- the suites

names=$(sed -n 's/^\([0-9a-z_]*\) .*/\1/p' "$tree/test/brief"; echo 397_hook; echo 398_other_smgr; echo 409_registered; echo 410_lsn_hooks; echo 411_dbsize_hook)
setsid env PG_CONFIG="$hook" TAP_TESTS="${TAP_TESTS:-$names}" CHECK_DIR="$work/run" \
	"$tree/scripts/check" --brief --only "$stages" >"$logs/check.log" 2>&1 </dev/null &
child=$!
wait "$child"
child=
while IFS= read -r line; do
	case $line in
		'ok '*) ok "${line#ok      }" ;;
		'not ok '*) not_ok "${line#not ok  }" ;;
	esac
done < <(grep -E '^(not )?ok ' "$logs/check.log")
rm -rf "$logs/check"
cp -R "$tree/build/check" "$logs/" 2>/dev/null
grep -qE '^[0-9]+ passed, ' "$logs/check.log" || { tail -n 15 "$logs/check.log" | sed 's/^/      /'; not_ok check; }
finish
