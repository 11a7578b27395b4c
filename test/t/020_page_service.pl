# The page service: a stock standby with neon_page_service serves the pages of its
# primary.  Pages are compared with the files of the primary after a checkpoint.
# Each page compared was frozen right after an earlier checkpoint, so its full-page
# image carried every hint bit and both servers hold the same bytes, except for the
# free space between line pointers and tuples, which the WAL leaves out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Socket::INET;
use NeonComm::Node qw(free_port until_true);
use NeonComm::Pagestream qw(lsn_number);
use POSIX qw(:sys_wait_h);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tenant = '0123456789abcdef0123456789abcdef';
my $timeline = 'fedcba9876543210fedcba9876543210';
my $block_bytes = 8192;
my $zero_page = "\0" x $block_bytes;

# ---- servers

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1, extra => ['--data-checksums']);
$primary->append_conf(
	'postgresql.conf', qq{
autovacuum = off
max_wal_senders = 10
wal_keep_size = 1GB
});
$primary->start;
$primary->backup('base');

sub new_standby
{
	my ($name, %conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($primary, 'base', has_streaming => 1);
	my %all = (
		shared_preload_libraries => 'neon_page_service',
		hot_standby => 'off',
		'neon_page_service.allow_any_primary' => 'on',
		'neon_page_service.allow_unsafe' => 'on',	# PostgreSQL::Test::Cluster runs without fsync
		'neon_page_service.port' => free_port(),
		'neon_page_service.tenant_id' => $tenant,
		'neon_page_service.timeline_id' => uc $timeline,
		%conf);
	$node->append_conf('postgresql.conf', "$_ = '$all{$_}'") for sort keys %all;
	$node->{page_port} = $all{'neon_page_service.port'};
	return $node;
}

# The port opens when a worker gets to it; nothing but another try can tell.
sub wait_for_port
{
	my ($node) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->{page_port});
		select undef, undef, undef, 0.1;
	}
	die "the page service of " . $node->name . " does not listen";
}

sub connect_to
{
	my ($node, %arg) = @_;
	return NeonComm::Pagestream->new(port => $node->{page_port}, %arg);
}

sub stream_to
{
	my ($node, %arg) = @_;
	return connect_to($node)->stream(tenant => $tenant, timeline => $timeline, %arg);
}

# ---- what the primary holds

sub flush_lsn
{
	# The commit flushes up to its own end, which is the end of a record.
	$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, 'test', 'x')});
	return lsn_number($primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()'));
}

sub relation
{
	my ($table, $db) = @_;
	my ($path, $spc, $dboid, $node) = split /\|/,
	  $primary->safe_psql(
		$db // 'postgres', qq{
SELECT pg_relation_filepath(c.oid), CASE c.reltablespace WHEN 0 THEN
           (SELECT dattablespace FROM pg_database WHERE datname = current_database())
           ELSE c.reltablespace END,
       CASE WHEN relisshared THEN 0 ELSE
           (SELECT oid FROM pg_database WHERE datname = current_database()) END,
       pg_relation_filenode(c.oid)
  FROM pg_class c WHERE c.oid = '$table'::regclass});
	return { path => $path, rel => [ $spc, $dboid, $node ] };
}

sub file_blocks
{
	my ($path) = @_;
	my $bytes = slurp_file($primary->data_dir . "/$path");
	return map { substr $bytes, $_ * $block_bytes, $block_bytes } 0 .. length($bytes) / $block_bytes - 1;
}

