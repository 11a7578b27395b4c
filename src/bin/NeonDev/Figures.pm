# NeonDev::Figures - what two samples of a cluster say, as one set of figures: for the screen, as JSON, for a report.
package NeonDev::Figures;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Exposition;
use NeonDev::Json;
use NeonDev::Sample;

our @EXPORT = qw(figures_between figures_json problems_of longest_slots);

use constant LONGEST => 20;		# slots that are listed

# Counters that stay 0 as long as no page is wrong.
my @stay_zero = qw(stale_answers future_answers missing_answers verify_mismatches lfc_stale found_late);

# ---- two samples

sub metrics_of { my ($sample, $part) = @_; return $sample ? $sample->{parts}{$part}{metrics} : undef }

# By how much a counter grew; one that began anew has grown from 0. Nothing when it is not known.
sub growth
{
	my ($before, $now, $name, %labels) = @_;
	my $has = value_of($now, $name, %labels) // return;
	my $had = $before ? value_of($before, $name, %labels) // 0 : 0;
	return $has >= $had ? $has - $had : $has;
}

sub per_second { my ($amount, $seconds) = @_; return defined $amount && $seconds ? $amount / $seconds : undef }
sub share { my ($part, $of) = @_; return $of ? $part / $of : undef }

sub latency
{
	my ($histogram) = @_;
	$histogram //= { count => 0, sum => 0, buckets => [] };
	my ($n, $sum) = @$histogram{qw(count sum)};
	my ($p50, $p99) = map { quantile($histogram, $_) } 0.5, 0.99;
	return { count => $n, mean_us => $n ? 1e6 * $sum / $n : undef, p50_us => defined $p50 ? 1e6 * $p50 : undef, p99_us => defined $p99 ? 1e6 * $p99 : undef };
}

# ---- the compute

