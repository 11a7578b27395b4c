# The developer cluster command: --help of every subcommand, adopting an
# ordinary cluster without touching it, acting on one part, refusing bad input
# without leaving anything behind, and the guards of a skeleton.
use strict;
use warnings;

use Test::More;
use File::Temp qw(tempdir);
use NeonComm::Cluster;

my $top = tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $c = bless { dir => "$top/c", allowed => [] }, 'NeonComm::Cluster';
my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;

my $main = $c->dev('--help');
foreach my $command (qw(init adopt start stop restart kill takeover status psql conninfo destroy))
{
	like($main, qr/neon_dev $command\b/, "--help names $command");
	like($c->dev($command, '--help'), qr/neon_dev $command/, "$command --help");
}

# Bad input: a message, a status, and nothing left behind.
foreach my $bad (
	[ [ 'init', '-D', "$top/x", '--shards', '0' ], qr/--shards must be between/ ],
	[ [ 'init', '-D', "$top/x", '--shards', 'two' ], qr/--shards needs a number/ ],
	[ [ 'init', '-D', "$top/x", '--conf', 'nonsense' ], qr/not of the form key=value/ ],
	[ [ 'init' ], qr/-D DIR is missing/ ],
	[ [ 'adopt', '--from', "$top/nowhere", '-D', "$top/x" ], qr/there is no directory/ ],
	[ [ 'start', '-D', "$top/x" ], qr/there is no directory/ ],
	[ [ 'stop', '-D', "$top/x", '--mode', 'gently' ], qr/--mode is fast, immediate or smart/ ],
	[ [ 'frobnicate' ], qr/frobnicate/ ])
{
	my ($ok, $out) = $c->try_dev(@{ $bad->[0] });
	ok(!$ok, "refused: @{$bad->[0]}");
	like($out, $bad->[1], 'and says why');
	ok(!-e "$top/x", 'nothing left behind');
}

