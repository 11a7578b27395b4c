# Page servers and histories that have parted: one that is told to promote, one that was
# promoted all the same, one that has been a server of its own, a copy in the place of
# the original and beside it, WAL that was copied into pg_wal, a primary_conninfo that
# leads elsewhere, readers that were overtaken.  None of them is served from, each says
# why, and the other page server goes on.
#
# Seen to fail without: the refusal of a promotion (65_promotes), the look at pg_control
# at the start (65_promoted_starts), the place (65_copy_starts), the judged LSN
# (65_unjudged), the verdict (65_verdict_ignored), the judgement of readers (65_any_reader).
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;
use NeonComm::Pagestream;

my $c = NeonComm::Cluster->new(shards => 2, conf => ['neon_comm.request_timeout=60s']);
# what a session reads while its page server has parted from the compute
$c->allow_log(qr/could not read block .* from its page server: .*: parted: /);
my $dir = $c->{dir};
my $P = 'page_server_0';
my $rows = 'SELECT v, count(*) FROM t GROUP BY v';

sub status { return NeonComm::Pagestream->new(port => $c->page_server_port(shift))->status }

# An LSN as a number is beyond another, as the status has them.
sub status_is
{
	my ($n, $test) = @_;
	foreach (1 .. 600)
	{
		my $status = eval { status($n) };
		return 1 if $status && $test->($status);
		usleep(100_000);
	}
	return 0;
}

sub start_fails
{
	my ($regex, $name) = @_;
	my $from = length $c->log_text($P);
	my ($ok, $out) = $c->try_dev('start', '-D', $dir, '--quiet', '-t', 20, 'page-server', 0);
	ok(!$ok, "$name: does not start");
	ok($c->wait_log($P, $regex, $from), "$name: and says why") or diag(substr($c->log_text($P), $from));
	return substr($c->log_text($P), $from);
}

# The directory as a server of its own, without the library; what is done is done to it.
sub alone
{
	my ($data, $promote, $sql, $port) = @_;
	$port //= $c->page_server_port(0);
	my $log = "$dir/alone.log";
	my $server = sub { return system('pg_ctl', '-s', '-w', '-D', $data, '-l', $log, @_) == 0 };

	$server->('-o', "-c shared_preload_libraries='' -c hot_standby=on -c max_worker_processes=16 -c wal_keep_size=512MB -c primary_conninfo='' -c port=$port", 'start')
	  or diag(`tail -5 $log`);
	if ($promote) { $server->('promote') or diag(`tail -5 $log`) }
	my ($socket) = map { /^socket_dir=(.*)/ ? $1 : () } do { local @ARGV = ("$dir/neon_dev.conf"); <> };
	my $out = '';
	IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$socket port=$port dbname=postgres user=postgres", '-c', $sql, '-c', 'CHECKPOINT' ],
		'>', \$out, '2>&1');
	$server->('-m', 'fast', 'stop');
	chomp $out;
	return $out;
}

sub spare { system('cp', '-a', '--sparse=always', "$dir/$P", "$dir/$_[0]") == 0 or die 'cp'; return }

# A stopped copy takes the place of what is there now.
sub replace
{
	my ($copy, $away) = @_;
	rename "$dir/$P", "$dir/$away" or die $!;
	rename "$dir/$copy", "$dir/$P" or die $!;
	return;
}

sub take_over
{
	my ($log) = @_;
	my ($word) = $log =~ /write the word (\w+) into/ or return 0;
	open my $fh, '>', "$dir/$P/page_service_takeover" or die $!;
	print $fh "$word\n";
	close $fh;
	return 1;
}

$c->sql(q{CREATE TABLE t AS SELECT g AS id, 'right'::text AS v, repeat('f', 300) AS f FROM generate_series(1, 20000) g});
$c->sql('VACUUM FREEZE');
$c->evict;
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 4 * 1024 * 1024, 'the table is large');

