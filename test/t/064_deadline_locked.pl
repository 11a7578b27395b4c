# A read that holds a content lock cannot be cancelled, because interrupts are
# held with it; the deadline (neon_comm.request_timeout) ends it.  A btree page
# that is split has its right neighbour read under the lock of the page that is
# split: that neighbour's page server is frozen here.  Others go on meanwhile,
# and who waits for that lock goes on afterwards.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(buffers => '16MB', conf => ['neon_comm.silence_timeout=1h', 'deadlock_timeout=1h']);

# Leaves are full, and keys are far enough apart for others between them.
$c->sql(q{CREATE EXTENSION amcheck; CREATE TABLE t (id int, f text);
	INSERT INTO t SELECT g * 100, repeat('x', 20) FROM generate_series(1, 40000) g;
	CREATE INDEX t_id ON t (id) WITH (fillfactor = 100);});
$c->restart('compute');

sub pids
{
	return map { my $pm = $c->postmaster_pid("page_server_$_"); ($pm, split ' ', `ps -o pid= --ppid $pm`) } 0, 1;
}
sub freeze { kill 'STOP', pids(); return }
sub thaw   { kill 'CONT', pids(); return }
END { local $?; thaw() if $c && -d $c->{dir} }

my ($s, $other, $ctl) = map { $c->session } 1 .. 3;
my ($pid, $other_pid) = map { $_->pid } $s, $other;
my $slots = "SELECT count(*) FROM neon_comm.slots WHERE pid = $pid";
my $wait = "SELECT wait_event FROM pg_stat_activity WHERE pid = $other_pid";
my $cancel = "SELECT pg_cancel_backend($pid)";

# Everything that these statements need is in memory, but not the neighbour of this leaf.
my $probe = 'SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t WHERE id = 2000000';
my $insert = q{INSERT INTO t VALUES (%d, 'split'), (%1$d, 'split'), (%1$d, 'split')};
is($s->query("$probe; " . sprintf($insert, 3000000) . "; SET neon_comm.request_timeout = '10s'"), 1, 'the leaf is read');
is($other->query($probe), 1, 'by others, too');
$ctl->query($_) foreach $slots, $wait, 'SELECT 1 + 1', 'SELECT pg_cancel_backend(0)';

freeze();
# no room in the leaf: it is split
$s->send(sprintf($insert, 2000001));
usleep(20_000) until $s->ready || $ctl->query($slots) > 0;
ok(!$s->ready, 'the insert waits for a page');
$other->send('SELECT count(*) FROM t WHERE id = 2000000');
my $event = '';
($event) = $ctl->query($wait) until $s->ready || $event eq 'BufferContent';
is($event, 'BufferContent', 'it holds a lock meanwhile that another one waits for');
$ctl->query($cancel);
is($ctl->query('SELECT 1 + 1'), 2, 'others go on');
$s->wait;
like($s->{last_error}, qr/no answer from page servers for block \d+ of relation/, 'the deadline ends the wait, the cancel could not');
is($other->wait, 1, 'then who waited for the lock goes on');
is($ctl->query($slots), 0, 'no slot is left');
thaw();

# Once more with page servers that answer.
is($s->query("RESET neon_comm.request_timeout; " . sprintf($insert, 2000001) . ';
	SELECT count(*) FROM t WHERE id BETWEEN 2000000 AND 2000001'), 4, 'the insert works afterwards');
is($c->sql(q{SELECT bt_index_parent_check('t_id', true)}), '', 'the index is sound');
is($c->sql('SELECT count(*) FROM t'), 40006, 'and the table has its rows');
cmp_ok($c->counter('request_timeouts'), '>', 0, 'the deadline is counted');
$_->close foreach $s, $other, $ctl;
$c->check_logs;
done_testing();
