# NeonDev::Exposition - Prometheus' text format as values, and what can be said of two such texts.
package NeonDev::Exposition;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;

our @EXPORT = qw(parse_exposition value_of labelled histogram_between quantile);

my %escaped = (n => "\n", '"' => '"', '\\' => '\\');

sub parse_labels
{
	my ($text) = @_;
	my %labels;
	while ($text =~ /\G\s*([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\s*(?:,|\z)/gc)
	{
		my ($name, $value) = ($1, $2);
		$labels{$name} = $value =~ s/\\(.)/$escaped{$1} \/\/ "\\$1"/gser;
	}
	return ((pos($text) // 0) == length $text) ? \%labels : undef;
}

# The samples of a text by name: { NAME => [ [ { LABEL => VALUE }, value ] ] }. A value is a number; +Inf is 9**9**9.
# Lines that are none are left out.
sub parse_exposition
{
	my ($text) = @_;
	my %samples;
	foreach (split /\n/, $text)
	{
		my ($name, $labels, $value) = /^([A-Za-z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+(\S+)(?:\s+-?[\d.]+)?\s*$/ or next;
		$labels = parse_labels($labels // '') // next;
		if ($value =~ /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\z/) { $value += 0 }
		elsif ($value =~ /^([-+]?)Inf\z/) { $value = $1 eq '-' ? -9**9**9 : 9**9**9 }
		else { next }
		push @{ $samples{$name} }, [ $labels, $value ];
	}
	return \%samples;
}

sub matches
{
	my ($labels, %wanted) = @_;
	return !grep { ($labels->{$_} // '') ne $wanted{$_} } keys %wanted;
}

# The value of a sample with these labels, if there is one.
sub value_of
{
	my ($samples, $name, %wanted) = @_;
	my ($found) = grep { matches($_->[0], %wanted) } @{ $samples->{$name} // [] };
	return $found ? $found->[1] : undef;
}

# Values of all samples of a name with these labels, by one more label.
sub labelled
{
	my ($samples, $name, $label, %wanted) = @_;
	return map { ($_->[0]{$label} // '' => $_->[1]) } grep { matches($_->[0], %wanted) } @{ $samples->{$name} // [] };
}

# What a histogram has got between two texts, or since its beginning without the first: { count, sum, buckets =>
# [ [ upper bound, how many, not cumulated ] ] }. One that began anew meanwhile is taken since then.
sub histogram_between
{
	my ($before, $now, $name, %wanted) = @_;
	my %had = $before ? labelled($before, "${name}_bucket", 'le', %wanted) : ();
	my %has = labelled($now, "${name}_bucket", 'le', %wanted);
	my @bounds = sort { bound($a) <=> bound($b) } keys %has;
	my $count = value_of($now, "${name}_count", %wanted) // return;
	my ($count_before, $sum_before) = $before ? map { value_of($before, "${name}_$_", %wanted) // 0 } 'count', 'sum' : (0, 0);

	if ($count < $count_before)
	{
		%had = ();
		$count_before = $sum_before = 0;
	}
	my ($below, @buckets) = (0);
	foreach my $le (@bounds)
	{
		my $upto = $has{$le} - ($had{$le} // 0);
		push @buckets, [ bound($le), $upto > $below ? $upto - $below : 0 ];
		$below = $upto if $upto > $below;
	}
	return { count => $count - $count_before, sum => value_of($now, "${name}_sum", %wanted) - $sum_before, buckets => \@buckets };
}

sub bound { my ($le) = @_; return $le =~ /Inf/ ? 9**9**9 : $le + 0 }

# The value below which a share of what a histogram counted is, within a bucket as if it were spread evenly; nothing
# if it counted nothing. Of the last bucket only the lower bound is known.
sub quantile
{
	my ($histogram, $share) = @_;
	my $total = 0;
	$total += $_->[1] foreach @{ $histogram->{buckets} };
	return if $total == 0;
	my ($wanted, $seen, $low) = ($share * $total, 0, 0);
	foreach (@{ $histogram->{buckets} })
	{
		my ($high, $n) = @$_;
		if ($n > 0 && $seen + $n >= $wanted)
		{
			return $high == 9**9**9 ? $low : $low + ($high - $low) * ($wanted - $seen) / $n;
		}
		$seen += $n;
		$low = $high;
	}
	return $low;
}

1;
