# One request by HTTP over a plain socket, metrics as a hash, and what promtool says of them.
package NeonComm::Http;

use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;
use IO::Socket::UNIX;
use IPC::Run ();

our @EXPORT_OK = qw(connect_http ask_http get metrics promtool promtool_says);

# The port may be the path of a Unix socket.
sub connect_http
{
	my ($port, $host) = @_;
	return IO::Socket::UNIX->new(Peer => $port, Timeout => 60) if $port =~ m{^/};
	return IO::Socket::INET->new(PeerAddr => $host // '127.0.0.1', PeerPort => $port, Timeout => 60);
}

# Sends a text and reads up to the end: { status, head, body }, or undef if nothing came.
sub ask_http
{
	my ($port, $text) = @_;
	my $s = connect_http($port) or return;
	local $SIG{PIPE} = 'IGNORE';
	print $s $text;
	$s->flush;
	my $answer = do { local $/; <$s> } // '';
	my ($head, $body) = split /\r\n\r\n/, $answer, 2;
	return unless ($head // '') =~ m{^HTTP/1\.1 (\d{3}) };
	return { status => $1, head => $head, body => $body // '' };
}

sub get
{
	my ($port, $path, @headers) = @_;
	return ask_http($port, join("\r\n", "GET $path HTTP/1.1", "Host: localhost:$port", @headers, '', ''));
}

# { 'name{labels}' => value } of a text in either format.
sub metrics
{
	my ($port, @headers) = @_;
	my $answer = get($port, '/metrics', @headers) or return {};
	return { map { /^([^#].*) (\S+)$/ ? ($1 => $2) : () } split /\n/, $answer->{body} };
}

# Prometheus' own judge, of Debian's package prometheus: its path, or undef (scripts/prometheus fetches it).
sub promtool
{
	my ($path) = grep { -x } map { "$_/promtool" } grep { length } $ENV{PROMETHEUS_BIN} // '', split /:/, $ENV{PATH};
	return $ENV{PROMTOOL} // $path;
}

# What is wrong with a text in the older format; '' = nothing.
sub promtool_says
{
	my ($text) = @_;
	my $said = '';
	IPC::Run::run([ promtool(), 'check', 'metrics' ], '<', \$text, '>&', \$said);
	return $said;
}

1;