# ---- who it is

my $s = status(0);
is($s->{identity}, 'joined', 'a page server has joined');
like($s->{member}, qr/^[0-9a-f]{32}$/, 'it has a name of its own');
isnt($s->{member}, status(1)->{member}, 'another one than the other page server');
is($s->{birth}, $c->sql('SELECT birth FROM neon_comm.identity'), 'it follows this compute');
is($s->{incarnation}, $c->sql('SELECT incarnation FROM neon_comm.identity'), 'this start of it');
cmp_ok(NeonComm::Pagestream::lsn_number($s->{judged_lsn}), '>=', NeonComm::Pagestream::lsn_number($s->{replay_lsn}),
	'all that was replayed was judged');

# ---- readers

my ($spc, $db, $rel) = split /\|/, $c->sql(q{SELECT 1663, oid, pg_relation_filenode('t') FROM pg_database WHERE datname = current_database()});
my ($tenant, $timeline) = map { $c->sql("SHOW neon_comm.$_") } 'tenant_id', 'timeline_id';

sub reader
{
	my ($identity) = @_;
	my $client = NeonComm::Pagestream->new(port => $c->page_server_port(0),
		defined $identity ? (options => "-c neon_comm_identity=$identity") : ());
	return $client->stream(tenant => $tenant, timeline => $timeline);
}
my $ask = sub { return $_[0]->ask('nblocks', rel => [ $spc, $db, $rel ], nms => 1) };

is($ask->(reader())->{tag}, 101, 'a client without a name is served');
is($ask->(reader("$s->{birth}.$s->{incarnation}"))->{tag}, 101, 'the present start of the compute is served');
like($ask->(reader('1' x 32 . ".$s->{incarnation}"))->{error}, qr/^parted: .*another compute/, 'another birth is told so');
my $unknown = reader("$s->{birth}." . '2' x 32);
$unknown->send_request('nblocks', rel => [ $spc, $db, $rel ], nms => 1);
ok(!$unknown->readable(1), 'a start that has not been joined waits');
$unknown->close;
my $bad = NeonComm::Pagestream->new(port => $c->page_server_port(0), options => '-c neon_comm_identity=x');
like(NeonComm::Pagestream::error_of(@{ $bad->{greeting} })->{M}, qr/malformed neon_comm_identity/, 'nonsense does not get in');
my $old = reader("$s->{birth}.$s->{incarnation}");
$c->restart('compute');
ok(status_is(0, sub { $_[0]{incarnation} ne $s->{incarnation} && $_[0]{identity} eq 'joined' }), 'the next start of the compute is joined');
like($ask->($old)->{error}, qr/^parted: .*later start/, 'the one before is overtaken');
is($c->sql($rows), 'right|20000', 'the compute reads');

# ---- promotion is refused before anything has happened

my $from = length $c->log_text($P);
isnt(system('pg_ctl', '-s', '-w', '-t', 5, '-D', "$dir/$P", 'promote'), 0, 'a page server is not promoted');
ok($c->wait_log($P, qr/FATAL:  a page server cannot be promoted.*Nothing has been changed/s, $from), 'it says so');
ok($c->wait_log($P, qr/database system is shut down/, $from), 'and stops');
ok(!-e "$dir/$P/pg_wal/00000002.history", 'there is no second timeline');
$c->start('page-server', 0);
is($c->sql($rows), 'right|20000', 'started again it goes on');

# ---- promoted all the same, and put back

# who goes on while a page server is away: asked once before, so that nothing of the catalogs is missing
my $w = $c->session;
my $write = q{SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 1000000))) FROM generate_series(1, 10)};
my $state = q{SELECT state FROM neon_comm.page_servers WHERE name = 'page_server_0'};
my $end = 'SELECT pg_current_wal_flush_lsn()';
$w->query($_) foreach $write, $state, $end, "SET statement_timeout = '120s'";

