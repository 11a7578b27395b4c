# The page service at its door: TLS, tokens, and clients that want to do harm.
#
# One stock standby, asked by psql (libpq) and by raw sockets.  Nothing that is
# refused may leave its token in the log or in an error.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use NeonComm::Pagestream qw(lsn_number);
use NeonComm::Node qw(conf free_port until_true refuses_to_start);
use NeonComm::Security;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $tenant = '0123456789abcdef0123456789abcdef';
my $other_tenant = 'f' x 32;
my $timeline = 'fedcba9876543210fedcba9876543210';
my $security = NeonComm::Security->new;
my $port = free_port();

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT generate_series(1, 1000) g; CHECKPOINT');
my $rel = $primary->safe_psql('postgres', q{
	SELECT (CASE WHEN dattablespace = 1663 THEN 1663 ELSE dattablespace END) || ' ' || d.oid || ' '
		|| pg_relation_filenode('t') FROM pg_database d WHERE datname = 'postgres'});
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'neon_page_service'
hot_standby = off
neon_page_service.port = $port
neon_page_service.workers = 1
neon_page_service.allow_any_primary = on
neon_page_service.allow_unsafe = on
neon_page_service.timeline_id = '$timeline'
authentication_timeout = 60s
});

my @tokens;						# whatever was ever sent, to be looked for in the logs

sub log_text { return slurp_file($standby->logfile) }

sub wait_for_log
{
	my ($regex, $from) = @_;
	foreach (1 .. 1200)
	{
		return 1 if substr(log_text(), $from) =~ $regex;
		usleep(100_000);
	}
	return 0;
}

# Reloads and waits until the worker has done what the log says about it, or answers anew.
sub reload
{
	my ($regex, %set) = @_;
	my $from = length log_text();
	conf($standby, %set);
	$standby->reload;
	ok(wait_for_log($regex, $from), "the log says $regex") if defined $regex;
	return;
}

# (exit status, output with errors) of "show status" by psql.
sub ask
{
	my ($conninfo, $token) = @_;
	push @tokens, $token if defined $token;
	local $ENV{PGPASSWORD} = $token // '';
	delete $ENV{PGPASSWORD} unless defined $token;
	my $out = '';
	IPC::Run::run([ 'psql', '-wXAt', '-d', "port=$port user=u dbname=d $conninfo", '-c', 'show status' ],
		'<', \undef, '>', \$out, '2>&1');
	return ($? >> 8, $out);
}

sub accepts
{
	my ($conninfo, $token, $name) = @_;
	my ($rc, $out) = ask($conninfo, $token);
	like($out, qr/^consistent\|/m, $name);
	return;
}

sub refuses
{
	my ($conninfo, $token, $regex, $name) = @_;
	my ($rc, $out) = ask($conninfo, $token);
	like($out, $regex, $name);
	unlike($out, qr/consistent/, "$name: nothing is told");
	return;
}

my $plain = 'host=127.0.0.1 sslmode=disable';
my $authority = $security->authority('authority');
my $full = "sslmode=verify-full sslrootcert=$authority";

# ---- who may be reached from elsewhere

my $keys = $security->public_keys('keys.pem', 'issuer');
$security->certificate('server');
$security->install('server', 'service');
my ($cert, $key) = ($security->path('service.crt'), $security->path('service.key'));

refuses_to_start($standby, qr/would serve every page to everybody who reaches "0\.0\.0\.0"/,
	'open to the network without keys', 'neon_page_service.listen_addresses' => '0.0.0.0');
refuses_to_start($standby, qr/would serve every page to everybody who reaches "127\.evil\.example"/,
	'a name that looks like loopback', 'neon_page_service.listen_addresses' => '127.evil.example');
refuses_to_start($standby, qr/cannot start: cannot read "\/nowhere\/keys"/, 'keys that are not there',
	'neon_page_service.auth_public_key_file' => '/nowhere/keys');
refuses_to_start($standby, qr/cannot start: .*holds a private key/, 'a private key instead of a public one',
	'neon_page_service.auth_public_key_file' => $security->key('issuer'));
refuses_to_start($standby, qr/cannot start: .*only one of the two files is set/, 'a certificate without key',
	'neon_page_service.ssl_cert_file' => $cert);
