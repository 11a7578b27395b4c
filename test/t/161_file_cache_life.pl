# The local file cache over stops, crashes, damaged files, lost directories and
# changes of its size: it may lose its pages, never give a wrong one or fail a
# query.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => ['neon_comm.lfc_size=64MB', 'autovacuum=off',
		'neon_comm.lfc_prewarm_workers=0']);
my $file = "$c->{dir}/compute/neon_comm.lfc";
my $rows = 'SELECT count(*), sum(n) FROM t';

sub is_on { my ($c) = @_; return $c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}) }

# Reads the table, each time in a new session, until one has met the trouble and was heard.
sub is_off
{
	my ($c) = @_;
	foreach (1 .. 300)
	{
		return 1 if $c->sql(q{SELECT state = 'failed' FROM neon_comm.lfc}) eq 't';
		$c->sql($rows);
		usleep(100_000);
	}
	return 0;
}

sub fill { my ($c) = @_; return ok($c->into_cache($rows), 'it fills') }

ok(is_on($c), 'the cache is on');
$c->sql(q{CREATE TABLE t (id int, n int, f text);
	INSERT INTO t SELECT g, 0, repeat('t', 400) FROM generate_series(1, 40000) g; VACUUM t;});
my $pages = $c->sql(q{SELECT pg_relation_size('t') / 8192});
is($c->sql($rows), '40000|0', 'rows');
fill($c);

# A clean stop: the last checkpoint writes pages, and the cache has them after the start.
$c->sql('UPDATE t SET n = n + 1 WHERE id % 300 = 0');
my $used = $c->sql('SELECT used_pages FROM neon_comm.lfc');
$c->restart('compute');
like($c->log_text('compute'), qr/the file cache goes on with \d+ pages of the last stop/, 'the file survives a clean stop');
cmp_ok($c->sql('SELECT used_pages FROM neon_comm.lfc'), '>=', $used / 2, 'with its pages');
is($c->sql($rows), '40000|133', 'which are the newest');
cmp_ok($c->counter('lfc_hits'), '>', $pages / 2, 'and are found');
is($c->counter('lfc_mismatches'), 0, 'all sound');
is($c->counter('lfc_stale'), 0, 'none old');

# A crash: nothing of the file is believed.
$c->sql('UPDATE t SET n = n + 1 WHERE id % 300 = 0');
$c->kill9('compute');
$c->start('compute');
is($c->counter('lfc_hits') < 500 ? 'few' : 'many', 'few', 'after a crash the cache starts empty');
is($c->sql($rows), '40000|266', 'and rows are right');

# An immediate stop is a crash.
$c->stop('compute', '--mode', 'immediate');
$c->start('compute');
is($c->sql($rows), '40000|266', 'rows after an immediate stop');

# A crash of one process, too.
my $s = $c->session;
$s->query($rows);
$c->sql($rows);
my $crash = length $c->log_text('compute');
kill 'KILL', $s->pid;
ok($c->wait_log('compute', qr/all server processes terminated; reinitializing/, $crash), 'the server begins anew');
ok($c->wait_for('SELECT true'), 'the server is back');
$c->allow_log(qr/was terminated by signal 9/);
is($c->sql($rows), '40000|266', 'rows after the crash of a process');
ok(is_on($c), 'and the cache is on');
fill($c);

# Somebody wrote into the file while the server was down: garbage, halves, other blocks.
$c->stop('compute');
open my $fh, '+<:raw', $file or die $!;
my $blocks = (-s $fh) / 8192;
for (my $b = 0; $b + 3 < $blocks; $b += 4)
{
	seek $fh, $b * 8192, 0;
	read $fh, my $block, 8192;
	seek $fh, ($b + 1) * 8192 + 4096, 0;
	print $fh substr($block, 0, 4096);
	seek $fh, ($b + 2) * 8192, 0;
	print $fh $block;
	seek $fh, ($b + 3) * 8192, 0;
	print $fh pack('C', $b % 256) x 8192;
}
close $fh;
$c->start('compute');
is($c->sql($rows), '40000|266', 'damaged blocks: rows are right');
cmp_ok($c->counter('lfc_mismatches'), '>', 50, 'they were noticed');

