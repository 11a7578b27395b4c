# What nc_replay says when it cannot play, or not all (docs/record.md).
#
# A wrong tenant, a page server that is not there, blocks of another shard, a recording that is damaged or none: each is
# told, with what it is about, and the exit status says that not every request was answered.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Recording;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '1MB', stripe => 8);

$c->sql(q{CREATE EXTENSION IF NOT EXISTS neon_comm;
	CREATE TABLE t AS SELECT g, repeat('x', 900) AS filler FROM generate_series(1, 20000) g; CHECKPOINT});
my $file = record_on($c);
$c->sql('SELECT count(*) FROM t');
ok(record_off($c), 'there is a recording');
my $n = $c->sql('SELECT requests FROM neon_comm.recording');
my $bytes = slurp_bytes($file);
my $conninfo = page_server_conninfo($c, 0, 1);
my @to = ('--conninfo', $conninfo, '--speed', 'max');

# ---- the command line

my $some = "$c->{dir}/no_recording";
foreach my $case (
	[ [], 'a recording is needed' ],
	[ [$file], '--conninfo is needed, or --dump' ],
	[ [ $file, @to, '--speed', '0' ], '--speed needs a number from 0.001 to 1000000, or max, not "0"' ],
	[ [ $file, @to, '--connections', '65' ], '--connections needs a number from 1 to 64, not "65"' ],
	[ [ $file, @to, '--lsn', 'never' ], '--lsn needs latest or recorded, not "never"' ],
	[ [ $file, @to, '--class', 'foreground,idle' ], 'there is no class "idle": foreground, ahead, prewarm, async' ],
	[ [ $file, @to, '--tenant', 'x' ], 'a tenant or timeline id is 32 hexadecimal digits' ],
	[ [ $file, $file, @to ], qq{one recording at a time, not "$file" too} ])
{
	my ($rc, undef, $err) = replay(@{ $case->[0] });
	is($rc, 2, "refused: $case->[1]");
	like($err, qr/^nc_replay: \Q$case->[1]\E\nnc_replay: try: nc_replay --help$/m, '... by these words');
}
my ($rc, $out, $err) = replay($file, '--conninfo', 'host=127.0.0.1 prot=1');
is($rc, 1, 'a string that libpq does not know');
like($err, qr/--conninfo is not usable: shard 0: /, '... is refused before anybody is asked');

# ---- files

($rc, $out, $err) = replay($some, @to);
is($rc, 1, 'no file');
is($err, qq{nc_replay: could not open "$some": No such file or directory\n}, '... is named');
($rc, $out, $err) = replay($c->{dir}, @to);
like($err, qr/could not open .*: it is not a regular file$/m, 'a directory is none');
spew_bytes($some, 'SELECT 1;');
($rc, $out, $err) = replay($some, @to);
is($rc, 1, 'another file');
is($err, qq{nc_replay: "$some" cannot be read: it is no recording of neon_comm\n}, '... is told');
spew_bytes($some, substr($bytes, 0, 40));
($rc, $out, $err) = replay($some, @to);
is($err, qq{nc_replay: "$some" cannot be read: its header is damaged\n}, 'one that ends in its header');

# torn: the last frames are missing, or damaged in their middle
spew_bytes($some, substr($bytes, 0, length($bytes) - 60));
my ($lines, $comments) = dumped($some);
like($comments->[-1], qr/^# incomplete, \d+ bytes unread$/, 'one whose end is torn off');
cmp_ok(scalar @$lines, '<', $n, '... is shorter');
($rc, my $report, $err) = replay_json($some, @to);
is($rc, 0, '... and is played');
is($report->{recorded}, scalar @$lines, '... as far as it goes');
ok(!$report->{complete}, '... which the report says');
like($err, qr/the recording is incomplete: its end is missing or damaged/, '... and stderr');
my $damaged = $bytes;
substr($damaged, length($bytes) / 2, 1) ^= "\x10";
spew_bytes($some, $damaged);
($lines, $comments) = dumped($some);
like($comments->[-1], qr/^# incomplete, [1-9]\d* bytes unread$/, 'a flipped bit ends it where it is');

# ---- page servers

($rc, $out, $err) = replay($file, @to, '--tenant', '0123456789abcdef' x 2, '--wait', '1');
is($rc, 1, 'a tenant of somebody else is refused');
like($err, qr/page server of shard 0 \(127\.0\.0\.1:\d+\): .*tenant/, "... by the page server's own words") or diag($err);
is($out, '', '... and nothing is played');
($rc, $out, $err) = replay($file, '--conninfo', page_server_conninfo($c, 0) . ',host=127.0.0.1 port=1', '--speed', 'max', '--wait', '1');
is($rc, 1, 'a page server that is not there');
like($err, qr/page server of shard 1 \(127\.0\.0\.1:1\): .*refused/, '... is named') or diag($err);

($rc, $report, $err) = replay_json($file, '--conninfo', page_server_conninfo($c, 1, 0), '--speed', 'max');
is($rc, 1, 'shards in another order');
cmp_ok($report->{errors}{'wrong shard'}, '>', 0, '... are asked for what they have not got');
like($report->{texts}{'wrong shard'}, qr/shard/, '... and the first of their words is there') or diag(explain($report));

# ---- what has gone since

$c->sql('DROP TABLE t; CHECKPOINT');
$c->wait_for(q{SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) FROM neon_comm.page_servers}) or die 'page servers lag';
($rc, $report, $err) = replay_json($file, @to);
is($rc, 1, 'a table that has been dropped since');
cmp_ok($report->{errors}{error}, '>', 100, '... is an error for each block');
like($report->{texts}{error}, qr/relation not found/, '... with its words');
is($report->{broken_off}, '', '... and ends nothing');

# ---- a page server that is behind the LSNs of the recording

$file = record_on($c);
$c->sql('CREATE TABLE u AS SELECT 1 AS a; SELECT count(*) FROM pg_class; SELECT count(*) FROM pg_attribute');
ok(record_off($c), 'another recording');
($rc, $report) = replay_json($file, @to, '--lsn', 'recorded');
is($rc, 0, 'its LSNs are there');

$c->check_logs;
done_testing();
