# Connections mean what their strings say, and a token goes to nobody who has not shown
# who he is: variables of libpq in the shell that starts servers, passwords in connection
# strings however they are written and whatever ends their statements, strings that would
# give the token away.
#
# Seen to fail: with PGHOSTADDR or PGSSLMODE set no page server was found; a password as
# pass%77ord= was taken, and refused ones were in the log as part of the statement, later
# those of statements that had failed before their string was judged; the token went in
# clear to who asked for it, later out of ~/.pgpass; a walreceiver took what was said behind
# its question to the last byte.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Socket::INET;
use NeonComm::Cluster;
use POSIX ();
use Test::More;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '8MB', no_start => 1, init => ['--auth'],
	conf => [ 'log_statement=all', 'log_min_duration_statement=0', 'log_parameter_max_length_on_error=-1' ]);
my $dir = $c->{dir};

sub pg_ctl
{
	my (@args) = @_;
	return system("pg_ctl @args >/dev/null 2>&1 </dev/null");
}

# ---- the environment of the shell

my %hostile = (PGHOST => '/nowhere', PGHOSTADDR => '127.0.0.9', PGPORT => 1, PGSSLMODE => 'require', PGSERVICE => 'none',
	PGSERVICEFILE => '/nowhere/service', PGOPTIONS => '-c nonsense=1', PGPASSFILE => '/nowhere/pass', PGPASSWORD => 'wrong',
	PGUSER => 'nobody', PGDATABASE => 'none', PGREQUIREPEER => 'nobody', PGCHANNELBINDING => 'require', PGGSSENCMODE => 'require',
	PGTARGETSESSIONATTRS => 'standby', PGSSLROOTCERT => '/nowhere/root', PGCONNECT_TIMEOUT => 1, PGTZ => 'Nowhere/Else');
