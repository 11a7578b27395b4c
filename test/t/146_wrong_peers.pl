# A compute among strangers: page servers of another cluster or another
# timeline, page servers that are ahead because the compute lost WAL, a marker
# of another cluster, and the library where it does not belong.  Each is refused
# with a message that says what to do, and what was refused changes nothing.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $a = NeonComm::Cluster->new(buffers => '2MB', conf => ['neon_comm.request_timeout=2min']);
my $b = NeonComm::Cluster->new(shards => 2);

foreach my $c ($a, $b)
{
	$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('a', 400) AS f FROM generate_series(1, 20000) g});
	$c->evict;
	# what was kept while it was made is on the page servers now
	$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
}
cmp_ok($a->sql(q{SELECT pg_relation_size('t')}), '>', 4 * 1024 * 1024, 'the table is large');

sub ids { my ($c, $what) = @_; return $c->sql("SHOW neon_comm.$what") }

# ---- page servers of another cluster
my $right = $a->sql('SHOW neon_comm.page_servers');
my $wrong = $b->sql('SHOW neon_comm.page_servers');
isnt(ids($a, 'tenant_id'), ids($b, 'tenant_id'), 'two clusters have two tenants');
my $s = $a->session;
my $watch = $a->session;
my $slots = 'SELECT count(*) FROM neon_comm.slots WHERE pid = ' . $s->pid;
$s->query(q{SELECT count(*), sum(id) FROM t WHERE ctid = '(0,1)'});
# what follows is asked by sessions whose catalog pages may go: so it is all asked once, in one session
my $map_changes = q{SELECT value FROM neon_comm.counters WHERE name = 'map_changes'};
$watch->query($_) foreach $slots, $map_changes, "SELECT ($map_changes) > 0", "ALTER SYSTEM SET neon_comm.page_servers = '$right'", 'SELECT pg_reload_conf()';

sub use_servers
{
	my ($list) = @_;
	my $conf = "$a->{dir}/compute/postgresql.auto.conf";
	# asked first: a reload that is still on its way may read what is written now
	my $before = $watch->query($map_changes);
	open my $fh, '>', $conf or die $!;
	print $fh "neon_comm.page_servers = '$list'\n";
	close $fh;
	kill 'HUP', $a->postmaster_pid('compute');
	# or a reader might be done before they are asked
	ok($watch->wait_for("SELECT ($map_changes) > $before"), 'other page servers are in use');
	return;
}

my $from = length $a->log_text('compute');
use_servers($wrong);
$s->send('SELECT count(*), sum(id) FROM t');
ok($a->wait_log('compute', qr/communicator: warning: shard \d .*tenant "[0-9a-f]{32}" is not served: set neon_comm\.tenant_id or neon_page_service\.tenant_id/, $from),
	'another cluster: the log names what differs and what to do');
my ($line) = substr($a->log_text('compute'), $from) =~ /(communicator: warning: shard \d .*tenant.*)/;
note($line);
is($s->ready, '', 'another cluster: its pages are not taken, the reader waits');
use_servers($right);
is($s->wait, '20000|200010000', 'with the right ones it goes on');

# ---- the right tenant, another timeline
my $before = $b->sql('SELECT count(*), sum(id) FROM t');
foreach my $n (0, 1)
{
	$b->append_conf("page_server_$n", "neon_page_service.tenant_id = '" . ids($a, 'tenant_id') . "'");
	kill 'HUP', $b->postmaster_pid("page_server_$n");
}
$a->evict;
$from = length $a->log_text('compute');
use_servers($wrong);
$s->send('SELECT count(*), sum(id) FROM t');
ok($a->wait_log('compute', qr/communicator: warning: shard \d .*timeline "[0-9a-f]{32}" is not served: set neon_comm\.timeline_id or neon_page_service\.timeline_id/, $from),
	'another timeline: the log names what differs and what to do');
use_servers($right);
is($s->wait, '20000|200010000', 'and with the right ones it goes on');
is($a->counter('pages_received') > 0 ? $a->counter('future_answers') : -1, 0, 'no page of a stranger was looked at');

# ---- the compute has lost WAL that its page servers have
$s->close;
$watch->close;
undef $s;
undef $watch;
unlink "$a->{dir}/compute/postgresql.auto.conf";
$a->stop;
system('cp', '-a', '--sparse=always', "$a->{dir}/compute", "$a->{dir}/older") == 0 or die 'cp';
$a->start;
$a->sql('UPDATE t SET f = f || $$b$$; CHECKPOINT; UPDATE t SET f = f || $$c$$; SELECT pg_switch_wal()');
ok($a->wait_for(q{SELECT bool_and((apply_lsn = pg_current_wal_lsn()) IS TRUE) FROM neon_comm.page_servers}), 'page servers have it all');
$a->stop('compute');
rename "$a->{dir}/compute", "$a->{dir}/newer" or die $!;
rename "$a->{dir}/older", "$a->{dir}/compute" or die $!;
$a->append_conf('compute', "neon_comm.request_timeout = '5s'\nneon_comm.allow_takeover = on");
$from = length $a->log_text('compute');
# It may or may not get as far as taking connections: catalogs are among what is refused.
my ($ok, $out) = $a->try_dev('start', '-D', $a->{dir}, 'compute', '-t', 60);
ok($a->wait_log('compute', qr/WAL feed refused page_server_\d at .*: page server and compute have parted/, $from),
	'lost WAL: the feed refuses such page servers');
