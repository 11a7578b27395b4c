# A compute is lost, and replaced by the promises of its page servers (docs/takeover.md): what was acknowledged is
# there with one of three page servers down, the old directory goes on nowhere, and with too few promises nothing is
# changed.
use strict;
use warnings;

use File::Path qw(remove_tree);
use IPC::Run ();
use NeonComm::Cluster;
use NeonComm::Members qw(status_of promise incarnation number_of members_known);
use Test::More;
use Time::HiRes qw(usleep);

my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;

sub counting { my ($c, $n) = @_; return $c->wait_for("SELECT count(*) = $n FROM neon_comm.page_servers WHERE sync_state = 'quorum'") }
sub create { my ($c, @more) = @_; return $c->try_dev('create-compute', '-D', $c->{dir}, @more) }

# ---- three page servers, two confirm

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ]);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server|overtaken/);
ok(members_known($c, 3, 0 .. 2), 'members are known');
ok(counting($c, 3), 'three count');
$c->sql('CREATE TABLE t (id serial, x int)');

# one page server has less than the others: what is committed meanwhile is on the other two
$c->stop('page-server', 1);
my @sessions = map { $c->session } 1 .. 3;
my $sent = 0;
my $acknowledged = 0;
foreach (1 .. 40)
{
	$_->send('INSERT INTO t (x) VALUES (' . ++$sent . ') RETURNING x') foreach @sessions;
	$acknowledged += grep { $_->wait =~ /^\d+$/ && $_->{last_error} eq '' } @sessions;
}
is($acknowledged, 120, 'commits are acknowledged by two');
$c->kill9('compute');

# the other one that has them is down, the one that lacks them is back: no promise is enough alone
$c->kill9('page-server', 2);
rename "$dir/compute", "$dir/compute_lost" or die $!;
rename "$dir/page_server_2/global", "$dir/page_server_2/global.away" or die $!;
my ($ok, $out) = create($c);
ok($ok, 'two promises are enough') or diag($out);
unlike($out, qr/may be gone/, '... without a doubt');
is($c->sql('SELECT count(*) FROM t'), 120, 'every commit that was acknowledged is there');
is($c->sql('SELECT count(DISTINCT x) FROM t'), 120, '... once');
$c->sql('INSERT INTO t (x) VALUES (0)');

# ---- the old directory, beside the new one

my $log = "$dir/log/old.log";
my $feed = $c->page_server_port(2);		# its page server is down
my $old = fork // die $!;
if ($old == 0)
{
	open STDOUT, '>', $log;
	open STDERR, '>&', \*STDOUT;
	exec "$bindir/postgres", '-D', "$dir/compute_lost", '-p', $feed, '-c', "neon_comm.wal_feed_port=" . ($feed + 7), '-c', "unix_socket_directories=$dir/compute_lost"
	  or die;
}
sub old_says { open my $fh, '<', $log or return ''; local $/; return <$fh> }
my $error = '';
foreach (1 .. 600)
{
	IPC::Run::run([ 'psql', '-XqAtw', '-d', "host=127.0.0.1 port=$feed dbname=postgres user=postgres", '-c', 'SELECT count(*) FROM t' ],
		'<', \undef, '>', \$out, '2>', \$error);
	last if old_says() =~ /FATAL/ || $error !~ /starting up|not yet accepting|Connection refused/;
	usleep(100_000);
}
isnt($?, 0, 'the old directory, started again, lets nobody in');
like($error . old_says(), qr/this compute was overtaken/, '... since page servers follow a newer one');
kill 'QUIT', $old;
waitpid $old, 0;

# ---- the third one comes back

rename "$dir/page_server_2/global.away", "$dir/page_server_2/global" or die $!;
$c->start('page-server', 2);
ok(counting($c, 3), 'the page server that was down joins again');
remove_tree("$dir/compute_lost");

# ---- planned, while somebody writes

my $s = $c->session;
$s->query('INSERT INTO t (x) VALUES (1000)');
($ok, $out) = $c->try_dev('replace-compute', '-D', $dir);
ok($ok, 'a running compute is replaced') or diag($out);
ok(!-e "$dir/compute_replaced" && !-e "$dir/compute_new", 'and leaves nothing');
is($c->sql('SELECT count(*) FROM t'), 122, 'all is there');
ok(counting($c, 3), 'all follow');
$c->sql('INSERT INTO t (x) VALUES (1001)');
$c->restart;
is($c->sql('SELECT count(*) FROM t'), 123, 'and after a restart');
$c->check_logs;

# ---- two page servers, one confirms: both have to promise

my $two = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 2, '--write-quorum', 1 ]);
$two->allow_log(qr/could not read block .* from its page server/);
ok(members_known($two, 2, 0, 1), 'two: members are known');
$two->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');
my $before = status_of($two, 0)->{incarnation};
$two->kill9('compute');
$two->kill9('page-server', 1);
remove_tree("$two->{dir}/compute");
rename "$two->{dir}/page_server_1/global", "$two->{dir}/page_server_1/global.away" or die $!;
($ok, $out) = create($two);
ok(!$ok, 'one of two is down: refused');
like($out, qr/promises of 2 of 2 page servers are needed.*Missing: page server 1: .*Nothing was changed/s, '... with who is missing');
is(status_of($two, 0)->{promised}, '-', 'nothing was promised');
ok(!-e "$two->{dir}/compute" && !-e "$two->{dir}/compute_new", 'nothing was made');
($ok, $out) = create($two, '--lose-unconfirmed');
ok($ok, '--lose-unconfirmed goes on') or diag($out);
like($out, qr/commits behind [0-9A-F]+\/[0-9A-F]+ may be gone \(missing: page server 1/, '... and says from where on commits may be gone');
is($two->sql('SELECT count(*) FROM t'), 1, 'what the one had is there');
rename "$two->{dir}/page_server_1/global.away", "$two->{dir}/page_server_1/global" or die $!;
$two->start('page-server', 1);
ok(counting($two, 2), 'the other one, which had no more, joins');
$two->check_logs;
done_testing();
