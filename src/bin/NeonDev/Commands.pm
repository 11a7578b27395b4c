# NeonDev::Commands - the one table of commands: what each is called, takes and does, and its help.
#
# To add a command: an entry in %commands and, for options that are new, in %options; its function returns
# the exit status. To add a setting that neon_dev writes: NeonDev::Settings.
package NeonDev::Commands;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Adopt;
use NeonDev::Backup;
use NeonDev::Base;
use NeonDev::Boot;
use NeonDev::Change;
use NeonDev::Cluster;
use NeonDev::Doctor;
use NeonDev::Export;
use NeonDev::Make;
use NeonDev::PageServers;
use NeonDev::Parts;
use NeonDev::Report;
use NeonDev::Restore;
use NeonDev::Root;
use NeonDev::Security;
use NeonDev::Settings;
use NeonDev::Status;
use NeonDev::Top;
use NeonDev::Upgrade;
use NeonDev::Verify;

our @EXPORT = qw(main);

my $help_main = <<'END';
neon_dev - a PostgreSQL whose tables live on page servers, on this machine

  neon_dev init    -D DIR [options]        make a new cluster
  neon_dev adopt   --from PGDATA -D DIR    make one from a cleanly stopped ordinary cluster
  neon_dev upgrade -D DIR --to MAJOR       make it one of a later PostgreSQL
  neon_dev start   -D DIR [PART]           start the page servers, then the compute
  neon_dev stop    -D DIR [PART]           stop the compute, then the page servers
  neon_dev restart -D DIR [PART]
  neon_dev kill    -D DIR [PART]           SIGKILL, as a crash would
  neon_dev create-compute -D DIR           makes the compute anew from a page server, its directory being lost
  neon_dev replace-compute -D DIR          puts a new compute, made of page servers, in place of the one that is there
  neon_dev add-page-server -D DIR          one more page server, a copy of another
  neon_dev remove-page-server N -D DIR     takes the last one away again
  neon_dev replace-page-server N -D DIR    makes a lost one anew, as a copy of another
  neon_dev move-page-server N --to DIR2 -D DIR    to another directory
  neon_dev write-quorum W -D DIR           how many page servers commits wait for
  neon_dev takeover -D DIR [PART]          lets a copied directory go on in place of its original
  neon_dev backup  -D DIR --to DIR2        a backup of a cluster that runs
  neon_dev archive -D DIR --to ARCHIVE     WAL is archived from now on
  neon_dev restore --from DIR2 --to DIR    a new cluster of a backup, up to a moment if one is given
  neon_dev export  -D DIR --to PGDATA      the way back: an ordinary PostgreSQL of what the cluster has
  neon_dev status  -D DIR [PART] [--json]  what runs, how far it is, what the compute holds
  neon_dev doctor  -D DIR [--json]         what is wrong, within seconds
  neon_dev top     -D DIR [options]        one screen, again and again: reads, page servers, who waits
  neon_dev report  -D DIR -o FILE          a page of HTML about the next minute, or about a record or bench
  neon_dev verify  -D DIR [--rate MB]      do page servers have the same?
  neon_dev psql    -D DIR [ARGS]           psql on the compute
  neon_dev conninfo -D DIR                 connection string of the compute
  neon_dev env     -D DIR                  lines for a shell: psql and neon_dev without more words
  neon_dev log     -D DIR [PART] [-f]      the end of a log
  neon_dev token   -D DIR [options]        a new token of the cluster's issuer (see init --auth)
  neon_dev destroy -D DIR                  stop everything and remove DIR

PART is "compute" or "page-server N"; without it the command means all of them.
-D may be left out when NEON_DEV_DIR is set.  neon_dev COMMAND --help tells more.
END

# ---- options: a value's name and check, where it goes

sub number
{
	my ($low, $high) = @_;
	return sub {
		my ($option, $value) = @_;
		$value =~ /^\d{1,9}\z/ or usage "$option needs a number, not \"$value\"";
		$value >= $low && $value <= $high or usage "$option must be between $low and $high, not $value";
		return $value + 0;
	};
}

sub matching
{
	my ($pattern, $complaint) = @_;
	return sub {
		my ($option, $value) = @_;
		$value =~ $pattern or usage sprintf $complaint, $value;
		return $value;
	};
}

sub setting
{
	my ($option, $value) = @_;
	$value =~ /^[A-Za-z_][A-Za-z0-9_.]*=/ or usage "\"$value\" is not of the form key=value";
	$value !~ /[\n\r\0]/ or usage 'a setting must be one line';
	return $value;
}

