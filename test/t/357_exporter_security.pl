# The port of an exporter: no start that would tell everybody, tokens, TLS, and that a reload
# opens nothing. A server without page servers has it, too.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use NeonComm::Http qw(ask_http get);
use NeonComm::Node qw(conf free_port until_true refuses_to_start);
use NeonComm::Security;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tenant = '0123456789abcdef0123456789abcdef';
my $security = NeonComm::Security->new;
my $port = free_port();
my $keys = $security->public_keys('keys.pem', 'issuer');
my $authority = $security->authority('authority');
$security->certificate('compute');
$security->install('compute', 'exporter');
my ($cert, $key) = ($security->path('exporter.crt'), $security->path('exporter.key'));

my $node = PostgreSQL::Test::Cluster->new('server');
$node->init;
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'neon_comm'
neon_comm.page_servers = ''
neon_comm.metrics_port = $port
autovacuum = off
});
my $prefix = 'neon_comm.metrics_';

refuses_to_start($node, qr/would tell its figures to everybody who reaches "0\.0\.0\.0"/, 'open without keys',
	$prefix . 'listen_addresses' => '0.0.0.0');
refuses_to_start($node, qr/metrics_auth_public_key_file needs neon_comm\.tenant_id/, 'keys without a tenant',
	$prefix . 'auth_public_key_file' => $keys);
refuses_to_start($node, qr/exporter cannot start: cannot read "\/nowhere\/keys"/, 'keys that are not there',
	'neon_comm.tenant_id' => $tenant, $prefix . 'auth_public_key_file' => '/nowhere/keys');
refuses_to_start($node, qr/invalid value for parameter "neon_comm\.metrics_listen_addresses": "somewhere"/, 'a name',
	$prefix . 'listen_addresses' => 'somewhere');

# ---- on loopback, nobody is asked

conf($node, 'neon_comm.tenant_id' => $tenant);
$node->start;
ok(until_true(sub { get($port, '/metrics')->{status} == 200 }), 'it answers without a token');
like(get($port, '/readyz')->{body}, qr/"problems":\[\].*"ready":true/, 'a server without page servers is ready');
like(get($port, '/metrics')->{body}, qr/^neon_comm_shards 0$/m, 'and has no shards');

# ---- tokens

conf($node, $prefix . 'auth_public_key_file' => $keys);
$node->reload;
ok(until_true(sub { get($port, '/metrics')->{status} == 401 }), 'after a reload it asks for one');
sub with { my ($token) = @_; return get($port, '/metrics', "Authorization: Bearer $token") }
my $good = $security->token(claims => { scope => 'metrics' });
is(with($good)->{status}, 200, 'a token of scope metrics');
is(with($security->tenant_token($tenant))->{status}, 200, 'a token of the tenant');
foreach (
	[ $security->tenant_token('f' x 32), qr/it is for another tenant/ ],
	[ $security->token(claims => { scope => 'safekeeperdata' }), qr/its scope does not allow this/ ],
	[ $security->token(claims => { scope => 'metrics', exp => int time - 3600 }), qr/it has expired/ ],
	[ $security->token(key => 'stranger', claims => { scope => 'metrics' }), qr/made by no key/ ],
	[ 'x' x 5000, qr/it is too long/ ])
{
	my $answer = with($_->[0]);
	like("$answer->{status} $answer->{body}", qr/^401 the token is refused: .*$_->[1]/, "refused: $_->[1]");
}

# ---- TLS

conf($node, $prefix . 'ssl_cert_file' => $cert, $prefix . 'ssl_key_file' => $key);
$node->reload;
ok(until_true(sub { with($good)->{status} == 403 }), 'with a certificate clear text is refused');
my ($out, $err) = ('', '');
IPC::Run::run([ 'openssl', 's_client', '-quiet', '-verify_return_error', '-CAfile', $authority, '-connect', "127.0.0.1:$port" ],
	'<', \"GET /metrics HTTP/1.1\r\nAuthorization: Bearer $good\r\n\r\n", '>', \$out, '2>', \$err, IPC::Run::timeout(60));
like($out, qr/^HTTP\/1\.1 200 .*^neon_comm_shards 0$/ms, 'inside TLS it is answered') or diag($err);

# ---- a reload opens nothing

my $from = -s $node->logfile;
conf($node, $prefix . 'ssl_cert_file' => '', $prefix . 'ssl_key_file' => '');
$node->reload;
ok(until_true(sub { slurp_file($node->logfile, $from) =~ /metrics_ssl_cert_file was emptied while the server runs/ }), 'the log says so');
is(with($good)->{status}, 403, 'the certificate stays');

my $log = slurp_file($node->logfile);
is(index($log, $good), -1, 'no token is in the log');
like($log, qr/neon_comm exporter refused 127\.0\.0\.1:\d+: the token is refused/, 'but that one was refused');
$node->stop;
done_testing();