# An ordinary cluster with contents, stopped cleanly.
my $old = "$top/old";
system("$bindir/initdb", '-D', $old, '-A', 'trust', '-U', 'postgres', '--no-sync') == 0 or die;
my @start = ("$bindir/pg_ctl", '-s', '-w', '-D', $old, '-l', "$top/old.log", '-o', "-k $top -h '' -p 6549");
my ($ok, $out);
system(@start, 'start') == 0 or die;
system('psql', '-Xq', '-h', $top, '-p', 6549, '-U', 'postgres', '-d', 'postgres', '-c',
	'CREATE TABLE t AS SELECT g, md5(g::text) AS k FROM generate_series(1, 20000) g; CREATE INDEX ON t (k);
	CREATE SEQUENCE s; SELECT nextval($$s$$); CREATE UNLOGGED TABLE u AS SELECT 1 AS x') == 0 or die;
($ok, $out) = $c->try_dev('adopt', '--from', $old, '-D', $c->{dir});
ok(!$ok, 'a running cluster is not adopted');
like($out, qr/stop that server cleanly first/, 'and the message says so');
ok(!-e $c->{dir}, 'nothing left behind');
system("$bindir/pg_ctl", '-s', '-w', '-D', $old, '-m', 'fast', 'stop') == 0 or die;
my $sum = `cd $old && find . -type f -print0 | sort -z | xargs -0 cksum | cksum`;
$c->dev('adopt', '--from', $old, '-D', $c->{dir}, '--shards', 3, '--stripe-blocks', 8, '--conf', 'shared_buffers=1MB',
	# it would have pages of its own under way when they are counted
	'--conf', 'autovacuum=off', '--quiet');
is(`cd $old && find . -type f -print0 | sort -z | xargs -0 cksum | cksum`, $sum, 'the source of an adoption is not changed');
$c->start;
is($c->sql('SELECT count(*), count(DISTINCT k) FROM t'), '20000|20000', 'adopted: its rows');
is($c->sql('SET enable_seqscan = off; SELECT g FROM t WHERE k = md5($$77$$)'), 77, 'its index');
is($c->sql(q{SELECT nextval('s'), (SELECT x FROM u)}), '2|1', 'its sequence and its unlogged table');
# From 16 on who fills a table adds more blocks than he needs. Each has a mark, and where there are many the
# file system counts a block for the file's map.
my ($held, $marks) = split /\|/, $c->sql('SELECT allocated - sequences - empty, empty FROM neon_comm.local_bytes()');
cmp_ok($held, '<', $marks > 0 ? 8192 : 1, 'and no content on the compute');

# Parts.
($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--values');
ok($ok, 'status 0 when all of it runs');
like($out, qr/^compute\.state=running$/m, 'the compute runs');
like($out, qr/^page_server_2\.state=running$/m, 'three page servers run');
like($out, qr/^compute\.local_bytes=0$/m, 'bytes held locally, by content');
$c->stop('page-server', 1);
($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--values', '--no-measure');
ok(!$ok, 'status not 0 when a part does not run');
like($out, qr/^page_server_1\.state=(?!running)/m, 'and names it');
$c->kill9('page-server', 2);
$c->start('page-server', 1);
$c->start('page-server', 2);
is($c->sql('SELECT count(*) FROM t'), 20000, 'parts come back');
like($c->dev('psql', '-D', $c->{dir}, '-XAtc', 'SELECT 1 + 1'), qr/^2$/, 'psql');

# Guards: a skeleton does not start as an ordinary server by an empty or broken setting.
$c->stop('compute');
my $conf = "$c->{dir}/compute/postgresql.auto.conf";
foreach my $bad ('', 'host=127.0.0.1,,host=127.0.0.1')
{
	open my $fh, '>', $conf or die $!;
	print $fh "neon_comm.page_servers = '$bad'\n";
	close $fh;
	($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute');
	ok(!$ok, "page_servers '$bad': not started");
	like($c->log_text('compute'), qr/is a neon_comm skeleton, but neon_comm.page_servers is empty or invalid/, 'and says why');
}
foreach my $bad ([ "fsync = off\n", qr/does not work with fsync = off/ ],
	[ "wal_level = minimal\nmax_wal_senders = 0\n", qr/needs wal_level|wal_level/ ])
{
	open my $fh, '>', $conf or die $!;
	print $fh $bad->[0];
	close $fh;
	($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute');
	ok(!$ok, 'not started with ' . $bad->[0] =~ s/\n/ /gr);
	like($c->log_text('compute'), $bad->[1], 'and says why');
}
open my $fh, '>', $conf or die $!;
close $fh;
mkdir "$top/elsewhere" or die $!;
symlink "$top/elsewhere", "$c->{dir}/compute/pg_tblspc/99999" or die $!;
($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute');
ok(!$ok, 'not started with a tablespace elsewhere');
like($c->log_text('compute'), qr/tablespace 99999 has a location/, 'and says why');
unlink "$c->{dir}/compute/pg_tblspc/99999" or die $!;
rename "$c->{dir}/compute/neon_comm.skeleton", "$c->{dir}/marker" or die $!;
($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute');
ok(!$ok, 'a data directory without the marker is not emptied');
like($c->log_text('compute'), qr/is not a neon_comm skeleton/, 'and the message says what to do');
rename "$c->{dir}/marker", "$c->{dir}/compute/neon_comm.skeleton" or die $!;
$out = `$bindir/postgres --single -D $c->{dir}/compute postgres </dev/null 2>&1`;
like($out, qr/cannot run in single-user mode/, 'single-user mode is refused');
$c->start('compute');
is($c->sql('SELECT count(*) FROM t'), 20000, 'and with its settings right it starts');
$c->check_logs;
$c->dev('destroy', '-D', $c->{dir}, '--quiet');
ok(!-e $c->{dir}, 'destroy removes everything');
done_testing();
