# neon_comm.log_min_page_wait: statements that waited for pages are in the log with what they read,
# nested ones and the parallel workers' part included, and nothing is when it is off.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $have = -e `$ENV{PG_CONFIG} --pkglibdir` =~ s/\n//r . '/pg_stat_statements.so';
my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => [
		'neon_comm.readahead_blocks=0', 'neon_comm.async_reads=off', 'autovacuum=off', 'max_worker_processes=24',
		$have ? 'shared_preload_libraries=neon_comm,pg_stat_statements' : ()
	]);
my $log = $c->log_file('compute');

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 999) g;
	CREATE FUNCTION inside() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(f) FROM self /* nested */); END';
	CREATE FUNCTION fails() RETURNS bigint LANGUAGE plpgsql AS
		'DECLARE n bigint; BEGIN n := (SELECT count(f) FROM self /* failed */ WHERE 1 / (id - 999) <= 0); RETURN n;
		 EXCEPTION WHEN division_by_zero THEN RETURN -1; END';});
$c->sql('VACUUM self');
my $s = $c->session;
$s->query('SET max_parallel_workers_per_gather = 0');
is($s->query('SHOW neon_comm.log_min_page_wait'), '-1', 'it is off by itself');

# what a statement added to the log
sub logged
{
	my ($sql) = @_;
	my $from = -s $log;
	$c->evict;
	my $answer = $s->query($sql);
	open(my $f, '<', $log) or die "$log: $!";
	seek $f, $from, 0;
	my $text = do { local $/; <$f> };
	# lines that go on begin with a tab
	return ($answer, $text =~ s/\n\t/ /gr);
}
sub figures
{
	my ($text, $statement) = @_;
	my ($line) = $text =~ /(LOG:  statement waited [^\n]*\n[^\n]*DETAIL:  Statement: [^\n]*\Q$statement\E)/ or return;
	my %f;
	$f{ms} = $1 if $line =~ /waited ([0-9.]+) ms/;
	@f{qw(pages local cached ahead waited waits)} = ($1, $2, $3, $4, $5, $6)
	  if $line =~ /pages, (\d+) pages: (\d+) local, (\d+) cached, (\d+) ahead, (\d+) waited for; (\d+) waits of/;
	$f{workers} = $1 if $line =~ /parallel workers: (\d+) pages/;
	return \%f;
}

my $scan = 'SELECT count(*) FROM self /* outer */';
my ($answer, $text) = logged($scan);
unlike($text, qr/statement waited/, 'off: nothing is logged');

$s->query('SET neon_comm.log_min_page_wait = 0');
($answer, $text) = logged($scan);
is($answer, 1000, 'a statement that waits');
my $f = figures($text, '/* outer */');
ok(defined $f, 'is logged') or diag($text);
cmp_ok($f->{pages}, '>=', 900, 'with its pages');
cmp_ok($f->{waited}, '>=', 900, 'those that it waited for');
is($f->{pages}, $f->{local} + $f->{cached} + $f->{ahead} + $f->{waited}, 'which are all');
cmp_ok($f->{ms}, '>', 0, 'and how long');
ok(!defined $f->{workers}, 'no workers');
$s->query('CREATE TEMP TABLE here AS SELECT 1 AS one; SELECT count(*) FROM here');
my $from = -s $log;
$s->query('SELECT one /* waits for nothing */ FROM here');
is(-s $log, $from, 'one that waits for nothing is not');

($answer, $text) = logged('SELECT inside() /* around */');
is($answer, 1000, 'a statement within another one');
my ($inner, $outer) = (figures($text, '/* nested */'), figures($text, '/* around */'));
ok($inner && $outer, 'both are logged') or diag($text);
cmp_ok($outer->{pages}, '>=', $inner->{pages}, 'what it read counts in the one around it, too');

($answer, $text) = logged('SELECT fails() /* catches */');
is($answer, -1, 'a statement that fails within another one');
is(figures($text, '/* failed */'), undef, 'is not logged');
ok(figures($text, '/* catches */'), 'the one around it is');
($answer, $text) = logged($scan);
ok(figures($text, '/* outer */'), 'and later ones');

# cursors: what others read between two fetches is not theirs
$c->evict;
my $mark = -s $log;
$s->query('BEGIN; DECLARE c CURSOR FOR SELECT id /* cursor */ FROM self; FETCH 5 FROM c; SELECT count(*) FROM self; FETCH 5 FROM c; CLOSE c; COMMIT');
open(my $fh, '<', $log) or die; seek $fh, $mark, 0; $text = do { local $/; <$fh> }; $text =~ s/\n\t/ /g;
my $cursor = figures($text, '/* cursor */');
ok($cursor, 'a cursor is logged when it is closed') or diag($text);
cmp_ok($cursor->{pages}, '<', 200, 'without what was read in between');

# parallel workers
$s->query('SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET seq_page_cost = 0;
	SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off');
($answer, $text) = logged($scan);
$f = figures($text, '/* outer */');
ok($f, 'a parallel one is logged') or diag($text);
cmp_ok($f->{workers} // 0, '>=', 900, 'with the part of its workers');
cmp_ok($f->{pages}, '<', 300, 'apart from its own');
$s->query('RESET parallel_leader_participation; RESET seq_page_cost; SET max_parallel_workers_per_gather = 0');

$s->query("SET neon_comm.log_min_page_wait = '1h'");
($answer, $text) = logged($scan);
unlike($text, qr/statement waited/, 'one that waited less is not logged');

# who may
$s->query('CREATE ROLE nobody; SET ROLE nobody');
like(($s->try('SET neon_comm.log_min_page_wait = 0'))[1], qr/permission denied/, 'not everybody may set it');
$s->query('RESET ROLE');

# no secret in it
$s->query('SET neon_comm.log_min_page_wait = 0');
($answer, $text) = logged(q{SELECT count(*) FROM self WHERE f <> 'neon_comm.page_servers host=secret'});
unlike($text, qr/secret/, 'a statement that names page_servers is not told');

SKIP:
{
	skip 'no pg_stat_statements', 2 unless $have;
	$s->query('CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()');
	($answer, $text) = logged($scan);
	ok(figures($text, '/* outer */'), 'it is logged beside pg_stat_statements');
	is($s->query(q{SELECT rows FROM pg_stat_statements WHERE query LIKE '%/* outer */%'}), 1, 'which counts it');
}
$c->check_logs;
done_testing();
