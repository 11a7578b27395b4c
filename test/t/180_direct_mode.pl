# neon_comm.mode = direct: every process reads over connections of its own and the
# communicator is asked for nothing: cold, after cancels in the middle of an answer,
# a restart of page servers, another shard map, a crash of the compute. A session may
# switch. Seen to fail: without orphans in the order of a connection (direct_conn.c),
# the read after the cancel gets its predecessor's answer, is poisoned and counted so.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(buffers => '2MB',
	conf => [ 'neon_comm.mode=direct', 'neon_comm.silence_timeout=1h' ]);

# rows name their own block
$c->sql(q{CREATE TABLE a (id int, f text) WITH (fillfactor = 10);
	INSERT INTO a SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 1999) g;
	CREATE TABLE b (id int, f text) WITH (fillfactor = 10);
	INSERT INTO b SELECT g, lpad(g::text, 700, 'b') FROM generate_series(0, 1999) g;
	CREATE INDEX ON a (id); ANALYZE a;});
cmp_ok($c->sql(q{SELECT pg_relation_size('a')}), '>', 8 * 1024 * 1024, 'the table is larger than shared buffers');

sub right
{
	my ($t, $char) = @_;
	return "SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id OR f <> lpad(id::text, 700, '$char')) FROM $t";
}
my ($right_a, $right_b) = (right('a', '0'), right('b', 'b'));

$c->restart('compute');
is($c->sql($right_a), '2000|0', 'a cold scan');
is($c->sql("SET enable_seqscan = off; SELECT count(*) FROM a WHERE id BETWEEN 100 AND 299"), 200, 'through an index');
$c->sql('UPDATE b SET id = id WHERE id % 7 = 0; VACUUM b; CHECKPOINT');
cmp_ok($c->counter('reads_direct'), '>', 2000, 'read over own connections');
# in one look: who looks reads, too
is($c->sql(q{SELECT count(DISTINCT value) FROM neon_comm.counters WHERE name IN ('reads_direct', 'reads_remote')}), 1, 'all of them');
is($c->counter('requests'), 0, 'the communicator was not asked, by any process');
cmp_ok($c->counter('connects'), '>', 4, 'each process connected');

# A session switches there and back.
my $s = $c->session;
$s->query('SET neon_comm.mode = communicator');
is($s->query($right_a), '2000|0', 'through the communicator');
cmp_ok($c->counter('requests'), '>', 0, 'which was asked');
$s->query('SET neon_comm.mode = direct');
my $before = $c->counter('requests');
is($s->query($right_b =~ s/FROM b/FROM b WHERE id % 7 <> 0/r), '1714|0', 'and directly again');
is($c->counter('requests'), $before, 'without it');
my (undef, undef, $err) = $c->try_sql('CREATE ROLE joe; SET ROLE joe; SET neon_comm.mode = communicator');
like($err, qr/permission denied to set parameter/, 'superusers only');

# Cancelled in the middle of an answer: the next reads of the same connection are right.
sub ps_pids
{
	my $pm = $c->postmaster_pid("page_server_$_[0]");
	return grep { /^\d+$/ } ($pm, split(/\s+/, `ps -o pid= --ppid $pm`));
}
sub freeze { kill 'STOP', ps_pids(0), ps_pids(1); return }
sub thaw { kill 'CONT', ps_pids(0), ps_pids(1); return }
END { local $?; thaw() if $c && -d $c->{dir} }

$s->query($right_a);
$s->query('SELECT sum(id) FROM b WHERE id % 7 <> 0');
$s->query("EXPLAIN SELECT sum(id) FROM a");
my $warm = "SELECT sum(id) FROM a WHERE ctid = '(%d,1)'";
$s->query(sprintf $warm, 1999);
freeze();
foreach my $block (10, 11, 12)
{
	my (undef, $error) = $s->try("SET statement_timeout = '1s'; " . sprintf($warm, $block));
	like($error, qr/statement timeout/, "cancelled at block $block");
}
(undef, $err) = $s->try("SET statement_timeout = 0; SET neon_comm.request_timeout = '1s'; " . sprintf($warm, 13));
like($err, qr/no answer from page servers for block 13 of relation/, 'the deadline ends a wait, in the same words');
$s->query('RESET neon_comm.request_timeout');
thaw();
is($s->query(sprintf $warm, 11), 11, 'the right block after those');
is($s->query($right_a), '2000|0', 'all blocks right in the same session');
is($s->query($right_b =~ s/FROM b/FROM b WHERE id % 7 <> 0/r), '1714|0', 'of another table too');
cmp_ok($c->counter('late_answers'), '>=', 4, 'answers that nobody waited for came and were dropped');
is($c->counter('connections_poisoned'), 0, 'and were not taken for others');

