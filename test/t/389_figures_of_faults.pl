# Figures of /metrics that only a test build can move, because they count what must not happen: a request that nobody
# has rung for, a page of the file cache that is taken for an old one, a lock of it that is not got, pages in recovery of a relation that page
# servers have dropped. Each is moved by a test point, and seen; the first is also the outage of the alarm
# NeonFoundLate, where Prometheus is installed (test/prometheus.sh).
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;
use NeonComm::Figures;
use NeonComm::Node qw(free_port until_true);
use NeonComm::Prometheus;

my ($port, $ps_port) = map { free_port() } 0 .. 1;
my $c = NeonComm::Cluster->new(shards => 1, no_start => 1,
	conf => [ "neon_comm.metrics_port=$port", 'neon_comm.lfc_size=8MB', 'neon_comm.sweep_interval=1h' ]);
$c->append_conf('page_server_0', "neon_page_service.metrics_port = $ps_port");
$c->start;
my $p = NeonComm::TestPoint->new($c);
my $f = NeonComm::Figures->new('neon_comm');
my $rows = 'SELECT count(*), sum(id) FROM t';
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('t', 400) AS f FROM generate_series(1, 4000) g; VACUUM t; CHECKPOINT});
$f->begin($port);

# ---- taken for old

$c->into_cache($rows);
$c->evict;
my $s = $c->session;
$s->query('SELECT 1');
$p->true('lfc-stale', pid => $s->pid, times => 3);
is($s->query($rows), '4000|8002000', 'rows are right when the file cache has old pages');
$f->moves('old pages in the file cache', 'lfc_stale');

# the cache's writer looks once a second, and counts what is in the index (test/unit/test_lfc_index.c)
$p->true('lfc-given-up', times => 1);
$f->moves('a lock of the file cache that was not got', 'lfc_given_up');

# ---- pages of a dropped table in recovery

my $rel = $c->sql(q{CREATE TABLE d AS SELECT g AS id, repeat('d', 300) AS f FROM generate_series(1, 5000) g; SELECT pg_relation_filenode('d')});
$s->query('CHECKPOINT; UPDATE d SET f = f; UPDATE d SET f = f');
$p->pause('smgr-unlink', rel => $rel);
$s->send('DROP TABLE d');
$p->wait('smgr-unlink');
ok($c->wait_for('SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) FROM neon_comm.page_servers'), 'page servers have dropped it');
$c->kill9('compute');
undef $s;
undef $p;
$c->start('compute');
$f->moves('recovery of a table that page servers have dropped', 'reads_zero_recovery');
$p = NeonComm::TestPoint->new($c);

# ---- nobody has rung

sub unrung
{
	my $late = $c->session;
	$late->query('SELECT 1');
	$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf()');
	ok($c->wait_for(q{SELECT limit_bytes = 0 FROM neon_comm.lfc}), 'nothing comes from the file cache');
	$c->evict;
	$late->query("SELECT count(*) FROM t WHERE ctid = '(0,1)'");
	$p->true('client-no-ring', pid => $late->pid, times => 1);
	is($late->query($rows), '4000|8002000', 'a request that nobody has rung for gets its page');
	$late->close;
	return;
}
$c->allow_log(qr/found_late|was terminated by signal 9/);
SKIP:
{
	if (!NeonComm::Prometheus::available())
	{
		unrung();
		skip 'prometheus is not installed, see scripts/prometheus', 1;
	}
	my $prom = NeonComm::Prometheus->new("$c->{dir}/prometheus", factor => 20, neon_comm => [$port], neon_page_service => [$ps_port]);
	# the counter begins again with the server
	$prom->outage('NeonFoundLate', \&unrung, sub { $f->look('a request that nobody has rung for'); $c->restart('compute') });
	$prom->stop;
}
$f->moves('a request that nobody has rung for', 'found_late');
$f->judge(only => \@NeonComm::Figures::BY_TEST_POINTS);
$c->check_logs;
done_testing();
