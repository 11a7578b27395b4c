# A compute and histories that have parted: an older copy of its directory in its place, the
# same after a takeover, the newer one put back, a copy beside it, a standby that does not join,
# damage to the file that says who it is, and a member that is remembered.  Never a row of
# another history; everybody says why.
#
# Seen to fail without: the place (65_copy_is_started), joining (65_unjoined), remembering
# (65_forgets_parted).
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => ['neon_comm.request_timeout=60s']);
my $dir = $c->{dir};
# what a login says while its page servers have parted from the compute
$c->allow_log(qr/could not read block .* from its page server: .*: parted: /);
my $rows = 'SELECT count(*), count(*) FILTER (WHERE v = 1), max(id) FROM t';

sub copy { system('cp', '-a', '--sparse=always', "$dir/$_[0]", "$dir/$_[1]") == 0 or die 'cp'; return }
sub move { rename "$dir/$_[0]", "$dir/$_[1]" or die "$_[0]: $!"; return }
sub lines { my ($file) = @_; open my $fh, '<', "$dir/$file" or return; my @l = <$fh>; chomp @l; return @l }
sub incarnations { return map { /^incarnation (\w+) / ? $1 : () } lines("$_[0]/compute_identity") }

sub start_fails
{
	my ($regex, $name, $from) = (@_, length $c->log_text('compute'));
	my ($ok) = $c->try_dev('start', '-D', $dir, '--quiet', '-t', 30, 'compute');
	ok(!$ok, "$name: does not start");
	ok($c->wait_log('compute', $regex, $from), "$name: and says why");
	return substr $c->log_text('compute'), $from;
}

# Started without waiting for a login, which needs pages.  Its feed speaks to page servers before it lets anybody in.
sub start_anyhow
{
	my $from = length $c->log_text('compute');
	system('pg_ctl', '-s', '-W', '-D', "$dir/compute", '-l', $c->log_file('compute'), 'start') == 0 or die 'pg_ctl';
	return ok($c->wait_log('compute', qr/ready to accept connections/, $from), 'it is started');
}

$c->sql(q{CREATE TABLE t AS SELECT g AS id, 0 AS v, repeat('x', 400) AS f FROM generate_series(1, 5000) g});
$c->sql('VACUUM (FREEZE)');
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 2 * 1024 * 1024, 'the table is larger than the buffers');

# ---- who it is

my ($birth, $incarnation, $began, $lives, $place) = split /\|/, $c->sql('SELECT * FROM neon_comm.identity');
like($birth, qr/^[0-9a-f]{32}$/, 'a birth');
is((incarnations('compute'))[-1], $incarnation, 'the incarnation is on disk');
is($lives, 1, 'its first life');
ok((grep { $_ eq "incarnation $incarnation $began" } lines('compute/compute_identity')), 'and so is where it began');
ok((grep { $_ eq "place $place" } lines('compute/compute_identity')), 'and the place');
kill 'KILL', ($c->pids_of('compute', qr/checkpointer/))[0];
ok($c->wait_for("SELECT incarnation <> '$incarnation' AND began > '$began' AND lives = 2 FROM neon_comm.identity"),
	'a crash restart is another incarnation, of the same birth');
is($c->sql('SELECT birth FROM neon_comm.identity'), $birth, 'of the same birth');
ok($c->wait_for(q{SELECT state = 'streaming' AND reason IS NULL FROM neon_comm.page_servers}), 'which the page server follows');

# ---- an older copy in its place

$c->stop('compute');
copy('compute', 'older');
$c->start('compute');
$c->sql('UPDATE t SET v = 1 WHERE id <= 2500; DELETE FROM t WHERE id > 4000');
ok($c->wait_for(q{SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers}), 'the page server has it all');
$c->stop('compute', '--mode', 'immediate');
move('compute', 'newer');
move('older', 'compute');
my @files = lines('compute/compute_identity');
my $log = start_fails(qr/it is a copy/, 'a copy');
is_deeply([ lines('compute/compute_identity') ], \@files, 'nothing was written');
my ($word) = $log =~ /holds the word (\w+)/;
ok($word, 'the message says how it goes on in place of the original');
foreach my $wrong ('yes', '00000000')
{
	open my $fh, '>', "$dir/compute/compute_takeover" or die $!;
	print $fh "$wrong\n";
	close $fh;
	start_fails(qr/it is a copy/, "a takeover file that holds \"$wrong\"");
}
my $fh;
like($c->dev('takeover', '-D', $dir, 'compute'), qr/Given up: the original/, 'neon_dev takeover says what is given up');
is_deeply([ lines('compute/compute_takeover') ], [$word], 'and writes the word');
my $from = length $c->log_text('compute');
my $ps_from = length $c->log_text('page_server_0');
start_anyhow();
ok($c->wait_log('compute', qr/WAL feed refused page_server_0 at .*: page server and compute have parted/, $from),
	'with the takeover it starts, and its feed refuses the page server');
