# Settings that would lose data cannot be set by any way, in any process, on either side:
# SET, SET LOCAL, a function's SET, ALTER SYSTEM, ALTER ROLE, ALTER DATABASE, options of a
# connection, a reload.  What a reload brings is not taken and said in the log; a restart with it
# is refused.  neon_comm.allow_unsafe lifts it.
use strict;
use warnings;

use Fcntl qw(O_CREAT O_RDWR);
use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, checksums => 1);
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) f FROM generate_series(1, 5000) g; CREATE ROLE r SUPERUSER});

sub conf_text
{
	my ($part) = @_;
	open my $fh, '<', "$c->{dir}/$part/postgresql.conf" or die $!;
	local $/;
	return scalar <$fh>;
}

# As a whole: processes may read it at any time, on the reload before.
sub write_conf
{
	my ($part, $text) = @_;
	my $file = "$c->{dir}/$part/postgresql.conf";
	open my $fh, '>', "$file.new" or die $!;
	print $fh $text;
	close $fh or die $!;
	rename "$file.new", $file or die $!;
	return;
}

# By SQL, each in a session of its own: an error, and the reason.
sub refused_sql
{
	my ($sql, $name) = @_;
	my ($rc, undef, $err) = $c->try_sql($sql);
	isnt($rc, 0, "$name: an error");
	like($err, qr/ERROR:.*invalid value for parameter.*\n.*DETAIL:.*\n.*(HINT:.*neon_comm\.allow_unsafe|.*could not be read again)/s, "$name: says why");
	return;
}

# By a reload: the log says why, and what is in force does not change.
sub refused_reload
{
	my ($part, $set, $value) = @_;
	my $before = conf_text($part);
	my $from = length $c->log_text($part);
	write_conf($part, "$before\n$set = $value\n");
	kill 'HUP', $c->postmaster_pid($part) or die;
	ok($c->wait_log($part, qr/invalid value for parameter "$set"/, $from), "$part, reload with $set = $value: the log says so");
	write_conf($part, $before);
	kill 'HUP', $c->postmaster_pid($part) or die;
	return;
}

sub refused_start
{
	my ($part, $set, $value) = @_;
	my $before = conf_text($part);
	my $from = length $c->log_text($part);
	write_conf($part, "$before\n$set = $value\n");
	my ($ok) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 30, $part eq 'compute' ? $part : ('page-server', 0));
	ok(!$ok, "$part, start with $set = $value: refused");
	like(substr($c->log_text($part), $from), qr/FATAL:.*does not work with $set = /, 'and says why');
	write_conf($part, $before);
	return;
}

my $version = $c->sql('SHOW server_version_num');

# ---- the compute
my %dangerous = (
	fsync => 'off', full_page_writes => 'off', max_slot_wal_keep_size => "'16MB'", zero_damaged_pages => 'on',
	ignore_checksum_failure => 'on', ignore_invalid_pages => 'on', data_sync_retry => 'on', shared_preload_libraries => "''",
	wal_consistency_checking => "'heap'",
	$version >= 180000 ? (idle_replication_slot_timeout => "'1min'") : ());
my %safe = map { $_ => $c->sql("SHOW $_") } keys %dangerous;
refused_sql("ALTER SYSTEM SET $_ = $dangerous{$_}", "ALTER SYSTEM SET $_") foreach sort keys %dangerous;
foreach my $set ('zero_damaged_pages', 'ignore_checksum_failure')
{
	refused_sql("SET $set = on", "SET $set");
	refused_sql("BEGIN; SET LOCAL $set = on", "SET LOCAL $set");
	refused_sql("SELECT set_config('$set', 'on', false)", "set_config $set");
	refused_sql("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET $set = on AS 'SELECT 1'", "function with $set");
	refused_sql("ALTER ROLE r SET $set = on", "ALTER ROLE SET $set");
	refused_sql("ALTER DATABASE postgres SET $set = on", "ALTER DATABASE SET $set");
	my $out = `PGOPTIONS='-c $set=on' psql -XAtq -d "@{[ $c->conninfo ]}" -c 'SELECT 1' 2>&1`;
	like($out, qr/FATAL:.*invalid value for parameter "$set"/, "PGOPTIONS $set");
}
refused_sql("SET wal_consistency_checking = 'all'", 'SET wal_consistency_checking');
is($c->sql('SELECT count(*) FROM pg_db_role_setting'), 0, 'nothing is stored');
refused_reload('compute', $_, $dangerous{$_}) foreach grep { $_ ne 'ignore_invalid_pages' } sort keys %dangerous;
my $s = $c->session;
is($s->query("SHOW $_"), $safe{$_}, "$_ is what it was") foreach sort keys %safe;
is($s->query('SELECT count(*) FROM t'), 5000, 'and the table is read');
# other values of the same settings go through: the library among others
$c->sql("ALTER SYSTEM SET shared_preload_libraries = auto_explain, 'neon_comm'; ALTER SYSTEM RESET ALL");
$c->sql('ALTER SYSTEM SET fsync = on; ALTER SYSTEM RESET fsync; SET zero_damaged_pages = off; RESET zero_damaged_pages');

