# A table grows into a new segment of a gigabyte, and the server is killed, or the disk
# is full, before anything is said of the segment's first block.  Nobody has logged that
# block, so it has to say so from the moment on in which it is part of the length: else it
# would count as lost by the page server for ever.
#
# Seen to fail: md made the first block of a segment and the mark came after it.
use strict;
use warnings;

use NeonComm::TestPoint;
use NeonComm::Cluster;
use Test::More;

my $segment = 131072;
my $c = NeonComm::Cluster->new(shards => 1, conf => ['restart_after_crash=off']);
$c->allow_log(qr/could not extend file/);

# Two tables of a gigabyte, all holes; the page server's, too, or it would write them.
$c->sql(q{CREATE TABLE killed (f text); CREATE TABLE full_disk (f text);
	ALTER TABLE killed ALTER f SET STORAGE plain; ALTER TABLE full_disk ALTER f SET STORAGE plain; CHECKPOINT});
my %path = map { $_ => $c->sql("SELECT pg_relation_filepath('$_')") } qw(killed full_disk);
ok($c->wait_for(q{SELECT bool_and((flush_lsn >= pg_current_wal_flush_lsn()) IS TRUE) FROM neon_comm.page_servers}), 'page servers have the tables');
$c->stop;
foreach my $part (qw(compute page_server_0))
{
	foreach my $path (values %path)
	{
		open my $fh, '>>', "$c->{dir}/$part/$path" or die $!;
		truncate $fh, $segment * 8192 or die $!;
		close $fh;
	}
}
$c->start;

# A row is a block.  The first one takes the last block of the segment, which nobody logged either.
sub insert
{
	my ($table, $rows) = @_;
	return $c->try_sql("SET neon_comm.accept_missing_pages = on; INSERT INTO $table SELECT repeat('x', 7000) FROM generate_series(1, $rows)");
}

sub readable
{
	my ($table, $blocks, $when) = @_;
	my $missing = $c->counter('missing_answers');
	is($c->sql("SELECT pg_relation_size('$table') / 8192"), $blocks, "$when: $blocks blocks");
	my (undef, $out, $err) = $c->try_sql(sprintf q{SELECT count(*) FROM %s WHERE ctid = '(%d,1)'}, $table, $blocks - 1);
	is("$out$err", '0', "$when: the last one can be read");
	is($c->counter('missing_answers'), $missing, "$when: nothing is missing");
	return;
}

# ---- killed
my $p = NeonComm::TestPoint->new($c);
is((insert('killed', 1))[0], 0, 'the segment is full');
is($c->sql(q{SELECT pg_relation_size('killed') / 8192}), $segment, 'to its last block');
# a session of its own is what dies
$p->kill('segment-made', times => 1);
isnt((insert('killed', 1))[0], 0, 'killed as the next segment is made');
$p->close;
ok($c->wait_log('compute', qr/terminated by signal 9/), 'by the test');
$c->kill9('compute');
$c->start('compute');
readable('killed', $segment + 1, 'killed');
is((insert('killed', 3))[0], 0, 'killed: it grows on');
is($c->sql(q{SELECT count(*) FROM killed WHERE ctid >= '(131071,1)'}), 4, 'killed: and has what was put in');

# ---- no room for the mark
$p = NeonComm::TestPoint->new($c);
is((insert('full_disk', 1))[0], 0, 'the segment is full');
$p->fail('mark-write', 'ENOSPC', times => 1);
my (undef, undef, $err) = insert('full_disk', 1);
like($err, qr/could not extend file "\Q$path{full_disk}\E\.1": No space left on device/, 'the disk is full as the next segment is made');
is($p->hits('mark-write'), 1, 'once');
readable('full_disk', $segment + 1, 'full disk');
is((insert('full_disk', 3))[0], 0, 'full disk: it grows on');
$c->evict;
is($c->sql(q{SELECT count(*) FROM full_disk WHERE ctid >= '(131071,1)'}), 4, 'full disk: and has what was put in');
$p->close;
$c->check_logs;
done_testing();