# Makes every page of a table the same on both sides and on the primary's disk.
sub settle
{
	my ($table, $db) = @_;
	$primary->safe_psql($db // 'postgres', "CHECKPOINT; VACUUM (FREEZE, INDEX_CLEANUP ON) $table; CHECKPOINT");
	return flush_lsn();
}

# Reads a whole fork, many requests in flight.
sub read_fork
{
	my ($client, $rel, $nms, $nblocks, %arg) = @_;
	my @pages;
	for (my $at = 0; $at < $nblocks; $at += 100)
	{
		my $last = $at + 99 < $nblocks ? $at + 99 : $nblocks - 1;
		$client->send_requests(
			map { $client->request_body('getpage', rel => $rel, block => $_, nms => $nms, %arg) }
			  $at .. $last);
		push @pages, map { $client->read_answer } $at .. $last;
	}
	return @pages;
}

# A page without its checksum, its pruning hint and what is in its free space.
sub essence
{
	my ($page) = @_;
	my ($lower, $upper) = unpack 'x12 S S', $page;
	substr $page, 8, 2, "\0" x 2;
	substr $page, 20, 4, "\0" x 4;
	substr $page, $lower, $upper - $lower, "\0" x ($upper - $lower)
	  if $lower < $upper && $upper <= $block_bytes;
	return $page;
}

# The pages of a table as served must be those of the primary's file.
sub compare_table
{
	my ($client, $table, $label, $db) = @_;
	my $nms = settle($table, $db);
	my $relation = relation($table, $db);
	my @expected = file_blocks($relation->{path});
	my $size = $client->ask('nblocks', rel => $relation->{rel}, nms => $nms);
	my @answers = read_fork($client, $relation->{rel}, $nms, scalar @expected);
	my @bad = grep { essence($answers[$_]{page} // $zero_page) ne essence($expected[$_]) } 0 .. $#expected;

	is($size->{nblocks}, scalar @expected, "$label: length");
	is("@bad", '', "$label: " . scalar(@expected) . ' pages');
	return $relation;
}

# ---- reading

my $standby = new_standby('standby');
$standby->start;
wait_for_port($standby);

$primary->safe_psql(
	'postgres', q{
CREATE TABLE big AS SELECT g, repeat('x', 500) AS t FROM generate_series(1, 20000) g;
CREATE TABLE small (a int);
INSERT INTO small SELECT generate_series(1, 1000)});

for my $version (3, 2)
{
	my $client = stream_to($standby, version => $version);
	compare_table($client, 'pg_class', "v$version pg_class");
	compare_table($client, 'big', "v$version big table");
	compare_table($client, 'pg_database', "v$version shared relation");
	$client->close;
}

my $client = stream_to($standby);
my $small = relation('small');
my @unknown = (@{ $small->{rel} }[ 0, 1 ], 999999);
my $nms = flush_lsn();

# ---- odd targets

my $answer = $client->ask('getpage', rel => $small->{rel}, block => 1000, nms => $nms, reqid => 77);
is($answer->{page}, $zero_page, 'a block beyond the end is a zero page');
is($answer->{reqid}, 77, 'the request id comes back');
is($answer->{nms}, $nms, 'the LSNs come back');
$answer = $client->ask('getpage', rel => $small->{rel}, block => 0xffffffff);
is($answer->{page}, $zero_page, 'the largest block number extends nothing');
$answer = $client->ask('getpage', rel => \@unknown, block => 0);
like($answer->{error}, qr{^relation not found: \d+/\d+/999999 fork 0}, 'unknown relation, page');
$answer = $client->ask('nblocks', rel => \@unknown);
like($answer->{error}, qr/^relation not found: /, 'unknown relation, length');
is($client->ask('exists', rel => \@unknown)->{exists}, 0, 'unknown relation does not exist');
is($client->ask('exists', rel => $small->{rel})->{exists}, 1, 'known relation exists');
is($client->ask('nblocks', rel => \@unknown, fork => 2)->{nblocks}, 0, 'unknown map has no blocks');
is($client->ask('getpage', rel => \@unknown, fork => 1, block => 3)->{page},
	$zero_page, 'unknown map, zero page');
$answer = $client->ask('getpage', rel => [ 1664, 5, 1262 ], block => 0);
like($answer->{error}, qr/^relation not found: /, 'a shared relation has no second name');
for my $kind (qw(getpage nblocks exists))
{
	$answer = $client->ask($kind, rel => [ 1663, 5, 0 ], block => 0);
	like($answer->{error}, qr/^Read error/, "$kind of relation number 0");
}
like($client->ask('nblocks', rel => $small->{rel}, fork => 4)->{error}, qr/^Bad request/, 'unknown fork');
like($client->ask('nblocks', rel => $small->{rel}, lsn => 0)->{error}, qr/^Bad request/, 'request LSN 0');
like($client->ask('nblocks', rel => $small->{rel}, lsn => 10, nms => 20)->{error},
	qr/^Bad request/, 'request LSN before not_modified_since');
like($client->ask('getpage', rel => $small->{rel}, block => 0, lsn => 24)->{error},
	qr/serves only the newest version/, 'an old version is refused');
is($client->ask('getpage', rel => $small->{rel}, block => 0, lsn => $nms, nms => $nms)->{tag},
	102, 'a request LSN the page does not exceed is served');

# ---- sizes and SLRUs

sub database_bytes
{
	my ($db) = @_;
	my $dir = $primary->data_dir . "/base/$db";
	opendir my $handle, $dir or die "$dir: $!";
	my $sum = 0;
	$sum += -s "$dir/$_" for grep { /^[1-9]\d*(_(fsm|vm|init))?(\.\d+)?$/ } readdir $handle;
	return $sum;
}

my $db = $primary->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'template1'});
is($client->ask('dbsize', db => $db, nms => flush_lsn())->{bytes}, database_bytes($db), 'database size');
like($client->ask('dbsize', db => 99)->{error}, qr/^database not found/, 'unknown database');

$primary->safe_psql('postgres', 'INSERT INTO small VALUES (1)') for 1 .. 20;
# The statuses up to the next transaction id, four to a byte.
my $next_xid = $primary->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
$primary->safe_psql('postgres', 'CHECKPOINT');
my $clog = slurp_file($primary->data_dir . '/pg_xact/0000');
$answer = $client->ask('slru', slru => 0, segment => 0, nms => flush_lsn());
is(substr($answer->{page}, 0, int($next_xid / 4)),
	substr($clog, 0, int($next_xid / 4)), 'newest pg_xact, not what is on the disk of the standby');
is(length $answer->{page}, $answer->{nblocks} * $block_bytes, 'whole blocks');
is($client->ask('slru', slru => 2, segment => 0)->{tag}, 105, 'multixact offsets');
is($client->ask('slru', slru => 1, segment => 0)->{tag}, 105, 'multixact members');
like($client->ask('slru', slru => 0, segment => 0x7ff)->{error}, qr/^SLRU segment not found/, 'unknown segment');
like($client->ask('slru', slru => 0, segment => 0xffffffff)->{error}, qr/^SLRU segment not found/, 'no such segment');
like($client->ask('slru', slru => 3, segment => 0)->{error}, qr/^Bad request/, 'unknown SLRU kind');

# ---- files that come and go while others read

# Reads every number and block around, so that a stale page would be loaded.
sub read_blindly
{
	my ($stop, $seen, $from, $to) = @_;
	my $watch = IO::Select->new($stop);
	my $reader = stream_to($standby);
	my $pages = 0;

	until ($watch->can_read(0))
	{
		my @bodies;
		for (1 .. 200)
		{
			my $rel = [ 1663, $db, $from + int rand($to - $from) ];
			push @bodies, $reader->request_body('getpage', rel => $rel, block => int rand 40);
		}
		$reader->send_requests(@bodies);
		for (@bodies)
		{
			my $got = $reader->read_answer // return 2;
			return 3 if $got->{tag} != 102 && $got->{error} !~ /^relation not found/;
			next if $got->{tag} != 102 || $got->{page} eq $zero_page;
			syswrite $seen, 'x' if $pages++ == 0;
		}
	}
	return $pages > 0 ? 0 : 4;
}

# Returns when the reader has seen a page: nothing of what follows may be over before that.
sub start_reader
{
	my ($from, $to) = @_;
	pipe my $stop_read, my $stop_write or die $!;
	pipe my $seen_read, my $seen_write or die $!;
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		# Leaves without the end blocks of the test, which stop the servers.
		my $code = eval { close $stop_write; read_blindly($stop_read, $seen_write, $from, $to) };
		diag "reader: $@" if $@;
		POSIX::_exit($code // 5);
	}
	close $stop_read;
	close $seen_write;
	# the end of the file when it has failed, which stop_reader tells
	sysread $seen_read, my $byte, 1;
	return { pid => $pid, stop => $stop_write };
}

sub stop_reader
{
	my ($reader, $label) = @_;
	# A byte, not the end of file: readers started later hold copies of this pipe.
	syswrite $reader->{stop}, 'x';
	waitpid $reader->{pid}, 0;
	is($? >> 8, 0, $label);
	return;
}

$db = $primary->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'postgres'});
my $first = relation('small')->{rel}[2];
my @readers = map { start_reader($first - 10, $first + 60) } 1 .. 2;
for my $round (1 .. 6)
{
	$primary->safe_psql(
		'postgres', qq{
DELETE FROM small;
VACUUM small;
INSERT INTO small SELECT generate_series(1, 3000 + $round);
CREATE TABLE drop_me AS SELECT g, repeat('y', 100) FROM generate_series(1, 3000) g;
TRUNCATE drop_me;
INSERT INTO drop_me SELECT generate_series(1, 2000);
DROP TABLE drop_me;
BEGIN; CREATE TABLE never AS SELECT generate_series(1, 1000); ROLLBACK});
	compare_table($client, 'small', "round $round: truncated and filled again");
}
stop_reader($_, 'a concurrent reader saw pages and no error') for @readers;

