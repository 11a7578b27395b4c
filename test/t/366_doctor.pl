# neon_dev doctor: what is wrong is named, with everything frozen too, and nobody is waited for
# (docs/neon_dev.md, "What doctor looks at").
use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP ();
use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '16MB', init => [ '--auth', '--tls' ]);
my @doctor = ('doctor', '-D', $c->{dir});
my %stopped;
sub thaw { kill 'CONT', keys %stopped; %stopped = (); return }
END { local $?; thaw() if $c && -d $c->{dir} }

# (exit status, output)
sub doctor { my (@more) = @_; my (undef, $out) = $c->try_dev(@doctor, @more); return ($? >> 8, $out) }

# It finds something wrong, and says these lines.
sub finds
{
	my ($name, @lines) = @_;
	my ($status, $out) = doctor();
	is($status, 1, "$name: status 1");
	like($out, qr/^$_/m, "$name: $_") or diag($out) foreach @lines;
	return $out;
}

# After what was broken is whole again.
sub is_well
{
	my ($name) = @_;
	foreach (1 .. 200)
	{
		my ($status, $out) = doctor();
		return ok(1, "$name: all is well") if $status == 0;
		select undef, undef, undef, 0.1;
	}
	return fail("$name: all is well") || diag((doctor())[1]);
}

# ---- nothing is wrong
ok($c->wait_for(q{SELECT count(*) = 2 FROM neon_comm.page_servers WHERE state = 'streaming'}), 'page servers follow');
is_well('at first');
my ($status, $out) = doctor('--json');
is($status, 0, '--json: status 0');
my $told = JSON::PP::decode_json($out);
is($told->{state}, 'ok', 'the worst of all states');
my %items = map { $_->{item} => 1 } @{ $told->{checks} };
is_deeply([ grep { !$items{$_} } 'process', 'port', 'token', 'certificate', 'disk', 'control file', 'page server', 'compute', 'log', 'communicator', 'way in', 'scrub' ],
	[], 'all items are there, those of check() too');
is((doctor('--nonsense'))[0], 2, 'a wrong command line');

my ($way) = map { $_->{what} } grep { $_->{item} eq 'way in' } @{ $told->{checks} };
is($way, q{by the server's } . $c->sql('SELECT way_in FROM neon_comm.status()'), 'how the server was entered');

# ---- tokens and certificates
my $crt = "$c->{dir}/security/server.crt";
$c->dev('token', '-D', $c->{dir}, '--install', '--expires', 5 * 86400);
is((doctor('--days', 3))[0], 0, 'a token that is good for as long as is asked');
finds('a token that ends', 'warning +token +\S+/token: it is good for [45] days more', 'warning +token +\S+/pgpass: it is good for [45] days more');
$c->dev('token', '-D', $c->{dir}, '--install');
rename $crt, "$crt.away" or die $!;
finds('no certificate', 'error +certificate +\S+/server\.crt: cannot read it');
IPC::Run::run([ qw(openssl req -x509 -newkey ed25519 -nodes -days 5 -subj /CN=x -keyout), "$crt.key", '-out', $crt ], '>', '/dev/null', '2>&1') or die;
finds('a certificate that ends', 'warning +certificate +\S+/server\.crt: it is good for [45] days more');
rename "$crt.away", $crt or die $!;

# ---- a page server is stopped
$c->stop('page-server', 1);
$out = finds('a page server is stopped', 'error +process +page server 1: it is stopped', ' +-> neon_dev start -D', 'error +page server +page server 1: .*refused');
like($out, qr/^ok +process +page server 0: runs/m, 'and that is all that is wrong with processes');
my $squatter = IO::Socket::INET->new(Listen => 1, ReuseAddr => 1, LocalAddr => '127.0.0.1', LocalPort => $c->page_server_port(1)) or die $@;
finds('its port is taken', 'error +port +page server 1: \d+: another process listens');
close $squatter;
my $tools = `$ENV{PG_CONFIG} --bindir` =~ s/\n//r;
IPC::Run::run([ "$tools/pg_checksums", '--enable', '-D', "$c->{dir}/page_server_1" ], '>', '/dev/null', '2>&1') or die;
finds('its control file', 'error +control file +page server 1: data checksums are on');
IPC::Run::run([ "$tools/pg_checksums", '--disable', '-D', "$c->{dir}/page_server_1" ], '>', '/dev/null', '2>&1') or die;
rename "$c->{dir}/page_server_1", "$c->{dir}/away" or die $!;
finds('its directory is lost', 'error +process +page server 1: \S+/page_server_1 is not there', ' +-> neon_dev replace-page-server 1 -D');
rename "$c->{dir}/away", "$c->{dir}/page_server_1" or die $!;
$c->start('page-server', 1);
is_well('it is there again');

# ---- all page servers are frozen, and nobody has a session
foreach my $n (0, 1)
{
	my @all = ($c->postmaster_pid("page_server_$n"), $c->pids_of("page_server_$n", qr/./));
	$stopped{$_} = 1 foreach @all;
	kill 'STOP', @all;
}
finds('all are frozen', map { ("error +process +page server $_: stopped by a signal", "error +page server +page server $_: no answer in 6 s") } 0, 1);
thaw();

# ---- the compute is lost, its log is not
$c->kill9('compute');
finds('a crashed compute', 'error +process +compute: it is crashed', 'unknown +compute +check\(\): it is crashed', '(?:ok|warning) +log +compute: ');
$c->start('compute');
is_well('in the end');

$c->check_logs;
done_testing();