chmod 0644, $key;
refuses_to_start($standby, qr/cannot start: .*can be read by others/, 'a key that others can read',
	'neon_page_service.ssl_cert_file' => $cert, 'neon_page_service.ssl_key_file' => $key);
chmod 0600, $key;

# ---- without anything it is as before: loopback, open

$standby->start;
ok(until_true(sub { NeonComm::Pagestream->new(port => $port)->close; 1 }), 'the service listens');
accepts($plain, undef, 'loopback without keys and certificate: open');

# ---- tokens

my $good = $security->tenant_token($tenant);
reload(qr/received SIGHUP/, 'neon_page_service.auth_public_key_file' => $keys,
	'neon_page_service.tenant_id' => $tenant);
ok(until_true(sub { (ask($plain))[1] =~ /no password supplied/ }), 'after a reload a token is demanded');

accepts($plain, $good, 'a token of the tenant');
accepts($plain, $security->token(claims => { scope => 'pageserverapi' }), 'a token of page servers');
accepts($plain, $security->tenant_token($tenant, exp => time + 1000, nbf => time - 5.5),
	'a token in its time');
my @refused = (
	[ $security->tenant_token($other_tenant), qr/it is for another tenant/ ],
	[ $security->token(claims => { scope => 'safekeeperdata' }), qr/its scope does not allow this/ ],
	[ $security->tenant_token($tenant, exp => int time - 3600), qr/it has expired/ ],
	[ $security->tenant_token($tenant, nbf => int time + 3600), qr/it is not valid yet/ ],
	[ $security->token(key => 'stranger', claims => { scope => 'pageserverapi' }),
		qr/made by no key that is known here/ ],
	[ $security->token(header => { alg => 'none' }, claims => { scope => 'pageserverapi' }),
		qr/its algorithm is not EdDSA/ ],
	[ $security->token(header => { alg => 'HS256' }, claims => { scope => 'pageserverapi' }),
		qr/its algorithm is not EdDSA/ ],
	[ substr($good, 0, -4) . 'AAAA', qr/made by no key|not a JSON web token/ ],
	[ $good =~ s/\.[^.]*$/./r, qr/its signature is not one of Ed25519/ ],
	[ 'hunter2-secret', qr/it is not a JSON web token/ ],
	[ 'x' x 5000, qr/it is too long/ ]);
refuses($plain, $_->[0], qr/FATAL:  the token is refused: .*$_->[1]/, "refused: $_->[1]") foreach @refused;

