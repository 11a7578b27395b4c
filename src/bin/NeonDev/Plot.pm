# NeonDev::Plot - series of numbers as SVG inside of a page: lines over time, bars side by side.
#
# Colours are classes s0 to s5 of the page's style sheet; lines are told apart by their dashes too. A drawing is about
# as wide as it is shown, so that its text is as large as that of the page.
package NeonDev::Plot;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;

our @EXPORT = qw(line_plot bar_plot swatch html_text SERIES_MAX);

use constant {
	SERIES_MAX => 6,
	WIDTH => 380,
	HEIGHT => 210,
	LEFT => 60,					# room for numbers
	RIGHT => 10,
	TOP => 10,
	BOTTOM => 24,
};

my @dashes = ('', '7 3', '2 3', '9 3 2 3', '4 2', '1 2');

sub html_text
{
	my ($text) = @_;
	$text =~ s/&/&amp;/g;
	$text =~ s/</&lt;/g;
	$text =~ s/>/&gt;/g;
	$text =~ s/"/&quot;/g;
	return $text =~ s/[\x00-\x08\x0b-\x1f\x7f]/?/gr;
}

sub inner_width { return WIDTH - LEFT - RIGHT }
sub inner_height { return HEIGHT - TOP - BOTTOM }
sub log10 { return log($_[0]) / log 10 }
sub floor { my ($x) = @_; my $i = int $x; return $i > $x ? $i - 1 : $i }
sub ceil { return -floor(-$_[0]) }

# ---- the axis of values

# { low, high, log, ticks }: from 0 in steps that are 1, 2 or 5 of the base's powers, or powers of ten. In bytes
# the base is 1024.
sub axis
{
	my ($plot) = @_;
	my @values = sort { $a <=> $b } grep { defined && (!$plot->{log} || $_ > 0) } map { @{ $_->[1] } } @{ $plot->{series} };
	my $top = $plot->{top} // (@values ? $values[-1] : 0);
	$top = 1 if $top <= 0;
	return log_axis(@values ? $values[0] : 1, $top) if $plot->{log};
	my $unit = 1;
	if ($plot->{bytes}) { $unit *= 1024 while $top / $unit >= 1024 }
	my $step = 10**floor(log10($top / $unit / 4));
	($step) = grep { $top / $unit / $_ <= 4.001 } map { $_ * $step } 1, 2, 5, 10;
	$step = 1 if $plot->{whole} && $step < 1;
	my $n = ceil($top / $unit / $step - 1e-9);
	return { low => 0, high => $n * $step * $unit, ticks => [ map { $_ * $step * $unit } 0 .. $n ] };
}

sub log_axis
{
	my ($least, $top) = @_;
	my ($low, $high) = (floor(log10($least)), ceil(log10($top) - 1e-9));
	$high = $low + 1 if $high <= $low;
	my $every = ceil(($high - $low) / 5);
	return { log => 1, low => 10**$low, high => 10**$high, ticks => [ map { 10**$_ } grep { ($_ - $low) % $every == 0 } $low .. $high ] };
}

sub y_of
{
	my ($axis, $value) = @_;
	my $share = !$axis->{log} ? ($value - $axis->{low}) / ($axis->{high} - $axis->{low})
	  : $value <= $axis->{low} ? 0 : log($value / $axis->{low}) / log($axis->{high} / $axis->{low});
	return sprintf '%.1f', HEIGHT - BOTTOM - inner_height() * $share;
}

# ---- what both kinds have

sub text_at { my ($x, $y, $anchor, $text) = @_; return sprintf '<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>', $x, $y, $anchor, html_text($text) }

