# neon_dev backup, archive and restore: a backup of a cluster that is written to, WAL in an archive, and new clusters of
# them: of the backup alone, of all WAL, up to an LSN and to a moment. Contents are compared with what they were
# then. Original and restored ones run side by side, and neither follows or serves the other.
use strict;
use warnings;

use IPC::Run ();
use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);
use NeonComm::Ordinary;

my $c = NeonComm::Cluster->new(
	shards => 2,
	init => [ '--page-servers', 3, '--durable' ],
	conf => [ 'max_prepared_transactions=5', 'max_connections=130', 'work_mem=7MB', 'neon_comm.request_timeout=77s' ],
	ps_conf => ['neon_page_service.workers=3']);
my $top = $c->{dir} =~ s{/[^/]*$}{}r;
my ($backup, $archive) = ("$top/backup", "$top/archive % x");

sub text_of { my ($path) = @_; open my $fh, '<', $path or die "$path: $!"; local $/; return scalar(<$fh>) // '' }
sub refused
{
	my ($what, $reason, @args) = @_;
	my ($ok, $out) = $c->try_dev(@args);
	ok(!$ok, "refused: $what");
	return like($out, $reason, 'and why');
}

# A cluster restored from the backup, which runs.
my @restored;
sub restore
{
	my ($name, @args) = @_;
	my $new = bless { dir => "$top/$name", allowed => [] }, 'NeonComm::Cluster';
	push @restored, $new;
	my ($ok, $out) = $new->try_dev('restore', '--from', $backup, '--to', $new->{dir}, @args);
	ok($ok, "$name: restored") or diag($out);
	$new->start;
	return $new;
}

fill_cluster($c);

# ---- refused

refused('no target', qr/--to DIR2 is missing/, 'backup', '-D', $c->{dir});
refused('inside of the cluster', qr/may not be inside/, 'backup', '-D', $c->{dir}, '--to', "$c->{dir}/compute/b");
refused('no such page server', qr/there is no page server 3/, 'backup', '-D', $c->{dir}, '--to', $backup, '--from', 'page-server', 3);
mkdir $backup or die $!;
mkdir "$backup/mine" or die $!;
refused('a directory with something in it', qr/is not empty/, 'backup', '-D', $c->{dir}, '--to', $backup);
ok(-d "$backup/mine" && !-e "$backup/neon_backup.making", 'which is as it was');
rmdir "$backup/mine" or die $!;
rmdir $backup or die $!;
refused('no backup', qr/is no backup of neon_dev/, 'restore', '--from', $c->{dir}, '--to', "$top/none");
ok(!-e "$top/none", 'nothing was made');
refused('neither a place nor none', qr/give --to ARCHIVE or --off/, 'archive', '-D', $c->{dir});

# ---- archive and backup, while somebody writes

$c->dev('archive', '-D', $c->{dir}, '--to', $archive, '--archive-timeout', 3600, '--quiet');
is($c->sql('SHOW archive_timeout'), '1h', 'the compute ends segments');
my $writer_out = '';
my $writer = IPC::Run::start([ 'psql', '-XqAt', '-d', $c->conninfo, '-c', 'SET statement_timeout = 0', '-c', q{DO $$ BEGIN FOR i IN 1 .. 100000 LOOP
	UPDATE accounts SET balance = balance + 1 WHERE id = 1 + i % 3000; UPDATE accounts SET balance = balance - 1 WHERE id = 1 + (i + 7) % 3000; COMMIT;
	EXIT WHEN EXISTS (SELECT FROM pg_tables WHERE tablename = 'enough'); END LOOP; END $$} ], '<', \undef, '>', \$writer_out, '2>&1');
my $sum = $c->sql('SELECT sum(balance) FROM accounts');
my $out = $c->dev('backup', '-D', $c->{dir}, '--to', $backup);
like($out, qr/page server 2 is started again/, 'the page server that nobody reads from is copied');
$c->sql('CREATE TABLE enough ()');
$writer->finish;
is($writer_out, '', 'the writer went on');
refused('a second one into it', qr/is a backup already/, 'backup', '-D', $c->{dir}, '--to', $backup);
unlike(text_of("$c->{dir}/page_server_2/postmaster.opts"), qr/hot_standby/, 'the page server is as it was');
ok($c->wait_for(q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'and follows');
my %about = map { /^([a-z_]+)=(.*)$/ ? ($1 => $2) : () } split /\n/, text_of("$backup/neon_backup.conf");
is($about{page_servers}, 3, 'what the cluster was is written down');

# ---- three moments

sub moment
{
	my ($name) = @_;
	$c->sql("CREATE TABLE moment_$name AS SELECT 1 AS i");
	my %contents = contents_of($c->conninfo);
	my $lsn = $c->sql('SELECT pg_current_wal_flush_lsn()');
	my $time = $c->sql('SELECT clock_timestamp()');
	$c->sql(q{SELECT pg_sleep(0.01); UPDATE accounts SET balance = balance + id % 5 WHERE id % 10 = 1; SELECT setval('counted', last_value + 100) FROM counted;
		UPDATE large SET f = f || id; DELETE FROM kinds WHERE id % 13 = 0}) for 1 .. 2;
	return { contents => \%contents, lsn => $lsn, time => $time };
}

my $first = moment('one');
my $second = moment('two');
$c->sql(q{COMMIT PREPARED 'in doubt'; CREATE TABLE moment_three (); CREATE DATABASE later});
my %last = contents_of($c->conninfo);
my $switched = $c->sql('SELECT pg_walfile_name(pg_switch_wal())');
$c->sql('CREATE TABLE not_archived ()');
ok(until_true(sub { -e "$archive/$switched" }), 'WAL is archived');

# ---- restored

my $alone = restore('alone');
is($alone->sql('SELECT sum(balance) FROM accounts WHERE id > 0'), $sum, 'the backup alone: sums are exact');
is($alone->sql(q{SELECT count(*) FROM pg_tables WHERE tablename LIKE 'moment%'}), 0, 'nothing later is there');
is($alone->sql('SELECT count(*) FROM nothing_logged'), 0, 'unlogged tables are empty');
is($alone->sql('SHOW work_mem'), '7MB', 'it has the settings of the original');
is($alone->sql('SHOW neon_comm.request_timeout'), '77s', 'ours too');
is($alone->sql('SHOW archive_timeout'), '0', 'and archives nothing');
is($alone->sql('SHOW synchronous_standby_names'), 'ANY 2 (page_server_0, page_server_1, page_server_2)', 'its commits are durable as those of the original');
is($alone->sql('SELECT count(*) FROM neon_comm.page_servers'), 3, 'it has as many page servers');
unlike(text_of("$_/postgresql.conf"), qr/^archive_/m, 'no part of it archives') foreach glob "$alone->{dir}/page_server_*";
is($alone->sql('SELECT gid FROM pg_prepared_xacts'), 'in doubt', 'the prepared transaction is there');
$alone->sql(q{COMMIT PREPARED 'in doubt'; CREATE EXTENSION IF NOT EXISTS amcheck});
is($alone->sql(q{SELECT count(bt_index_check(indexrelid, true)) > 100 FROM pg_index JOIN pg_class c ON c.oid = indexrelid
	WHERE c.relam = 403 AND c.relpersistence = 'p'}), 't', 'btrees are whole');

# ---- the original and it are strangers

$alone->append_conf('page_server_0', "primary_conninfo = '" . (text_of("$c->{dir}/page_server_0/postgresql.conf") =~ /^primary_conninfo = '(.*)'$/m)[0] . q{'});
$alone->restart('page-server', 0);
ok($alone->wait_log('page_server_0', qr/belongs to another compute/), 'a page server of it is refused by the original')
  or diag(substr $alone->log_text('page_server_0'), -3000);
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE state = 'streaming'}), 'whose own go on');
$c->sql('INSERT INTO accounts VALUES (-77, 0)');
$alone->dev('destroy', '-D', $alone->{dir}, '--quiet');

my $by_lsn = restore('by_lsn', '--archive', $archive, '--target-lsn', $first->{lsn});
is_deeply({ contents_of($by_lsn->conninfo) }, $first->{contents}, 'up to an LSN: what there was then');
$by_lsn->check_logs;
$by_lsn->dev('destroy', '-D', $by_lsn->{dir}, '--quiet');

my $by_time = restore('by_time', '--archive', $archive, '--target-time', $second->{time}, '--shards', 1);
is_deeply({ contents_of($by_time->conninfo) }, $second->{contents}, 'up to a moment: what there was then');
is($by_time->sql('SELECT count(*) FROM neon_comm.page_servers'), 1, 'with other shards');
$by_time->check_logs;
$by_time->dev('destroy', '-D', $by_time->{dir}, '--quiet');

# ---- all is lost

$c->kill9;
system('mv', $c->{dir}, "$top/lost") == 0 or die;
my $all = restore('all', '--archive', $archive);
is_deeply({ contents_of($all->conninfo) }, \%last, 'of the whole archive: all that was archived');
is($all->sql(q{SELECT count(*) FROM pg_database WHERE datname = 'later'}), 1, 'a new database too');
$all->restart;
is_deeply({ contents_of($all->conninfo) }, \%last, 'after a restart as well');
$all->check_logs;

refused('a target that is not reached', qr/recovery ended before configured recovery target was reached/,
	'restore', '--from', $backup, '--to', "$top/never", '--archive', $archive, '--target-time', '2999-01-01 00:00:00+00');
ok(!-e "$top/never", 'and nothing stays behind');
refused('one before the backup', qr/before consistent recovery point/,
	'restore', '--from', $backup, '--to', "$top/never", '--archive', $archive, '--target-lsn', $about{start_lsn});
my ($some) = glob "'$backup/data/base/5/1259'";
open my $fh, '+<', $some or die $!;
seek $fh, 5000, 0;
print $fh 'x';
close $fh;
refused('a damaged backup', qr/is damaged/, 'restore', '--from', $backup, '--to', "$top/never");

system('mv', "$top/lost", $c->{dir}) == 0 or die;
done_testing();
