# NeonDev::Upgrade - a cluster of a later major version, made of a page server's copy of this one.
#
# A compute has no contents, so that pg_upgrade has nothing to upgrade there; a page server is a standby with all of
# them. Its copy replays the compute's WAL to the end, becomes a server of its own, is upgraded, and is what the
# new parts are made of. What they were given, and where they are, stays (docs/upgrade.md).
package NeonDev::Upgrade;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Change;
use NeonDev::Cluster;
use NeonDev::Content;
use NeonDev::Make;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Settings;
use NeonDev::UpgradeChecks;

our @EXPORT = qw(upgrade);

# Programs work in this directory, and are found by it when nobody waits for them any more.
sub at_work { return { cwd => work_dir() } }

# ---- the old cluster

# The place in WAL of the compute's last record, the checkpoint of its shutdown.
sub stop_old
{
	local $opt{mode} = 'fast';
	foreach my $part ('compute', page_servers())
	{
		stop_part($part) or fail part_name($part), ' did not stop';
	}
	my $state = control_value(part_data('compute'), 'Database cluster state');
	$state eq 'shut down' or fail "the compute was not shut down cleanly (its state is \"$state\")";
	return control_value(part_data('compute'), 'Latest checkpoint location');
}

# The page server with the least to replay.
sub choose_page_server
{
	my %at;
	foreach my $n (page_servers())
	{
		control_value(part_data($n), 'Database cluster state') eq 'shut down in recovery' or next;
		$at{$n} = lsn_number(control_value(part_data($n), 'Latest checkpoint location'));
	}
	%at or fail 'no page server was shut down cleanly';
	return (sort { $at{$b} <=> $at{$a} || $a <=> $b } keys %at)[0];
}

# ---- an ordinary server of a page server's copy

my $hba = "local all all trust\n";

# Room for the locks of a dump of all that there is.
sub room_settings
{
	my $locks = configured('compute', 'max_locks_per_transaction');
	return setting_line('max_locks_per_transaction', $locks > 256 ? $locks : 256);
}

sub copy_page_server
{
	my ($n, $room) = @_;
	my ($from, $data) = (part_data($n), work_dir('ordinary/compute'));
	my $prepared = setting_line('max_prepared_transactions', configured($n, 'max_prepared_transactions'));

	progress "copying page server $n ...";
	copy_directory($from, $data, at_work());
	remove_traces($data, map { "$data/$_" } 'standby.signal', 'postgresql.auto.conf');
	# tablespaces that are directories may have been dropped since the last restartpoint
	write_file("$data/postgresql.conf", $room . $prepared . setting_line('hot_standby', 'off') . setting_line('allow_in_place_tablespaces', 'on'));
	write_file("$data/pg_hba.conf", $hba);
	write_file("$data/pg_ident.conf", '');
	write_file("$data/recovery.signal", '');
	return;
}

# The compute has kept all WAL that a page server does not have, and the checkpoint of its shutdown, which it sends
# to nobody. A shell runs the command; DIR has no quote.
sub wal_of_compute
{
	my ($wal) = @_;
	$wal =~ s/%/%%/g;
	return "cp '$wal/%f' '%p'";
}