$c->stop('page-server', 0);
spare($_) foreach 'spare1', 'spare2', 'spare3';
is(alone("$dir/$P", 1, q{UPDATE t SET v = 'WRONG' WHERE id <= 10000}), '', 'promoted, and changed');
open my $signal, '>', "$dir/$P/standby.signal" or die $!;
close $signal;
start_fails(qr/FATAL:  this page server was promoted.*timeline 2.*timeline 1.*Keep this directory/s, 'promoted');
like(do { local (@ARGV, $/) = "$dir/$P/page_service_identity"; <> }, qr/^promoted$/m, 'promoted: for good');
$w->query($write);
my $lsn = NeonComm::Pagestream::lsn_number($w->query($end));
ok(status_is(1, sub { NeonComm::Pagestream::lsn_number($_[0]{replay_lsn}) >= $lsn }), 'the other page server goes on');
start_fails(qr/was promoted/, 'promoted, when the compute has passed it');

# ---- a copy takes its place

my $member = do { local (@ARGV, $/) = "$dir/spare1/page_service_identity"; <> =~ /member (\w+)/ ? $1 : '' };
replace('spare1', 'promoted');
my $log = start_fails(qr/FATAL:  this directory is a copy of a page server, or was moved.*page_service_takeover/s, 'a copy');
ok(take_over($log), 'a copy: the log says how it may start');
$c->start('page-server', 0);
is($c->sql($rows), 'right|20000', 'a copy that was allowed to takes the place');
isnt(status(0)->{member}, $member, 'as a page server of its own');
ok(!-e "$dir/$P/page_service_takeover", 'and the permission is used up');

# ---- a copy beside the original

my $beside = "$dir/spare2";
my $err = `pg_ctl -s -w -t 20 -D $beside -l $dir/beside.log start 2>&1; cat $dir/beside.log`;
like($err, qr/this directory is a copy of a page server, or was moved/, 'a copy beside the original does not start');
is($c->sql($rows), 'right|20000', 'the original goes on');

# ---- a server of its own for a while, on the same timeline

# the start of the compute that it knows is over
$w->close;
$c->restart('compute');
is($c->sql($rows), 'right|20000', 'the compute is started once more');
$w = $c->session;
$w->query($_) foreach $write, $state, $end, "SET statement_timeout = '120s'";
$c->stop('page-server', 0);
rename "$dir/$P", "$dir/good" or die $!;
rename "$dir/spare2", "$dir/$P" or die $!;
unlink "$dir/$P/standby.signal";
is(alone("$dir/$P", 0, q{UPDATE t SET v = 'WRONG' WHERE id <= 10000; UPDATE t SET f = f || 'x'; UPDATE t SET f = f || 'x'}), '', 'a server of its own, and changed');
open $signal, '>', "$dir/$P/standby.signal" or die $!;
close $signal;
start_fails(qr/was promoted, or started as a server of its own/, 'a server of its own for a while');

# ---- its WAL is copied into another page server

my @foreign = glob("$dir/$P/pg_wal/00000001" . '[0-9A-F]' x 16);
rename "$dir/$P", "$dir/own" or die $!;
s/\Q$P\E/own/ foreach @foreign;
rename "$dir/spare3", "$dir/$P" or die $!;
$log = start_fails(qr/is a copy/, 'another copy');
take_over($log);
system('cp', '-p', @foreign, "$dir/$P/pg_wal/") == 0 or die;
$from = length $c->log_text($P);
$c->start('page-server', 0);
ok($c->wait_log($P, qr/parted/, $from), 'WAL of another history in pg_wal: the page server says that it has parted');
ok(status_is(0, sub { $_[0]{identity} eq 'refused' && $_[0]{identity_reason} =~ /parted/ }), 'and so does its status');
my ($out, $error) = $w->try($rows);
unlike($out, qr/WRONG/, 'no row of the other history is read');
like($error, qr/parted/, 'the reader is told');
like($ask->(reader())->{error}, qr/^parted: /, 'and so is a client without a name');
$w->query($write) foreach 1 .. 4;
($out, $error) = $w->try($rows);
unlike($out, qr/WRONG/, 'nor when the compute has passed it');
foreach (1 .. 600) { last if $w->query($state) eq 'parted'; usleep(100_000) }
is($w->query($state), 'parted', 'the compute knows it');

