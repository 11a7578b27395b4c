# The comparison of page servers that goes on all the time (neon_comm.scrub_rate) finds what was changed on one
# page server and names it: in the log, in its view, in the metrics. What only looks wrong for a while, because
# somebody who drops a relation waits to be confirmed, is not told. A page server that is away is waited for.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Http qw(metrics);
use NeonComm::Node qw(free_port);
use Test::More;

my $port = free_port();
my $c = NeonComm::Cluster->new(shards => 2, init => [ '--hosts', 2 ], buffers => '16MB',
	conf => [ "neon_comm.metrics_port=$port", 'neon_comm.sweep_interval=200ms',
		'synchronous_standby_names=nobody_there', 'synchronous_commit=local' ]);

sub scrub { my ($what) = @_; return $c->sql("SELECT $what FROM neon_comm.scrub") }
sub rounds_more
{
	my ($n, $what) = @_;
	my $now = scrub('rounds');
	ok($c->wait_for("SELECT rounds >= $now + $n FROM neon_comm.scrub"), $what) or diag(scrub('scrub'));
	return;
}

# ---- off
is(scrub(q{state || coalesce(pid::text, '-')}), 'off-', 'off unless it is asked for');
is($c->sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'neon_comm scrub%'}), 0, 'and no process');

$c->sql(q{CREATE TABLE t (id int PRIMARY KEY, x text); INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 2000) g;
	CREATE SEQUENCE s; SELECT nextval('s'); CREATE UNLOGGED TABLE u AS SELECT 1; CREATE TABLE empty (i int);
	CREATE TABLE gone AS SELECT * FROM t; CREATE DATABASE more});
$c->sql(q{CREATE TABLE "in More" AS SELECT g FROM generate_series(1, 1000) g; CHECKPOINT}, db => 'more');

# ---- a round
$c->configure({ 'neon_comm.scrub_rate' => 100_000 });
rounds_more(1, 'it goes around');
is(scrub('state'), 'running', 'it runs');
cmp_ok(scrub('compared'), '>', 1000, 'blocks were compared');
is(scrub(q{concat_ws(' ', found, unconfirmed)}), '0 0', 'all the same');

# ---- dropped, everywhere but in the files of the compute, for who waits to be confirmed
my $files = $c->sql(q{SELECT pg_relation_filenode('gone')});
my $drop = $c->session;
$drop->query(q{SET synchronous_commit = on});
$drop->send('DROP TABLE gone');
ok($c->wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'}), 'a relation that is dropped, unconfirmed');
my $end = $c->sql('SELECT pg_current_wal_flush_lsn()');
ok($c->wait_for("SELECT bool_and(apply_lsn >= '$end') FROM neon_comm.page_servers"), 'page servers have dropped it');
rounds_more(2, 'it is passed');
ok(-s "$c->{dir}/compute/base/" . $c->sql(q{SELECT oid FROM pg_database WHERE datname = 'postgres'}) . "/$files", 'while its file was there');
is(scrub(q{concat_ws(' ', found, unconfirmed)}), '0 0', 'and nothing is told');
is($c->sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}), 't', 'who dropped it waits no more');
$drop->wait;

# ---- changed by hand
my %path = (map({ ($_ => $c->sql("SELECT pg_relation_filepath('$_')")) } qw(t t_pkey empty)),
	more => $c->sql(q{SELECT pg_relation_filepath('"in More"')}, db => 'more'));
sub change
{
	my ($table, $at, $bytes) = @_;
	open my $file, '+<:raw', "$c->{dir}/page_server_1/$path{$table}" or die "$path{$table}: $!";
	seek $file, $at, 0 or die $!;
	print $file $bytes;
	close $file or die $!;
	return;
}
$end = $c->sql('CHECKPOINT; SELECT pg_current_wal_flush_lsn()');
ok($c->wait_for("SELECT bool_and(apply_lsn >= '$end') FROM neon_comm.page_servers"), 'page servers have replayed a checkpoint');
$c->stop('page-server', 1);
ok($c->wait_for(q{SELECT state = 'page server away' AND problem <> '' FROM neon_comm.scrub}), 'a page server that is away is told');
my ($p0, $p1) = map { '127.0.0.1:' . $c->page_server_port($_) } 0, 1;
like(scrub('problem'), qr/^page server \Q$p1\E: /, 'which one');
change('t', 5 * 8192 + 8100, 'changed');
change('t', 7 * 8192, "\0" x 8192);
change('t', 9 * 8192 + 10, "\xff\xff");
change('t_pkey', 8192 + 8000, 'changed');
change('more', 2 * 8192 + 8000, 'changed');
change('empty', 0, "\0" x 8192);
$c->start('page-server', 1);
$c->allow_log(qr/invalid page in block|page servers do not have the same/);
rounds_more(3, 'it goes on');

my $both = "(?:\Q$p0, $p1\E|\Q$p1, $p0\E)";
my $found = $c->sql(q{SELECT string_agg(concat_ws(' ', database, relation, fork, coalesce(block::text, '-'), state, page_server, what), e'\n'
	ORDER BY relation, block) FROM neon_comm.scrub_findings});
like($found, qr/^postgres public\.t main 5 differs $both from byte 8100 on; LSNs (\S+) and \1, CRCs [0-9a-f]{8} and [0-9a-f]{8}$/m, 'changed');
like($found, qr/^postgres public\.t main 7 missing \Q$p1\E it is empty, and the block has been logged$/m, 'lost');
like($found, qr/^postgres public\.t main 9 damaged \Q$p1\E Read error: invalid page in block 9/m, 'not to be read');
like($found, qr/^postgres public\.t_pkey main 1 differs $both from byte 8000 on/m, 'in an index');
like($found, qr/^postgres public\.empty main - longer \Q$p1\E 1 blocks there, 0 here$/m, 'too long');
like($found, qr/^more public\."in More" main 2 differs $both/m, 'in another database');
is(scalar(() = $found =~ /\n/g) + 1, 6, 'and nothing else') or diag($found);
cmp_ok($c->sql('SELECT min(times) FROM neon_comm.scrub_findings WHERE last_found > first_found'), '>', 1, 'found again, told once');

my $log = $c->log_text('compute');
like($log, qr/WARNING:  page servers do not have the same: database "postgres", relation public\.t, main fork block 5: differs$/m, 'the log says it');
like($log, qr/DETAIL:  Relation \d+\/\d+\/\d+, page server $both: from byte 8100 on; LSNs /, 'who has what');
my $m = metrics($port);
cmp_ok($m->{neon_comm_scrub_found_total}, '>=', 6, 'the metrics count it');
cmp_ok($m->{neon_comm_scrub_rounds_total}, '>=', 2, 'and rounds');
cmp_ok($m->{neon_comm_scrub_blocks_total}, '>', 1000, 'and blocks');
is($c->sql(q{SET ROLE pg_monitor; SELECT count(*) FROM neon_comm.scrub, neon_comm.scrub_findings}), 6, 'members of pg_monitor see it');

# ---- off again
$c->configure({ 'neon_comm.scrub_rate' => 0 });
ok($c->wait_for(q{SELECT state = 'off' AND pid IS NULL FROM neon_comm.scrub}), 'off');
$c->check_logs;
done_testing();