# Replays to the end of the compute's WAL, its checkpoint record, and becomes a server of its own there: the
# content of the cluster. The new timeline begins where that record ends.
sub replay_to_the_end
{
	my ($checkpoint) = @_;
	my $wal = part_data('compute') . '/pg_wal';
	# not the first one if the cluster was adopted from a server that had been promoted
	my $timeline = control_value(part_data('compute'), "Latest checkpoint's TimeLineID");
	my $found;

	local $opt{parts} = work_dir('ordinary');
	progress 'replaying the WAL of the compute ...';
	run_as_stock(sub { $found = content() }, '-c', 'restore_command=' . wal_of_compute($wal), '-c', 'recovery_target_timeline=current');
	my $history = part_data('compute') . sprintf '/pg_wal/%08X.history', $timeline + 1;
	my ($end) = (slurp($history) // '') =~ m{^$timeline\t([0-9A-F/]+)\t}m;
	my $past = defined $end ? lsn_number($end) - lsn_number($checkpoint) : 0;
	$past > 0 && $past < 8192
	  or fail 'the copy has not replayed what the compute has: it came to ', $end // 'nowhere', ", the compute's last checkpoint is $checkpoint";
	return $found;
}

# ---- the new major

# What initdb fixes for good is as it was; a directory is described by its own server's program.
sub fixed_by_initdb
{
	my $old = part_data('compute');
	return (segment_mb => control_value($old, 'Bytes per WAL segment') / 1048576,
		checksums => control_value($old, 'Data page checksum version') ne '0');
}

# Locales are taken over by pg_upgrade.
sub make_new_directory
{
	my (%fixed) = @_;
	my $data = part_data('compute');

	progress "making a data directory of PostgreSQL $cluster{pg_version} ...";
	must_run('initdb failed', at_work(), program_of('initdb'), '-D', $data, '-U', $cluster{superuser}, '-A', 'trust', '-E', 'UTF8',
		'--locale=C', '-N', "--wal-segsize=$fixed{segment_mb}", checksum_arguments($fixed{checksums}));
	append("$data/postgresql.conf", $fixed{room});
	return;
}

# What it says is kept, and so are the files that it names.
sub run_pg_upgrade
{
	my ($old_bindir) = @_;
	my ($at, $log) = ("$cluster{upgrade_tmp}/at", "$opt{dir}/log/upgrade.log");

	progress 'running pg_upgrade ...';
	my $result = run(at_work(), program_of('pg_upgrade'), '-b', $old_bindir, '-B', $cluster{bindir}, '-d', "$at/ordinary/compute",
		'-D', "$at/new/compute", '-U', $cluster{superuser}, '-p', $cluster{compute_port}, '-P', $cluster{compute_port},
		'-s', $cluster{upgrade_tmp}, '--link', '--no-sync');
	return keep_script() if $result->{status} == 0;
	write_file($log, $result->{out} . $result->{err});
	my ($details, $kept) = (part_data('compute') . '/pg_upgrade_output.d', "$opt{dir}/log/pg_upgrade_output.d");
	if (-d $details)
	{
		run({}, 'rm', '-rf', '--', $kept);
		rename $details, $kept or fail "cannot move $details to $kept: $!";
	}
	show_end($result->{out} . $result->{err});
	return fail "pg_upgrade refused or failed: $log, and what it names as pg_upgrade_output.d is in $opt{dir}/log";
}

# It writes one where a server has newer versions of extensions.
sub keep_script
{
	my ($script, $kept) = (work_dir('update_extensions.sql'), work_dir('new/log/update_extensions.sql'));
	return unless -e $script;
	rename $script, $kept or fail "cannot move $script: $!";
	return progress "there are newer versions of extensions: $opt{dir}/log/update_extensions.sql updates them";
}

# The ordinary server shares its files with the new one from then on, and is no use any more.
sub upgrade_copy
{
	my ($old_bindir, %fixed) = @_;
	local $opt{parts} = work_dir('new');
	make_new_directory(%fixed);
	run_pg_upgrade($old_bindir);
	must_run('cannot remove the ordinary server', {}, 'rm', '-rf', '--', work_dir('ordinary/compute'));
	run_as_stock(sub { });			# pg_control gets its wal_level back
	read_control();
	return;
}

# ---- the new parts

my $of_the_server = qr{^(?:base|global|pg_[a-z_]+|PG_VERSION|postmaster\.(?:pid|opts)|postgresql\.auto\.conf\.tmp|current_logfiles|log|
	recovery\.conf|[a-z]+\.signal|backup_[a-z]+(?:\.old)?|tablespace_map(?:\.old)?|(?:neon_comm|neon_page_service)\..*|
	(?:compute|page_service)_.*|core.*)$}x;

# The files with settings, and what else somebody has put beside them: keys, included files. The file of a
# cache would be that of another cluster.
sub bring_files
{
	my ($part, $to) = @_;
	my $from = part_data($part);
	my $cache = configured_text($part, 'neon_comm.lfc_path');

	foreach my $path (directory_entries($from))
	{
		my $name = $path =~ s{.*/}{}r;
		next if $name =~ $of_the_server;
		must_run("cannot copy $path", {}, 'rm', '-rf', '--', "$to/$name");
		must_run("cannot copy $path", at_work(), 'cp', '-a', '--', $path, "$to/$name");
	}
	unlink "$to/$cache", "$to/$cache.index" if $cache ne '' && $cache !~ m{^/};
	return;
}

sub make_parts
{
	foreach my $n (page_servers())
	{
		my $data = work_dir('new', part_id($n));
		progress "copying the new data directory for page server $n ...";
		copy_directory(work_dir('new/compute'), $data, at_work());
		bring_files($n, $data);
		write_file("$data/standby.signal", '');
	}
	bring_files('compute', work_dir('new/compute'));
	local $opt{parts} = work_dir('new');
	write_marker();
	return;
}

# Nobody else comes in, and nothing that may be given up leaves.
my @closed = map { ('-c', $_) } 'listen_addresses=', 'archive_mode=off', 'max_logical_replication_workers=0';

sub start_new
{
	foreach my $n (page_servers())
	{
		start_part($n) or fail part_name($n), ' of the new cluster did not start';
	}
	start_part('compute', '-c', "unix_socket_directories=$cluster{socket_dir}", @closed) or fail 'the new compute did not start';
	my $until = monotonic() + $opt{timeout};
	while (1)
	{
		my ($others) = rows_of('postgres', q{SELECT count(*) FROM neon_comm.page_servers WHERE state <> 'streaming'});
		return if $others == 0;
		monotonic() < $until or fail 'the new page servers do not follow';
		pause(0.1);
	}
}

# The new compute answers, through the new page servers, what the old one would.
sub verify
{
	my ($before) = @_;
	local $opt{parts} = work_dir('new');
	progress 'comparing what the new cluster answers ...';
	start_new();
	my $difference = first_difference($before, content());
	fail "the new cluster has other contents: $difference" if defined $difference;
	local $opt{mode} = 'fast';
	foreach my $part ('compute', page_servers())
	{
		stop_part($part) or fail part_name($part), ' of the new cluster did not stop';
	}
	return;
}

# ---- the command

sub make_new_cluster
{
	my ($bindir, $version) = @_;
	my $old_bindir = $cluster{bindir};
	my $checkpoint = stop_old();
	my %fixed = (fixed_by_initdb(), room => room_settings());

	copy_page_server(choose_page_server(), $fixed{room});
	local $cluster{socket_dir} = $cluster{upgrade_tmp};
	local $opt{timeout} = $opt{timeout} > 3600 ? $opt{timeout} : 3600;
	my $before = replay_to_the_end($checkpoint);
	local @cluster{qw(bindir pg_version wal_dir checksums system_identifier)} = ($bindir, $version, '', @cluster{qw(checksums system_identifier)});
	upgrade_copy($old_bindir, %fixed);
	make_parts();
	verify($before);
	return save_new();
}

# What DIR/neon_dev.conf will be.
sub save_new
{
	local $cluster{state} = 'changing';
	local $cluster{socket_dir} = $opt{old_socket_dir};
	save_cluster(work_dir('new/neon_dev.conf'));
	run({}, 'sync', '-f', $opt{dir});
	return;
}

sub told
{
	my ($version, $kept) = @_;
	progress "done: $opt{dir} is a cluster of PostgreSQL $version. Next: neon_dev start -D $opt{dir}, and for the planner's statistics ",
	  'vacuumdb --all --analyze-in-stages';
	progress "What it was is in $kept (docs/upgrade.md: how to go back). When nobody needs it any more: rm -r $kept";
	return;
}

sub upgrade
{
	defined $opt{to} or usage '--to MAJOR is missing';
	load_cluster();
	hold_cluster();
	load_cluster();
	my ($bindir, $version) = check_upgrade();
	my $kept = kept_dir();
	my @signals = qw(INT TERM HUP);

	local @SIG{@signals} = (\&interrupted) x @signals;
	local $opt{old_socket_dir} = $cluster{socket_dir};
	my $made = eval { begin_upgrade(); make_new_cluster($bindir, $version); 1 };
	my $failure = $@;
	@SIG{@signals} = ('IGNORE') x @signals;
	return undone($failure) unless $made;
	set_state('changing');
	change_places();
	told($version, $kept);
	return 0;
}

# What servers that are gone have said.
sub keep_logs
{
	foreach my $from (map { directory_entries(work_dir($_, 'log')) } 'ordinary', 'new')
	{
		my $name = $from =~ s{.*/([^/]+)/log/}{upgrade_$1_}r;
		rename $from, "$opt{dir}/log/$name";
	}
	return;
}

sub undone
{
	my ($failure) = @_;
	warning ref $failure ? $failure->{text} : $failure;
	warning 'removing what was made so far';
	keep_logs();
	undo_upgrade();
	warning "$opt{dir} is as it was, but stopped: \"neon_dev start -D $opt{dir}\" starts it";
	return ref $failure ? $failure->{status} : 1;
}

1;