sub frame
{
	my ($plot, $axis) = @_;
	my $out = sprintf '<svg viewBox="0 0 %d %d" role="img" aria-label="%s">', WIDTH, HEIGHT, html_text("$plot->{title}; the numbers are in the table below");
	foreach my $tick (@{ $axis->{ticks} })
	{
		my $y = y_of($axis, $tick);
		$out .= sprintf('<line class="grid" x1="%d" x2="%d" y1="%s" y2="%s"/>', LEFT, WIDTH - RIGHT, $y, $y) . text_at(LEFT - 6, $y + 4, 'end', $plot->{format}->($tick) =~ s/\.0(?= )//r);
	}
	return $out;
}

# Text that shows when somebody points at it.
sub tooltip
{
	my ($plot, $i) = @_;
	return '<title>' . html_text(join "\n", $plot->{labels}[$i], map { "$_->[0]: " . $plot->{format}->($_->[1][$i]) } @{ $plot->{series} }) . '</title>';
}

# A sample of how a series is drawn, for a table.
sub swatch
{
	my ($i, $bar) = @_;
	return qq{<svg class="swatch" viewBox="0 0 24 10" aria-hidden="true">} . ($bar ? qq{<rect class="f$i" width="24" height="10"/>}
		: qq{<line class="s$i" x1="0" x2="24" y1="5" y2="5"} . ($dashes[$i] ne '' ? qq{ stroke-dasharray="$dashes[$i]"} : '') . '/>') . '</svg>';
}

# ---- lines

# Runs of values that are there: [ [ index, value ], ... ] each.
sub runs
{
	my (@values) = @_;
	my @runs = ([]);
	foreach my $i (0 .. $#values)
	{
		if (defined $values[$i]) { push @{ $runs[-1] }, [ $i, $values[$i] ] }
		elsif (@{ $runs[-1] }) { push @runs, [] }
	}
	return grep { @$_ } @runs;
}

# { title, format (a function), labels, series => [ [ name, [ values, or undef for none ] ] ], log, bytes, top, whole,
#   positions (of the labels, in some unit) }: an SVG.
sub line_plot
{
	my ($plot) = @_;
	my $axis = axis($plot);
	my @at = @{ $plot->{positions} // [ 0 .. $#{ $plot->{labels} } ] };
	my $span = @at > 1 ? $at[-1] - $at[0] : 0;
	my @x = map { $span > 0 ? LEFT + inner_width() * ($_ - $at[0]) / $span : LEFT + inner_width() / 2 } @at;
	my $out = frame($plot, $axis);

	foreach my $s (0 .. $#{ $plot->{series} })
	{
		last if $s == SERIES_MAX;
		foreach my $run (runs(@{ $plot->{series}[$s][1] }))
		{
			my @points = map { sprintf '%.1f,%s', $x[ $_->[0] ], y_of($axis, $_->[1]) } @$run;
			$out .= @points > 1 ? qq{<polyline class="s$s"} . ($dashes[$s] ne '' ? qq{ stroke-dasharray="$dashes[$s]"} : '') . qq{ points="@points"/>}
			  : sprintf '<circle class="f%d" r="2.5" cx="%s" cy="%s"/>', $s, split /,/, $points[0];
		}
	}
	my @named = @x > 2 && $span > 0 ? ([ 0, 'start' ], [ $#x, 'end' ]) : @x == 2 ? ([ 0, 'start' ], [ 1, 'end' ]) : @x ? ([ 0, 'middle' ]) : ();
	my ($middle) = grep { $x[$_] >= LEFT + inner_width() / 2 } 0 .. $#x;
	splice @named, 1, 0, [ $middle, 'middle' ] if @named == 2 && $middle > 0 && $x[$middle] < LEFT + inner_width() * 0.65;
	$out .= text_at($x[ $_->[0] ], HEIGHT - 7, $_->[1], $plot->{labels}[ $_->[0] ]) foreach @named;
	foreach my $i (0 .. $#x)
	{
		my ($from, $to) = ($i > 0 ? ($x[ $i - 1 ] + $x[$i]) / 2 : LEFT, $i < $#x ? ($x[$i] + $x[ $i + 1 ]) / 2 : WIDTH - RIGHT);
		$out .= sprintf '<rect class="point" x="%.1f" y="%d" width="%.1f" height="%d">%s</rect>', $from, TOP, $to - $from, inner_height(), tooltip($plot, $i);
	}
	return "$out</svg>";
}

# ---- bars

# The same with a group of bars for each label.
sub bar_plot
{
	my ($plot) = @_;
	my $axis = axis($plot);
	my @labels = @{ $plot->{labels} };
	my @series = @{ $plot->{series} };
	my $group = inner_width() / (@labels || 1);
	my $width = $group * 0.8 / (@series || 1);
	my $out = frame($plot, $axis);
	# as many labels as there is room for
	my ($longest) = sort { $b <=> $a } map { length } @labels;
	my $every = ceil((($longest // 0) * 6.5 + 6) / $group) || 1;

	foreach my $i (0 .. $#labels)
	{
		foreach my $s (0 .. $#series)
		{
			my $value = $series[$s][1][$i] // next;
			my $y = y_of($axis, $value);
			$out .= sprintf '<rect class="f%d" x="%.1f" y="%s" width="%.1f" height="%.1f"/>', $s, LEFT + $group * ($i + 0.1) + $width * $s, $y, $width * 0.92, HEIGHT - BOTTOM - $y;
		}
		$out .= text_at(LEFT + $group * ($i + 0.5), HEIGHT - 7, 'middle', $labels[$i]) if $i % $every == 0;
		$out .= sprintf '<rect class="point" x="%.1f" y="%d" width="%.1f" height="%d">%s</rect>', LEFT + $group * $i, TOP, $group, inner_height(), tooltip($plot, $i);
	}
	return "$out</svg>";
}

1;