like(substr($a->log_text('compute'), $from), qr/have parted.*\n(?:.*\n){0,2}.*HINT:/, 'lost WAL: and says what to do')
  or diag(substr($a->log_text('compute'), $from));
my ($rc, $rows, $err) = $a->try_sql(q{SELECT count(*) FILTER (WHERE f LIKE '%b%') FROM t});
isnt($rc, 0, 'lost WAL: a query of changed pages is an error');
like($err, qr/parted|from the future|no answer from page servers/, 'lost WAL: that says so');
note($err);
$a->stop('compute', '--mode', 'immediate');

# The newer compute takes over again: nothing is lost.
rename "$a->{dir}/compute", "$a->{dir}/older" or die $!;
rename "$a->{dir}/newer", "$a->{dir}/compute" or die $!;
$a->start('compute');
is($a->sql('SELECT count(*), sum(id), count(*) FILTER (WHERE f LIKE $$%bc$$) FROM t'), '20000|200010000|20000',
	'the right compute reads all');

# ---- a marker of another cluster
$a->stop('compute');
rename "$a->{dir}/compute/neon_comm.skeleton", "$a->{dir}/marker" or die $!;
system('cp', "$b->{dir}/compute/neon_comm.skeleton", "$a->{dir}/compute/neon_comm.skeleton") == 0 or die;
($ok, $out) = $a->try_dev('start', '-D', $a->{dir}, 'compute');
ok(!$ok, 'the marker of another cluster ends the start');
like($a->log_text('compute'), qr/file "neon_comm\.skeleton" belongs to another cluster/, 'and says why');
rename "$a->{dir}/marker", "$a->{dir}/compute/neon_comm.skeleton" or die $!;
$a->start('compute');
is($a->sql('SELECT count(*) FROM t'), 20000, 'with its own it starts');
is($b->sql('SELECT count(*), sum(id) FROM t'), $before, 'the other cluster never noticed');

# ---- the library without shared_preload_libraries, on an ordinary server
my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;
my $plain = "$a->{dir}/plain";
system("'$bindir/initdb' -D $plain -A trust -N >/dev/null 2>&1") == 0 or die 'initdb';
sub plain_start
{
	my ($conf) = @_;
	open my $fh, '>', "$plain/postgresql.auto.conf" or die $!;
	print $fh "listen_addresses = ''\nunix_socket_directories = '$plain'\nfsync = off\n$conf";
	close $fh;
	return system("'$bindir/pg_ctl' -w -D $plain -l $a->{dir}/log/plain.log start >/dev/null 2>&1") == 0;
}
sub plain_sql { my ($sql) = @_; return `'$bindir/psql' -XAtq -h $plain -d postgres -c "$sql" 2>&1` }

ok(plain_start("session_preload_libraries = 'neon_comm'\n"), 'session_preload_libraries: the server starts');
is(plain_sql('SELECT 1'), "1\n", 'session_preload_libraries: sessions work as ever');
is(plain_sql('CREATE EXTENSION neon_comm'), '', 'the extension can be made');
foreach my $call ('neon_comm.status()', 'neon_comm.counters', 'neon_comm.slots', 'neon_comm.connections',
	'neon_comm.page_servers', 'neon_comm.local_bytes()', 'neon_comm.local_blocks()', 'neon_comm.sweep()',
	'neon_comm.restart_communicator()')
{
	like(plain_sql("SELECT * FROM $call"), qr/neon_comm must be loaded via shared_preload_libraries/,
		"without preload $call says what to do");
}
is(plain_sql("LOAD 'neon_comm'; SELECT 2"), "2\n", 'LOAD does no harm');
is(plain_sql('CREATE TABLE x AS SELECT generate_series(1, 1000) g; SELECT count(*) FROM x'), "1000\n", 'tables are the server\'s own');
system("'$bindir/pg_ctl' -w -D $plain -m fast stop >/dev/null 2>&1");

# Preloaded, but with page servers: not a skeleton, so it must not start and not be touched.
ok(!plain_start("shared_preload_libraries = 'neon_comm'\nneon_comm.page_servers = '$right'\nneon_comm.tenant_id = '"
		. '0' x 32 . "'\nneon_comm.timeline_id = '" . '0' x 32 . "'\nfsync = on\n"),
	'preloaded with page servers on an ordinary data directory: no start');
like($a->log_text('plain'), qr/is not a neon_comm skeleton/, 'and a message');
ok(plain_start(''), 'without the library it starts');
is(plain_sql('SELECT count(*) FROM x'), "1000\n", 'with all its contents');
system("'$bindir/pg_ctl' -w -D $plain -m fast stop >/dev/null 2>&1");

$a->allow_log(qr/from the future|could not read block .* from its page server: .*: parted: /);
foreach my $c ($a, $b) { $c->check_logs }
done_testing();
