# NeonDev::Page - the HTML around plots and tables: for narrow and wide, light and dark.
package NeonDev::Page;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Plot;

our @EXPORT = qw(page section plots plot_card tiles text_table number_table);

# Text has a contrast of 4.5 to what is behind it, and lines of 3, in both: test/browser.sh measures.
my $style = <<'END';
:root { color-scheme: light dark; --back: #ffffff; --card: #f5f7f9; --text: #1b1f24; --dim: #55606b; --edge: #d3d9df; --grid: #dfe4e9;
  --c0: #0b63b0; --c1: #b42a4c; --c2: #1c7a4b; --c3: #9a5b00; --c4: #6b45a8; --c5: #4a5560; --good: #146c3c; --point: #0b63b022 }
@media (prefers-color-scheme: dark) {
  :root { --back: #12161b; --card: #1b2128; --text: #e6eaee; --dim: #a3afbb; --edge: #36404a; --grid: #2d363f;
    --c0: #6cb2f4; --c1: #f2849d; --c2: #6fcf97; --c3: #e8b04a; --c4: #bda0f0; --c5: #b5c0ca; --good: #6fcf97; --point: #6cb2f433 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 16px; max-width: 1680px; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.4em; margin: 0 }
h2 { font-size: 1.15em; margin: 28px 0 10px }
h3 { font-size: 1em; margin: 0 0 6px }
p { margin: 4px 0 }
.sub { color: var(--dim) }
.good { color: var(--good) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 16px 0 0; padding: 0 }
.tiles div { background: var(--card); border: 1px solid var(--edge); border-radius: 6px; padding: 8px 12px; display: flex; flex-direction: column-reverse; justify-content: flex-end }
.tiles dt { color: var(--dim); font-size: 0.85em }
.tiles dd { margin: 0; font-size: 1.35em; font-weight: 600 }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 14px; align-items: start }
.plot { background: var(--card); border: 1px solid var(--edge); border-radius: 6px; padding: 10px 12px; min-width: 0; margin: 0 }
.plot > svg { display: block; width: 100%; height: auto; max-width: 560px; margin: 0 auto }
svg text { font: 11px system-ui, sans-serif; fill: var(--text) }
svg .grid { stroke: var(--grid); stroke-width: 1 }
polyline, .swatch line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.swatch { width: 24px; height: 10px; margin-right: 6px; vertical-align: baseline }
.point { fill: transparent }
.point:hover { fill: var(--point) }
.s0 { stroke: var(--c0) } .s1 { stroke: var(--c1) } .s2 { stroke: var(--c2) } .s3 { stroke: var(--c3) } .s4 { stroke: var(--c4) } .s5 { stroke: var(--c5) }
.f0 { fill: var(--c0) } .f1 { fill: var(--c1) } .f2 { fill: var(--c2) } .f3 { fill: var(--c3) } .f4 { fill: var(--c4) } .f5 { fill: var(--c5) }
.table { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 0.88em }
th, td { text-align: left; vertical-align: top; padding: 3px 8px 3px 0; border-bottom: 1px solid var(--edge) }
th { color: var(--dim); font-weight: 600 }
.numbers th, .numbers td { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.numbers th:first-child, .numbers td:first-child { text-align: left }
.words td, .words th { overflow-wrap: break-word }
details { margin-top: 6px; font-size: 0.92em }
summary { cursor: pointer; color: var(--dim) }
details .table { max-height: 320px; overflow: auto }
END

sub page
{
	my ($title, $sub, @parts) = @_;
	return join "\n", '<!DOCTYPE html>', '<html lang="en">', '<head>', '<meta charset="utf-8">',
	  # nothing comes from anywhere else
	  q{<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">},
	  '<meta name="viewport" content="width=device-width, initial-scale=1">', '<link rel="icon" href="data:,">',
	  '<title>' . html_text($title) . '</title>', "<style>\n$style</style>", '</head>', '<body>',
	  '<header><h1>' . html_text($title) . '</h1>', '<p class="sub">' . html_text($sub) . '</p></header>', '<main>', @parts, '</main>', '</body>', "</html>\n";
}

# The rest takes HTML.
sub section { my ($title, @parts) = @_; return "<section><h2>$title</h2>\n" . join("\n", @parts) . "\n</section>" }
sub plots { return '<div class="plots">' . join("\n", @_) . '</div>' }

# [ what, value ] each.
sub tiles { return '<dl class="tiles">' . join('', map { '<div><dt>' . html_text($_->[0]) . '</dt><dd>' . html_text($_->[1]) . '</dd></div>' } @_) . '</dl>' }

sub table
{
	my ($class, $head, $rows) = @_;
	my $out = qq{<table class="$class"><thead><tr>} . join('', map { qq{<th scope="col">$_</th>} } @$head) . '</tr></thead><tbody>';
	foreach my $row (@$rows)
	{
		$out .= '<tr>' . join('', map { "<td>$_</td>" } @$row) . '</tr>';
	}
	# who has no mouse scrolls with the keyboard
	return qq{<div class="table" tabindex="0" role="group" aria-label="table">$out</tbody></table></div>};
}

sub text_table { my ($head, $rows) = @_; return table('words', $head, $rows) }
sub number_table { my ($head, $rows) = @_; return table('numbers', $head, $rows) }

# A drawing with its numbers: a table that is shown, and all of them.
sub plot_card
{
	my ($plot, $svg, $table, $how) = @_;
	my $out = '<figure class="plot"><h3>' . html_text($plot->{title}) . "</h3>$svg$table";
	if (defined $how)
	{
		my @labels = @{ $plot->{labels} };
		my @rows = map { my $i = $_; [ html_text($labels[$i]), map { html_text($plot->{format}->($_->[1][$i])) } @{ $plot->{series} } ] } 0 .. $#labels;
		$out .= '<details><summary>All numbers.' . html_text($how) . '</summary>' . number_table([ 'time', map { html_text($_->[0]) } @{ $plot->{series} } ], \@rows) . '</details>';
	}
	return "$out</figure>";
}

1;
