# NeonDev::Export - the way back: an ordinary PostgreSQL of what the cluster has.
#
# A copy of a page server is made in PGDATA.neon_export, recovers there to the end of the compute's WAL without our
# libraries, loses what is ours, and gets the name PGDATA when it is whole and on disk. Whatever interrupts
# this, the cluster is as it was, and the same command can be called again.
package NeonDev::Export;

use strict;
use warnings;

use Exporter 'import';
use File::Temp ();
use NeonDev::Adopt;
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Content;
use NeonDev::Copy;
use NeonDev::Make;
use NeonDev::Ordinary;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Settings;

our @EXPORT = qw(export_cluster);

sub work_dir { return join '/', "$opt{to_dir}.neon_export", @_ }

sub is_there { return -e $_[0] || -l $_[0] }

# ---- the place

# What an earlier call has left: its servers, their memory, its files.
sub remove_work
{
	return unless is_there(work_dir());
	end_processes_below(work_dir());
	{
		local $opt{parts} = work_dir();
		remove_shared_memory('compute');
	}
	must_run('cannot remove ' . work_dir(), {}, 'rm', '-rf', '--', work_dir());
	return;
}

# True when an earlier call had made all of it, and was ended before it could say so.
sub made_before
{
	return -e work_dir('whole') && !is_there(work_dir('compute')) && -e "$opt{to_dir}/PG_VERSION";
}

sub check_empty
{
	my $to = $opt{to_dir};
	return unless is_there($to);
	-d $to or fail "$to exists and is not a directory";
	directory_entries($to) == 0 or fail "$to is not empty";
	return;
}

# ---- from where

# The last of those that run, or that may be started: the copies behind the shards are nobody's source of reads.
sub choose_running
{
	return $opt{from_page_server} if defined $opt{from_page_server};
	my @all = page_servers();
	my @run = grep { part_pid($_) } @all;
	return @run ? $run[-1] : $all[-1];
}

# Without a compute there is nobody who has more: the page server that is furthest.
sub choose_furthest
{
	return $opt{from_page_server} if defined $opt{from_page_server};
	my %at = map { ($_ => lsn_number(how_far($_))) } page_servers();
	return (sort { $at{$b} <=> $at{$a} || $a <=> $b } keys %at)[0];
}

sub words_of
{
	my ($file, $key) = @_;
	my $text = slurp($file) // '';
	return $text =~ /^\Q$key\E (\S+)/mg;
}

