# NeonDev::Screen - the figures of a cluster as lines of text, and what fits of them.
package NeonDev::Screen;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use POSIX ();

our @EXPORT = qw(screen_of fit_lines human_bytes human_time human_count);

# ---- values

sub human_bytes
{
	my ($bytes) = @_;
	return '-' unless defined $bytes;
	return '0 B' if $bytes <= 0;
	foreach my $unit ('B', 'kB', 'MB', 'GB')
	{
		return sprintf $unit eq 'B' || $bytes >= 99.5 ? "%.0f $unit" : "%.1f $unit", $bytes if $bytes < 1023.5;
		$bytes /= 1024;
	}
	return sprintf '%.1f TB', $bytes;
}

# Of microseconds.
sub human_time
{
	my ($us) = @_;
	return '-' unless defined $us;
	return sprintf '%.0f us', $us if $us < 999.5;
	return sprintf $us < 99_950 ? '%.1f ms' : '%.0f ms', $us / 1e3 if $us < 999_500;
	return sprintf '%.1f s', $us / 1e6;
}

sub human_count
{
	my ($n) = @_;
	return '-' unless defined $n;
	return sprintf $n >= 9.95 || $n == int $n ? '%.0f' : '%.1f', $n if $n < 99_999.5;
	return sprintf '%.0fk', $n / 1e3 if $n < 9_999_500;
	return sprintf '%.0fM', $n / 1e6;
}

sub percent { my ($share) = @_; return defined $share ? sprintf('%.0f %%', 100 * $share) : '-' }
sub seconds { my ($s) = @_; return defined $s ? human_time(1e6 * $s) : '-' }
sub word { my ($value) = @_; return defined $value ? ref $value ? $$value ? 'yes' : 'no' : $value : '-' }

# Characters of a text that comes from elsewhere: none that a terminal would obey.
sub plain
{
	my ($text) = @_;
	utf8::decode($text);
	$text =~ s/[\x00-\x1f\x7f-\x9f]/?/g;
	return $text;
}

# ---- sections: a heading, lines, and how many of the lines there must be

sub head_lines
{
	my ($f, $every) = @_;
	my $c = $f->{compute};
	my @now = localtime $f->{time};
	my $state = "compute $c->{state}";
	$state .= ${ $c->{in_recovery} } ? ', in recovery' : ${ $c->{ready} } ? ', ready' : ', NOT READY' if ${ $c->{answers} };
	my $ages = sprintf 'turns of communicator %s, feed %s ago', map { seconds($_) } @$c{qw(communicator_age feed_age)};
	return (sprintf('neon_dev top %s  %s%s', plain($f->{cluster}), POSIX::strftime('%H:%M:%S', @now), $every),
		$state . (${ $c->{answers} } ? "; $ages" : '; its exporter does not answer'));
}

sub problem_section { my ($f) = @_; return { least => 3, rows => [ map { '! ' . plain($_) } @{ $f->{problems} } ] } }