ok($c->wait_log('page_server_0', qr/page server and compute have parted/, $ps_from), 'which says so, too');
ok(!-e "$dir/compute/compute_takeover", 'the takeover is used up');

# No row of the other history, however long it runs and writes; the reason in the error.
my ($rc, $out, $err) = $c->try_sql($rows);
isnt($rc, 0, 'no query is answered') or diag($out);
like($err, qr/parted/, 'and the error says why') or diag($err);
ok((grep { /^parted [0-9a-f]{32} page server and compute have parted/ } lines('compute/compute_identity')),
	'the compute remembers the page server');
my ($copy) = (incarnations('compute'))[-1];
ok((grep { /^refused $copy / } lines('page_server_0/page_service_identity')), 'and the page server the compute');

# Once parted is always parted.
foreach my $mode ('immediate', 'fast')
{
	$c->stop('compute', '--mode', $mode);
	$from = length $c->log_text('compute');
	start_anyhow();
	ok($c->wait_log('compute', qr/WAL feed refused page_server_0 at .*: page server and compute have parted before/, $from),
		"after a stop ($mode) it is still parted");
}
$c->restart('page-server', 0);
$from = length $c->log_text('compute');
isnt(($c->try_sql($rows))[0], 0, 'also when the page server is restarted');

# ---- the newer one put back

$c->stop('compute', '--mode', 'immediate');
move('compute', 'parted');
move('newer', 'compute');
$c->start('compute');
is($c->sql($rows), '4000|2500|4000', 'the original is served, and right');
ok($c->wait_for(q{SELECT state = 'streaming' AND reason IS NULL FROM neon_comm.page_servers}), 'and followed');

# ---- a copy beside it, with a setting that allows it

copy('compute', 'beside');
unlink "$dir/beside/postmaster.pid";
open $fh, '>>', "$dir/beside/postgresql.conf" or die $!;
print $fh "neon_comm.allow_takeover = on\nneon_comm.request_timeout = 2s\nport = 1\nneon_comm.wal_feed_port = 0\nunix_socket_directories = '$dir/beside'\nlisten_addresses = ''\n";
close $fh;
# without a feed nobody can follow it: an incarnation that the page server does not know
is(system('pg_ctl', '-s', '-w', '-D', "$dir/beside", '-l', "$dir/beside.log", 'start'), 0, 'a copy is started beside it');
my $answer = '';
IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$dir/beside port=1 dbname=postgres user=postgres", '-c', $rows ], '>', \$answer, '2>&1');
unlike($answer, qr/\d\|/, 'it gets no row');
system('pg_ctl', '-s', '-D', "$dir/beside", '-m', 'immediate', 'stop');
is($c->sql($rows), '4000|2500|4000', 'the original does not notice');

# ---- who does not join gets no WAL

my $conninfo = join ' ', map { "$_->[0]=$_->[1]" } [ host => '127.0.0.1' ],
	[ port => $c->sql('SHOW neon_comm.wal_feed_port') ], [ user => 'u' ], [ replication => 'true' ];
my $stream = 'START_REPLICATION SLOT "page_server_0" 0/1000000 TIMELINE 1';
IPC::Run::run([ 'psql', '-XqAt', '-d', $conninfo, '-c', $stream ], '>', \$out, '2>', \$err);
like($err, qr/this page server has not joined/, 'a standby that does not join is refused');

# ---- the file is damaged

$c->stop('compute');
my @good = lines('compute/compute_identity');
open $fh, '>', "$dir/compute/compute_identity" or die $!;
print $fh join("\n", @good[ 0 .. 1 ]), "\n";
close $fh;
start_fails(qr/file "compute_identity" is not understood/, 'half a file');
open $fh, '>', "$dir/compute/compute_identity" or die $!;
print $fh map { "$_\n" } @good;
close $fh;

# ---- without its file it is a stranger

move('compute/compute_identity', 'kept');
$from = length $c->log_text('compute');
start_anyhow();
ok($c->wait_log('compute', qr/WAL feed refused page_server_0 at .*: page server belongs to another compute/, $from),
	'without its file it is a stranger to the page server');
like(($c->try_sql($rows))[2], qr/parted: .*another compute/, 'and is told so');
$c->stop('compute', '--mode', 'immediate');
unlink "$dir/compute/compute_identity";
move('kept', 'compute/compute_identity');
$c->start('compute');
is($c->sql($rows), '4000|2500|4000', 'with its file it is itself');

$c->check_logs;
done_testing();
