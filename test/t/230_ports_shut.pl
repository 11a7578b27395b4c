# Ports stay shut: keys, certificate and tenant emptied by a reload, in processes that
# run and in those started later; and page servers find room however many idle clients
# hold places.
#
# neon_comm without page servers feeds a standby with the page service. Both ports can
# be reached by other hosts. Seen to fail: new processes let everybody in without a
# token; eight idle clients that had logged in kept the page server out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use NeonComm::Node qw(conf free_port until_true refuses_to_start);
use NeonComm::Pagestream;
use NeonComm::Security;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $tenant = '0123456789abcdef0123456789abcdef';
my $security = NeonComm::Security->new;
my $keys = $security->public_keys('keys.pem', 'issuer');
my $authority = $security->authority('authority');
$security->certificate('server');
$security->install('server', 'both');
my ($cert, $key) = ($security->path('both.crt'), $security->path('both.key'));
my $token = $security->tenant_token($tenant);
my $passfile = $security->write_file('pgpass', "*:*:*:*:$token\n");
my %port = (feed => free_port(), pages => free_port());
my %prefix = (feed => 'neon_comm.wal_feed_', pages => 'neon_page_service.');

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'neon_comm'
restart_after_crash = on
neon_comm.page_servers = ''
neon_comm.tenant_id = '$tenant'
neon_comm.wal_feed_port = $port{feed}
neon_comm.wal_feed_slots = 'page_server_0'
neon_comm.wal_feed_listen_addresses = '0.0.0.0'
neon_comm.wal_feed_auth_public_key_file = '$keys'
neon_comm.wal_feed_ssl_cert_file = '$cert'
neon_comm.wal_feed_ssl_key_file = '$key'
authentication_timeout = 600s
autovacuum = off
});
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION neon_comm');
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base');
$standby->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'neon_page_service'
hot_standby = off
neon_page_service.allow_unsafe = on
wal_retrieve_retry_interval = 500ms
primary_conninfo = 'host=127.0.0.1 port=$port{feed} sslmode=verify-full sslrootcert=$authority passfile=$passfile'
primary_slot_name = page_server_0
neon_page_service.port = $port{pages}
neon_page_service.workers = 1
neon_page_service.listen_addresses = '0.0.0.0'
neon_page_service.auth_public_key_file = '$keys'
neon_page_service.ssl_cert_file = '$cert'
neon_page_service.ssl_key_file = '$key'
});
$standby->set_standby_mode;
refuses_to_start($standby, qr/auth_public_key_file needs neon_page_service\.tenant_id/, 'keys without a tenant');
conf($standby, 'neon_page_service.tenant_id' => $tenant);
$standby->start;

# ---- asking

sub ask
{
	my ($what, $conninfo, $with) = @_;
	local $ENV{PGPASSWORD} = $with // '';
	delete $ENV{PGPASSWORD} unless defined $with;
	my $out = '';
	IPC::Run::run([ 'psql', '-wXAt', '-d', "port=$port{$what} user=u dbname=d host=127.0.0.1 $conninfo"
				. ($what eq 'feed' ? ' replication=true' : ''), '-c',
			$what eq 'feed' ? 'IDENTIFY_SYSTEM' : 'show status' ],
		'<', \undef, '>', \$out, '2>&1');
	return $out;
}

my $full = "sslmode=verify-full sslrootcert=$authority";
my $clear = 'sslmode=disable';
my $told = qr/^\d+\|1\||^consistent\|/m;
my %node = (feed => $primary, pages => $standby);

sub streams
{
	return $primary->poll_query_until('postgres',
		"SELECT state = 'streaming' AND apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers");
}

# The port answers, and not with what it guards.
sub shut
{
	my ($what, $conninfo, $with, $regex, $name) = @_;
	my $out = '';
	# a new process takes a moment until it listens
	ok(until_true(sub { $out = ask($what, $conninfo, $with); $out !~ /refused|recovery|starting|shutting|closed/ || $out =~ $regex }),
		"$name: $what answers");
	like($out, $regex, "$name: $what says why");
	unlike($out, $told, "$name: $what tells nothing");
	return;
}

sub opens
{
	my ($what, $name) = @_;
	ok(until_true(sub { ask($what, $full, $token) =~ $told }), "$name: $what lets in who may");
	return;
}

sub reload
{
	my ($what, $regex, %set) = @_;
	my $from = length slurp_file($node{$what}->logfile);
	conf($node{$what}, map { ($prefix{$what} . $_ => $set{$_}) } keys %set);
	$node{$what}->reload;
	ok(until_true(sub { substr(slurp_file($node{$what}->logfile), $from) =~ $regex }), "the log of $what says $regex");
	return;
}

