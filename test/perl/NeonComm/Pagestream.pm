# A small client of the page service, for tests.
#
# Speaks just enough of the PostgreSQL protocol to start a session, send a query
# and exchange pagestream requests.  Every read has a deadline, after which it dies:
# a test that would hang fails instead.
package NeonComm::Pagestream;

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time);

our @EXPORT_OK = qw(LSN_MAX lsn_number lsn_text);

use constant LSN_MAX => ~0;

my %request_tag = (exists => 0, nblocks => 1, getpage => 2, dbsize => 3, slru => 4);
# only ends a hang: a standby that was just made has all WAL to replay before it answers
my $deadline_seconds = $ENV{NEON_TEST_FIRST_FAILURE} ? 60 : 180;

# "1/2345" -> number and back.
sub lsn_number
{
	my ($text) = @_;
	my ($high, $low) = $text =~ m{^([0-9A-F]+)/([0-9A-F]+)$}i or die "not an LSN: $text";
	return (hex($high) << 32) | hex($low);
}

sub lsn_text
{
	my ($lsn) = @_;
	return sprintf('%X/%X', $lsn >> 32, $lsn & 0xffffffff);
}

# Connects; with startup => 0 nothing is sent yet. options: of the start-up packet.
sub new
{
	my ($class, %arg) = @_;
	my $socket = IO::Socket::INET->new(
		PeerAddr => $arg{host} // '127.0.0.1',
		PeerPort => $arg{port},
		Proto => 'tcp') or die "could not connect to port $arg{port}: $!";
	my $self = bless {
		socket => $socket,
		select => IO::Select->new($socket),
		buffer => '',
		reqid => 1,
		version => 3
	}, $class;
	$self->{options} = $arg{options};
	$self->startup if $arg{startup} // 1;
	return $self;
}

# ---- bytes

sub send_bytes
{
	my ($self, $bytes) = @_;
	local $SIG{PIPE} = 'IGNORE';
	while (length $bytes)
	{
		my $sent = syswrite $self->{socket}, $bytes;
		die "send failed: $!" unless defined $sent;
		substr $bytes, 0, $sent, '';
	}
	return;
}

# At least $count bytes in the buffer; false at the end of the connection.
sub fill
{
	my ($self, $count) = @_;
	my $deadline = time + $deadline_seconds;

	while (length $self->{buffer} < $count)
	{
		my $left = $deadline - time;
		die "no answer within $deadline_seconds s" if $left <= 0;
		next unless $self->{select}->can_read($left);
		my $got = sysread $self->{socket}, $self->{buffer}, 262144, length $self->{buffer};
		return 0 unless $got;
	}
	return 1;
}

sub take
{
	my ($self, $count) = @_;
	return unless $self->fill($count);
	return substr $self->{buffer}, 0, $count, '';
}

# Is there something to read (or the end) within that many seconds?
sub readable
{
	my ($self, $seconds) = @_;
	return 1 if length $self->{buffer};
	return scalar $self->{select}->can_read($seconds);
}

# ---- messages

sub send_message
{
	my ($self, $type, $body) = @_;
	return $self->send_bytes(pack('aN', $type, 4 + length $body) . $body);
}

# (type, body), or nothing at the end of the connection.
sub read_message
{
	my ($self) = @_;
	my $head = $self->take(5);
	return unless defined $head;
	my ($type, $length) = unpack 'aN', $head;
	my $body = $length > 4 ? $self->take($length - 4) : '';
	return unless defined $body;
	return ($type, $body);
}

# Messages up to and including one of the given types, or to the end.
sub read_until
{
	my ($self, $types) = @_;
	my @messages;
	while (my ($type, $body) = $self->read_message)
	{
		push @messages, [ $type, $body ];
		last if $type =~ /[$types]/;
	}
	return @messages;
}

sub startup
{
	my ($self) = @_;
	my $body = pack('N', 196608) . "user\0test\0database\0test\0"
	  . (defined $self->{options} ? "options\0$self->{options}\0" : '') . "\0";
	$self->send_bytes(pack('N', 4 + length $body) . $body);
	return $self->{greeting} = [ $self->read_until('ZE') ];
}

