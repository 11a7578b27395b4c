#!/usr/bin/env bash
#
# Counts the instructions that the communicator's engine executes for a page, with valgrind's
# callgrind and a page server in the same process, and compares them with bounds.
#
#   test/bench/instructions.sh [CASE...]
#   test/bench/instructions.sh --help
#
#   one_page      one process reads one page at a time: a turn for each
#   64_backends   64 processes read one page each, in one turn
#   readahead     one process reads 128 pages ahead in runs of 16
#
# The figure is that of nc_engine_tick() and all below it, libpq and the C library included, the
# kernel not: the difference of two runs, one with twice as many pages, so that the start does
# not count. It is nearly the same on every machine with the same compiler and libraries, and
# does not depend on load. The status is 1 if a case is above its bound.

set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

# About 8 % above what gcc 12 makes of it. 1024 of each are the copy of the page (rep movsq).
declare -A bound=([one_page]=4750 [64_backends]=3240 [readahead]=2450)
pages=3200

case ${1:-} in
	-h | --help) sed -n '3,18s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
[ $# -gt 0 ] || set -- one_page 64_backends readahead

mkdir -p build
{ make libnc_core.a && make -f test/bench/Makefile build/bench/instructions; } >build/instructions.log 2>&1 || {
	cat build/instructions.log
	exit 1
}

# Instructions in the engine for so many pages.
count() {						# CASE PAGES
	local out=build/instructions.$1.out
	valgrind -q --tool=callgrind --toggle-collect=nc_engine_tick --callgrind-out-file="$out" \
		build/bench/instructions "$1" "$2" >build/instructions.log 2>&1 || {
		cat build/instructions.log >&2
		return 1
	}
	sed -n 's/^totals: //p' "$out"
}

rc=0
for name; do
	if [ -z "${bound[$name]:-}" ]; then
		echo "there is no case \"$name\" (see --help)" >&2
		exit 2
	fi
	one=$(count "$name" $pages) && two=$(count "$name" $((2 * pages))) || exit 1
	each=$(((two - one) / pages))
	if [ "$each" -le 0 ]; then
		echo "$name: nothing was counted" >&2
		rc=1
	elif [ "$each" -gt "${bound[$name]}" ]; then
		echo "$name: $each instructions a page, more than ${bound[$name]}"
		rc=1
	else
		echo "$name: $each instructions a page, of ${bound[$name]}"
	fi
done
exit $rc
