#!/usr/bin/env bash
#
# Debian packages, from a tree to a purge. For each version, in a fresh Debian that has it:
#
# 1. scripts/deb builds the packages, and lintian finds neither errors nor warnings.
# 2. In another fresh one, without a compiler: apt installs them with what they need, dpkg finds what they
#    installed as it was, the demo runs (debian/tests/demo), and after remove and purge no file is there
#    that was not there before, or is not as it was, but those named at "listing" below.
#
#   test/packages.sh [--keep] [15|17|18...]
#
# Needs root, the right to mount (overlayfs), the network, and up to 3 GB below CHECK_DIR (default: a new
# directory below /var/tmp). --keep leaves the packages in CHECK_DIR/packages/NN. PACKAGES_BASE=DIR: where fresh
# systems DIR/NN are, made by "scripts/pg_chroot --minimal NN DIR/NN"; otherwise they are made and removed.
#
# One line an item, then: N passed, N failed. Logs: build/packages.

set -u -o pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$top/scripts/lib.sh"
cd "$top" || exit 1

keep=
versions=()
while [ $# -gt 0 ]; do
	case $1 in
		-h | --help) sed -n '3,18s/^# \{0,1\}//p' "$0"; exit 0 ;;
		--keep) keep=1 ;;
		*)
			versions_known | grep -xF -- "$1" >/dev/null || fatal "no version \"$1\"; there are $(say_versions)"
			versions+=("$1")
			;;
	esac
	shift