# Pages by where they came from. Those that were asked for ahead came from page servers too, but earlier.
sub reads_of
{
	my ($before, $now, $seconds) = @_;
	my $grown = sub { return growth($before, $now, "neon_comm_$_[0]_total") // 0 };
	my $ahead = $grown->('prefetch_hits') + $grown->('prefetch_joined');
	my $waited = $grown->('reads_remote') - $ahead;
	my %pages = (page_server => $waited > 0 ? $waited : 0, ahead => $ahead, cache => $grown->('lfc_hits'), local => $grown->('reads_local'));
	my $sum = 0;
	$sum += $_ foreach values %pages;
	return { map { ($_ => { pages => $pages{$_}, per_second => per_second($pages{$_}, $seconds), share => share($pages{$_}, $sum) }) } keys %pages };
}

sub latencies_of
{
	my ($before, $now) = @_;
	my $name = 'neon_comm_request_stage_seconds';
	return { map { my $class = $_; ($class => latency(histogram_between($before, $now, $name, stage => 'server', class => $class))) } 'demand', 'ahead' };
}

# The one of several states that is 1, or undef.
sub state_of
{
	my ($samples, $name, %labels) = @_;
	my %is = labelled($samples, $name, 'state', %labels);
	my ($state) = grep { $is{$_} } sort keys %is;
	return $state;
}

sub cache_of
{
	my ($before, $now) = @_;
	my $state = state_of($now, 'neon_comm_lfc_state') // return { state => 'off' };
	my ($hits, $misses) = map { growth($before, $now, "neon_comm_lfc_${_}_total") // 0 } 'hits', 'misses';
	my $limit = value_of($now, 'neon_comm_lfc_limit_bytes') // 0;
	return { state => $state, pages => value_of($now, 'neon_comm_lfc_pages'), staged => value_of($now, 'neon_comm_lfc_pages_staged'),
		limit_pages => $limit / 8192, hit_rate => share($hits, $hits + $misses) };
}

sub shards_of
{
	my ($now) = @_;
	my %ready = labelled($now, 'neon_comm_shard_ready', 'shard');
	my @shards;
	foreach my $shard (sort { $a <=> $b } keys %ready)
	{
		my %flying = labelled($now, 'neon_comm_connection_requests_in_flight', 'host', shard => $shard);
		my @hosts;
		foreach my $host (sort keys %flying)
		{
			my @where = (shard => $shard, host => $host);
			my %connections = labelled($now, 'neon_comm_connections', 'state', @where);
			my $all = 0;
			$all += $_ foreach values %connections;
			push @hosts, { host => $host, connections => $all, connected => $connections{ready} // 0, in_flight => $flying{$host},
				failures => value_of($now, 'neon_comm_connection_failures', @where) };
		}
		push @shards, { shard => $shard, ready => \($ready{$shard} ? 1 : 0), hosts => \@hosts,
			oldest_seconds => value_of($now, 'neon_comm_shard_oldest_request_age_seconds', shard => $shard) };
	}
	return \@shards;
}

# Slots that somebody else has to act for, the longest wait first: what waits for its own process, pages that came ahead
# for one, keeps nobody waiting.
sub longest_slots
{
	my ($slots) = @_;
	my @all = sort { $b->{age} <=> $a->{age} || $a->{pid} <=> $b->{pid} } grep { ref eq 'HASH' && defined $_->{age} && defined $_->{pid} && ($_->{waits_for} // '') ne 'process' } @{ $slots->{slots} // [] };
	splice @all, LONGEST if @all > LONGEST;
	return [ map { my $slot = $_; +{ map { ($_ => $slot->{$_}) } grep { defined $slot->{$_} } qw(pid kind spc db relfilenode fork block age state waits_for) } } @all ];
}

sub compute_figures
{
	my ($before, $sample, $seconds) = @_;
	my $it = $sample->{parts}{compute};
	my $now = $it->{metrics} // return { state => $it->{state}, answers => \0 };
	my $was = metrics_of($before, 'compute');
	my %for = labelled($now, 'neon_comm_slots_waiting', 'for');
	my $positions = $was ? (value_of($now, 'neon_comm_feed_position_bytes') // 0) - (value_of($was, 'neon_comm_feed_position_bytes') // 0) : undef;
	my %figures = (
		state => $it->{state}, answers => \1, ready => \($it->{readyz}{ready} ? 1 : 0), in_recovery => \(value_of($now, 'neon_comm_in_recovery') ? 1 : 0),
		communicator_age => value_of($now, 'neon_comm_communicator_heartbeat_age_seconds'),
		feed_age => value_of($now, 'neon_comm_feed_heartbeat_age_seconds'),
		reads => reads_of($was, $now, $seconds), latency => latencies_of($was, $now), cache => cache_of($was, $now), shards => shards_of($now),
		slots => { busy => $it->{slots}{busy}, map { ($_ =~ s/ /_/gr => $for{$_}) } keys %for }, longest => longest_slots($it->{slots}),
		# seconds waited in each second: how many processes wait on the average
		processes_waiting => per_second(growth($was, $now, 'neon_comm_wait_seconds_total'), $seconds),
		wal_per_second => per_second($positions, $seconds),
		throttled => per_second(growth($was, $now, 'neon_comm_throttle_seconds_total'), $seconds),
		throttled_by => [ grep { value_of($now, 'neon_comm_page_server_throttles', page_server => $_) } sort { $a cmp $b } keys %{ { labelled($now, 'neon_comm_page_server_throttles', 'page_server') } } ],
		must_stay_zero => { map { my $n = value_of($now, "neon_comm_${_}_total"); $n ? ($_ => $n) : () } @stay_zero });
	return \%figures;
}

# ---- page servers

# What the compute's feed knows of it.
sub feed_figures
{
	my ($n, $compute) = @_;
	my $name = part_id($n);
	return unless $compute;
	my %lag = labelled($compute, 'neon_comm_page_server_lag_bytes', 'position', page_server => $name);
	return (feed => state_of($compute, 'neon_comm_page_server_state', page_server => $name),
		sync => state_of($compute, 'neon_comm_page_server_sync_state', page_server => $name),
		throttles => \(value_of($compute, 'neon_comm_page_server_throttles', page_server => $name) ? 1 : 0),
		map { ("lag_$_" => $lag{$_}) } qw(sent flush apply));
}

sub page_server_figures
{
	my ($n, $before, $sample, $seconds) = @_;
	my $it = $sample->{parts}{$n};
	my %figures = (number => $n, state => $it->{state}, answers => \0, feed_figures($n, metrics_of($sample, 'compute')));
	my $now = $it->{metrics} // return \%figures;
	my $was = metrics_of($before, $n);
	my ($hits, $reads) = map { growth($was, $now, "neon_page_service_buffer_${_}_total") // 0 } 'hits', 'reads';
	my %moments = map { ($_ => latency(histogram_between($was, $now, "neon_page_service_request_${_}_seconds"))) } 'wait', 'answer';
	return { %figures, answers => \1, ready => \($it->{readyz}{ready} ? 1 : 0), streaming => \(value_of($now, 'neon_page_service_streaming') ? 1 : 0),
		replay_lag => value_of($now, 'neon_page_service_replay_lag_bytes'), connections => value_of($now, 'neon_page_service_connections'),
		requests_waiting => value_of($now, 'neon_page_service_requests_waiting'), hit_rate => share($hits, $hits + $reads),
		pages_per_second => per_second(growth($was, $now, 'neon_page_service_pages_total'), $seconds), latency => \%moments };
}

# ---- what is wrong

sub problems_of_part
{
	my ($part, $it) = @_;
	my $name = part_name($part);
	my @still = @{ $it->{still} // [] };
	# a page server stays what the server calls "starting" to those who do not look closer
	return "$name is $it->{state}" if $it->{state} eq 'stopped' || $it->{state} eq 'crashed';
	return "$name: stopped by a signal: " . (@still > 1 ? 'processes ' : 'process ') . (@still > 3 ? "@still[0 .. 2] and " . (@still - 3) . ' more' : "@still") if @still;
	return "$name has no exporter: its setting metrics_port is 0" if $it->{no_exporter};
	return "$name: its exporter: $it->{error}" if defined $it->{error};
	my $ready = $it->{readyz} // {};
	return map { "$name: $_" } grep { defined && !ref } @{ $ready->{problems} // [] }, @{ $ready->{page_servers_away} // [] };
}

# What is wrong with a cluster, a line each.
sub problems_of
{
	my ($sample, $compute) = @_;
	my @problems = map { problems_of_part($_, $sample->{parts}{$_}) } all_parts();
	push @problems, 'writers of WAL are slowed down because of ' . join(', ', @{ $compute->{throttled_by} }) if @{ $compute->{throttled_by} // [] };
	my $wrong = $compute->{must_stay_zero} // {};
	push @problems, map { "$_ is $wrong->{$_}, and must stay 0" } sort keys %$wrong;
	return \@problems;
}

# ---- all of it

# The figures of a cluster at the second of two samples; rates are between them, and absent without the first.
sub figures_between
{
	my ($before, $sample) = @_;
	my $seconds = $before ? $sample->{at} - $before->{at} : undef;
	my $compute = compute_figures($before, $sample, $seconds);
	return { cluster => $opt{dir}, time => $sample->{time}, seconds => $seconds, compute => $compute,
		page_servers => [ map { page_server_figures($_, $before, $sample, $seconds) } page_servers() ], problems => problems_of($sample, $compute) };
}

my %texts = map { ($_ => 1) } qw(cluster problems state host kind waits_for feed sync relation fork throttled_by);

# As one line.
sub figures_json { my ($figures) = @_; return json_encode($figures, \%texts) . "\n" }

1;
