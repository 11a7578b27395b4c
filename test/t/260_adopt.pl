# No part of a cluster shares anything with another part, and an adopted copy touches neither the
# original nor anything that the original talks to, whatever the original's configuration says.
#
# The original is a subscriber with everything that reaches out of a server in files of all kinds, and with
# event triggers that do, or that let nobody make an extension.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use NeonComm::Cluster;
use NeonComm::Node qw(free_port until_true);
use Test::More;

my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{NEON_TEST_KEEP}));
chomp(my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`);
my $c = bless { dir => "$top/c", allowed => [] }, 'NeonComm::Cluster';
my %port = (publisher => free_port(), original => free_port());

sub write_text
{
	my ($path, $text) = @_;
	open my $fh, '>', $path or die "$path: $!";
	print $fh $text;
	close $fh or die $!;
	return;
}

sub must { system(@_) == 0 or die "@_ failed"; return }
sub init_stock { my ($name) = @_; return must("$bindir/initdb", '-D', "$top/$name", qw(-A trust -U postgres -N), @_[ 1 .. $#_ ]) }

my %running;

sub ctl
{
	my ($name, @words) = @_;
	must("$bindir/pg_ctl", '-s', '-w', '-D', "$top/$name", '-l', "$top/$name.log", @words);
	$running{$name} = $words[0] eq 'start';
	return;
}

END
{
	local $?;
	system("$bindir/pg_ctl", '-s', '-w', '-D', "$top/$_", '-m', 'immediate', 'stop') foreach grep { $running{$_} } keys %running;
}

sub sql
{
	my ($name, $sql) = @_;
	open my $fh, '-|', 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', '-p', $port{$name}, '-U', 'postgres', '-d', 'postgres', '-c', $sql or die;
	local $/;
	my $out = <$fh> // '';
	close $fh or die "$name: $sql failed";
	$out =~ s{\n\z}{};
	return $out;
}

sub sum_of { my ($dir) = @_; return `find $dir -type f -print0 | sort -z | xargs -0 cksum | cksum` }

# ---- a publisher, and a subscriber that is stopped with changes waiting for it

init_stock('publisher');
write_text("$top/publisher/postgresql.auto.conf", "wal_level = logical\nport = $port{publisher}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n");
ctl('publisher', 'start');
sql('publisher', 'CREATE TABLE r (i int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE r; INSERT INTO r VALUES (1)');

init_stock('original', "--waldir=$top/original_wal");
mkdir "$top/original/conf.d" or die $!;
mkdir "$top/elsewhere" or die $!;
open my $fh, '>>', "$top/original/postgresql.conf" or die $!;
print $fh "include_dir 'conf.d'\nport = $port{original}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nwork_mem = '7MB'\n";
close $fh;
write_text("$top/original/conf.d/here.conf", "Data_Directory '$top/original'\nexternal_pid_file = '$top/elsewhere/pid'\n");
ctl('original', 'start');
sql('original', 'CREATE TABLE r (i int PRIMARY KEY); CREATE TABLE t AS SELECT generate_series(1, 1000) AS x');
sql('original', "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=$port{publisher} user=postgres dbname=postgres' PUBLICATION p");
ok(until_true(sub { sql('original', q{SELECT count(*) FROM r}) eq '1' && sql('original', q{SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel}) eq 't' }),
	'the subscriber gets rows');
# who has copied the table says so first; a stop before it drops its own slot would leave that
ok(until_true(sub { sql('publisher', 'SELECT count(*) FROM pg_replication_slots') eq '1' }), 'over the one slot of its subscription');
sql('original', <<"END");
CREATE FUNCTION trace() RETURNS event_trigger LANGUAGE plpgsql AS \$\$ BEGIN COPY (SELECT 1) TO '$top/elsewhere/event_trigger'; END \$\$;
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS \$\$ BEGIN RAISE 'no extensions here'; END \$\$;
CREATE EVENT TRIGGER a_trace ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION trace();
CREATE EVENT TRIGGER b_refuse ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION refuse();
END
ctl('original', 'stop');
# whom it has told how far it is notes that before it ends
ok(until_true(sub { sql('publisher', 'SELECT active FROM pg_replication_slots') eq 'f' }), 'and is stopped');
sql('publisher', 'INSERT INTO r VALUES (2)');
my $slot = sql('publisher', 'SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots');

write_text("$top/original/conf.d/more.conf", <<"END");
fsync = off
max_prepared_transactions = 1500
full_page_writes = 'off'
archive_mode = always
archive_command = 'touch $top/elsewhere/archived'
restore_command = 'touch $top/elsewhere/restored; false'
logging_collector = on
log_directory = '$top/elsewhere'
hba_file = '$top/elsewhere/hba'
zero_damaged_pages = on
shared_preload_libraries = 'auto_explain, nobody_knows_it'
session_preload_libraries = 'nobody_knows_it'
auto_explain.log_min_duration = '1h'
neon_comm.wal_feed_port = 1
END

write_text("$top/original/page_service_identity", "of what it was before it was promoted\n");

# ---- what a compute would refuse is refused before anything is copied

my ($ok, $out) = $c->try_dev('adopt', '--from', "$top/original", '-D', $c->{dir}, '--shards', 1, '--conf', 'fsync=off');
ok(!$ok, 'adopt with a setting that a compute refuses');
like($out, qr/a compute does not start with fsync = off/, 'says so');
unlike($out, qr/copying/, 'before it copies');
ok(!-e $c->{dir}, 'and leaves nothing');
foreach my $bad ([ '--conf', 'Full_Page_Writes=no' ], [ '--conf', "wal_level='minimal'" ], [ '--ps-conf', 'restore_command=true' ],
	[ '--ps-conf', 'neon_comm.allow_unsafe=on', '--ps-conf', 'fsync=off' ])
{
	($ok, $out) = $c->try_dev('init', '-D', $c->{dir}, @$bad);
	like($out, qr/does not start with \w+ = /, "init @$bad");
}
foreach my $bad ([ qr/does not start with recovery_min_apply_delay = 1s/, '--ps-conf', 'recovery_min_apply_delay=1s' ],
	[ qr/does not start with max_replication_slots = 2: each of 4 page servers has one/, '--shards', 4, '--conf', 'max_replication_slots=2' ],
	[ qr/wal_feed_listen_addresses = 127\.0\.0\.1,0\.0\.0\.0 without --auth/, '--conf', 'neon_comm.wal_feed_listen_addresses=127.0.0.1,0.0.0.0' ],
	[ qr/page_service\.listen_addresses = \* without --auth/, '--ps-conf', "neon_page_service.listen_addresses='*'" ],
	[ qr/neon_comm\.tenant_id cannot be given: .* chosen/, '--conf', 'neon_comm.tenant_id=' ],
	(map { [ qr/port cannot be given: .* --port/, @$_ ] } [ '--conf', 'port=6000' ], [ '--conf', 'neon_comm.wal_feed_port=6000' ],
		[ '--ps-conf', 'Port=6000' ], [ '--ps-conf', 'neon_page_service.port=6000' ]),
	(map { [ qr/unix_socket_directories cannot be given: /, $_, 'unix_socket_directories=/tmp' ] } '--conf', '--ps-conf'),
	[ qr/primary_slot_name cannot be given: /, '--ps-conf', 'primary_slot_name=mine' ])
{
	my ($why, @arguments) = @$bad;
	($ok, $out) = $c->try_dev('init', '-D', $c->{dir}, @arguments);
	like($out, $why, "init @arguments");
	ok(!-e $c->{dir}, 'makes nothing') or $c->dev('destroy', '-D', $c->{dir}, '--quiet');
}

# ---- adopt

my $sum = sum_of("$top/original $top/original_wal");
$out = $c->dev('adopt', '--from', "$top/original", '-D', $c->{dir}, '--shards', 1);
like($out, qr/not adopted: .*\barchive_command\b.*\bdata_directory\b.*\bfsync\b/, 'what is not adopted is named');
is(sum_of("$top/original $top/original_wal"), $sum, 'the original is not changed');
$c->start;
is($c->sql('SELECT count(*) FROM t'), 1000, 'the copy works');
is($c->sql(q{SELECT current_setting('data_directory')}), "$c->{dir}/compute", 'in its own directory');
is($c->sql(q{SELECT current_setting('work_mem') || current_setting('auto_explain.log_min_duration')}), '7MB1h', 'settings that stay inside are kept');
is($c->sql(q{SELECT current_setting('shared_preload_libraries')}), 'neon_comm,auto_explain', 'and libraries that do');
is($c->sql(q{SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ('archive_mode', 'fsync', 'full_page_writes', 'zero_damaged_pages', 'logging_collector')}),
	'off on on off off', 'settings that reach out, or lose data, are not');
is($c->sql(q{SELECT string_agg(evtname, ' ' ORDER BY evtname) FROM pg_event_trigger}), 'a_trace b_refuse', 'its event triggers are there');
ok(!-e "$top/elsewhere/event_trigger", 'and none has run');
is($c->sql('SELECT bool_or(subenabled), count(*), bool_and(subslotname IS NULL) FROM pg_subscription'), 'f|1|t', 'its subscription is cut off');
$c->sql('DROP SUBSCRIPTION s');
is($c->sql('CREATE TABLE n AS SELECT generate_series(1, 10) AS x; SELECT count(*) FROM n; CHECKPOINT'), 10, 'it writes');
is(sql('publisher', 'SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots'), $slot, "the original's slot stays where it was");
is(sum_of("$top/original $top/original_wal"), $sum, 'nor does the running copy change the original');
is(join(' ', glob("$top/elsewhere/*")), '', 'nothing reaches out');
is(`find $c->{dir} -type l -printf '%P %l'`, 'compute/pg_snapshots pg_snapshots.neon_comm', 'no part has a link to anywhere but inside of itself');
my ($here) = glob "$c->{dir}/compute/pg_wal/0*";
ok(defined $here && -e "$c->{dir}/page_server_0/pg_wal", 'each part has its own WAL');
$c->check_logs;
$c->dev('destroy', '-D', $c->{dir}, '--quiet');
delete $c->{conninfo};

# The original goes on where it was.
unlink "$top/original/conf.d/more.conf";
ctl('original', 'start');
ok(until_true(sub { sql('original', 'SELECT count(*) FROM r') eq '2' }), 'the original gets what was waiting for it');

# ---- init: a WAL directory elsewhere, and libraries

$c->dev('init', '-D', $c->{dir}, '--shards', 2, '--quiet', '--initdb', "--waldir=$top/wal", '--conf', 'shared_preload_libraries=auto_explain',
	'--ps-conf', "shared_preload_libraries='auto_explain'");
is(readlink "$c->{dir}/compute/pg_wal", "$top/wal", 'init with a WAL directory elsewhere: the compute has it');
ok(!-l "$c->{dir}/page_server_$_/pg_wal" && -d _, "page server $_ has its own") foreach 0, 1;
$c->start;
is($c->sql(q{SELECT current_setting('shared_preload_libraries')}), 'neon_comm,auto_explain', 'libraries are added to ours');
is($c->sql('CREATE TABLE n AS SELECT generate_series(1, 10) AS x; CHECKPOINT; SELECT enabled FROM neon_comm.status()'), 't', 'and it is a compute');
is($c->sql('SELECT current_setting($$recovery_init_sync_method$$)'), 'syncfs', 'which starts with one sync of the file system');
$c->check_logs;
$c->dev('destroy', '-D', $c->{dir}, '--quiet');
delete $c->{conninfo};
ok(!-e $c->{dir} && !-e "$top/wal", 'destroy removes the WAL directory too');
($ok, $out) = $c->try_dev('init', '-D', $c->{dir}, '--conf', "data_directory=$top/original");
ok(!$ok, 'a data directory given as a setting');
like($out, qr/parts of a cluster have their files in their own directories/, 'is refused');
ok(!-e $c->{dir}, 'and leaves nothing');
done_testing();