# Fields of the first ErrorResponse among messages, by letter.
sub error_of
{
	my (@messages) = @_;
	for my $message (grep { $_->[0] eq 'E' } @messages)
	{
		return { map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $message->[1] };
	}
	return;
}

sub query
{
	my ($self, $text) = @_;
	$self->send_message('Q', "$text\0");
	return $self->read_until('ZW');
}

# name => value of "show status".
sub status
{
	my ($self) = @_;
	my %status;
	for my $message (grep { $_->[0] eq 'D' } $self->query('show status'))
	{
		my (undef, $name, $value) = unpack 'nN/aN/a', $message->[1];
		$status{$name} = $value;
	}
	return \%status;
}

# ---- the stream

# Enters the stream; dies with the server's text if it refuses.
sub stream
{
	my ($self, %arg) = @_;
	$self->{version} = $arg{version} // 3;
	my @messages = $self->query("pagestream_v$self->{version} $arg{tenant} $arg{timeline}");
	my $error = error_of(@messages);
	die "pagestream refused: $error->{M}" if $error;
	die 'no CopyBothResponse' unless @messages && $messages[-1][0] eq 'W';
	return $self;
}

# The bytes of a request body.  lsn defaults to the newest version, nms to 0.
sub request_body
{
	my ($self, $kind, %arg) = @_;
	my $version = $arg{version} // $self->{version};
	my $body = pack 'C', $request_tag{$kind};

	$body .= pack 'Q>', $arg{reqid} // $self->{reqid}++ if $version == 3;
	$body .= pack 'Q>Q>', $arg{lsn} // LSN_MAX, $arg{nms} // 0;
	$body .= pack 'NNNC', @{ $arg{rel} }, $arg{fork} // 0 if $kind =~ /exists|nblocks|getpage/;
	$body .= pack 'N', $arg{block} if $kind eq 'getpage';
	$body .= pack 'N', $arg{db} if $kind eq 'dbsize';
	$body .= pack 'CN', $arg{slru}, $arg{segment} if $kind eq 'slru';
	return $body;
}

sub send_request
{
	my ($self, $kind, %arg) = @_;
	return $self->send_message('d', $self->request_body($kind, %arg));
}

sub send_requests
{
	my ($self, @bodies) = @_;
	return $self->send_bytes(join '', map { pack('aN', 'd', 4 + length) . $_ } @bodies);
}

# The next answer: tag, and page, nblocks, exists, bytes or error; nothing at the end.
sub read_answer
{
	my ($self) = @_;
	my ($type, $body) = $self->read_message;
	return unless defined $type;
	return { tag => -1, %{ error_of([ $type, $body ]) } } if $type eq 'E';
	die "unexpected message $type in the stream" unless $type eq 'd';

	my $tag = unpack 'C', $body;
	my %answer = (tag => $tag, body => $body);
	my $v3 = $self->{version} == 3;
	($answer{reqid}, $answer{lsn}, $answer{nms}) = unpack 'xQ>Q>Q>', $body if $v3;
	$answer{exists} = unpack 'C', substr $body, $v3 ? 38 : 1 if $tag == 100;
	$answer{nblocks} = unpack 'N', substr $body, $v3 ? 38 : 1 if $tag == 101;
	$answer{page} = substr $body, $v3 ? 42 : 1 if $tag == 102;
	$answer{error} = unpack 'Z*', substr $body, $v3 ? 25 : 1 if $tag == 103;
	$answer{bytes} = unpack 'q>', substr $body, $v3 ? 29 : 1 if $tag == 104;
	if ($tag == 105)
	{
		$answer{nblocks} = unpack 'N', substr $body, $v3 ? 30 : 1;
		$answer{page} = substr $body, $v3 ? 34 : 5;
	}
	return \%answer;
}

sub ask
{
	my ($self, $kind, %arg) = @_;
	$self->send_request($kind, %arg);
	return $self->read_answer;
}

sub close
{
	my ($self) = @_;
	$self->{socket}->close;
	return;
}

1;
