# NeonDev::UpgradeChecks - what an upgrade needs, asked before anything is touched.
package NeonDev::UpgradeChecks;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Change;
use NeonDev::Cluster;
use NeonDev::Content;
use NeonDev::Copy;
use NeonDev::Make;
use NeonDev::Parts;
use NeonDev::Processes;

our @EXPORT = qw(check_upgrade);

# Beside what each server has: what pg_upgrade runs.
my @programs = qw(pg_ctl pg_dump pg_dumpall pg_restore pg_resetwal vacuumdb);

# The server to go to: (directory of its programs, version).
sub check_server
{
	my $from = major_of($cluster{pg_version});
	my $pg_config = $opt{pg_config} // "/usr/lib/postgresql/$opt{to}/bin/pg_config";

	$opt{to} > $from or fail "$opt{dir} is of PostgreSQL $from: --to needs a later major than that";
	-x $pg_config or fail "there is no $pg_config: install PostgreSQL $opt{to}, or give --pg-config PATH";
	my ($bindir, $version) = server_of($pg_config, 'pg_upgrade', @programs);
	major_of($version) == $opt{to} or fail "$pg_config is of PostgreSQL $version, not $opt{to}";
	foreach my $name (grep { !-x program_of($_) } @programs)
	{
		fail 'there is no ', program_of($name), ", which pg_upgrade runs on the old server's side";
	}
	return ($bindir, $version);
}

# The new server itself judges the settings that it will be given.
sub check_settings
{
	my ($bindir) = @_;
	foreach my $part ('compute', page_servers())
	{
		my $result = run({}, "$bindir/postgres", '-D', part_data($part), '-C', 'port');
		next if $result->{status} == 0;
		my @lines = grep { /\S/ } split /\n/, $result->{err};
		s/^.*?(?:LOG|FATAL|ERROR):\s+// foreach @lines;
		fail "PostgreSQL $opt{to} does not take the settings of ", part_name($part), ': ', join('; ', @lines),
		  '. Change them first';
	}
	return;
}

sub check_runs
{
	foreach my $part ('compute', page_servers())
	{
		next if part_state($part) eq 'running';
		fail part_name($part), ' does not run: an upgrade begins with a cluster that runs and answers; ',
		  "\"neon_dev start -D $opt{dir}\" first";
	}
	return;
}

# What is found in the compute's catalogs, and why it is in the way: the query gives a list, or nothing.
my @in_the_way = (
	[ q{SELECT count(*) || ' of them' FROM pg_prepared_xacts HAVING count(*) > 0}, 'prepared transactions are open: end them first' ],
	[ q{SELECT string_agg(spcname, ', ') FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')},
		'there are tablespaces, which pg_upgrade cannot take over from a directory that was copied: move what is in them and drop them' ],
	[ q{SELECT string_agg(datname, ', ') FROM pg_database WHERE NOT datallowconn AND datname <> 'template0'},
		'databases that let nobody connect: pg_upgrade must' ],
	[ q{SELECT string_agg(datname, ', ') FROM pg_database WHERE datconnlimit = -2}, 'databases whose DROP DATABASE was interrupted: drop them' ],
	[ q{SELECT string_agg(name || ' is ' || state, ', ') FROM neon_comm.page_servers WHERE state NOT IN ('streaming', 'catchup')},
		'page servers that do not follow' ]);

sub check_catalogs
{
	my ($slots) = rows_of('postgres', 'SHOW neon_comm.wal_feed_slots');
	my $ours = join ',', map { "page_server_$_" } page_servers();
	$slots eq $ours or fail "the compute has page servers that neon_dev does not know ($slots): remove them first";
	foreach (@in_the_way)
	{
		my ($sql, $why) = @$_;
		my ($found) = rows_of('postgres', $sql);
		fail "$why ($found)" if ($found // '') ne '';
	}
	return;
}

# What the new cluster will not have; the old one is kept.
sub tell_losses
{
	foreach my $db (databases())
	{
		my ($unlogged) = rows_of($db, q{SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
			WHERE c.relkind IN ('r', 'S') AND c.relpersistence = 'u'});
		warning "unlogged relations of database $db will be empty, page servers have no content of them: $unlogged" if ($unlogged // '') ne '';
		my ($subscriptions) = rows_of($db, q{SELECT string_agg(subname, ', ') FROM pg_subscription
			WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())});
		warning "subscriptions of database $db will be disabled: $subscriptions" if ($subscriptions // '') ne '';
	}
	my ($slots) = rows_of('postgres', q{SELECT string_agg(slot_name, ', ') FROM pg_replication_slots
		WHERE slot_name <> ALL (string_to_array(current_setting('neon_comm.wal_feed_slots'), ','))});
	warning "replication slots will be gone: $slots" if ($slots // '') ne '';
	my ($cache) = rows_of('postgres', q{SELECT current_setting('neon_comm.lfc_path')
		WHERE current_setting('neon_comm.lfc_path') LIKE '/%' AND current_setting('neon_comm.lfc_size') <> '0'});
	warning "the local file cache will be off until the old one's file is removed: $cache and $cache.index" if ($cache // '') ne '';
	return;
}

# The new compute and its page servers are as many copies of a page server; a new major's catalogs, and its WAL, come on top.
sub check_space
{
	my $copies = 1 + page_servers();
	my $needed = $copies * (size_of(part_data(0)) + 100 * 1024);
	my $free = free_space($opt{dir});
	$free >= $needed or fail sprintf '%d MB are free where %s is, and %d copies of a page server need %d MB',
	  $free / 1024, $opt{dir}, $copies, $needed / 1024;
	return;
}

# Nothing is touched here: (directory of the new server's programs, its version).
sub check_upgrade
{
	my ($bindir, $version) = check_server();
	!-e kept_dir() && !-l kept_dir() or fail kept_dir(), ' is there, which an earlier upgrade has kept: remove or rename it first';
	check_settings($bindir);
	check_runs();
	check_catalogs();
	check_space();
	tell_losses();
	return ($bindir, $version);
}

1;
