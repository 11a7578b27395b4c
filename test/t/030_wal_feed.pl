# The WAL feed alone: neon_comm without page servers leaves storage local, so that
# stock standbys can take their WAL from the feed and be compared with the primary.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Socket::INET;
use NeonComm::Node qw(free_port until_true);
use NeonComm::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# For reads that only a bug leaves without an end.
my $patience = $PostgreSQL::Test::Utils::timeout_default;

my $feed_port = free_port();
my $feed_conf = qq{
shared_preload_libraries = 'neon_comm'
neon_comm.page_servers = ''
neon_comm.wal_feed_port = $feed_port
neon_comm.wal_feed_allow_unjoined = on
neon_comm.wal_feed_slots = 'page_server_0, page_server_1'
wal_level = replica
max_replication_slots = 4
autovacuum = off
max_wal_size = 32MB
min_wal_size = 32MB
wal_recycle = off
restart_after_crash = on
wal_buffers = 64MB
};

# ---- a client that says what a walreceiver says

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body; }

sub feed_connect
{
	my ($parameters) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $feed_port)
	  or die "cannot connect to the feed: $@";
	if ($parameters)
	{
		my $body = pack('N', 3 << 16) . join('', map { "$_\0" } @$parameters) . "\0";
		print $socket pack('N', 4 + length $body) . $body;
		$socket->flush;
	}
	return $socket;
}

sub read_bytes
{
	my ($socket, $bytes) = @_;
	my $data = '';
	while (length $data < $bytes)
	{
		my $got = sysread $socket, $data, $bytes - length $data, length $data;
		return undef if !$got;
	}
	return $data;
}

# The next message, or undef when the feed has closed the connection.
sub read_message
{
	my ($socket) = @_;
	local $SIG{ALRM} = sub { die "the feed neither answers nor closes\n" };
	alarm $patience;
	my $head = read_bytes($socket, 5);
	my ($type, $length) = defined $head ? unpack('aN', $head) : ();
	my $body = defined $type && $length > 4 ? read_bytes($socket, $length - 4) : '';
	alarm 0;
	return defined $type && defined $body ? { type => $type, body => $body } : undef;
}

# Reads messages until one is of a wanted type; undef when the connection ends before.
sub read_until
{
	my ($socket, $types) = @_;
	while (my $m = read_message($socket))
	{
		return $m if $m->{type} =~ /^[$types]$/;
	}
	return undef;
}

sub feed_session
{
	my $socket = feed_connect([ user => 'u', replication => 'true' ]);
	read_until($socket, 'Z') or die 'the feed did not let us in';
	return $socket;
}

sub send_query
{
	my ($socket, $query) = @_;
	print $socket message('Q', "$query\0");
	$socket->flush;
}

# write, flush, apply
sub send_status
{
	my ($socket, @lsns) = @_;
	print $socket message('d', 'r' . pack('Q>Q>Q>Q>C', @lsns, 0, 1));
	$socket->flush;
}

# Starts streaming as a page server that has everything up to $have.
sub start_streaming
{
	my ($socket, $slot, $from, $have) = @_;
	send_query($socket, qq{START_REPLICATION SLOT "$slot" $from TIMELINE 1});
	my $copy = read_until($socket, 'WE');
	send_status($socket, ($have) x 3) if $copy->{type} eq 'W' && defined $have;
	return $copy->{type} eq 'W';
}

sub lsn_number { my ($hi, $lo) = split m{/}, $_[0]; return hex($hi) * 2**32 + hex $lo; }
sub lsn_text { return sprintf '%X/%X', $_[0] >> 32, $_[0] & 0xffffffff; }

