# PostgreSQL 18 with neon_comm.async_reads: there is a slot for each AIO handle, however many there are; reads
# are as long as the server combines them, and 32 blocks at most; who reads temporary and unlogged tables has
# nothing to do with it; what fails here is no failed checksum; and an exit waits for nobody.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;
use NeonComm::Proxy;

my ($major) = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --version` =~ /(\d+)/;
plan skip_all => "PostgreSQL $major has no AIO handles, 18 is the first" if $major < 18;

my $pages = 1600;
my $c = NeonComm::Cluster->new(shards => 2, stripe => 2, buffers => '64MB', checksums => 1, conf => [
	'neon_comm.async_reads=on', 'neon_comm.readahead_blocks=0', 'neon_comm.silence_timeout=1h', 'neon_comm.request_timeout=1h',
	'neon_comm.hedged_reads=off', 'io_method=worker', 'max_connections=10', 'temp_buffers=800kB' ]);
$c->sql(qq{CREATE EXTENSION pg_buffercache;
	CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, $pages - 1) g;
	CREATE UNLOGGED TABLE unlogged AS TABLE self});
$c->sql('VACUUM (FREEZE, ANALYZE) self');
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
is($c->sql(q{SELECT pg_relation_size('self') / 8192}), $pages, 'a row a page');
my $rel = $c->sql(q{SELECT pg_relation_filenode('self')});
my $what = q{count(*), sum(id), count(*) FILTER (WHERE f <> lpad(id::text, 700, '0'))};
my $right = "$pages|" . $pages * ($pages - 1) / 2 . '|0';
my $watch;

sub counters { return { map { split /\|/ } split /\n/, $watch->query('SELECT name, value FROM neon_comm.counters') } }
sub moved { my ($b) = @_; my $a = counters(); return { map { $_ => $a->{$_} - $b->{$_} } keys %$a } }
sub cold
{
	my $in = q{SELECT count(*) = 0 FROM pg_buffercache WHERE relforknumber = 0 AND relfilenode = pg_relation_filenode('self')};
	foreach (1 .. 600)
	{
		$watch->query(q{SELECT pg_buffercache_evict_relation('self')});
		return if $watch->query($in) eq 't';
		usleep(50_000);
	}
	die 'the table stays in shared buffers';
}

sub reader
{
	my $s = $c->session;
	$s->query(qq{SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off; SET effective_io_concurrency = 200;
		SET io_combine_limit = '1MB'; SELECT $what FROM self});
	return $s;
}

# ---- as many handles as there may be, and as few ----

foreach my $case ([ 1, 10, '128kB' ], [ 64, 10, '1MB' ], [ 100, 100, '128kB' ], [ 1024, 10, '8kB' ])
{
	my ($handles, $connections, $combine) = @$case;
	my $name = "io_max_concurrency $handles, max_connections $connections, io_max_combine_limit $combine";
	$c->append_conf('compute', "io_max_concurrency = $handles\nmax_connections = $connections\nio_max_combine_limit = $combine");
	$c->restart('compute');
	$watch = $c->session;
	my @readers = map { reader() } 1 .. 4;
	cold();
	my $b = counters();
	$_->send("SELECT $what FROM self") foreach @readers;
	is($_->wait, $right, "$name: rows") foreach @readers;
	my $m = moved($b);
	my ($least) = map { $_ > 32 ? 32 : $_ } { '8kB' => 1, '128kB' => 16, '1MB' => 128 }->{$combine};
	cmp_ok($m->{reads_to_shared_buffer}, '>=', $pages, "$name: straight into shared buffers");
	cmp_ok($m->{reads_async}, '>=', 0.7 * $pages / $least, "$name: the communicator completes reads");
	cmp_ok($m->{requests}, '<=', 2 * $pages / $least + 200, "$name: of as many blocks as there may be");
	is($m->{found_late}, 0, "$name: no doorbell was lost");
	$_->close foreach @readers, $watch;
}

# ---- local buffers, and files of this machine ----

foreach my $method ('worker', 'io_uring', 'sync')
{
	next if $method eq 'io_uring' && $c->sql('SELECT io_method FROM neon_comm.status()') ne 'io_uring';
	$c->append_conf('compute', "io_method = $method\nio_max_concurrency = 4\nio_max_combine_limit = 128kB");
	$c->restart('compute');
	$watch = $c->session;
	my $s = reader();
	$s->query('CREATE TEMP TABLE mine AS TABLE self; CREATE TABLE wide AS TABLE self');
	my $b = counters();
	is($s->query("SELECT $what FROM mine"), $right, "$method: rows of a temporary table");
	is($s->query("SELECT $what FROM unlogged"), $right, "$method: of an unlogged one");
	cmp_ok($s->query(q{SELECT pg_relation_size('mine') / 8192}), '>', 100, "$method: local buffers do not hold it");
	cmp_ok(moved($b)->{reads_async}, '<=', 20, "$method: nobody asks a page server for them");
	cold();
	$s->query("DECLARE a CURSOR WITH HOLD FOR SELECT count(*) FROM mine JOIN self USING (id)");
	is($s->query('FETCH a; CLOSE a'), $pages, "$method: both at once");
	$s->query('DROP TABLE wide');
	$_->close foreach $s, $watch;
}

# ---- failures ----

my $p = NeonComm::Proxy->new(seed => 18);
$c->append_conf('compute', "io_method = worker\nio_max_concurrency = 16");
$c->restart('compute');
$c->use_proxy($p, 2);
$watch = $c->session;
my $s = reader();
my $failures = q{SELECT sum(coalesce(checksum_failures, 0)) FROM pg_stat_database};
is($watch->query($failures), 0, 'no checksum has failed');
foreach my $rule ('drop', 'wrongid', 'error=LSN_timeout:_injected', 'error=Read_error:_injected')
{
	$c->allow_log(qr/could not read block \d+ of relation/);
	cold();
	my $id = $p->rule("tag=getpage rel=$rel nth=300 count=2 every=200 $rule");
	my ($out, $err) = $s->try("SELECT $what FROM self");
	ok($out eq $right || $err =~ /could not read block \d+ .*injected/, "$rule: rows, or the reason") or diag($out, $err);
	cmp_ok($p->fired($id), '>=', 1, "$rule: it happened");
	$p->clear;
}
$s->query('SELECT pg_stat_force_next_flush()');
is($watch->query($failures), 0, 'nor has one by failures of page servers');

# Who is told to go goes, whatever he has on its way; the one that watches knows its catalogs.
$watch->query(q{SELECT pg_terminate_backend(NULL); SELECT count(*) FROM pg_aios; SELECT count(*) FROM pg_stat_activity});
cold();
$p->rule("tag=getpage rel=$rel block=$_ hold") foreach 600 .. 639;
$s->send("SELECT $what FROM self");
my $flying = q{SELECT count(*) FROM pg_aios WHERE state = 'SUBMITTED' AND pid = } . $s->pid;
ok($watch->wait_for("$flying" =~ s/count\(\*\)/count(*) > 2/r), 'reads are on their way');
$watch->query('SELECT pg_terminate_backend(' . $s->pid . ')');
ok($watch->wait_for('SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ' . $s->pid), 'their owner ends');
is($watch->query($flying), 0, 'and has none any more');
$p->clear;
$p->cmd('release *');
is(reader()->query("SELECT $what FROM self"), $right, 'rows for others');
$c->check_logs;
done_testing();
