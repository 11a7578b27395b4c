# Databases that are copied file by file (ALTER DATABASE .. SET TABLESPACE, CREATE DATABASE ..
# STRATEGY file_copy), and page servers that crash later: replay begins before the copy
# again, when what was copied has been removed or changed since.  And tablespaces, which are
# directories in pg_tblspc here: page servers take them for what they are without a setting.
#
# Seen to fail without: the restartpoint behind a copy (96_copied_again), the setting that
# the page service makes (97_directory_refused).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 2);
my $rows = 'SELECT count(*), sum(g), min(v), max(v) FROM a';

sub applied
{
	my $lsn = $c->sql('SELECT pg_current_wal_flush_lsn()');
	return ok($c->wait_for("SELECT bool_and((apply_lsn >= '$lsn') IS TRUE) FROM neon_comm.page_servers"), 'page servers have replayed it');
}

sub crash
{
	$c->kill9('page-server', $_) foreach 0, 1;
	$c->start('page-server', $_) foreach 0, 1;
	$c->restart('compute');
	return;
}

$c->sql(q{CREATE TABLESPACE ts LOCATION ''});
$c->sql('CREATE DATABASE moved');
$c->sql('CREATE DATABASE template');
$c->sql(q{CREATE TABLE a AS SELECT g, 'old' AS v FROM generate_series(1, 5000) g}, db => $_) foreach qw(moved template);
$c->sql('CHECKPOINT');
# a clean stop makes a restartpoint: what is copied from here on is older than that
$c->restart('page-server', $_) foreach 0, 1;
$c->sql('CREATE DATABASE copy TEMPLATE template STRATEGY file_copy');
$c->sql('ALTER DATABASE moved SET TABLESPACE ts');
$c->sql(q{UPDATE a SET v = 'new'; INSERT INTO a SELECT g, 'more' FROM generate_series(1, 5000) g}, db => 'template');
$c->sql('DROP DATABASE template');
applied();

crash();
is(eval { $c->sql($rows, db => 'moved') }, '5000|12502500|old|old', 'a database that was moved is there after a crash of its page servers') or diag($@);
is(eval { $c->sql($rows, db => 'copy') }, '5000|12502500|old|old', 'a copy of a database that was changed and dropped since') or diag($@);

# from here on replay begins behind it all, and the directory of the tablespace stands there from the start
$c->restart('page-server', $_) foreach 0, 1;
$c->sql(q{ALTER DATABASE moved SET TABLESPACE pg_default});
$c->sql(q{DROP TABLESPACE ts});
applied();
crash();
is($c->sql($rows, db => 'moved'), '5000|12502500|old|old', 'moved back');
is($c->counter($_), 0, "no $_") foreach qw(stale_answers future_answers missing_answers);
$c->check_logs;
done_testing();
