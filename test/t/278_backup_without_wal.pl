# A copy of a page server that has pages and no WAL (pg_basebackup -X none, an emptied pg_wal): it has no record
# to show, so no compute can tell whether it is of its history. It does not start, and says which file it needs;
# with the file it joins.
#
# Seen to fail without: the look for the record at the start (65_no_evidence).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => ['neon_comm.request_timeout=60s'],
	ps_conf => [ 'hot_standby=on', 'max_wal_senders=20', 'max_worker_processes=64' ]);
my $dir = $c->{dir};
my $P = 'page_server_0';
my ($socket) = map { /^socket_dir=(.*)/ ? $1 : () } do { local @ARGV = ("$dir/neon_dev.conf"); <> };
my $port = $c->page_server_port(0);

sub start_fails
{
	my ($regex, $name, $from) = (@_, length $c->log_text($P));
	my ($ok) = $c->try_dev('start', '-D', $dir, '--quiet', '-t', 20, 'page-server', 0);
	ok(!$ok, "$name: does not start");
	ok($c->wait_log($P, $regex, $from), "$name: and says why") or diag(substr($c->log_text($P), $from));
	return substr($c->log_text($P), $from);
}

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('f', 300) AS f FROM generate_series(1, 10000) g});
ok($c->wait_for(q{SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers}), 'all is replayed');

# ---- a backup without WAL

my $out = '';
IPC::Run::run([ 'pg_basebackup', '-h', $socket, '-p', $port, '-U', 'postgres', '-D', "$dir/copy", '-X', 'none', '-c', 'fast' ], '>&', \$out);
ok(-s "$dir/copy/backup_label", 'a backup of a page server without WAL') or diag($out);
$c->stop('page-server', 0);
rename "$dir/$P", "$dir/original" or die $!;
rename "$dir/copy", "$dir/$P" or die $!;
my $log = start_fails(qr/FATAL:  .*has no WAL by which.*-X stream/s, 'the backup');
my ($file) = $log =~ /"pg_wal\/([0-9A-F]{24})"/;
ok($file, 'the message names a file');
foreach my $wal (grep { /([0-9A-F]{24})$/ && $1 ge $file } glob("$dir/original/pg_wal/*"))
{
	system('cp', '-p', $wal, "$dir/$P/pg_wal/") == 0 or die 'cp';
}
$log = start_fails(qr/is a copy/, 'with WAL');
my ($word) = $log =~ /write the word (\w+) into/;
open my $fh, '>', "$dir/$P/page_service_takeover" or die $!;
print $fh "$word\n";
close $fh;
$c->start('page-server', 0);
is($c->sql('SELECT count(*) FROM t'), 10000, 'with a takeover it joins and answers');

# ---- pg_wal is emptied

$c->stop('page-server', 0);
rename "$dir/$P/pg_wal", "$dir/kept" or die $!;
mkdir "$dir/$P/pg_wal", 0700 or die $!;
start_fails(qr/FATAL:  .*has no WAL by which/s, 'an emptied pg_wal');
system("rmdir $dir/$P/pg_wal/* 2>/dev/null; rmdir $dir/$P/pg_wal") == 0 or die;
rename "$dir/kept", "$dir/$P/pg_wal" or die $!;
$c->start('page-server', 0);
is($c->sql('SELECT count(*) FROM t'), 10000, 'with what was there it goes on');

$c->check_logs;
done_testing();
