# A clean stop of a cluster: page servers get a last checkpoint from the compute and begin there at their next start, instead
# of replaying all since the last one that they happened to have. And a start waits for page servers that replay.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Members qw(status_of);
use NeonComm::Node qw(until_true);

my $c = NeonComm::Cluster->new(shards => 2, conf => [ 'checkpoint_timeout=1h', 'max_wal_size=8GB' ], ps_conf => [ 'checkpoint_timeout=1h', 'max_wal_size=8GB' ]);
my $dir = $c->{dir};
my ($bindir) = `$ENV{PG_CONFIG} --bindir` =~ m{^(.*)$};

sub number { my ($lsn) = @_; my ($high, $low) = $lsn =~ m{^(\w+)/(\w+)$} or die "no LSN: $lsn"; return (hex($high) << 32) + hex $low }

# Where replay of a stopped page server will begin.
sub begins
{
	my ($n) = @_;
	my $out = qx{$bindir/pg_controldata -D '$dir/page_server_$n'};
	my ($lsn) = $out =~ /^Latest checkpoint's REDO location: +(\S+)$/m or die $out;
	return number($lsn);
}

# ---- the last checkpoint

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('w', 400) AS f FROM generate_series(1, 20000) g});
my $loaded = number($c->sql('SELECT pg_current_wal_insert_lsn()'));
my $redo = number($c->sql('SELECT redo_lsn FROM pg_control_checkpoint()'));
cmp_ok($redo, '<', $loaded - 4_000_000, 'there was no checkpoint since the load began');
$c->stop;
cmp_ok(begins($_), '>=', $loaded, "page server $_ begins behind the load") foreach 0, 1;
$c->start;
is($c->sql('SELECT count(*) FROM t'), 20000, 'all is there');

# a stop of the compute alone
$c->sql('UPDATE t SET id = id + 1');
$loaded = number($c->sql('SELECT pg_current_wal_insert_lsn()'));
$c->stop('compute');
ok(until_true(sub { status_of($c, 0)->{replayed_all} eq 'on' }), 'replayed');
$c->stop('page-server', 0);
cmp_ok(begins(0), '>=', $loaded, 'a stop of the compute alone does it, too');
$c->start;

# nobody to send it to: a stop takes no longer, and makes none
$c->kill9('page-server', $_) foreach 0, 1;
$c->stop('compute');
ok(1, 'without page servers a compute stops');
$c->start;
is($c->sql('SELECT count(*) FROM t'), 20000, 'all is there');

$c->check_logs;
done_testing();
