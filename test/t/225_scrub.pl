# Files are scrubbed when they are used, and by the sweeper after a start: what an
# earlier life left in them means nothing before that and its space comes back after it,
# sequences go on without a gap while the sweeper has not come to them, blocks that were
# never logged are known, and a kill in the middle of it all loses nothing.
#
# Seen to fail: a sequence falls back to its logged state without the scrub at the first
# use (94_first_use), space is not given back without the sweeper's (94_rest), which must
# leave alone what was made since the start (94_new_files); space that a file that could
# not be opened takes is not given back (94_not_opened); holes are read (94_read_holes).
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => [ 'neon_comm.sweep_interval=1h', 'autovacuum=off' ]);

$c->sql(q{CREATE EXTENSION pageinspect;
	CREATE TABLE h (id int); CREATE INDEX h_i ON h USING hash (id); INSERT INTO h SELECT generate_series(1, 60000);
	CREATE TABLE kept (id int, f text)});
$c->sql('DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format($f$CREATE SEQUENCE s%s$f$, i); END LOOP; END $$');
my $next = join(', ', map { "nextval('s$_')" } 1 .. 40);
my $all = sub { my ($v) = @_; return join('|', ($v) x 40) };
my $held = 'SELECT allocated - sequences - empty FROM neon_comm.local_bytes()';
my $value = 0;

sub node { return $c->sql("SELECT pg_relation_filenode('$_[0]')") }

sub holes
{
	return $c->sql(q{SELECT count(*) FILTER (WHERE (page_header(get_raw_page('h_i', b::int))).upper = 0)
		FROM generate_series(0, pg_relation_size('h_i') / 8192 - 1) b});
}

# Leaves pages of a transaction that never ends in the files, and is killed with it.
sub leave_pages_and_die
{
	my $s = $c->session;

	is($c->sql("SELECT $next"), $all->(++$value), "value $value");
	$s->query('BEGIN; INSERT INTO kept VALUES (0)');
	$s->query(q{INSERT INTO kept SELECT g, repeat('k', 400) FROM generate_series(1, 20000) g});
	# recovery begins behind all that, and does not use the table
	$c->sql('CHECKPOINT');
	cmp_ok($c->sql($held), '>', 1024 * 1024, 'pages are kept in the file');
	$c->kill9('compute');
	undef $s;
	return;
}

# The next start has these test points, or none.
sub start_with
{
	my ($points) = @_;
	$c->append_conf('compute', "neon_comm.test_points = '$points'");
	$c->start('compute');
	return;
}

my $holes = holes();
cmp_ok($holes, '>', 0, 'there are blocks that nobody logged');
my $p = NeonComm::TestPoint->new($c);
my ($kept, $index) = (node('kept'), node('h_i'));
$p->close;

# ---- the sweeper stands in front of a file: who uses it does not wait for him
leave_pages_and_die();
start_with("skeleton-rest=pause:0:1:0:0:$kept");
ok($c->wait_log('compute', qr/test point "skeleton-rest": process \d+ stops/), 'the sweeper stands before the table');
cmp_ok($c->sql($held), '>', 1024 * 1024, 'whose pages are in the file still');
is($c->sql("SELECT $next"), $all->(++$value), 'sequences go on without a gap');
is($c->sql('SELECT count(*) FROM kept'), 0, 'nothing of the table is seen');
is(holes(), $holes, 'blocks that nobody logged are read');
cmp_ok($c->sql($held), '<', 64 * 1024, 'the first use has given the space back');

# ---- a database that is being copied: its files are nobody's yet, and nobody knows which have INIT forks to come
my $copy = "$c->{dir}/compute/base/99999";
my $content = 'c' x 16384;
mkdir $copy or die $!;
open my $fh, '>', "$copy/50000" or die $!;
print $fh $content;
close $fh;
$c->sql('SELECT neon_comm.sweep()');
open $fh, '<', "$copy/50000" or die $!;
is(do { local $/; <$fh> }, $content, 'a file made since the start is left alone');
close $fh;
unlink "$copy/50000";
rmdir $copy;

# ---- killed there, and again in the middle of a file, by who uses it
$c->sql('CHECKPOINT');
$c->kill9('compute');
start_with('');
is($c->sql("SELECT $next"), $all->(++$value), 'killed while files waited to be scrubbed: no gap');
leave_pages_and_die();
start_with("skeleton-rest=pause:0:-1:0:0:$kept skeleton-scrub=kill:0:1:2:0:$kept");
my ($rc, undef, $err) = $c->try_sql('SELECT count(*) FROM kept');
isnt($rc, 0, 'killed in the middle of a file') or diag($err);
$c->kill9('compute');
start_with('');
is($c->sql("SELECT $next"), $all->(++$value), 'again no gap');
is($c->sql('SELECT count(*) FROM kept'), 0, 'nor a row');
is(holes(), $holes, 'and the blocks that nobody logged are known');

# ---- a file that cannot be opened just now is not taken for a clean one
leave_pages_and_die();
start_with("skeleton-rest=pause:0:1:0:0:$kept skeleton-open=errno:5:1:0:0:$kept");
is($c->sql('SELECT count(*) FROM kept'), 0, 'used while its file cannot be opened at first');
is($c->sql("SELECT $next"), $all->(++$value), 'sequences go on');
is(holes(), $holes, 'blocks that nobody logged are known');
cmp_ok($c->sql($held), '<', 64 * 1024, 'the next use has given the space back');

# ---- a long file with something in each chunk, most of it holes: they are not read
my $file = "$c->{dir}/compute/" . $c->sql(q{SELECT pg_relation_filepath('kept')});
my $chunk = 64 * 8192;
$c->sql('CHECKPOINT');
$c->kill9('compute');
my $chunks = int((-s $file) / $chunk);
open $fh, '+<', $file or die $!;
foreach my $n (0 .. $chunks - 1)
{
	seek $fh, $n * $chunk + $chunk / 2, 0;
	print $fh 'junk';
}
close $fh;
start_with("skeleton-rest=pause:0:1:0:0:$kept");
my $reader = $c->session;
my $pid = $reader->query('SELECT pg_backend_pid()');

sub reads
{
	open my $io, '<', "/proc/$pid/io" or die $!;
	return (map { /^syscr: (\d+)/ ? $1 : () } <$io>)[0];
}

is($c->sql("SELECT $next"), $all->(++$value), 'and again');
$reader->query(q{SELECT length(get_raw_page('h_i', 0))});
cmp_ok($c->sql($held), '>=', $chunks * 4096, "each of $chunks chunks has something");
my $reads = reads();
$reader->query(q{SELECT length(get_raw_page('kept', 0))});
$reads = reads() - $reads;
cmp_ok($reads, '<', $chunks * 32, 'holes are not read');
cmp_ok($c->sql($held), '<', 64 * 1024, 'and what was not in them is given back');
$reader->close;

# ---- nobody uses it: the sweeper's work, here of a session
leave_pages_and_die();
start_with('');
$c->sql('SELECT neon_comm.sweep()');
# or by the sweeper, whom the session finds in the middle of the file and passes by
ok($c->wait_for("SELECT ($held) < 64 * 1024"), 'the rest is scrubbed without being used');
is($c->sql("SELECT $next"), $all->(++$value), 'which takes no sequence back');
is(holes(), $holes, 'nor a mark');
$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
