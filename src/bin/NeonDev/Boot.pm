# NeonDev::Boot - a compute whose directory is lost, made anew from a page server (docs/boot.md).
#
# neon_boot lays it in DIR/compute_new, which gets its configuration there and then its name: whatever
# interrupts this leaves a cluster without a compute, for which the same command can be called again.
package NeonDev::Boot;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Make;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Settings;
use NeonDev::Takeover;

our @EXPORT = qw(create_compute replace_compute);

sub new_data { return "$opt{dir}/compute_new" }

# ---- is it gone?

# Servers whose working directory it is, or was before it was removed.
sub processes_of_lost
{
	my $data = absolute(part_data('compute'));
	my @found;

	opendir my $proc, '/proc' or fail "cannot read /proc: $!";
	foreach my $pid (grep { /^\d+$/ } readdir $proc)
	{
		next unless (readlink("/proc/$pid/cwd") // '') =~ m{^\Q$data\E(?: \(deleted\))?$};
		push @found, $pid if (slurp("/proc/$pid/comm") // '') =~ /^postgres/;
	}
	return @found;
}

sub check_no_process
{
	my @pids = processes_of_lost();
	@pids == 0 or fail "the compute runs: its processes are @pids";
	return;
}

sub check_stopped
{
	check_no_process();
	check_port_free(part_port('compute'), 'SQL port of the compute');
	check_port_free($cluster{wal_feed_port}, 'port of the WAL feed');
	return;
}

sub check_gone
{
	my $data = part_data('compute');

	check_no_process();
	!-e $data && !-l $data
	  or fail "$data is there: a compute is made anew only if its directory is lost. ", has_members()
	  ? 'Start it, or, if it must be given up, call replace-compute'
	  : 'Start it, or, if it must be given up, move it away; it must never be started again then';
	check_stopped();
	return;
}

# ---- from whom

# What a page server says of itself, once it has replayed all that it has received and gets nothing more: a compute that
# was killed just now may have sent what its walreceiver has not read yet.
sub replayed_all
{
	my ($n, $until) = @_;
	while (1)
	{
		my $result = page_server_query($n);
		$result->{status} == 0 or fail part_name($n), ' cannot be asked, and may have more than the others: ', why_not($result, 10);
		my %status = map { /^(\w+)\|(.*)$/ ? ($1 => $2) : () } split /\n/, $result->{out};
		fail part_name($n), " cannot be asked for a boot image: $status{identity_reason}" if ($status{identity_reason} // '') ne '';
		my ($all, $gets_more) = map { ($_ // '') eq 'on' } @status{qw(replayed_all streaming)};
		return \%status if $all && !$gets_more;
		monotonic() < $until or fail part_name($n), $all ? ' still gets WAL from a compute: stop that one' :
		  " has not replayed all that it has received, it is at $status{replay_lsn}";
		pause(0.1);
	}
}

# { source: the page server to begin from, wal_from: where the WAL must begin that the others need }; of clusters
# with members also incarnation and log.
sub choose_source
{
	return takeover_log() if has_members();
	my $until = monotonic() + $opt{timeout};
	my %status = map { ($_ => replayed_all($_, $until)) } page_servers();
	my %at = map { ($_ => lsn_number($status{$_}{replay_lsn})) } page_servers();
	my ($most) = sort { $at{$b} <=> $at{$a} || $a <=> $b } page_servers();
	my $source = $opt{from_page_server} // $most;

	$source < $cluster{shards} or fail "there is no page server $source: the cluster has $cluster{shards} shards";
	$at{$source} == $at{$most}
	  or fail part_name($source), " is at $status{$source}{replay_lsn}, ", part_name($most), " at $status{$most}{replay_lsn}: what only that one has would be lost";
	my ($from) = sort { lsn_number($a) <=> lsn_number($b) } map { $_->{last_record_lsn} } values %status;
	return { source => $source, wal_from => $from };
}

# ---- making it

sub lay
{
	my ($choice) = @_;
	my $source = $choice->{source};
	# its stream is cut: what it is connected to is told that it was overtaken
	my @promised = $choice->{incarnation}
	  ? ('--incarnation', $choice->{incarnation}, '--live', map { ('--unbegun', $_) } @{ $choice->{unbegun} }) : ();
	my $program = program_of('neon_boot');

	-x $program or fail "there is no $program: run \"make install\" first";
	progress 'laying a compute from ', part_name($source), ' ...';
	my $result = run({ env => { NEON_AUTH_TOKEN => '' } }, $program, '--conninfo', page_server_conninfo($source), '--tenant', $cluster{tenant_id},
		'--timeline', $cluster{timeline_id}, '-D', new_data(), '--wal-from', $choice->{wal_from}, '--beside', part_data($source), @promised);
	my @lines = map { s/^neon_boot: //r } split /\n/, $result->{err};
	$result->{status} == 0 or fail $lines[-1] // 'neon_boot failed';
	progress $_ foreach grep { /^(?:laid|replication slots)/ } @lines;
	return;
}

# Page servers have what the compute's configuration was before neon_dev added to it.
sub configure_anew
{
	my ($source) = @_;
	my ($from, $data) = (part_data($source), new_data());
	my $text = slurp("$from/postgresql.conf") // fail "cannot read $from/postgresql.conf";

	$text =~ s/^# ---- written by neon_dev\n.*//ms;
	$text .= slurp(compute_conf()) // compute_settings();
	$text .= setting_line(split /=/, $_, 2) foreach @{ $opt{conf} };
	write_file("$data/postgresql.conf", $text);
	foreach my $name ('pg_hba.conf', 'pg_ident.conf')
	{
		write_file("$data/$name", slurp("$from/$name") // fail "cannot read $from/$name");
	}
	return;
}

# A WAL directory elsewhere was part of the lost compute.
sub forget_wal_dir
{
	return if ($cluster{wal_dir} // '') eq '';
	warning "the lost compute had its WAL in $cluster{wal_dir}, which is left as it is; the new one has it in its own directory";
	$cluster{wal_dir} = '';
	save_cluster();
	return;
}

# What neon_boot has left it takes away itself.
sub remove_leftover { must_run('cannot remove ' . new_data(), {}, 'rm', '-rf', '--', new_data()); return }

# Makes DIR/compute_new: promises, image, configuration, on disk; it may be started. The compute that had the identity,
# if one is given, has ended.
sub make_new
{
	my ($ended) = @_;
	remove_leftover();
	my $choice = choose_source();
	lay($choice);
	configure_anew($choice->{source});
	write_file(new_data() . '/compute_members', members_text($choice->{log})) if $choice->{log};
	forget_wal_dir();
	run({}, 'sync', '-f', $opt{dir});
	wait_for_leases($choice, $ended) if has_members();
	return;
}

# The others are needed only where nobody has promised anything.
sub start_page_servers
{
	foreach my $n (page_servers())
	{
		# lost: who is there decides whether the others are enough
		next if has_members() && !-d part_data($n);
		start_part($n) || has_members() or fail part_name($n), ' did not start: it may have more than the others';
	}
	return;
}

sub put_new
{
	rename new_data(), part_data('compute') or fail 'cannot rename ', new_data(), ": $!";
	return;
}

sub begin_command
{
	load_cluster();
	hold_cluster();
	load_cluster();
	@opt{qw(shards auth)} = @cluster{qw(shards auth)};
	check_given();
	return;
}

sub create_compute
{
	begin_command();
	check_gone();
	my @signals = qw(INT TERM HUP);
	local @SIG{@signals} = (\&interrupted) x @signals;
	start_page_servers();
	make_new();
	put_new();
	return start_part('compute') ? 0 : 1;
}

# ---- in place of one that is there

sub replaced_data { return "$opt{dir}/compute_replaced" }

# In order if it answers in time; what it had acknowledged is on page servers in any case.
sub end_old
{
	local $opt{timeout} = $opt{timeout} < 30 ? $opt{timeout} : 30;
	local $opt{mode} = 'fast';
	return if stop_part('compute') && !processes_of_lost();
	warning 'the compute is ended with SIGKILL';
	kill_part('compute') or fail 'the compute does not end';
	return;
}

# Whatever interrupts this: the same command, or create-compute, goes on. The old directory has its name until
# the new one is whole.
sub replace_compute
{
	begin_command();
	has_members() or fail 'replace-compute is for clusters made with init --durable --write-quorum W: ',
	  'without members nobody knows whether page servers have all of the compute that is given up';
	my @signals = qw(INT TERM HUP);
	local @SIG{@signals} = (\&interrupted) x @signals;
	start_page_servers();
	my $few = reachable_too_few(reachable_members());
	!defined $few || $opt{lose_unconfirmed} or fail 'too few page servers answer, nothing was changed: ', $few;
	end_old() if -e part_data('compute');
	check_stopped();
	make_new(slurp(part_data('compute') . '/compute_identity'));
	if (-e part_data('compute'))
	{
		must_run('cannot remove ' . replaced_data(), {}, 'rm', '-rf', '--', replaced_data());
		rename part_data('compute'), replaced_data() or fail 'cannot rename ', part_data('compute'), ": $!";
	}
	put_new();
	must_run('cannot remove ' . replaced_data(), {}, 'rm', '-rf', '--', replaced_data()) unless $opt{keep};
	progress 'the old directory is ', replaced_data(), '; it must never be started again' if $opt{keep} && -e replaced_data();
	return start_part('compute') ? 0 : 1;
}

1;
