# A collector of spans: answers each POST and keeps what it was sent; can be frozen, or refuse.
package NeonComm::Collector;

use strict;
use warnings;

use Exporter qw(import);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use NeonComm::Node qw(free_port);

our @EXPORT_OK = qw(spans_of attributes read_spans);

# new(status => '200 OK')
sub new
{
	my ($class, %o) = @_;
	my $dir = tempdir('nc_col_XXXXXX', TMPDIR => 1, CLEANUP => 1);
	my $self = bless { port => free_port(), file => "$dir/bodies" }, $class;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $self->{port}, Listen => 20, ReuseAddr => 1) or die "collector: $!";
	$self->{owner} = $$;
	$self->{pid} = fork // die "fork: $!";
	if ($self->{pid} == 0)
	{
		serve($listener, $self->{file}, $o{status} // '200 OK');
		require POSIX;
		POSIX::_exit(0);
	}
	close $listener;
	return $self;
}

sub url { my ($self) = @_; return "http://127.0.0.1:$self->{port}/v1/traces" }

# One request to a connection. A line of the file: the request's first line and content type, a tab, its body.
sub serve
{
	my ($listener, $file, $status) = @_;
	local $SIG{PIPE} = 'IGNORE';
	while (my $s = $listener->accept)
	{
		my $head = '';
		while (defined(my $line = <$s>)) { last if $line eq "\r\n"; $head .= $line }
		my ($length) = $head =~ /^Content-Length: (\d+)\r$/m or next;
		my ($body, $got) = ('', 0);
		$got = read $s, $body, $length, length $body while length $body < $length && ($got // 0) >= 0 && !eof $s;
		$head =~ s/\r\n/|/g;
		if (length $body == $length)
		{
			open my $fh, '>>', $file or die "$file: $!";
			print $fh "$head\t$body\n";
			close $fh;
		}
		print $s "HTTP/1.1 $status\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
		close $s;
	}
	return;
}

sub freeze { my ($self) = @_; kill 'STOP', $self->{pid}; return }
sub thaw   { my ($self) = @_; kill 'CONT', $self->{pid}; return }

# What was received: [ head, body ] each.
sub requests
{
	my ($self) = @_;
	open my $fh, '<', $self->{file} or return;
	return map { chomp; [ split /\t/, $_, 2 ] } grep { /\n\z/ } <$fh>;
}

sub spans { my ($self) = @_; return read_spans($self->{file}) }

# Of one body, or one line of a file.
sub spans_of
{
	my ($json) = @_;
	return map { map { @{ $_->{spans} } } @{ $_->{scopeSpans} } } @{ decode_json($json)->{resourceSpans} };
}

# Of a file, whatever stands before the JSON of a line. What was read is not read again, and a line
# that is being written is left for the next time. A file that was put aside is known by its inode.
my %read;

sub read_spans
{
	my ($file) = @_;
	open my $fh, '<', $file or return;
	# a new file may have the inode of one that is gone, but not its first line
	my $first = <$fh> // '';
	my $known = $read{ (stat $fh)[1] . $first } //= { at => 0, spans => [] };
	seek $fh, $known->{at}, 0;
	while (defined(my $line = <$fh>))
	{
		last unless $line =~ /\n\z/;
		$known->{at} += length $line;
		$line =~ s/^.*?\t//;
		push @{ $known->{spans} }, spans_of($line);
	}
	return @{ $known->{spans} };
}

# { key => value } of a span.
sub attributes { return { map { $_->{key} => (values %{ $_->{value} })[0] } @{ $_[0]{attributes} } } }

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	return if $self->{owner} != $$ || !$self->{pid};
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	return;
}

1;
