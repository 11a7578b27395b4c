#!/usr/bin/env bash
#
# Every deliberate fault of nc/base/mutant.h must be caught by the simulation.
#
#   test/sim/mutants.sh SIM [SEEDS]
#
# SIM is the simulation built with -DNC_MUTANTS. One line a mutant: "ok NAME #
# simulation, seed N: what broke", or "not ok NAME # survived". The build without
# a mutant must be clean over the same seeds, or the rest proves nothing. The last
# line is "N passed, N failed", the status 1 if something failed.

set -u
sim=${1:?the simulation built with -DNC_MUTANTS}
seeds=${2:-300}
passed=0 failed=0

result() {						# WORD TEXT
	if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	printf '%-7s %s\n' "$1" "$2"
}

if out=$("$sim" --seeds 100); then
	result ok "none # the simulation passes without a mutant"
else
	result 'not ok' "none # $(grep broken <<<"$out")"
fi

while read -r name what; do
	out=$("$sim" --mutant "$name" --seeds "$seeds" 2>/dev/null)
	if [ $? = 1 ] && broken=$(grep -a ': broken' <<<"$out"); then
		seed=$(sed -nE 's/^seed ([0-9]+): broken.*/\1/p' <<<"$broken")
		broken=$(sed -E 's/^seed [0-9]+: broken( at [0-9.]+ s, step [0-9]+)?: //' <<<"$broken")
		result ok "$name # simulation, seed $seed: $broken"
	else
		result 'not ok' "$name # survived $seeds seeds: $what"
	fi
done < <("$sim" --mutants)

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
