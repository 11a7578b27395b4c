# Killed between a commit and what follows it in files: DROP TABLE, TRUNCATE and
# DROP DATABASE between the commit record and the unlink, VACUUM between the WAL
# record of a truncation and the cut, ALTER DATABASE .. SET TABLESPACE between
# the commit and the removal of the old place.  Whoever starts again must end
# what was begun, on the compute and on its page servers.
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

# Nobody but VACUUM has a page in his hands: it would pass by it, and could not cut off what is before.
my $c = NeonComm::Cluster->new(conf => [ 'restart_after_crash=on', 'bgwriter_lru_maxpages=0', 'checkpoint_timeout=1h' ]);
my @parts = ('compute', 'page_server_0', 'page_server_1');
my ($p, $s);

$c->sql(q{CREATE EXTENSION amcheck; CREATE TABLESPACE ts LOCATION '';
	CREATE TABLE keep (id int PRIMARY KEY, f text);
	INSERT INTO keep SELECT g, repeat('k', 300) FROM generate_series(1, 6000) g;});

sub sessions { $p = NeonComm::TestPoint->new($c); $s = $c->session; return }

# Stops the compute as it is and starts it again.
sub kill_and_start
{
	$c->kill9('compute');
	undef $s;
	undef $p;
	$c->start('compute', '-t', 120);
	return;
}

# Bytes of a relation's files on a part.
sub bytes_of
{
	my ($part, $path) = @_;
	my $sum = 0;
	$sum += (-s $_) // 0 foreach glob("$c->{dir}/$part/${path} $c->{dir}/$part/${path}_* $c->{dir}/$part/${path}.*");
	return $sum;
}

# A page server that has not come back since a start has no position.
sub applied_everywhere
{
	my $lsn = $c->sql('SELECT pg_current_wal_flush_lsn()');
	return $c->wait_for("SELECT bool_and(coalesce(apply_lsn >= '$lsn', false)) FROM neon_comm.page_servers");
}

sub gone_everywhere
{
	my ($what, $path) = @_;
	$c->sql('CHECKPOINT');
	ok(applied_everywhere(), "$what: page servers have followed");
	is(bytes_of($_, $path), 0, "$what: nothing of it is left on $_") foreach @parts;
	return;
}

sub kept_is_right
{
	my ($what) = @_;
	is($c->sql(q{SELECT count(*), sum(id) FROM keep WHERE f = repeat('k', 300)}), '6000|18003000',
		"$what: another table is as it was");
	is($c->sql(q{SELECT bt_index_check('keep_pkey', true)}), '', "$what: and its index");
	return;
}

my $rows = q{SELECT g AS id, repeat('d', 300) AS f FROM generate_series(1, 5000) g};

# DROP TABLE: the whole compute is killed; then only the backend, which is a crash restart.
foreach my $way ('compute killed', 'backend killed')
{
	sessions();
	# several commands: its pages are local when it is dropped
	$s->query("BEGIN; CREATE TABLE d AS $rows; INSERT INTO d $rows; COMMIT");
	my $path = $s->query(q{SELECT pg_relation_filepath('d')});
	my ($number) = $path =~ /(\d+)$/;
	cmp_ok(bytes_of('compute', $path), '>', 1024 * 1024, "$way: the table is larger than shared buffers");
	if ($way eq 'compute killed')
	{
		# recovery needs pages of it that page servers have dropped: the last update comes back to each
		$s->query('CHECKPOINT; UPDATE d SET f = f; UPDATE d SET f = f');
		$p->pause('smgr-unlink', rel => $number);
		$s->send('DROP TABLE d');
		$p->wait('smgr-unlink');
		cmp_ok(bytes_of('compute', $path), '>', 0, "$way: its file is there when it is killed");
		ok(applied_everywhere(), "$way: but page servers have dropped it");
		kill_and_start();
		cmp_ok($c->counter('reads_zero_recovery'), '>', 0, "$way: which recovery does not mind");
	}
	else
	{
		my $from = length $c->log_text('compute');
		$p->kill('smgr-unlink', rel => $number);
		$s->send('DROP TABLE d');
		ok($c->wait_log('compute', qr/ended itself|ends itself/, $from), "$way: at the point");
		ok($c->wait_log('compute', qr/database system is ready to accept connections/, $from), "$way: and came back");
		undef $s;
		undef $p;
	}
	is($c->sql(q{SELECT to_regclass('d')}), '', "$way: the drop has happened");
	gone_everywhere($way, $path);
	is($c->sql("SELECT count(*) FROM neon_comm.local_blocks() WHERE relfilenode = $number"), 0, "$way: nor in the index");
	kept_is_right($way);
}

