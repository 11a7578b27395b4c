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

our @EXPORT = qw(create_compute);

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

sub check_gone
{
	my $data = part_data('compute');
	my @pids = processes_of_lost();

	@pids == 0 or fail "the compute runs: its processes are @pids";
	!-e $data && !-l $data
	  or fail "$data is there: a compute is made anew only if its directory is lost. Start it, or, if it must be given up, move it away; it must never be started again then";
	check_port_free(part_port('compute'), 'SQL port of the compute');
	check_port_free($cluster{wal_feed_port}, 'port of the WAL feed');
	return;
}

# ---- from whom

sub lsn_number
{
	my ($high, $low) = $_[0] =~ m{^([0-9A-F]+)/([0-9A-F]+)$} or fail "\"$_[0]\" is no LSN";
	return (hex($high) << 32) + hex $low;
}

# What a page server says of itself, once it has replayed all that it has received.
sub replayed_all
{
	my ($n, $until) = @_;
	while (1)
	{
		my $result = page_server_query($n);
		$result->{status} == 0 or fail part_name($n), ' cannot be asked, and may have more than the others: ', why_not($result, 10);
		my %status = map { /^(\w+)\|(.*)$/ ? ($1 => $2) : () } split /\n/, $result->{out};
		fail part_name($n), " cannot be asked for a boot image: $status{identity_reason}" if ($status{identity_reason} // '') ne '';
		return \%status if ($status{replayed_all} // '') eq 'on';
		monotonic() < $until or fail part_name($n), ' has not replayed all that it has received, it is at ', $status{replay_lsn};
		pause(0.1);
	}
}

# (the page server to begin from, where the WAL must begin that the others need)
sub choose_source
{
	my $until = monotonic() + $opt{timeout};
	my %status = map { ($_ => replayed_all($_, $until)) } page_servers();
	my %at = map { ($_ => lsn_number($status{$_}{replay_lsn})) } page_servers();
	my ($most) = sort { $at{$b} <=> $at{$a} || $a <=> $b } page_servers();
	my $source = $opt{from_page_server} // $most;

	$source < $cluster{shards} or fail "there is no page server $source: the cluster has $cluster{shards} shards";
	$at{$source} == $at{$most}
	  or fail part_name($source), " is at $status{$source}{replay_lsn}, ", part_name($most), " at $status{$most}{replay_lsn}: what only that one has would be lost";
	my ($from) = sort { lsn_number($a) <=> lsn_number($b) } map { $_->{last_record_lsn} } values %status;
	return ($source, $from);
}

# ---- making it

sub lay
{
	my ($source, $wal_from) = @_;
	my $program = program_of('neon_boot');

	-x $program or fail "there is no $program: run \"make install\" first";
	progress 'laying a compute from ', part_name($source), ' ...';
	my $result = run({ env => { NEON_AUTH_TOKEN => '' } }, $program, '--conninfo', page_server_conninfo($source), '--tenant', $cluster{tenant_id},
		'--timeline', $cluster{timeline_id}, '-D', new_data(), '--wal-from', $wal_from, '--beside', part_data($source));
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

sub create_compute
{
	load_cluster();
	hold_cluster();
	load_cluster();
	local @opt{qw(shards auth)} = @cluster{qw(shards auth)};
	check_given();
	check_gone();
	my @signals = qw(INT TERM HUP);
	local @SIG{@signals} = (\&interrupted) x @signals;
	foreach my $n (page_servers())
	{
		start_part($n) or fail part_name($n), ' did not start: it may have more than the others';
	}
	remove_leftover();
	my ($source, $wal_from) = choose_source();
	lay($source, $wal_from);
	configure_anew($source);
	forget_wal_dir();
	run({}, 'sync', '-f', $opt{dir});
	rename new_data(), part_data('compute') or fail 'cannot rename ', new_data(), ": $!";
	return start_part('compute') ? 0 : 1;
}

1;
