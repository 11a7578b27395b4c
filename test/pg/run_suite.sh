#!/usr/bin/env bash
#
# Runs one of PostgreSQL's own suites on a stock server and on the compute of a
# developer cluster, both fresh and with the same settings, and compares the
# result files byte by byte. expected/ is not looked at: the suite may be a
# minor release away from the server.
#
#   test/pg/run_suite.sh [options]
#
#     --suite regress|isolation   which one (default regress)
#     --out DIR                   where results, logs and diffs go (must not exist;
#                                 default: a new directory below /var/tmp)
#     --source DIR                PostgreSQL's source (default: scripts/pg_source)
#     --conf KEY=VALUE            a setting of stock and compute, may be repeated
#     --ps-conf KEY=VALUE         a setting of the page servers, may be repeated
#     --shards N, --stripe-blocks N, --checksums
#     --hosts N                   page servers that each shard has (neon_dev init --hosts)
#     --disturb                   while the compute runs: its page servers are frozen and killed in turn,
#                                 one at a time (with --hosts 2 or more)
#     --neon-image                the compute begins anew from an image in Neon's form (docs/boot.md)
#     --flip-cache MB             while the compute runs: each second another random size limit of
#                                 its file cache, 0 to MB (with --conf neon_comm.lfc_size=...)
#     --tests "A B C"             only these tests, in this order (regress: put test_setup first)
#     --runs N                    at most N runs of each server (default 3): more than one is
#                                 made only if results differ
#     --stock-cache DIR           keep the stock server's results there and use them again
#     --against stock             compare stock with stock (tells which tests vary by themselves)
#     --neon-dev PATH             which neon_dev (default: the one in this tree)
#     --time-limit SECONDS        for one run of the suite (default 1800)
#     --keep                      keep the results of a run in which everything passed
#
# One line an item, then: N passed, N failed, N skipped. Status 1 if something failed.
#
# Verdict on a test whose results differ: both servers are run again. It passes if
# each result of the compute is one that stock gave too. It is skipped, with its
# diff, if stock and compute agreed in another run and what differs is the order
# of lines only. Else it failed.

set -u -o pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/lib.sh
. "$top/scripts/lib.sh"

suite=regress
out=
source_dir=
runs_max=3
shards=2
stripe=2048
checksums=
flip_cache=
neon_image=
hosts=
disturb=
tests=
stock_cache=
against=compute
neon_dev=$top/src/bin/neon_dev
keep=
time_limit=1800
conf=()
ps_conf=()

usage_fatal() { fatal "$1 (see --help)"; }

while [ $# -gt 0 ]; do
	case $1 in
		-h | --help) sed -n '3,40s/^# \{0,1\}//p' "$0"; exit 0 ;;
		--checksums) checksums=1; shift; continue ;;
		--neon-image) neon_image=1; shift; continue ;;
		--disturb) disturb=1; shift; continue ;;
		--keep) keep=1; shift; continue ;;
		--*) [ $# -ge 2 ] || usage_fatal "$1 needs a value" ;;
		*) usage_fatal "unknown argument \"$1\"" ;;
	esac
	case $1 in
		--suite) suite=$2 ;;
		--out) out=$(realpath -m "$2") ;;
		--source) source_dir=$(realpath -m "$2") ;;
		--conf) conf+=("$2") ;;
		--flip-cache) flip_cache=$2 ;;
		--ps-conf) ps_conf+=("$2") ;;
		--shards) shards=$2 ;;
		--stripe-blocks) stripe=$2 ;;
		--hosts) hosts=$2 ;;
		--tests) tests=$2 ;;
		--runs) runs_max=$2 ;;
		--stock-cache) stock_cache=$(realpath -m "$2") ;;
		--against) against=$2 ;;
		--neon-dev) neon_dev=$(realpath -m "$2") ;;
		--time-limit) time_limit=$2 ;;
		*) usage_fatal "unknown option \"$1\"" ;;
	esac
	shift 2
done
case $suite in
	regress | isolation) ;;
	*) usage_fatal "--suite is regress or isolation" ;;
esac

find_pg_config
bindir=$("$PG_CONFIG" --bindir)
pkglibdir=$("$PG_CONFIG" --pkglibdir)
driver_dir=$(dirname "$("$PG_CONFIG" --pgxs)")/../test
case $suite in
	regress) driver=$driver_dir/regress/pg_regress schedule=parallel_schedule ;;
	isolation) driver=$driver_dir/isolation/pg_isolation_regress schedule=isolation_schedule ;;