for my $strategy (qw(file_copy wal_log))
{
	# The same oid twice: its files come back with other contents.
	for my $round (1 .. 2)
	{
		$primary->safe_psql('postgres', "CREATE DATABASE again OID 70000 STRATEGY $strategy");
		$db = 70000;
		$primary->safe_psql('again', "CREATE TABLE inside AS SELECT g, $round AS r FROM generate_series(1, 5000) g");
		@readers = (start_reader(relation('pg_class', 'again')->{rel}[2] - 5,
				relation('inside', 'again')->{rel}[2] + 2));
		compare_table($client, 'inside', "$strategy $round: table of a new database", 'again');
		compare_table($client, 'pg_class', "$strategy $round: its pg_class", 'again');
		$primary->safe_psql('postgres', 'DROP DATABASE again');
		flush_lsn();
		like($client->ask('nblocks', rel => [ 1663, 70000, 1259 ], nms => flush_lsn())->{error},
			qr/^relation not found/, "$strategy $round: dropped database is gone");
		stop_reader($readers[0], "$strategy $round: a concurrent reader saw pages and no error");
	}
}

# ---- waiting for WAL

my $lsn = flush_lsn();
my $future = $lsn + 100_000_000;
$standby->append_conf('postgresql.conf', q{neon_page_service.wait_lsn_timeout = '1s'});
$standby->reload;
$answer = $client->ask('getpage', rel => $small->{rel}, block => 0, nms => $future);
like($answer->{error}, qr/^LSN timeout: waited \d+ ms for /, 'the wait for WAL ends');
like($answer->{error}, qr/replay is at [0-9A-F]+\/[0-9A-F]+, WAL is received up to/, 'it says how far replay is');
$standby->append_conf('postgresql.conf', q{neon_page_service.wait_lsn_timeout = '300s'});
$standby->reload;

