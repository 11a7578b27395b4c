# A page server whose file is shorter than the table answers with empty pages for
# what it does not have.  That is an error for blocks that were logged, also when
# nobody remembers their LSNs, and the right answer for blocks that the compute
# added without logging them: bulk extension, buckets of a hash index, what a
# crash left.  The difference survives clean stops and kill -9, copies of
# databases and unlogged relations.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, checksums => 1,
	conf => [ 'neon_comm.request_timeout=20s', 'max_parallel_workers_per_gather=0', 'neon_comm.lfc_size=16MB', 'neon_comm.lfc_size_limit=0' ]);
$c->allow_log(qr/could not read block/);

$c->sql(q{CREATE EXTENSION pageinspect;
	CREATE TABLE t AS SELECT g AS id, repeat('x', 100) AS v FROM generate_series(1, 20000) g;
	CREATE TABLE gone AS SELECT g AS id FROM generate_series(1, 20000) g;
	CREATE TABLE old (id int, f text); ALTER TABLE old ALTER f SET STORAGE plain;
	CREATE TABLE h (id int); CREATE INDEX h_i ON h USING hash (id);
	INSERT INTO h SELECT generate_series(1, 60000);
	VACUUM FREEZE t, gone; CHECKPOINT;});
my $rows = q{SELECT count(*), sum(id) FROM t};

# Blocks without content, found by reading every block of a relation.
sub empty_blocks
{
	my ($rel, %o) = @_;
	my $of = delete $o{of} // $c;
	return $of->sql(qq{SELECT count(*) FILTER (WHERE (page_header(get_raw_page('$rel', b::int))).upper = 0)
		FROM generate_series(0, pg_relation_size('$rel') / 8192 - 1) b}, %o);
}

# ---- never logged: no error
my $holes = empty_blocks('h_i');
cmp_ok($holes, '>', 0, "a hash index has $holes buckets that nobody logged");

# Sessions that wait for each other add many blocks at once; each row is a block here. From 16 on a server
# with so few buffers adds one at a time.
my ($load, $data) = map { "$c->{dir}/load.$_" } 'sql', 'data';
open my $fh, '>', $data or die $!;
print $fh "$_\t" . ('o' x 7000) . "\n" foreach 1 .. 40;
close $fh;
open $fh, '>', $load or die $!;
print $fh "COPY old FROM '$data';\n";
close $fh;
my $bulk = 0;
my $one_at_a_time = $c->sql('SHOW server_version_num') >= 160000;
for (my $round = 0; $round < ($one_at_a_time ? 1 : 100) && $bulk == 0; $round++)
{
	my ($rc, undef, $err) = $c->pgbench('-n', '-c', 12, '-t', 3, '-f', $load);
	is($rc, 0, 'rows come from many sessions') or diag($err);
	$bulk = empty_blocks('old');
}
cmp_ok($bulk, '>', 0, "bulk extension left $bulk blocks that nobody logged") unless $one_at_a_time;
my $count = $c->sql('SELECT count(*), sum(id) FROM old');

sub nothing_missing
{
	my ($when, %o) = @_;
	my $missing = $c->counter('missing_answers');
	is($c->sql($rows), '20000|200010000', "$when: the table");
	is($c->sql('SELECT count(*), sum(id) FROM old'), $count, "$when: the table with blocks never logged");
	is(empty_blocks('old'), $bulk, "$when: which are empty still") unless $o{any};
	is(empty_blocks('h_i'), $holes, "$when: so are those of the hash index") unless $o{any};
	is($c->counter('missing_answers'), $missing, "$when: nothing was missing");
	return;
}
$c->evict;
nothing_missing('evicted');
$c->kill9('compute');
$c->start('compute');
nothing_missing('after kill -9');
$c->restart('compute');
nothing_missing('after a clean stop');
$c->kill9('compute');
$c->start('compute');
nothing_missing('after another kill -9');

# A crash in the middle: lengths that survived, WAL that did not.
my $out = '';
my $many = $c->background(\$out, 'pgbench', '-n', '-c', 8, '-T', 600, '-f', $load, $c->conninfo . ' dbname=postgres');
my $size = $c->sql(q{SELECT pg_relation_size('old')});
ok($c->wait_for("SELECT pg_relation_size('old') > $size + 8000000"), 'the table grows');
$c->kill9('compute');
$many->finish;
$c->start('compute');
my $left = empty_blocks('old');
$count = $c->sql('SELECT count(*), sum(id) FROM old');
nothing_missing('killed under load', any => 1);
note("$left empty blocks after kill -9 under load");
$c->sql('VACUUM old');
$c->restart('compute');
is($c->sql('SELECT count(*), sum(id) FROM old'), $count, 'vacuumed and restarted: nothing missing');

# Copies of a database, in both ways, have the same blocks.
foreach my $strategy (qw(wal_log file_copy))
{
	$left = empty_blocks('old');
	$c->sql("CREATE DATABASE copy_$strategy STRATEGY $strategy TEMPLATE postgres");
	is(empty_blocks('old', db => "copy_$strategy"), $left, "$strategy: empty blocks of a copy are read");
	is($c->sql('SELECT count(*), sum(id) FROM old', db => "copy_$strategy"), $count, "$strategy: and its rows");
	$c->kill9('compute');
	$c->start('compute');
	is(empty_blocks('old', db => "copy_$strategy"), $left, "$strategy: and after a crash");
	$c->sql("DROP DATABASE copy_$strategy");
}