$c->stop('page-server', 0);
replace('good', 'foreign');
$c->start('page-server', 0);
is($c->sql($rows), 'right|20000', 'the right one goes on');

# ---- primary_conninfo leads to something else

my ($port) = map { /^compute_port=(\d+)/ ? $1 : () } do { local @ARGV = ("$dir/neon_dev.conf"); <> };
my ($conninfo) = map { /^primary_conninfo = '(.*)'/ ? $1 : () }
  do { local @ARGV = ("$dir/$P/postgresql.conf", glob("$dir/$P/postgresql.auto.conf")); <> };
ok($conninfo, 'where the feed is');
(my $elsewhere = $conninfo) =~ s/port=\d+/port=$port/;
my $conf = -s "$dir/compute/pg_hba.conf";
open my $hba, '>>', "$dir/compute/pg_hba.conf" or die $!;
print $hba "host replication all 127.0.0.1/32 trust\n";
close $hba;
$c->sql('SELECT pg_reload_conf()');
$from = length $c->log_text($P);
$c->configure({ primary_conninfo => $elsewhere }, part => $P);
ok($c->wait_log($P, qr/primary_conninfo of this page server does not lead to the WAL feed of a compute.*wal_feed_port/s, $from),
	'the walsender is no WAL feed, and it is said what to do');
is($c->sql($rows), 'right|20000', 'what was judged is served');
$c->configure({ primary_conninfo => $conninfo }, part => $P);
$c->sql(q{UPDATE t SET v = 'new' WHERE id <= 10000});
$c->evict;
is($c->sql("$rows ORDER BY v"), "new|10000\nright|10000", 'with the right address it goes on');

$c->append_conf($P, 'neon_page_service.allow_any_primary = on');
$c->stop('page-server', 0);
start_fails(qr/a page server that has followed a compute follows nothing else/, 'allow_any_primary');
$c->append_conf($P, 'neon_page_service.allow_any_primary = off');
$c->start('page-server', 0);
is($c->sql("$rows ORDER BY v"), "new|10000\nright|10000", 'and goes on without it');

# ---- WAL of others reaches one that has joined, while nobody streams

$lsn = NeonComm::Pagestream::lsn_number($c->sql('SELECT pg_current_wal_flush_lsn()'));
ok(status_is(0, sub { NeonComm::Pagestream::lsn_number($_[0]{replay_lsn}) >= $lsn }), 'all of the compute is replayed');
$c->stop('compute');
spare('own2');
unlink "$dir/own2/postmaster.pid", "$dir/own2/standby.signal";
is(alone("$dir/own2", 0, q{UPDATE t SET v = 'WRONG'; SELECT pg_switch_wal() IS NULL}, $port), 'f', 'a copy goes on from there');
foreach my $file (glob("$dir/own2/pg_wal/00000001" . '[0-9A-F]' x 16))
{
	system('cp', $file, "$dir/$P/pg_wal/") == 0 or die;
}
ok(status_is(0, sub { NeonComm::Pagestream::lsn_number($_[0]{replay_lsn}) > NeonComm::Pagestream::lsn_number($_[0]{judged_lsn}) }),
	'what the copy wrote is replayed');
ok(-e "$dir/$P/page_service_unjudged", 'which is written down');
my $client = reader();
$client->send_request('nblocks', rel => [ $spc, $db, $rel ], nms => 1);
ok(!$client->readable(2), 'and nothing is served from then on');
$client->close;

$c->check_logs;
done_testing();