# ---- broken clients

my $query = connect_to($standby);
my $error = NeonComm::Pagestream::error_of($query->query("pagestream_v3 $timeline $tenant"));
like($error->{M}, qr/tenant "$timeline" is not served: set neon_comm\.tenant_id or .*"$tenant"/, 'wrong tenant');
is($error->{C}, 'XX000', 'its code');
$error = NeonComm::Pagestream::error_of($query->query("pagestream_v3 $tenant $tenant"));
like($error->{M}, qr/timeline "$tenant" is not served: set neon_comm\.timeline_id/, 'wrong timeline, same connection');
$error = NeonComm::Pagestream::error_of($query->query("pagestream_v3 $tenant-0102 $timeline"));
like($error->{M}, qr/invalid tenant id.*shard suffix/, 'a shard suffix is refused');
for my $text ("pagestream_v4 $tenant $timeline", "pagestream_v3 $tenant", "pagestream_v3 $tenant $timeline x", 'pagestream', 'select 1', '', 'set')
{
	my @messages = $query->query($text);
	ok(NeonComm::Pagestream::error_of(@messages) && $messages[-1][0] eq 'Z', "refused: '$text'");
}
my @messages = $query->query('SET extra_float_digits = 3');
is(join('', map { $_->[0] } @messages), 'CZ', 'SET is accepted');
$query->send_message($_->[0], $_->[1])
  for [ 'P', "\0select 1\0\0\0" ], [ 'B', "\0\0\0\0\0\0\0\0" ], [ 'E', "\0\0\0\0\0" ], [ 'S', '' ];
