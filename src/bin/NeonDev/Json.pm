# NeonDev::Json - JSON to and from Perl's values. Debian's perl-base has no module for that.
package NeonDev::Json;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;

our @EXPORT = qw(json_decode json_encode);

my %escaped = (b => "\b", f => "\f", n => "\n", r => "\r", t => "\t", '"' => '"', '\\' => '\\', '/' => '/');
my %word = (true => 1, false => 0, null => undef);

use constant DEEPEST => 64;

sub decode_string
{
	my ($text) = @_;
	$$text =~ /\G"((?:[^"\\\x00-\x1f]|\\.)*)"/gc or die "no string\n";
	my $s = $1;
	# what is beyond a byte, and pairs, as UTF-8
	$s =~ s/\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)/utf8_of(0x10000 + ((hex($1) & 0x3ff) << 10) + (hex($2) & 0x3ff))/ge;
	$s =~ s/\\(?:u([0-9a-fA-F]{4})|(.))/defined $1 ? utf8_of(hex $1) : $escaped{$2} \/\/ die "no such escape\n"/gse;
	return $s;
}

sub utf8_of { my ($code) = @_; no warnings; my $c = chr $code; utf8::encode($c); return $c }

sub decode_array
{
	my ($text, $depth) = @_;
	my @all;
	return \@all if $$text =~ /\G\s*\]/gc;
	while (1)
	{
		push @all, decode_value($text, $depth);
		return \@all if $$text =~ /\G\s*\]/gc;
		$$text =~ /\G\s*,/gc or die "no end of an array\n";
	}
}

sub decode_object
{
	my ($text, $depth) = @_;
	my %all;
	return \%all if $$text =~ /\G\s*\}/gc;
	while (1)
	{
		$$text =~ /\G\s*/gc;
		my $key = decode_string($text);
		$$text =~ /\G\s*:/gc or die "no value of \"$key\"\n";
		$all{$key} = decode_value($text, $depth);
		return \%all if $$text =~ /\G\s*\}/gc;
		$$text =~ /\G\s*,/gc or die "no end of an object\n";
	}
}

sub decode_value
{
	my ($text, $depth) = @_;
	$depth < DEEPEST or die "too deep\n";
	$$text =~ /\G\s*/gc;
	return decode_object($text, $depth + 1) if $$text =~ /\G\{/gc;
	return decode_array($text, $depth + 1) if $$text =~ /\G\[/gc;
	return $1 + 0 if $$text =~ /\G(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?)/gc;
	return $word{$1} if $$text =~ /\G(true|false|null)\b/gc;
	return decode_string($text);
}

# A text of JSON (bytes, UTF-8) as hashes, arrays, strings and numbers; true and false are 1 and 0, null is
# undef. Nothing if it is no JSON.
sub json_decode
{
	my ($text) = @_;
	my $value;
	return unless defined $text;
	eval { $value = decode_value(\$text, 0); $text =~ /\G\s*\z/gc or die "something follows\n"; 1 } or return;
	return $value;
}

# Numbers are what looks like one, unless their key is listed as that of a text; references to 0 and 1 are
# false and true. Keys come in the order of their names.
sub json_encode
{
	my ($value, $texts, $key) = @_;
	return 'null' unless defined $value;
	return '{' . join(',', map { json_text($_) . ':' . json_encode($value->{$_}, $texts, $_) } sort keys %$value) . '}' if ref $value eq 'HASH';
	return '[' . join(',', map { json_encode($_, $texts, $key) } @$value) . ']' if ref $value eq 'ARRAY';
	return $$value ? 'true' : 'false' if ref $value;
	return $value if $value =~ /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[-+]?\d+)?\z/ && !$texts->{ $key // '' };
	return json_text($value);
}

1;