my $home = "$dir/home";
mkdir $home or die $!;
open my $pgpass, '>', "$home/.pgpass" or die $!;
chmod 0600, $pgpass;
print $pgpass "*:*:*:*:wrong\n";
close $pgpass or die $!;
{
	local %ENV = (%ENV, %hostile, HOME => $home);
	foreach my $part ('page_server_0', 'compute')
	{
		is(pg_ctl('start', '-W', '-D', "$dir/$part", '-l', $c->log_file($part)), 0, "$part starts in a hostile shell");
	}
}
ok($c->wait_for('SELECT true'), 'the compute works');
$c->sql('CREATE TABLE t AS SELECT g, repeat(md5(g::text), 30) AS x FROM generate_series(1, 20000) g');
my $count = 'SELECT count(*), sum(length(x)) FROM t';
is($c->sql($count), '20000|19200000', 'through page servers');
is($c->sql("SET neon_comm.mode = direct; $count"), '20000|19200000', 'in direct mode, too');
ok($c->wait_for(q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'its walreceiver streams');
foreach my $part ('page_server_0', 'compute')
{
	like($c->log_text($part), qr/removed from the environment of this server: .*\bPGHOSTADDR\b/, "$part says so");
	my ($pid) = $c->postmaster_pid($part);
	my $title = $part eq 'compute' ? qr/communicator/ : qr/walreceiver/;
	my ($child) = $c->pids_of($part, $title);
	ok(defined $child, "$part has the process");
	unlike($c->log_text($part), qr/nobody|nonsense=1|Nowhere/, 'values are not told');
}

# ---- secrets in strings

my $servers = $c->sql('SHOW neon_comm.page_servers');
my $secret = 'Sesame4711';
my $from = length $c->log_text('compute');
foreach my $string ("host=127.0.0.1 port=1 password=$secret", "host=127.0.0.1 port=1 password = '$secret'",
	"postgresql://u:$secret\@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?password=$secret", "postgresql://127.0.0.1:1/x?pass%77ord=$secret",
	"postgresql://127.0.0.1:1/x?%70assword=$secret", "host=127.0.0.1 port=1 sslpassword=$secret", "postgresql://127.0.0.1:1/x?sslpass%77ord=$secret",
	"host=127.0.0.1 port=1 passfile=/$secret", "host=127.0.0.1 port=1 service=$secret",
	"host=127.0.0.1 port=1 nonsense=$secret", "host=127.0.0.1 port=$secret", "host=127.0.0.1 '$secret", "host=127.0.0.1 port=1, password=$secret")
{
	(my $quoted = $string) =~ s/'/''/g;
	my ($rc, undef, $err) = $c->try_sql("ALTER SYSTEM SET neon_comm.page_servers = '$quoted'");
	(my $shown = $string) =~ s/$secret/.../g;
	isnt($rc, 0, "refused: $shown");
	# psql repeats the statement's line to who has typed it
	my @said = grep { !/^(psql:|LINE|STATEMENT)/ || /ERROR|DETAIL|HINT/ } split /\n/, $err;
	unlike("@said", qr/$secret/, 'and not repeated');
}
my $reload = length $c->log_text('compute');
$c->configure({ 'neon_comm.page_servers' => "host=127.0.0.1 port=1 password=$secret" });
ok($c->wait_log('compute', qr/neon_comm.page_servers may not hold a password/, $reload), 'nor taken by a reload');
$c->configure({ 'neon_comm.page_servers' => $servers });
unlike(substr($c->log_text('compute'), $from), qr/$secret/, 'nothing of it is in the log, with every statement logged');
like(substr($c->log_text('compute'), $from), qr/statement: SHOW|statement: \s*$/m, 'which other statements are');

# what ends such a statement before anybody has judged its string, and other ways into the log
my $set = "neon_comm.page_servers = 'host=127.0.0.1 port=1 password=$secret'";
my $config = "set_config('neon_comm.page_servers', 'password=$secret', false)";
my $bound = "$dir/bound.sql";
open my $script, '>', $bound or die $!;
print $script "SELECT set_config('neon_comm.page_servers', :secret, false);\n";
close $script or die $!;
my $unbound = "$dir/unbound.sql";
open $script, '>', $unbound or die $!;
print $script "ALTER SYSTEM SET $set;\n";
close $script or die $!;
sub psql
{
	my ($sql) = @_;
	IPC::Run::run([ 'psql', '-Xq', '-d', $c->conninfo . ' dbname=postgres', '-c', $sql ], '<', \undef, '>', \my $out, '2>', \my $err);
	return;
}
$c->sql('CREATE ROLE nobody');
foreach my $route (
	[ 'SET', qr/cannot be changed now/, sub { $c->try_sql("SET $set") } ],
	[ 'set_config()', qr/cannot be changed now/, sub { $c->try_sql("SELECT $config") } ],
	[ 'quotes and blanks', qr/may not hold a password/, sub { (my $q = $set) =~ s/^\w+\.(\w+)/"neon_comm" . "$1"/; $c->try_sql("ALTER SYSTEM SET $q") } ],
	[ 'in a transaction', qr/cannot run inside a transaction block/, sub { $c->try_sql("BEGIN; ALTER SYSTEM SET $set") } ],
	[ 'several statements', qr/cannot run inside a transaction block/, sub { psql("ALTER SYSTEM SET $set; SELECT pg_reload_conf()") } ],
	[ 'no right', qr/permission denied/, sub { $c->try_sql("SET ROLE nobody; ALTER SYSTEM SET $set") } ],
	[ 'syntax error', qr/syntax error/, sub { $c->try_sql("ALTER SYSTEM $set") } ],
	[ 'syntax error at the secret', qr/syntax error/, sub { $c->try_sql("ALTER SYSTEM SET neon_comm.page_servers = 'password='$secret") } ],
	[ 'a quote is missing', qr/unterminated|syntax error/, sub { psql(substr("ALTER SYSTEM SET $set", 0, -1)) } ],
	[ 'another error', qr/division by zero/, sub { $c->try_sql("SELECT CASE WHEN 1 / g = 0 THEN $config END FROM generate_series(-1, 1) g") } ],
	[ 'in a block', qr/cannot be changed now/, sub { $c->try_sql("DO \$\$ BEGIN EXECUTE concat('SET neon_comm.', 'page_servers = ''password=', '$secret'''); END \$\$") } ],
	[ 'syntax error in a block', qr/syntax error/, sub { $c->try_sql("DO \$\$ BEGIN EXECUTE concat('SET neon_comm.', 'page_servers ''password=', '$secret'''); END \$\$") } ],
	[ 'prepared', qr/cannot be changed now/,
		sub { $c->try_sql("PREPARE p AS SELECT set_config('neon_comm.page_servers', \$1, false); EXECUTE p('password=$secret')") } ],
	[ 'extended protocol', qr/may not hold a password/, sub { $c->pgbench('-n', '-t', 1, '-M', 'extended', '-f', $unbound) } ],
	[ 'bound', qr/cannot be changed now/, sub { $c->pgbench('-n', '-t', 1, '-M', 'extended', '-D', "secret=$secret", '-f', $bound) } ])
{
	my ($what, $error, $run) = @$route;
	my $before = length $c->log_text('compute');
	$run->();
	my $said = substr($c->log_text('compute'), $before);
	like($said, qr/ERROR: .*$error/, "$what: an error");
	unlike($said, qr/$secret/, "$what: not repeated");
}
$from = length $c->log_text('compute');
my $crashes = $c->background(\my $ignored, 'psql', '-Xq', '-d', $c->conninfo . ' dbname=postgres', '-c', "SELECT pg_sleep(600) /* $set */");
ok($c->wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()}), 'a statement runs');
kill KILL => $c->sql(q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()});
$crashes->finish;
ok($c->wait_for('SELECT true'), 'its process crashes');
like(substr($c->log_text('compute'), $from), qr/terminated by signal 9: Killed/, 'which the log says');
unlike(substr($c->log_text('compute'), $from), qr/$secret/, 'without the statement');
$from = length $c->log_text('compute');
$c->try_sql('SELECT 4711 / 0');
like(substr($c->log_text('compute'), $from), qr/STATEMENT:  SELECT 4711/, 'statements of other errors are logged');