sub command
{
	my ($sql, $replication) = @_;
	my ($out, $err) = ('', '');
	my $conninfo = "host=127.0.0.1 port=$feed_port user=u dbname=d replication=" . ($replication // 'true');
	IPC::Run::run([ 'psql', '-XqAt', '-d', $conninfo, '-c', $sql ], '<', \undef, '>', \$out, '2>', \$err);
	chomp $out;
	return ($out, $err);
}

# ---- servers

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', $feed_conf . "neon_comm.wal_feed_port = 0\n");

# one start without the feed: a seed needs the server's settings in its control file, and no slots
$primary->start;
is($primary->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 0, 'no feed, no slots');
$primary->stop;
$primary->append_conf('postgresql.conf', "neon_comm.wal_feed_port = $feed_port\n");
$primary->backup_fs_cold('seed');

sub make_standby
{
	my ($name, $slot, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($primary, 'seed');
	$node->append_conf(
		'postgresql.conf', qq{
shared_preload_libraries = ''
primary_conninfo = 'host=127.0.0.1 port=$feed_port application_name=$name'
primary_slot_name = '$slot'
wal_retrieve_retry_interval = 100ms
} . ($conf // ''));
	$node->set_standby_mode;
	return $node;
}

my $standby = make_standby('standby', 'page_server_0');
my $blind = make_standby('blind', 'page_server_1', "hot_standby = off\n");

$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION neon_comm');
ok($primary->poll_query_until('postgres',
		q{SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots
		  WHERE slot_type = 'physical' AND restart_lsn IS NOT NULL}, 'page_server_0,page_server_1'),
	'slots exist before a page server connects');
# the feed makes its slots and shows its rows afterwards
ok($primary->poll_query_until('postgres', q{SELECT string_agg(state, ',') FROM neon_comm.page_servers}, 'absent,absent'),
	'the view shows page servers that are not connected');

$standby->start;
$blind->start;

# Waits until a page server has everything on disk and applied.
sub wait_synced
{
	my ($slot) = @_;
	my $lsn = $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
	return $primary->poll_query_until('postgres',
		"SELECT apply_lsn >= '$lsn' AND flush_lsn >= '$lsn' FROM neon_comm.page_servers WHERE name = '$slot'");
}

my $contents = q{SELECT count(*), sum(id), md5(string_agg(note, '|' ORDER BY id)) FROM t};

sub check_same
{
	my ($test) = @_;
	ok(wait_synced('page_server_0') && wait_synced('page_server_1'), "$test: page servers catch up");
	is($standby->safe_psql('postgres', $contents), $primary->safe_psql('postgres', $contents),
		"$test: contents are the same");
}

$primary->safe_psql('postgres', q{CREATE TABLE t (id bigserial PRIMARY KEY, note text);
	INSERT INTO t (note) SELECT md5(g::text) FROM generate_series(1, 10000) g});
check_same('first load');
# until what the server writes by itself has left, a row says "catchup"
ok($primary->poll_query_until('postgres',
		q{SELECT count(*) = 2 FROM neon_comm.page_servers WHERE state = 'streaming' AND address LIKE '127.0.0.1:%'
		  AND connected_since IS NOT NULL AND reply_time IS NOT NULL}),
	'the view shows both');

# ---- WAL is kept for as long as it is needed, and no longer

my $slow = $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_wal_receiver});
kill 'STOP', $slow;
my $held_file = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
foreach my $i (1 .. 4)
{
	$primary->safe_psql('postgres', q{INSERT INTO t (note) SELECT repeat(md5(g::text), 4) FROM generate_series(1, 3000) g;
		SELECT pg_switch_wal(); CHECKPOINT});
}
ok(wait_synced('page_server_1'), 'a stuck page server does not hold up the other');
$primary->safe_psql('postgres', 'CHECKPOINT');
ok(-f $primary->data_dir . "/pg_wal/$held_file", 'WAL is kept for the stuck one');
kill 'CONT', $slow;
check_same('after the pause');
ok($primary->poll_query_until('postgres',
		"SELECT bool_and(pg_walfile_name(restart_lsn) > '$held_file') FROM pg_replication_slots"),
	'slots move on');

# the segments up to the position before the last checkpoint go; a slot shows its position before checkpoints heed it
$primary->safe_psql('postgres', 'SELECT pg_switch_wal(); CHECKPOINT');
ok(until_true(sub { $primary->safe_psql('postgres', 'CHECKPOINT'); !-f $primary->data_dir . "/pg_wal/$held_file" }),
	'WAL is removed once both have it');

# ---- a slot that somebody wants to drop (231_slots_held has more)

# a slot that was just made is left alone for a second, and looked at once a second
ok($primary->poll_query_until('postgres', 'SELECT count(*) = 2 FROM pg_replication_slots WHERE active'),
	'the slots are held');
isnt($primary->psql('postgres', q{SELECT pg_drop_replication_slot('page_server_1')}), 0, 'a slot cannot be dropped');

# ---- crashes and restarts

foreach my $round (1 .. 3)
{
	$primary->safe_psql('postgres', q{INSERT INTO t (note) SELECT md5(g::text) FROM generate_series(1, 500) g});
	$primary->stop('immediate');
	$primary->start;
	check_same("crash $round of the compute");
	$primary->safe_psql('postgres', q{UPDATE t SET note = note || 'x' WHERE id % 7 = 0});
	$standby->stop('immediate');
	$primary->safe_psql('postgres', q{DELETE FROM t WHERE id % 11 = 0});
	$standby->start;
	check_same("crash $round of a page server");
}

sub feed_pid
{
	# a worker without a database is in no statistics view
	my $postmaster = (split /\n/, slurp_file($primary->data_dir . '/postmaster.pid'))[0];
	my @found = grep { (split)[1] == $postmaster && /WAL feed/ } split /\n/, `ps -e -o pid= -o ppid= -o args=`;
	return (split ' ', $found[0])[0];
}

my $log_at = -s $primary->logfile;
kill 'KILL', feed_pid();
$primary->wait_for_log(qr/all server processes terminated; reinitializing/, $log_at);
$primary->poll_query_until('postgres', 'SELECT true');
check_same('kill -9 of the feed');

# frozen, not dead: nothing of the compute waits for it
my $pid = feed_pid();
kill 'STOP', $pid;
is($primary->safe_psql('postgres', q{INSERT INTO t (note) VALUES ('frozen'); SELECT count(*) FROM neon_comm.page_servers}),
	2, 'commits and the view work while the feed is frozen');
kill 'CONT', $pid;
check_same('feed thawed');

# ---- shutdown: the last commit reaches the page servers, backends with temporary tables end first

my $session = NeonComm::Session->new($primary->connstr('postgres'));
$session->query('CREATE TEMP TABLE tt AS SELECT * FROM t');
foreach my $mode ('fast', 'smart')
{
	$primary->safe_psql('postgres', "INSERT INTO t (note) VALUES ('last words $mode')");
	my $end = $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
	$primary->stop($mode);
	ok($standby->poll_query_until('postgres', "SELECT pg_last_wal_receive_lsn() >= '$end'"),
		"$mode shutdown: the page server has the last commit while the compute is down");
	$primary->start;
	$session->{harness}->kill_kill if $mode eq 'fast';
	check_same("after $mode shutdown");
}

# ---- what is refused, and how

my ($out, $err) = command('IDENTIFY_SYSTEM');
my $sysid = $primary->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()');
like($out, qr{^$sysid\|1\|[0-9A-F]+/[0-9A-F]+\|$}, 'IDENTIFY_SYSTEM');
is((command('SHOW wal_segment_size'))[0], '16MB', 'SHOW');
my @refused = (
	[ 'START_REPLICATION 0/1000000', qr/does not stream without a slot.*primary_slot_name/s ],
	[ 'START_REPLICATION SLOT "nobody" 0/1000000', qr/slot "nobody" is not registered/ ],
	[ 'START_REPLICATION SLOT "page_server_0" 0/1000000 TIMELINE 7', qr/is on timeline 7, this compute is on timeline 1/ ],
	[ 'START_REPLICATION SLOT "page_server_0" PHYSICAL FFF/0 TIMELINE 1', qr/ahead of the WAL flush position/ ],
	[ 'START_REPLICATION SLOT "page_server_0" 0/1000000 TIMELINE 1', qr/segment 000000010000000000000001 has already been removed/ ],
	[ 'START_REPLICATION SLOT "page_server_0" LOGICAL 0/0', qr/does not know the command "START_REPLICATION LOGICAL"/ ],
	[ 'START_REPLICATION SLOT "page_server_0 0/0', qr/syntax error/ ],
	[ 'TIMELINE_HISTORY 99', qr/could not read timeline history file/ ],
	[ 'SHOW ssl_key_file', qr/does not show this setting/ ],
	[ 'BASE_BACKUP', qr/does not know the command "BASE_BACKUP".*server's own port/s ],
	[ 'SELECT 1', qr/does not know the command "SELECT"/ ]);
foreach my $r (@refused)
{
	like((command($r->[0]))[1], $r->[1], "refused: $r->[0]");
}
like((command('IDENTIFY_SYSTEM', 'database'))[1], qr/does not serve logical replication/, 'logical replication refused');
like((command('IDENTIFY_SYSTEM', 'false'))[1], qr/does not serve ordinary connections/, 'ordinary connection refused');

# garbage ends its connection and nothing else
foreach my $bytes ("\xff" x 100, pack('NN', 8, 80877102), pack('N', 3), pack('NN', 20, 3 << 16) . 'x' x 12)
{
	my $socket = feed_connect();
	print $socket $bytes;
	$socket->flush;
	is(read_message($socket), undef, 'garbage instead of a startup packet ends the connection');
}
my $socket = feed_session();
print $socket 'Q' . pack('N', 0x7fffffff);
$socket->flush;
like(read_until($socket, 'E')->{body}, qr/invalid length/, 'a message without bounds is refused');
$socket = feed_session();
print $socket message('P', "\0\0\0\0");
$socket->flush;
like(read_until($socket, 'E')->{body}, qr/simple query protocol/, 'the extended protocol is refused');

# more connections than there is room for: idle ones give way, the page servers stay
my @idle = map { feed_connect() } 1 .. 40;
check_same('crowd of connections');
close $_ foreach @idle;

# ---- one slot, two connections; a page server that has what the compute lacks

$standby->stop;

# The start of the segment from which WAL is kept: it goes with a checkpoint once the slot is in the next one.
sub kept_segment
{
	return $primary->safe_psql('postgres',
		q{SELECT ('0/0'::pg_lsn + (pg_wal_lsn_diff(restart_lsn, '0/0')::bigint / 16777216) * 16777216::bigint)
		  FROM pg_replication_slots WHERE slot_name = 'page_server_0'});
}
my $start = kept_segment();
# before the first message: the background writer may write WAL at any time, and a message ends where WAL ended
my $flushed = lsn_number($primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()'));
my $old = feed_session();
ok(start_streaming($old, 'page_server_0', $start), 'first connection of the slot streams');
my $new = feed_session();
ok(start_streaming($new, 'page_server_0', $start, 0), 'second connection of the slot streams');
like(read_until($old, 'E')->{body}, qr/replaced by a newer connection/, 'the older one is ended');

# the messages are contiguous, bounded, and end at the flush position
my ($at, $good) = (lsn_number($start), 1);
while ($at < $flushed)
{
	my $m = read_until($new, 'd') or last;
	next if substr($m->{body}, 0, 1) ne 'w';
	my $bytes = length($m->{body}) - 25;
	$good &&= unpack('Q>', substr $m->{body}, 1, 8) == $at && $bytes <= 131072 && $bytes > 0
	  && (($at + $bytes) % 8192 == 0 || $at + $bytes >= $flushed);
	$at += $bytes;
}
ok($good && $at >= $flushed, 'WAL messages are contiguous and end at page boundaries');

my $kept_sql = q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'page_server_0'};
send_status($new, $at, $at, $at);
ok($primary->poll_query_until('postgres', "SELECT restart_lsn = '" . lsn_text($at) . "' FROM pg_replication_slots WHERE slot_name = 'page_server_0'"),
	'confirmed WAL moves the slot');
send_status($new, $at, $at - 8192, $at - 8192);
send_status($new, $at, 0, 0);
ok(read_until($new, 'd'), 'keepalive on request');
is($primary->safe_psql('postgres', $kept_sql), lsn_text($at), 'the slot never moves back');
send_status($new, $at + 2**30, $at + 2**30, $at + 2**30);
like(read_until($new, 'E')->{body}, qr/has WAL up to .*, this compute only up to/, 'a diverged page server is disconnected');
is(read_until($new, 'd'), undef, 'and nothing follows');
is($primary->safe_psql('postgres', $kept_sql), lsn_text($at), 'what it claimed does not move the slot');
$new = feed_session();
start_streaming($new, 'page_server_0', $start, $at + 2**30);
my ($message, $overwritten) = (undef, 0);
while ($message = read_until($new, 'dE'))
{
	last if $message->{type} eq 'E';
	$overwritten ||= $message->{body} =~ /^w/;
}
ok(!$overwritten && $message, 'when it comes back it is sent away before its WAL is overwritten');

# The record of a switch of segments is flushed and sent before the rest of its segment. Who has replayed it is
# at the start of the next segment then, and so is who inserts. Here WAL waits for the walwriter.
my $walwriter = $primary->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
my ($durable, $inserted, $next);
kill 'STOP', $walwriter;
foreach (1 .. 30)
{
	$primary->safe_psql('postgres',
		q{SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 1000000))) FROM generate_series(1, 17)});
	($durable, $inserted) = map { lsn_number($_) } split /\|/,
	  $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()');
	$next = $durable - $durable % 2**24 + 2**24;
	last if $inserted >= $next;
}
cmp_ok($inserted, '>=', $next, 'WAL is inserted behind the start of a segment, and not durable');
$new = feed_session();
start_streaming($new, 'page_server_0', $start, 0);
send_status($new, 0, 0, $next);
send_status($new, 0, 0, $next + 8);
like(read_until($new, 'E')->{body}, qr{has WAL up to \Q@{[ lsn_text($next + 8) ]}\E, },
	'a page server may be at the start of that segment, and no further');
