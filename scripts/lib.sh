# shellcheck shell=bash
#
# Functions that scripts/demo, scripts/check and test/pg/run_suite.sh share.
# Sourced, never run. Changes nothing by itself.

PG_MAJOR_WANTED=${PG_MAJOR_WANTED:-15}

step()  { printf '==> %s\n' "$*"; }
info()  { printf '    %s\n' "$*"; }
fatal() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# ---- rights

# Runs a command as root: directly, or through sudo when that needs no password
# or somebody sits at the terminal.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		sudo "$@"
	else
		return 127
	fi
}

can_be_root() { as_root true 2>/dev/null; }

# The user that servers run as: ourselves, or as root the user postgres, else nobody.
server_user() {
	if [ "$(id -u)" != 0 ]; then
		id -un
	elif id postgres >/dev/null 2>&1; then
		echo postgres
	else
		echo nobody
	fi
}

# Runs a command as that user, from a directory that it may be in.
as_server_user() {
	local user home
	user=$(server_user)
	if [ "$(id -un)" = "$user" ]; then
		"$@"
		return
	fi
	home=$(getent passwd "$user" | cut -d: -f6)
	(
		cd "${SERVER_CWD:-/}" || exit 1
		exec runuser -u "$user" -- env HOME="${home:-/}" USER="$user" LOGNAME="$user" "$@"
	)
}

# ---- versions

# Which Debian has which PostgreSQL.
suite_of() {					# MAJOR
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo forky ;;
		*) return 1 ;;
	esac
}