# TRUNCATE: the old file.
sessions();
$s->query("CREATE TABLE d AS $rows");
my $path = $s->query(q{SELECT pg_relation_filepath('d')});
$p->pause('smgr-unlink', rel => $path =~ /(\d+)$/);
$s->send('TRUNCATE d');
$p->wait('smgr-unlink');
kill_and_start();
is($c->sql('SELECT count(*), pg_relation_size($$d$$) FROM d'), '0|0', 'TRUNCATE: it is empty');
gone_everywhere('TRUNCATE', $path);
$c->sql(q{INSERT INTO d SELECT g, 'new' FROM generate_series(1, 30000) g});
$c->evict;
is($c->sql('SELECT count(*), sum(id), min(f), max(f) FROM d'), '30000|450015000|new|new', 'TRUNCATE: new rows are right');
$c->sql('DROP TABLE d');

# VACUUM cuts the end off.
sessions();
$s->query("CREATE TABLE d AS $rows; DELETE FROM d WHERE id > 500");
$path = $s->query(q{SELECT pg_relation_filepath('d')});
$p->pause('smgr-truncate', rel => $path =~ /(\d+)$/);
my $long = $c->sql(q{SELECT pg_relation_size('d')});
$s->send('VACUUM d');
$p->wait('smgr-truncate');
is(-s "$c->{dir}/compute/$path", $long, 'VACUUM: the file is not cut when it is killed');
kill_and_start();
my $short = $c->sql(q{SELECT pg_relation_size('d')});
cmp_ok($short, '<', $long / 4, 'VACUUM: the file is cut');
is($c->sql('SELECT count(*), sum(id) FROM d'), '500|125250', 'VACUUM: its rows are there');
ok(applied_everywhere(), 'VACUUM: page servers have followed');
is(-s "$c->{dir}/$_/$path", $short, "VACUUM: cut on $_") foreach grep { -e "$c->{dir}/$_/$path" } @parts;
$c->sql(q{INSERT INTO d SELECT g, repeat('n', 300) FROM generate_series(501, 5000) g});
$c->evict;
is($c->sql('SELECT count(*), sum(id), count(*) FILTER (WHERE f LIKE $$n%$$) FROM d'), '5000|12502500|4500',
	'VACUUM: blocks that come again are new');
kept_is_right('VACUUM');

# DROP DATABASE: its files are gone, the commit is not there.
$c->sql('CREATE DATABASE gone');
$c->sql("CREATE TABLE d AS $rows", db => 'gone');
my $oid = $c->sql(q{SELECT oid FROM pg_database WHERE datname = 'gone'});
sessions();
$p->pause('database-done', pid => $s->pid);
$s->send('DROP DATABASE gone');
$p->wait('database-done');
ok(!-e "$c->{dir}/compute/base/$oid", 'DROP DATABASE: its directory is gone when it is killed');
kill_and_start();
$c->sql('DROP DATABASE IF EXISTS gone');
$c->sql('CHECKPOINT');
ok(applied_everywhere(), 'DROP DATABASE: page servers have followed');
ok(!-e "$c->{dir}/$_/base/$oid", "DROP DATABASE: gone from $_") foreach @parts;
$c->sql("CREATE DATABASE gone OID $oid");
$c->sql(q{CREATE TABLE d AS SELECT g AS id, 'again' AS f FROM generate_series(1, 30000) g}, db => 'gone');
$c->evict(db => 'gone');
is($c->sql('SELECT count(*), min(f), max(f) FROM d', db => 'gone'), '30000|again|again', 'DROP DATABASE: the same number again is right');

# ALTER DATABASE .. SET TABLESPACE: committed, the old directory not removed.
sessions();
$p->pause('database-committed', pid => $s->pid);
$s->send('ALTER DATABASE gone SET TABLESPACE ts');
$p->wait('database-committed');
ok(-e "$c->{dir}/compute/base/$oid", 'SET TABLESPACE: the old directory is there when it is killed');
kill_and_start();
is($c->sql(q{SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = 'gone'}),
	'ts', 'SET TABLESPACE: has happened');
is($c->sql('SELECT count(*), min(f), max(f) FROM d', db => 'gone'), '30000|again|again', 'SET TABLESPACE: rows are right');
$c->sql(q{UPDATE d SET f = 'moved'; INSERT INTO d SELECT g, 'moved' FROM generate_series(30001, 40000) g}, db => 'gone');
$c->evict(db => 'gone');
is($c->sql('SELECT count(*), min(f), max(f) FROM d', db => 'gone'), '40000|moved|moved', 'SET TABLESPACE: and changes stay');
is($c->sql("SELECT count(*) FROM neon_comm.local_blocks() WHERE db = $oid AND reason <> 'sequence'"), 0,
	'SET TABLESPACE: nothing stays local') if $c->sql('SELECT neon_comm.sweep() >= 0') eq 't';
kept_is_right('SET TABLESPACE');
is($c->counter('stale_answers'), 0, 'no answer was old');
$c->check_logs;
done_testing();