my $any = sub { return $_[1] };
my %options = (
	'-D' => { key => 'dir', value => $any },
	'--from' => { key => 'from', value => $any },
	'--to' => { key => 'to', value => matching(qr/^[1-9]\d\z/, '--to needs a major version, for example 17, not "%s"') },
	'--shards' => { key => 'shards', value => number(1, SHARDS_MAX) },
	'--page-servers' => { key => 'page_servers', value => number(1, SHARDS_MAX) },
	'--hosts' => { key => 'hosts', value => number(1, 8) },	# NC_HOSTS_MAX
	'--durable' => { key => 'durable', set => 1 },
	'--write-quorum' => { key => 'write_quorum', value => number(1, SHARDS_MAX) },
	'--stripe-blocks' => { key => 'stripe_blocks', value => number(1, 131072) },
	'--port' => { key => 'port', value => number(1024, 65535) },
	'--print-config' => { key => 'print_config', set => 1 },
	'--compute-address' => { key => 'compute_address', value => matching(qr/^[0-9A-Za-z.:-]+\z/, '"%s" is no address') },
	'--page-server-address' => { key => 'page_server_address', value => matching(qr/^[0-9A-Za-z.:-]+\z/, '"%s" is no address'), list => 1 },
	'--pg-config' => { key => 'pg_config', value => $any },
	'--conf' => { key => 'conf', value => \&setting, list => 1 },
	'--ps-conf' => { key => 'ps_conf', value => \&setting, list => 1 },
	'--initdb' => { key => 'initdb', value => $any, list => 1 },
	'--mode' => { key => 'mode', value => matching(qr/^(?:fast|immediate|smart)\z/, '--mode is fast, immediate or smart, not "%s"') },
	'-t' => { key => 'timeout', value => number(1, 86400) },
	'--scope' => { key => 'scope', value => matching(qr/^[a-z_]+\z/, '"%s" is not a scope') },
	'--tenant-id' => { key => 'tenant_id', value => matching(qr/^[0-9a-fA-F]{32}\z/, '--tenant-id needs 32 hexadecimal digits') },
	'--expires' => { key => 'expires', value => number(0, 999999999) },
	'--archive' => { key => 'archive', value => $any },
	'--archive-timeout' => { key => 'archive_timeout', value => number(1, 86400) },
	'--off' => { key => 'off', set => 1 },
	'--target-time' => { key => 'target_time', value => matching(qr/^\d{4}-\d\d-\d\d[^'\n]*\z/, '--target-time needs a date and a time, not "%s"') },
	'--target-lsn' => { key => 'target_lsn', value => matching(qr{^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}\z}, '--target-lsn needs an LSN, not "%s"') },
	'--days' => { key => 'days', value => number(0, 36500) },
	'--rate' => { key => 'rate', value => number(1, 100000) },
	'--relation' => { key => 'relation', value => $any },
	'--database' => { key => 'database', value => $any },
	'--checksums' => { key => 'checksums', set => 1 },
	'--lose-unconfirmed' => { key => 'lose_unconfirmed', set => 1 },
	'--keep' => { key => 'keep', set => 1 },
	'--auth' => { key => 'auth', set => 1 },
	'--tls' => { key => 'tls', set => 1 },
	'--install' => { key => 'install', set => 1 },
	'--json' => { key => 'format', set => 'json' },
	'--values' => { key => 'format', set => 'values' },
	'--interval' => { key => 'interval', value => number(1, 3600) },
	'--iterations' => { key => 'iterations', value => number(1, 999999999) },
	'--once' => { key => 'once', set => 1 },
	'--seconds' => { key => 'seconds', value => number(1, 86400) },
	'--bench' => { key => 'bench', value => $any },
	'-o' => { key => 'output', value => $any },
	'--record' => { key => 'record', value => $any },
	'--no-measure' => { key => 'measure', set => 0 },
	'-f' => { key => 'follow', set => 1 },
	'--quiet' => { key => 'quiet', set => 1 },
	'-q' => { key => 'quiet', set => 1 });
# Commands for which --to means something else.
my %to_directory = ('--to' => { key => 'to_dir', value => $any });
my %to_new = ('--to' => { key => 'dir', value => $any });
my @everywhere = qw(-D --quiet -q);

# ---- commands

my @for_new = qw(--shards --page-servers --hosts --durable --write-quorum --stripe-blocks --port --auth --tls --conf --ps-conf --pg-config);
my %commands = (
	init => { run => \&init, makes => 1, mends => 1, options => [ @for_new, qw(--checksums --initdb --print-config --compute-address --page-server-address) ], help => <<'END' },
neon_dev init -D DIR [options]

Makes a cluster in DIR, which must not exist or be empty; what an interrupted call has left there is removed.
Nothing runs afterwards.

  --shards N            shards that reads are spread over (default 2, at most 128)
  --page-servers N      page servers, at least one per shard (default: as many as shards); more are copies
                        that follow and are not read from, but with --hosts
  --hosts N             page servers that each shard is read from, the others when the first does not answer
                        (default 1, at most 8)
  --durable             a commit is acknowledged when page servers have it on disk (synchronous_standby_names),
                        so that it outlives the compute's disk; each page server has all data
  --write-quorum W      how many of them (default: more than half)
  --stripe-blocks N     blocks of 8 kB that stay together on a shard (default 2048)
  --port P              SQL port of the compute; the other ports are free ones after it
                        (default: all ports are free ones, between 20000 and 31999 or within
                        LOW-HIGH if NEON_DEV_PORTS says so)
  --checksums           page checksums (initdb -k)
  --auth                ports of page servers and WAL feed ask for a token; key pair and tokens are made
                        in DIR/security (needs openssl)
  --tls                 and speak TLS only; authority and certificate are made there, too
  --conf KEY=VALUE      a setting of the compute, may be repeated
  --ps-conf KEY=VALUE   a setting of every page server, may be repeated
  --initdb ARG          an argument for initdb, may be repeated
  --pg-config PATH      pg_config of the server to use
  --quiet               no progress lines
  --print-config        makes nothing, prints the configuration of parts on several machines: docs/two_hosts.md
  --compute-address A   for that: where the compute is
  --page-server-address A
                        for that: where a page server is; repeated for each
END
	adopt => { run => \&adopt, makes => 1, mends => 1, options => [ @for_new, '--from' ], help => <<'END' },
neon_dev adopt --from PGDATA -D DIR [options]

Copies a cleanly stopped cluster into DIR and makes a cluster of the copy; PGDATA itself is
only read. It must be of the same major version, shut down (not crashed, not a standby), and
without tablespaces that have a location.

The copy touches neither the original nor anything that the original talks to. Of its settings those
are kept that stay inside of a server; the others are named, and stand in compute/postgresql.conf
as comments. Replication slots are gone, subscriptions disabled and led nowhere, libraries that are not
known to keep to themselves are not loaded (--conf shared_preload_libraries=... loads them). pg_hba.conf
becomes "trust on this machine". What was there is kept as *.adopted.

  --from PGDATA         the data directory to copy
  --shards, --page-servers, --hosts, --durable, --write-quorum, --stripe-blocks, --port, --auth, --tls, --conf, --ps-conf,
  --pg-config, --quiet
                        as for init
END
	upgrade => { run => \&upgrade, options => [qw(--to --pg-config -t)], help => <<'END' },
neon_dev upgrade -D DIR --to MAJOR [--pg-config PATH] [-t SECONDS]

Makes the cluster, which must run, one of a later major version of PostgreSQL; stopped afterwards.
A copy of a page server becomes an ordinary server, pg_upgrade runs on that, and new parts are made of
the result, with the ports, keys and settings that there were. When the new compute answers what
the old one would, they take the places of the old ones, which are kept in DIR/old_N (N is the old major)
until somebody removes them. Until then nothing of the old cluster is changed.

What is in the way is said before anything is touched. If it fails or is interrupted, the old cluster is as it was;
after a kill -9 the next command, of whatever kind, sees to that, or goes on if the new one was good already.

  --to MAJOR            17, for example; neon_comm must be installed there
  --pg-config PATH      its pg_config (default: /usr/lib/postgresql/MAJOR/bin/pg_config)
  -t SECONDS            how long to wait for each part to stop or start (default 300)
END
	start => { run => \&start, part => 1, options => ['-t'], help => <<'END' },
neon_dev start -D DIR [compute | page-server N] [-t SECONDS]

Starts the page servers and then the compute, or one part, and logs in to each. What runs already is
left alone, and logged in to as well. -t is how long to wait for each part (default 300); that time
does not run while page servers replay WAL that the compute waits for.
END
	stop => { run => \&stop, part => 1, options => [ '--mode', '-t' ], help => <<'END' },
neon_dev stop -D DIR [compute | page-server N] [--mode fast|immediate|smart] [-t SECONDS]

Stops the compute and then the page servers, or one part. The mode is pg_ctl's (default fast).
END
	restart => { run => \&restart, part => 1, options => [ '--mode', '-t' ], help => <<'END' },
neon_dev restart -D DIR [compute | page-server N] [--mode fast|immediate|smart] [-t SECONDS]

Stops and starts, in the orders of stop and start.
END
	kill => { run => \&kill_chosen, part => 1, options => [], help => <<'END' },
neon_dev kill -D DIR [compute | page-server N]

Ends every process of the part with SIGKILL and waits until they are gone: a crash.
The next start recovers.
END
	takeover => { run => \&takeover, part => 1, options => [], help => <<'END' },
neon_dev takeover -D DIR [compute | page-server N]

Lets a part whose directory is a copy (moved, restored) go on in place of its original, after a start
has been refused because of that. Given up for good: the original, which must never be started again, and
what it wrote after the copy was made. Page servers that have more of the original than the copy refuse the copy:
then put the newest copy back. Without a part: the compute.
END
	'create-compute' => { run => \&create_compute, from_part => 1, options => [qw(--conf --lose-unconfirmed -t)], help => <<'END' },
neon_dev create-compute -D DIR [--from page-server N] [--lose-unconfirmed] [--conf KEY=VALUE]... [-t SECONDS]

For a cluster whose compute directory is lost: makes the compute anew from a page server, and starts it.
All page servers are started and asked; the one that has replayed most is taken. What no page server had
received is lost. Refused while DIR/compute is there or the compute runs. It cannot know of a copy of the lost
directory somewhere else, which must never be started again.

In a cluster made with --write-quorum W of N page servers, N - W + 1 of them have to promise that they take nothing
from the lost compute any more, and the best of these is taken: no commit is lost that was acknowledged, whatever
else is down. Fewer: refused, nothing is changed.

The configuration is what init or adopt gave the compute; what was changed in it since is lost with it.

  --from page-server N  from this one, which must have as much as the others
  --lose-unconfirmed    with fewer promises too; says from which LSN on commits may be gone
  --conf KEY=VALUE      a setting besides, may be repeated
  -t SECONDS            how long to wait for each part (default 300)
END
	'replace-compute' => { run => \&replace_compute, from_part => 1, options => [qw(--keep --lose-unconfirmed --conf -t)], help => <<'END' },
neon_dev replace-compute -D DIR [--from page-server N] [--keep] [--lose-unconfirmed] [--conf KEY=VALUE]... [-t SECONDS]

Puts a new compute in place of the one that is there, in a cluster made with --write-quorum: stops it in order, or
ends it with SIGKILL when that takes more than 30 s, then does what create-compute does. Refused before anything is
stopped when too few page servers answer. Interrupted, it can be called again.

  --keep                keeps the old directory, as DIR/compute_replaced; otherwise it is removed
  --from, --lose-unconfirmed, --conf, -t
                        as for create-compute
END
	'add-page-server' => { run => \&add_page_server, options => ['-t'], help => <<'END' },
neon_dev add-page-server -D DIR [-t SECONDS]

Adds a page server to a cluster that runs: a copy of another one, which is stopped until the new one follows. Reads
of its shard go to another page server meanwhile if shards have several (--hosts of init), else they wait.
The compute goes on. With --hosts the new one is a host of its shards, without it nobody reads from it. Interrupted,
the same command goes on.
END
	'remove-page-server' => { run => \&remove_page_server, number => 1, options => ['-t'], help => <<'END' },
neon_dev remove-page-server N -D DIR [-t SECONDS]

Removes page server N, its directory and its replication slot from a cluster that runs. It must be the last one,
and none that a shard has for its own. Interrupted, the same command goes on.
END
	'replace-page-server' => { run => \&replace_page_server, number => 1, options => ['-t'], help => <<'END' },
neon_dev replace-page-server N -D DIR [-t SECONDS]

Makes page server N anew, whether it is there, does not start, or is lost: a copy of another one takes its name, its
ports and its replication slot. The other one is stopped until the new one follows, see add-page-server. What was
there is removed then. Interrupted, the same command begins anew.
END
	'move-page-server' => { run => \&move_page_server, number => 1, to_dir => 1, options => ['-t'], help => <<'END' },
neon_dev move-page-server N --to DIR2 -D DIR [-t SECONDS]

Moves page server N of a cluster that runs to the directory DIR2, which must not exist; a link takes its place. It
is stopped meanwhile: reads go to another page server if shards have several (--hosts of init), else they wait.
Interrupted, the same command goes on.
END
	'write-quorum' => { run => \&change_write_quorum, quorum => 1, options => ['-t'], help => <<'END' },
neon_dev write-quorum W -D DIR [-t SECONDS]

Changes how many page servers have to confirm a commit (init --durable --write-quorum), while the cluster runs. Where they keep
the list of members, so many as before and so many as now have to confirm the change. Interrupted, the same command goes on;
called with the number of before it is taken back.
END
	backup => { run => \&backup, from_part => 1, own => \%to_directory, options => [qw(--to -t)], help => <<'END' },
neon_dev backup -D DIR --to DIR2 [--from page-server N] [-t SECONDS]

Makes a backup of a cluster that runs, with everything that is committed when the command is called: pg_basebackup of a
page server, with its WAL, checked by pg_verifybackup. DIR2 must not exist or be empty. The page server is started again
before and after, and the reads of its shard wait for that; one that nobody reads from is taken if there is one.
What an interrupted call has left in DIR2 is removed by the next.

  --to DIR2             where the backup shall be
  --from page-server N  a copy of this one
  -t SECONDS            how long to wait for each step of a part (default 300)
END
	archive => { run => \&archive, own => \%to_directory, options => [qw(--to --off --archive-timeout -t)], help => <<'END' },
neon_dev archive -D DIR --to ARCHIVE [--archive-timeout SECONDS] [-t SECONDS]
neon_dev archive -D DIR --off

Page servers archive the WAL that they have received to the directory ARCHIVE, all of them to the same, so that it is
whole when one is lost: restore goes on from a backup with it. They are started again one after the other, and the reads
of their shards wait for that.

  --to ARCHIVE          a directory; made if it is not there
  --archive-timeout S   the compute ends a segment so many seconds after something was written into it (default 300):
                        what is newer is not in the archive
  --off                 no more
END
	restore => { run => \&restore, makes => 1, mends => 1, own => \%to_new,
		options => [ @for_new, qw(--from --to --archive --target-time --target-lsn -t) ], help => <<'END' },
neon_dev restore --from BACKUP --to DIR [--archive ARCHIVE] [--target-time TIME | --target-lsn LSN] [options]

Makes a new cluster in DIR of a backup: with everything in the backup, and in the archive if one is named, or up to
TIME (a time zone belongs to it, else it is UTC) or LSN. It is a cluster of its own, with other ports, keys and another
birth: neither it nor the original follows or serves the other, and it archives nothing. Nothing runs afterwards.
The backup is checked first and only read. DIR must not exist or be empty; what an interrupted call has left there is
removed by the next.

  --archive ARCHIVE     where "neon_dev archive" has put WAL
  --target-time TIME    what was committed later is not there
  --target-lsn LSN      what comes later in WAL is not there
  --shards, --page-servers, --durable, --write-quorum, --stripe-blocks, --auth, --tls
                        as for init; without them as the original was
  --hosts, --port, --conf, --ps-conf, --pg-config, --quiet
                        as for init
  -t SECONDS            how long to wait for each step of a part (default 300)
END
	export => { run => \&export_cluster, from_part => 1, own => \%to_directory, options => [qw(--to -t)], help => <<'END' },
neon_dev export -D DIR --to PGDATA [--from page-server N] [-t SECONDS]

Makes an ordinary PostgreSQL of what the cluster has: with everything that is committed when the command is called, if
the compute runs; with all WAL of a compute that is stopped; with what page servers have of one that is lost.
PGDATA must not exist or be empty. The cluster goes on; a page server is started again before and after its
copy is made, and the reads of its shard wait for that.

The server has the settings of the compute that stay inside of a server, its pg_hba.conf, nothing of ours, and is stopped.
Its system identifier is the cluster's. Gone are the contents of unlogged tables and replication slots; subscriptions
are disabled and lead nowhere. What is made until it is whole is in PGDATA.neon_export.

  --to PGDATA           the data directory to make
  --from page-server N  a copy of this one
  -t SECONDS            how long to wait for each step of a part (default 300)
END
	status => { run => \&status, part => 1, options => [qw(--json --values --no-measure)], help => <<'END' },
neon_dev status -D DIR [compute | page-server N] [--json | --values] [--no-measure]

Shows state, process id, port, LSN, lag, connections and pages served of each part, and the
bytes of table data that the compute holds locally. A part runs when it lets neon_dev log in; one that
does not is "unreachable", and a line tells why.

That figure is measured by content: of every permanent main-fork file below the compute's
base/, global/ and pg_tblspc/ the parts that are not holes are read, and blocks of 8 kB that
hold anything but zeros are counted. Sequences (found by their page header too) are shown apart,
as they belong there. For page servers the figure is what the file system says is allocated.

  --json         as JSON
  --values       as part.key=value lines
  --no-measure   without reading files
Exit status: 0 if all of it runs, 3 if something does not.
END
	doctor => { run => \&doctor, options => [ '--json', '--days' ], help => <<'END' },
neon_dev doctor -D DIR [--days N] [--json]

Looks what is wrong with the cluster, a line each: processes, ports, logs, control files, disks, tokens, certificates,
each page server on its own port, and what neon_comm.check() of the compute finds, if it lets somebody in. Everything is
asked at once, and what has not answered after some seconds is said not to answer. Nothing is changed.

  --days N   tokens and certificates are to be good for longer (default: 30)
  --json     {"state": the worst one, "checks": [{item, subject, state, what, remedy}]}
Exit status: 0 if all lines are ok, 1 if one is not (warning, error, unknown), 2 for a wrong command line.
END
	top => { run => \&top, before => \&open_record, options => [qw(--interval --once --iterations --json --record)], help => <<'END' },
neon_dev top -D DIR [--interval S] [--once | --iterations N] [--json] [--record FILE]

Shows on one screen, again and again: what is wrong (lines that begin with "! "), pages read by where they came from and
how long that took, the local file cache, shards and their hosts, page servers with their lag, and who waits longest
for which page. It asks the exporters of all parts, so that it works when nobody can log in; names of relations come
from the compute while nothing is wrong. "q" ends it. When its output is no terminal it prints lines instead.

  --interval S      seconds between two looks (default 1); rates are those of that time
  --once            prints one screen, of two looks, and ends
  --iterations N    prints N of them
  --json            prints each as a line of JSON
  --record FILE     appends each to FILE as a line of JSON, too
END
	report => { run => \&report, before => \&open_report, alone => \&needs_no_cluster, options => [qw(-o --seconds --interval --record --bench)],
		help => <<'END' },
neon_dev report -D DIR -o FILE [--seconds N] [--interval S]
neon_dev report -o FILE --record RECORD
neon_dev report -o FILE --bench RESULTS

Writes a page of HTML with plots and their numbers: where pages come from and how long that takes, cache, lag of page
servers, who waited longest, and what was wrong when. The page needs nothing beside itself.

  -o FILE           where to write it; "-" is standard output
  --seconds N       looks at the cluster for so long (default 60)
  --interval S      seconds between two looks (default 1)
  --record RECORD   about what "top" has recorded (its --record)
  --bench RESULTS   about a finished bench: the results.json that test/bench writes
END
	verify => { run => \&verify, options => [qw(--rate --relation --database)], help => <<'END' },
neon_dev verify -D DIR [--rate MB] [--database NAME] [--relation NAME]

Compares what page servers have with each other, block by block, at one LSN, and their lengths with what the compute knows,
while the cluster runs. What differs is named, a line each. A block that only one page server is read for (without --hosts)
is looked at by itself. Interrupted, the same command goes on where it was.

  --rate MB         megabytes a second, of each page server (default: as fast as it goes)
  --database NAME   this database only
  --relation NAME   this relation only, of that database (default: postgres)
Exit status: 0 if page servers have the same, 1 if something was found or could not be compared.
END
	destroy => { run => \&destroy, removes => 1, options => [], help => <<'END' },
neon_dev destroy -D DIR

Stops everything at once (immediate) and removes DIR with all its data, and with what an upgrade has
kept. It also removes what an interrupted init, adopt, upgrade or destroy left.
END
	psql => { run => \&psql, rest => 1, options => [], help => <<'END' },
neon_dev psql -D DIR [ARGS]

Runs psql on the compute as its superuser, with the ARGS that follow.
END
	conninfo => { run => \&conninfo, options => [], help => <<'END' },
neon_dev conninfo -D DIR

Prints a libpq connection string for the compute: psql "$(neon_dev conninfo -D DIR)"
END
	env => { run => \&print_env, options => [], help => <<'END' },
neon_dev env -D DIR

Prints lines for a shell that has the cluster for its own from then on: eval "$(neon_dev env -D DIR)"
psql, pgbench and all that use libpq then talk to the compute (PGHOST, PGPORT, PGUSER, PGDATABASE), and
neon_dev needs no -D (NEON_DEV_DIR); NEON_DEV_METRICS are the addresses of exporters. PGHOSTADDR, PGSERVICE and PGSSLMODE, which would lead elsewhere, are unset.
END
	token => { run => \&token, options => [qw(--scope --tenant-id --expires --install)], help => <<'END' },
neon_dev token -D DIR [--scope SCOPE] [--tenant-id ID] [--expires SECONDS] [--install]

Prints a token signed with the key of a cluster made with --auth.

  --scope SCOPE         tenant (default), pageserverapi (page servers), safekeeperdata (WAL feed)
  --tenant-id ID        32 hexadecimal digits (default: the cluster's tenant)
  --expires SECONDS     from now on (default: never)
  --install             prints nothing, puts it where compute and page servers read it: the next
                        connect of each uses it
END
	log => { run => \&show_log, part => 1, options => ['-f'], help => <<'END' },
neon_dev log -D DIR [compute | page-server N] [-f]

Prints the end of the log of a part (default: the compute); -f follows it.
END
);

# ---- small commands

sub conninfo
{
	load_cluster();
	my $user = $cluster{superuser} =~ s/([\\'])/\\$1/gr;
	print "host=127.0.0.1 port=$cluster{compute_port} user='$user' dbname=postgres\n";
	return 0;
}

# Variables of libpq that go before a host, or that the compute cannot do.
my @elsewhere = qw(PGSERVICE PGHOSTADDR PGSSLMODE);

# Quoted as any Bourne shell takes it.
sub shell_word { my ($value) = @_; return q{'} . $value =~ s/'/'\\''/gr . q{'} }

sub print_env
{
	load_cluster();
	my @env = (NEON_DEV_DIR => $opt{dir}, PGHOST => '127.0.0.1', PGPORT => $cluster{compute_port}, PGUSER => $cluster{superuser},
		PGDATABASE => 'postgres', NEON_DEV_METRICS => join ' ', map { my $port = metrics_port($_); $port ? "127.0.0.1:$port" : () } 'compute', page_servers());
	while (my ($name, $value) = splice @env, 0, 2)
	{
		print "export $name=", shell_word($value), "\n";
	}
	print "unset @elsewhere\n";
	return 0;
}

sub replace_by
{
	my (@program) = @_;
	no warnings 'exec';
	exec { $program[0] } @program;
	return fail "cannot run $program[0]: $!";
}

# The caller's own variables hold, but for where to connect.
sub psql
{
	load_cluster();
	my %caller = user_environment();
	delete @caller{@elsewhere};
	%ENV = (%caller, (map { ($_ => $ENV{$_}) } grep { defined $ENV{$_} } qw(HOME USER LOGNAME)), PGHOST => $cluster{socket_dir}, PGPORT => $cluster{compute_port},
		PGUSER => $caller{PGUSER} // $cluster{superuser}, PGDATABASE => $caller{PGDATABASE} // 'postgres');
	return replace_by(program_of('psql'), @{ $opt{rest} });
}

sub show_log
{
	load_cluster();
	my $part = $opt{part} eq 'all' ? 'compute' : $opt{part};
	-f part_log($part) or fail part_log($part), ' does not exist yet';
	return replace_by('tail', '-n', 50, $opt{follow} ? '-f' : (), part_log($part));
}

# ---- the command line

sub set_part
{
	my ($name, $command, $part) = @_;
	$command->{part} or usage "a part does not belong to $name";
	$opt{part} eq 'all' or usage 'name one part only';
	$opt{part} = $part;
	return;
}

sub set_option
{
	my ($known, $option, $value) = @_;
	$opt{given}{ $known->{key} } = 1;
	if (!$known->{value}) { $opt{ $known->{key} } = $known->{set} }
	elsif ($known->{list}) { push @{ $opt{ $known->{key} } }, $known->{value}->($option, $value) }
	else { $opt{ $known->{key} } = $known->{value}->($option, $value) }
	return;
}

sub set_from
{
	my ($rest) = @_;
	@$rest > 1 && $rest->[0] eq 'page-server' or usage '--from needs "page-server N"';
	shift @$rest;
	$opt{from_page_server} = number(0, SHARDS_MAX - 1)->('page-server', shift @$rest);
	return;
}

sub set_number
{
	my ($word) = @_;
	$opt{part} eq 'all' or usage 'give one number only';
	$opt{part} = number(0, SHARDS_MAX - 1)->('the page server', $word);
	return;
}

sub help { my ($command) = @_; print $command->{help}; exit 0 }

sub parse_word
{
	my ($name, $command, $word, $rest) = @_;
	# --name=value is the same as --name value.
	if ($word =~ /^(--[a-z-]+)=(.*)$/s)
	{
		$word = $1;
		unshift @$rest, $2;
	}
	return help($command) if $word =~ /^(?:-h|--help)$/;
	return set_part($name, $command, 'compute') if $word eq 'compute';
	if ($word eq 'page-server')
	{
		@$rest or usage 'page-server needs a number';
		return set_part($name, $command, number(0, SHARDS_MAX - 1)->('page-server', shift @$rest));
	}
	return set_number($word) if $command->{number} && $word =~ /^\d/;
	return set_option($options{'--write-quorum'}, 'W', $word) if $command->{quorum} && $word =~ /^\d/;
	if ($command->{to_dir} && $word eq '--to')
	{
		@$rest && $rest->[0] ne '' or usage '--to needs a directory';
		$opt{to_dir} = shift @$rest;
		return;
	}
	return set_from($rest) if $word eq '--from' && $command->{from_part};
	my $known = ($command->{own} // {})->{$word} // $options{$word} or usage "unknown argument \"$word\"";
	grep { $_ eq $word } @everywhere, @{ $command->{options} } or usage "$word does not belong to $name";
	!$known->{value} || @$rest or usage "$word needs a value";
	return set_option($known, $word, $known->{value} ? shift @$rest : undef);
}

# psql's own arguments are not ours to judge: only a leading -D and --help are.
sub parse_rest
{
	my ($command, @words) = @_;
	while (@words)
	{
		if ($words[0] eq '-D')
		{
			@words > 1 or usage '-D needs a value';
			$opt{dir} = $words[1];
			splice @words, 0, 2;
		}
		elsif ($words[0] =~ /^(?:-h|--help)$/) { help($command) }
		else { last }
	}
	shift @words if @words && $words[0] eq '--';
	$opt{rest} = \@words;
	return;
}

sub parse
{
	my ($name, $command, @words) = @_;
	%opt = (%opt, dir => $ENV{NEON_DEV_DIR}, shards => 2, stripe_blocks => 2048, conf => [], ps_conf => [], initdb => [],
		mode => 'fast', timeout => 300, archive_timeout => 300, seconds => 60, scope => 'tenant', format => 'text', measure => 1, part => 'all');
	if ($command->{rest}) { parse_rest($command, @words) }
	else
	{
		while (@words) { parse_word($name, $command, shift @words, \@words) }
	}
	!$command->{number} || $opt{part} ne 'all' or usage "$name needs the number of a page server";
	!$command->{quorum} || defined $opt{write_quorum} or usage "$name needs the number of page servers that confirm";
	!$command->{to_dir} || defined $opt{to_dir} or usage "$name needs --to DIR";
	return if $command->{alone} && $command->{alone}->();
	defined $opt{dir} && $opt{dir} ne '' or usage '-D DIR is missing';
	$opt{dir} = absolute($opt{dir});
	foreach my $key (grep { defined $opt{$_} } qw(from to_dir archive))
	{
		$opt{$key} = absolute($opt{$key});
	}
	return;
}

sub run_command
{
	my ($name, @words) = @_;
	my $command = $commands{$name};
	parse($name, $command, @words);
	return print_config() if $opt{print_config};
	!defined $opt{compute_address} && !$opt{page_server_address} or usage 'addresses are of use with --print-config only';
	if ($command->{mends})
	{
		my $status = was_interrupted() ? as_right_user({ removes => 1 }, \&remove_interrupted) : 0;
		return $status if $status != 0;
	}
	fail "$opt{dir} is a cluster already, or what is left of one; \"neon_dev destroy -D $opt{dir}\" removes it"
	  if $command->{makes} && -f conf_file();
	$command->{before}->() if $command->{before};
	return $command->{run}->() if $command->{alone} && $command->{alone}->();
	return as_right_user($command, sub {
		settle() unless $command->{makes} || $command->{removes};
		return $command->{run}->();
	});
}

# main(directory of the program, arguments): the exit status.
sub main
{
	my ($here, @arguments) = @_;
	my $name = shift @arguments // '';

	$opt{here} = $here;
	clean_environment();
	if ($name =~ /^(?:help|-h|--help)$/) { print $help_main; return 0 }
	if ($name =~ /^(?:-V|--version)$/) { print "neon_dev 1.0\n"; return 0 }
	if (!$commands{$name})
	{
		warning "unknown command \"$name\"" if $name ne '';
		print STDERR $help_main;
		return 2;
	}
	my $status = eval { run_command($name, @arguments) };
	return $status if defined $status;
	my $failure = $@;
	warning ref $failure ? $failure->{text} : $failure =~ s/\n\z//r;
	return 1 unless ref $failure;
	warning "try: neon_dev $name --help" if $failure->{status} == 2;
	return $failure->{status};
}

1;