$new = feed_session();
ok(start_streaming($new, 'page_server_0', lsn_text($next)), 'and ask for WAL from there on');
$new = feed_session();
ok(!start_streaming($new, 'page_server_0', lsn_text($next + 2**25)), 'and not from where nobody is');
is($primary->safe_psql('postgres', "SELECT pg_current_wal_flush_lsn() < '" . lsn_text($next) . "'"), 't', 'all that while it was not durable');
kill 'CONT', $walwriter;

# stop streaming and go on with commands, as pg_receivewal and walreceivers do
$new = feed_session();
start_streaming($new, 'page_server_0', $start, 0);
print $new message('c', '');
$new->flush;
ok(read_until($new, 'c') && read_until($new, 'Z'), 'CopyDone is answered');
send_query($new, 'IDENTIFY_SYSTEM');
ok(read_until($new, 'D'), 'commands work after streaming');
close $new;
$standby->start;
check_same('after other clients used the slot');

# ---- silence

$primary->append_conf('postgresql.conf', "neon_comm.wal_feed_timeout = 1s\n");
$primary->reload;
$standby->stop;
$start = kept_segment();
$new = feed_session();
start_streaming($new, 'page_server_0', $start, 0);
my $asked = 0;
while (my $m = read_until($new, 'd'))
{
	$asked ||= $m->{body} =~ /^k/ && substr($m->{body}, -1) eq "\1";
}
ok($asked, 'a silent page server is asked for a sign of life, then dropped');
$standby->start;
check_same('page servers outlive a short timeout');
# what follows is told to clients that never answer a sign of life
$primary->append_conf('postgresql.conf', "neon_comm.wal_feed_timeout = 60s\n");
$primary->reload;

