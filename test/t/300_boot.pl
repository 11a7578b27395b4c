# A compute from nothing: its directory is removed, and made anew from a page server (docs/boot.md).
#
# What was committed and had reached a page server is there: tables, indexes, TOAST, two databases, sequences,
# prepared transactions (one that a restartpoint has written, one that is only a record), replication origins, a
# relation map that VACUUM FULL has changed, subtransactions, multixacts, commit timestamps. Unlogged tables are
# empty. Writes go on, and page servers follow. What breaks on the way leaves nothing that could be started, and what
# could make two computes of one is refused.
use strict;
use warnings;

use File::Path qw(remove_tree);
use IO::Select;
use IO::Socket::INET;
use IPC::Run ();
use POSIX ();
use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	shards => 2,
	conf => [ 'max_prepared_transactions=10', 'track_commit_timestamp=on', 'max_wal_size=1GB' ],
	ps_conf => [ 'track_commit_timestamp=on', 'checkpoint_timeout=1h' ]);
my $dir = $c->{dir};
# a statement that waits while its server is killed, and page servers that are asked for WAL they have not got
$c->allow_log(qr/could not read block .* from its page server/);

my %conf = do { open my $fh, '<', "$dir/neon_dev.conf" or die $!; map { /^(\w+)=(.*)$/ ? ($1 => $2) : () } <$fh> };
my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;

# ---- helpers

sub conninfo_of { my ($port) = @_; return "host=127.0.0.1 port=$port user=x dbname=x sslmode=disable" }

# (exit status, stderr) of neon_boot.
sub boot
{
	my ($port, $to, @more) = @_;
	my ($out, $err);
	IPC::Run::run([ "$bindir/neon_boot", '--conninfo', conninfo_of($port), '--tenant', $conf{tenant_id}, '--timeline',
		$conf{timeline_id}, '-D', $to, @more ], '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $err);
}

# What a page server says to a query that is no success.
sub said
{
	my ($query, $n) = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XqAt', '-d', conninfo_of($c->page_server_port($n // 0)), '-c', $query ], '<', \undef, '>', \$out, '2>', \$err);
	return $err;
}

# How far a page server says that it is.
sub replay_of
{
	my ($n) = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XqAt', '-d', conninfo_of($c->page_server_port($n)), '-c', 'show status' ], '<', \undef, '>', \$out, '2>', \$err);
	return $out =~ m{^replay_lsn\|([0-9A-F]+)/([0-9A-F]+)$}m ? hex($1) * 2**32 + hex $2 : 0;
}

sub create { return $c->try_dev('create-compute', '-D', $dir, @_) }
sub lose { remove_tree("$dir/compute"); !-e "$dir/compute" or die 'it is still there'; return }
sub replayed { return $c->wait_for(q{SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) AND count(*) = 2 FROM neon_comm.page_servers}) }
sub follow { return $c->wait_for(q{SELECT bool_and(state = 'streaming') AND count(*) = 2 FROM neon_comm.page_servers}) && replayed() }
sub is_nothing { my ($to) = @_; return !-e $to && !-e "$to.neon_boot" }

# Everything that must be the same, as one text.
my $same = q{
	SELECT 't', count(*), md5(string_agg(id || v || md5(big), ',' ORDER BY id)) FROM t;
	SELECT 'toasted', count(*) FROM t WHERE length(big) > 3000 AND id % 50 = 0;
	SELECT 'by index', count(*) FROM t WHERE v = 'value 77';
	SELECT 'gin', count(*) FROM words WHERE w @> ARRAY[7];
	SELECT 'subtransactions', count(*), sum(x) FROM sub;
	SELECT 'multi', count(*), count(DISTINCT xmax::text) FROM multi;
	SELECT 'class', count(*), md5(string_agg(concat(oid, relname, relkind, relnatts), ',' ORDER BY oid)) FROM pg_class WHERE oid >= 16384;
	SELECT 'map', relname, pg_relation_filenode(oid) FROM pg_class WHERE relname IN ('pg_class', 'pg_proc', 'pg_database') ORDER BY 2;
	SELECT 'prepared', gid, database, transaction FROM pg_prepared_xacts ORDER BY gid;
	SELECT 'origins', external_id, remote_lsn FROM pg_replication_origin_status ORDER BY 2;
	SELECT 'times', count(*), max(pg_xact_commit_timestamp(xmin)) FROM times;
	SELECT 'length', relname, pg_relation_size(oid), pg_relation_size(oid, 'vm') FROM pg_class
		WHERE relname IN ('t', 'empty', 'cut', 'words') ORDER BY 2;
	SELECT 'size', pg_relation_size('t_pkey'), pg_relation_size((SELECT reltoastrelid FROM pg_class WHERE relname = 't'));
};
sub content
{
	return $c->sql($same) . "\n" . $c->sql('SELECT count(*), sum(n) FROM u', db => 'second');
}

