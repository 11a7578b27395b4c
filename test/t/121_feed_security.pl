# The WAL feed at its door: TLS, tokens, and clients that want to do harm.
#
# neon_comm without page servers leaves storage local; a stock standby fetches its
# WAL inside TLS with a token from a password file, as page servers do.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use NeonComm::Pagestream;
use NeonComm::Node qw(conf free_port until_true refuses_to_start);
use NeonComm::Security;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $tenant = '0123456789abcdef0123456789abcdef';
my $other_tenant = 'f' x 32;
my $security = NeonComm::Security->new;
my $port = free_port();

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'neon_comm'
neon_comm.page_servers = ''
neon_comm.wal_feed_port = $port
neon_comm.wal_feed_slots = 'page_server_0'
neon_comm.wal_feed_allow_unjoined = on
max_replication_slots = 4
autovacuum = off
});

sub log_text { my ($node) = @_; return slurp_file(($node // $primary)->logfile) }

sub reload
{
	my ($regex, %set) = @_;
	my $from = length log_text();
	conf($primary, %set);
	$primary->reload;
	ok(until_true(sub { substr(log_text(), $from) =~ $regex }), "the log says $regex");
	return;
}

my @tokens;						# whatever was ever sent, to be looked for in the logs

sub ask
{
	my ($conninfo, $token) = @_;
	push @tokens, $token if defined $token;
	local $ENV{PGPASSWORD} = $token // '';
	delete $ENV{PGPASSWORD} unless defined $token;
	my $out = '';
	IPC::Run::run([ 'psql', '-wXAt', '-d', "port=$port user=u replication=true $conninfo", '-c',
			'IDENTIFY_SYSTEM' ],
		'<', \undef, '>', \$out, '2>&1');
	return $out;
}

my $known = qr/^\d+\|1\|/m;

sub accepts
{
	my ($conninfo, $token, $name) = @_;
	like(ask($conninfo, $token), $known, $name);
	return;
}

sub refuses
{
	my ($conninfo, $token, $regex, $name) = @_;
	my $out = ask($conninfo, $token);
	like($out, $regex, $name);
	unlike($out, $known, "$name: nothing is told");
	return;
}

# ---- the start

my $keys = $security->public_keys('keys.pem', 'issuer');
my $authority = $security->authority('authority');
$security->certificate('compute');
$security->install('compute', 'feed');
my ($cert, $key) = ($security->path('feed.crt'), $security->path('feed.key'));

refuses_to_start($primary, qr/would send all WAL to everybody who reaches "0\.0\.0\.0"/, 'open without keys',
	'neon_comm.wal_feed_listen_addresses' => '127.0.0.1,0.0.0.0');
refuses_to_start($primary, qr/wal_feed_auth_public_key_file needs neon_comm\.tenant_id/, 'keys without a tenant',
	'neon_comm.wal_feed_auth_public_key_file' => $keys);
refuses_to_start($primary, qr/the WAL feed cannot start: cannot read "\/nowhere\/keys"/, 'keys that are not there',
	'neon_comm.tenant_id' => $tenant, 'neon_comm.wal_feed_auth_public_key_file' => '/nowhere/keys');
refuses_to_start($primary, qr/the WAL feed cannot start: .*only one of the two/, 'a certificate without key',
	'neon_comm.wal_feed_ssl_cert_file' => $cert);

conf($primary, 'neon_comm.tenant_id' => $tenant, 'neon_comm.wal_feed_auth_public_key_file' => $keys,
	'neon_comm.wal_feed_ssl_cert_file' => $cert, 'neon_comm.wal_feed_ssl_key_file' => $key,
	'neon_comm.wal_feed_listen_addresses' => '0.0.0.0');
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION neon_comm');

my $full = "host=127.0.0.1 sslmode=verify-full sslrootcert=$authority";
my $good = $security->tenant_token($tenant);
ok(until_true(sub { ask($full, $good) =~ $known }), 'a token of the tenant, inside TLS');

# ---- who is let in

accepts($full, $security->token(claims => { scope => 'safekeeperdata' }), 'a token of safekeepers');
accepts("$full ssl_max_protocol_version=TLSv1.2", $good, 'TLS 1.2');
my @refused = (
	[ $security->tenant_token($other_tenant), qr/it is for another tenant/ ],
	[ $security->token(claims => { scope => 'pageserverapi' }), qr/its scope does not allow this/ ],
	[ $security->tenant_token($tenant, exp => int time - 3600), qr/it has expired/ ],
	[ $security->token(key => 'stranger', claims => { scope => 'safekeeperdata' }), qr/made by no key/ ],
	[ $security->token(header => { alg => 'none' }, claims => { scope => 'safekeeperdata' }),
		qr/its algorithm is not EdDSA/ ],
	[ 'hunter2-secret', qr/it is not a JSON web token/ ],
	[ 'x' x 5000, qr/it is too long/ ]);
refuses($full, $_->[0], qr/FATAL:  the token is refused: .*$_->[1]/, "refused: $_->[1]") foreach @refused;
refuses($full, undef, qr/no password supplied/, 'no token');
refuses('host=127.0.0.1 sslmode=disable', $good, qr/FATAL:  must connect with TLS/, 'clear text');
refuses("host=wrong.example hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=$authority", $good,
	qr/does not match host name "wrong.example"/, 'another name');
refuses('host=127.0.0.1 sslmode=verify-full sslrootcert=' . $security->authority('stranger_ca'), $good,
	qr/certificate verify failed/, 'an unknown authority');
refuses("$full ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1", $good, qr/SSL error/,
	'TLS 1.1');

# ---- a stock walreceiver

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base');
my $passfile = $security->write_file('pgpass', "*:*:*:*:$good\n");
$standby->append_conf('postgresql.conf', qq{
shared_preload_libraries = ''
primary_conninfo = '$full port=$port user=page_server passfile=$passfile'
primary_slot_name = page_server_0
hot_standby = on
});
$standby->set_standby_mode;
$standby->start;

my $row = 'FROM neon_comm.page_servers';
sub caught_up
{
	my $lsn = $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
	return $primary->poll_query_until('postgres',
		"SELECT state = 'streaming' AND apply_lsn >= '$lsn' $row");
}
ok(caught_up(), 'a walreceiver streams inside TLS with a token from its password file');
$primary->safe_psql('postgres', q{CREATE TABLE t AS SELECT g, repeat(md5(g::text), 8) AS x
	FROM generate_series(1, 100000) g});
ok(caught_up(), 'and so do 30 MB');
is($standby->safe_psql('postgres', 'SELECT count(*), sum(hashtext(x)) FROM t'),
	$primary->safe_psql('postgres', 'SELECT count(*), sum(hashtext(x)) FROM t'), 'which are the same there');
unlike($standby->safe_psql('postgres', 'SELECT * FROM pg_stat_wal_receiver'), qr/\Q$good\E/,
	'the view of the walreceiver does not show it');

# certificate and keys change under it
my $since = $primary->safe_psql('postgres', "SELECT connected_since $row");
$security->certificate('renewed');
$security->install('renewed', 'feed');
my $next = $security->tenant_token($tenant);
$next = $security->token(key => 'next', claims => { scope => 'tenant', tenant_id => $tenant });
$security->public_keys('keys.pem', 'next');
reload(qr/received SIGHUP/);
ok(until_true(sub { ask($full, $next) =~ $known }), 'after a reload the next key counts');
refuses($full, $good, qr/made by no key/, 'and the old one does not');
sub subject
{
	my $out = '';
	IPC::Run::run([ 'openssl', 's_client', '-starttls', 'postgres', '-connect', "127.0.0.1:$port" ],
		'<', \undef, '>', \$out, '2>&1');
	return $out =~ /subject=CN *= *(\S+)/ ? $1 : $out;
}
is(subject(), 'renewed', 'the new certificate is shown');
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (0)');
ok(caught_up(), 'the stream goes on');
is($primary->safe_psql('postgres', "SELECT connected_since $row"), $since, 'over the same connection');

# who connects anew needs the new token, and gets in as soon as the file has it
my $from = length log_text($standby);
$standby->restart;
ok(until_true(sub { substr(log_text($standby), $from) =~ /the token is refused: its signature was made by no key/ }),
	'a walreceiver with an old token is refused, and its log says why');
$security->write_file('pgpass', "*:*:*:*:$next\n");
ok(caught_up(), 'with the new one in its file it streams again, without a reload');

$security->write_file('feed.crt', $security->read_file('compute.crt'));
reload(qr/WAL feed: cannot load the private key .*: what was loaded before stays in use/);
is(subject(), 'renewed', 'a certificate that does not fit its key is not taken');
reload(qr/wal_feed_auth_public_key_file was emptied, but other hosts can connect: the keys loaded before/,
	'neon_comm.wal_feed_auth_public_key_file' => '');
refuses($full, undef, qr/no password supplied/, 'keys are not given up while others can connect');

# ---- clients that want to do harm

my @idlers = map { NeonComm::Pagestream->new(port => $port, startup => 0) } 1 .. 110;
accepts($full, $next, 'a hundred silent clients keep nobody out');
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (-1)');
ok(caught_up(), 'nor do they end the stream');
ok(until_true(sub { (grep { $_->readable(0) } @idlers) >= 30 }), 'many of them are gone');
$_->close foreach @idlers;

my $body = pack('N', 196608) . "user\0u\0replication\0true\0\0";
my $c = NeonComm::Pagestream->new(port => $port, startup => 0);
$c->send_bytes(pack('NN', 8, 80877103) . pack('N', 4 + length $body) . $body);
ok(!defined $c->take(1), 'clear text behind SSLRequest ends the connection');
reload(qr/received SIGHUP/, authentication_timeout => '1s');
$c = NeonComm::Pagestream->new(port => $port, startup => 0);
# a long one, which is not there in a second
$c->send_bytes(pack 'N', 10000);
foreach (1 .. 600)
{
	last if $c->readable(0.1) || !eval { $c->send_bytes('x'); 1 };
}
ok(!defined $c->take(1), 'a client that sends its packet byte by byte is disconnected');
reload(qr/received SIGHUP/, authentication_timeout => '60s', 'neon_comm.wal_feed_require_ssl' => 'off');
foreach my $length (0, 7, 10001, 0x7fffffff, 0xffffffff)
{
	$c = NeonComm::Pagestream->new(port => $port, startup => 0);
	$c->send_bytes(pack 'NN', $length, 196608);
	ok(!defined $c->take(1), "a start-up packet of $length bytes ends the connection");
}
ok(until_true(sub { ask('host=127.0.0.1 sslmode=disable', $next) =~ $known }), 'clear text when it is not required');
foreach my $message ([ 'Q', "IDENTIFY_SYSTEM\0", '08P01' ], [ 'p', "\0", '28P01' ], [ 'p', '', '28P01' ],
	[ 'p', 'no end', '28P01' ])
{
	$c = NeonComm::Pagestream->new(port => $port, startup => 0);
	$c->send_bytes(pack('N', 4 + length $body) . $body);
	$c->send_message($message->[0], $message->[1]);
	my $error = NeonComm::Pagestream::error_of($c->read_until('ZE'));
	is($error->{C}, $message->[2], "\"$message->[0]\" with " . length($message->[1]) . ' bytes instead of a token');
}
ok(caught_up(), 'the stream has seen nothing of it');

# ---- nothing of a token anywhere

my $logs = log_text() . log_text($standby);
my @parts = grep { length > 20 } map { split /\./ } @tokens;
is((scalar grep { index($logs, $_) >= 0 } @parts), 0, 'no part of a token is in a log');
my $shown = $primary->safe_psql('postgres', "SELECT * FROM pg_settings; SELECT * $row; SELECT * FROM pg_stat_activity")
  . $standby->safe_psql('postgres', 'SELECT * FROM pg_settings; SELECT * FROM pg_stat_wal_receiver');
is((scalar grep { index($shown, $_) >= 0 } @parts), 0, 'nor in a view');
unlike($logs, qr/PANIC|TRAP:|terminated by signal|could not read block/, 'no crash');

$standby->stop;
$primary->stop;
done_testing();
