# Whatever is wrong with where a recording should go ends the recording and nothing else (docs/record.md).
#
# A directory that cannot be made is named in the log, and so is one that cannot be written to; the server goes on, and a
# reload tries again. A compute that is killed leaves a recording that is shorter, and begins another one.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Recording;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '1MB');
my $top = $c->{dir};

sub state_is { my ($state) = @_; return $c->wait_for("SELECT state = '$state' FROM neon_comm.recording") }

$c->sql(q{CREATE EXTENSION IF NOT EXISTS neon_comm;
	CREATE TABLE t AS SELECT g, repeat('x', 900) AS filler FROM generate_series(1, 20000) g; CHECKPOINT});

# ---- below a file, and below what is not there

spew_bytes("$top/a_file", 'x');
$c->configure({ 'neon_comm.record' => 'on', 'neon_comm.record_directory' => "$top/a_file/recordings" });
ok(state_is('failed'), 'below a file there is no directory');
is($c->sql('SELECT last_error FROM neon_comm.recording'), qq{could not make directory "$top/a_file/recordings": Not a directory}, '... which the view says');
like($c->log_text('compute'), qr{WARNING:  neon_comm: requests are not recorded any more: could not make directory "\Q$top\E/a_file/recordings": Not a directory}, '... and the log');
like($c->log_text('compute'), qr/HINT:  Look after neon_comm\.record_directory/, '... with what to do');
is($c->sql('SELECT count(*) FROM t'), 20000, 'the server goes on');
$c->configure({ 'neon_comm.record_directory' => "$top/not_there/recordings" });
ok($c->wait_for(q{SELECT last_error LIKE '%not_there%No such file or directory' FROM neon_comm.recording}), 'what is above it is not made');

# ---- one that is not ours to write to

SKIP:
{
	skip 'root may write everywhere', 3 if $> == 0;
	mkdir "$top/sealed", 0555 or die $!;
	$c->configure({ 'neon_comm.record_directory' => "$top/sealed" });
	ok($c->wait_for(q{SELECT last_error LIKE 'could not make "%/sealed/%.ncrec": Permission denied' FROM neon_comm.recording}), 'a file that cannot be made is named');
	is($c->sql('SELECT count(*) FROM t'), 20000, 'the server goes on');
	chmod 0755, "$top/sealed" or die $!;
	$c->reload_is_over;
	ok(state_is('recording'), 'a reload tries again');
}

# ---- bad values

my (undef, undef, $err) = $c->try_sql(q{ALTER SYSTEM SET neon_comm.record_directory = ''});
like($err, qr/invalid value for parameter "neon_comm.record_directory"/, 'it needs a name');
(undef, undef, $err) = $c->try_sql(q{SET neon_comm.record = on});
like($err, qr/cannot be changed now/, 'no session can switch it on');
$c->sql('CREATE ROLE somebody LOGIN');
(undef, undef, $err) = $c->try_sql(q{SET ROLE somebody; ALTER SYSTEM SET neon_comm.record = on});
like($err, qr/permission denied/, 'who is no superuser cannot either');
(undef, undef, $err) = $c->try_sql(q{SET ROLE somebody; SELECT * FROM neon_comm.recording});
like($err, qr/permission denied/, '... nor look');
is($c->sql('GRANT pg_monitor TO somebody; SET ROLE somebody; SELECT count(*) FROM neon_comm.recording'), 1, 'pg_monitor may look');

# ---- a compute that is killed

my $file = record_on($c, 'neon_comm.record_directory' => 'recordings');
$c->sql('SELECT count(*) FROM t');
my $asked = $c->sql('SELECT requests FROM neon_comm.recording');
ok($c->wait_for("SELECT requests > $asked FROM neon_comm.recording"), 'what is in memory goes to the file by itself');
$asked = $c->sql('SELECT requests FROM neon_comm.recording');
$c->kill9('compute');
my ($lines, $comments) = dumped($file);
cmp_ok(scalar @$lines, '>=', $asked, 'after a kill what was written is there');
like($comments->[-1], qr/^# incomplete, \d+ bytes unread$/, '... and is known to be incomplete');
$c->start('compute');
ok(state_is('recording'), 'the next start begins another one');
isnt(file_of($c), $file, '... in another file');
my ($rc, $report) = replay_json($file, '--conninfo', page_server_conninfo($c, 0), '--speed', 'max');
is($rc, 0, 'what is there can be played');
is($report->{recorded}, scalar @$lines, '... all of it');
ok(!$report->{complete}, '... and the report says that it is not the whole');

# ---- direct mode

$c->configure({ 'neon_comm.mode' => 'direct', 'neon_comm.record' => 'off' });
ok(state_is('off'), 'off');
$c->configure({ 'neon_comm.record' => 'on' });
ok(state_is('recording'), 'a recording where processes ask by themselves');
like($c->log_text('compute'), qr/WARNING:  neon_comm: reads of processes in direct mode are not recorded/, '... is warned of');

$c->check_logs;
done_testing();
