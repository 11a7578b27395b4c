#!/usr/bin/env bash
#
# What the simulation of the core, or the model of identity, proves is taken away,
# one entry of the catalogue (test/without/catalogue.pl) at a time, and must be missed.
#
#   test/mutants.sh simulation|identity [NAME...]
#
# Each is built from a copy of the files that the entry changes; the rest is linked as
# it is. One line an entry: "ok NAME # seed N: what broke", or "not ok NAME #
# survived". If no name is given, the whole must be clean first, or the rest proves
# nothing. The last line is "N passed, N failed", the status 1 if something failed.
set -u
cd "$(dirname "$0")/.." || exit 1
export MAKEFLAGS=

kind=${1:-}
case $kind in
	simulation) mk=(-f test/sim.mk BUILD=build/sim) program=sim dir=build/sim few=(--seeds 100) many=(--seeds 300) ;;
	identity) mk=(-C test/identity) program=identity_model dir=build/identity few=("${SEEDS:-400000}") many=(--without "${SEEDS:-400000}") ;;
	*) sed -n '3,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
shift
# as given, or those of the system
[ -z "${CC:-}" ] || mk+=(CC="$CC")
make=(make --no-print-directory -s -j "$(nproc)" "${mk[@]}")

# What a run says: "seed N: broken at 3.2 s, step 9: text".
without() {						# NAME WHAT
	local variant=$dir/without/$1 out rc broken
	rm -rf "$variant"
	if ! test/without/catalogue.pl apply "$1" "$variant" . ||
		! "${make[@]}" variant VARIANT="$variant" TOUCHED="$(cd "$variant" && find . -type f -printf '%P ')" >&2; then
		echo "not ok  $1 # cannot be built"
		return
	fi
	out=$("$variant/$program" "${many[@]}" 2>/dev/null)
	rc=$?
	if [ $rc = 1 ] && broken=$(grep -a ': broken' <<<"$out"); then
		echo "ok      $1 # $kind, $(sed -E 's/^(seed [0-9]+): broken( at [0-9.]+ s, step [0-9]+)?: /\1: /' <<<"$broken")"
	else
		echo "not ok  $1 # survived: $2"
	fi
	rm -rf "$variant"
}

# As it is.
whole() {
	local out
	if out=$("$dir/$program" "${few[@]}"); then
		echo "ok      none # with all of them nothing breaks"
	else
		echo "not ok  none # $(grep -a broken <<<"$out")"
	fi
}

all() {							# [NAME...]
	local name test what
	[ $# -gt 0 ] || whole &
	while IFS=$'\t' read -r name test _ what _; do
		# an entry may have other tests besides, and is listed with each
		[ "$test" = "$kind" ] || continue
		[ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
		while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
		without "$name" "$what" &
	done < <(test/without/catalogue.pl list "$kind")
	wait
}

"${make[@]}" "$([ "$kind" = simulation ] && echo build/sim/sim || echo ../../build/identity/identity_model)" || exit 1
all "$@" | tee "$dir/mutants.out"
passed=$(grep -c '^ok ' "$dir/mutants.out")
failed=$(grep -c '^not ok ' "$dir/mutants.out")
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
