# NeonDev::Report - one page of HTML about some minutes of a cluster, or about a finished bench.
#
# The page needs nothing but itself: drawings and style are in it, and it forbids itself any other. Every drawing has
# its numbers in a table.
package NeonDev::Report;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Figures;
use NeonDev::Json;
use NeonDev::Page;
use NeonDev::Plot;
use NeonDev::Screen;
use NeonDev::Top;
use POSIX ();

our @EXPORT = qw(report open_report needs_no_cluster);

use constant {
	POINTS => 200,				# of a line at most: more looks than these are put together
	LONGEST => 12,				# waits that are listed
};

# ---- what is read and written

# Before root's rights are gone: the files are the caller's.
sub open_report
{
	defined $opt{output} or usage 'report needs -o FILE';
	!defined $opt{bench} || !defined $opt{record} or usage '--bench and --record are two things';
	my @idle = grep { $opt{given}{$_} && (defined $opt{bench} || defined $opt{record}) } qw(seconds interval);
	!@idle or usage "--$idle[0] is of use without --bench and --record only";
	$opt{from_text} = slurp($opt{bench} // $opt{record}) // fail 'cannot read ', $opt{bench} // $opt{record}, ": $!" if needs_no_cluster();
	return if $opt{output} eq '-';
	# what was there stays until there is something else
	open $opt{output_file}, '>>', $opt{output} or fail "cannot write $opt{output}: $!";
	return;
}

sub needs_no_cluster { return defined $opt{bench} || defined $opt{record} }

sub write_page
{
	my ($page) = @_;
	my $fh = $opt{output_file} // \*STDOUT;
	$opt{output} eq '-' || truncate $fh, 0 or fail "cannot write $opt{output}: $!";
	(print $fh $page) && $fh->flush or fail "cannot write $opt{output}: $!";
	progress "written: $opt{output}" if $opt{output} ne '-';
	return 0;
}

# ---- looks of a cluster

sub recorded_looks
{
	my ($name, $text) = @_;
	my @looks;
	my $n = 0;
	foreach my $line (split /\n/, $text)
	{
		$n++;
		my $look = json_decode($line);
		# the last line of one that is still written may be cut
		next if !defined $look && $n > 1 && $text !~ /\n\z/ && $n == ($text =~ tr/\n//) + 1;
		ref $look eq 'HASH' && ($look->{time} // '') =~ /^\d+(?:\.\d+)?\z/ && ref $look->{compute} eq 'HASH' && ref $look->{page_servers} eq 'ARRAY'
		  or fail "line $n of $name is none of \"neon_dev top --record\"";
		push @looks, $look;
	}
	@looks or fail "$name has no looks";
	my %clusters = map { ($_->{cluster} // '' => 1) } @looks;
	keys %clusters == 1 or fail "$name is about several clusters: ", join(', ', sort keys %clusters);
	return sort { $a->{time} <=> $b->{time} } @looks;
}

sub collected_looks
{
	my ($seconds, $every) = ($opt{seconds}, $opt{interval} // 1);
	my @looks;
	my $rounds = $seconds > $every ? int($seconds / $every) : 1;
	my $told = 0;
	look_often($rounds, $every, sub {
		my ($figures) = @_;
		push @looks, json_decode(figures_json($figures));
		my $done = int(10 * @looks / $rounds);
		progress sprintf('%d of %d s', @looks * $every, $rounds * $every) if $done > $told && !($opt{output} eq '-');
		$told = $done;
	});
	return @looks;
}

# ---- series

# A value deep in a look: of a hash by name, of an array by number.
sub at_path
{
	my ($value, @path) = @_;
	foreach (@path)
	{
		$value = ref $value eq 'HASH' ? $value->{$_} : ref $value eq 'ARRAY' && /^\d+\z/ ? $value->[$_] : undef;
	}
	return ref $value ? undef : $value;
}

sub number_or_none { my ($v) = @_; return defined $v && $v =~ /^-?\d[\d.]*(?:e[-+]?\d+)?\z/i ? $v + 0 : undef }
sub values_at { my ($looks, @path) = @_; return [ map { number_or_none(at_path($_, @path)) } @$looks ] }

sub page_server_series
{
	my ($looks, $name) = @_;
	my $n = 0;
	foreach (@$looks) { $n = @{ $_->{page_servers} } if @{ $_->{page_servers} } > $n }
	return map { [ "page server $_", values_at($looks, 'page_servers', $_, $name) ] } 0 .. $n - 1;
}

sub as_percent { my ($values) = @_; return [ map { defined ? 100 * $_ : undef } @$values ] }
sub percent { my ($x) = @_; return defined $x ? sprintf('%.0f %%', $x) : '-' }
sub rate_bytes { my ($x) = @_; return defined $x ? human_bytes($x) . '/s' : '-' }
sub small_number { my ($x) = @_; return !defined $x ? '-' : $x == int $x || $x >= 99.5 ? sprintf '%.0f', $x : sprintf '%.2g', $x }

# "peaks": of looks that are put together the largest counts, not the mean.
sub plots_of
{
	my ($looks) = @_;
	my $of = sub { return values_at($looks, 'compute', @_) };
	return (
		{ title => 'Pages read a second, by where from', format => \&human_count, series => [ [ 'page server', $of->(qw(reads page_server per_second)) ],
			[ 'ahead', $of->(qw(reads ahead per_second)) ], [ 'cache', $of->(qw(reads cache per_second)) ], [ 'kept locally', $of->(qw(reads local per_second)) ] ] },
		{ title => 'Time of a page server for a page', format => \&human_time, log => 1, peaks => 1, series => [ [ 'waited for, p50', $of->(qw(latency demand p50_us)) ],
			[ 'waited for, p99', $of->(qw(latency demand p99_us)) ], [ 'ahead, p50', $of->(qw(latency ahead p50_us)) ], [ 'ahead, p99', $of->(qw(latency ahead p99_us)) ] ] },
		{ title => 'Who waits', format => \&small_number, peaks => 1, series => [ [ 'processes, on average', $of->('processes_waiting') ], [ 'slots busy', $of->(qw(slots busy)) ] ] },
		{ title => 'Local file cache', format => \&percent, top => 100, series => [ [ 'hit rate', as_percent($of->(qw(cache hit_rate))) ], [ 'full', filled($looks) ] ] },
		{ title => 'WAL that page servers have not replayed', format => \&human_bytes, bytes => 1, peaks => 1, series => [ page_server_series($looks, 'lag_apply') ] },
		{ title => 'WAL that page servers do not have on disk', format => \&human_bytes, bytes => 1, peaks => 1, series => [ page_server_series($looks, 'lag_flush') ] },
		{ title => 'WAL written', format => \&rate_bytes, bytes => 1, series => [ [ 'compute', $of->('wal_per_second') ] ] },
		{ title => 'Pages served a second', format => \&human_count, series => [ page_server_series($looks, 'pages_per_second') ] },
		{ title => 'Backpressure: seconds paused a second', format => \&small_number, peaks => 1, series => [ [ 'writers of WAL', $of->('throttled') ] ] });
}

sub filled
{
	my ($looks) = @_;
	return [ map { my ($pages, $limit) = map { $_ // 0 } @{ $_->{compute}{cache} // {} }{qw(pages limit_pages)}; $limit ? 100 * $pages / $limit : undef } @$looks ];
}

# Looks are put together until there are few enough, a gap being one where all are.
sub put_together
{
	my ($peaks, $each, @values) = @_;
	my @out;
	while (my @some = splice @values, 0, $each)
	{
		my @there = sort { $a <=> $b } grep { defined } @some;
		my $sum = 0;
		$sum += $_ foreach @there;
		push @out, !@there ? undef : $peaks ? $there[-1] : $sum / @there;
	}
	return \@out;
}

sub clock { my ($time) = @_; return POSIX::strftime('%H:%M:%S', gmtime $time) }

sub draw_plot
{
	my ($plot, $times) = @_;
	my $each = int((@$times + POINTS - 1) / POINTS) || 1;
	my @at = map { $times->[ $_ * $each ] } 0 .. int($#$times / $each);
	# the largest ones, when there are more than can be told apart
	my @series = sort { largest($b->[1]) <=> largest($a->[1]) } @{ $plot->{series} };
	@series = @{ $plot->{series} } if @series <= SERIES_MAX;
	my %drawn = (%$plot, positions => \@at, labels => [ map { clock($_) } @at ], series => [ map { [ $_->[0], put_together($plot->{peaks}, $each, @{ $_->[1] }) ] } @series ]);
	return plot_card(\%drawn, line_plot(\%drawn), sums_table(\%drawn, \@series), $each > 1 ? ' Each row is ' . ($plot->{peaks} ? 'the largest' : 'the mean') . " of $each looks." : '');
}

sub largest { my ($values) = @_; my ($most) = sort { $b <=> $a } grep { defined } @$values; return $most // -1 }

sub sums_table
{
	my ($plot, $series) = @_;
	my @rows;
	foreach my $i (0 .. $#$series)
	{
		my ($name, $values) = @{ $series->[$i] };
		my @there = sort { $a <=> $b } grep { defined } @$values;
		my $sum = 0;
		$sum += $_ foreach @there;
		my ($least, $mean, $most) = @there ? ($there[0], $sum / @there, $there[-1]) : ();
		push @rows, [ ($i < SERIES_MAX ? swatch($i) : '') . html_text($name), map { html_text($plot->{format}->($_)) } $least, $mean, $most ];
	}
	return number_table([ 'series', 'least', 'mean', 'most' ], \@rows);
}

# ---- words

# Each problem once, with when it was seen.
sub problems_table
{
	my ($looks) = @_;
	my %seen;
	foreach my $look (@$looks)
	{
		foreach my $problem (@{ $look->{problems} // [] })
		{
			next if !defined $problem || ref $problem;
			# how long something has waited by now is no other problem
			my $key = $problem =~ s/[\d.]+ s\b/N s/gr;
			my $it = $seen{$key} //= { first => $look->{time}, times => 0 };
			@$it{qw(last text)} = ($look->{time}, $problem);
			$it->{times}++;
		}
	}
	my @all = sort { $a->{first} <=> $b->{first} || $a->{text} cmp $b->{text} } values %seen;
	return '<p class="good">Nothing was wrong at any look.</p>' unless @all;
	return text_table([ 'from', 'to', 'looks', 'what' ], [ map { [ clock($_->{first}), clock($_->{last}), $_->{times}, html_text($_->{text}) ] } @all ]);
}

# The longest look at each wait.
sub waits_table
{
	my ($looks) = @_;
	my %wait;
	foreach my $look (@$looks)
	{
		foreach my $slot (grep { ref eq 'HASH' && defined $_->{age} } @{ $look->{compute}{longest} // [] })
		{
			my $key = join '/', map { $_ // '' } @$slot{qw(pid spc db relfilenode fork block kind)};
			$wait{$key} = { %$slot, time => $look->{time} } if !$wait{$key} || $wait{$key}{age} < $slot->{age};
		}
	}
	my @longest = sort { $b->{age} <=> $a->{age} } values %wait;
	return '<p>No look met a process that waited.</p>' unless @longest;
	splice @longest, LONGEST if @longest > LONGEST;
	return text_table([ 'at', 'waited', 'for', 'process', 'relation', 'block' ], [ map {
		my $s = $_;
		[ map { html_text($_ // '-') } clock($s->{time}), human_time(1e6 * $s->{age}), $s->{waits_for}, $s->{pid},
			$s->{relation} // join('/', map { $_ // '?' } @$s{qw(spc db relfilenode)}), ($s->{kind} // '') eq 'getpage' ? $s->{block} : $s->{kind} ]
	} @longest ]);
}

sub total
{
	my ($looks, @path) = @_;
	my $sum = 0;
	$sum += $_ // 0 foreach @{ values_at($looks, 'compute', @path) };
	return $sum;
}

sub highest { my ($values) = @_; my $most = largest($values); return $most < 0 ? undef : $most }

sub tiles_of
{
	my ($looks) = @_;
	my %pages = map { ($_ => total($looks, 'reads', $_, 'pages')) } qw(page_server ahead cache local);
	my $all = $pages{page_server} + $pages{ahead} + $pages{cache} + $pages{local};
	my $wrong = grep { @{ $_->{problems} // [] } } @$looks;
	my ($lag) = sort { ($b // -1) <=> ($a // -1) } map { highest($_->[1]) } page_server_series($looks, 'lag_apply');
	return tiles(
		[ 'pages read', human_count($all) ],
		(map { [ "of these from $_->[1]", $all ? sprintf '%.0f %%', 100 * $pages{ $_->[0] } / $all : '-' ] } [ 'page_server', 'page servers, waited for' ], [ 'ahead', 'page servers, ahead' ], [ 'cache', 'the cache' ]),
		[ 'worst p99 of a page server', human_time(highest(values_at($looks, qw(compute latency demand p99_us)))) ],
		[ 'most WAL not replayed', human_bytes($lag) ],
		[ 'looks at which something was wrong', "$wrong of " . @$looks ]);
}

sub page_of_looks
{
	my (@looks) = @_;
	my @times = map { $_->{time} } @looks;
	my $day = POSIX::strftime('%Y-%m-%d', gmtime $times[0]);
	my @plots = plots_of(\@looks);
	return page("Report of $looks[0]{cluster}",
		sprintf('%s, %s to %s UTC, %d %s', $day, clock($times[0]), clock($times[-1]), scalar @looks, @looks == 1 ? 'look' : 'looks'),
		tiles_of(\@looks), section('What was wrong', problems_table(\@looks)), section('Figures', plots(map { draw_plot($_, \@times) } @plots)),
		section('Who waited longest', waits_table(\@looks)));
}

# ---- a bench

sub delay_of { my ($row) = @_; return sprintf('%g ms', ($row->{delay_us} // 0) / 1000) }

# How test/bench names what it measured: series, title, labels, what a number is, and where the numbers are.
my @bench_plots = (
	{ series => 'point_latency', title => 'Random page, one client, by delay of a round trip', label => \&delay_of, format => \&human_time, log => 1,
		of => [ map { my $m = $_; map { [ "$m, $_", $m, "${_}_us" ] } 'p50', 'p99' } 'communicator', 'direct' ] },
	{ series => 'point_throughput', title => 'Random pages a second, by clients and delay', label => sub { ($_[0]{clients} // 1) . ', ' . delay_of($_[0]) }, format => \&human_count,
		of => [ map { [ $_, $_, 'per_second' ] } 'communicator', 'direct' ] },
	{ series => 'scan', title => 'Cold sequential scan, pages a second, by delay', label => \&delay_of, format => \&human_count, log => 1,
		of => [ (map { [ $_, $_, 'pages_per_second' ] } 'communicator', 'no readahead', 'direct'), [ 'ceiling', 'ceiling', 'per_second' ] ] },
	{ series => 'bitmap', title => 'Bitmap heap scan, by delay', label => \&delay_of, format => sub { human_time(defined $_[0] ? 1000 * $_[0] : undef) }, log => 1, of => [ map { [ $_, $_, 'ms' ] } 'eic 64', 'off' ] },
	{ series => 'ceiling', title => 'Page service alone, pages a second, by connections and depth', label => sub { join ' x ', map { $_ // '?' } @{ $_[0] }{qw(connections depth)} }, format => \&human_count,
		by => 'pattern', of => [ map { [ $_, 'per_second' ] } 'random', 'sequential' ] });

sub bench_plot
{
	my ($how, @rows) = @_;
	my (@labels, %at);
	foreach my $row (@rows)
	{
		my $label = $how->{label}->($row);
		push @labels, $label unless exists $at{$label};
		$at{$label}{ $how->{by} ? $row->{ $how->{by} } // '' : '' } = $row;
	}
	my @series;
	foreach (@{ $how->{of} })
	{
		my ($name, @path) = @$_;
		my $values = [ map { number_or_none(at_path($at{$_}, $how->{by} ? $name : '', @path)) } @labels ];
		push @series, [ $name, $values ] if grep { defined } @$values;
	}
	return unless @series;
	my %plot = (title => $how->{title}, format => $how->{format}, log => $how->{log}, labels => \@labels, series => \@series);
	my @table = map { my ($name, $values) = @{ $series[$_] }; [ swatch($_, 1) . html_text($name), map { html_text($plot{format}->($_)) } @$values ] } 0 .. $#series;
	return plot_card(\%plot, bar_plot(\%plot), number_table([ 'series', map { html_text($_) } @labels ], \@table));
}

sub bench_rows
{
	my ($results) = @_;
	my @rows = grep { ref eq 'HASH' && $_->{row} } map { ref eq 'ARRAY' ? @$_ : () } map { $results->{rows}{$_} } sort keys %{ $results->{rows} };
	my $number = sub { return $_[0]{row} =~ /^\d+/ ? $& : 999 };
	@rows = sort { $number->($a) <=> $number->($b) || $a->{row} cmp $b->{row} } @rows;
	return (\@rows, text_table([ '#', 'work', 'target', 'figure', 'verdict' ], [ map { my $r = $_; [ map { html_text($r->{$_} // '-') } qw(row what target figure verdict) ] } @rows ]));
}

sub page_of_bench
{
	my ($name, $text) = @_;
	my $results = json_decode($text);
	ref $results eq 'HASH' && !grep { ref $results->{$_} ne 'HASH' } qw(meta rows series) or fail "$name is no result of test/bench: it has no meta, rows and series";
	my $m = $results->{meta};
	my ($rows, $table) = bench_rows($results);
	my @cards = map { my $t = $results->{series}{ $_->{series} }; ref $t eq 'HASH' && ref $t->{table} eq 'ARRAY' ? bench_plot($_, grep { ref eq 'HASH' } @{ $t->{table} }) : () } @bench_plots;
	my $met = grep { ($_->{verdict} // '') eq 'met' } @$rows;
	my $missed = grep { ($_->{verdict} // '') eq 'MISSED' } @$rows;
	return page('Report of a bench', join(', ', grep { defined && !ref } @$m{qw(date commit)}),
		tiles([ 'rows met', $met ], [ 'rows missed', $missed ], [ 'CPUs', $m->{cpus} // '-' ], [ 'load before', defined $m->{load_before} ? sprintf '%.2f', $m->{load_before} : '-' ],
			[ 'load after', defined $m->{load_after} ? sprintf '%.2f', $m->{load_after} : '-' ], [ 'seconds', $m->{took_seconds} // '-' ]),
		section('Machine', '<p>' . html_text(join ', ', grep { defined && !ref } @$m{qw(cpu kernel)}) . '</p>'),
		section('Rows', $table), @cards ? section('Figures', plots(@cards)) : ());
}

# ---- the command

sub report
{
	return write_page(page_of_bench($opt{bench}, $opt{from_text})) if defined $opt{bench};
	return write_page(page_of_looks(recorded_looks($opt{record}, $opt{from_text}))) if defined $opt{record};
	load_cluster();
	return write_page(page_of_looks(collected_looks()));
}

1;
