# A page server whose last record began in a segment that nothing else needs, because it is that of a switch
# of segments or longer than several, stopped while the compute writes on and removes what it may: it joins again.
#
# Seen to fail without: the segments from that on in which the last whole record begins (65_segment_gone), and
# with only one segment before that of the confirmed position (65_long_record).
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.request_timeout=60s', 'min_wal_size=32MB', 'max_wal_size=1GB' ]);
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('f', 300) AS f FROM generate_series(1, 2000) g});

# asked for once before, so that nothing of the catalogs is missing while the page server is away
my $w = $c->session;
my $write = q{SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 1000000))) FROM generate_series(1, 20)};
my $switch = 'SELECT pg_walfile_name(pg_switch_wal() - 1)';
my $replayed = q{SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers};
my $at_start = q{SELECT pg_walfile_name(apply_lsn - 1) <> pg_walfile_name(apply_lsn + 1) FROM neon_comm.page_servers};
my $tiny = q{SELECT pg_logical_emit_message(false, 'x', 'x')};
$w->query($_) foreach $write, $switch, $replayed, $at_start, $tiny, 'CHECKPOINT';

sub replayed { return $w->wait_for($replayed) }

# Where the page server is comes to the slot with its next report, and so may be there only at the next checkpoint.
sub goes
{
	my ($file) = @_;
	foreach (1 .. 600)
	{
		$w->query('CHECKPOINT');
		last unless -e $file;
		usleep(100_000);
	}
	return ok(!-e $file, 'then the segment goes');
}

# the record of a switch begins in one segment and ends at the start of the next; others may come behind it
my ($file, $last);
foreach (1 .. 30)
{
	$w->query($tiny);
	$file = $w->query($switch);
	replayed();
	$c->stop('page-server', 0);
	$last = $w->query($at_start) eq 't' and last;
	$c->start('page-server', 0);
	replayed();
}
ok($last, 'the last record that was replayed is that of a switch');
my $from = length $c->log_text('compute');
$w->query($_) foreach $write, 'CHECKPOINT', $write, 'CHECKPOINT', 'CHECKPOINT';
ok(-e "$c->{dir}/compute/pg_wal/$file", 'its segment is kept');
$c->start('page-server', 0);
ok($c->wait_log('compute', qr/WAL feed (streams to|refused) page_server_0/, $from), 'the page server comes back');
unlike(substr($c->log_text('compute'), $from), qr/WAL feed refused/, 'it joins');
is($c->sql('SELECT count(*) FROM t'), 2000, 'and answers');
ok($w->query($write) && replayed(), 'it follows');
$w->query($_) foreach 'CHECKPOINT', $write;
goes("$c->{dir}/compute/pg_wal/$file");

# ---- a record of 40 MB

my $long = q{SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_logical_emit_message(false, 'x', repeat('x', 40000000))};
my $is_last = q{SELECT apply_lsn = '%s' FROM neon_comm.page_servers};
my $written = q{SELECT flush_lsn >= pg_current_wal_insert_lsn() FROM neon_comm.page_servers};
$w->query($_) foreach $long, $written, sprintf($is_last, '0/1');
replayed();
$last = 0;
foreach (1 .. 30)
{
	($file, my $end) = split /\|/, $w->query($long);
	# nothing is committed, so the walwriter flushes it
	$w->wait_for($written);
	replayed();
	$c->stop('page-server', 0, '--mode', 'immediate');
	$last = $w->query(sprintf $is_last, $end) eq 't' and last;
	$c->start('page-server', 0);
	replayed();
}
ok($last, 'the last record that was replayed is a long one');
$from = length $c->log_text('compute');
$w->query($_) foreach $write, 'CHECKPOINT', $write, 'CHECKPOINT', 'CHECKPOINT';
ok(-e "$c->{dir}/compute/pg_wal/$file", 'the segment in which it begins is kept');
$c->start('page-server', 0);
ok($c->wait_log('compute', qr/WAL feed (streams to|refused) page_server_0/, $from), 'the page server comes back');
unlike(substr($c->log_text('compute'), $from), qr/WAL feed refused/, 'it joins');
is($c->sql('SELECT count(*) FROM t'), 2000, 'and answers');
ok($w->query($write) && replayed(), 'it follows');
$w->query($_) foreach 'CHECKPOINT', $write;
goes("$c->{dir}/compute/pg_wal/$file");

$c->check_logs;
done_testing();
