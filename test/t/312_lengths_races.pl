# Lengths that are asked for (docs/local_pages.md) by two at once, with an error and with a kill in the middle: one
# file of the right length, or none.
use strict;
use warnings;

use File::Path qw(remove_tree);
use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, ps_conf => [ 'neon_page_service.boot_image=neon' ]);
my $dir = $c->{dir};
my @tables = qw(twice failed failed_late killed);
foreach my $t (@tables) { $c->sql("CREATE TABLE $t AS SELECT g FROM generate_series(1, 3000) g"); $c->sql("VACUUM $t") }
my %size = map { $_ => $c->sql("SELECT pg_relation_size('$_')") } @tables;
ok($c->wait_for('SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers'), 'the page server has it');
$c->kill9('compute');
remove_tree("$dir/compute");
$c->dev('create-compute', '-D', $dir);
my $p = NeonComm::TestPoint->new($c);
my %file = map { $_ => "$dir/compute/" . $c->sql("SELECT pg_relation_filepath('$_')") } @tables;
my %node = map { $_ => $c->sql("SELECT pg_relation_filenode('$_')") } @tables;

# Files that have not got their names.
sub nameless { my @files = glob "$dir/compute/base/*/t1[0-9][0-9][0-9][0-9][0-9][0-9]*_*"; return scalar @files }

# ---- two at once

my @s = map { $c->session } 1 .. 2;
$p->pause('lengths-asked', rel => $node{twice});
$_->send('SELECT count(*), sum(g) FROM twice') foreach @s;
$p->wait('lengths-asked', 2);
ok(!-e $file{twice}, 'two have asked, and there is no file yet');
$p->disarm('lengths-asked');
is($_->wait, '3000|4501500', 'both get all rows') foreach @s;
is(-s $file{twice}, $size{twice}, 'the file has its length');
is(nameless(), 0, 'nothing is left over');

# ---- an error behind the answer, and one with the file made

$p->error('lengths-asked', rel => $node{failed});
like(($s[0]->try('SELECT count(*) FROM failed'))[1], qr/ERROR/, 'who fails behind the answer');
ok(!-e $file{failed}, '... leaves no file');
$p->disarm('lengths-asked');
is($s[0]->query('SELECT count(*) FROM failed'), 3000, '... and the next one asks again');
$p->error('lengths-name', rel => $node{failed_late});
like(($s[0]->try('SELECT count(*) FROM failed_late'))[1], qr/ERROR/, 'who fails before the file has its name');
ok(!-e $file{failed_late}, '... leaves none of that name');
is(nameless(), 0, '... nor of another one');
$p->disarm('lengths-name');
is($s[1]->query('SELECT count(*) FROM failed_late'), 3000, '... and others can');

# ---- a kill

$p->kill('lengths-name', rel => $node{killed});
$s[0]->send('SELECT count(*) FROM killed');
ok($c->wait_log('compute', qr/all server processes terminated; reinitializing/), 'a process is killed before the file has its name');
ok(!-e $file{killed}, '... and there is none');
ok($c->wait_for('SELECT true'), 'the server comes back');
is($c->sql('SELECT count(*) FROM killed'), 3000, '... and has all rows');
is(-s $file{killed}, $size{killed}, '... and the length');
is(nameless(), 0, '... and nothing is left over');

$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