# WAL of a stopped compute goes on where the page server's ends only if it is of the same history.
sub check_history
{
	my ($n) = @_;
	my ($ours, $theirs) = (part_data('compute') . '/compute_identity', part_data($n) . '/page_service_identity');
	my ($birth) = words_of($theirs, 'birth');
	return if !defined $birth || $birth eq '-';
	my %lived = map { $_ => 1 } words_of($ours, 'incarnation');
	my ($last) = reverse words_of($theirs, 'incarnation');
	my ($ours_birth) = words_of($ours, 'birth');
	$birth eq ($ours_birth // '') && (!defined $last || $lived{$last})
	  or fail part_name($n), ' has followed another compute than that in ', part_data('compute'), ': start the cluster and look what it says';
	return;
}

# ---- making it

sub copy_of_running
{
	my $n = choose_running();
	my $lock = hold_page_server($n);
	my $position = compute_position();

	check_room(part_data($n), $opt{to_dir}, 1);
	my $made = eval { let_in($n); copy_running($n, work_dir('compute'), work_dir(), $position); 1 };
	my $failure = $@;
	as_configured($n);
	die $failure unless $made;
	return (undef, $position);
}

# Nobody starts a part meanwhile.
sub copy_of_stopped
{
	hold_cluster();
	load_cluster();
	my $has_compute = -d part_data('compute');
	my $n = $has_compute ? choose_running() : choose_furthest();
	my $lock = hold_page_server($n);
	my $position;

	check_history($n) if $has_compute;
	check_room(part_data($n), $opt{to_dir}, 1);
	my $ran = part_pid($n);
	begin_copy($n) if $ran;
	local $opt{mode} = 'fast';
	!$ran || stop_part($n) or fail part_name($n), ' did not stop';
	$position = recovered_to($n);
	if ($has_compute && control_value(part_data('compute'), 'Database cluster state') eq 'shut down')
	{
		$position = control_value(part_data('compute'), 'Latest checkpoint location');
	}
	progress 'copying ', part_name($n), ' ...';
	my $made = eval { copy_directory(part_data($n), work_dir('compute'), { cwd => work_dir() }); 1 };
	my $failure = $@;
	!$ran || start_part($n) or warning part_name($n), ' did not start again';
	end_copy($n);
	die $failure unless $made;
	return ($has_compute ? part_data('compute') . '/pg_wal' : undef, $position);
}

# A server without our files has no use for the extension; what depends on it stays, and is named.
sub drop_extension
{
	foreach my $db (databases())
	{
		my $result = stock_query($db, 'SET client_min_messages = error; DROP EXTENSION IF EXISTS neon_comm');
		warning "the extension neon_comm stays in database $db: ", why_not($result, 10) if $result->{status} != 0;
	}
	return;
}

# The compute's settings that stay inside of a server, and who may log in.
sub configure
{
	my ($from) = @_;
	my $data = part_data('compute');

	local $opt{from} = $from;
	local @opt{qw(adopted_prepared adopted_preload)};
	my ($kept, $left_out) = divide_settings();
	my $libraries = join ',', grep { !/^neon_/ } split /,/, $opt{adopted_preload} // '';
	push @$kept, "shared_preload_libraries = '$libraries'" if $libraries ne '';
	@$left_out = grep { !/neon_|^(?:primary_|hot_standby)/ } @$left_out;
	write_file("$data/postgresql.conf", settings_text($kept, $left_out, 'Not taken over', "the compute of $opt{dir}"));
	write_file("$data/postgresql.auto.conf", '');
	foreach my $name ('pg_hba.conf', 'pg_ident.conf')
	{
		write_file("$data/$name", slurp("$from/$name") // fail "cannot read $from/$name");
	}
	return;
}

sub socket_place
{
	my $dir = work_dir('s');
	return File::Temp::tempdir('/tmp/neon_dev.XXXXXX', CLEANUP => 1) if length "$dir/.s.PGSQL.65535" > 107;
	mkdir $dir, 0700 or fail "cannot make $dir: $!";
	return $dir;
}

sub check_reached
{
	my ($end, $position) = @_;
	lsn_number($end) >= lsn_number($position)
	  or fail "recovery ended at $end, and the cluster has WAL up to $position: is it whole? ", part_log('compute'), ' was removed';
	return;
}

sub make_export
{
	foreach my $dir (work_dir(), work_dir('log'))
	{
		mkdir $dir, 0700 or fail "cannot make $dir: $!";
	}
	my $from = settings_source(choose_running(), work_dir('settings'));
	my ($wal, $position) = part_pid('compute') ? copy_of_running() : copy_of_stopped();
	local $opt{parts} = work_dir();
	local $cluster{socket_dir} = socket_place();
	my $end = recover_copy($wal, \&drop_extension);
	check_reached($end, $position);
	cut_subscriptions();
	configure($from);
	remove_traces(part_data('compute'), map { part_data('compute') . "/$_" } 'backup_label.old', 'tablespace_map.old');
	write_file(work_dir('whole'), '');
	run({}, 'sync', '-f', work_dir());
	rename part_data('compute'), $opt{to_dir} or fail "cannot rename ", part_data('compute'), " to $opt{to_dir}: $!";
	run({}, 'sync', '-f', $opt{to_dir});
	return $end;
}

sub told
{
	my ($end) = @_;
	progress "done: $opt{to_dir} is an ordinary PostgreSQL $cluster{pg_version} with everything up to $end. ",
	  'Settings that reach out of a server (addresses, port, archiving, replication) are comments in its postgresql.conf';
	return 0;
}

sub export_cluster
{
	defined $opt{to_dir} or usage '--to PGDATA is missing';
	load_cluster();
	check_target($opt{to_dir});
	check_page_server();
	if (made_before())
	{
		remove_work();
		progress "done: $opt{to_dir} was made by the call before";
		return 0;
	}
	check_empty();
	my @signals = qw(INT TERM HUP);
	local @SIG{@signals} = (\&interrupted) x @signals;
	remove_work();
	mend_page_servers();
	my $end = eval { make_export() };
	my $failure = $@;
	@SIG{@signals} = ('IGNORE') x @signals;
	remove_work();
	die $failure unless defined $end;
	return told($end);
}

1;
