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

# ---- servers

# Kills the servers whose data directories are below a directory.
kill_servers() {				# DIRECTORY
	local p cwd comm
	while IFS=$'\t' read -r p cwd; do
		[[ $cwd == "$1"/* ]] && read -r comm 2>/dev/null <"$p/comm" || continue
		[[ $comm != postgres* ]] || kill -KILL "${p#/proc/}" 2>/dev/null
	done < <(find /proc/[0-9]*/cwd -maxdepth 0 -printf '%h\t%l\n' 2>/dev/null)
}

# ---- packages

missing_packages() {
	local p
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s\n' "$p"
	done
}

# Installs what is missing and says so. Without root's rights it says what to run.
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
	# Debian would make and start a cluster of its own with the server package.
	local keep_out=
	if ! dpkg-query -W postgresql-common >/dev/null 2>&1 && [ ! -e /etc/postgresql-common ]; then
		as_root mkdir -p /etc/postgresql-common
		as_root sh -c 'echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf'
		keep_out=1
	fi
	# shellcheck disable=SC2086
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
		install --no-install-recommends $missing </dev/null >"${apt_log:=$(mktemp)}" 2>&1 || {
		tail -n 15 "$apt_log" >&2
		fatal "apt-get could not install: $missing"
	}
	[ -z "$keep_out" ] || info "no cluster of Debian's own was made (see /etc/postgresql-common/createcluster.conf)"
}

apt_lists_done=
apt_lists() {
	[ -z "$apt_lists_done" ] || return 0
	apt_lists_done=1
	info "fetching package lists"
	as_root apt-get -q update </dev/null >"${apt_log:=$(mktemp)}" 2>&1 ||
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
EXPECTED_LOG_LINES+='|terminating walreceiver|could not connect to the primary server|could not receive data from WAL stream'
EXPECTED_LOG_LINES+='|could not send (data|end-of-streaming message) to|connection to client lost'
EXPECTED_LOG_LINES+='|(database|role) ".*" does not exist|role ".*" is not permitted to log in|permission denied for database'
EXPECTED_LOG_LINES+='|database ".*" is not currently accepting connections|sorry, too many clients already|remaining connection slots are reserved|too many connections for (role|database))'
