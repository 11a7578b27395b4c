# NeonDev::Ordinary - an ordinary server made of a page server's copy.
#
# It recovers without our libraries, to the end of the WAL that it finds or to a target, and is of a timeline of
# its own from there on. Here "compute" is the directory of that copy, wherever $opt{parts} says.
package NeonDev::Ordinary;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Adopt;
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Copy;
use NeonDev::Make;
use NeonDev::Parts;
use NeonDev::Settings;

our @EXPORT = qw(recover_copy settings_source);

# A command that fetches WAL from a directory. A shell runs it; the path has no quote.
sub restore_from
{
	my ($wal) = @_;
	return 'false' unless defined $wal;
	$wal =~ s/%/%%/g;
	return "cp '$wal/%f' '%p'";
}

# A directory with the compute's files of settings. Of a lost compute they are put together in $scratch, which is made:
# what its configuration was before neon_dev added to it, as a page server has it, and what neon_dev added.
sub settings_source
{
	my ($n, $scratch) = @_;
	my ($compute, $from) = (part_data('compute'), part_data($n));

	return $compute if -e "$compute/postgresql.conf";
	mkdir $scratch, 0700 or fail "cannot make $scratch: $!";
	my $text = slurp("$from/postgresql.conf") // fail "cannot read $from/postgresql.conf";
	$text =~ s/^# ---- written by neon_dev\n.*//ms;
	write_file("$scratch/postgresql.conf", $text . (slurp(compute_conf()) // ''));
	foreach my $name ('pg_hba.conf', 'pg_ident.conf')
	{
		write_file("$scratch/$name", slurp("$from/$name") // fail "cannot read $from/$name");
	}
	return $scratch;
}

# Of the last timeline: where it began, which is where recovery ended.
sub end_of_recovery
{
	my $data = part_data('compute');
	my $timeline = control_value($data, "Latest checkpoint's TimeLineID");
	my $history = slurp(sprintf '%s/pg_wal/%08X.history', $data, $timeline) // fail 'recovery did not end';
	my ($lsn) = reverse $history =~ m{^\d+\t([0-9A-F/]+)\t}mg;
	return $lsn // fail 'recovery did not end';
}

# Recovers the copy with WAL from $wal as well (undef: only its own), does the work while it runs, and stops it: the
# LSN where recovery ended. Its configuration is that of recovery afterwards.
sub recover_copy
{
	my ($wal, $work, @target) = @_;
	my $data = part_data('compute');
	my $prepared = configured('compute', 'max_prepared_transactions');

	remove_traces($data, map { "$data/$_" } 'standby.signal', 'postgresql.auto.conf', 'backup_manifest');
	write_file("$data/postgresql.conf", join '',
		setting_line('max_prepared_transactions', $prepared > PREPARED_MAX ? $prepared : PREPARED_MAX),
		setting_line('hot_standby', 'off'),
		# those that are directories may have been dropped since the last restartpoint
		setting_line('allow_in_place_tablespaces', 'on'),
		setting_line('timezone', 'UTC'));
	write_file("$data/pg_hba.conf", "local all all trust\n");
	write_file("$data/pg_ident.conf", '');
	write_file("$data/recovery.signal", '');
	local $opt{timeout} = $opt{timeout} > 86400 ? $opt{timeout} : 86400;
	local $opt{adopted_preload} = '';
	progress 'recovering ...';
	run_as_stock($work, '-c', 'restore_command=' . restore_from($wal), '-c', 'recovery_target_timeline=current', @target);
	return end_of_recovery();
}

1;
