# A walsender that decodes outlives the workers at a shutdown: it sends what it has, and the postmaster waits for
# it.  It may still want pages of catalogs then, and gets them although the communicator has gone.
use strict;
use warnings;

use IPC::Run ();
use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;
my $tables = 200;
my $c = NeonComm::Cluster->new(conf => [ 'wal_level=logical', 'wal_sender_timeout=0', 'neon_comm.request_timeout=1h', 'neon_comm.wait_log_period=1s' ]);
my ($socket, $port) = map { my $k = $_; map { /^$k=(.*)/ ? $1 : () } do { local @ARGV = ("$c->{dir}/neon_dev.conf"); <> } } 'socket_dir', 'compute_port';

$c->sql(q{DO $$ BEGIN FOR i IN 1 .. } . $tables . q{ LOOP EXECUTE format('CREATE TABLE w%s (f text, CHECK (f <> %L))', i, i); END LOOP; END $$;
	SELECT pg_create_logical_replication_slot('decoded', 'test_decoding')});

# Its client stops reading.
my $errors = '';
my $client = IPC::Run::start([ "$bindir/pg_recvlogical", '-h', $socket, '-p', $port, '-U', 'postgres', '-d', 'postgres',
		'-S', 'decoded', '--start', '--no-loop', '-f', "$c->{dir}/decoded" ], '<', \undef, '2>', \$errors);
my ($walsender, $client_pid);
ok(until_true(sub { $walsender = $c->sql(q{SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'decoded'}) }), 'a client follows');
($client_pid) = map { $_->{KIDS} ? map { $_->{PID} } @{ $_->{KIDS} } : () } $client;
kill 'STOP', $client_pid or die $!;
END { local $?; kill 'KILL', $client_pid if $client_pid }

# More than fits between the two; the decoder has looked at the first tables only when it waits.
$c->sql(q{DO $$ BEGIN FOR i IN 1 .. } . $tables . q{ LOOP EXECUTE format('INSERT INTO w%s VALUES (repeat(%L, 40000))', i, 'x'); END LOOP; END $$});
ok($c->wait_for("SELECT wait_event = 'WalSenderWriteData' FROM pg_stat_activity WHERE pid = $walsender"), 'and stops reading');
$c->evict;
my $communicator = $c->sql('SELECT communicator_pid FROM neon_comm.status()');
my $stop = $c->background(\my $out, "$bindir/pg_ctl", 'stop', '-w', '-m', 'fast', '-t', $NeonComm::Session::must_fail ? 60 : 600, '-D', "$c->{dir}/compute");
ok(until_true(sub { !kill 0, $communicator }), 'the communicator has gone');
ok(kill(0, $walsender), 'the walsender has not');

kill 'CONT', $client_pid or die $!;
ok($stop->finish, 'the shutdown ends') or do { diag($out); $c->kill9('compute') };
ok(eval { $client->finish; 1 }, 'the client ends');
open my $fh, '<', "$c->{dir}/decoded" or die $!;
my %seen = map { /^table public\.w(\d+): INSERT: f\[text\]:'(x{40000})'$/ ? ($1 => 1) : () } <$fh>;
is(scalar keys %seen, $tables, 'it has got everything') or diag($errors);
unlike($c->log_text('compute'), qr/still waiting for page servers/, 'nobody has waited for the communicator');
$c->start('compute');
is($c->sql(q{SELECT sum(length(f)) FROM w} . $tables), 40000, 'and all is there');
$c->check_logs;
done_testing();
