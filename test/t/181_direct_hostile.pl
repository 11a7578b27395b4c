# What a hostile page server can do to a process that reads directly, once its stream has
# begun: notices, parameters, notifications without end, messages as long as they claim to
# be.  Nothing of it is kept, none of it is taken for progress, and the process can be
# cancelled and terminated all the while.
#
# Seen to fail with a stream that was left to libpq: notices kept the connection alive for
# ever, parameters and a message of a gigabyte were kept.
use strict;
use warnings;

use IO::Socket::INET;
use NeonComm::Cluster;
use POSIX ();
use Test::More;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '2MB', conf => [ 'neon_comm.silence_timeout=1s' ]);
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 700) AS f FROM generate_series(1, 8000) g});
my $servers = $c->sql('SHOW neon_comm.page_servers');
my $count = 'SELECT count(*), sum(id) FROM t';
my $right = $c->sql($count);

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body }
my $kilo = 'x' x 1000;
my $n = 0;
my %said = (
	notices => sub { return message('N', "SNOTICE\0C00000\0M$kilo\0\0") x 100 },
	parameters => sub { return join '', map { message('S', 'p' . $n++ . "\0$kilo\0") } 1 .. 100 },
	notifications => sub { return join '', map { message('A', pack('N', 1) . 'c' . $n++ . "\0$kilo\0") } 1 .. 100 },
	'a long message' => sub { return $n++ == 0 ? 'd' . pack('N', 1 << 30) . $kilo : $kilo x 100 },
	'a length below four' => sub { return 'd' . pack('N', 3) },
);

# Says it to everybody whose stream has begun, for as long as he listens.
sub talker
{
	my ($what) = @_;
	my $listener = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
	my $pid = fork // die;
	return ($pid, $listener->sockport) if $pid != 0;
	local $SIG{PIPE} = 'IGNORE';
	local $SIG{CHLD} = 'IGNORE';
	while (1)
	{
		my $s = $listener->accept or next;
		next if fork // die;
		POSIX::_exit(0) unless sysread $s, my $packet, 10000;
		syswrite $s, message('R', pack('N', 0)) . message('Z', 'I');
		POSIX::_exit(0) unless sysread $s, $packet, 10000;
		syswrite $s, message('W', "\0\0\0");
		POSIX::_exit(0) unless sysread $s, $packet, 10000;
		1 while syswrite $s, $said{$what}->();
		POSIX::_exit(0);
	}
}

sub peak_kb
{
	my ($pid) = @_;
	open my $fh, '<', "/proc/$pid/status" or die $!;
	return (map { /^VmHWM:\s+(\d+)/ ? $1 : () } <$fh>)[0];
}

# A session follows a reload between two statements.
sub reads_from
{
	my ($s, $list) = @_;
	$c->configure({ 'neon_comm.page_servers' => $list });
	foreach (1 .. 600)
	{
		return if $s->query('SHOW neon_comm.page_servers') eq $list;
		select undef, undef, undef, 0.1;
	}
	die 'no reload';
}

my ($talker, $port);
END { local $?; kill KILL => $talker if $talker }
my $control = $c->session;
sub counter { return $control->query("SELECT value FROM neon_comm.counters WHERE name = '$_[0]'") }
my $end = q{SELECT pg_cancel_backend(%d)};
$control->query(sprintf $end, 0);
counter('disconnects');
$control->query(q{SELECT pg_reload_conf(), current_setting('neon_comm.page_servers')});

my %ends = (notices => 'connections_silent', parameters => 'disconnects', notifications => 'disconnects',
	'a long message' => 'connections_poisoned', 'a length below four' => 'connections_poisoned');
foreach my $what (sort keys %said)
{
	($talker, $port) = talker($what);
	my $s = $c->session;
	$s->query("SET neon_comm.mode = direct; $count");
	my $pid = $s->pid;
	my $before = counter($ends{$what});
	reads_from($s, "host=127.0.0.1 sslmode=disable port=$port");
	my $peak = peak_kb($pid);
	$s->send($count);
	# more than once: what one connection keeps would do so for each
	my $ended = 0;
	foreach (1 .. 600)
	{
		last if ($ended = counter($ends{$what}) - $before) > 2 || $s->ready;
		select undef, undef, undef, 0.1;
	}
	cmp_ok($ended, '>', 2, "$what: the connection is given up ($ends{$what})");
	cmp_ok(peak_kb($pid) - $peak, '<', 8 * 1024, "$what: nothing is kept");
	$control->query(sprintf $end, $pid);
	$s->wait;
	like($s->{last_error}, qr/canceling statement/, "$what: a cancel is heard");
	reads_from($s, $servers);
	is($s->query($count), $right, "$what: and then the right server is read");
	$s->close;
	kill KILL => $talker;
	waitpid $talker, 0;
	$talker = 0;
}
$c->check_logs;
done_testing();
