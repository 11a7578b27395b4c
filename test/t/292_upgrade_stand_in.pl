# neon_dev upgrade where only one major version is installed: this server, called another one, stands for the
# later major. pg_upgrade takes it, so that all of the way is gone, but for what differs between majors (t/293_upgrade).
#
# What is in the way is told before anything is touched. A result that is not as good as the original, and any
# interruption, leaves the original as it was; after a kill -9 the next command sees to it.
# Page servers replay only what they are asked for, so that the copy of one is far behind the compute. Directory and
# superuser have names that a shell, or a list, would read as something else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use IPC::Run ();
use NeonComm::Cluster;
use NeonComm::Majors qw(major_of said_by stand_in);
use NeonComm::Node qw(until_true);
use Test::More;
use Time::HiRes qw(usleep);

my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{NEON_TEST_KEEP}));
chmod 0755, $top;
my $dev = NeonComm::Cluster::neon_dev_path();
my $from = major_of($ENV{PG_CONFIG} // 'pg_config');
my $to = $from + 2;
my $newer = stand_in("$top/newer", "$to.99");
my ($ok, $out);

my $dir = "$top/a \$x %f # \`b";
my $c = bless { dir => $dir, allowed => [] }, 'NeonComm::Cluster';
$c->dev('init', '-D', $dir, '--quiet', '--shards', 2, '--stripe-blocks', 8, '--auth', '--tls', '--initdb', '-U', '--initdb', 'Al ice',
	(map { ('--conf', $_) } 'shared_buffers=1MB', 'max_prepared_transactions=5', 'allow_in_place_tablespaces=on'),
	'--ps-conf', 'neon_page_service.lazy_replay=on');
$c->start;

sub text_of { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return scalar(<$fh>) // '' }
sub write_text { my ($path, $text) = @_; open my $fh, '>', $path or die "$path: $!"; print $fh $text; close $fh or die $!; return }
sub pids { return join ' ', map { $c->postmaster_pid($_) // '-' } 'compute', 'page_server_0', 'page_server_1' }
sub entries { my ($d) = @_; return join ' ', sort map { s{.*/}{}r } glob "\Q$d\E/*" }

sub try_upgrade { return $c->try_dev('upgrade', '-D', $dir, '--to', $to, '--pg-config', $newer, @_) }

# Refused with this reason, and nothing was touched.
sub refused
{
	my ($what, $reason, @arguments) = @_;
	my ($before, $pids) = (text_of("$dir/neon_dev.conf") . entries($dir), pids());
	my ($good, $said) = @arguments ? $c->try_dev('upgrade', @arguments) : try_upgrade();
	ok(!$good, "refused: $what");
	like($said, $reason, 'and why');
	is(text_of("$dir/neon_dev.conf") . entries($dir), $before, 'nothing was made or written');
	return is(pids(), $pids, 'and nothing stopped');
}

sub is_whole
{
	my ($when) = @_;
	return is($c->sql('SELECT count(*), sum(id), min(length(f)) FROM t'), '5000|12502500|300', "all rows $when");
}

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('t', 300) AS f FROM generate_series(1, 5000) g; CREATE INDEX ON t (id);
	CREATE SEQUENCE s; SELECT nextval('s') FROM generate_series(1, 3);
	CREATE UNLOGGED TABLE u AS SELECT 1 AS x; SELECT lo_from_bytea(0, 'abc'); CREATE ROLE reader PASSWORD 'x';
	CREATE TABLE parts (a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
	INSERT INTO parts SELECT generate_series(1, 50); CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM t;
	CREATE VIEW counters AS SELECT * FROM neon_comm.counters; CREATE TYPE colour AS ENUM ('red', 'blue');});
$c->sql(q{CREATE DATABASE "d 2"});
$c->sql(q{CREATE TABLE x AS SELECT g FROM generate_series(1, 100) g; CREATE EXTENSION IF NOT EXISTS neon_comm}, db => "'d 2'");
$c->sql(q{ALTER SYSTEM SET work_mem = '9MB'});

# ---- what is in the way

refused('no major', qr/--to MAJOR is missing/, '-D', $dir);
refused('no number', qr/--to needs a major version/, '-D', $dir, '--to', 'next');
refused('the same major', qr/is of PostgreSQL $from: --to needs a later major/, '-D', $dir, '--to', $from);
refused('an older one', qr/is of PostgreSQL $from: --to needs a later major/, '-D', $dir, '--to', $from - 1);
refused('one that is not installed', qr{there is no /usr/lib/postgresql/99/bin/pg_config: install PostgreSQL 99}, '-D', $dir, '--to', 99);
refused('another one than pg_config has', qr/is of PostgreSQL $to\.99, not 98/, '-D', $dir, '--to', 98, '--pg-config', $newer);
my $without = stand_in("$top/without", "$to.99", pg_config => qq(case "\$1" in --bindir) . qq[) echo $top/without; exit ;; --pkglibdir) echo $top; exit ;; esac]);
refused('no neon_comm there', qr{\Q$top\E/neon_comm\.so is missing: install the package postgresql-NN-neon-comm}, '-D', $dir, '--to', $to, '--pg-config', $without);
refused('no cluster', qr/is not a cluster of neon_dev/, '-D', $top, '--to', $to, '--pg-config', $newer);

mkdir "$dir/old_$from" or die $!;
refused('an old one that was kept', qr{old_$from is there, which an earlier upgrade has kept});
rmdir "$dir/old_$from";

foreach my $part ('compute', 'page_server_1')
{
	my $conf = text_of("$dir/$part/postgresql.conf");
	write_text("$dir/$part/postgresql.conf", $conf . "no_such_setting = 1\n");
	my $name = $part =~ s/_server_/ server /r;
	refused("a setting of the $name that is not known there", qr/PostgreSQL $to does not take the settings of $name: .*no_such_setting/);
	write_text("$dir/$part/postgresql.conf", $conf);
}

$c->sql(q{BEGIN; INSERT INTO parts VALUES (99); PREPARE TRANSACTION 'open'});
refused('a prepared transaction', qr/prepared transactions are open: end them first \(1 of them\)/);
$c->sql(q{ROLLBACK PREPARED 'open'});
$c->sql(q{CREATE TABLESPACE ts LOCATION ''});
refused('a tablespace', qr/there are tablespaces, .* \(ts\)/);
$c->sql('DROP TABLESPACE ts');
$c->sql('ALTER DATABASE "d 2" ALLOW_CONNECTIONS false');
refused('a closed database', qr/databases that let nobody connect: .* \(d 2\)/);
$c->sql('ALTER DATABASE "d 2" ALLOW_CONNECTIONS true');

mkdir "$top/bin";
write_text("$top/bin/df", "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho '/dev/x y 2000000 1990000 10000 99% /'\n");
chmod 0755, "$top/bin/df";
{
	local $ENV{PATH} = "$top/bin:$ENV{PATH}";
	refused('a full disk', qr/9 MB are free where \Q$dir\E is, and 3 copies of a page server need \d+ MB/);
}

$c->configure({ 'neon_comm.wal_feed_slots' => 'page_server_0,page_server_1,stranger' });
$c->restart('compute');
refused('a page server that neon_dev does not know', qr/page servers that neon_dev does not know \(page_server_0,page_server_1,stranger\)/);
$c->configure({ 'neon_comm.wal_feed_slots' => 'page_server_0,page_server_1' });
$c->restart('compute');
$c->sql(q{SELECT pg_drop_replication_slot('stranger')});

$c->stop('page-server', 1);
refused('a page server that is away', qr/page server 1 does not run: .*neon_dev start/);
$c->start('page-server', 1);

# ---- not good enough

sub as_it_was
{
	my ($when) = @_;
	ok(!-e "$dir/upgrade" && !-e "$dir/old_$from", "nothing is left $when");
	like(text_of("$dir/neon_dev.conf"), qr/^state=made$/m, 'the cluster is whole');
	like(text_of("$dir/neon_dev.conf"), qr/^upgrade_tmp=$/m, 'and has nothing elsewhere');
	$c->start;
	return is_whole($when);
}

$c->sql('CREATE TABLE refused (p regproc)');
($ok, $out) = try_upgrade();
ok(!$ok, 'what pg_upgrade refuses');
like($out, qr/pg_upgrade refused or failed/, 'is said');
like($out, qr/is as it was, but stopped: "neon_dev start/, 'and what to do');
ok(-s "$dir/log/upgrade.log", 'what it said is kept') && ok(-d "$dir/log/pg_upgrade_output.d", 'and what it has written');
as_it_was('after a refusal');
$c->sql('DROP TABLE refused');

my $worse = stand_in("$top/worse", "$to.99", psql => q{"$real" "$@" >"$0.$$"; rc=$?; sed 's/^\(rows|.*|\)5000$/\14999/' "$0.$$"; exit $rc});
($ok, $out) = $c->try_dev('upgrade', '-D', $dir, '--to', $to, '--pg-config', $worse);
ok(!$ok, 'a new cluster that has not all rows');
like($out, qr/the new cluster has other contents: "postgres: rows\|\d+\|5000" became "postgres: rows\|\d+\|4999"/, 'is found out');
as_it_was('after a bad result');

# ---- interrupted

my %reached = (
	copy => 'upgrade/ordinary/log/compute.log',
	pg_upgrade => 'upgrade/new/compute/pg_upgrade_output.d',
	parts => 'upgrade/new/page_server_1',
	answers => 'upgrade/new/compute/compute_identity');

foreach ([ INT => 'pg_upgrade' ], [ TERM => 'answers' ], map { [ KILL => $_ ] } qw(copy pg_upgrade parts answers))
{
	my ($signal, $when) = @$_;
	my $upgrade = IPC::Run::start([ $dev, 'upgrade', '-D', $dir, '--to', $to, '--pg-config', $newer ], '<', \undef, '>', "$top/said", '2>&1');
	while (!-e "$dir/$reached{$when}" && $upgrade->pumpable) { $upgrade->pump_nb; usleep(2000) }
	my ($tmp) = text_of("$dir/neon_dev.conf") =~ m{^upgrade_tmp=(/tmp/\S+)$}m;
	($ok, $out) = $c->try_dev('start', '-D', $dir);
	ok(!$ok, 'nobody else starts it') && like($out, qr/is being upgraded by another neon_dev/, 'and is told why');
	$upgrade->signal($signal);
	ok(!eval { $upgrade->finish }, "interrupted by $signal at $when") or diag(text_of("$top/said"));
	if ($signal eq 'KILL')
	{
		($ok, $out) = $c->try_dev('conninfo', '-D', $dir);
		ok($ok, 'the next command does what it is for');
		like($out, qr/was interrupted: removing what it had made; the cluster is as it was/, 'and cleans up');
		like($out, qr/^host=/m, 'beside its output');
	}
	else
	{
		like(text_of("$top/said"), qr/ended by SIG$signal.*is as it was, but stopped/s, 'it says how things are');
	}
	ok(defined $tmp && !-e $tmp, 'nothing is left in /tmp');
	as_it_was("after $signal at $when");
}

# ---- done

my $token = text_of("$dir/security/token");
my $port = text_of("$dir/neon_dev.conf") =~ /^compute_port=(\d+)$/m ? $1 : '';
my %lines = map { ($_ => text_of("$dir/$_/postgresql.conf")) } 'compute', 'page_server_1';
write_text("$dir/compute/pg_hba.conf", "# mine\n" . text_of("$dir/compute/pg_hba.conf"));
write_text("$dir/compute/more.conf", "commit_siblings = 7\n");
$lines{compute} .= "include 'more.conf'\n";
write_text("$dir/compute/postgresql.conf", $lines{compute});
$c->sql(q{SELECT pg_create_physical_replication_slot('mine')});
$c->sql(q{CREATE SUBSCRIPTION sub CONNECTION 'host=/nowhere dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE)}, db => "'d 2'");
my $session = $c->session;
$session->query('SELECT 1');
($ok, $out) = try_upgrade();
ok($ok, 'upgraded') or diag($out);
like($out, qr/replication slots will be gone: mine$/m, 'whose slots go is said');
like($out, qr/subscriptions of database d 2 will be disabled: sub$/m, 'and whose subscriptions stop');
like($out, qr/unlogged relations of database postgres will be empty, .*: u$/m, 'what it will not have is said');
like($out, qr{What it was is in \Q$dir\E/old_$from}, 'and where the old one is');
is(entries($dir), "compute compute.conf log neon_dev.conf old_$from page_server_0 page_server_1 security sockets", 'nothing else is left');
is(entries("$dir/old_$from"), 'compute log neon_dev.conf page_server_0 page_server_1', 'the old one is whole');
is(text_of("$dir/security/token"), $token, 'the key is the same');
is(text_of("$dir/$_/postgresql.conf"), $lines{$_}, "$_ has its settings") foreach sort keys %lines;
$c->start;
is_whole('in the new one');
like($c->dev('status', '-D', $dir, '--no-measure'), qr/PostgreSQL $to\.99, 2 shard/, 'which is of the new major');
is($c->sql(q{SELECT current_setting('port'), current_setting('work_mem'), current_setting('commit_siblings')}), "$port|9MB|7", 'with its port and all settings');
like(text_of("$dir/compute/pg_hba.conf"), qr/^# mine\n/, 'and who may come in');
is($c->sql('SELECT count(*) FROM u'), 0, 'unlogged tables are empty');
is($c->sql('SELECT n FROM mv'), 5000, 'materialized views are not');
cmp_ok($c->sql(q{SELECT nextval('s')}), '>=', 4, 'sequences have gone on');
is($c->sql('SELECT count(*) FROM x', db => "'d 2'"), 100, 'other databases are there');
is($c->sql('SELECT subname, subenabled FROM pg_subscription'), 'sub|f', 'with subscriptions that do nothing');
is($c->sql('SELECT count(*) > 10 FROM counters'), 't', 'the extension is what it was');
ok($c->wait_for(q{SELECT count(*) = 2 AND bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'page servers follow');
$c->evict;
$c->restart;
is_whole('after a restart');

# ---- back, as docs/upgrade.md says

my ($recipe) = text_of("$FindBin::RealBin/../../docs/upgrade.md") =~ /^```sh\n(.*?)^```$/ms;
{
	local %ENV = (%ENV, D => $dir, OLD => $from, NEW => $to, PATH => ($dev =~ s{/[^/]*$}{}r) . ":$ENV{PATH}");
	ok(IPC::Run::run([ 'bash', '-eu', '-c', $recipe ], '<', \undef, '>', "$top/said", '2>&1'), 'the way back') or diag(text_of("$top/said"));
}
is_whole('back in the old one');
is($c->sql('SELECT count(*) FROM u'), 1, 'which has its unlogged tables');
ok(-d "$dir/new_$to" && !-e "$dir/old_$from", 'the new one is aside');
$c->stop;

# ---- interrupted when parts change places: one has not been touched yet, of one only the old is away

sub move { my ($a, $b) = @_; rename "$dir/$a", "$dir/$b" or die "$a to $b: $!"; return }

mkdir "$dir/$_" foreach 'upgrade', 'upgrade/new', "old_$from";
my $new_conf = text_of("$dir/new_$to/neon_dev.conf");
unlink "$dir/new_$to/neon_dev.conf";
move($_, "old_$from/$_") foreach qw(log compute page_server_0);
move("new_$to/$_", $_) foreach qw(log compute);
move("new_$to/$_", "upgrade/new/$_") foreach qw(page_server_0 page_server_1);
rmdir "$dir/new_$to" or die $!;
write_text("$dir/upgrade/new/neon_dev.conf", $new_conf =~ s/^state=made$/state=changing/mr);
write_text("$dir/neon_dev.conf", text_of("$dir/neon_dev.conf") =~ s/^state=made$/state=changing/mr);
($ok, $out) = $c->try_dev('start', '-D', $dir);
ok($ok, 'a start') or diag($out);
like($out, qr/was interrupted when its result was good: putting that in its place/, 'completes it');
is(entries($dir), "compute compute.conf log neon_dev.conf old_$from page_server_0 page_server_1 security sockets", 'wholly');
is(entries("$dir/old_$from"), 'compute log neon_dev.conf page_server_0 page_server_1', 'the old one is whole');
like(text_of("$dir/old_$from/neon_dev.conf"), qr/^state=made$/m, 'and says so');
like($c->dev('status', '-D', $dir, '--no-measure'), qr/PostgreSQL $to\.99, 2 shard/, 'it is the new one');
is_whole('in it');

# ---- what is interrupted can be removed

$c->stop;
write_text("$dir/neon_dev.conf", text_of("$dir/neon_dev.conf") =~ s/^state=made$/state=upgrading/mr);
mkdir "$dir/upgrade";
$c->dev('destroy', '-D', $dir, '--quiet');
ok(!-e $dir, 'destroy removes one that is being upgraded, and what was kept');

# ---- a cluster that was adopted from a server on a later timeline

sub run_tool { my (@command) = @_; return IPC::Run::run(\@command, '<', \undef, '>', '/dev/null', '2>&1') || die "@command" }
my $bindir = said_by($ENV{PG_CONFIG} // 'pg_config', '--bindir');
my ($promoted, $alone) = ("$top/promoted", [ '-w', '-s', '-o', "-c listen_addresses='' -c unix_socket_directories='$top'" ]);
# pg_upgrade takes locale and encoding over from 16 on only, and this one may be older
run_tool("$bindir/initdb", '-D', $promoted, qw(-A trust -U postgres -N -E UTF8 --locale=C));
write_text("$promoted/recovery.signal", '');
write_text("$promoted/postgresql.auto.conf", "restore_command = 'false'\nwal_level = logical\n");
run_tool("$bindir/pg_ctl", 'start', '-D', $promoted, '-l', "$top/promoted.log", @$alone);
# for pg_ctl it has started when recovery has
ok(until_true(sub { text_of("$top/promoted.log") =~ /ready to accept connections/ }), 'an ordinary server on timeline 2');
run_tool("$bindir/pg_ctl", 'stop', '-D', $promoted, '-w', '-s');
$dir = "$top/later";
$c = bless { dir => $dir, allowed => [] }, 'NeonComm::Cluster';
$c->dev('adopt', '-D', $dir, '--from', $promoted, '--shards', 1, '--quiet');
$c->start;
is($c->sql('SELECT timeline_id FROM pg_control_checkpoint()'), 2, 'a compute on timeline 2');
$c->sql('CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g');
($ok, $out) = try_upgrade();
ok($ok, 'is upgraded, too') or diag($out);
$c->start;
is($c->sql('SELECT count(*), sum(id) FROM t'), '1000|500500', 'with its rows');
$c->dev('destroy', '-D', $dir, '--quiet');
done_testing();