# An index that is unlogged in the end was marked as long as it looked permanent.  Rows are
# taken for wider, and so for fewer, than they are: the build has to split buckets.
$c->sql(q{CREATE UNLOGGED TABLE u (id int, a text, b text, c text, d text, e text, f text);
	INSERT INTO u SELECT g FROM generate_series(1, 40000) g;
	CREATE INDEX u_h ON u USING hash (id);});
$c->evict;
cmp_ok(empty_blocks('u_h'), '>', 0, 'an unlogged index has empty blocks');
is($c->sql('SET enable_seqscan = off; SELECT count(*) FROM u WHERE id = 4711'), 1, 'and is read');

# ---- logged, and lost by the page server: an error
my $all = $c->sql(q{SELECT pg_relation_size('t') / 8192});
my ($db, $file, $gone) = split /\|/, $c->sql(q{SELECT (SELECT oid FROM pg_database WHERE datname = 'postgres'),
	pg_relation_filenode('t'), pg_relation_filenode('gone')});
$c->sql('CHECKPOINT');
$c->wait_for(q{SELECT bool_and((flush_lsn >= pg_current_wal_flush_lsn()) IS TRUE) FROM neon_comm.page_servers}, tries => 100);
$c->stop('page-server', 0);
truncate("$c->{dir}/page_server_0/base/$db/$file", 8192 * 100) or die $!;
unlink "$c->{dir}/page_server_0/base/$db/$gone" or die $!;
$c->start('page-server', 0);

sub missing
{
	my ($when) = @_;
	my $before = $c->counter('missing_answers');
	my ($rc, $out, $err) = $c->try_sql($rows);
	isnt($rc, 0, "$when: lost blocks are an error") or diag($out);
	like($err, qr/page server does not have block 100 of relation \d+\/$db\/$file/, "$when: which names the first of them") or diag($err);
	like($err, qr/the relation has $all blocks here/, "$when: and the length");
	cmp_ok($c->counter('missing_answers'), '>', $before, "$when: it is counted");
	($rc, $out, $err) = $c->try_sql('SELECT count(*) FROM gone');
	like($err, qr/could not read block 0 of relation/, "$when: a lost file is an error");
	is($c->sql('SELECT count(*), sum(id) FROM old'), $count, "$when: another table is right");
	return;
}
$c->evict;
missing('running');
$c->restart('compute');
missing('restarted');
$c->kill9('compute');
$c->start('compute');
missing('killed');
$c->configure({ 'neon_comm.lfc_size_limit' => '16MB' });
$c->wait_for(q{SELECT state = 'on' AND limit_bytes > 0 FROM neon_comm.lfc}) or die 'no file cache';
my $fills = $c->counter('lfc_fills');
like($c->sql("SET neon_comm.accept_missing_pages = on; $rows"), qr/^58\d\d\|/, 'a superuser may read what is left');
cmp_ok($c->counter('lfc_fills'), '>', $fills, 'pages enter the file cache meanwhile');
$c->evict;
my (undef, undef, $for_all) = $c->try_sql('ALTER SYSTEM SET neon_comm.accept_missing_pages = on');
like($for_all, qr/in a session only/, 'but not for everybody and for good');
missing('afterwards');
is($c->counter('lfc_stale'), 0, 'and no page that was accepted was in the file cache');

# ---- a skeleton from before there were marks
my $marker = "$c->{dir}/compute/neon_comm.skeleton";
like(`cat $marker`, qr/^empty_blocks=marked$/m, 'the marker says that blocks are marked');
system("sed -i /^empty_blocks=/d $marker") == 0 or die;
$c->restart('compute');
like($c->log_text('compute'), qr/does not say which blocks were never logged/, 'one that does not is said in the log');
like($c->sql($rows), qr/^58\d\d\|/, 'and empty pages are believed');

$c->check_logs;

# ---- with more buffers, from 16 on: a COPY adds many at once
if ($one_at_a_time)
{
	my $more = NeonComm::Cluster->new(shards => 1, checksums => 1, buffers => '16MB');
	$more->sql(q{CREATE EXTENSION pageinspect; CREATE TABLE old (id int, f text); ALTER TABLE old ALTER f SET STORAGE plain});
	$more->sql("COPY old FROM '$data'") foreach 1 .. 25;
	my $empty = empty_blocks('old', of => $more);
	cmp_ok($empty, '>', 0, "it left $empty blocks that nobody logged");
	foreach my $when ('a clean stop', 'kill -9')
	{
		$when eq 'kill -9' ? ($more->kill9('compute'), $more->start('compute')) : $more->restart('compute');
		is($more->sql('SELECT count(*), sum(id) FROM old'), '1000|20500', "rows after $when");
		is(empty_blocks('old', of => $more), $empty, 'and empty blocks');
		is($more->counter('missing_answers'), 0, 'none was missing');
	}
	$more->check_logs;
}
done_testing();
