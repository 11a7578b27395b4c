# Pages that a process has read from the file cache with the one before them: they are used, and
# not when their block has changed since, was cut off and made again, or does not look as it should.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $blocks = 600;
my $c = NeonComm::Cluster->new(shards => 1,
	conf => [ 'neon_comm.lfc_size=32MB', 'autovacuum=off', 'neon_comm.lfc_prewarm_workers=0', 'neon_comm.sweep_interval=1h',
		'synchronize_seqscans=off', 'max_parallel_workers_per_gather=0' ]);
my $settled = 'SELECT staged_pages = 0 FROM neon_comm.lfc';
my $all = q{SELECT count(*), sum(n), bool_and(f = repeat('t', 700)) FROM t};

ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'the cache is on');
# one row a block, with room for its next versions
$c->sql(qq{CREATE TABLE t (id int, n int, f text) WITH (fillfactor = 10);
	INSERT INTO t SELECT g, 0, repeat('t', 700) FROM generate_series(0, $blocks - 1) g;
	VACUUM (FREEZE) t; CHECKPOINT; SELECT neon_comm.sweep()});
is($c->sql(q{SELECT count(*) FROM t WHERE (ctid::text::point)[0]::int <> id}), 0, 'rows are where they should be');

# Empties the cache and fills it in the order of the table.
sub in_order
{
	$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf()');
	ok($c->wait_for('SELECT limit_bytes = 0 FROM neon_comm.lfc'), 'the cache is empty');
	$c->sql('ALTER SYSTEM RESET neon_comm.lfc_size_limit; SELECT pg_reload_conf()');
	ok($c->wait_for(q{SELECT state = 'on' AND limit_bytes > 0 FROM neon_comm.lfc}), 'the cache is on again');
	foreach (1 .. 20)
	{
		$c->evict;
		my $hits = $c->counter('lfc_hits');
		$c->sql($all);
		my $found = $c->counter('lfc_hits') - $hits;
		last if $c->wait_for($settled) && $found >= $blocks;
	}
	$c->evict;
	ok($c->wait_for($settled), 'all is in the file');
	return;
}

my $s = $c->session;
# one block, read by a statement of its own
sub block { my ($b) = @_; return $s->query("SELECT sum(n) FROM t WHERE ctid >= '($b,0)' AND ctid < '(@{[$b + 1]},0)'") }

in_order();
my $before = $c->counter('lfc_hits_behind');
is($s->query($all), "$blocks|0|t", 'rows');
# those that came together; how many did hangs on what else was written
cmp_ok($c->counter('lfc_hits_behind') - $before, '>', 0, 'a scan uses pages that were read with others');

# The process has pages behind the last one; they are written anew before it wants them.
my $n = 0;
foreach my $from (map { 50 * $_ } 1 .. 6)
{
	in_order();
	is(block($_), $n, "block $_ as it was") foreach $from .. $from + 6;
	$n++;
	$c->sql('UPDATE t SET n = n + 1; CHECKPOINT; SELECT neon_comm.sweep()');
	$c->evict;
	ok($c->wait_for($settled), 'new versions are in the file');
	is(block($_), $n, "block $_ is the new version") foreach $from + 7 .. $from + 20;
}
is($c->counter('lfc_stale'), 0, 'no old version was found');

# They are cut off, and others come in their place.
in_order();
is(block($_), $n, "block $_ before it is cut off") foreach $blocks - 109 .. $blocks - 101;
$c->sql(qq{DELETE FROM t WHERE id >= $blocks - 100; VACUUM t;
	INSERT INTO t SELECT g, 100 + g, repeat('t', 700) FROM generate_series($blocks - 100, $blocks - 1) g; CHECKPOINT; SELECT neon_comm.sweep()});
$c->evict;
is(block($_), $c->sql("SELECT sum(n) FROM t WHERE (ctid::text::point)[0]::int = $_"), "block $_ has come anew")
  foreach $blocks - 100 .. $blocks - 90;
is($c->counter('lfc_stale'), 0, 'no old version was found');

# What was written there by somebody else.
in_order();
my $want = $s->query($all);
$c->evict;
{
	open my $fh, '+<:raw', "$c->{dir}/compute/neon_comm.lfc" or die $!;
	for (my $at = 8192; $at < -s $fh; $at += 8192) { seek $fh, $at + 7900, 0; print $fh 'not what was written' }
	close $fh;
}
is($s->query($all), $want, 'what is damaged is not used');
cmp_ok($c->counter('lfc_mismatches'), '>', $blocks / 2, 'damage is seen');
is($c->sql($all), $want, 'nor by others');

$s->close;
$c->check_logs;
undef $c;
done_testing();