done
[ ${#versions[@]} -gt 0 ] || mapfile -t versions < <(versions_known)
[ "$(id -u)" = 0 ] || fatal "needs root: it makes systems and mounts them"

logs=$top/build/packages
mkdir -p "$logs" "${CHECK_DIR:-/var/tmp}" || exit 1
work=$(mktemp -d "${CHECK_DIR:-/var/tmp}/nc_packages.XXXXXX") || exit 1
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM HUP

passed=0 failed=0
result() {						# STATUS ITEM LOG
	if [ "$1" = 0 ]; then
		passed=$((passed + 1))
		printf 'ok      %s\n' "$2"
	else
		failed=$((failed + 1))
		tail -n 25 "$3" | sed 's/^/      /'
		printf 'not ok  %s # %s\n' "$2" "${3#"$top/"}"
	fi
}

# Runs a command in a system that is BASE and, above it, what earlier commands of the same NAME have changed. Its
# mounts and processes end with it. $work/$v/srv is its /srv.
in_system() {					# NAME COMMAND...
	local name=$1
	shift
	mkdir -p "$work/$v/$name"/{upper,work,all} "$work/$v/srv"
	# shellcheck disable=SC2016	# the inner shell's
	unshare --mount --ipc --pid --fork --kill-child --propagation private sh -c '
		base=$1 at=$2 srv=$3
		shift 3
		mount -t overlay -o "lowerdir=$base,upperdir=$at/upper,workdir=$at/work" overlay "$at/all" &&
			mount -t proc proc "$at/all/proc" && mount --rbind /dev "$at/all/dev" &&
			mount -t tmpfs -o mode=1777 tmpfs "$at/all/dev/shm" && mount --bind "$srv" "$at/all/srv" || exit 125
		cp -L /etc/resolv.conf "$at/all/etc/resolv.conf" 2>/dev/null
		exec chroot "$at/all" "$@"' sh "$base" "$work/$v/$name" "$work/$v/srv" \
		env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive NEON_DEV_PORTS="${NEON_DEV_PORTS:-20000-31999}" "$@" </dev/null
}

build() {
	mkdir -p "$work/$v/srv/tree" "$work/$v/srv/debs"
	tree_files | tar -cf - --null -T - | tar -xf - -C "$work/$v/srv/tree" || return 1
	in_system build sh -c 'apt-get -q update && cd /srv/tree && scripts/deb && cp build/deb/*.deb build/deb/*.changes build/deb/*.buildinfo /srv/debs'
}

check_lintian() {
	in_system build sh -c 'apt-get -q -y install --no-install-recommends lintian >/dev/null && lintian --allow-root --fail-on error,warning /srv/debs/*.changes'
}

# What the user does, in one shell, as root; "item STATUS NAME" are its results.
cat >"$work/use" <<'END'
set -u
cd /srv/debs || exit 1
rm -f ./*-dbgsym_*.deb
packages=$(for f in ./*.deb; do dpkg-deb -f "$f" Package; done)
item() { echo "item $*"; }

# All there is, but apt's, dpkg's and debconf's own records, their logs, and caches.
listing() {
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /srv -o -path /var/cache/apt -o -path /var/lib/apt -o \
		-path /var/log/apt -o -path /var/log/dpkg.log -o -path /var/log/alternatives.log -o -path /var/cache/debconf -o \
		-path '/var/lib/dpkg/status*' -o -path /var/lib/dpkg/available -o -path /var/lib/dpkg/lock -o -path '/var/lib/dpkg/triggers' -o \
		-path '/var/lib/dpkg/info/format' -o -path /var/cache/ldconfig -o -path /etc/ld.so.cache \) -prune -o \
		\( -type f -printf '%p %M %u:%g %s\n' -o -type l -printf '%p -> %l\n' -o -printf '%p %M %u:%g\n' \) | sort
}

apt-get -q update
needed=$(apt-get -s install --no-install-recommends ./*.deb | awk '$1 == "Inst" { print $2 }' | grep -vxF "$packages")
apt-get -q -y install --no-install-recommends $needed
item $? dependencies
! command -v cc gcc make; item $? no-compiler
listing >/srv/before
apt-get -q -y install --no-install-recommends ./*.deb; item $? install
dpkg -V $packages >/srv/verify; item $? verify
cat /srv/verify; [ ! -s /srv/verify ]; item $? nothing-differs
(cd /; neon_dev --version && neon_dev init --help && neon_demo --help); item $? help
sh -x /srv/tree/debian/tests/demo; item $? demo
[ -z "$(dpkg -V $packages)" ]; item $? nothing-differs-after-the-demo
apt-get -q -y remove $packages; item $? remove
dpkg --purge $packages; item $? purge
listing >/srv/after
diff /srv/before /srv/after; item $? nothing-stays
END

for v in "${versions[@]}"; do
	base=${PACKAGES_BASE:+$PACKAGES_BASE/$v}
	base=${base:-$work/$v/base}
	step "PostgreSQL $v, Debian $(suite_of "$v")"
	if [ ! -d "$base/etc" ]; then
		scripts/pg_chroot --minimal "$v" "$base" >"$logs/base_$v.log" 2>&1
		result $? "$v/fresh-system" "$logs/base_$v.log"
	fi
	build >"$logs/build_$v.log" 2>&1
	rc=$?
	result $rc "$v/build" "$logs/build_$v.log"
	if [ $rc = 0 ]; then
		check_lintian >"$logs/lintian_$v.log" 2>&1
		result $? "$v/lintian" "$logs/lintian_$v.log"
		cp "$work/use" "$work/$v/srv/use"
		in_system use bash /srv/use >"$logs/use_$v.log" 2>&1
		result $? "$v/use" "$logs/use_$v.log"
		grep -q '^item [0-9]* nothing-stays' "$logs/use_$v.log"
		result $? "$v/came-to-the-end" "$logs/use_$v.log"
		while read -r _ status name; do
			result "$status" "$v/$name" "$logs/use_$v.log"
		done < <(grep -E '^item [0-9]+ ' "$logs/use_$v.log")
	fi
	if [ -n "$keep" ]; then
		mkdir -p "${CHECK_DIR:-/var/tmp}/packages/$v"
		cp "$work/$v"/srv/debs/* "${CHECK_DIR:-/var/tmp}/packages/$v/"
	fi
	rm -rf --one-file-system "${work:?}/$v"
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