# ---- another system

my $stranger = PostgreSQL::Test::Cluster->new('stranger');
$stranger->init(allows_streaming => 1);
$stranger->append_conf('postgresql.conf', qq{
max_connections = 100
primary_conninfo = 'host=127.0.0.1 port=$feed_port'
primary_slot_name = 'page_server_0'
});
$stranger->set_standby_mode;
$stranger->start;
ok($stranger->wait_for_log(qr/database system identifier differs between the primary and standby/),
	'a standby of another system gives up');
$stranger->stop;

# ---- in recovery: up to the replay position; what is ahead of it waits

$standby->stop;
$blind->stop;
$primary->stop;
$primary->set_standby_mode;
$primary->start;
my $replayed = $primary->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
like((command('IDENTIFY_SYSTEM'))[0], qr{\|\Q$replayed\E\|}, 'IDENTIFY_SYSTEM in recovery tells the replay position');
$start = kept_segment();
$socket = feed_session();
start_streaming($socket, 'page_server_0', $start, 0);
for ($at = lsn_number($start); $at < lsn_number($replayed);)
{
	my $m = read_until($socket, 'd') or last;
	$at += length($m->{body}) - 25 if $m->{body} =~ /^w/;
}
is(lsn_text($at), $replayed, 'in recovery WAL is sent up to the replay position');
my $ahead = feed_session();
ok(start_streaming($ahead, 'page_server_1', 'FFF/0', lsn_number('FFF/0')), 'in recovery a start ahead of the replay position is not refused');
my $claims = feed_session();
ok(start_streaming($claims, 'page_server_0', $start, lsn_number('FFF/0')), 'nor is one that has more than was replayed');
ok($primary->poll_query_until('postgres', q{SELECT bool_and(state = 'waiting') FROM neon_comm.page_servers}), 'both wait');

