#!/usr/bin/env bash
#
# docs/two_hosts.md, word for word, on two hosts: network namespaces with a cable between them, each with
# a directory of its own at the same path. Then rows that page servers must give back, the compute
# killed and started, the cable drawn and put back.
#
#   test/two_hosts.sh     needs root, and installed libraries (PG_CONFIG)
#
# Nothing of this machine's network is changed: all of it is in a namespace that ends with the script.
# One line an item, then: N passed, N failed. Logs: build/two_hosts.

set -u -o pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$top/scripts/lib.sh"
case ${1:-} in
	'') ;;
	-h | --help) sed -n '3,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
	*) fatal "unknown argument \"$1\" (see --help)" ;;
esac
[ "$(id -u)" = 0 ] || fatal "needs root: it makes network namespaces"
command -v ip >/dev/null || need_packages iproute2
choose_version
find_pg_config
[ -n "${NC_TWO_HOSTS:-}" ] || NC_TWO_HOSTS=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "$0"

bindir=$("$PG_CONFIG" --bindir)
logs=$top/build/two_hosts
rm -rf "$logs"
mkdir -p "$logs" "${CHECK_DIR:-/var/tmp}" || exit 1
work=$(mktemp -d "${CHECK_DIR:-/var/tmp}/nc_two.XXXXXX") || exit 1
user=$(server_user)
trap 'cp "$work"/*/*.log "$logs/" 2>/dev/null; rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM HUP

# ---- two hosts

export COMPUTE=10.77.0.1 PAGE_SERVER=10.77.0.2 DIR=$work/neon
mkdir "$work/a" "$work/b" "$DIR" "$work/bin"
chmod 755 "$work"
chown "$user:" "$work/a" "$work/b" "$DIR"
declare -A host
for h in a b; do
	unshare --net --mount --propagation private sh -c "mount --bind '$work/$h' '$DIR' && touch '$work/$h.up' && exec sleep infinity" &
	host[$h]=$!
	while [ ! -e "$work/$h.up" ]; do sleep 0.05; kill -0 "${host[$h]}" || exit 1; done
done
ip link add cable type veth peer name end && ip link set cable netns "${host[a]}" && ip link set end netns "${host[b]}" || exit 1

in_host() {						# HOST COMMAND...
	nsenter --target "${host[$1]}" --net --mount "${@:2}"
}
in_host a sh -c "ip link set lo up; ip addr add $COMPUTE/24 dev cable; ip link set cable up"
in_host b sh -c "ip link set lo up; ip addr add $PAGE_SERVER/24 dev end; ip link set end up"

# As the server's user; "ssh" is the way into the other host.
as_user() {						# HOST SHELL-TEXT
	in_host "$1" setpriv --reuid="$user" --regid="$user" --init-groups env -i PATH="$work/bin:$bindir:$PATH" HOME=/ LC_ALL=C.UTF-8 \
		COMPUTE=$COMPUTE PAGE_SERVER=$PAGE_SERVER DIR="$DIR" sh -ec "$2" </dev/null
}
mkfifo "$work/bin/way"
chown "$user:" "$work/bin/way"
printf '#!/bin/sh\nshift\n[ "$*" = "tar -xf - -C %s" ] || exit 1\ncat >%s\n' "$DIR" "$work/bin/way" >"$work/bin/ssh"
chmod 755 "$work/bin/ssh"

# ---- items

passed=0 failed=0
item() {						# NAME HOST SHELL-TEXT [WANTED OUTPUT]
	local got
	got=$(as_user "$2" "$3" 2>>"$logs/steps.log")
	if [ $? = 0 ] && { [ $# = 3 ] || [ "$got" = "$4" ]; }; then
		passed=$((passed + 1))
		printf 'ok      %s\n' "$1"
		return
	fi
	failed=$((failed + 1))
	printf '%s\n' "$got" | tail -n 5 | sed 's/^/      /'
	tail -n 10 "$logs/steps.log" | sed 's/^/      /'
	printf 'not ok  %s\n' "$1"
	return 1
}
recipe() {						# HOST-AND-NAME as in the document
	awk -v want="\`\`\`sh $1" '$0 == want { on = 1; next } /^```/ { on = 0 } on' "$top/docs/two_hosts.md"
}
sql="psql -XAtq -h $DIR -p 6000 -U postgres -v ON_ERROR_STOP=1 -c"
rows="$sql 'SELECT count(*), sum(id) FROM t'"

item keys a "$(recipe 'compute keys')" &&
	item data a "$(recipe 'compute data')" || exit 1
# the other end of the way
as_user b "tar -xf - -C $DIR <$work/bin/way" 2>>"$logs/steps.log" &
item send a "$(recipe 'compute send')" && wait $! &&
	item page-server b "$(recipe 'page-server start')" &&
	item compute a "$(recipe 'compute start')" || exit 1
item load a "$sql 'CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 400000) g' -c CHECKPOINT"
item only-on-the-page-server a "n=1; while [ \$n != 0 ]; do n=\$($sql CHECKPOINT -c 'SELECT neon_comm.sweep()'); done; $sql 'SELECT allocated FROM neon_comm.local_bytes()'" 0
item rows a "$sql \"ALTER SYSTEM SET shared_buffers = '1MB'\"; pg_ctl -D $DIR/compute -l $DIR/compute.log -w -t 300 restart >/dev/null; $rows" '400000|80000200000'
item over-the-cable a "$sql \"SELECT value > 3000 FROM neon_comm.counters WHERE name = 'reads_remote'\"" t
item tls-only a "! psql 'host=$PAGE_SERVER port=6002 user=x dbname=x sslmode=disable' -c 'show status' 2>/dev/null"
item token-only a "! psql 'host=$PAGE_SERVER port=6002 user=x dbname=x sslmode=require' -w -c 'show status' 2>/dev/null"
item killed-and-started a "kill -9 \$(head -n 1 $DIR/compute/postmaster.pid); pg_ctl -D $DIR/compute -l $DIR/compute.log -w -t 300 start >/dev/null; $rows" '400000|80000200000'
in_host a ip link set cable down
item no-cable-no-pages a "! PGOPTIONS='-c statement_timeout=3s' $rows 2>/dev/null"
in_host a ip link set cable up
item cable-again a "$rows" '400000|80000200000'
item stop a "pg_ctl -D $DIR/compute -w -t 300 stop"
item stop-page-server b "pg_ctl -D $DIR/page_server_0 -w -t 300 stop"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