# ---- the page server
my %not_there = (
	fsync => 'off', zero_damaged_pages => 'on', ignore_checksum_failure => 'on', data_sync_retry => 'on',
	restore_command => "'false'", recovery_target_xid => "'1000'", recovery_min_apply_delay => "'1s'",
	$version < 160000 ? (promote_trigger_file => "'promote_me'") : (),
	$version >= 170000 ? (sync_replication_slots => 'on', summarize_wal => 'on') : ());
refused_reload('page_server_0', $_, $not_there{$_}) foreach sort keys %not_there;
$c->stop('compute');
$c->stop('page-server', 0);
refused_start('page_server_0', $_, $not_there{$_}) foreach 'fsync', 'restore_command', 'recovery_target_xid', 'zero_damaged_pages',
	grep { exists $not_there{$_} } 'sync_replication_slots', 'summarize_wal';
my $before = conf_text('page_server_0');
$c->append_conf('page_server_0', "neon_page_service.allow_unsafe = on\nzero_damaged_pages = on");
my $from = length $c->log_text('page_server_0');
$c->start('page-server', 0);
like(substr($c->log_text('page_server_0'), $from), qr/WARNING:.*does not work with zero_damaged_pages = on/, 'allow_unsafe: a warning');
$c->stop('page-server', 0);
write_conf('page_server_0', $before);
$c->start('page-server', 0);

# ---- starts of the compute
refused_start('compute', $_, $dangerous{$_}) foreach 'fsync', 'full_page_writes', 'max_slot_wal_keep_size', 'zero_damaged_pages', 'ignore_invalid_pages',
	'wal_consistency_checking', grep { exists $dangerous{$_} } 'idle_replication_slot_timeout';

# Files of relations cannot be written by direct I/O, those of WAL can.
sub direct_io
{
	my ($part, $kinds) = @_;
	my $before = conf_text($part);
	my @part = $part eq 'compute' ? $part : ('page-server', 0);
	$c->append_conf($part, "debug_io_direct = '$kinds'");
	$c->start(@part);
	is($c->sql(q{CREATE TABLE d AS SELECT g, repeat('y', 400) f FROM generate_series(1, 5000) g;
		SELECT count(*), (SELECT sum(id) FROM t) FROM d; DROP TABLE d}), '5000|12502500', "$part with debug_io_direct = $kinds");
	$c->stop(@part);
	write_conf($part, $before);
	return;
}
SKIP:
{
	skip "PostgreSQL $version has no debug_io_direct; it came with 16", 1 if $version < 160000;
	refused_start('compute', 'debug_io_direct', "'$_'") foreach 'data', 'wal, Data', '"data"';
	like($c->log_text('compute'), qr/DETAIL:.*no table could be extended/, 'the reason');
	my $before = conf_text('compute');
	$c->append_conf('compute', 'neon_comm.allow_unsafe = on');
	refused_start('compute', 'debug_io_direct', 'data');
	write_conf('compute', $before);
	# not everywhere can files be opened for it
	skip 'no direct I/O here', 1 unless sysopen my $fh, "$c->{dir}/direct", O_CREAT | O_RDWR | Fcntl::O_DIRECT();
	direct_io('compute', 'wal, wal_init');
	$c->start('compute');
	$c->stop('page-server', 0);
	direct_io('page_server_0', 'data, wal, wal_init');
	$c->start('page-server', 0);
	$c->stop('compute');
}
$before = conf_text('compute');
$c->append_conf('compute', "neon_comm.allow_unsafe = on");
refused_start('compute', 'full_page_writes', 'off');
$c->append_conf('compute', "fsync = off");
$from = length $c->log_text('compute');
$c->start('compute');
like(substr($c->log_text('compute'), $from), qr/WARNING:.*does not work with fsync = off/, 'allow_unsafe: a warning');
is($c->sql('SHOW fsync; SET zero_damaged_pages = on; SHOW zero_damaged_pages'), "off\non", 'and nothing is refused');
write_conf('compute', $before);
$c->restart('compute');
is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', 'all is there');
$c->check_logs;
done_testing();