is(join('', map { $_->[0] } $query->read_until('Z')), 'EZ', 'extended protocol: one error up to Sync');

my $good = $query->request_body('nblocks', rel => $small->{rel});
for my $broken ([ 'd', substr($good, 0, 20) ], [ 'd', '' ], [ 'd', "\x63" . 'x' x 60 ], [ 'c', '' ], [ 'Q', "select 1\0" ], [ 'S', '' ])
{
	my $name = sprintf 'type %s, %d bytes', $broken->[0], length $broken->[1];
	$query->query("PAGESTREAM_V3 \U$tenant $timeline");
	$query->send_requests($good);
	$query->send_message(@$broken);
	is($query->read_answer->{tag}, 101, "$name: the request before it is answered");
	@messages = $query->read_until('Z');
	is(join('', map { $_->[0] } @messages), 'EZ', "$name ends the stream");
}
$query->send_message('H', '');
is(NeonComm::Pagestream::error_of($query->read_until('E'))->{C}, '08P01', 'unknown message type');
is_deeply([ $query->read_message ], [], 'and the connection is closed');

for my $length (0, 3, 0x7fffffff, 0xffffffff)
{
	my $broken = stream_to($standby);
	$broken->send_bytes(pack 'aN', 'd', $length);
	is(NeonComm::Pagestream::error_of($broken->read_until('E'))->{C}, '08P01', "message length $length");
	$broken->close;
	$broken = connect_to($standby, startup => 0);
	$broken->send_bytes(pack 'NN', $length, 196608);
	is_deeply([ $broken->read_message ], [], "startup packet length $length");
	$broken->close;
}
my $ssl = connect_to($standby, startup => 0);
$ssl->send_bytes(pack 'NN', 8, 80877103);
is($ssl->take(1), 'N', 'no TLS');
$ssl->startup;
is($ssl->{greeting}[-1][0], 'Z', 'the session goes on without it');

is($client->ask('nblocks', rel => $small->{rel}, nms => $lsn)->{tag}, 101, 'replay is that far');
my $status = $ssl->status;
is($status->{consistent}, 'on', 'status: consistent');
is($status->{lazy}, 'off', 'status: lazy');
cmp_ok($status->{pages_served}, '>', 1000, 'status: pages');
cmp_ok(lsn_number($status->{replay_lsn}), '>=', $lsn, 'status: replay position');
cmp_ok($status->{connections}, '>=', 2, 'status: connections');

# ---- a page that cannot be read is an error answer, not the end of the worker