sub login
{
	my ($token) = @_;
	my $c = NeonComm::Pagestream->new(port => $port, startup => 0);
	my $body = pack('N', 196608) . "user\0u\0\0";
	$c->send_bytes(pack('N', 4 + length $body) . $body);
	my ($type) = $c->read_message;
	is($type, 'R', 'a token is asked for');
	$c->send_message('p', "$token\0");
	$c->read_until('ZE');
	return $c;
}
# a page service that does not know its tenant lets nobody in: any tenant's token would do
reload(qr/needs neon_page_service\.tenant_id: nobody gets in/, 'neon_page_service.tenant_id' => '');
refuses($plain, $good, qr/the token is refused: tenant_id is not set here/, 'no tenant');
reload(qr/received SIGHUP/, 'neon_page_service.tenant_id' => $tenant);
ok(until_true(sub { (ask($plain, $good))[1] =~ /consistent/ }), 'a tenant again');
my $c = login($good);
my $error = NeonComm::Pagestream::error_of($c->query("pagestream_v3 $other_tenant $timeline"));
like($error->{M}, qr/tenant "f+" is not served/, "another tenant's stream is refused");
$c->stream(tenant => $tenant, timeline => $timeline);
my $answer = $c->ask('getpage', rel => [ split / /, $rel ], block => 0);
is(length($answer->{page} // ''), 8192, "the token's own tenant is served");

# a message before the token
$c = NeonComm::Pagestream->new(port => $port, startup => 0);
my $body = pack('N', 196608) . "user\0u\0\0";
$c->send_bytes(pack('N', 4 + length $body) . $body);
$c->send_message('Q', "show status\0");
my %got = map { $_->[0] => 1 } $c->read_until('ZE');
ok($got{E} && !$got{D} && !$got{Z}, 'a query before the token is refused');

# rotation: the next key beside the present one, then alone
my $next = $security->token(key => 'next', claims => { scope => 'tenant', tenant_id => $tenant });
my $stream = login($good)->stream(tenant => $tenant, timeline => $timeline);
refuses($plain, $next, qr/made by no key/, 'the next key is not known yet');
$security->public_keys('keys.pem', 'issuer', 'next');
$standby->reload;
ok(until_true(sub { (ask($plain, $next))[1] =~ /consistent/ }), 'the next key is known after a reload');
accepts($plain, $good, 'and the present one still is');
$security->public_keys('keys.pem', 'next');
$standby->reload;
ok(until_true(sub { (ask($plain, $good))[1] =~ /made by no key/ }), 'the old key is gone after another');
$answer = $stream->ask('getpage', rel => [ split / /, $rel ], block => 0);
is(length($answer->{page} // ''), 8192, 'a stream that stands is not touched by rotation');
$security->write_file('keys.pem', "-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n");
reload(qr/block 1 of .* is not a public key: what was loaded before stays in use/);
accepts($plain, $next, 'a damaged file of keys leaves the loaded ones in force');
$security->public_keys('keys.pem', 'issuer');
$standby->reload;
ok(until_true(sub { (ask($plain, $good))[1] =~ /consistent/ }), 'and a good one replaces them');

# ---- TLS

reload(qr/received SIGHUP/, 'neon_page_service.ssl_cert_file' => $cert,
	'neon_page_service.ssl_key_file' => $key);
ok(until_true(sub { (ask("host=127.0.0.1 $full", $good))[1] =~ /consistent/ }),
	'after a reload TLS is spoken');
accepts("host=localhost $full", $good, 'by name');
accepts("host=127.0.0.1 $full ssl_max_protocol_version=TLSv1.2", $good, 'TLS 1.2');
refuses("host=127.0.0.1 $full ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1", $good,
	qr/SSL error/, 'TLS 1.1');
refuses($plain, $good, qr/FATAL:  must connect with TLS/, 'clear text');
refuses("host=wrong.example hostaddr=127.0.0.1 $full", $good, qr/does not match host name "wrong.example"/,
	'another name');
refuses('host=127.0.0.1 sslmode=verify-full sslrootcert=' . $security->authority('stranger_ca'), $good,
	qr/certificate verify failed/, 'an unknown authority');
refuses("host=127.0.0.1 $full", $security->tenant_token($other_tenant), qr/it is for another tenant/,
	'a wrong token inside TLS');
reload(qr/received SIGHUP/, 'neon_page_service.require_ssl' => 'off');
ok(until_true(sub { (ask($plain, $good))[1] =~ /consistent/ }), 'clear text when it is not required');

# bytes behind SSLRequest in clear text would be taken for bytes from inside
$c = NeonComm::Pagestream->new(port => $port, startup => 0);
$c->send_bytes(pack('NN', 8, 80877103) . pack('N', 4 + length $body) . $body);
ok(!defined $c->take(1), 'clear text behind SSLRequest ends the connection');
# GSSENC first, then TLS, as libpq does; no end of questions
$c = NeonComm::Pagestream->new(port => $port, startup => 0);
$c->send_bytes(pack('NN', 8, 80877104));
is($c->take(1), 'N', 'GSSAPI encryption is declined');
eval { $c->send_bytes(pack('NN', 8, 80877104)) } foreach 1 .. 6;
my $declined = 0;
$declined++ while defined $c->take(1);
ok($declined <= 3, 'who asks again and again is disconnected');
# no TLS behind the S; refusals of the same second are logged once
my $from = length log_text();
ok(until_true(
		sub {
			$c = NeonComm::Pagestream->new(port => $port, startup => 0);
			$c->send_bytes(pack('NN', 8, 80877103));
			die 'no TLS' if $c->take(1) ne 'S';
			$c->send_bytes("GET / HTTP/1.1\r\n\r\n");
			$c->take(100000);
			return substr(log_text(), $from) =~ /page service refused 127\.0\.0\.1:\d+: TLS: /;
		}), 'no TLS behind its request is logged');

# the certificate can be exchanged, a bad one is not taken
sub subject
{
	my $out = '';
	IPC::Run::run([ 'openssl', 's_client', '-starttls', 'postgres', '-connect', "127.0.0.1:$port" ],
		'<', \undef, '>', \$out, '2>&1');
	return $out =~ /subject=CN *= *(\S+)/ ? $1 : $out;
}
is(subject(), 'server', 'the first certificate');
$security->certificate('renewed');
$security->install('renewed', 'service');
$standby->reload;
ok(until_true(sub { subject() eq 'renewed' }), 'a new certificate after a reload');
$security->write_file('service.crt', $security->read_file('server.crt'));
reload(qr/page service: cannot load the private key .*: what was loaded before stays in use/);
is(subject(), 'renewed', 'a certificate that does not fit its key is not taken');
$security->certificate('old', days => 0);
$security->install('old', 'service');
$standby->reload;
ok(until_true(sub { subject() eq 'old' }), 'an expired certificate is shown');
refuses("host=127.0.0.1 $full", $good, qr/certificate verify failed/, 'and no client takes it');
$security->install('renewed', 'service');
$standby->reload;
ok(until_true(sub { (ask("host=127.0.0.1 $full", $good))[1] =~ /consistent/ }), 'a good one again');

# ---- clients that want to do harm

# who never logs in makes room for others
my @idlers = map { NeonComm::Pagestream->new(port => $port, startup => 0) } 1 .. 80;
accepts($plain, $good, 'eighty silent clients keep nobody out');
ok(until_true(sub { my $gone = grep { $_->readable(0) } @idlers; $gone >= 10 }), 'the oldest of them are gone');
$_->close foreach @idlers;

# and has not all the time in the world
$from = length log_text();
reload(qr/received SIGHUP/, authentication_timeout => '1s');
$c = NeonComm::Pagestream->new(port => $port, startup => 0);
# a long one, which is not there in a second
$c->send_bytes(pack 'N', 10000);
my $slow = 0;
while ($slow < 600 && !$c->readable(0.1))
{
	# one byte at a time, for ever
	eval { $c->send_bytes('x') } or last;
	$slow++;
}
ok(!defined $c->take(1), 'a client that sends its packet byte by byte is disconnected');
reload(qr/received SIGHUP/, authentication_timeout => '60s');

# lengths
foreach my $length (0, 7, 10001, 0x7fffffff, 0xffffffff)
{
	$c = NeonComm::Pagestream->new(port => $port, startup => 0);
	$c->send_bytes(pack 'NN', $length, 196608);
	ok(!defined $c->take(1), "a start-up packet of $length bytes ends the connection");
}
$c = login($good);
$c->send_bytes(pack 'aN', 'Q', 0x7fffffff);
is(NeonComm::Pagestream::error_of($c->read_until('E'))->{C}, '08P01', 'a message of 2 GB is refused');

# connections of one client, and how fast they may ask
$_->close foreach $stream, $c;
my @open = login($good);
ok(until_true(sub { $open[0]->status->{connections} == 1 }), 'what came before has ended');
push @open, map { login($good) } 1 .. 2;
reload(qr/received SIGHUP/, 'neon_page_service.max_connections_per_client' => 3);
ok(until_true(sub { (ask($plain, $good))[1] =~ /one client/ }), 'the limit is in force');
refuses($plain, $good, qr/too many connections from one client/, 'one connection too many of a client');
# who has shown no token, silent or asked for one, takes no place of who has: they come from one address, too
my @strangers = map { NeonComm::Pagestream->new(port => $port, startup => 0) } 1 .. 8;
$_->send_bytes(pack('N', 4 + length $body) . $body) foreach @strangers[ 0 .. 3 ];
is(($_->read_message)[0], 'R', 'a stranger is asked for a token') foreach @strangers[ 0 .. 3 ];
ok(until_true(sub { $open[0]->status->{connections} == 11 }), 'eight strangers are there');
refuses($plain, $security->tenant_token($other_tenant), qr/it is for another tenant/,
	'beyond the limit a wrong token is refused as a wrong token');
(pop @open)->close;
ok(until_true(sub { (ask($plain, $good))[1] =~ /consistent/ }), 'who has a token has the place that is free');
push @open, login($good);
refuses($plain, $good, qr/too many connections from one client/, 'and one more has none');
$_->close foreach @strangers;
reload(qr/received SIGHUP/, 'neon_page_service.max_connections_per_client' => 0,
	'neon_page_service.max_requests_per_second' => 20);
$c = $open[0]->stream(tenant => $tenant, timeline => $timeline);
# 22 requests at once, more than the rate allows in a second: how many are answered
my $burst = sub {
	my $answers = 0;
	$c->send_requests(map { $c->request_body('nblocks', rel => [ split / /, $rel ]) } 1 .. 22);
	$answers++ while $answers < 22 && defined $c->read_answer;
	return $answers;
};
ok(until_true(sub { $burst->(); $open[1]->status->{throttled} > 0 }), 'the rate is in force');
my ($started, $throttled) = (time, $open[1]->status->{throttled});
is($burst->(), 22, 'all requests over the rate are answered');
ok(time - $started >= 0.9, 'and not sooner than the rate allows (20 of them take a second)');
cmp_ok($open[1]->status->{throttled} - $throttled, '>=', 10, 'which is counted');
cmp_ok($open[1]->status->{clients_refused}, '>=', 10, 'as are refused clients');

# ---- requests that arrive faster than they may be answered, inside TLS

# The receive buffer fills up in the middle of a record; its rest is then inside
# OpenSSL, where no event tells of it.
reload(qr/received SIGHUP/, 'neon_page_service.max_requests_per_second' => 500);
my $builder = bless { reqid => 1, version => 3 }, 'NeonComm::Pagestream';
# 66560 bytes is the buffer, 50 requests may come at once, 3000 bytes are to be left in the record
my $many = 50 + int(69560 / (5 + length $builder->request_body('nblocks', rel => [ 1, 1, 1 ])));
my $in = pack('N', 4 + length $body) . $body . pack('aN', 'p', 5 + length $good) . "$good\0";
my $command = "pagestream_v3 $tenant $timeline\0";
$in .= pack('aN', 'Q', 4 + length $command) . $command;
$in .= join '', map { pack('aN', 'd', 4 + length) . $_ }
  map { $builder->request_body('nblocks', rel => [ split / /, $rel ]) } 1 .. $many;
my ($out, $noise) = ('', '');
my $client = IPC::Run::start([ 'openssl', 's_client', '-quiet', '-starttls', 'postgres', '-connect', "127.0.0.1:$port" ],
	'<', \$in, '>', \$out, '2>', \$noise, IPC::Run::timeout(60));
sub answers_in
{
	my ($bytes) = @_;
	my $n = 0;
	for (my $at = 0; $at + 5 <= length $bytes;)
	{
		my ($type, $length) = unpack 'aN', substr $bytes, $at, 5;
		$n++ if $type eq 'd';
		$at += 1 + $length;
	}
	return $n;
}
eval { $client->pump until answers_in($out) >= $many || !$client->pumpable };
is(answers_in($out), $many, "$many requests at once inside TLS are all answered");
$client->kill_kill;

# ---- nothing of a token is in the log

my $log = log_text();
my @leaked = grep { index($log, $_) >= 0 } @tokens;
is(scalar @leaked, 0, 'no token is in the log');
my @parts = grep { length > 20 } map { split /\./ } @tokens;
is((scalar grep { index($log, $_) >= 0 } @parts), 0, 'nor a part of one');
unlike($log, qr/PANIC|TRAP:|terminated by signal|could not read block/, 'no crash');

# ---- open to the network, with keys: allowed

$standby->stop;
conf($standby, 'neon_page_service.listen_addresses' => '0.0.0.0', 'neon_page_service.require_ssl' => 'on');
$standby->start;
ok(until_true(sub { (ask("host=127.0.0.1 $full", $good))[1] =~ /consistent/ }), 'open to the network with keys');
reload(qr/auth_public_key_file was emptied, but other hosts can connect: the keys loaded before stay/,
	'neon_page_service.auth_public_key_file' => '');
refuses("host=127.0.0.1 $full", undef, qr/no password supplied/, 'and still asks for a token');

$standby->stop;
$primary->stop;
done_testing();