sub sound
{
	my ($what) = @_;
	foreach my $db ('postgres', 'second')
	{
		cmp_ok($c->sql(q{SELECT count(*) FROM (SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
			WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' OFFSET 0) x}, db => $db), '>', 100,
			"$what: indexes of $db are sound");
		is($c->sql(q{SELECT c.relname, v.* FROM pg_class c, LATERAL verify_heapam(c.oid) v
			WHERE c.relkind IN ('r', 't') AND c.relpersistence = 'p'}, db => $db), '', "$what: and its tables");
	}
	return;
}

# Rows that an index-only scan has to look up in the table.
sub heap_fetches
{
	my $plan = $c->sql(q{SET enable_seqscan = off; SET enable_bitmapscan = off;
		EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT count(*) FROM t WHERE v BETWEEN 'value 3' AND 'value 8'});
	return $plan =~ /Index Only Scan.*Heap Fetches: (\d+)/s ? $1 : die $plan;
}

# The next value was never given, and not more than a crash would skip lies between.
my $given = 0;
sub sequence_goes_on
{
	my ($what) = @_;
	my $next = $c->sql(q{SELECT nextval('s')});
	cmp_ok($next, '>', $given, "$what: a sequence gives no value twice");
	cmp_ok($next, '<=', $given + 33, '... and skips no more than a crash would');
	$given = $next;
	return;
}

# ---- content

$c->sql(q{
	CREATE EXTENSION amcheck;
	CREATE TABLE t (id int PRIMARY KEY, v text, big text);
	INSERT INTO t SELECT g, 'value ' || g % 100, CASE WHEN g % 50 = 0 THEN (SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, 120) i) ELSE repeat('x', 200) END
		FROM generate_series(1, 10000) g;
	ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
	UPDATE t SET big = big || 'y' WHERE id % 50 = 0;
	CREATE INDEX ON t (v);
	CREATE TABLE words (w int[]);
	INSERT INTO words SELECT ARRAY[g % 10, g % 7] FROM generate_series(1, 5000) g;
	CREATE INDEX ON words USING gin (w);
	CREATE INDEX ON t USING hash (id);
	CREATE TABLE empty (x int);
	CREATE TABLE cut AS SELECT g FROM generate_series(1, 5000) g;
	DELETE FROM cut WHERE g > 100;
	CREATE TABLE multi (id int PRIMARY KEY, x int);
	INSERT INTO multi SELECT g, 0 FROM generate_series(1, 200) g;
	CREATE SEQUENCE s;
	CREATE UNLOGGED TABLE un (id int PRIMARY KEY, x text);
	INSERT INTO un SELECT g, 'u' FROM generate_series(1, 1000) g;
	CREATE TABLE sub (x int);
	CREATE TABLE times AS SELECT 1 AS x;
	DO $$ BEGIN FOR i IN 1 .. 200 LOOP
		BEGIN INSERT INTO sub VALUES (i); IF i % 3 = 0 THEN RAISE 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END;
	END LOOP; END $$;
	CREATE TABLE gone AS SELECT g FROM generate_series(1, 1000) g;
	VACUUM t, cut, words;
	DROP TABLE gone;
});
$c->sql('CREATE DATABASE second');
$c->sql(q{CREATE EXTENSION amcheck; CREATE TABLE u AS SELECT g AS n FROM generate_series(1, 3000) g; CREATE INDEX ON u (n);
	CREATE SEQUENCE s2; SELECT nextval('s2')}, db => 'second');
$c->sql('VACUUM FULL pg_class; VACUUM FULL pg_proc; VACUUM FULL pg_database');
$c->sql('VACUUM FULL pg_class', db => 'second');
$given = $c->sql(q{SELECT max(nextval('s')) FROM generate_series(1, 100)});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 1048576 * 1.5, 'a table that is larger than shared buffers');

# multixacts: two transactions hold rows together; one of them ends as a prepared transaction
my @lockers = map { $c->session } 1 .. 2;
$_->query('BEGIN; SELECT count(*) FROM (SELECT id FROM multi WHERE id <= 150 FOR KEY SHARE) x') foreach @lockers;
$_->query('COMMIT') foreach @lockers;

$c->sql(q{BEGIN; INSERT INTO sub VALUES (100001); PREPARE TRANSACTION 'written'; CHECKPOINT});
ok(replayed(), 'page servers have it');
$c->restart('page-server', $_) foreach 0, 1;
ok(follow(), 'page servers have made a restartpoint');
$c->sql(q{BEGIN; INSERT INTO sub VALUES (100002); DELETE FROM t WHERE id = 5; PREPARE TRANSACTION 'record'});
$c->sql(q{BEGIN; INSERT INTO sub VALUES (100003); PREPARE TRANSACTION 'over'});
$c->sql(q{COMMIT PREPARED 'over'});
$c->sql(q{SELECT pg_replication_origin_create('elsewhere'); SELECT pg_replication_origin_session_setup('elsewhere');
	BEGIN; SELECT pg_replication_origin_xact_setup('1/2345678', now()); INSERT INTO sub VALUES (100004); COMMIT});
my $fetches = heap_fetches();
cmp_ok($fetches, '<', 200, 'an index-only scan looks up few rows');
my $before = content();
like($before, qr/^prepared\|record.*^prepared\|written/ms, 'two transactions are prepared');
like($before, qr/^origins\|elsewhere\|1\/2345678$/m, 'an origin is known');
cmp_ok($c->sql('SELECT next_multixact_id::text::int FROM pg_control_checkpoint()'), '>', 0, 'there are multixacts');

# ---- refused: what a page server does not give

my ($T, $L) = @conf{qw(tenant_id timeline_id)};
like(said("basebackup $T"), qr/takes a tenant id and a timeline id/, 'too few words');
like(said('basebackup ' . 'ab' x 16 . " $L"), qr/is not served: set neon_comm.tenant_id/, 'another tenant');
like(said("basebackup $T " . 'ab' x 16), qr/is not served: set neon_comm.timeline_id/, 'another timeline');
like(said("basebackup $T $L 12"), qr/an LSN or "latest"/, 'no LSN');
like(said("basebackup $T $L latest --fast"), qr/each once/, 'an unknown word');
like(said("basebackup $T $L --gzip --gzip"), qr/each once/, 'a word twice');
like(said("basebackup $T $L"), qr/a compute is connected to this page server/, 'a compute is there');
$c->configure({ 'neon_page_service.wait_lsn_timeout' => '500ms' }, part => 'page_server_0');
like(said("basebackup $T $L F0/0 --live"), qr/LSN timeout: waited 500 ms for F0\/0; replay is at/, 'an LSN that does not come');
$c->configure({ 'neon_page_service.lazy_replay' => 'on' }, part => 'page_server_0');
my $lazy = '';
foreach (1 .. 600) { $lazy = said("basebackup $T $L --live"); last if $lazy =~ /lazy/; usleep(50_000) }
like($lazy, qr/lazy_replay is on/, 'lazy replay');
$c->configure({ 'neon_page_service.lazy_replay' => 'off' }, part => 'page_server_0');
ok(replayed(), 'and without it again');

# ---- a directory of its own, beside the compute that runs

my $port = $c->page_server_port(0);
my $aside = "$dir/aside";
my ($rc, $err) = boot($port, $aside, '--wait', 0);
is($rc, 1, 'neon_boot takes no for an answer');
like($err, qr/a compute is connected/, '... and says it');
ok(is_nothing($aside), '... and leaves nothing');
($rc, $err) = boot($port, $aside, '--live');
is($rc, 0, 'with --live it lays a directory') or diag($err);
like($err, qr/replication slots of the old compute are not in the image/, '... and says what is not in it');
my $relfile = $c->sql(q{SELECT pg_relation_filepath('t')});
is((stat "$aside/$relfile")[7], $c->sql(q{SELECT pg_relation_size('t')}), 'a table has its length');
is((stat "$aside/$relfile")[12], 0, '... and no content');
cmp_ok(-s "$aside/${relfile}_vm", '>', 0, 'its visibility map is there');
like(`"$bindir/pg_controldata" -D $aside`, qr/cluster state: +shut down\n/, 'its control file is of a clean stop');
my $out = `"$bindir/postgres" -D $aside -c port=1 -c listen_addresses= -c unix_socket_directories=$conf{socket_dir} -c hba_file=$dir/compute/pg_hba.conf 2>&1`;
like($out, qr/recovery\.conf/, 'a server without neon_comm does not start there');
($rc, $err) = boot($port, $aside, '--live');
is($rc, 1, 'what is there is not laid over');
like($err, qr/is not empty/, '... and that is said');
remove_tree($aside);
mkdir $aside or die $!;
($rc, $err) = boot($port, $aside, '--live', '--gzip');
is($rc, 0, 'compressed, into an empty directory') or diag($err);
is((stat "$aside/$relfile")[7], $c->sql(q{SELECT pg_relation_size('t')}), 'a table has its length');
remove_tree($aside);

# ---- what breaks on the way

# Lets so many bytes come from the page server, then closes, or stays silent.
sub relay
{
	my ($bytes, $then) = @_;
	my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
	my $pid = fork // die $!;
	return ($listener->sockport, $pid) if $pid;
	my $client = $listener->accept;
	my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or POSIX::_exit(1);
	my $select = IO::Select->new($client, $server);
	while (my @ready = $select->can_read)
	{
		foreach my $from (@ready)
		{
			my $n = sysread $from, my $data, 8192;
			POSIX::_exit(0) unless $n;
			if ($from == $server)
			{
				$data = substr $data, 0, $bytes if $n > $bytes;
				$bytes -= length $data;
			}
			syswrite $from == $server ? $client : $server, $data;
			next if $bytes > 0;
			POSIX::_exit(0) if $then eq 'close';
			sleep 3600;
		}
	}
	POSIX::_exit(0);
}

foreach my $bytes (200, 3000, 300_000, 2_000_000)
{
	my ($at, $relay) = relay($bytes, 'close');
	($rc, $err) = boot($at, $aside, '--live', '--wait', 0);
	isnt($rc, 0, "broken off after $bytes bytes") or diag($err);
	like($err, qr/lost|broke off|ends in the middle|gives no boot image/, '... and says so');
	ok(is_nothing($aside), '... and nothing is left');
	kill 'KILL', $relay;
	waitpid $relay, 0;
}
foreach my $signal (qw(INT TERM HUP KILL))
{
	my ($at, $relay) = relay(1_000_000, 'silence');
	my $said = '';
	my $h = IPC::Run::start([ "$bindir/neon_boot", '--conninfo', conninfo_of($at), '--tenant', $T, '--timeline', $L, '-D', $aside, '--live' ],
		'<', \undef, '>', '/dev/null', '2>', \$said);
	foreach (1 .. 600) { last if -e "$aside.neon_boot/base/1"; usleep(50_000) }
	ok(-e "$aside.neon_boot/base/1", "SIG$signal comes in the middle");
	if ($signal eq 'INT')
	{
		($rc, $err) = boot($port, $aside, '--live');
		is($rc, 1, '... before that a second call does not get between');
		like($err, qr/another neon_boot is at work there/, '... and says why');
	}
	$h->signal($signal);
	$h->finish;
	if ($signal eq 'KILL')
	{
		ok(!-e $aside && -e "$aside.neon_boot/recovery.conf" && !-e "$aside.neon_boot/PG_VERSION"
			  && !-e "$aside.neon_boot/neon_comm.skeleton", '... and what it leaves cannot be started');
	}
	else
	{
		is($h->result(0), 130, '... it ends');
		ok(is_nothing($aside), '... and leaves nothing') or diag($said);
	}
	kill 'KILL', $relay;
	waitpid $relay, 0;
}
($rc, $err) = boot($port, $aside, '--live');
is($rc, 0, 'after a kill the next call takes what it finds away') or diag($err);
remove_tree($aside);
mkdir "$aside.neon_boot" or die $!;
open my $theirs, '>', "$aside.neon_boot/file" or die $!;
close $theirs;
($rc, $err) = boot($port, $aside, '--live');
is($rc, 1, 'somebody else\'s directory of that name is in the way');
ok(-e "$aside.neon_boot/file", '... and left alone');
remove_tree("$aside.neon_boot");

# ---- refused: a compute that is there

my ($ok, $said) = create();
ok(!$ok, 'no second compute while the first one runs');
like($said, qr/the compute runs/, '... and that is said');
$c->stop('compute');
($ok, $said) = create();
ok(!$ok, 'nor while its directory is there');
like($said, qr/is there: a compute is made anew only if its directory is lost/, '... and that is said');

# ---- a clean stop, and the directory is lost

rename "$dir/compute", "$dir/old_compute" or die $!;
($ok, $said) = $c->try_dev('start', '-D', $dir);
ok(!$ok, 'without a directory nothing starts');
like($said, qr/is not there; if it is lost: neon_dev create-compute/, '... and what to do is said');
($ok, $said) = create();
ok($ok, 'a compute from nothing') or diag($said, $c->log_tail);
is(content(), $before, 'all that was there is there');
ok(follow(), 'page servers follow it');
is($c->sql('SELECT count(*) FROM un'), 0, 'an unlogged table is empty');
is($c->sql(q{INSERT INTO un VALUES (1, 'x'); SELECT x FROM un WHERE id = 1}), 'x', '... and can be used');
sound('anew');
sequence_goes_on('anew');
is(heap_fetches(), $fetches, 'an index-only scan looks up as many rows as before');
$c->sql(q{COMMIT PREPARED 'written'; ROLLBACK PREPARED 'record'});
is($c->sql('SELECT count(*) FROM sub WHERE x IN (100001, 100002)'), 1, 'prepared transactions end as they are told');
$c->sql(q{CREATE TABLE later AS SELECT g FROM generate_series(1, 5000) g; INSERT INTO t SELECT g, 'new', 'b' FROM generate_series(20001, 22000) g; UPDATE multi SET x = 1});
is($c->sql(q{SELECT count(*) FROM later}), 5000, 'writes go on');
is($c->sql(q{SELECT count(*) FROM multi WHERE x = 1}), 200, '... on rows that were locked by several');
$c->restart('compute');
ok(follow(), 'it starts again, and page servers follow');
like($c->log_text('page_server_0'), qr/a boot image of \d+ bytes was gathered.*Replay was held for \d+ us/s, 'the page server says how long replay was held');

# the old directory was not lost after all, and is started: at its place still, for the servers
$before = content();
$c->stop('compute');
rename "$dir/compute", "$dir/new_compute" or die $!;
rename "$dir/old_compute", "$dir/compute" or die $!;
($ok, $said) = $c->try_dev('start', '-D', $dir, '-t', 30, 'compute');
ok(!$ok, 'the old compute does not go on') or diag($said);
like(said("basebackup $T $L --live"), qr/this page server and its compute have parted, or may have: /, 'who has just refused a compute gives no image');
$c->kill9('compute');
rename "$dir/compute", "$dir/old_compute" or die $!;
rename "$dir/new_compute", "$dir/compute" or die $!;
$c->start('compute');
ok(follow(), 'page servers follow the new one as before');
is(content(), $before, 'which has what it had');
remove_tree("$dir/old_compute");

# a copy of it is a copy
system('cp', '-a', "$dir/compute", "$dir/copy") == 0 or die 'cp';
unlink "$dir/copy/postmaster.pid", "$dir/copy/recovery.conf";
$out = `"$bindir/postgres" -D $dir/copy -c port=1 -c listen_addresses= -c unix_socket_directories= -c neon_comm.wal_feed_port=1 2>&1`;
like($out, qr/is not where this compute ran last: it is a copy/, 'a copy of what was laid does not start');
remove_tree("$dir/copy");

# ---- killed, and the directory is lost

my $open = $c->session;
$open->query(q{BEGIN; INSERT INTO sub SELECT 200000 + g FROM generate_series(1, 1000) g});
$c->sql(q{BEGIN; INSERT INTO sub VALUES (300001); PREPARE TRANSACTION 'third'});
$before = content();
ok(replayed(), 'all WAL is on page servers');
$c->kill9('compute');
lose();
($ok, $said) = create('--from', 'page-server', 1);
ok($ok, 'killed and lost: a compute from nothing, from the other page server') or diag($said, $c->log_tail);
is(content(), $before, 'all that was committed is there, and nothing else');
ok(follow(), 'page servers follow it');
sound('after a kill');
sequence_goes_on('after a kill');
is($c->sql(q{SELECT count(*) FROM sub WHERE x > 200000 AND x < 300000}), 0, 'what was not committed is not there');
$c->sql(q{COMMIT PREPARED 'third'; INSERT INTO sub SELECT 400000 + g FROM generate_series(1, 1000) g});
is($c->sql('SELECT count(*) FROM sub WHERE x >= 300000'), 1001, 'writes go on');

# ---- one page server has more than the other

ok(replayed(), 'both have the same');
my $writer = $c->session;
$writer->query('INSERT INTO sub VALUES (500001)');
my ($receiver) = $c->pids_of('page_server_1', qr/walreceiver/);
kill 'STOP', $receiver or die 'no walreceiver';
$writer->query('INSERT INTO sub VALUES (500002)');
my ($first, $second) = (0, 0);
foreach (1 .. 600)
{
	($first, $second) = map { replay_of($_) } 0, 1;
	last if $first > $second;
	usleep(100_000);
}
cmp_ok($first, '>', $second, 'one has a commit that the other has not');
$c->kill9('compute');
$c->kill9('page-server', 1);
lose();
($ok, $said) = create('--from', 'page-server', 1);
ok(!$ok, 'a compute is not made of the one that has less');
like($said, qr/page server 1 is at \S+, page server 0 at \S+: what only that one has would be lost/, '... and that is said');
ok(is_nothing("$dir/compute") && is_nothing("$dir/compute_new"), '... and nothing is left');
($ok, $said) = create();
ok($ok, 'without a choice it is made of the one that has more') or diag($said, $c->log_tail);
is($c->sql('SELECT count(*) FROM sub WHERE x IN (500001, 500002)'), 2, 'the commit is there');
ok(follow(), 'the other one gets from the new compute what it lacked, and follows');
sound('with WAL for another');

# ---- once more, page servers stopped meanwhile, and interrupted

ok(replayed(), 'page servers have it');
$before = content();
$c->stop;
lose();
rename "$dir/page_server_1/postgresql.conf", "$dir/kept.conf" or die $!;
($ok, $said) = create();
ok(!$ok, 'nothing is made while a page server cannot be asked');
like($said, qr/page server 1 did not start: it may have more than the others/, '... and that is said');
rename "$dir/kept.conf", "$dir/page_server_1/postgresql.conf" or die $!;
mkdir "$dir/compute_new" or die $!;
($ok, $said) = create('--conf', 'work_mem=5MB');
ok($ok, 'page servers are started for it, and what an interrupted call left is no hindrance') or diag($said, $c->log_tail);
is(content(), $before, 'all that was there is there');
is($c->sql('SHOW work_mem'), '5MB', 'it has the setting that was given');
is($c->sql('SHOW max_prepared_transactions'), '10', '... and those that init was given');
ok(follow(), 'page servers follow it');
sound('at last');

$c->stop;
$c->check_logs;
done_testing();
