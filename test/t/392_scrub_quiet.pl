# On a cluster whose page servers have the same, the comparison that goes on all the time finds nothing, whatever
# others do to relations: pgbench, truncations, rewrites, databases that come and go, aborts. It is in nobody's way,
# DROP DATABASE and CREATE DATABASE among them, stops with its rate, and is there again after its process was ended.
use strict;
use warnings;

use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 2, init => [ '--hosts', 2 ], buffers => '16MB', autovacuum => 'on',
	conf => [ 'neon_comm.sweep_interval=200ms', 'autovacuum_naptime=1s', 'neon_comm.scrub_rate=20000' ]);

sub rounds_more
{
	my ($n, $what) = @_;
	my $now = $c->sql('SELECT rounds FROM neon_comm.scrub');
	ok($c->wait_for("SELECT rounds >= $now + $n FROM neon_comm.scrub"), $what) or diag($c->sql('SELECT * FROM neon_comm.scrub'));
	return;
}
sub finds_nothing
{
	my ($what) = @_;
	is($c->sql('SELECT found, unconfirmed FROM neon_comm.scrub'), '0|0', $what)
	  or diag($c->sql('SELECT * FROM neon_comm.scrub_findings'), substr($c->log_text('compute'), -3000));
	return;
}

is(($c->pgbench('-i', '-q', '-s', 2))[0], 0, 'pgbench has its tables');
my $said = '';
my $load = $c->background(\$said, 'pgbench', '-n', '-c', '2', '-R', '60', '-T', 100_000, $c->conninfo . ' dbname=postgres');
rounds_more(1, 'a round under load');
finds_nothing('without a finding');

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 300) AS x FROM generate_series(1, 3000) g; CREATE INDEX ON t (id); CREATE TABLE k (id int)});
my $began = $c->sql('SELECT rounds FROM neon_comm.scrub');
for (my $i = 0; $i < 3 || $c->sql('SELECT rounds FROM neon_comm.scrub') < $began + 1; $i++)
{
	$c->sql(q{TRUNCATE k; INSERT INTO k SELECT g FROM generate_series(1, 20000) g; DELETE FROM k WHERE id > 100});
	$c->sql('VACUUM k');
	$c->sql('REINDEX TABLE t');
	$c->sql('VACUUM FULL t');
	$c->sql('BEGIN; CREATE TABLE n AS SELECT * FROM t; CREATE INDEX ON n (id); ROLLBACK');
	$c->sql('DROP TABLE IF EXISTS d');
	$c->sql('CREATE TABLE d AS SELECT * FROM t');
	$c->sql('CREATE INDEX ON d USING gist (point(id, id))');
	$c->sql("CREATE DATABASE other STRATEGY @{[ $i % 2 ? 'file_copy' : 'wal_log' ]}");
	$c->sql('DROP DATABASE other');
	last if $i > 60;
}
rounds_more(1, 'rounds while relations come and go');
finds_nothing('nor then');

# ---- its process
my $pid = $c->sql('SELECT pid FROM neon_comm.scrub');
is(kill('TERM', $pid), 1, 'its process is ended');
ok($c->wait_for("SELECT pid <> $pid AND state = 'running' FROM neon_comm.scrub"), 'and there again');
$c->configure({ 'neon_comm.scrub_rate' => 1 });
ok($c->wait_for(q{SELECT setting = '1' FROM pg_settings WHERE name = 'neon_comm.scrub_rate'}), 'a low rate');
$c->configure({ 'neon_comm.scrub_rate' => 0 });
ok($c->wait_for(q{SELECT state = 'off' FROM neon_comm.scrub}), 'off');
$load->kill_kill;
$c->stop('compute');
$c->start('compute');
is($c->sql('SELECT state FROM neon_comm.scrub'), 'off', 'off after a start');
$c->check_logs;
done_testing();