sub read_section
{
	my ($c) = @_;
	my @latency = map { $c->{latency}{$_} } qw(demand ahead);
	my @source = ([ page_server => 'page server' ], [ ahead => 'ahead' ], [ cache => 'cache' ], [ local => 'kept locally' ]);
	my @rows;
	foreach my $i (0 .. $#source)
	{
		my ($key, $name) = @{ $source[$i] };
		my $r = $c->{reads}{$key};
		my $row = sprintf '%-13s %9s %6s', $name, human_count($r->{per_second}), percent($r->{share});
		$row .= sprintf '   %-13s %8s %8s %8s', (qw(demand ahead))[$i], map { human_time($latency[$i]{$_}) } qw(p50_us p99_us mean_us) if $i < 2;
		$row .= '   ' . summary($c, $i) if $i >= 2;
		push @rows, $row;
	}
	return { head => sprintf('%-13s %9s %6s   %-13s %8s %8s %8s', 'READS FROM', 'pages/s', 'share', 'PAGE SERVERS', 'p50', 'p99', 'mean'), rows => \@rows, least => 4 };
}

sub summary
{
	my ($c, $i) = @_;
	return sprintf 'waiting on average %s; WAL %s/s', defined $c->{processes_waiting} ? sprintf('%.1f', $c->{processes_waiting}) : '-', human_bytes($c->{wal_per_second}) if $i == 2;
	return sprintf 'backpressure: %s', @{ $c->{throttled_by} } ? "slowed down, $c->{throttled_by}[0]" : defined $c->{throttled} && $c->{throttled} > 0 ? sprintf('%.2f s paused a second', $c->{throttled}) : 'none';
}

sub cache_section
{
	my ($c) = @_;
	my ($cache, $slots) = @$c{qw(cache slots)};
	my $text = $cache->{state} eq 'off' ? 'cache off' : sprintf 'cache %s: %s of %s pages, %s; hit rate %s', $cache->{state}, human_count($cache->{pages}),
	  human_count($cache->{limit_pages}), percent($cache->{limit_pages} ? $cache->{pages} / $cache->{limit_pages} : undef), percent($cache->{hit_rate});
	return { least => 2, rows => [ $text, sprintf 'slots busy %s; wait for page server %s, WAL %s, communicator %s, process %s', map { human_count($slots->{$_}) } qw(busy page_server WAL communicator process) ] };
}

sub shard_section
{
	my ($c) = @_;
	my @rows;
	foreach my $s (@{ $c->{shards} })
	{
		my $first = 1;
		foreach my $h (@{ $s->{hosts} })
		{
			push @rows, sprintf '%-5s %-5s %9s  %-26s %6s %9s %9s', $first ? ($s->{shard}, word($s->{ready}), seconds($s->{oldest_seconds})) : ('', '', ''),
			  plain($h->{host}), "$h->{connected}/$h->{connections}", $h->{in_flight}, human_count($h->{failures});
			$first = 0;
		}
	}
	return { head => sprintf('%-5s %-5s %9s  %-26s %6s %9s %9s', 'SHARD', 'ready', 'oldest', 'host', 'conns', 'in flight', 'failures'), rows => \@rows, least => 2 };
}

sub page_server_section
{
	my ($f) = @_;
	my $form = '%-11s %-9s %-5s %8s %8s %8s %6s %7s %8s';
	my @rows;
	foreach my $p (@{ $f->{page_servers} })
	{
		push @rows, sprintf $form, $p->{number}, $p->{feed} // $p->{state}, ${ $p->{answers} } ? word($p->{ready}) : '?', human_bytes($p->{lag_flush}),
		  human_bytes($p->{lag_apply} // $p->{replay_lag}), human_count($p->{pages_per_second}), human_count($p->{connections}), percent($p->{hit_rate}), human_time($p->{latency}{answer}{p99_us});
	}
	return { head => sprintf($form, 'PAGE SERVER', 'WAL', 'ready', 'on disk', 'replayed', 'pages/s', 'conns', 'buffers', 'answers'), rows => \@rows, least => 2 };
}

# Slots that a process of the compute has been waiting for, the longest first.
sub slot_section
{
	my ($c) = @_;
	my $form = '%-13s %-9s %-30s %10s %8s';
	my @rows = map { sprintf $form, $_->{waits_for} // '-', "$_->{pid}", plain($_->{relation} // join('/', map { $_ // '?' } @$_{qw(spc db relfilenode)})),
		  $_->{kind} eq 'getpage' ? $_->{block} // '-' : $_->{kind}, seconds($_->{age}) } @{ $c->{longest} };
	return { head => sprintf($form, 'WAITS FOR', 'process', 'relation', 'block', 'since'), rows => \@rows, least => 1 };
}

# ---- the screen

# Lines of these sections that are at most $height with those before: the longest section gives way, but keeps
# the least that it needs.
sub fit_lines
{
	my ($height, @sections) = @_;
	my @shown = map { scalar @{ $_->{rows} } } @sections;
	my $lines = sub { my $n = 0; $n += $shown[$_] + ($shown[$_] && defined $sections[$_]{head} ? 1 : 0) foreach 0 .. $#sections; return $n };
	while (defined $height && $lines->() > $height)
	{
		my ($longest) = sort { $shown[$b] <=> $shown[$a] || $b <=> $a } grep { $shown[$_] > $sections[$_]{least} } 0 .. $#sections;
		last unless defined $longest;
		$shown[$longest]--;
	}
	my @out;
	foreach my $i (0 .. $#sections)
	{
		my ($head, @rows) = ($sections[$i]{head}, @{ $sections[$i]{rows} });
		my $more = @rows - $shown[$i];
		splice @rows, $shown[$i];
		$rows[-1] = ($rows[-1] =~ /^! / ? '! ' : '') . '... and ' . ($more + 1) . ' more' if $more && @rows;
		push @out, defined $head && @rows ? $head : (), @rows;
	}
	return @out;
}

# Figures as lines of characters: for $height of them if that is given, each of $width characters at most.
sub screen_of
{
	my ($f, $every, $height, $width) = @_;
	my $c = $f->{compute};
	my @head = head_lines($f, $every);
	my @sections = problem_section($f);
	push @sections, read_section($c), cache_section($c), shard_section($c) if ${ $c->{answers} };
	push @sections, page_server_section($f);
	push @sections, slot_section($c) if ${ $c->{answers} };
	my @lines = (@head, fit_lines(defined $height ? $height - @head : undef, @sections));
	splice @lines, $height if defined $height && @lines > $height;
	return map { defined $width ? substr $_, 0, $width : $_ } @lines;
}

1;
