# NeonDev::Status - what runs, how far it is, and what the compute holds.
package NeonDev::Status;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Parts;
use NeonDev::Processes;

our @EXPORT = qw(status);

my (@keys, %status);			# part.key, in the order they were found

sub put { my ($key, $value) = @_; push @keys, $key; $status{$key} = $value // ''; return }

# ---- files

# Permanent main-fork files of a data directory that have something allocated: [allocated bytes, size,
# path]. A relation with an INIT fork is unlogged.
sub main_fork_files
{
	my ($data) = @_;
	my @found;
	my @dirs = map { "$data/$_" } qw(base global pg_tblspc);
	while (defined(my $dir = shift @dirs))
	{
		opendir my $dh, $dir or next;	# dropped meanwhile
		my @names = grep { !/^\.\.?$/ } readdir $dh;
		my %unlogged = map { /^(\d+)_init$/ ? ($1 => 1) : () } @names;
		foreach my $name (@names)
		{
			my @stat = lstat "$dir/$name" or next;
			if (-d _) { push @dirs, "$dir/$name" }
			elsif (-f _ && $name =~ /^(\d+)(?:\.\d+)?$/ && $stat[12] > 0 && !$unlogged{$1})
			{
				push @found, [ $stat[12] * 512, $stat[7], "$dir/$name" ];
			}
		}
	}
	return @found;
}

sub allocated_bytes { my ($sum, @files) = (0, @_); $sum += $_->[0] foreach @files; return $sum }

my $zero = "\0" x 8192;

# A sequence is told by its first page: special size 8, magic 0x1717.
sub is_sequence
{
	my ($at, $block) = @_;
	return $at == 0 && length $block == 8192 && unpack('v', substr $block, 16, 2) == 8184
	  && unpack('V', substr $block, 8184, 4) == 0x1717;
}

# The mark of a block that was never logged is no content (src/smgr/empty.c).
sub is_mark { return substr($_[0], 8176, 8) eq 'nc-empty' && substr($_[0], 0, 24) eq substr $zero, 0, 24 }

# Blocks of a file that hold a byte other than 0: (others, sequences). Holes are skipped.
sub count_blocks
{
	my ($path, $size) = @_;
	my ($blocks, $sequences, $at) = (0, 0, 0);

	open my $f, '<', $path or return (0, 0);	# dropped meanwhile
	while ($at < $size)
	{
		my $data = sysseek $f, $at, 3 or $at == 0 or last;	# SEEK_DATA
		last unless defined $data;
		$at = $data - $data % 8192;
		my $hole = sysseek $f, $at < $data ? $data : $at, 4 or last;	# SEEK_HOLE
		sysseek $f, $at, 0;
		while ($at < $hole)
		{
			my $got = sysread $f, my $block, 8192 or return ($blocks, $sequences);
			if ($block ne substr($zero, 0, $got) && !($got == 8192 && is_mark($block)))
			{
				if (is_sequence($at, $block)) { $sequences++ }
				else { $blocks++ }
			}
			$at += $got;
		}
	}
	return ($blocks, $sequences);
}

sub measure_compute
{
	my @files = main_fork_files(part_data('compute'));
	my ($blocks, $sequences) = (0, 0);
	foreach my $file (@files)
	{
		my ($b, $s) = count_blocks($file->[2], $file->[1]);
		$blocks += $b;
		$sequences += $s;
	}
	put('compute.local_bytes', $blocks * 8192);
	put('compute.local_blocks', $blocks);
	put('compute.sequence_bytes', $sequences * 8192);
	put('compute.sequence_blocks', $sequences);
	put('compute.allocated_bytes', allocated_bytes(@files));
	return;
}

# ---- asking

my $state_of_compute = q{SELECT 'flush_lsn', pg_current_wal_flush_lsn()::text
	UNION ALL SELECT 'connections', count(*)::text FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
	UNION ALL SELECT 'has_views', (to_regclass('neon_comm.page_servers') IS NOT NULL)::text};
my $state_of_page_servers = 'SELECT name, state FROM neon_comm.page_servers';

# What a query of the compute finds, by name; nothing if it does not let us in.
sub found_by
{
	my ($sql) = @_;
	my $result = compute_query($sql);
	return map { split /\|/, $_, 2 } split /\n/, $result->{out} if $result->{status} == 0;
	$status{'compute.state'} = 'unreachable' unless answers($result);
	put('compute.problem', join '; ', why_not($result, 10), answers($result) ? () : missing());
	return;
}

sub ask_compute
{
	my %says = found_by($state_of_compute) or return {};
	return { %says, found_by($state_of_page_servers) } if $says{has_views} eq 'true';
	put('compute.problem', 'database postgres has no extension neon_comm, which tells whether WAL streams to page servers');
	return \%says;
}

sub gather_compute
{
	my $says = {};
	put('compute.state', part_state('compute'));
	put('compute.pid', part_pid('compute'));
	put('compute.port', $cluster{compute_port});
	put('compute.wal_feed_port', $cluster{wal_feed_port});
	put('compute.metrics_port', metrics_port('compute'));
	if ($status{'compute.state'} eq 'running')
	{
		$says = ask_compute();
		put('compute.flush_lsn', $says->{flush_lsn});
		put('compute.connections', $says->{connections});
	}
	measure_compute() if $opt{measure};
	return $says;
}

sub lsn_if_known
{
	my ($high, $low) = ($_[0] // '') =~ m{^([0-9A-Fa-f]+)/([0-9A-Fa-f]+)$} or return;
	return (hex($high) << 32) + hex $low;
}

sub ask_page_server
{
	my ($n, $compute) = @_;
	my $p = "page_server_$n";
	my $result = page_server_query($n);
	if ($result->{status} != 0)
	{
		$status{"$p.state"} = 'unreachable';
		put("$p.problem", why_not($result, 10));
		return;
	}
	/^([a-z_]+)\|(.*)$/ and put("$p.$1", $2) foreach split /\n/, $result->{out};
	my ($flush, $replay) = map { lsn_if_known($_) } $compute->{flush_lsn}, $status{"$p.replay_lsn"};
	put("$p.lag_bytes", $flush > $replay ? $flush - $replay : 0) if defined $flush && defined $replay;
	my $feed = $compute->{"page_server_$n"};
	put("$p.problem", "WAL does not stream to it: it is $feed") if defined $feed && $feed !~ /^(?:streaming|catchup)$/;
	return;
}

sub gather_page_server
{
	my ($n, $compute) = @_;
	my $p = "page_server_$n";
	put("$p.state", part_state($n));
	put("$p.pid", part_pid($n));
	put("$p.port", part_port($n));
	put("$p.metrics_port", metrics_port($n));
	ask_page_server($n, $compute) if $status{"$p.state"} eq 'running';
	put("$p.allocated_bytes", allocated_bytes(main_fork_files(part_data($n)))) if $opt{measure};
	return;
}

# ---- printing

sub values_of_cluster
{
	return ([ 'cluster.dir', $opt{dir} ], (map { [ "cluster.$_", $cluster{$_} ] } qw(pg_version shards stripe_blocks checksums)),
		[ 'cluster.page_servers', scalar(page_servers()) ],
		[ 'cluster.write_quorum', $cluster{write_quorum} // '' ],
		map { [ $_, $status{$_} ] } @keys);
}

sub print_values { print "$_->[0]=$_->[1]\n" foreach values_of_cluster(); return }

sub json_value
{
	my ($value) = @_;
	return $value if $value =~ /^(?:0|[1-9]\d{0,17})\z/;
	return 'null' if $value eq '';
	return $value eq 'on' ? 'true' : 'false' if $value =~ /^(?:on|off)\z/;
	return json_text($value);
}

sub print_json
{
	my (@sections, %pairs);
	foreach (values_of_cluster())
	{
		my ($section, $key) = split /\./, $_->[0], 2;
		push @sections, $section unless $pairs{$section};
		push @{ $pairs{$section} }, qq{"$key":} . json_value($_->[1]);
	}
	print '{', join(',', map { qq("$_":{) . join(',', @{ $pairs{$_} }) . '}' } @sections), "}\n";
	return;
}

sub human
{
	my ($bytes) = @_;
	foreach my $unit ('B', 'KB', 'MB', 'GB')
	{
		return sprintf $unit eq 'B' || $bytes >= 10 ? '%.0f%s' : '%.1f%s', $bytes, $unit if $bytes < 1024;
		$bytes /= 1024;
	}
	return sprintf '%.1fTB', $bytes;
}

sub print_row { printf "%-15s %-11s %8s %6s  %-14s %10s %6s %13s\n", map { ($_ // '') eq '' ? '-' : $_ } @_; return }

sub print_text
{
	print "cluster $opt{dir}: PostgreSQL $cluster{pg_version}, $cluster{shards} shard(s), ", scalar(page_servers()),
	  " page server(s), stripe $cluster{stripe_blocks}",
	  " blocks, checksums $cluster{checksums}\n\n";
	print_row('part', 'state', 'pid', 'port', 'flush/replay', 'lag bytes', 'conns', 'pages served');
	print_row('compute', @status{ map { "compute.$_" } qw(state pid port flush_lsn lag_bytes connections pages_served) })
	  if chosen_compute();
	foreach my $n (chosen_page_servers())
	{
		print_row("page server $n",
			@status{ map { "page_server_$n.$_" } qw(state pid port replay_lsn lag_bytes connections pages_served) });
	}
	print_problems();
	print_measures() if $opt{measure};
	return;
}

sub print_problems
{
	my @problems = grep { /\.problem$/ } @keys or return;
	print "\n";
	foreach my $key (@problems)
	{
		print $key =~ s/\.problem$//r =~ s/page_server_/page server /r, ": $status{$key}\n";
	}
	return;
}

sub print_measures
{
	my %c = map { /^compute\.(.*)/ ? ($1 => $status{$_}) : () } @keys;
	print "\n";
	print "table data held locally by the compute: $c{local_bytes} bytes in $c{local_blocks} blocks, by content\n",
	  "  and $c{sequence_blocks} sequence(s), $c{sequence_bytes} bytes, which belong there; allocated on disk: ",
	  "$c{allocated_bytes} bytes\n"
	  if chosen_compute();
	foreach my $n (chosen_page_servers())
	{
		print "the same files on page server $n: ", human($status{"page_server_$n.allocated_bytes"}), " allocated\n";
	}
	return;
}

my %print = (text => \&print_text, json => \&print_json, values => \&print_values);

sub status
{
	load_cluster();
	# The lag of a page server is against the compute, which is asked first.
	my $compute = chosen_compute() ? gather_compute() : {};
	gather_page_server($_, $compute) foreach chosen_page_servers();
	$print{ $opt{format} }->();
	return (grep { /\.state$/ && $status{$_} ne 'running' } @keys) ? 3 : 0;
}

1;
