# A process that reads directly and gets no descriptor to wait with fails its query, tries
# again with the next, and keeps no memory of the attempts.
#
# Seen to fail: 340 kB more of address space with each query (direct_buffers_kept).
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'autovacuum=off' ]);

$c->sql(q{CREATE EXTENSION pageinspect;
	CREATE TABLE t AS SELECT g AS id, repeat('t', 400) AS f FROM generate_series(1, 2000) g});
$c->restart;
my $p = NeonComm::TestPoint->new($c);
my $s = $c->session;
my $pid = $s->query('SELECT pg_backend_pid()');

sub address_space_kb
{
	open my $status, '<', "/proc/$pid/status" or die $!;
	return (map { /^VmSize:\s+(\d+)/ ? $1 : () } <$status>)[0];
}

# what it needs to know of the table it reads over the communicator
$s->query(q{SELECT length(get_raw_page('t', 99))});
$s->query('SET neon_comm.mode = direct');
$p->error('direct-set', pid => $pid);
my $try = sub { return eval { $s->query(q{SELECT length(get_raw_page('t', 5))}); 1 } };
ok(!$try->(), 'no descriptor to wait with: the query fails');
my $before = address_space_kb();
my $failed = 0;
$failed += !$try->() foreach 1 .. 40;
is($failed, 40, 'and so do all others');
cmp_ok(address_space_kb() - $before, '<', 4096, 'none of which leaves memory behind');
$p->disarm('direct-set');
is($s->query(q{SELECT length(get_raw_page('t', 5))}), 8192, 'then it goes on');
$p->close;
$c->check_logs;
done_testing();
