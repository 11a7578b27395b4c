#!/usr/bin/env bash
#
# A first honest figure: the same work on a compute and on a stock server, in
# turn within one run, medians of ROUNDS.  Not a test: nothing here passes or fails.
#
#   test/bench/quick.sh [ROUNDS]          default 3; as root it runs the servers as postgres
set -u -o pipefail
rounds=${1:-3}
bindir=$("${PG_CONFIG:-pg_config}" --bindir)
work=$(mktemp -d /var/tmp/nc_bench.XXXXXX) || exit 1
as=()
[ "$(id -u)" != 0 ] || as=(runuser -u postgres --)
chmod 755 "$work"
[ "$(id -u)" != 0 ] || chown postgres "$work"
cd "$work" || exit 1
finish() {
	"${as[@]}" "$bindir/neon_dev" destroy -D "$work/c" --quiet >/dev/null 2>&1
	"${as[@]}" "$bindir/pg_ctl" -s -D "$work/stock" -m immediate stop >/dev/null 2>&1
	cd / && rm -rf "$work"
}
trap finish EXIT

buffers=16MB
"${as[@]}" "$bindir/neon_dev" init -D "$work/c" --quiet --conf shared_buffers=$buffers --conf autovacuum=off || exit 1
"${as[@]}" "$bindir/neon_dev" start -D "$work/c" --quiet || exit 1
compute=$("${as[@]}" "$bindir/neon_dev" conninfo -D "$work/c")
"${as[@]}" "$bindir/initdb" -D "$work/stock" -A trust -U postgres >/dev/null || exit 1
"${as[@]}" "$bindir/pg_ctl" -s -w -D "$work/stock" -l "$work/stock.log" \
	-o "-k $work -h '' -p 6544 -c shared_buffers=$buffers -c autovacuum=off" start || exit 1
stock="host=$work port=6544 user=postgres"

for c in "$compute" "$stock"; do
	"${as[@]}" pgbench -i -q -s 10 "$c dbname=postgres" >/dev/null 2>&1 || exit 1
done
tps() { "${as[@]}" pgbench -n -T 5 "${@:2}" "$1 dbname=postgres" 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p'; }
scan() {						# pages per second of a sequential scan
	"${as[@]}" psql -XqAt -d "$1 dbname=postgres" -c '\timing on' -c 'SELECT count(*) FROM pgbench_accounts' |
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | awk '{printf "%.0f\n", 16394 / $1 * 1000}'
}
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
row() {							# NAME FUNCTION ARGS...
	local name=$1 f=$2 a b r
	shift 2
	for r in $(seq "$rounds"); do
		"$f" "$compute" "$@" >>"$work/a"
		"$f" "$stock" "$@" >>"$work/b"
	done
	a=$(median <"$work/a") b=$(median <"$work/b")
	rm -f "$work/a" "$work/b"
	awk -v n="$name" -v a="$a" -v b="$b" 'BEGIN {printf "%-44s %12.0f %12.0f %8.2f\n", n, a, b, a / b}'
}
echo "shared_buffers=$buffers, pgbench scale 10 (about 128 MB), 2 shards on this machine, loopback, $(nproc) CPUs"
printf '%-44s %12s %12s %8s\n' "work" compute stock ratio
row 'point reads, 1 client, tps' tps -S -c 1
row 'point reads, 16 clients, tps' tps -S -c 16 -j 2
row 'TPC-B, 8 clients, tps' tps -c 8 -j 2
row 'sequential scan, pages/s' scan
