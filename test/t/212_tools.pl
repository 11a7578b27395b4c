# Tools of stock servers take a compute's directory for the cluster, and it holds no contents.
# pg_basebackup, pg_backup_start() (pgBackRest and others), pg_rewind, pg_upgrade, pg_checksums and
# pg_resetwal get an error with the way that works; what cannot be kept from copying gets a directory
# on which no server starts.  The compute is none the worse for any of it.
use strict;
use warnings;

use File::Copy qw(copy);
use IPC::Run ();
use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;
my ($major) = `$bindir/postgres --version` =~ /(\d+)/;
# with the WAL that incremental backups are made of, where there are any
my $c = NeonComm::Cluster->new(shards => 1, checksums => 1, conf => [ 'restart_after_crash=on', $major >= 17 ? 'summarize_wal=on' : () ]);
my ($compute, $page_server) = ("$c->{dir}/compute", "$c->{dir}/page_server_0");
my $trap = qr/FATAL:.*using recovery command file "recovery\.conf" is not supported/;

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS f FROM generate_series(1, 5000) g;
	CREATE ROLE copier LOGIN REPLICATION; CREATE TABLESPACE ts LOCATION ''; CREATE TABLE in_ts TABLESPACE ts AS SELECT 1 AS i; CHECKPOINT});

sub all_is_there
{
	my ($when) = @_;
	is($c->sql('SELECT count(*), sum(id), (SELECT i FROM in_ts) FROM t'), '5000|12502500|1', "$when: all is there");
	return;
}

# (status, output of both)
sub run_tool
{
	my ($tool, @args) = @_;
	my $out = '';
	IPC::Run::run([ "$bindir/$tool", @args ], '<', \undef, '>', \$out, '2>&1');
	return ($? >> 8, $out);
}

# A server without the library, whatever the directory's own configuration says.
sub stock_start
{
	my ($dir, $name) = @_;
	my $from = length $c->log_text('stock');
	my ($rc) = run_tool('pg_ctl', 'start', '-w', '-s', '-D', $dir, '-l', $c->log_file('stock'), '-o',
		"-c shared_preload_libraries='' -c listen_addresses='' -c unix_socket_directories='$c->{dir}' -c fsync=on");
	isnt($rc, 0, "$name: no start without the library");
	my $log = substr $c->log_text('stock'), $from;
	like($log, $trap, "$name: and a reason");
	unlike($log, qr/redo starts/, "$name: nothing was replayed");
	run_tool('pg_ctl', 'stop', '-s', '-m', 'immediate', '-D', $dir) if $rc == 0;
	return;
}

sub refused_start
{
	my ($part, $regex, $name) = @_;
	my $from = length $c->log_text($part);
	my ($ok) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 30, $part eq 'compute' ? $part : ('page-server', 0));
	ok(!$ok, "$name: no start");
	my $log = substr $c->log_text($part), $from;
	like($log, qr/FATAL:.*$regex.*\n.*DETAIL:.*\n.*HINT:/, $name);
	return $log;
}

# ---- BASE_BACKUP
my @base = ('-d', $c->conninfo, '-X', 'none', '-c', 'fast', '--no-sync');
foreach my $case ([ 'client', '-D', "$c->{dir}/bb" ], [ 'server', '-t', "server:$c->{dir}/bs" ])
{
	my ($name, @to) = @$case;
	my ($rc, $out) = run_tool('pg_basebackup', @base, @to);
	isnt($rc, 0, "pg_basebackup to the $name: an error");
	like($out, qr/a backup of the files of a neon_comm compute would hold no contents.*\n.*DETAIL:.*\n.*HINT:.*page server/, 'and the way that works');
}
{
	local $ENV{PGOPTIONS} = '-c neon_comm.allow_unsafe_backup=on';
	my ($rc, $out) = run_tool('pg_basebackup', @base, '-U', 'copier', '-D', "$c->{dir}/bb");
	like($out, qr/permission denied to set parameter "neon_comm\.allow_unsafe_backup"/, 'only a superuser lifts it');
	($rc, $out) = run_tool('pg_basebackup', @base, '-D', "$c->{dir}/bb");
	is($rc, 0, 'and then it copies') or diag($out);
}
stock_start("$c->{dir}/bb", 'such a backup');
SKIP:
{
	skip "PostgreSQL $major has no incremental backup; it came with 17", 1 if $major < 17;
	$c->sql('UPDATE t SET id = id WHERE id % 7 = 0; CHECKPOINT');
	my @incremental = (@base, '--incremental', "$c->{dir}/bb/backup_manifest");
	my ($rc, $out) = run_tool('pg_basebackup', @incremental, '-D', "$c->{dir}/bi");
	isnt($rc, 0, 'pg_basebackup --incremental: an error');
	like($out, qr/a backup of the files of a neon_comm compute would hold no contents/, 'the same');
	local $ENV{PGOPTIONS} = '-c neon_comm.allow_unsafe_backup=on';
	($rc, $out) = run_tool('pg_basebackup', @incremental, '-D', "$c->{dir}/bi");
	is($rc, 0, 'a superuser lifts it') or diag($out);
	($rc, $out) = run_tool('pg_combinebackup', '--no-sync', '-o', "$c->{dir}/bc", "$c->{dir}/bb", "$c->{dir}/bi");
	is($rc, 0, 'pg_combinebackup puts them together') or diag($out);
	stock_start("$c->{dir}/bc", 'what it has made');
}
ok($c->wait_for('SELECT count(*) = 0 FROM pg_stat_progress_basebackup'), 'no backup is left running');

