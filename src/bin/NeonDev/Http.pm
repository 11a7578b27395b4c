# NeonDev::Http - GET of several pages at once, each over a connection of its own.
#
# Whoever does not answer in time keeps nobody else waiting. TLS is spoken by openssl s_client, whose
# other end is a pipe: Debian's perl-base has no TLS.
package NeonDev::Http;

use strict;
use warnings;

use Errno ();
use Exporter 'import';
use Fcntl ();
use IO::Handle ();
use NeonDev::Base;
use NeonDev::Security;
use POSIX ();
use Socket ();

our @EXPORT = qw(get_together);

use constant LARGEST => 4 << 20;	# of an answer; an exporter makes none beyond 1 MB

sub request_of
{
	my ($page) = @_;
	return join "\r\n", "GET $page->{path} HTTP/1.1", "Host: 127.0.0.1:$page->{port}", 'Connection: close',
	  defined $page->{token} ? "Authorization: Bearer $page->{token}" : (), '', '';
}

# A socket that connects meanwhile.
sub open_plain
{
	my ($page) = @_;
	socket my $s, Socket::PF_INET(), Socket::SOCK_STREAM(), 0 or fail "cannot make a socket: $!";
	fcntl $s, Fcntl::F_SETFL(), Fcntl::O_NONBLOCK() or fail "cannot prepare a socket: $!";
	connect($s, Socket::pack_sockaddr_in($page->{port}, Socket::inet_aton('127.0.0.1'))) || $!{EINPROGRESS}
	  or return (undef, "$!");
	return ($s);
}

# The end of openssl's output; it has the request already.
sub open_tls
{
	my ($page) = @_;
	my $openssl = openssl_path();
	pipe my $out, my $out_w or fail "cannot make a pipe: $!";
	my $pid = fork // fail "cannot fork: $!";
	if (!$pid)
	{
		open my $null, '>', '/dev/null' or POSIX::_exit(126);
		NeonDev::Base::become_program({ input => request_of($page) }, $out_w, $null, $openssl, 's_client', '-quiet',
			'-verify_quiet', '-verify_return_error', '-CAfile', $page->{ca}, '-verify_ip', '127.0.0.1',
			'-connect', "127.0.0.1:$page->{port}");
	}
	close $out_w;
	return ($out, undef, $pid);
}

sub begin
{
	my ($page) = @_;
	my %it = (page => $page, text => '', to_send => defined $page->{ca} ? '' : request_of($page));
	@it{qw(fh error pid)} = defined $page->{ca} ? open_tls($page) : open_plain($page);
	return \%it;
}

sub end
{
	my ($it, $error) = @_;
	close $it->{fh};
	delete $it->{fh};
	$it->{error} = $error;
	return;
}

sub send_more
{
	my ($it) = @_;
	my $n = syswrite $it->{fh}, $it->{to_send};
	return substr $it->{to_send}, 0, $n, '' if defined $n;
	return $!{EAGAIN} || $!{EINTR} ? undef : end($it, "$!");
}

sub read_more
{
	my ($it) = @_;
	my $n = sysread $it->{fh}, $it->{text}, 65536, length $it->{text};
	return if !defined $n && ($!{EAGAIN} || $!{EINTR});
	return end($it, "$!") unless defined $n;
	return end($it, length $it->{text} > LARGEST ? 'its answer has no end' : undef) if $n == 0 || length $it->{text} > LARGEST;
	return;
}

sub turn
{
	my ($seconds, @open) = @_;
	my ($read, $write) = ('', '');
	foreach my $it (@open)
	{
		vec($it->{to_send} eq '' ? $read : $write, fileno $it->{fh}, 1) = 1;
	}
	select($read, $write, undef, $seconds) > 0 or return;
	foreach my $it (@open)
	{
		my $fd = fileno $it->{fh};
		if (vec($write, $fd, 1)) { send_more($it) }
		elsif (vec($read, $fd, 1)) { read_more($it) }
	}
	return;
}

# { status, body } of what came, or { error }.
sub outcome
{
	my ($it) = @_;
	return { error => $it->{error} } if defined $it->{error};
	my ($head, $body) = split /\r\n\r\n/, $it->{text}, 2;
	my ($status) = ($head // '') =~ m{^HTTP/1\.[01] (\d{3}) } or return { error => $it->{text} eq '' ? 'the connection was closed' : 'what answers there is no exporter' };
	my ($length) = $head =~ /^content-length:\s*(\d+)\s*$/mi;
	return { error => 'its answer was cut off' } if defined $length && length($body // '') < $length;
	return { status => $status, body => $body // '' };
}

# Asks for pages, { port, path, token, ca } each (a token or undef; the file of an authority, for TLS, or undef), of
# 127.0.0.1, for at most so many seconds: for each of them { status, body }, or { error } with why there is none.
sub get_together
{
	my ($seconds, @pages) = @_;
	my $until = monotonic() + $seconds;
	local $SIG{PIPE} = 'IGNORE';
	my @all = map { begin($_) } @pages;
	while (my @open = grep { $_->{fh} } @all)
	{
		my $left = $until - monotonic();
		if ($left > 0) { turn($left, @open) }
		else { end($_, "no answer in $seconds s") foreach @open }
	}
	foreach my $pid (grep { defined } map { $_->{pid} } @all)
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	return map { outcome($_) } @all;
}

1;
