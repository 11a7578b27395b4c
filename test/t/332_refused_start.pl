# A compute that was overtaken is started in its old directory, by the server alone (docs/takeover.md): it is refused
# before its port opens and before anything is changed there. One promise of three says nothing; one page server that
# follows another compute says enough.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of promise incarnation number_of members_known);
use Test::More;

my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ]);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server|overtaken/);
ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');
sub file { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return <$fh> }

# ---- one of three has promised itself to somebody

promise($c, 2, incarnation(number_of(status_of($c, 2)->{incarnation}) + 10));
$c->restart('compute');
is($c->sql('SELECT count(*) FROM t'), 1, 'one promise does not keep a compute from its start');

# ---- replaced; the old directory is started

$c->stop('compute');
rename "$dir/compute", "$dir/compute_lost" or die $!;
my ($ok, $out) = $c->try_dev('create-compute', '-D', $dir);
ok($ok, 'a compute is replaced') or die $out;
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE state = 'streaming'}), 'all page servers follow the new one');
$c->stop('compute');
rename "$dir/compute", "$dir/compute_new_one" or die $!;
rename "$dir/compute_lost", "$dir/compute" or die $!;

# Starts the server alone; what it says.
sub refused
{
	my ($why) = @_;
	my $identity = file("$dir/compute/compute_identity");
	my $said = `$bindir/postgres -D $dir/compute 2>&1`;
	isnt($?, 0, "$why: the start is refused");
	like($said, qr/FATAL: .*this compute was overtaken: it must not be started again/, '... with the reason');
	like($said, qr/DETAIL: .*belong to a newer compute, incarnation 0000[0-9a-f]{28}: .*page_server_0/, '... and who says so');
	unlike($said, qr/listening on|starting PostgreSQL/, '... before a port is open');
	is(file("$dir/compute/compute_identity"), $identity, '... and nothing was changed');
	return;
}
refused('page servers follow another compute');
$c->stop('page-server', $_) foreach 1, 2;
refused('one of them is there');
($ok, $out) = $c->try_dev('start', '-D', $dir, 'compute');
ok(!$ok, 'neon_dev start shows it');
like($out, qr/this compute was overtaken/, '... with the reason');

# ---- the new one

rename "$dir/compute", "$dir/compute_lost" or die $!;
rename "$dir/compute_new_one", "$dir/compute" or die $!;
$c->start;
is($c->sql('SELECT count(*) FROM t'), 1, 'the new one starts');
$c->check_logs;
done_testing();
