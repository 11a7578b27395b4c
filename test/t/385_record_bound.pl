# A recording is bounded, and so are all of a directory together (docs/record.md).
#
# At its size it ends, complete, and nothing else does; while there is no room another one is refused, by name, and begins
# once there is. A communicator that is started again goes on in another file, and what it leaves is complete.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Recording;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '1MB', conf => [ 'neon_comm.readahead_blocks=0' ]);
my $dir = "$c->{dir}/compute/recordings";

sub size_of { my $s = 0; $s += -s $_ foreach glob("$dir/*.ncrec"); return $s }
sub state_is { my ($state) = @_; return $c->wait_for("SELECT state = '$state' FROM neon_comm.recording") }

# Reads until the recording has another state; each round is some thousand requests.
sub read_until
{
	my ($state) = @_;
	foreach (1 .. 500)
	{
		return 1 if $c->sql('SELECT state FROM neon_comm.recording') eq $state;
		$c->sql('SELECT count(*) FROM t');
	}
	return 0;
}

$c->sql(q{CREATE EXTENSION IF NOT EXISTS neon_comm;
	CREATE TABLE t AS SELECT g, repeat('x', 900) AS filler FROM generate_series(1, 15000) g; CHECKPOINT});
# there is one of another day already: room for two frames is left
mkdir $dir, 0700 or die $!;
spew_bytes("$dir/old.ncrec", 'x' x 880_000);
my $file = record_on($c, 'neon_comm.record_directory' => 'recordings', 'neon_comm.record_size' => '1MB');
like($file, qr{^\Q$dir\E/\d{8}T\d{6}Z-\d+\.ncrec$}, 'it has a directory and a name of its own');

# ---- a communicator that ends and begins

$c->sql('SELECT count(*) FROM t');
$c->sql('SELECT neon_comm.restart_communicator()');
ok($c->wait_for("SELECT state = 'recording' AND path <> 'recordings/" . ($file =~ s{.*/}{}r) . q{' FROM neon_comm.recording}),
	'another communicator goes on, in another file');
my ($lines, $comments) = dumped($file);
unlink $file or die $!;
like($comments->[-1], qr/^# ended: communicator ended, \d+ requests, 0 dropped$/, 'what its predecessor wrote is complete');
cmp_ok(scalar @$lines, '>', 1000, '... and has what was asked');

# ---- full

ok(read_until('full'), 'at its size it ends');
cmp_ok(size_of(), '<=', 1024 * 1024, 'all of the directory is within it');
cmp_ok(size_of(), '>', 1024 * 1024 - 2 * 65536, '... and uses it');
my $path = file_of($c);
my $n = $c->sql('SELECT requests FROM neon_comm.recording');
($lines, $comments) = dumped($path);
like($comments->[-1], qr/^# ended: full, $n requests, \d+ dropped$/, 'it is complete, and says why');
is(scalar @$lines, $n, '... with as many as the view says');
like($c->log_text('compute'), qr/neon_comm: the recording "[^"]+" has ended: full/, 'the log says so');
my $size = size_of();
is($c->sql('SELECT count(*) FROM t'), 15000, 'the server goes on');
$c->reload_is_over;
$c->sql('SELECT count(*) FROM t');
is($c->sql('SELECT state FROM neon_comm.recording'), 'full', 'a reload alone does not begin another one');
is(size_of(), $size, '... nothing is written');

# ---- no room

$c->configure({ 'neon_comm.record' => 'off' });
ok(state_is('off'), 'it can be switched off');
$c->configure({ 'neon_comm.record' => 'on' });
ok(state_is('failed'), 'without room none begins');
like($c->sql('SELECT last_error FROM neon_comm.recording'), qr/^recordings in "recordings" have all of the room that they may take$/, '... which is said');
like($c->log_text('compute'), qr/WARNING:.*requests are not recorded any more: recordings in "recordings" have all of the room/, '... in the log, too');
is(size_of(), $size, '... and makes no file');
$c->configure({ 'neon_comm.record_size' => '2MB' });
ok(state_is('recording'), 'with a larger size it does');
isnt(file_of($c), $path, '... in a file of its own');
$c->configure({ 'neon_comm.record' => 'off' });
ok(state_is('off'), 'off');
unlink glob("$dir/*.ncrec");
$c->configure({ 'neon_comm.record' => 'on', 'neon_comm.record_size' => '1MB' });
ok(state_is('recording'), 'and where old ones were removed it does, too');

# ---- a clean stop

$c->sql('SELECT count(*) FROM t');
$path = file_of($c);
$c->stop('compute');
($lines, $comments) = dumped($path);
like($comments->[-1], qr/^# ended: communicator ended/, 'a stop of the server completes it');
cmp_ok(scalar @$lines, '>', 1000, '... with all');

$c->start('compute');
$c->check_logs;
done_testing();