esac
[ -x "$driver" ] || fatal "$driver is missing: install postgresql-server-dev-$PG_MAJOR_WANTED"

# What both servers get besides the caller's settings. Sequential scans that start
# where another one is would make the order of rows a matter of luck on any server
# whose tables are large beside shared_buffers.
common=(max_prepared_transactions=10 max_replication_slots=20 max_wal_senders=10
	max_connections=100 wal_level=replica synchronize_seqscans=off listen_addresses=127.0.0.1
	"log_line_prefix=%m [%p] %b %q%a " log_checkpoints=on log_autovacuum_min_duration=-1)
settings=("${common[@]}" ${conf[@]+"${conf[@]}"})

# ---- a place that the server's user can write to

if [ -z "$out" ]; then
	out=$(mktemp -d "/var/tmp/nc_$suite.XXXXXX") || exit 1
else
	[ ! -e "$out" ] || [ -z "$(ls -A "$out")" ] || fatal "$out is not empty"
	mkdir -p "$out" || exit 1
fi
user=$(server_user)
[ "$(id -un)" = "$user" ] || chown "$user:" "$out"
chmod 755 "$out"
as_server_user test -w "$out" || fatal "user $user cannot write into $out"
SERVER_CWD=$out
sockets=$(mktemp -d /tmp/nc_suite.XXXXXX) || exit 1
[ "$(id -un)" = "$user" ] || chown "$user:" "$sockets"

