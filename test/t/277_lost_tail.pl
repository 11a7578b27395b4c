# A page server that has lost the end of its WAL but not of its pages (a machine that broke down, a pg_wal
# that was restored from an earlier copy): less of the same is no other history. It joins and receives
# what is missing again; only where WAL that nobody had agreed to was replayed before, it is refused until
# its WAL is back. Neither side remembers anything as parted.
#
# Seen to fail without: the end of pages may be a later one than that of the record (65_less_is_another), the file
# that says that something was never judged (65_tail_of_others).
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => ['neon_comm.request_timeout=60s'],
	ps_conf => [ 'shared_buffers=1MB', 'checkpoint_timeout=1h', 'max_wal_size=1GB' ]);
# what is said while its page server refuses itself
$c->allow_log(qr/could not read block .* from its page server: .*: parted: /);
my $dir = $c->{dir};
my $P = 'page_server_0';
my $rows = 'SELECT v, count(*) FROM t GROUP BY v';

sub lines { my ($file) = @_; open my $fh, '<', "$dir/$file" or return; my @l = <$fh>; chomp @l; return @l }
sub keep { system('cp', '-a', "$dir/$P/pg_wal", "$dir/$_[0]") == 0 or die 'cp'; return }

sub put_wal
{
	system("rm -rf $dir/$P/pg_wal && cp -a $dir/$_[0] $dir/$P/pg_wal") == 0 or die;
	return;
}

sub replayed { return $c->wait_for(q{SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers}) }

$c->sql(q{CREATE TABLE t AS SELECT g AS id, 'old'::text AS v, repeat('f', 300) AS f FROM generate_series(1, 10000) g});
ok(replayed(), 'a table is replayed');
$c->stop('page-server', 0);
keep('earlier');
$c->start('page-server', 0);
$c->sql(q{UPDATE t SET v = 'new'});
ok(replayed(), 'and a change of all of it, in buffers that do not hold it');
ok(!-e "$dir/$P/page_service_unjudged", 'all of it was agreed on');
$c->kill9('page-server', 0);
keep('later');

# ---- something was replayed that nobody had agreed to

put_wal('earlier');
open my $fh, '>', "$dir/$P/page_service_unjudged" or die $!;
close $fh;
my $from = length $c->log_text($P);
$c->start('page-server', 0);
ok($c->wait_log($P, qr/LOG:.*the end of WAL was lost here.*this page server has lost the end of its WAL, and some of what it replayed/s, $from),
	'pages of unknown WAL: it refuses, and says what is missing');
my ($rc, $out, $err) = $c->try_sql($rows);
isnt($rc, 0, 'nothing is served from it') or diag($out);
$c->kill9('page-server', 0);
put_wal('later');
$c->start('page-server', 0);
is($c->sql($rows), 'new|10000', 'with its WAL it is served from');
ok(!-e "$dir/$P/page_service_unjudged", 'and has been agreed on');

# ---- all that was replayed had been agreed on

$c->kill9('page-server', 0);
put_wal('earlier');
$from = length $c->log_text($P);
$c->start('page-server', 0);
is($c->sql($rows), 'new|10000', 'pages of agreed WAL: it joins, receives what it lost, and answers');
ok($c->wait_log($P, qr/the end of WAL was lost here/, $from), 'it says what it has lost');
is((grep { /^parted/ } lines('compute/compute_identity')), 0, 'the compute has not parted from it');
is((grep { /^refused/ } lines("$P/page_service_identity")), 0, 'nor it from the compute');
$c->sql(q{UPDATE t SET v = 'newer'});
$c->evict;
is($c->sql($rows), 'newer|10000', 'and it goes on');

# ---- and it was started again and again before it could join

my $unjudged = "$dir/$P/page_service_unjudged";

my ($conninfo) = map { /^(primary_conninfo = .*)/ ? $1 : () }
  do { local @ARGV = glob("$dir/$P/postgresql*.conf"); <> };

# A start that reaches no compute: all that is left is replayed, and cannot be compared.
sub start_alone
{
	my $from = length $c->log_text($P);
	$c->append_conf($P, "primary_conninfo = 'host=127.0.0.1 port=1'");
	$c->start('page-server', 0);
	ok($c->wait_log($P, qr/could not connect to the primary server/, $from), 'a start that reaches no compute');
	like(join("\n", lines("$P/page_service_unjudged")), qr/\Aneon_page_service unjudged 1\nlast [0-9A-F]+\/[0-9A-F]+ [0-9a-f]{48}\z/,
		'the last record that was replayed is written down');
	$c->kill9('page-server', 0);
	$c->append_conf($P, $conninfo);
	return;
}

$c->kill9('page-server', 0);
keep('short');
$c->start('page-server', 0);
$c->sql(q{UPDATE t SET v = 'middle'});
ok(replayed(), 'a change');
$c->kill9('page-server', 0);
keep('middle');
$c->start('page-server', 0);
$c->sql(q{UPDATE t SET v = 'long'});
ok(replayed(), 'and another one');
ok(!-e $unjudged, 'all of it was agreed on');
$c->kill9('page-server', 0);

put_wal('middle');
start_alone();
start_alone();
$from = length $c->log_text($P);
$c->start('page-server', 0);
is($c->sql($rows), 'long|10000', 'it joins, receives what it lost, and answers');
ok($c->wait_log($P, qr/the end of WAL was lost here/, $from), 'it had lost something');
ok(!-e $unjudged, 'all of it has been agreed on');

# ---- but what was replayed then is not in its WAL any more

ok(replayed(), 'all there is');
$c->kill9('page-server', 0);
keep('longest');
put_wal('middle');
start_alone();
put_wal('short');
$from = length $c->log_text($P);
$c->start('page-server', 0);
ok($c->wait_log($P, qr/this page server has lost the end of its WAL, and some of what it replayed/, $from),
	'a start after which the last record is another one: it refuses');
is(-s $unjudged, 0, 'and does not forget that');
($rc, $out, $err) = $c->try_sql($rows);
isnt($rc, 0, 'nothing is served from it') or diag($out);
$c->kill9('page-server', 0);
put_wal('longest');
$c->start('page-server', 0);
is($c->sql($rows), 'long|10000', 'with its WAL it is served from');

$c->check_logs;
done_testing();