# The versions that this tree has code for.
versions_known() {
	local file
	for file in "$(dirname "${BASH_SOURCE[0]}")"/../src/smgr/abi_[0-9]*.c; do
		file=${file##*/abi_}
		echo "${file%.c}"
	done | sort -n
}

say_versions() {
	local v
	for v in $(versions_known); do
		printf '%s (Debian %s)\n' "$v" "$(suite_of "$v" || echo -)"
	done | paste -sd, | sed 's/,/, /g'
}

codename() {
	# shellcheck disable=SC1091
	(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
}

# This machine's version: what its Debian has, else what is installed. Fails if that is none of ours.
native_version() {
	local v
	for v in $(versions_known); do
		[ "$(suite_of "$v")" != "$(codename)" ] || { echo "$v"; return; }
	done
	for v in $(versions_known | tac); do
		[ ! -x "/usr/lib/postgresql/$v/bin/pg_config" ] || { echo "$v"; return; }
	done
	return 1
}

# Sets PG_MAJOR_WANTED: what PG_CONFIG is of, else this machine's version, else the first.
choose_version() {
	local v
	if [ -n "${PG_CONFIG:-}" ]; then
		v=$("$PG_CONFIG" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
		[ -n "$v" ] || fatal "PG_CONFIG=$PG_CONFIG is no pg_config"
		versions_known | grep -xF "$v" >/dev/null || fatal "PG_CONFIG=$PG_CONFIG is of PostgreSQL $v; this works with $(say_versions)"
	else
		v=$(native_version) || v=$(versions_known | head -n 1)
	fi
	PG_MAJOR_WANTED=$v
}

# What scripts/check needs, one a line.
check_packages() {				# MAJOR CODENAME
	local fuzzer=libclang-rt-14-dev
	case $2 in trixie | forky) fuzzer=libclang-rt-dev ;; esac
	printf '%s\n' "postgresql-$1" openssl cpio procps "postgresql-server-dev-$1" libpq-dev liburing-dev libssl-dev zlib1g-dev build-essential \
		pkg-config libcmocka-dev libipc-run-perl perl clang "$fuzzer" dpkg-dev valgrind
}

# What scripts/pg_cassert needs besides.
cassert_packages() { printf '%s\n' bison flex libicu-dev; }

# ---- servers

# Kills the servers whose data directories are below a directory.
kill_servers() {				# DIRECTORY
	local p cwd comm
	while IFS=$'\t' read -r p cwd; do
		[[ $cwd == "$1"/* ]] && read -r comm 2>/dev/null <"$p/comm" || continue
		[[ $comm != postgres* ]] || kill -KILL "${p#/proc/}" 2>/dev/null
	done < <(find /proc/[0-9]*/cwd -maxdepth 0 -printf '%h\t%l\n' 2>/dev/null)
}

# ---- the tree

# The tree's files but what is built, from its top, each ended by a NUL.  In a chroot there is no git.
tree_files() {
	if [ -e .git ]; then
		git ls-files -co --exclude-standard -z
	else
		built_nothing -print0
	fi
}

# What find prints of the tree's files but what is built.
built_nothing() {				# ACTION
	find . \( -name .git -o -name build -o -name 'tmp_*' -o -name __pycache__ \) -prune -o -type f \
		! -name '*.o' ! -name '*.so' ! -name '*.a' ! -name '*.bc' "$@"
}

# ---- packages

missing_packages() {
	local p
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s\n' "$p"
	done
}

# Installs what is missing; says first what and how much. Without root's rights it says what to run.
# packages_installed: those that were.
packages_installed=
need_packages() {
	local missing
	command -v dpkg-query >/dev/null || {
		info "this is not a Debian system; these have to be there already: $*"
		return 0
	}
	missing=$(missing_packages "$@" | paste -sd' ')
	[ -n "$missing" ] || return 0
	if ! can_be_root; then
		fatal "these packages are missing and only root can install them:" \
			$'\n'"    apt-get install $missing"
	fi
	step "installing packages: $missing"
	apt_lists
	check_installable "$missing"
	say_how_much "$missing"
	keep_out_cluster
	# shellcheck disable=SC2086
	apt_install $missing || {
		tail -n 15 "$apt_log" >&2
		[ -z "$keep_out" ] || as_root sh -c "rm -f '$cluster_conf'; rmdir '$(dirname "$cluster_conf")'" 2>/dev/null
		! grep -qE '^(E|Err|W):.*(Could not resolve|Temporary failure|Could not connect|Failed to fetch|Unable to fetch)' "$apt_log" ||
			fatal "these packages cannot be fetched, and none was installed: $missing." $'\n'"    Is the network there? apt-get update tells more"
		fatal "apt-get could not install: $missing"
	}
	packages_installed=$missing
	[ -z "$keep_out" ] || info "no cluster of Debian's own was made (see $cluster_conf)"
}

# What this system does not have fails before anything is changed.
check_installable() {			# PACKAGES
	# shellcheck disable=SC2086
	LC_ALL=C apt-get -q -s install --no-install-recommends $1 </dev/null >"$apt_log" 2>&1 && return
	grep '^E:' "$apt_log" >&2
	# shellcheck disable=SC1091
	fatal "$( (. /etc/os-release && echo "$PRETTY_NAME") 2>/dev/null || echo "this system") has not all of these packages: $1" \
		$'\n'"    This works with PostgreSQL $(say_versions). Elsewhere they come from https://apt.postgresql.org;" \
		"or install what is needed by other means and set PG_CONFIG"
}

# How many with what they need, how much of it is fetched, how much it takes on disk. Nothing that could install:
# apt-get is asked with -s or --print-uris only (it may be told somewhere to assume "yes").
say_how_much() {				# PACKAGES
	local names fetch disk ask=(env LC_ALL=C apt-get -q install --no-install-recommends)
	# shellcheck disable=SC2086
	names=$("${ask[@]}" -s $1 </dev/null 2>/dev/null | awk '$1 == "Inst" { print $2 }')
	[ -n "$names" ] || return 0
	# shellcheck disable=SC2086
	fetch=$("${ask[@]}" --print-uris $1 </dev/null 2>/dev/null | awk '/^\047[a-z]/ { sum += $3 } END { printf "%.0f", sum / 1e6 }')
	# shellcheck disable=SC2086
	disk=$(LC_ALL=C apt-cache show --no-all-versions $names 2>/dev/null | awk '$1 == "Installed-Size:" { sum += $2 } END { printf "%.0f", sum / 1e3 }')
	info "$(wc -w <<<"$names") packages with what they need: $fetch MB to fetch, $disk MB on disk"
}

# Debian would make and start a cluster of its own with the server package.
keep_out=
cluster_conf=${CREATECLUSTER_CONF:-/etc/postgresql-common/createcluster.conf}
keep_out_cluster() {
	! dpkg-query -W postgresql-common >/dev/null 2>&1 && [ ! -e "$(dirname "$cluster_conf")" ] || return 0
	as_root mkdir -p "$(dirname "$cluster_conf")"
	as_root sh -c "echo 'create_main_cluster = false' >'$cluster_conf'"
	keep_out=1
}

# It takes minutes, and says how far it is.
apt_install() {					# PACKAGE...
	set -o pipefail
	as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y \
		-o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
		install --no-install-recommends "$@" </dev/null 2>&1 | tee "$apt_log" |
		sed -unE 's/^Need to get (.*) of archives.*/    fetching \1/p; s/^Get:[0-9]+ [^ ]+ [^ ]+ [^ ]+ ([^ ]+) .*/    fetched \1/p
			s/^Setting up ([^ ]+).*/    setting up \1/p'
}

apt_lists_done=
apt_lists() {
	[ -z "$apt_lists_done" ] || return 0
	apt_lists_done=1
	info "fetching package lists"
	: "${apt_log:=$(mktemp)}"
	as_root apt-get -q update </dev/null >"$apt_log" 2>&1 ||
		info "apt-get update complained; going on with what there is ($apt_log)"
}

# ---- the server

find_pg_config() {
	local candidate
	for candidate in "${PG_CONFIG:-}" "/usr/lib/postgresql/$PG_MAJOR_WANTED/bin/pg_config" pg_config; do
		[ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
		PG_CONFIG=$(command -v "$candidate")
		export PG_CONFIG
		return 0
	done
	fatal "there is no pg_config: install postgresql-server-dev-$PG_MAJOR_WANTED or set PG_CONFIG"
}

# ---- logs

# Prints the lines of server logs that should not be there. Arguments: files.
# SCAN_ALLOW may hold an extended regular expression of lines that are expected.
scan_logs() {
	local file
	for file in "$@"; do
		[ -f "$file" ] || continue
		grep -nE 'PANIC:|FATAL:|could not read block|TRAP:|AddressSanitizer|LeakSanitizer|runtime error:|was terminated by signal|verification failed' \
			"$file" 2>/dev/null |
			grep -vE "$EXPECTED_LOG_LINES" |
			if [ -n "${SCAN_ALLOW:-}" ]; then grep -vE "$SCAN_ALLOW"; else cat; fi |
			sed "s|^|$file:|"
	done
}

# shellcheck disable=SC2089,SC2090	# a regular expression, not a command
# What a healthy server says when it is started, stopped or asked for something
# that is not there.
EXPECTED_LOG_LINES='FATAL:  (the database system is (starting up|shutting down|in recovery mode|not yet accepting connections)'
EXPECTED_LOG_LINES+='|terminating (connection|autovacuum process|background worker "[^"]*"|walreceiver process|walsender process|logical replication worker).* due to (administrator command|unexpected postmaster exit|immediate shutdown command|idle-session timeout|idle-in-transaction timeout|crash of another server process|conflict with recovery)'
EXPECTED_LOG_LINES+='|terminating walreceiver|(streaming replication receiver "[^"]*" )?could not connect to the primary server|could not receive data from WAL stream'
EXPECTED_LOG_LINES+='|could not send (data|end-of-streaming message) to|connection to client lost'
EXPECTED_LOG_LINES+='|(database|role) ".*" does not exist|role ".*" is not permitted to log in|permission denied for database'
EXPECTED_LOG_LINES+='|database ".*" is not currently accepting connections|sorry, too many clients already|remaining connection slots are reserved|too many connections for (role|database))'
