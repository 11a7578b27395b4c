# The background writer alone writes pages whose tuples belong to a transaction
# that is open, its owner at each place of the ProcArray (rule own_horizon).
# 043_evictors.pl has backends and the checkpointer do so; here no checkpoint
# runs, and readers take buffers so slowly that the background writer is always
# ahead of them.  A test point counts what it wrote of the table.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	conf => [ 'bgwriter_delay=10ms', 'bgwriter_lru_maxpages=1000', 'bgwriter_lru_multiplier=10',
		'checkpoint_timeout=1h', 'max_wal_size=4GB' ]);

# The ProcArray is sorted by process slot, and slots are given out from the
# last: who works while owners wait must be connected first, and nobody after
# the owners, or the first place would never be an owner's.
$c->sql(q{CREATE EXTENSION pg_buffercache;
	CREATE TABLE ev AS SELECT g, repeat('x', 900) AS filler FROM generate_series(1, 4000) g;
	CREATE INDEX ev_g ON ev (g); VACUUM (FREEZE, ANALYZE) ev;
	CREATE TABLE t (owner int, v int, filler text);});
my $ctl = $c->session;
my $p = NeonComm::TestPoint->new($c);
$ctl->query('SET enable_seqscan = off; SET enable_bitmapscan = off');
my $writer = $ctl->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
my @sessions = map { $c->session } 1 .. 5;
my $next = 0;

# Reads some pages that are not in shared buffers. Not a large scan: that would go round in its own ring.
sub read_some
{
	my ($n) = @_;
	foreach (1 .. $n)
	{
		$next = ($next + 8) % 4000;
		$ctl->query("SELECT count(filler) FROM ev WHERE g = $next + 1");
	}
	return;
}

foreach my $i (0 .. $#sessions)
{
	my $s = $sessions[$i];
	$s->query("BEGIN;
		INSERT INTO t SELECT $i, 0, repeat('a', 500) FROM generate_series(1, 100);
		INSERT INTO t SELECT $i, 0, repeat('b', 500) FROM generate_series(1, 100);
		DECLARE k CURSOR FOR SELECT count(*), sum(v) FROM t WHERE owner = $i;
		UPDATE t SET v = 1 WHERE owner = $i;
		INSERT INTO t SELECT $i, 9, repeat('c', 500) FROM generate_series(1, 100);");
	# a later transaction ends: PostgreSQL takes an xid after the last one that
	# ended for running without looking at the ProcArray
	$ctl->query('SELECT txid_current()');
	my $number = $ctl->query(q{SELECT pg_relation_filenode('t')});
	my $dirty = "SELECT count(*) FROM pg_buffercache WHERE relfilenode = $number AND relforknumber = 0 AND isdirty";

	$p->true('smgr-write', pid => $writer, rel => $number);
	my $rounds = 0;
	while ($ctl->query($dirty) > 0 && $rounds++ < 2000)
	{
		# let it have what readers would take next; a pace, not a condition
		usleep(2_000) for 1 .. ($ctl->query("$dirty AND usagecount = 0") > 0 ? 10 : 0);
		read_some(3);
	}
	is($ctl->query($dirty), 0, "owner $i: its pages are written");
	cmp_ok($p->hits('smgr-write'), '>', 0, "owner $i: by the background writer");
	my $in = "SELECT count(*) FROM pg_buffercache WHERE relfilenode = $number AND relforknumber = 0";
	$rounds = 0;
	read_some(20) while $ctl->query($in) > 0 && $rounds++ < 2000;
	is($ctl->query($in), 0, "owner $i: and not in shared buffers any more");
	is($s->query('FETCH k'), '200|0', "owner $i: its cursor sees what it should");
	is($s->query("SELECT count(*), sum(v) FROM t WHERE owner = $i"), '300|1100', "owner $i: and itself everything");
	$s->query($i % 2 ? 'COMMIT' : 'ROLLBACK');
	$ctl->query('TRUNCATE t');
}
$_->close foreach $ctl, @sessions;
$p->close;
$c->check_logs;
done_testing();