# Terminate while waiting; the exit of that process reads, too (its temporary table).
my $s2 = $c->session;
$s2->query('CREATE TEMP TABLE tmp AS SELECT g FROM generate_series(1, 5000) g');
$s2->query($right_b);
my $pid = $s2->pid;
my $watch = $c->session;
$watch->query('SELECT pg_terminate_backend(NULL)');
$watch->query("SELECT wait_event FROM pg_stat_activity WHERE pid = $pid");
# from 17 on waits have names of their own
my $waits = $watch->query('SHOW server_version_num') >= 170000 ? 'NeonPageRead' : 'DataFileRead';
freeze();
$s2->send(sprintf $warm, 20);
my $event = '';
foreach (1 .. 1200)
{
	$event = $watch->query("SELECT wait_event FROM pg_stat_activity WHERE pid = $pid");
	last if $event eq $waits;
	select(undef, undef, undef, 0.05);
}
is($event, $waits, 'it waits');
$watch->query("SELECT pg_terminate_backend($pid)");
thaw();
$s2->wait;
like($s2->{last_error}, qr/terminating connection due to administrator command/, 'terminate ends the wait');
ok($c->wait_for(q{SELECT count(*) = 0 FROM pg_class WHERE relname = 'tmp'}), 'its exit dropped its temporary table');

# Page servers go and come: nobody sees an error.
my $text = '';
my $h = $c->background(\$text, 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $c->conninfo . ' dbname=postgres',
	'-c', "DO \$\$ BEGIN FOR i IN 1 .. 12 LOOP PERFORM sum(length(f)) FROM a; END LOOP; END \$\$");
my $lost = $c->counter('disconnects');
$c->restart('page-server', $_) foreach (0, 1);
ok($h->finish, 'a reader survives the restart of its page servers') or diag($text);
is($s->query($right_a), '2000|0', 'so does an old session');
cmp_ok($c->counter('disconnects'), '>', $lost, 'which lost its connections');

# Another map: host names, which a thread resolves.
my $list = $c->sql('SHOW neon_comm.page_servers');
(my $named = $list) =~ s/(host(?:addr)?)=127\.0\.0\.1/host=localhost/g;
isnt($named, $list, 'addresses can be written as names');
my $connects = $c->counter('connects');
$c->sql("ALTER SYSTEM SET neon_comm.page_servers = '" . $named =~ s/'/''/gr . "'");
$c->sql('SELECT pg_reload_conf()');
ok($c->wait_for("SELECT current_setting('neon_comm.page_servers') LIKE '%localhost%'"), 'the new map is known');
is($s->query($right_a), '2000|0', 'read through it, by an old session');
cmp_ok($c->counter('connects'), '>=', $connects + 2, 'over new connections');
# Where /etc/hosts has ::1 for it, too, nobody listens at one of two addresses: processes begin with different ones.
my %odd;
while (keys %odd < 2)
{
	my $new = $c->session;
	$odd{ $new->pid % 2 } //= $new->query($right_a);
}
is_deeply([ values %odd ], [ '2000|0', '2000|0' ], 'whichever address a process begins with');
$c->sql('ALTER SYSTEM RESET neon_comm.page_servers');
$c->sql('SELECT pg_reload_conf()');

# Crash recovery reads directly as well.
$c->sql("CHECKPOINT; UPDATE a SET f = lpad(id::text, 700, 'c') WHERE id < 500");
$c->kill9('compute');
$c->start('compute');
is($c->sql("SELECT count(*) FROM a WHERE f = lpad(id::text, 700, 'c')"), 500, 'after a crash');
is($c->counter('requests'), 0, 'no process of that life asked the communicator');
is($c->counter('stale_answers'), 0, 'no answer was old');
$c->allow_log(qr/terminated by signal 9/);
$c->check_logs;
done_testing();