$primary->safe_psql('postgres', q{CREATE TABLE torn AS SELECT generate_series(1, 5000)});
my $torn = relation('torn');
settle('torn');
my $blocks = scalar file_blocks($torn->{path});
is($client->ask('nblocks', rel => $torn->{rel}, nms => flush_lsn())->{nblocks}, $blocks, 'table is there');
$standby->stop('fast');
{
	open my $file, '+<:raw', $standby->data_dir . "/$torn->{path}" or die $!;
	seek $file, 2 * $block_bytes + 100, 0;
	print $file 'garbage';
	close $file;
}
$standby->start;
wait_for_port($standby);
$client = stream_to($standby);
$answer = $client->ask('getpage', rel => $torn->{rel}, block => 2);
like($answer->{error}, qr/^Read error: invalid page in block 2 of relation/, 'damaged page');
is($client->ask('getpage', rel => $torn->{rel}, block => 3)->{tag}, 102, 'the same worker reads the next');
is($client->ask('getpage', rel => $torn->{rel}, block => 2)->{tag}, 103, 'still damaged');

# ---- shards: only the blocks of the shard are served

my $sharded = new_standby(
	'sharded',
	'neon_page_service.shard_count' => 2,
	'neon_page_service.shard_number' => 1,
	'neon_page_service.stripe_size' => 1,
	'neon_page_service.max_connections' => 12,
	'neon_page_service.workers' => 3);
$sharded->start;
wait_for_port($sharded);
$client = stream_to($sharded);
my @tags = map { $_->{tag} } read_fork($client, relation('big')->{rel}, flush_lsn(), 200);
my $served = grep { $_ == 102 } @tags;
ok($served > 50 && $served < 150, "a shard serves about a half of the blocks ($served of 200)");
like((grep { $_->{error} } read_fork($client, relation('big')->{rel}, 0, 200))[0]{error},
	qr/^wrong shard: block \d+ .* belongs to shard 0, this page server is shard 1 of 2/, 'the others are refused');

# several of them
$sharded->append_conf('postgresql.conf', "neon_page_service.shard_number = '1, 0'");
$sharded->reload;
ok(until_true(sub { connect_to($sharded)->status->{shard} eq '1, 0/2' }), 'a page server may have several shards');
$client = stream_to($sharded);
is((grep { $_->{tag} == 102 } read_fork($client, relation('big')->{rel}, flush_lsn(), 200)), 200, 'and serves all their blocks');
foreach my $bad ('', '0,', '-1', '128', '0 1', 'x')
{
	$sharded->append_conf('postgresql.conf', "neon_page_service.shard_number = '$bad'");
	my $offset = -s $sharded->logfile;
	$sharded->reload;
	ok($sharded->wait_for_log(qr/invalid value for parameter "neon_page_service.shard_number": "\Q$bad\E"\s.*It is a number from 0 to 127, or several with commas/s, $offset),
		"shard_number = '$bad' is refused");
}
$sharded->append_conf('postgresql.conf', "neon_page_service.shard_number = 1");
$sharded->reload;
ok(until_true(sub { connect_to($sharded)->status->{shard} eq '1/2' }), 'one again');

# ---- more clients than allowed

my @served;
my @crowd = map { push @served, $client->ask('nblocks', rel => relation('big')->{rel})->{tag}; connect_to($sharded) } 1 .. 40;
ok(!(grep { NeonComm::Pagestream::error_of(@{ $_->{greeting} }) } @crowd), 'who comes last gets in');
# Of 41 all but 12 leave. Which worker each of them is in is the kernel's choice: where there are few, nobody leaves.
my @leave;
ok(until_true(sub { (@leave = grep { $_->readable(0) } @crowd) >= 20 }), 'many of them leave');
is(scalar(grep { $_ == $crowd[-1] } @leave), 0, 'and not who came last');
my $left = NeonComm::Pagestream::error_of($leave[0]->read_until('E'));
is("$left->{S} $left->{C}", 'FATAL 53300', 'an idle client makes room');
like($left->{M}, qr/made room for a newer client: neon_page_service\.max_connections/, 'and is told why');
my $late = stream_to($sharded);
is($late->ask('nblocks', rel => relation('big')->{rel})->{tag}, 101, 'a compute that comes then is served');
is($client->ask('nblocks', rel => relation('big')->{rel})->{tag}, 101, 'who asks goes on being served');
is((grep { $_ == 101 } @served), 40, 'and was all the time');

