# A stock cluster runs its tables from page servers: content is not on the
# compute, views and functions answer, and only those who may can use them.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new;

$c->sql(q{CREATE TABLE t (id int PRIMARY KEY, v int, filler text);
	INSERT INTO t SELECT g, g % 100, repeat('x', 300) FROM generate_series(1, 30000) g;
	CREATE INDEX ON t (v);
	CREATE SEQUENCE s; SELECT nextval('s');
	CREATE UNLOGGED TABLE u AS SELECT g FROM generate_series(1, 20000) g;
	CREATE INDEX ON u (g);});
is($c->sql('SELECT count(*), sum(v) FROM t'), '30000|1485000', 'rows come back');
is($c->sql('SET enable_seqscan = off; SELECT count(*) FROM t WHERE v = 7'), 300, 'through an index');
is($c->sql('SELECT count(*), sum(g) FROM u'), '20000|200010000', 'unlogged tables work');

# By content: nothing of permanent main forks is left but sequences.
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
$c->evict;
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
is($c->sql(q{SELECT count(*) FROM neon_comm.local_blocks() WHERE reason <> 'sequence'}),
	0, 'the index names no local block but sequences');

# Independent of the extension's own index: blocks of permanent main forks that
# hold anything but zeroes, read from the files; sequences by their page magic.
sub content
{
	my ($dir) = @_;
	my ($blocks, $sequences) = (0, 0);
	foreach my $path (glob("$dir/base/*/* $dir/global/*"))
	{
		next unless $path =~ m{/(\d+)(\.\d+)?$};
		my $rel = $path =~ s/\.\d+$//r;
		next if -e "${rel}_init";
		open my $fh, '<:raw', $path or next;
		while (read($fh, my $page, 8192))
		{
			next if $page =~ /\A\0*\z/;
			$blocks++;
			$sequences++ if unpack('V', substr($page, 8184, 4)) == 0x1717;
		}
	}
	return ($blocks, $sequences);
}
my ($blocks, $sequences) = content("$c->{dir}/compute");
is($blocks - $sequences, 0, 'no content of permanent main forks in the files, sequences apart');
cmp_ok($sequences, '>=', 1, 'the sequence is there');
cmp_ok($c->sql('SELECT pg_relation_size($$t$$)'), '>', 8 * 1024 * 1024, 'the skeleton has its length');
my ($ps_blocks) = content("$c->{dir}/page_server_0");
cmp_ok($ps_blocks, '>', 1000, 'page servers have the content');

is($c->sql('SELECT count(*), sum(v) FROM t'), '30000|1485000', 'and rows still come back');
cmp_ok($c->counter('reads_remote'),           '>', 1000, 'from page servers');
cmp_ok($c->counter('reads_to_shared_buffer'), '>', 1000, 'straight into shared buffers');
is($c->counter('found_late'), 0, 'no doorbell was lost');
is($c->counter('stale_answers'), 0, 'no answer was old');

# Views.
is($c->sql('SELECT count(DISTINCT shard) FROM neon_comm.connections WHERE state = $$ready$$'),
	2, 'a connection to each shard');
# the server's own processes look at catalogs now and then
ok($c->wait_for('SELECT count(*) = 0 FROM neon_comm.slots WHERE pid <> pg_backend_pid()'),
	'no slot is busy when nobody waits');
# until what the server writes by itself has left, a row says "catchup"
ok($c->wait_for(q{SELECT string_agg(name, ',' ORDER BY name) = 'page_server_0,page_server_1'
		FROM neon_comm.page_servers WHERE state = 'streaming'}), 'both page servers stream');
ok($c->wait_for(q{SELECT bool_and((lag_bytes = 0) IS TRUE) FROM neon_comm.page_servers}),
	'and catch up to the end of WAL');
like($c->sql('SELECT io_method FROM neon_comm.status()'), qr/^(io_uring|epoll)$/, 'event loop named');

# Rights: nothing for PUBLIC.
$c->sql('CREATE ROLE joe LOGIN; CREATE ROLE mon LOGIN IN ROLE pg_monitor;');
foreach my $q ('SELECT * FROM neon_comm.counters', 'SELECT neon_comm.sweep()',
	'SELECT * FROM neon_comm.local_blocks()', 'SELECT neon_comm.restart_communicator()')
{
	my ($rc, undef, $err) = $c->try_sql("SET ROLE joe; $q");
	isnt($rc, 0, "not for PUBLIC: $q");
	like($err, qr/permission denied/, 'by permission');
}
is($c->sql(q{SET ROLE mon; SELECT count(*) > 10 FROM neon_comm.counters}), 't', 'pg_monitor may look');
my ($rc) = $c->try_sql('SET ROLE mon; SELECT neon_comm.restart_communicator()');
isnt($rc, 0, 'but not change');
my $public = $c->sql(q{SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
	WHERE nspname = 'neon_comm' AND has_function_privilege('joe', p.oid, 'EXECUTE')});
is($public, 0, 'PUBLIC may execute no function');

# What a rule adds to a statement runs once, too.
$c->sql(q{CREATE TABLE ruled (a int); CREATE TABLE ruled_log (a int);
	CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO ruled_log VALUES (new.a);
	INSERT INTO ruled VALUES (1), (2), (3);});
is($c->sql('SELECT (SELECT sum(a) FROM ruled), (SELECT sum(a) FROM ruled_log)'), '6|6', 'a rule that adds an insert');

# pg_prewarm-like reads into private memory: ALTER TABLE SET TABLESPACE copies through smgr.
$c->sql(q{CREATE TABLESPACE ts LOCATION '';});
$c->sql('SET neon_comm.readahead_blocks = 0; ALTER TABLE t SET TABLESPACE ts');
is($c->sql('SELECT count(*), sum(v) FROM t'), '30000|1485000', 'after SET TABLESPACE');
cmp_ok($c->counter('reads_to_bounce'), '>', 100, 'which reads through bounce pages');
my (undef, undef, $err) = $c->try_sql(q{CREATE TABLESPACE tl LOCATION '/tmp'});
like($err, qr/tablespaces with a location are not supported/, 'tablespaces with a location are refused');

# Everything again after a stop and a start.
$c->restart;
is($c->sql('SELECT count(*), sum(v) FROM t'), '30000|1485000', 'rows after a restart');
is($c->sql('SELECT count(*), sum(g) FROM u'), '20000|200010000', 'unlogged rows after a clean restart');
is($c->sql(q{SELECT nextval('s')}), 2, 'no gap in a sequence over a clean restart');

# Truncate and reuse.
is($c->sql(q{BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, 1, 'a'); SELECT count(*) FROM t; ROLLBACK;
	SELECT count(*) FROM t}), "1\n30000", 'TRUNCATE rolled back');
# FREEZE waits where a plain VACUUM goes past a page that the background writer has at this moment: it would stay
is($c->sql(q{DELETE FROM t WHERE id > 100; VACUUM (FREEZE) t; SELECT pg_relation_size('t') < 200000;
	INSERT INTO t SELECT g, 1, 'again' FROM generate_series(1000, 2999) g;
	SELECT count(*) FROM t}), "t\n2100", 'blocks come back after vacuum truncated them');
$c->evict;
is($c->sql('SELECT count(*) FROM t'), 2100, 'with their new content');

cmp_ok($c->counter($_), '>', 0, "$_ moved") foreach qw(writes_dropped writes_plain wait_us receives feed_bytes feed_connects);
$c->check_logs;
done_testing();
