# NeonDev::Sample - what the exporters of a cluster's parts say at one moment.
#
# Nobody logs in for it, so that it is there when nobody can. Parts are asked at once; one that does not
# answer has no more than its time.
package NeonDev::Sample;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Exposition;
use NeonDev::Http;
use NeonDev::Json;
use NeonDev::Parts;
use NeonDev::Processes;

our @EXPORT = qw(take_sample all_parts);

my %exporter;					# part => { port, tls }, as its configuration says it

sub all_parts { return ('compute', page_servers()) }

# Asked of the configuration again when the part was started again: it may have changed.
sub exporter_of
{
	my ($part, $pid) = @_;
	my $known = $exporter{$part};
	return $known if $known && $known->{pid} == $pid;
	my $prefix = $part eq 'compute' ? 'neon_comm' : 'neon_page_service';
	my $port = metrics_port($part);
	return $exporter{$part} = { pid => $pid, port => $port, tls => $port && configured_text($part, "$prefix.metrics_ssl_cert_file") ne '' };
}

sub pages_of
{
	my ($part, $exporter) = @_;
	my ($token) = (slurp(security_dir() . '/metrics_token') // '') =~ /^(\S+)/;
	my %common = (port => $exporter->{port}, token => $token, ca => $exporter->{tls} ? security_dir() . '/ca.crt' : undef);
	return map { { %common, path => "/$_", name => $_, part => $part } } qw(metrics readyz), $part eq 'compute' ? 'slots' : ();
}

sub why_none
{
	my ($answer) = @_;
	return 'it asks for another token than security/metrics_token' if $answer->{status} == 401;
	return "status $answer->{status}";
}

my %read = (metrics => \&parse_exposition, readyz => \&json_decode, slots => \&json_decode);

sub take_answer
{
	my ($it, $name, $answer) = @_;
	if (defined $answer->{error} || $answer->{status} != 200 && !($name eq 'readyz' && $answer->{status} == 503))
	{
		$it->{error} = $answer->{error} // why_none($answer);
		return;
	}
	my $value = $read{$name}->($answer->{body});
	if (ref $value eq 'HASH') { $it->{$name} = $value }
	else { $it->{error} = "its /$name is not understood" }
	return;
}

# { at (monotonic), time (since 1970), parts => { PART => { state, metrics, readyz, slots, error } } }. What an
# exporter said is there if it answered within so many seconds; "error" says why not. Parts for which %$known has
# something are not asked: that is taken for them.
sub take_sample
{
	my ($seconds, $known) = @_;
	my %sample = (at => monotonic(), time => time);
	my @pages;
	foreach my $part (all_parts())
	{
		if ($known->{$part}) { $sample{parts}{$part} = $known->{$part}; next }
		my $it = $sample{parts}{$part} = { state => part_state($part) };
		my $pid = part_pid($part) // next;
		my $exporter = exporter_of($part, $pid);
		if ($exporter->{port}) { push @pages, pages_of($part, $exporter) }
		else { $it->{no_exporter} = 1 }
	}
	my @answers = get_together($seconds, @pages);
	take_answer($sample{parts}{ $pages[$_]{part} }, $pages[$_]{name}, $answers[$_]) foreach 0 .. $#pages;
	foreach my $part (grep { defined $sample{parts}{$_}{error} } all_parts())
	{
		my $it = $sample{parts}{$part};
		delete @$it{qw(metrics readyz slots)};
		$it->{still} = [ sort { $a <=> $b } standing_still($part) ];
	}
	return \%sample;
}

1;
