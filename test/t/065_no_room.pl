# No room for pages that must stay on the compute: no disk space, by a test
# point and by a real limit; and a full index of local blocks (rule
# local_reserve).  It is a clear error for whoever needs the room, the server
# and its checkpointer go on when there is room again, and nothing is lost.
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	conf => [ 'neon_comm.local_index_chunks=1024', 'neon_comm.sweep_interval=1h', 'checkpoint_timeout=1h',
		'bgwriter_lru_maxpages=0' ]);
my $p = NeonComm::TestPoint->new($c);

$c->sql(q{CREATE TABLE keep AS SELECT g AS id, repeat('k', 400) AS f FROM generate_series(1, 8000) g;
	CREATE TABLE d (id int, v int, f text);});
my $kept = q{SELECT count(*), sum(id) FROM keep WHERE f = repeat('k', 400)};
my $checkpointer = $c->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});
my $reader = $c->session;
# It asks for checkpoints as well: a new process reads catalogs, for which it would have to write such pages itself.
$reader->query($_) foreach $kept, 'SELECT 1 + 1', 'CHECKPOINT';

# A transaction whose pages, still in memory, must be kept.
sub open_transaction
{
	my $s = $c->session;
	$s->query(q{BEGIN; INSERT INTO d SELECT g, 0, repeat('d', 400) FROM generate_series(1, 400) g;
		INSERT INTO d SELECT g, 0, repeat('d', 400) FROM generate_series(401, 800) g;
		DECLARE k CURSOR FOR SELECT count(*), sum(v) FROM d; UPDATE d SET v = 1});
	return $s;
}

sub finish_transaction
{
	my ($s, $what) = @_;
	is($s->query('FETCH k'), '800|0', "$what: a cursor of the transaction sees what it should");
	$s->query('COMMIT');
	is($c->sql('SELECT count(*), sum(v), sum(id) FROM d'), '800|800|320400', "$what: and it can commit");
	is($c->sql($kept), '8000|32004000', "$what: other tables are as they were");
	$s->close;
	$c->sql('TRUNCATE d');
	return;
}

# ---- no space, by a test point
my $s = open_transaction();
my $from = length $c->log_text('compute');
$p->fail('smgr-keep-write', 'ENOSPC');
my ($out, $err) = $reader->try('CHECKPOINT');
like($err, qr/checkpoint request failed/, 'no space: a checkpoint fails');
like(substr($c->log_text('compute'), $from), qr/No space left on device/, 'no space: the log says why');
($out, $err) = $reader->try($kept);
like("$out$err", qr/^8000\|32004000$|No space left on device/, 'no space: a reader gets rows or the reason');
is($reader->query('SELECT 1 + 1'), 2, 'no space: the server lives');
$p->disarm_all;
$c->sql('CHECKPOINT');
pass('no space: a checkpoint succeeds when there is space again');
finish_transaction($s, 'no space');

# ---- no space, by a limit on file sizes, which is above what WAL needs
SKIP:
{
	skip 'prlimit is not installed', 7 if system('prlimit --version >/dev/null 2>&1') != 0;
	my $limit = 17 * 1024 * 1024;
	$c->sql(q{CREATE TABLE big AS SELECT g AS id, 0 AS v, repeat('b', 900) AS f FROM generate_series(1, 20000) g});
	cmp_ok($c->sql(q{SELECT pg_relation_size('big')}), '>', $limit, 'limit: the table is larger');
	$s = $c->session;
	$s->query(q{BEGIN; INSERT INTO big SELECT -g, 0, repeat('B', 900) FROM generate_series(1, 100) g;
		INSERT INTO big SELECT -g, 0, repeat('B', 900) FROM generate_series(101, 300) g;
		DECLARE k CURSOR FOR SELECT count(*), sum(v) FROM big WHERE id < 0; UPDATE big SET v = 1 WHERE id = -300});
	$from = length $c->log_text('compute');
	is(system("prlimit --pid $checkpointer --fsize=$limit:"), 0, 'limit: set for the checkpointer');
	($out, $err) = $reader->try('CHECKPOINT');
	like($err, qr/checkpoint request failed/, 'limit: a checkpoint fails');
	like(substr($c->log_text('compute'), $from), qr/could not (?:write|extend).*File too large/, 'limit: the log says why');
	system("prlimit --pid $checkpointer --fsize=unlimited:");
	$c->sql('CHECKPOINT');
	is($s->query('FETCH k'), '300|0', 'limit: nothing is lost');
	$s->query('COMMIT');
	is($c->sql('SELECT count(*), sum(v) FROM big WHERE id < 0'), '300|1', 'limit: nor later');
	is($c->counter('stale_answers'), 0, 'limit: no answer was old');
	$s->close;
	$c->sql('DROP TABLE big');
}