# ---- the token

$from = length $c->log_text('compute');
$c->configure({ 'neon_comm.page_servers' => 'host=192.0.2.1 port=1 connect_timeout=1' });
ok($c->wait_log('compute', qr/no token is sent to another machine without sslmode=verify-full/, $from), 'no token leaves in clear');
$c->configure({ 'neon_comm.page_servers' => $servers });
is($c->sql($count), '20000|19200000', 'the page server at home still gets it');

# ---- a server that talks without an end before the stream begins

my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
my $talker = fork // die;
if ($talker == 0)
{
	local $SIG{PIPE} = 'IGNORE';
	my $body = pack('N', 1) . "c\0" . ('x' x 1048576) . "\0";
	my $message = 'A' . pack('N', 4 + length $body) . $body;
	while (my $s = $listener->accept)
	{
		sysread $s, my $packet, 10000;
		syswrite $s, 'R' . pack('NN', 8, 0);
		foreach (1 .. 300)
		{
			last unless syswrite $s, $message;
		}
		close $s;
	}
	POSIX::_exit(0);
}
sub peak_kb
{
	open my $fh, '<', "/proc/@{[ $c->pids_of('compute', qr/communicator/) ]}/status" or die $!;
	return (map { /^VmHWM:\s+(\d+)/ ? $1 : () } <$fh>)[0];
}
my $peak = peak_kb();
$from = length $c->log_text('compute');
$c->configure({ 'neon_comm.page_servers' => 'host=127.0.0.1 sslmode=disable port=' . $listener->sockport });
ok($c->wait_log('compute', qr/the server said more than 256 kB before the stream began/, $from), 'a server that talks without an end is left');
$c->configure({ 'neon_comm.page_servers' => $servers });
is($c->sql($count), '20000|19200000', 'the right one is asked again');
cmp_ok(peak_kb() - $peak, '<', 64 * 1024, 'what it said was not kept');
kill KILL => $talker;
waitpid $talker, 0;

# ---- the same to a walreceiver that asks whether it may join: instead of an answer, behind a refusal

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body }
my %first = (
	'instead of an answer' => '',
	'behind a refusal' => message('E', "SERROR\0C42601\0Msyntax error\0\0") . message('Z', 'I'));
