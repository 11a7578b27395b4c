# Page servers come and go while the compute runs and is read: neon_dev add-page-server,
# replace-page-server, move-page-server and remove-page-server (docs/neon_dev.md). Each is killed
# once in each of its steps, which its progress lines tell, and called again.
#
# Shards have two hosts, so no read waits for a copy: the load ends with an error if a statement fails.
use strict;
use warnings;

use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use POSIX ();
use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 2, init => [ '--hosts', 2 ], conf => [ 'max_wal_size=64MB', 'min_wal_size=32MB' ]);
my $elsewhere = tempdir(CLEANUP => 1);
chmod 0777, $elsewhere;
$c->sql('CREATE TABLE rows (id int PRIMARY KEY, says text);
	INSERT INTO rows SELECT g, md5(g::text) FROM generate_series(1, 20000) g');
is(($c->pgbench('-i', '-s', '1', '-q'))[0], 0, 'pgbench has its tables');
my $said = '';
my $load = $c->background(\$said, 'pgbench', '-n', '-c', '2', '-T', 100_000, $c->conninfo . ' dbname=postgres');
my $started = $c->sql('SELECT pg_postmaster_start_time()');

sub check
{
	my ($what, @names) = @_;
	is($c->sql(q{SELECT count(*), count(*) FILTER (WHERE says <> md5(id::text)) FROM rows}), '20000|0', "$what: all rows are there");
	ok($c->wait_for(sprintf q{SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) = '%s' FROM neon_comm.page_servers},
			join(', ', map { "page_server_$_ streaming" } @names)), "$what: page servers @names follow")
	  or diag($c->sql('SELECT name, state, reason FROM neon_comm.page_servers'));
	is($c->sql(q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots}),
		join(' ', map { "page_server_$_" } @names), "$what: each has a slot, and nobody else");
	is($c->sql('SHOW neon_comm.page_servers') =~ tr/,//, 5, "$what: each shard has two hosts");
	return;
}

# Killed when it has said so many lines; false: it was over before.
sub killed_at
{
	my ($lines, @command) = @_;
	my $file = "$elsewhere/said";
	my $pid = $c->dev_alone($file, @command, '-D', $c->{dir});
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		my $said = do { local @ARGV = $file; local $/; -f $file ? <> : '' } // '';
		if (($said =~ tr/\n//) >= $lines && $said !~ /^page server \d+ is (?:added|moved|replaced|removed)$/m)
		{
			kill 'KILL', $pid;
			waitpid $pid, 0;
			unlink $file;
			return 1;
		}
		usleep(2000);
	}
	unlink $file;
	return 0;
}

# Kills it in each of its steps and calls it again; $undo makes another one possible.
sub survives
{
	my ($what, $command, $undo, @names) = @_;
	my $at = 1;
	while ($at < 30 && killed_at($at, @$command))
	{
		my ($ok, $out) = $c->try_dev(@$command, '-D', $c->{dir}, '--quiet');
		# it may have been over when it was killed
		ok($ok || $out =~ /there is no page server|only the last page server/, "$what, killed at line $at, is called again") or diag($out);
		check("$what, killed at line $at", @names);
		$undo->();
		$at++;
	}
	cmp_ok($at, '>', 3, "$what has steps");
	return;
}

sub dev { my (@command) = @_; return $c->dev(@command, '-D', $c->{dir}, '--quiet') }

check('at first', 0, 1);
survives('add', ['add-page-server'], sub { dev('remove-page-server', 2) }, 0, 1, 2);
# the last call was not killed
check('added', 0, 1, 2);

survives('move', [ 'move-page-server', 2, '--to', "$elsewhere/there" ],
	sub { dev('move-page-server', 2, '--to', "$elsewhere/back") }, 0, 1, 2);
ok(-l "$c->{dir}/page_server_2", 'a link leads to where it is');

survives('replace', [ 'replace-page-server', 1 ], sub { }, 0, 1, 2);
$c->kill9('page-server', 1);
remove_tree("$c->{dir}/page_server_1");
dev('replace-page-server', 1);
check('lost and replaced', 0, 1, 2);

survives('remove', [ 'remove-page-server', 2 ], sub { dev('add-page-server') }, 0, 1);
check('removed', 0, 1);

my ($ok) = $c->try_dev('remove-page-server', 1, '-D', $c->{dir});
ok(!$ok, 'a shard\'s own page server is not removed');

# each page server has all that there is: the others may go
foreach my $n (0, 1)
{
	$c->kill9('page-server', $n);
	is($c->sql(q{SELECT count(*), count(*) FILTER (WHERE says <> md5(id::text)) FROM rows}), '20000|0', "without page server $n all rows are there");
	$c->start('page-server', $n);
	$c->wait_for(q{SELECT count(*) = 2 FROM neon_comm.page_servers WHERE state = 'streaming' AND lag_bytes < 1000000});
}
is($c->sql('SELECT pg_postmaster_start_time()'), $started, 'the compute is the one that it was');
$load->signal('INT');
$load->finish;
unlike($c->log_text('compute'), qr/ERROR:(?!  canceling statement due to user request)/, 'no statement failed');
is($c->sql(q{SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)}), 't', 'sums are exact');

# what lies elsewhere goes with the cluster
dev('move-page-server', 1, '--to', "$elsewhere/last");
ok(-d "$elsewhere/last", 'moved once more');
$c->check_logs;
dev('destroy');
ok(!-e "$elsewhere/last", 'destroy removes what was moved');
done_testing();
