# Pages written by the checkpointer and by the background writer while the
# owner of their tuples sits at each place of the ProcArray.  Processes without
# a database skip the first entry when they ask PostgreSQL whether a
# transaction is in progress, so "live" must be judged by an own horizon (rules
# command_id, own_horizon).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	conf => [ 'bgwriter_delay=10ms', 'bgwriter_lru_maxpages=1000', 'bgwriter_lru_multiplier=10' ]);

$c->sql(q{CREATE TABLE t (owner int, v int, filler text);});
# The ProcArray is sorted by process slot, and slots are given out from the
# last: what checkpoints and evicts must be connected first, and nobody later
# than the owners, or the first place would never be an owner's.
my $ctl = $c->session;
$ctl->query(q{CREATE TABLE ev AS SELECT g, repeat('x', 900) AS filler FROM generate_series(1, 4000) g});
my $evict = 'SELECT count(*) FROM ev; SELECT count(*) FROM ev WHERE g % 2 = 0; UPDATE ev SET g = g WHERE g % 40 = 0;';
my @sessions = map { $c->session } 1 .. 6;

foreach my $way ('checkpointer', 'bgwriter')
{
	foreach my $i (0 .. $#sessions)
	{
		my $s = $sessions[$i];
		$s->query("BEGIN;
			INSERT INTO t SELECT $i, 0, repeat('a', 500) FROM generate_series(1, 200);
			INSERT INTO t SELECT $i, 0, repeat('b', 500) FROM generate_series(1, 200);
			DECLARE k CURSOR FOR SELECT count(*), sum(v) FROM t WHERE owner = $i;
			UPDATE t SET v = 1 WHERE owner = $i;
			INSERT INTO t SELECT $i, 9, repeat('c', 500) FROM generate_series(1, 200);");
		# a later transaction ends: PostgreSQL takes an xid after the last one that
		# ended for running without looking at the ProcArray
		$ctl->query('SELECT txid_current()');
		$ctl->query('CHECKPOINT') if $way eq 'checkpointer';
		$ctl->query($evict);
		is($s->query('FETCH k'), '400|0', "$way, owner $i: its cursor sees what it should");
		is($s->query("SELECT count(*), sum(v) FROM t WHERE owner = $i"),
			'600|2200', "$way, owner $i: and itself everything");
		$s->query($i % 2 ? 'COMMIT' : 'ROLLBACK');
	}
	# all at once
	foreach my $i (0 .. $#sessions)
	{
		$sessions[$i]->query("BEGIN;
			INSERT INTO t SELECT 100 + $i, 0, repeat('d', 500) FROM generate_series(1, 50);
			INSERT INTO t SELECT 100 + $i, 0, repeat('d', 500) FROM generate_series(1, 50);
			DECLARE k CURSOR FOR SELECT count(*), sum(v) FROM t WHERE owner = 100 + $i;
			UPDATE t SET v = 1 WHERE owner = 100 + $i;");
	}
	$ctl->query('SELECT txid_current()');
	$ctl->query('CHECKPOINT');
	$ctl->query($evict);
	is($sessions[$_]->query('FETCH k'), '100|0', "$way, all open: cursor of $_") foreach 0 .. $#sessions;
	$_->query('ROLLBACK') foreach @sessions;
	$ctl->query('TRUNCATE t');
}
$_->close foreach $ctl, @sessions;
$c->check_logs;
done_testing();
