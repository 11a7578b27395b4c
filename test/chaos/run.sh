#!/usr/bin/env bash
#
# Runs test/chaos/chaos.pl on what is installed, as the user that servers run as.
#
#   test/chaos/run.sh [--minutes N] [--seed S] [--shards N] [--hosts N] [--workers N] [--keep]
#
# With --keep the cluster stays, below /var/tmp.
set -u -o pipefail
top=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
# shellcheck source=scripts/lib.sh
. "$top/scripts/lib.sh"
pg_config=${PG_CONFIG:-pg_config}
bindir=$("$pg_config" --bindir) || fatal "cannot run $pg_config"

make -s -C "$top/test/proxy" || fatal "cannot build the fault proxy"
work=$(mktemp -d "${CHECK_DIR:-/var/tmp}/nc_chaos.XXXXXX") || exit 1
case " $* " in *' --keep '*) ;; *) trap 'rm -rf "$work"' EXIT ;; esac
# the tree may be where that user cannot look
mkdir "$work/test"
cp -Rp "$top/test/perl" "$top/test/chaos" "$work/test/"
cp "$top/build/proxy/nc_proxy" "$work/"
chmod -R a+rX "$work"
[ "$(id -un)" = "$(server_user)" ] || chown -R "$(server_user):" "$work"
SERVER_CWD=$work as_server_user env PATH="$bindir:$PATH" PG_CONFIG="$pg_config" NC_PROXY="$work/nc_proxy" \
	TMPDIR="$work" LC_ALL=C perl "$work/test/chaos/chaos.pl" "$@"
