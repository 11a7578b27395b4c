# NeonDev::Restore - a new cluster of a backup, up to the end of the WAL that there is, or to a moment.
#
# The backup recovers as an ordinary server and is then made into a cluster as an adopted one is. It has names, ports and
# keys of its own and, from its first start on, another birth than the original (docs/identity.md): neither
# follows or serves the other.
package NeonDev::Restore;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Adopt;
use NeonDev::Backup;
use NeonDev::Base;
use NeonDev::Change;
use NeonDev::Cluster;
use NeonDev::Copy;
use NeonDev::Make;
use NeonDev::Ordinary;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Settings;

our @EXPORT = qw(restore was_interrupted remove_interrupted);

# Is there what an interrupted call has left? One that was ended before it had written a word left a file of no use.
sub was_interrupted
{
	return 1 if (slurp(conf_file()) // '') =~ /^state=(?:making|removing)$/m;
	my @left = directory_entries($opt{dir});
	unlink @left unless grep { !m{/neon_dev\.conf\.new\.\d+$} } @left;
	return 0;
}

sub remove_interrupted
{
	load_cluster(any => 1);
	{
		my $lock = lock_if_free() // fail "another neon_dev is at work in $opt{dir}";
		end_processes_below($opt{dir});
	}
	warning "an earlier call was interrupted: removing what it had made in $opt{dir}";
	local %opt = (%opt, quiet => 1);
	my $status = destroy();
	%cluster = ();
	return $status;
}

# ---- what to make

# As the original was, unless the command line says otherwise.
sub like_the_original
{
	my (%backup) = @_;
	my $given = $opt{given} // {};

	$opt{page_servers} = $backup{page_servers} unless $given->{page_servers} || $given->{shards};
	foreach my $key (qw(shards stripe_blocks))
	{
		$opt{$key} = $backup{$key} unless $given->{$key};
	}
	foreach my $key (qw(auth tls))
	{
		$opt{$key} //= 1 if $backup{$key};
	}
	if (!$opt{durable} && $backup{write_quorum} ne '' && !$given->{page_servers} && !$given->{shards})
	{
		$opt{durable} = 1;
		$opt{write_quorum} //= $backup{write_quorum};
	}
	$opt{adopted_prepared} = $backup{prepared};
	$opt{adopted_preload} = $backup{libraries};
	return;
}

# Arguments of recovery for a target.
sub target
{
	!defined $opt{target_time} || !defined $opt{target_lsn} or usage 'give --target-time or --target-lsn, not both';
	my @target = defined $opt{target_time} ? "recovery_target_time=$opt{target_time}"
	  : defined $opt{target_lsn} ? "recovery_target_lsn=$opt{target_lsn}" : return;
	return map { ('-c', $_) } @target, 'recovery_target_action=promote';
}

sub check_versions
{
	my (%backup) = @_;
	major_of($backup{pg_version}) == major_of($cluster{pg_version})
	  or fail "the backup is of PostgreSQL $backup{pg_version}, the server here is $cluster{pg_version}";
	return;
}

sub check_archive
{
	my $archive = $opt{archive} // return;
	-d $archive && -r _ && -x _ or fail "$archive is no directory that user ", user_name(), ' may read';
	$archive !~ m{['"\\\n]} or fail 'the path of the archive may not contain quotes, backslashes or line ends';
	return;
}

# ---- making it

sub recover_backup
{
	my $data = part_data('compute');

	progress "copying $opt{from} ...";
	copy_directory("$opt{from}/data", $data, { cwd => $opt{dir} });
	my $end = recover_copy($opt{archive}, sub { }, target());
	remove_traces($data, "$data/backup_label.old", "$data/tablespace_map.old");
	write_file("$data/postgresql.conf", slurp("$opt{from}/compute.conf") // fail "cannot read $opt{from}/compute.conf");
	write_file("$data/postgresql.auto.conf", '');
	write_file("$data/pg_hba.conf", $local_hba);
	cut_subscriptions();
	progress "recovered up to $end";
	return;
}

sub restore
{
	defined $opt{from} or usage '--from BACKUP is missing';
	my %backup = read_backup($opt{from});
	like_the_original(%backup);
	check_given();
	target();
	check_archive();
	find_server();
	check_versions(%backup);
	check_target_room();
	verify_backup($opt{from});
	return making(sub { prepare_and_finish(\&recover_backup) });
}

# A compute and its page servers are copies, and the compute's is empty only later.
sub check_target_room
{
	"$opt{dir}/" !~ m{^\Q$opt{from}\E/} or fail "DIR may not be inside of $opt{from}";
	check_room("$opt{from}/data", $opt{dir}, 1 + $opt{page_servers});
	return;
}

1;
