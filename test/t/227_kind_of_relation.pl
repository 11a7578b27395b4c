# Whether a relation is unlogged is known or an error: pages of one that is taken for a
# permanent one are dropped.  A relation that is made is remembered until its INIT fork can
# be seen, room being made where there is none; a look that fails is no "there is none".
# And what is written while its INIT fork comes is in its file.
#
# Seen to fail: the moved index had lost its metapage (48_no_room); a table was taken for
# a permanent one (48_unknown_kind); a sequence had lost its page (48_wipe_first).
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

# ---- an INIT fork comes while somebody else writes what was made before it: a sequence's first page
$c->append_conf('compute', 'shared_buffers = 1MB');
$c->sql("CREATE TABLE t$_ AS SELECT g, repeat('x', 900) f FROM generate_series(1, 1500) g; CREATE INDEX ON t$_ (g)") foreach 1 .. 3;
$c->restart('compute');
$p = NeonComm::TestPoint->new($c);
my ($maker, $watcher, @users) = map { $c->session } 1 .. 5;
# not by a sequential scan, which has a few buffers of its own; one may have to wait for the lock of the mark's chunk
my @use = map { "SELECT sum(length(f)) FROM (SELECT f FROM t$_ ORDER BY g) o" } 1 .. 3;
$_->query('SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off') foreach @users;
my $waits = sprintf q{SELECT bool_and(state = 'idle' OR wait_event_type = 'LWLock') FROM pg_stat_activity WHERE pid IN (%s)},
  join(',', map { $_->pid } @users);
$watcher->query($waits);
$p->pause('unlogged-wipe', pid => $maker->pid, times => 1);
$maker->send('CREATE UNLOGGED SEQUENCE us');
$p->wait('unlogged-wipe');
$users[$_]->send($use[$_]) foreach 0 .. 2;
ok($watcher->wait_for($waits), 'it was written, or has to wait, while the mark that the block was empty is taken away');
$p->disarm('unlogged-wipe');
$_->wait foreach $maker, @users;
$users[$_]->query($use[$_]) foreach 0 .. 2;
(undef, $out, $err) = $c->try_sql(q{SELECT nextval('us')});
is($out, 1, 'the sequence is whole') or diag($err);
$_->close foreach $maker, $watcher, @users, $p;
$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