# A damaged list, a list of another stop, a file that is gone.
foreach my $how ('list', 'old', 'file')
{
	my $from = length $c->log_text('compute');
	system('cp', "$file.index", "$file.old") if $how eq 'old';
	$c->sql('UPDATE t SET n = n + 1 WHERE id % 300 = 0; UPDATE t SET n = n - 1 WHERE id % 300 = 0;') if $how eq 'old';
	$c->sql($rows);
	$c->stop('compute');
	if ($how eq 'list')
	{
		open $fh, '+<:raw', "$file.index" or die $!;
		seek $fh, 1000, 0;
		print $fh 'x';
		close $fh;
	}
	rename "$file.old", "$file.index" if $how eq 'old';
	if ($how eq 'file')
	{
		# the same bytes, but another file: nobody knows what was done to it
		system('cp', $file, "$file.copy");
		rename "$file.copy", $file;
	}
	$c->start('compute');
	unlike(substr($c->log_text('compute'), $from), qr/file cache goes on/, "$how: the cache starts empty");
	is($c->sql($rows), '40000|266', "$how: rows are right");
	ok($c->wait_for('SELECT staged_pages = 0 FROM neon_comm.lfc'), 'it fills');
}
is($c->counter('lfc_stale'), 0, 'nothing old was found');
$c->check_logs;