# ---- a full index.  A sequence has an entry for good; 1024 there are.
sub make_sequences
{
	my ($first, $n) = @_;
	return $c->try_sql("DO \$\$ BEGIN FOR i IN $first .. $first + $n - 1 LOOP EXECUTE 'CREATE SEQUENCE sq_' || i; END LOOP; END \$\$");
}
my $made = 0;
while ($made < 800)
{
	my ($rc, undef, $error) = make_sequences($made, 50);
	die $error if $rc;
	$made += 50;
	$c->sql('CHECKPOINT');
}
# What ended transactions left does not stand in the way, though the sweeper sleeps.
my $w = $c->session;
foreach my $round (1 .. 6)
{
	$w->query(qq{BEGIN; DO \$\$ BEGIN FOR i IN 1 .. 40 LOOP
		EXECUTE 'CREATE TABLE r_${round}_' || i || ' AS SELECT 1 AS a'; EXECUTE 'INSERT INTO r_${round}_' || i || ' VALUES (2)';
		END LOOP; END \$\$});
	$c->sql('CHECKPOINT');
	$w->query('COMMIT');
}
$w->close;
cmp_ok($c->counter('swept_pages'), '>', 0, 'index: swept by who found it full');

# Those that make pages are told first.
my $error = '';
while ($made < 1300 && $error eq '')
{
	(undef, undef, $error) = make_sequences($made, 50);
	$made += 50 if $error eq '';
}
like($error, qr/the index of local blocks is full/, 'index: who makes pages is told that it is full');
like($error, qr/neon_comm\.local_index_chunks/, 'index: and what to do');
cmp_ok($c->sql('SELECT local_index_used FROM neon_comm.status()'), '>=', 896, 'index: but for its reserve');
my $rc;
($rc, undef, $err) = $c->try_sql('CHECKPOINT');
is($rc, 0, 'index: a checkpoint finds room') or diag($err);
is($reader->query($kept), '8000|32004000', 'index: a reader finds room');
$c->sql(q{INSERT INTO d VALUES (1, 1, 'x')});
is($c->sql('SELECT count(*) FROM d'), 1, 'index: whose pages need not stay, writes');
is($c->sql(q{SELECT nextval('sq_1'), nextval('sq_700')}), '1|1', 'index: sequences work');
# blocks that come into being have marks that the index cannot name: they go all the same
my $held = 'SELECT allocated - sequences - empty FROM neon_comm.local_bytes()';
$c->sql('CHECKPOINT');
my $before = $c->sql($held);
$c->sql(q{INSERT INTO d SELECT g, 0, repeat('m', 400) FROM generate_series(1, 8000) g; CHECKPOINT;});
is($c->sql('SELECT count(*) FROM d'), 8001, 'index: a table grows');
cmp_ok($c->sql($held) - $before, '<', 200_000, 'index: and holds nothing here');

# Room again.
$c->sql("DROP SEQUENCE sq_$_") foreach 0 .. 99;
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
($rc, undef, $error) = make_sequences(5000, 50);
is($rc, 0, 'index: after some were dropped others can be made') or diag($error);
$p->close;
$reader->close;

# All that was committed survives a crash.
$c->kill9('compute');
$c->start('compute');
is($c->sql($kept), '8000|32004000', 'after a crash: the table');
is($c->sql(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'sq\_%'}), $made - 50, 'after a crash: the sequences');
$c->check_logs;
done_testing();
