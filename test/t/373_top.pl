# neon_dev top on a cluster: the figures move with what is done, waits have the names of relations, what is wrong is said
# when nobody can log in, and a terminal is as it was before, however it ends.  With tokens and TLS it asks as the
# exporters want it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Temp ();
use IO::Pty;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(time);
use NeonComm::Cluster;
use NeonComm::Http qw(get);
use NeonComm::Node qw(until_true);

my $dev = NeonComm::Cluster::neon_dev_path();
my $c = NeonComm::Cluster->new(buffers => '8MB', conf => [ 'neon_comm.lfc_size=8MB', 'neon_comm.metrics_ready_timeout=1h' ]);

# What top prints, and its status.
sub top
{
	my ($of, @words) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $dev, 'top', '-D', $of->{dir}, @words ], '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}
sub once { my ($of) = @_; my ($status, $out, $err) = top($of, '--once'); return $status == 0 && $err eq '' ? $out : "status $status: $err" }

sub first_of { my ($tries, $sub) = @_; foreach (1 .. $tries) { return 1 if $sub->() } return 0 }

# Looks, for a second each, until one has it.
sub shows
{
	my ($regex, $what, $of) = @_;
	my $last = '';
	ok(first_of(120, sub { ($last = once($of // $c)) =~ $regex }), $what) or diag($last);
	return $last;
}

# ---- its exporters

my %values = map { /^([\w.]+)=(.*)$/ ? ($1 => $2) : () } split /\n/, $c->dev('status', '-D', $c->{dir}, '--values', '--no-measure');
my @ports = map { $values{"$_.metrics_port"} } qw(compute page_server_0 page_server_1);
is(scalar(grep { get($_, '/healthz')->{body} eq '{"alive":true}' } @ports), 3, 'each part of a new cluster has an exporter, and status says where');
like($c->dev('env', '-D', $c->{dir}), qr/^export NEON_DEV_METRICS='127\.0\.0\.1:$ports[0] 127\.0\.0\.1:$ports[1] 127\.0\.0\.1:$ports[2]'$/m, 'so does env');

# ---- all is well

my $well = shows(qr/^compute running, ready/m, 'a cluster that runs');
$well = shows(qr/\A(?!.*^! )/ms, 'nothing is wrong');
like($well, qr/^READS FROM.*^page server .*^ahead .*^cache .*^kept locally .*^slots busy.*^SHARD.*^0 +yes .*^1 +yes .*^PAGE SERVER.*^0 +streaming +yes.*^1 +streaming +yes/ms, 'all sections');
is(scalar(grep { length > 80 } split /\n/, $well), 0, 'of 80 characters');
is((top($c, '--interval', 0))[0], 2, 'an interval of nothing is refused');

# ---- figures move

# neither stays in shared buffers, being larger than a quarter of them; the cache has room for u, and not for t
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 700) AS f FROM generate_series(1, 20000) g;
	CREATE TABLE u AS SELECT * FROM t LIMIT 4500; CHECKPOINT});
my $record = File::Temp->new;
my $out = '';
my $top = IPC::Run::start([ $dev, 'top', '-D', $c->{dir}, '--json', '--iterations', 4, '--record', "$record" ], '<', \undef, '>', \$out, '2>&1');
do { $c->sql('SELECT sum(id) FROM t; SELECT sum(id) FROM u; SELECT sum(id) FROM u; UPDATE t SET id = id WHERE id % 50 = 0; CHECKPOINT'); $top->pump_nb } while $top->pumpable;
$top->finish;
my @looks = map { JSON::PP->new->utf8->decode($_) } split /\n/, $out;
is(scalar @looks, 4, 'so many looks as were asked for');
is(do { local (@ARGV, $/) = "$record"; <> }, $out, 'are recorded as they are printed');
my %sum;
foreach my $look (@looks)
{
	$sum{$_} += $look->{compute}{reads}{$_}{pages} foreach keys %{ $look->{compute}{reads} };
	$sum{wal} += $look->{compute}{wal_per_second} // 0;
	$sum{served} += $_->{pages_per_second} // 0 foreach @{ $look->{page_servers} };
	$sum{timed} += $look->{compute}{latency}{demand}{count};
	$sum{waiting} += $look->{compute}{processes_waiting};
}
cmp_ok($sum{$_} // 0, '>', 0, "figures of $_") foreach qw(page_server ahead cache wal served timed waiting);
is($looks[-1]{compute}{answers}, JSON::PP::true(), 'booleans');

# ---- who waits, with the name of the relation: page servers whose exporters answer, but nobody else.  After some
# seconds that is said to be wrong, and then nobody is asked for names; so it is tried until it was in time.

my @frozen;
END { local $?; kill 'CONT', @frozen if @frozen }
my $reader = $c->session;
my $waits = '';
my $named = sub {
	@frozen = map { $c->pids_of($_, qr/neon page service \d/) } 'page_server_0', 'page_server_1';
	kill 'STOP', @frozen;
	$reader->send('SELECT sum(id) FROM t');
	$waits = once($c);
	kill 'CONT', @frozen;
	@frozen = ();
	$reader->wait;
	return $waits =~ /^WAITS FOR.*^page server +\d+ +postgres: t +\d+ +[\d.]+ m?s$/ms;
};
ok(first_of(40, $named), 'who waits for a page server, and of which relation') or diag($waits);
$reader->close;
shows(qr/\A(?!.*^WAITS FOR)(?!.*^! )/ms, 'nobody waits any more');

# ---- the outage: all page servers frozen, no session open

$c->configure({ 'neon_comm.metrics_ready_timeout' => '2s' });
@frozen = map { ($c->postmaster_pid($_), $c->pids_of($_, qr/./)) } 'page_server_0', 'page_server_1';
kill 'STOP', @frozen;
my $began = time;
my $frozen = shows(qr/^! page server 0: stopped by a signal: .*^! page server 1: stopped by a signal: /ms, 'frozen page servers are named');
diag(sprintf 'said within %.1f s', time - $began);
my $blocked = '';
my $login = $c->background(\$blocked, 'psql', '-XAtq', '-d', $c->conninfo, '-c', 'SELECT sum(id) FROM t');
shows(qr/^! compute: shard \d: a request has waited for [\d.]+ s$/m, 'and whom the compute waits for');
like(once($c), qr/^compute running, NOT READY/m, 'which is not ready');
kill 'CONT', @frozen;
@frozen = ();
$login->finish;
like($blocked, qr/^\d+$/, 'who waited goes on');
shows(qr/\A(?!.*^! )/ms, 'and all is well again');

# ---- the terminal

# top on a terminal of so many lines and columns.
sub on_terminal
{
	my ($lines, $columns) = @_;
	my $pty = IO::Pty->new;
	my $slave = $pty->slave;
	$slave->set_winsize($lines, $columns);
	my $pid = fork // die $!;
	if (!$pid)
	{
		$pty->make_slave_controlling_terminal;
		close $pty;
		foreach my $fd (0 .. 2) { POSIX::dup2(fileno $slave, $fd) }
		$ENV{TERM} = 'xterm';
		exec $dev, 'top', '-D', $c->{dir} or POSIX::_exit(127);
	}
	return { pty => $pty, slave => $slave, pid => $pid, text => '' };
}

# Reads until the last screen has it.
sub drawn
{
	my ($it, $regex, $what) = @_;
	ok(until_true(sub {
		my $bits = '';
		vec($bits, fileno $it->{pty}, 1) = 1;
		while (select(my $ready = $bits, undef, undef, 0.05) > 0) { sysread($it->{pty}, $it->{text}, 65536, length $it->{text}) or last }
		return $it->{text} =~ $regex;
	}), $what) or diag($it->{text} =~ s/\e/^/gr);
	return;
}
sub ended
{
	my ($it, $status, $what) = @_;
	my $got;
	# what nobody reads it would wait for
	ok(until_true(sub { drawn_quietly($it); waitpid($it->{pid}, POSIX::WNOHANG()) == $it->{pid} and $got = $?; defined $got }), "$what: it ends");
	is($got >> 8 || $got, $status, "$what: its status");
	drawn($it, qr/\e\[\?7h\e\[\?25h\e\[\?1049l[^\e]*\z/, "$what: the screen of before, with its cursor");
	my $termios = POSIX::Termios->new;
	$termios->getattr(fileno $it->{slave});
	is($termios->getlflag & (POSIX::ECHO() | POSIX::ICANON()), POSIX::ECHO() | POSIX::ICANON(), "$what: lines and echo as before");
	return;
}
sub drawn_quietly
{
	my ($it) = @_;
	my $bits = '';
	vec($bits, fileno $it->{pty}, 1) = 1;
	while (select(my $ready = $bits, undef, undef, 0) > 0) { sysread($it->{pty}, $it->{text}, 65536, length $it->{text}) or last }
	return;
}

my $it = on_terminal(24, 80);
drawn($it, qr/\e\[\?1049h.*READS FROM.*PAGE SERVER .*\e\[J/s, 'a screen of its own');
my ($screen) = $it->{text} =~ /.*\e\[H(.*?)\e\[J/s;
my @lines = map { s/\e\[[\d;]*[mK]//gr } split /\r\n/, $screen;
cmp_ok(scalar @lines, '<=', 24, '24 lines');
is(scalar(grep { length > 80 } @lines), 0, 'of 80 characters');
$it->{text} = '';
$it->{slave}->set_winsize(12, 40);
kill 'WINCH', $it->{pid};
drawn($it, qr/\e\[H(?:(?!\e\[H).)*\e\[J/s, 'drawn again when it is resized');
ok(until_true(sub {
	drawn_quietly($it);
	my ($last) = $it->{text} =~ /.*\e\[H(.*?)\e\[J/s or return;
	my @now = map { s/\e\[[\d;]*[mK]//gr } split /\r\n/, $last;
	return @now <= 12 && !grep { length > 40 } @now;
}), 'and fits');
$it->{text} = '';
kill 'TSTP', $it->{pid};
drawn($it, qr/\e\[\?1049l/, 'stopped: the screen of before');
kill 'CONT', $it->{pid};
drawn($it, qr/\e\[\?1049l.*\e\[\?1049h.*READS FROM/s, 'and goes on with its own');
print { $it->{pty} } 'q';
ended($it, 0, 'q');
foreach ([ 'TERM', 143 ], [ 'HUP', 129 ], [ 'INT', 130 ])
{
	my ($signal, $status) = @$_;
	$it = on_terminal(24, 80);
	drawn($it, qr/READS FROM/, "before SIG$signal");
	# Control-C is what a terminal makes of it
	if ($signal eq 'INT') { print { $it->{pty} } "\x03" }
	else { kill $signal, $it->{pid} }
	ended($it, $status, "SIG$signal");
}

# ---- parts that do not run, and one without an exporter

$c->append_conf('page_server_1', 'neon_page_service.metrics_port = 0');
$c->restart('page-server', 1);
shows(qr/^! page server 1 has no exporter: /m, 'no exporter');
$c->kill9('page-server', 0);
shows(qr/^! compute: page_server_0 is absent.*^! page server 0 is crashed$/ms, 'a page server that does not run');
$c->kill9('compute');
shows(qr/^compute crashed; its exporter does not answer\n! compute is crashed$/m, 'a compute that does not run');
my $other = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ports[0], Listen => 1, ReuseAddr => 1) or die $!;
like($c->dev('start', '-D', $c->{dir}), qr/port $ports[0] \(exporter of compute\) is taken by another process/, 'somebody else has its port: it starts, and that is said');
close $other;
shows(qr/^compute running, ready/m, 'and has figures when the port is free');
$c->check_logs;

# ---- tokens and TLS

my $safe = NeonComm::Cluster->new(shards => 1, init => [ '--auth', '--tls' ]);
is(get($safe->dev('status', '-D', $safe->{dir}, '--values', '--no-measure') =~ /^compute\.metrics_port=(\d+)/m && $1, '/metrics')->{status}, 403, 'the exporters of a cluster with keys ask for TLS');
my $secret = shows(qr/\A(?!.*^! ).*^compute running, ready.*^0 +streaming +yes/ms, 'which top speaks, and has a token', $safe);
my $token = "$safe->{dir}/security/metrics_token";
rename $token, "$token.away" or die $!;
like(once($safe), qr/^! compute: its exporter: it asks for another token than security\/metrics_token$/m, 'without it that is said');
$safe->dev('token', '-D', $safe->{dir}, '--install');
ok(-s $token, 'token --install makes one anew');
shows(qr/\A(?!.*^! )/ms, 'which is good', $safe);
is((stat $token)[2] & 077, 0, 'and for nobody else');
$safe->check_logs;
done_testing();
