# A page server that is lost is replaced and becomes a member (docs/takeover.md): then another one may be lost, and the
# compute with it, and no acknowledged commit is.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of members_known);
use Test::More;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2, '--hosts', 2 ]);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server|overtaken/);
sub counting { my ($n) = @_; return $c->wait_for("SELECT count(*) = $n FROM neon_comm.page_servers WHERE sync_state = 'quorum'") }
sub lose { my (@part) = @_; $c->kill9(@part); system 'rm', '-rf', "$dir/" . join('_', map { tr/-/_/r } @part); return }
my $members = q{SELECT string_agg(member, ' ' ORDER BY name) FROM neon_comm.members};

ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');
my @before = split / /, $c->sql($members);

# ---- one page server is lost

lose('page-server', 1);
my ($ok, $out) = $c->try_dev('replace-page-server', 1, '-D', $dir);
ok($ok, 'a lost page server is replaced') or diag($out);
ok(counting(3), 'three count');
my @after = split / /, $c->sql($members);
isnt($after[1], $before[1], 'another directory is the member');
is("$after[0] $after[2]", "$before[0] $before[2]", '... in place of one');
is($after[1], status_of($c, 1)->{member}, '... which is the new one');

# ---- then another one, and the compute; the third has less

$c->stop('page-server', 0);
my $s = $c->session;
$s->query("INSERT INTO t VALUES ($_)") foreach 2 .. 20;
$c->kill9('compute');
lose('page-server', 2);
lose('compute');
($ok, $out) = $c->try_dev('create-compute', '-D', $dir);
ok($ok, 'a compute is made of the two that are left') or diag($out);
unlike($out, qr/may be gone/, '... without a doubt');
is($c->sql('SELECT count(*), max(x) FROM t'), '20|20', 'every commit that was acknowledged is there');

# ---- and so on

($ok, $out) = $c->try_dev('replace-page-server', 2, '-D', $dir);
ok($ok, 'the second one is replaced') or diag($out);
ok(counting(3), 'three count again');
is($c->sql($members), join(' ', map { status_of($c, $_)->{member} } 0 .. 2), 'they are the members');

# ---- W, up and down

foreach my $quorum (3, 1, 2)
{
	($ok, $out) = $c->try_dev('write-quorum', $quorum, '-D', $dir);
	ok($ok, "W becomes $quorum") or diag($out);
	is($c->sql(q{SELECT DISTINCT list, write_quorum FROM neon_comm.members}), "all|$quorum", '... for members');
	ok($c->wait_for("SELECT current_setting('synchronous_standby_names') LIKE 'ANY $quorum (%' AND current_setting('neon_comm.write_quorum') = '$quorum'"),
		'... and for settings');
	$c->sql("INSERT INTO t VALUES (20 + $quorum)");
}
($ok, $out) = $c->try_dev('write-quorum', 4, '-D', $dir);
ok(!$ok, 'more than there are');
like($out, qr/has to be from 1 to the number of page servers, which is 3/, '... is refused');
$c->restart;
is($c->sql('SELECT count(*) FROM t'), 23, 'after a restart all is there');
is($c->sql(q{SELECT DISTINCT list, write_quorum FROM neon_comm.members}), 'all|2', '... with the members');
$c->check_logs;
done_testing();