# ---- port in use: the server stays up and takes the port when it is free

my $occupied = new_standby(
	'occupied',
	'neon_page_service.port' => $sharded->{page_port},
	restart_after_crash => 'on');
$occupied->start;
$occupied->wait_for_log(qr/page service: could not listen on address "127.0.0.1"/);
pass('a port in use is logged');
$sharded->stop('fast');
wait_for_port($occupied);
# it listens from the start of recovery on
ok(until_true(sub { connect_to($occupied)->status->{consistent} eq 'on' }), 'the port is taken over once it is free');

# ---- life of the workers

# The parent and the pids of the workers, from the server's own process titles.
sub worker_pids
{
	my ($node) = @_;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my @found = map { /^\s*(\d+)\s+$postmaster\s.*neon page service/ ? $1 : () } split /\n/, `ps -eo pid,ppid,args`;
	return @found;
}

# Two workers, none of them among the old ones.
sub wait_for_new_workers
{
	my ($node, @old) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my @now = worker_pids($node);
		return if @now == 2 && !grep { my $pid = $_; grep { $_ == $pid } @old } @now;
		select undef, undef, undef, 0.1;
	}
	die 'no new workers of ' . $node->name;
}

my $log_start = -s $occupied->logfile;
my $ended = connect_to($occupied);
my @old_workers = worker_pids($occupied);
is(scalar @old_workers, 2, 'two workers');
kill 'TERM', @old_workers;
$error = NeonComm::Pagestream::error_of($ended->read_until('E'));
is($error->{C}, '57P01', 'a client is told that its worker ends');
wait_for_new_workers($occupied, @old_workers);
pass('a terminated worker comes back');

@old_workers = worker_pids($occupied);
kill 'KILL', $old_workers[0];
$occupied->wait_for_log(qr/reinitializing/, $log_start);
# Recovery starts over; the postmaster starts workers only because redo asks it to.
$primary->safe_psql('postgres', q{INSERT INTO small VALUES (2)});
wait_for_new_workers($occupied, @old_workers);
wait_for_port($occupied);
$client = stream_to($occupied);
compare_table($client, 'small', 'after the crash of a worker');
$client->close;

$occupied->append_conf('postgresql.conf', q{neon_page_service.idle_timeout = '1s'});
$occupied->reload;
$ended = connect_to($occupied);
$error = NeonComm::Pagestream::error_of($ended->read_until('E'));
is($error->{C}, '08006', 'an idle client is disconnected');
$occupied->append_conf('postgresql.conf', q{neon_page_service.idle_timeout = '10min'});
$occupied->reload;
$occupied->restart;
wait_for_port($occupied);

# ---- a client that does not read does not delay shutdown

my $lazy_reader = stream_to($occupied);
my $body = $lazy_reader->request_body('getpage', rel => relation('big')->{rel}, block => 0);
my $flood = join '', map { pack('aN', 'd', 4 + length $body) . $body } 1 .. 1000;
$lazy_reader->{socket}->blocking(0);
# Until neither side takes more: both directions are full then.
while (IO::Select->new($lazy_reader->{socket})->can_write(1))
{
	local $SIG{PIPE} = 'IGNORE';
	syswrite $lazy_reader->{socket}, $flood;
}
my $other = connect_to($occupied);
my $connections = 0;
# whoever waited for the port has left, which the service may not have heard yet
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if ($connections = $other->status->{connections}) == 2;
	select undef, undef, undef, 0.1;
}
is($connections, 2, 'another client is served meanwhile');
$occupied->stop('fast');
ok($occupied->log_contains(qr/page service: \d+ pages served by worker/), 'shutdown with a client that does not read');

