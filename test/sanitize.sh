#!/usr/bin/env bash
#
# Runs TAP tests on servers whose neon_comm libraries are built with
# AddressSanitizer and UndefinedBehaviorSanitizer. Builds a copy of the tree so,
# installs it, runs, and installs the tree it was called in again.
#
#   test/sanitize.sh [TEST...]     names of test/t without .pl; needs the right to install;
#                                  as root the tests run as postgres
#
# What a sanitizer says goes to the server's log, where each test looks for it.
# One line a test, then: N passed, N failed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
tree=$PWD
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
pg_config=${PG_CONFIG:-pg_config}
bindir=$("$pg_config" --bindir)
logs=$tree/build/sanitize
mkdir -p "$logs"

tests=("$@")
[ $# -gt 0 ] || tests=(010_end_to_end 040_command_ids 042_indexes 046_unlogged 072_frozen 073_pool 130_shadow)

restore() { make -C "$tree" install PG_CONFIG="$pg_config" >"$logs/restore.log" 2>&1; rm -rf "$copy"; }

copy=$(mktemp -d "${TMPDIR:-/var/tmp}/nc_sanitize.XXXXXX") || exit 1
trap restore EXIT
trap 'exit 130' INT TERM
flags='-fsanitize=address,undefined -fno-omit-frame-pointer -O1'
tree_files | cpio -0pdm --quiet "$copy"
if ! make -C "$copy" PG_CONFIG="$pg_config" EXTRA_CFLAGS="$flags" CORE_EXTRA_CFLAGS="$flags" install >"$logs/build.log" 2>&1; then
	tail -n 5 "$logs/build.log"
	echo "0 passed, 1 failed"
	exit 1
fi
# The server itself is Debian's, so the sanitizers' libraries come first by
# preloading, for it alone: a directory of programs as pg_config names it, in
# which postgres is a script. pg_ctl is copied because it looks beside itself.
# Memory that a process still has when it ends is PostgreSQL's way.
bin=$copy/sanitize_bin
mkdir "$bin"
for program in "$bindir"/*; do
	ln -s "$program" "$bin/"
done
rm -f "$bin"/{postgres,pg_ctl,pg_config,neon_dev}
cp "$bindir/pg_ctl" "$bindir/neon_dev" "$bin/"

# AddressSanitizer starts at the first malloc, where it asks for symbols that are
# not there, which makes messages, which takes gettext's lock. libgpg-error, a
# library of the server, calls malloc first under that very lock. Hence an own
# first call, before any other library's.
echo '#include <stdlib.h>
static void __attribute__((constructor)) first(void) { free(malloc(1)); }' |
	gcc -shared -fPIC -Wl,-z,initfirst -o "$bin/first.so" -x c - || exit 1
cat >"$bin/postgres" <<END
#!/bin/sh
export LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so):$bin/first.so
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1
exec $bindir/postgres "\$@"
END
cat >"$bin/pg_config" <<END
#!/bin/sh
[ "\$*" != --bindir ] || { echo $bin; exit; }
exec $(command -v "$pg_config") "\$@"
END
chmod -R a+rX "$copy"
chmod a+x "$bin/postgres" "$bin/pg_config"

perl5=$(dirname "$("$pg_config" --pgxs)")/../test/perl

run_test() {					# TEST; status of the test
	local cmd=(timeout -k 10 "${NEON_SANITIZE_SECONDS:-1800}" perl -I "$copy/test/perl" "$copy/test/t/$1.pl")

	local env=(env PATH="$bin:$PATH" PG_CONFIG="$bin/pg_config" HOME=/tmp PERL5LIB="$perl5")

	if [ "$(id -u)" = 0 ]; then
		(cd / && runuser -u postgres -- "${env[@]}" "${cmd[@]}")
	else
		"${env[@]}" "${cmd[@]}"
	fi </dev/null >"$logs/$1.log" 2>&1
}

passed=0 failed=0
for test in "${tests[@]}"; do
	run_test "$test"
	rc=$?
	if [ $rc = 0 ] && ! grep -qE 'AddressSanitizer|runtime error:' "$logs/$test.log"; then
		echo "ok      sanitize/$test # $(grep -cE '^ok ' "$logs/$test.log") checks"
		passed=$((passed + 1))
	else
		echo "not ok  sanitize/$test # status $rc, build/sanitize/$test.log"
		grep -E -m 10 'AddressSanitizer|runtime error:|^not ok' "$logs/$test.log" | sed 's/^/      /'
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
