# A compute that is laid from a page server goes on where replay stood. Of the record that the lost compute was
# writing there page servers have a part, over several segments: they wait for the rest, which will never come, and
# have to read that place again (docs/boot.md, "The checkpoint"). Nobody writes meanwhile, so nothing else wakes them.
use strict;
use warnings;

use File::Path qw(remove_tree);
use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;
use NeonComm::Pagestream;

my $c = NeonComm::Cluster->new(shards => 2, conf => [ 'max_wal_size=4GB', 'checkpoint_timeout=1h', 'autovacuum=off' ], ps_conf => ['checkpoint_timeout=1h']);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server/);

sub number { my ($high, $low) = map { hex } split m{/}, $_[0]; return $high * 2**32 + $low }

# How far each page server has received WAL, and replayed it.
sub positions
{
	return map {
		my $p = NeonComm::Pagestream->new(port => $c->page_server_port($_));
		my $s = $p->status;
		$p->close;
		{ received => number($s->{received_lsn}), replayed => number($s->{replay_lsn}) }
	} 0, 1;
}

$c->sql('CREATE TABLE t (id int, f text); INSERT INTO t SELECT g, repeat(g::text, 20) FROM generate_series(1, 5000) g; CREATE INDEX ON t (id)');
ok($c->wait_for('SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) FROM neon_comm.page_servers'), 'all is replayed');

# ---- a record of 400 MB, of which 40 have been sent when its compute is killed

my $out = '';
my $message = $c->background(\$out, 'psql', '-XqAt', '-d', $c->conninfo . ' dbname=postgres', '-c', q{SELECT pg_logical_emit_message(false, 'seam', repeat('x', 400000000))});
my @at;
foreach (1 .. 3000)
{
	@at = positions();
	last if 2 == grep { $_->{received} > $_->{replayed} + 40e6 } @at;
	usleep(20_000);
}
$c->kill9('compute');
$message->kill_kill;
foreach my $n (0, 1)
{
	cmp_ok($at[$n]{received}, '>', $at[$n]{replayed} + 40e6, "page server $n has a part of a record");
}
@at = positions();
is($at[0]{replayed}, $at[1]{replayed}, 'both have replayed all but that');
remove_tree("$dir/compute");

# ---- another compute begins there, and is asked for what its page servers have to replay first

my ($ok, $said) = $c->try_dev('create-compute', '-D', $dir);
ok($ok, 'a compute is laid, and lets somebody in') or diag($said);
is($c->sql('SELECT count(*), sum(id), sum(length(f)) FROM t'), $c->sql('SELECT count(*), sum(g), sum(length(repeat(g::text, 20))) FROM generate_series(1, 5000) g'), 'all rows');
$c->sql('INSERT INTO t SELECT g FROM generate_series(5001, 6000) g');
ok($c->wait_for('SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) FROM neon_comm.page_servers'), 'all is replayed again');
$c->restart;
is($c->sql('SELECT count(*), max(id) FROM t'), '6000|6000', 'the cluster goes on');
my $log = do { local $/; open my $fh, '<', "$dir/log/compute.log" or die $!; <$fh> };
is(() = $log =~ /WAL has to be read again from where this compute was laid/g, 2, 'each page server was told once to read there again');
$c->stop;
$c->check_logs;
done_testing();