# a compute is never promoted; if it is, its page servers are sent away
$primary->safe_psql('postgres', 'SELECT pg_promote()');
like(read_until($ahead, 'E')->{body}, qr/changed its timeline/, 'promotion ends streaming');
$overwritten = 0;
while ($message = read_until($claims, 'dE'))
{
	last if $message->{type} eq 'E';
	$overwritten ||= $message->{body} =~ /^w/;
}
ok(!$overwritten && $message, 'a page server that is ahead gets no WAL');
like((command('TIMELINE_HISTORY 2'))[0], qr/00000002\.history\|1\t/, 'TIMELINE_HISTORY');
like((command('START_REPLICATION SLOT "page_server_0" 0/1000000 TIMELINE 1'))[1],
	qr/is on timeline 1, this compute is on timeline 2/, 'the old timeline is refused');

# ---- settings with which the server does not start

my @bad = (
	[ 'max_slot_wal_keep_size = 100MB', qr/does not work with max_slot_wal_keep_size = 100MB/ ],
	[ 'max_replication_slots = 1', qr/max_replication_slots = 1 is too small for the 2 page servers/ ],
	[ "wal_level = minimal\nmax_wal_senders = 0", qr/with wal_level = minimal/ ],
	[ "neon_comm.wal_feed_listen_addresses = '0.0.0.0'", qr/is not a loopback address/ ],
	[ "neon_comm.wal_feed_listen_addresses = 'example.org'", qr/neither an IP address nor localhost/ ],
	[ "neon_comm.wal_feed_slots = 'a,b,a'", qr/"a" is given twice/ ],
	[ "neon_comm.wal_feed_slots = 'Upper'", qr/is not a replication slot name/ ]);
my $refuser = PostgreSQL::Test::Cluster->new('refuser');
$refuser->init(allows_streaming => 1);
my $good_conf = slurp_file($refuser->data_dir . '/postgresql.conf') . $feed_conf;
foreach my $b (@bad)
{
	open my $fh, '>', $refuser->data_dir . '/postgresql.conf' or die $!;
	print $fh "$good_conf\n$b->[0]\n";
	close $fh;
	$log_at = -s $refuser->logfile // 0;
	ok(!$refuser->start(fail_ok => 1), "does not start with $b->[0]");
	like(substr(slurp_file($refuser->logfile), $log_at), $b->[1], 'and says why');
}

$primary->stop;
done_testing();