# ---- functions
my $read = q{SELECT length(pg_read_binary_file(};
foreach my $case (
	[ q{SELECT pg_backup_start('x', true)}, qr/a backup of the files of a neon_comm compute/ ],
	[ q{SELECT oid, pg_backup_start(relname, true) FROM pg_class LIMIT 1}, qr/a backup of the files of a neon_comm compute/ ],
	[ "${read}pg_relation_filepath('t')))", qr/file "base\/.*" of a neon_comm compute is of no use/ ],
	[ "${read}pg_relation_filepath('t'), 0, 10))", qr/file "base\/.*" of a neon_comm compute is of no use/ ],
	[ "${read}pg_relation_filepath('t'), 0, 10, true))", qr/file "base\/.*" of a neon_comm compute is of no use/ ],
	[ "${read}current_setting('data_directory') || '/./' || pg_relation_filepath('pg_class'), 0, 10))", qr/of a neon_comm compute is of no use/ ],
	[ "${read}pg_relation_filepath('pg_authid')))", qr/file "global\/.*" of a neon_comm compute/ ],
	[ "${read}pg_relation_filepath('in_ts')))", qr/file "pg_tblspc\/.*" of a neon_comm compute/ ],
	[ "${read}'global/pg_control'))", qr/file "global\/pg_control" of a neon_comm compute/ ])
{
	my ($sql, $says) = @$case;
	my ($rc, undef, $err) = $c->try_sql($sql);
	isnt($rc, 0, "$sql: an error");
	like($err, $says, 'that says why');
}
is($c->sql("${read}'PG_VERSION'))"), 3, 'other files can be read');
is($c->sql("SET neon_comm.allow_unsafe_backup = on; ${read}pg_relation_filepath('t'), 0, 10))"), 10, 'a superuser may read all');
like($c->sql(q{SET neon_comm.allow_unsafe_backup = on; SELECT pg_backup_start('x', true); SELECT lsn FROM pg_backup_stop()}), qr/\//, 'and copy');

# ---- pg_rewind, which would copy holes into a page server
$c->stop('page-server', 0);
system('cp', '-a', $page_server, "$c->{dir}/target") == 0 or die 'cp';
$c->start('page-server', 0);
my $sum = "cd '$c->{dir}/target' && find . -type f | sort | xargs cksum";
my $before = `$sum`;
my ($rc, $out) = run_tool('pg_rewind', '-D', "$c->{dir}/target", '--source-server', $c->conninfo);
isnt($rc, 0, 'pg_rewind of a page server: an error');
like($out, qr/file "global\/pg_control" of a neon_comm compute is of no use/, 'that says why');
is(`$sum`, $before, 'before anything was copied');

# ---- logical decoding beside page servers, and pg_createsubscriber, which would promote one
SKIP:
{
	skip "PostgreSQL $major has neither synchronized_standby_slots nor pg_createsubscriber; they came with 17", 1 if $major < 17;
	$c->append_conf('compute', "wal_level = logical\nsynchronized_standby_slots = 'page_server_0'");
	$c->restart('compute');

	# decoded changes wait until the page server that a setting names has the WAL: a moment
	$c->sql(q{CREATE TABLE in_slot (i int); SELECT pg_create_logical_replication_slot('decoded', 'test_decoding', false, false, true);
		INSERT INTO in_slot VALUES (1)});
	is($c->sql(q{SET statement_timeout = '300s'; SELECT count(*) FROM pg_logical_slot_get_changes('decoded', NULL, NULL) WHERE data LIKE '%in_slot%INSERT%'}), 1,
		'a page server is a standby that decoded changes may wait for');
	$c->sql(q{SELECT pg_drop_replication_slot('decoded')});

	# It wants the page server stopped and asks the compute then, which waits for that page server.
	$c->stop('page-server', 0);
	my ($rc, $out) = run_tool('pg_createsubscriber', '-D', $page_server, '-P', $c->conninfo, '-d', 'postgres', '-U', 'postgres',
		'-s', $c->{dir}, '-p', 59999, '-t', 60);
	isnt($rc, 0, 'pg_createsubscriber of a page server: an error') or diag($out);
	ok(!-e "$page_server/postmaster.pid", 'before it starts the page server');
	$c->start('page-server', 0);
	all_is_there('after it');
	is($c->sql(q{SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical')}), '0|0',
		'nothing is left in the compute');
}

# ---- copies of the directory, and the directory itself
system('cp', '-a', $compute, "$c->{dir}/copy") == 0 or die 'cp';
unlink "$c->{dir}/copy/postmaster.pid";
stock_start("$c->{dir}/copy", 'a copy of the running compute');
$c->kill9('compute');
# in a container a killed postmaster stays a zombie, which neon_dev knows and the server does not
rename "$compute/postmaster.pid", "$c->{dir}/postmaster.pid";
stock_start($compute, 'the compute itself, killed');
rename "$c->{dir}/postmaster.pid", "$compute/postmaster.pid";
$c->start('compute');
all_is_there('after a crash');
$c->stop('compute');
stock_start($compute, 'the compute itself, stopped');
$c->start('compute');
my $from = length $c->log_text('compute');
my @writer;
foreach (1 .. 1200)
{
	# it is there, but may have no title yet
	last if @writer = $c->pids_of('compute', qr/walwriter/);
	usleep(100_000);
}
is(kill('KILL', @writer), 1, 'a process to crash');
# until then the server of before the crash may answer, with the file of before
ok($c->wait_log('compute', qr/reinitializing.*ready to accept connections/s, $from), 'a crash of one process');
ok($c->wait_for("SELECT pg_read_file('recovery.conf') LIKE '# neon_comm%'"), 'after which it is put back');
all_is_there('after a crash of one process');

# ---- pg_checksums
$c->stop('compute');
is((run_tool('pg_checksums', '--disable', '-D', $compute))[0], 0, 'checksums are switched off');
like(refused_start('compute', qr/data checksums of this neon_comm compute were switched off/, 'pg_checksums'),
	qr/pg_checksums --enable -D/, 'the remedy is named');
is((run_tool('pg_checksums', '--enable', '-D', $compute))[0], 0, 'and on again');
$c->start('compute');
$c->stop('page-server', 0);
is((run_tool('pg_checksums', '--disable', '-D', $page_server))[0], 0, 'the same on a page server');
refused_start('page_server_0', qr/data checksums of this neon_comm page server were switched off/, 'pg_checksums on a page server');
is((run_tool('pg_checksums', '--enable', '-D', $page_server))[0], 0, 'and on again');
$c->start('page-server', 0);
all_is_there('after pg_checksums');
$c->stop;

# ---- pg_upgrade starts servers in a mode of its own
foreach my $part ('compute', 'page_server_0')
{
	my $from = length $c->log_text($part);
	run_tool('pg_ctl', 'start', '-w', '-s', '-D', "$c->{dir}/$part", '-l', $c->log_file($part), '-o', '-b');
	# pg_ctl of 18 is content when a server that was shut down in recovery has ended
	isnt((run_tool('pg_ctl', 'status', '-D', "$c->{dir}/$part"))[0], 0, "$part in the mode of pg_upgrade: no start");
	like(substr($c->log_text($part), $from), qr/FATAL:.*pg_upgrade cannot upgrade a neon_comm.*\n.*DETAIL:.*\n.*HINT:/, 'and says why');
}

# ---- pg_resetwal
foreach my $part ('page_server_0', 'compute')
{
	my $dir = "$c->{dir}/$part";
	system('cp', '-a', "$dir/pg_wal", "$dir/global/pg_control", $c->{dir}) == 0 or die 'cp';
	is((run_tool('pg_resetwal', '-f', '-D', $dir))[0], 0, "pg_resetwal of $part");
	refused_start($part, qr/pg_resetwal has thrown away WAL of this/, $part);
	system('rm', '-rf', "$dir/pg_wal") == 0 or die 'rm';
	system('mv', "$c->{dir}/pg_wal", "$dir/pg_wal") == 0 or die 'mv';
	rename "$c->{dir}/pg_control", "$dir/global/pg_control" or die $!;
	$c->start($part eq 'compute' ? $part : ('page-server', 0));
}
all_is_there('after all of it');
$c->check_logs;
done_testing();