# ---- lazy replay

my $lazy = new_standby('lazy', 'neon_page_service.lazy_replay' => 'on');
$lazy->start;
wait_for_port($lazy);
$client = stream_to($lazy);
my $control = connect_to($lazy);
$primary->safe_psql('postgres', 'CREATE TABLE steps AS SELECT 1 AS a');
my $lsn1 = flush_lsn();
my $steps = relation('steps');
is($client->ask('nblocks', rel => $steps->{rel}, nms => $lsn1)->{nblocks}, 1, 'lazy: demanded WAL is replayed');

$primary->safe_psql('postgres', q{INSERT INTO steps SELECT generate_series(1, 10000)});
my $lsn2 = flush_lsn();
# All of the WAL is there; nothing but the missing demand holds it back.
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if lsn_number($control->status->{received_lsn}) >= $lsn2;
	select undef, undef, undef, 0.1;
}
cmp_ok(lsn_number($control->status->{received_lsn}), '>=', $lsn2, 'lazy: WAL has arrived');
cmp_ok(lsn_number($control->status->{replay_lsn}), '<', $lsn2, 'lazy: nothing beyond the demand is replayed');
is($client->ask('nblocks', rel => $steps->{rel}, nms => $lsn1)->{nblocks}, 1, 'lazy: a request that demands less sees the old state');
compare_table($client, 'steps', 'lazy: demanded');

$primary->safe_psql('postgres', q{INSERT INTO steps SELECT generate_series(1, 10000)});
$lsn2 = flush_lsn();
$lazy->append_conf('postgresql.conf', 'neon_page_service.lazy_replay = off');
$lazy->reload;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if lsn_number($control->status->{replay_lsn}) >= $lsn2;
	select undef, undef, undef, 0.1;
}
cmp_ok(lsn_number($control->status->{replay_lsn}), '>=', $lsn2, 'lazy replay can be switched off');
$lazy->append_conf('postgresql.conf', 'neon_page_service.lazy_replay = on');
$lazy->reload;
flush_lsn();
$lazy->stop('fast');
pass('shutdown while lazy replay holds back');

# ---- configurations that are refused, and a primary

sub fails_to_start
{
	my ($name, $expected, %conf) = @_;
	my $node = new_standby("refused_$name", %conf);
	ok(!$node->start(fail_ok => 1), "$name: does not start");
	like(slurp_file($node->logfile), $expected, "$name: says why");
	return;
}

fails_to_start('open', qr/would serve every page to everybody who reaches "0\.0\.0\.0"/,
	'neon_page_service.listen_addresses' => '0.0.0.0');
fails_to_start('tenant', qr/invalid value for parameter "neon_page_service.tenant_id"/,
	'neon_page_service.tenant_id' => 'abc');

fails_to_start('port', qr/70000 is outside the valid range for parameter "neon_page_service.port"/,
	'neon_page_service.port' => 70000);

my ($rc, $stdout, $stderr) = $primary->psql('postgres', q{LOAD 'neon_page_service'});
like($stderr, qr/neon_page_service must be preloaded/, 'LOAD is refused');
is($primary->safe_psql('postgres', 'SELECT 1'), 1, 'the server lives');

my $promoted = new_standby('promoted', hot_standby => 'on');
$promoted->start;
wait_for_port($promoted);
$promoted->promote;
$error = NeonComm::Pagestream::error_of(connect_to($promoted)->query("pagestream_v3 $tenant $timeline"));
like($error->{M}, qr/not a standby/, 'a promoted standby serves no pages');
$promoted->stop;

$primary->append_conf('postgresql.conf', 'shared_preload_libraries = neon_page_service');
$primary->stop;
ok(!$primary->start(fail_ok => 1), 'a primary does not start as a page server');
like(slurp_file($primary->logfile), qr/FATAL:.*is not set up as a standby/, 'and says why');

done_testing();