# The process at the port is replaced: a worker ends, a server starts anew after a crash.
sub replace
{
	my ($what) = @_;
	my $log = $node{$what}->logfile;
	my $from = length slurp_file($log);
	if ($what eq 'pages')
	{
		my $pid = `ps -o pid=,args= --ppid @{[ $standby->{_pid} ]}` =~ /(\d+) \S*.*neon page service 0/ ? $1 : die;
		kill TERM => $pid;
		ok(until_true(sub { substr(slurp_file($log), $from) =~ /worker 0 listens/ }), 'another worker listens');
		return;
	}
	my $session = $primary->background_psql('postgres', on_error_stop => 0);
	kill KILL => scalar $session->query('SELECT pg_backend_pid()');
	ok(until_true(sub { substr(slurp_file($log), $from) =~ /WAL feed listens/ }), 'another feed listens');
	eval { $session->{run}->kill_kill };
	$primary->poll_query_until('postgres', 'SELECT true');
	return;
}

ok(streams(), 'a page server streams');
opens($_, 'at first') foreach qw(feed pages);

# ---- keys, a certificate, a tenant go away while the server runs

my $no_token = qr/no password supplied/;
foreach my $what (qw(feed pages))
{
	reload($what, qr/auth_public_key_file was emptied, but other hosts can connect: the keys loaded before stay in force/,
		auth_public_key_file => '');
	shut($what, $full, undef, $no_token, 'keys emptied');
	opens($what, 'keys emptied');
	replace($what);
	shut($what, $full, undef, $no_token, 'keys emptied, a new process');
	shut($what, $full, $token, qr/the token is refused/, 'keys emptied, a new process, a token');
	like(slurp_file($node{$what}->logfile), qr/this process has no keys, and nobody gets in/, "$what: the log says so");
	reload($what, qr/received SIGHUP/, auth_public_key_file => $keys);
	opens($what, 'keys are back');

	reload($what, qr/ssl_cert_file was emptied while the server runs: the certificate loaded before stays in use/,
		ssl_cert_file => '', ssl_key_file => '');
	opens($what, 'certificate emptied');
	shut($what, $clear, $token, qr/must connect with TLS/, 'certificate emptied');
	replace($what);
	shut($what, $clear, $token, qr/must connect with TLS/, 'certificate emptied, a new process');
	shut($what, $full, $token, qr/server does not support SSL/, 'certificate emptied, a new process, TLS');
	reload($what, qr/received SIGHUP/, ssl_cert_file => $cert, ssl_key_file => $key);
	opens($what, 'the certificate is back');
	$security->write_file('keys.pem', "nothing\n");
	replace($what);
	shut($what, $full, $token, qr/the token is refused/, 'damaged keys, a new process');
	shut($what, $full, undef, $no_token, 'damaged keys, a new process, no token');
	$security->public_keys('keys.pem', 'issuer');
	reload($what, qr/received SIGHUP/);
	opens($what, 'the keys are good again');
	reload($what, qr/WARNING: .*does not insist on TLS/, require_ssl => 'off');
}
reload('pages', qr/auth_public_key_file needs neon_page_service\.tenant_id: nobody gets in/, tenant_id => '');
shut('pages', $full, $token, qr/the token is refused: tenant_id is not set here/, 'no tenant');
shut('pages', $full, $security->token(claims => { scope => 'pageserverapi' }),
	qr/the token is refused: tenant_id is not set here/, 'no tenant, a token for all');
reload('pages', qr/received SIGHUP/, tenant_id => $tenant);
opens('pages', 'the tenant is back');
ok(streams(), 'the page server streams again');

# ---- room for page servers

sub log_in
{
	my $c = NeonComm::Pagestream->new(port => $port{feed}, startup => 0);
	my $body = pack('N', 196608) . "user\0u\0replication\0true\0\0";
	$c->send_bytes(pack('N', 4 + length $body) . $body);
	$c->read_until('RE');
	$c->send_message('p', "$token\0");
	$c->read_until('ZE');
	return $c;
}

$standby->stop;
my @guests = map { log_in() } 1 .. 30;
my @strangers = map { NeonComm::Pagestream->new(port => $port{feed}, startup => 0) } 1 .. 100;
$standby->start;
ok(streams(), 'idle clients, logged in or not, keep no page server out');
ok(until_true(sub { (grep { $_->readable(0) } @guests) >= 20 }), 'most who had logged in made room');
ok(until_true(sub { (grep { $_->readable(0) } @strangers) >= 30 }), 'and many who had not');
ok(!$strangers[-1]->readable(0), 'the oldest first');

# who is logged in and busy, but streams to nobody, is a guest like any other
my @busy = map { log_in() } 1 .. 12;
$standby->stop;
$standby->start;
foreach my $round (1 .. 20)
{
	eval { $_->query('SHOW wal_segment_size') } foreach @busy;
	usleep(20_000);
}
ok(streams(), 'nor do busy ones');

$_->close foreach @guests, @strangers, @busy;
$standby->stop;
$primary->stop;
done_testing();
