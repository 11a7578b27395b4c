# Whether a relation is unlogged is known or an error: pages of one that is taken for a
# permanent one are dropped.  A relation that is made is remembered until its INIT fork can
# be seen, room being made where there is none; a look that fails is no "there is none".
#
# Seen to fail: the moved index had lost its metapage (48_no_room); a table was taken for
# a permanent one (48_unknown_kind).
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.sweep_interval=1h', 'autovacuum=off' ]);

# ---- after a crash the metapage has an LSN of WAL: only that the file is new says that it is kept
$c->sql(q{CREATE TABLESPACE ts LOCATION '';
	CREATE UNLOGGED TABLE u (k text); CREATE INDEX u_h ON u USING hash (k);
	CREATE UNLOGGED TABLE v (id int)});
$c->kill9('compute');
$c->start('compute');
$c->sql('INSERT INTO u SELECT md5(g::text) FROM generate_series(1, 1000) g; INSERT INTO v VALUES (1)');
my $p = NeonComm::TestPoint->new($c);
my $s = $c->session;
$p->true('relations-full', pid => $s->query('SELECT pg_backend_pid()'), times => 1);
$s->query('ALTER INDEX u_h SET TABLESPACE ts');
is($p->hits('relations-full'), 1, 'an index is moved, there being no room to remember it');
$c->evict;
my ($rc, $out, $err) = $c->try_sql(q{SET enable_seqscan = off; SELECT count(*) FROM u WHERE k = md5('77')});
is($out, 1, 'room was made, and it is whole') or diag($err);
$p->true('relations-full');
(undef, undef, $err) = $c->try_sql('CREATE TABLE t (id int)');
like($err, qr/the table of relations is full/, 'no room to be made: told to who makes a relation');
$p->disarm('relations-full');
$c->sql('CREATE TABLE t (id int)');
$s->close;
$p->close;

# ---- a look that fails
$c->restart('compute');
$p = NeonComm::TestPoint->new($c);
$p->fail('init-fork', 'EIO', rel => $c->sql(q{SELECT pg_relation_filenode('v')}));
($rc, undef, $err) = $c->try_sql('SELECT count(*) FROM v');
isnt($rc, 0, 'its kind cannot be told: an error');
like($err, qr/could not access file "\S+_init": Input\/output error/, 'which says why');
$p->disarm('init-fork');
(undef, $out, $err) = $c->try_sql('INSERT INTO v VALUES (2); SELECT count(*) FROM v');
is($out, 2, 'and nothing wrong is remembered') or diag($err);
$p->close;
$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
