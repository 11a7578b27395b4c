# Sequences are found in their files by whoever uses them first after a start.  He may have
# as many files open as he can have: then some are closed.  And what has been dropped from
# a file does not come back from a file system that makes no holes: a sequence
# would give values twice.
#
# Seen to fail: the file was not opened and the sequence fell back to its logged state
# (94_few_descriptors); values 6 to 9 came again (94_no_holes).
use strict;
use warnings;

use IPC::Run;
use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.sweep_interval=1h', 'autovacuum=off' ]);
my $files = 20;

# ---- a file system without holes
$c->sql('CREATE SEQUENCE h');
$c->append_conf('compute', q{neon_comm.test_points = 'skeleton-punch=errno:95:-1'});
$c->restart('compute');
$c->sql('CHECKPOINT');
is($c->sql(q{SELECT nextval('h') FROM generate_series(1, 5)}), join("\n", 1 .. 5), 'logged ahead');
$c->evict;
$c->sql(q{SELECT nextval('h') FROM generate_series(6, 9)});
$c->kill9('compute');
$c->start('compute');
cmp_ok($c->sql(q{SELECT nextval('h')}), '>', 9, 'no value comes twice after a kill');
$c->sql(q{SELECT nextval('h')});
$c->restart('compute');
cmp_ok($c->sql(q{SELECT nextval('h')}), '>', 10, 'nor after a restart');
# ---- a process that has used up its descriptors
$c->sql('CREATE SEQUENCE s');
$c->sql(join '', map { "CREATE TABLE t$_ AS SELECT 1 AS id;" } 1 .. $files);
my $node = $c->sql(q{SELECT pg_relation_filenode('s')});
is($c->sql(q{SELECT nextval('s')}), 1, 'a sequence begins');
$c->stop('compute');
# the sweeper stops before its first file
$c->append_conf('compute', q{neon_comm.test_points = 'skeleton-rest=pause:0:1'});
$c->start('compute');
ok($c->wait_log('compute', qr/test point "skeleton-rest": process \d+ stops/), 'nobody has come to the sequence');
my $s = $c->session;
# the catalogs' files that nextval() reads are open, and those of tables
is($s->query(q{SELECT relname FROM pg_class WHERE oid = 's'::regclass}), 's', 'it is known');
$s->query("SELECT count(*) FROM t$_") foreach 1 .. $files;
my $pid = $s->query('SELECT pg_backend_pid()');
my $open = () = glob "/proc/$pid/fd/*";
ok(IPC::Run::run([ 'prlimit', '--pid', $pid, "--nofile=$open:" ]), "no more than $open descriptors");
is($s->query(q{SELECT nextval('s')}), 2, 'it goes on');
$s->close;
$c->kill9('compute');

$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