# Its size changes under load.
$c->sql('CREATE TABLE b AS SELECT g AS id, 0 AS n, repeat($$b$$, 300) AS f FROM generate_series(1, 40000) g; CREATE INDEX ON b (id)');
my $script = "$c->{dir}/resize.sql";
open $fh, '>', $script or die $!;
print $fh "\\set id random(1, 40000)\nUPDATE b SET n = n + 1 WHERE id = :id;\nSELECT count(*) FROM b WHERE id BETWEEN :id AND :id + 200;\n";
close $fh;
my $out = '';
my $h = $c->background(\$out, 'pgbench', '-n', '-c', 8, '-j', 1, '-t', 150, '-f', $script, $c->conninfo . ' dbname=postgres');
my $bad = 0;
foreach my $mb (16, 0, 64, 3, 1, 64, 5)
{
	$c->sql("ALTER SYSTEM SET neon_comm.lfc_size_limit = $mb; SELECT pg_reload_conf()");
	ok($c->wait_for("SELECT limit_bytes = $mb * 1024 * 1024 FROM neon_comm.lfc"), "limit $mb MB");
	# the limit is announced before the file is cut
	my $large = 1;
	foreach (1 .. 300)
	{
		$large = ((stat $file)[12] // 0) * 512 > $mb * 1024 * 1024 + 65536 || -s $file > 2 * $mb * 1024 * 1024 + 8192;
		last if !$large;
		usleep(100_000);
	}
	$bad++ if $large || $c->sql("SELECT used_pages > $mb * 128 FROM neon_comm.lfc") eq 't';
}
is($bad, 0, 'pages and file keep to each limit');
$h->finish;
like($out, qr{transactions actually processed: 1200/1200}, 'and all transactions were done') or diag($out);
is($c->sql('SELECT count(*), sum(n) FROM b'), '40000|1200', 'with an exact sum');
$c->sql('ALTER SYSTEM RESET neon_comm.lfc_size_limit; SELECT pg_reload_conf()');
is($c->counter('lfc_stale'), 0, 'nothing old was found');
is($c->counter('lfc_errors'), 0, 'no error');
$c->check_logs;
undef $c;

# A directory that is not there, comes, is moved away and comes back.
$c = NeonComm::Cluster->new(no_start => 1);
my $dir = "$c->{dir}/cache";
$c->append_conf('compute', "neon_comm.lfc_size = 64MB\nneon_comm.lfc_path = '$dir/pages'");
$c->start;
ok($c->wait_for(q{SELECT state = 'failed' FROM neon_comm.lfc}), 'no directory: the cache fails');
like($c->sql('SELECT last_error FROM neon_comm.lfc'), qr/could not open .*No such file/, 'and says why');
$c->sql(q{CREATE TABLE t (id int, n int, f text); INSERT INTO t SELECT g, 0, repeat('t', 400) FROM generate_series(1, 20000) g;});
is($c->sql($rows), '20000|0', 'queries do not mind');
mkdir $dir or die $!;
$c->sql('SELECT pg_reload_conf()');
ok(is_on($c), 'the directory is there: on after a reload');
$c->sql($rows);
ok(-e "$dir/pages", 'the file is made');
cmp_ok($c->counter('lfc_errors'), '>', 0, 'the error was counted');
ok($c->wait_log('compute', qr/the local file cache is off: could not open/), 'and logged');

$s = $c->session;
$s->query($rows);
rename $dir, "$dir.away" or die $!;
foreach my $n (1 .. 3)
{
	$s->query('UPDATE t SET n = n + 1');
	# each time a new session, which cannot open the file
	is($c->sql($rows), "20000|" . 20000 * $n, "directory moved away: update $n is read back");
	is($s->query($rows), "20000|" . 20000 * $n, 'by a session that has the file open, too');
}
# as soon as a session that cannot open the file looks for a page in it: some were written by then, or will be
ok(is_off($c), 'then the cache is off');
rename "$dir.away", $dir or die $!;
$c->sql('SELECT pg_reload_conf()');
ok(is_on($c), 'and on again when the directory is back');
fill($c);
my $hits = $c->counter('lfc_hits');
is($c->sql($rows), '20000|60000', 'rows');
cmp_ok($c->counter('lfc_hits'), '>', $hits + 100, 'from the cache');

# Reads the table until it comes from the cache, however often that takes.
sub is_found
{
	my ($c) = @_;
	foreach (1 .. 100)
	{
		my $before = $c->counter('lfc_hits');
		$c->sql($rows);
		return 1 if $c->counter('lfc_hits') > $before + 100;
		usleep(100_000);
	}
	return 0;
}

# Only its file is gone, and another one has its name: it is nobody's to write to.
$s->query($rows);
my $mismatches = $c->counter('lfc_mismatches');
unlink "$dir/pages";
open $fh, '>', "$dir/pages" or die $!;
print $fh 'not a cache' x 100000;
close $fh;
is($c->sql($rows), '20000|60000', 'another file under the name');
$c->sql('UPDATE t SET n = n + 1');
is($c->sql($rows), '20000|80000', 'is not believed');
ok($c->wait_for(q{SELECT state = 'failed' FROM neon_comm.lfc}), 'the cache is off');
is(-s "$dir/pages", 1100000, 'the file is left as it is');
unlink "$dir/pages";
$c->sql('SELECT pg_reload_conf()');
ok(is_found($c), 'a new file is made under the name, and used');
is($s->query($rows), '20000|80000', 'by a session that had the old one open, too');
is($c->counter('lfc_mismatches'), $mismatches, 'which does not look for pages in the old one');

# The file is cut. A page that is cached meanwhile, be it one that this query missed, is written at its
# place and makes the file long again, with zeroes where pages were: those are mismatches, and no error.
# So it is cut until somebody reads behind its end.
my $errors = $c->counter('lfc_errors');
foreach (1 .. 100)
{
	fill($c);
	truncate "$dir/pages", 0 or die $!;
	is($c->sql($rows), '20000|80000', 'the file is cut: rows are right');
	last if $c->counter('lfc_errors') > $errors;
}
ok($c->wait_for(q{SELECT state = 'failed' FROM neon_comm.lfc}), 'the file is cut: the cache is off');
like($c->sql('SELECT last_error FROM neon_comm.lfc'), qr/could not read .*Input\/output error/, 'and says why');
$c->sql('SELECT pg_reload_conf()');
ok(is_found($c), 'and on again after a reload');
is($c->counter('lfc_stale'), 0, 'nothing old was found');
$c->check_logs;
undef $c;
done_testing();
