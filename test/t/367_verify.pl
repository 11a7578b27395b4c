# neon_dev verify: page servers that have the same are said to, under load and with hint bits that
# readers have set; a page that was changed by hand, one that is lost, one that cannot be read and a
# relation that is too long are found and named (docs/neon_dev.md, "What verify compares").
use strict;
use warnings;

use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 2, init => [ '--hosts', 2 ], buffers => '16MB');
my @verify = ('verify', '-D', $c->{dir});
sub verify { my (@more) = @_; my (undef, $out) = $c->try_dev(@verify, @more); return ($? >> 8, $out) }

$c->sql(q{CREATE TABLE t (id int PRIMARY KEY, x text); INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 4000) g;
	DELETE FROM t WHERE id % 100 = 0; CREATE SEQUENCE s; SELECT nextval('s'); CREATE UNLOGGED TABLE u AS SELECT 1;
	CREATE TABLE other AS SELECT * FROM t; CREATE TABLE empty (i int); CREATE DATABASE more});
my $blocks = $c->sql(q{SELECT pg_relation_size('t') / 8192});
cmp_ok($blocks, '>', 100, 'there is something to compare');

# ---- the same, while it changes
is(($c->pgbench('-i', '-q'))[0], 0, 'pgbench has its tables');
my $said = '';
my $load = $c->background(\$said, 'pgbench', '-n', '-c', '2', '-R', '20', '-T', 100_000, $c->conninfo . ' dbname=postgres');
my ($status, $out) = verify();
like($out, qr/MB compared in \d+ s: page servers have the same$/m, 'the same under load');
is($status, 0, 'status 0');
ok(!-e "$c->{dir}/verifying", 'nothing is left');
$load->kill_kill;
is((verify('--rate', 0))[0], 2, 'a wrong rate');
is((verify('--relation', 'nothing_like_it'))[0], 1, 'no such relation');

# ---- where it was is remembered
my $last = $c->sql(q{SELECT 'other'::regclass::oid::int});
open my $fh, '>', "$c->{dir}/verifying" or die $!;
print $fh "postgres\n$last 0 0\n";
close $fh;
($status, $out) = verify('--rate', 1000);
like($out, qr/going on where an interrupted call was, in database postgres; it had found 0/, 'an interrupted call goes on');
is($status, 0, 'to its end');

# ---- what readers of a hot standby write is no difference; what nobody logged is
my %path = map { ($_ => $c->sql("CHECKPOINT; SELECT pg_relation_filepath('$_')")) } 't', 'other', 't_pkey', 'empty';
sub change
{
	my ($table, $at, $bytes) = @_;
	open my $file, '+<:raw', "$c->{dir}/page_server_1/$path{$table}" or die "$path{$table}: $!";
	seek $file, $at, 0 or die $!;
	print $file $bytes;
	close $file or die $!;
	return;
}

# The tuple header of the first row of a block, as the line pointer says.
sub infomask_at
{
	my ($table, $block) = @_;
	open my $file, '<:raw', "$c->{dir}/page_server_1/$path{$table}" or die $!;
	seek $file, $block * 8192 + 24, 0;
	read $file, my $item, 4;
	my $offset = unpack('V', $item) & 0x7fff;
	seek $file, $block * 8192 + $offset + 20, 0;
	read $file, my $mask, 2;
	return ($block * 8192 + $offset + 20, unpack 'v', $mask);
}

# all of it is on the disk of page server 1, which replays none of it again when it starts
my $end = $c->sql('CHECKPOINT; SELECT pg_current_wal_flush_lsn()');
ok($c->wait_for("SELECT bool_and(apply_lsn >= '$end') FROM neon_comm.page_servers"), 'page servers have replayed a checkpoint');
$c->stop('page-server', 1);
my ($at, $mask) = infomask_at('other', 3);
change('other', $at, pack('v', $mask ^ 0x0100));		# HEAP_XMIN_COMMITTED
change('other', 4 * 8192 + 100, 'between pointers and rows');
change('t', 5 * 8192 + 8100, 'changed');
change('t', 7 * 8192, "\0" x 8192);
change('t', 9 * 8192 + 10, "\xff\xff");
change('t_pkey', 8192 + 8000, 'changed');
change('empty', 0, "\0" x 8192);
$c->start('page-server', 1);
$c->allow_log(qr/invalid page in block/);

my ($p0, $p1) = map { '127\.0\.0\.1:' . $c->page_server_port($_) } 0, 1;
($status, $out) = verify();
is($status, 1, 'status 1');
my $both = qr/(?:$p0, $p1|$p1, $p0)/;
like($out, qr/^postgres: t block 5, page server $both: differs: from byte 8100 on; LSNs (\S+) and \1, CRCs [0-9a-f]{8} and [0-9a-f]{8}$/m, 'a page that was changed by hand');
like($out, qr/^postgres: t block 7, page server $p1: missing: it is empty, and the block has been logged$/m, 'one that is lost');
like($out, qr/^postgres: t block 9, page server $p1: damaged: Read error: invalid page in block 9/m, 'one that cannot be read');
like($out, qr/^postgres: t_pkey block 1, page server $both: differs: from byte 8000 on/m, 'an index');
like($out, qr/^postgres: empty, page server $p1: longer: 1 blocks there, 0 here$/m, 'a relation that is too long');
is(scalar(() = $out =~ /^postgres: /mg), 5, 'and nothing else') or diag($out);
($status, $out) = verify('--relation', 'other');
is($status, 0, 'hints and free space are not compared') or diag($out);

# ---- one page server is away
$c->stop('page-server', 1);
is($c->sql(q{SELECT string_agg(DISTINCT state, ',') FROM neon_comm.verify_relation('other', seconds => 2)}), 'no answer', 'a page server that is away');
$c->start('page-server', 1);
is($c->sql(q{SET ROLE pg_monitor; SELECT count(*) FROM neon_comm.verify_relation('other')}), 0, 'members of pg_monitor may compare');

$c->check_logs;
done_testing();