foreach my $where (sort keys %first)
{
	my $feed = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
	pipe(my $told, my $tell) or die $!;
	$talker = fork // die;
	if ($talker == 0)
	{
		local $SIG{PIPE} = 'IGNORE';
		my $notification = message('A', pack('N', 1) . "c\0" . ('x' x 1048576) . "\0");
		while (my $s = $feed->accept)
		{
			sysread $s, my $packet, 10000;
			syswrite $s, message('R', pack('N', 0)) . message('Z', 'I');
			sysread $s, $packet, 10000;
			syswrite $s, $first{$where};
			my $n = 0;
			$n++ while $n < 300 && syswrite $s, $notification;
			syswrite $tell, "$n\n";
			close $s;
		}
		POSIX::_exit(0);
	}
	$from = length $c->log_text('page_server_0');
	$c->configure({ primary_conninfo => 'host=127.0.0.1 sslmode=disable gssencmode=disable port=' . $feed->sockport },
		part => 'page_server_0');
	my $mb = <$told>;
	cmp_ok($mb, '<', 100, "$where: a walreceiver does not listen without an end");
	my $why = $where eq 'behind a refusal' ? qr/WAL receiver ends: primary_conninfo of this page server does not lead to the WAL feed/ :
	  qr/could not join the compute: it said more than 256 kB instead of an answer/;
	ok($c->wait_log('page_server_0', $why, $from), "$where: and says why it leaves");
	kill KILL => $talker;
	waitpid $talker, 0;
}

# a file of passwords that the string names, or that libpq finds by itself; a service may say anything
my @refused = (
	[ "host=192.0.2.1 port=1 passfile=$dir/security/pgpass", qr/primary_conninfo would send the token to whoever answers at "192\.0\.2\.1"/ ],
	[ 'host=192.0.2.1 port=1 sslmode=require', qr/primary_conninfo would send the token to whoever answers at "192\.0\.2\.1"/ ],
	[ 'service=compute', qr/primary_conninfo names a service/ ]);
foreach my $refused (@refused)
{
	my ($conninfo, $why) = @$refused;
	$from = length $c->log_text('page_server_0');
	$c->configure({ primary_conninfo => $conninfo }, part => 'page_server_0');
	ok($c->wait_log('page_server_0', qr/(ERROR|FATAL):  $why/, $from), "nor does a walreceiver send one, after a reload: $why");
}

$c->stop;
foreach my $refused (reverse @refused)
{
	my ($conninfo, $why) = @$refused;
	local $ENV{HOME} = $home;
	$from = length $c->log_text('page_server_0');
	$c->append_conf('page_server_0', "primary_conninfo = '$conninfo'");
	ok(!($c->try_dev('start', '-D', $dir, '--quiet', 'page-server', '0'))[0], 'the page server does not start so');
	like(substr($c->log_text('page_server_0'), $from), qr/FATAL:  $why/, 'and says why');
}
$c->append_conf('page_server_0', 'neon_page_service.allow_token_in_clear = on');
$from = length $c->log_text('page_server_0');
pg_ctl('start', '-W', '-D', "$dir/page_server_0", '-l', $c->log_file('page_server_0'));
ok($c->wait_log('page_server_0', qr/WARNING:  primary_conninfo would send the token/, $from), 'a setting lifts it, with a warning');
pg_ctl('stop', '-w', '-m', 'immediate', '-D', "$dir/page_server_0");

foreach my $lifted (0, 1)
{
	$from = length $c->log_text('compute');
	$c->append_conf('compute', "neon_comm.page_servers = 'host=192.0.2.1 port=1 sslmode=require'");
	$c->append_conf('compute', 'neon_comm.allow_token_in_clear = on') if $lifted;
	pg_ctl('start', '-W', '-D', "$dir/compute", '-l', $c->log_file('compute'));
	my $level = $lifted ? 'WARNING' : 'FATAL';
	ok($c->wait_log('compute', qr/$level:  the token would be sent to whoever answers at 192\.0\.2\.1:1/, $from), "$level: the compute's start");
	# it has said so, and has still to leave: the next start would find its lock
	ok($lifted || $c->wait_log('compute', qr/database system is shut down/, $from), "$level: and its end");
}
pg_ctl('stop', '-w', '-m', 'immediate', '-D', "$dir/compute");
$c->check_logs;
done_testing();