running_stock=
running_cluster=
cleanup() {
	trap - EXIT INT TERM HUP
	end_driver
	[ -z "$running_stock" ] || stop_stock immediate
	[ -z "$running_cluster" ] || "$neon_dev" destroy -q -D "$running_cluster" >/dev/null 2>&1
	rm -rf "$sockets"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- the suite: copied, so that the server's user can read it wherever the tree is

prepare_suite() {
	[ -n "$source_dir" ] || source_dir=$("$top/scripts/pg_source") || exit 1
	[ -f "$source_dir/src/test/$suite/$schedule" ] || fatal "$source_dir has no src/test/$suite/$schedule"
	mkdir -p "$out/lib" && cp -R "$source_dir/src/test/$suite" "$out/suite" || exit 1
	if [ "$suite" = regress ]; then
		"${CC:-cc}" -O2 -w -fPIC -shared -I"$("$PG_CONFIG" --includedir-server)" \
			-o "$out/lib/regress.so" "$out/suite/regress.c" || fatal "cannot build regress.so"
		cp "$pkglibdir/refint.so" "$pkglibdir/autoinc.so" "$out/lib/" || exit 1
	fi
	if [ -n "$tests" ]; then
		printf 'test: %s\n' $tests >"$out/suite/chosen_schedule"
		schedule=chosen_schedule
	fi
	mapfile -t items < <(sed -n 's/^test: *//p' "$out/suite/$schedule" | tr -s ' ' '\n' | grep -v '^$')
	[ ${#items[@]} -gt 0 ] || fatal "no tests in $schedule"
	[ "$(id -un)" = "$user" ] || chown -R "$user:" "$out"
}

# ---- the two servers

stop_stock() {
	as_server_user "$bindir/pg_ctl" stop -s -w -t 600 -m "$1" -D "$running_stock/data" >/dev/null 2>&1
	rm -rf "$running_stock/data"
	running_stock=
}

start_stock() {					# RUN-DIR; sets pghost, pgport
	local s locale=C.UTF-8
	locale -a 2>/dev/null | grep -qix 'c\.utf-\?8' || locale=C
	as_server_user "$bindir/initdb" -D "$1/data" -U postgres -A trust -E UTF8 --locale="$locale" -N \
		${checksums:+-k} >"$1/initdb.log" 2>&1 || { tail -n 5 "$1/initdb.log" >&2; fatal "initdb failed"; }
	pghost=$sockets
	pgport=5432
	{
		for s in "${settings[@]}" "unix_socket_directories=$sockets" "port=$pgport" listen_addresses= ; do
			printf "%s = '%s'\n" "${s%%=*}" "${s#*=}"
		done
	} >>"$1/data/postgresql.conf"
	running_stock=$1
	as_server_user "$bindir/pg_ctl" start -s -w -t 120 -D "$1/data" -l "$1/stock.log" >/dev/null 2>&1 ||
		{ tail -n 5 "$1/stock.log" >&2; fatal "the stock server did not start"; }
}

# Without a file of a relation: each is laid when the suite uses it.
begin_anew() {					# RUN-DIR
	"$neon_dev" stop -q -D "$running_cluster" compute >>"$1/neon_dev.log" 2>&1 &&
		rm -rf "$running_cluster/compute" &&
		"$neon_dev" create-compute -D "$running_cluster" >>"$1/neon_dev.log" 2>&1 &&
		grep -q '^lengths=asked$' "$running_cluster/compute/neon_comm.skeleton" ||
		{ cat "$1/neon_dev.log" >&2; fatal "the compute did not begin anew"; }
}

start_compute() {				# RUN-DIR
	local s args=()
	for s in "${settings[@]}"; do args+=(--conf "$s"); done
	for s in ${ps_conf[@]+"${ps_conf[@]}"}; do args+=(--ps-conf "$s"); done
	running_cluster=$1/cluster
	[ -z "$neon_image" ] || args+=(--ps-conf neon_page_service.boot_image=neon)
	"$neon_dev" init -q -D "$running_cluster" --shards "$shards" --stripe-blocks "$stripe" \
		${hosts:+--hosts "$hosts"} ${checksums:+--checksums} --pg-config "$PG_CONFIG" "${args[@]}" >"$1/neon_dev.log" 2>&1 &&
		"$neon_dev" start -q -D "$running_cluster" >>"$1/neon_dev.log" 2>&1 ||
		{ cat "$1/neon_dev.log" >&2; fatal "the developer cluster did not start"; }
	[ -z "$neon_image" ] || begin_anew "$1"
	pghost=$(sed -n 's/^socket_dir=//p' "$running_cluster/neon_dev.conf")
	pgport=$(sed -n 's/^compute_port=//p' "$running_cluster/neon_dev.conf")
}

stop_compute() {				# RUN-DIR
	"$neon_dev" stop -q -D "$running_cluster" >>"$1/neon_dev.log" 2>&1 ||
		bad_ends+=("the cluster of ${1##*/} did not stop: $(tail -n 1 "$1/neon_dev.log")")
	cp "$running_cluster"/log/*.log "$1/" 2>/dev/null
	"$neon_dev" destroy -q -D "$running_cluster" >>"$1/neon_dev.log" 2>&1
	running_cluster=
}

bad_ends=()
flips=0
turns=0
disturbed=0
driver_group=

end_driver() {
	[ -n "$driver_group" ] || return 0
	kill -KILL -- "-$driver_group" 2>/dev/null
	driver_group=
}

# Another size limit for the compute's file cache.
change_cache() {				# RUN-DIR
	[ -n "$flip_cache" ] && [ -f "$1/cluster/compute/postmaster.pid" ] || return 0
	echo "neon_comm.lfc_size_limit = '$((RANDOM % (flip_cache + 1)))MB'" >>"$1/cluster/compute/postgresql.conf"
	kill -HUP "$(head -n 1 "$1/cluster/compute/postmaster.pid")"
	flips=$((flips + 1))
}

# A server's processes: what its postmaster has started has its pid for a parent.
tree_of() {						# DATA-DIR
	local pid
	pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) && echo "$pid" && pgrep -P "$pid"
}

# One page server after the other is frozen for some seconds, then killed and started again. A second a call.
disturb_page_servers() {		# RUN-DIR
	local n dir
	[ -n "$disturb" ] && [ -d "$1/cluster" ] || return 0
	n=$((turns / 10 % shards))
	dir=$1/cluster/page_server_$n
	case $((turns % 10)) in
		1) tree_of "$dir" | xargs -r kill -STOP 2>/dev/null; disturbed=$((disturbed + 1)) ;;
		4) tree_of "$dir" | xargs -r kill -CONT 2>/dev/null ;;
		6) "$neon_dev" kill -q -D "$1/cluster" page-server $n >>"$1/neon_dev.log" 2>&1; disturbed=$((disturbed + 1)) ;;
		7) "$neon_dev" start -q -D "$1/cluster" page-server $n >>"$1/neon_dev.log" 2>&1 ;;
	esac
	turns=$((turns + 1))
}

calm_page_servers() {			# RUN-DIR
	local n
	[ -n "$disturb" ] && [ -d "$1/cluster" ] || return 0
	for ((n = 0; n < shards; n++)); do
		tree_of "$1/cluster/page_server_$n" | xargs -r kill -CONT 2>/dev/null
	done
	"$neon_dev" start -q -D "$1/cluster" >>"$1/neon_dev.log" 2>&1
}

# Waits for the driver, but not for a suite that cannot end any more: each
# statement would run into its timeout after a server died.
watch_driver() {				# PID LABEL DEADLINE RUN-DIR
	local file servers=() p
	for file in "$4"/data/postmaster.pid "$4"/cluster/*/postmaster.pid; do
		# those that are disturbed end
		[ -n "$disturb" ] && [[ $file == */page_server_* ]] && continue
		[ -f "$file" ] && servers+=("$(head -n 1 "$file")")
	done
	while kill -0 "$1" 2>/dev/null; do
		[ -n "$driver_group" ] || driver_group=$(cat "$4/driver.pid" 2>/dev/null)
		if [ "$SECONDS" -gt "$3" ]; then
			bad_ends+=("$2: ended after $time_limit s")
			end_driver
		fi
		for p in "${servers[@]}"; do
			[ -d "/proc/$p" ] && [ "$(cut -d' ' -f3 "/proc/$p/stat" 2>/dev/null)" != Z ] && continue
			bad_ends+=("$2: a server ended in the middle of the suite")
			end_driver
			break
		done
		change_cache "$4"
		disturb_page_servers "$4"
		sleep 1
	done
	calm_page_servers "$4"
	wait "$1"
	driver_group=
}

run_once() {					# KIND NUMBER
	local run=$out/$1.$2 began=$SECONDS args
	if [ "$1" = stock ] && [ -n "$stock_cache" ] && [ -d "$stock_cache/stock.$2/results" ]; then
		cp -R "$stock_cache/stock.$2" "$run"
		return
	fi
	as_server_user mkdir -p "$run" || exit 1
	"start_${3:-$1}" "$run"
	args=(--host="$pghost" --port="$pgport" --user=postgres --bindir="$bindir"
		--inputdir="$out/suite" --outputdir="$run" --schedule="$out/suite/$schedule")
	case $suite in
		regress) args+=(--dlpath="$out/lib" --max-concurrent-tests=20 --dbname=regression) ;;
		isolation) args+=(--dbname=isolation_regression) ;;
	esac
	# Its exit status is about expected/, which does not matter here.
	# The driver leads its own session, so that all of it can be ended.
	as_server_user setsid bash -c 'echo $$ >"$0"; exec "$@"' "$run/driver.pid" \
		env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGOPTIONS \
		"$driver" "${args[@]}" >"$run/driver.log" 2>&1 </dev/null &
	watch_driver $! "$1, run $2" $((SECONDS + time_limit)) "$run"
	info "$1, run $2: $((SECONDS - began)) s${flip_cache:+, $flips changes of the cache so far}${disturb:+, page servers were disturbed $disturbed times}"
	if [ "${3:-$1}" = stock ]; then stop_stock fast; else stop_compute "$run"; fi
	if [ "$1" = stock ] && [ -n "$stock_cache" ]; then
		mkdir -p "$stock_cache" && cp -R "$run" "$stock_cache/"
	fi
}

# ---- comparing

result() { printf '%s/%s.%s/results/%s.out\n' "$out" "$1" "$2" "$3"; }

same() { cmp -s "$1" "$2"; }

same_lines() { cmp -s <(sort "$1") <(sort "$2"); }

# Does the compute's run K give what some stock run gave?
in_stock() {					# TEST K [same-function]
	local n
	for ((n = 1; n <= runs; n++)); do
		"${3:-same}" "$(result compute "$2" "$1")" "$(result stock "$n" "$1")" && return 0
	done
	return 1
}

all_in_stock() {				# TEST [same-function]
	local k
	for ((k = 1; k <= runs; k++)); do
		in_stock "$1" "$k" "${2:-same}" || return 1
	done
}

any_in_stock() {
	local k
	for ((k = 1; k <= runs; k++)); do
		in_stock "$1" "$k" && return 0
	done
	return 1
}

unresolved() {
	local t
	for t in "${items[@]}"; do
		all_in_stock "$t" || printf '%s\n' "$t"
	done
}

stock_varies() {
	local n
	for ((n = 2; n <= runs; n++)); do
		same "$(result stock 1 "$1")" "$(result stock "$n" "$1")" || return 0
	done
	return 1
}

show_diff() {					# TEST
	local k
	for ((k = 1; k <= runs; k++)); do
		in_stock "$1" "$k" && continue
		diff -u --label "stock/$1.out" --label "compute.$k/$1.out" \
			"$(result stock 1 "$1")" "$(result compute "$k" "$1")" >"$out/diffs/$1.$k.diff" 2>&1
		head -n 40 "$out/diffs/$1.$k.diff" | sed 's/^/      /'
		[ "$(wc -l <"$out/diffs/$1.$k.diff")" -le 40 ] || printf '      ... all of it: %s\n' "$out/diffs/$1.$k.diff"
		return
	done
}

passed=0 failed=0 skipped=0
ok()     { passed=$((passed + 1)); printf 'ok      %s\n' "$*"; }
not_ok() { failed=$((failed + 1)); printf 'not ok  %s\n' "$*"; }
skip()   { skipped=$((skipped + 1)); printf 'skip    %s\n' "$*"; }

judge() {						# TEST
	local t=$1 name="$suite/$1"
	if [ ! -s "$(result stock 1 "$t")" ]; then
		not_ok "$name # the stock server gave no result"
	elif [ ! -s "$(result compute 1 "$t")" ]; then
		not_ok "$name # the compute gave no result"
	elif all_in_stock "$t"; then
		if stock_varies "$t"; then ok "$name # varies on stock too"; else ok "$name"; fi
	elif any_in_stock "$t" && all_in_stock "$t" same_lines; then
		skip "$name # the order of lines differed in some of $runs runs, and not in others"
		show_diff "$t"
	else
		not_ok "$name # differs from stock in $runs run(s)$(stock_varies "$t" && echo '; stock varies too')"
		show_diff "$t"
	fi
}

# A FATAL that the suite provokes on stock too is no news on the compute.
normalised_fatals() { grep -hoE '(FATAL|PANIC):.*' "$@" 2>/dev/null | sed -E 's/[0-9]+/N/g' | sort -u; }

judge_logs() {
	local k lines known
	known=$(normalised_fatals "$out"/stock.*/stock.log)
	for ((k = 1; k <= runs; k++)); do
		[ "$against" != stock ] || break
		for log in "$out/compute.$k"/*.log; do
			case ${log##*/} in driver.log | initdb.log | neon_dev.log) continue ;; esac
			lines=$(scan_logs "$log" | while IFS= read -r line; do
				text=$(normalised_fatals <(printf '%s\n' "$line"))
				[ -n "$text" ] && [[ $text == FATAL* ]] && grep -qxF -- "$text" <<<"$known" && continue
				printf '%s\n' "$line"
			done)
			if [ -z "$lines" ]; then
				ok "$suite/log ${log#"$out"/}"
			else
				not_ok "$suite/log ${log#"$out"/}"
				head -n 10 <<<"$lines" | sed 's/^/      /'
			fi
		done
	done
	for line in ${bad_ends[@]+"${bad_ends[@]}"}; do
		not_ok "$suite/run # $line"
	done
}

# ---- run

prepare_suite
mkdir -p "$out/diffs"
info "$suite: ${#items[@]} tests; shards $shards, stripe $stripe${checksums:+, checksums}${neon_image:+, from a Neon image}${conf[*]:+, ${conf[*]}}${ps_conf[*]:+, page servers: ${ps_conf[*]}}"
runs=0
while [ "$runs" -lt "$runs_max" ]; do
	runs=$((runs + 1))
	run_once stock "$runs"
	if [ "$against" = stock ]; then
		run_once compute "$runs" stock
	else
		run_once compute "$runs"
	fi
	differing=$(unresolved)
	[ -n "$differing" ] || break
	info "differing so far: $(paste -sd' ' <<<"$differing")"
	[ ${#bad_ends[@]} = 0 ] || break
	# Many differences, or a server that broke, are not a matter of luck.
	[ "$(wc -l <<<"$differing")" -le 15 ] || break
done
for t in "${items[@]}"; do
	judge "$t"
done
judge_logs

if [ "$failed" = 0 ] && [ "$skipped" = 0 ] && [ -z "$keep" ]; then
	rm -rf "$out"
else
	info "results, diffs and logs: $out"
fi
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
