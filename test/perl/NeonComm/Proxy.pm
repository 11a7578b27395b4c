# NeonComm::Proxy - the fault proxy (test/proxy, nc_proxy --help) for a test.
#
#   my $p = NeonComm::Proxy->new(seed => 7);
#   my $port = $p->link('0', $page_server_port);
#   my $id = $p->rule('tag=getpage p=0.1 count=3 drop');
#   $p->fired($id); $p->clear; $p->cmd('down 0');
#
# The binary is $NC_PROXY, or build/proxy/nc_proxy of the tree if that is newer than its
# sources (make proxy), else it is compiled into a temporary directory.
package NeonComm::Proxy;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);

my $top = abs_path(dirname(__FILE__) . '/../../..');
my $binary;

sub binary
{
	return $binary if defined $binary;
	return $binary = $ENV{NC_PROXY} if defined $ENV{NC_PROXY};
	my $built = "$top/build/proxy/nc_proxy";
	if (-x $built
		&& !grep { -M $_ < -M $built } glob("$top/test/proxy/*.[ch]"))
	{
		return $binary = $built;
	}
	my $dir = tempdir('nc_proxy_XXXXXX', TMPDIR => 1, CLEANUP => 1);
	my $out = `make -s -C '$top/test/proxy' BUILD='$dir' 2>&1`;
	die "cannot build nc_proxy:\n$out" unless -x "$dir/nc_proxy";
	return $binary = "$dir/nc_proxy";
}

sub new
{
	my ($class, %o) = @_;
	my $dir = tempdir('ncp_XXXXXX', DIR => '/tmp', CLEANUP => 1);
	my $self = bless { dir => $dir, owner => $$ }, $class;
	my @args = ('--control', "$dir/s", '--seed', $o{seed} // 1, '--stay');
	my $program = binary();

	$self->{log} = $o{log} // "$dir/log";
	pipe(my $read, my $write) or die $!;
	$self->{pid} = fork() // die $!;
	if ($self->{pid} == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>&', $write;
		open STDERR, '>>', $self->{log};
		exec @{ $o{inside} // [] }, $program, '--verbose', @args or die "exec $program: $!";
	}
	close $write;
	while (my $line = <$read>)
	{
		$self->{ready} = 1, last if $line =~ /^ready/;
	}
	die 'the fault proxy did not start: ' . $self->log_text unless $self->{ready};
	$self->{socket} = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => "$dir/s") or die $!;
	return $self;
}

# One command; returns what it answered before "ok", or the text behind "ok"; dies on an error.
sub cmd
{
	my ($self, $line) = @_;
	my $text = '';

	$self->{socket}->print("$line\n") or die "the fault proxy is gone: $!";
	$self->{socket}->flush;
	while (defined(my $answer = $self->{socket}->getline))
	{
		die "fault proxy: $line: $1" if $answer =~ /^error (.*)/;
		return $text ne '' ? $text : $1 if $answer =~ /^ok ?(.*)/;
		$text .= $answer;
	}
	die 'the fault proxy is gone: ' . $self->log_text;
}

# Forwards a free port; returns it.
sub link { my ($s, $name, $port, $host) = @_; return $s->cmd("link $name 0 " . ($host // '127.0.0.1') . ":$port") }

# Adds a rule; returns its id.
sub rule { my ($s, $rule) = @_; return $s->cmd("rule $rule") }
sub unrule { my ($s, $id) = @_; $s->cmd("unrule $id"); return }
sub clear { my ($s) = @_; $s->cmd('unrule 0'); return }

# How often a rule acted.
sub fired
{
	my ($self, $id) = @_;
	return $self->cmd('rules') =~ /^rule=$id .*fired=(\d+)/m ? $1 : undef;
}

# A figure of a link: accepted, open, most, messages_c2s, ...
sub stat
{
	my ($self, $link, $what) = @_;
	return $self->cmd('stats') =~ /^link=\Q$link\E .*\b$what=(\S+)/m ? $1 : undef;
}

sub log_text
{
	my ($self) = @_;
	open my $fh, '<', $self->{log} or return '';
	local $/;
	return <$fh> // '';
}

sub stop
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	$self->stop if $self->{owner} == $$;
	return;
}

1;
