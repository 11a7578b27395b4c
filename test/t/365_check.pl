# neon_comm.check(): what is broken is named, by its item, and what cannot be asked is a row
# and no error (docs/reference.md, "What check() looks at").
#
# A page server of our own making says what no page server of this cluster can: it is the second
# host of shard 0, whom nobody asks for pages while the first one is well.
use strict;
use warnings;

use File::Temp qw(tempdir);
use IO::Socket::INET;
use NeonComm::Cluster;
use Test::More;

my $files = tempdir(CLEANUP => 1);
chmod 0755, $files;

# ---- the page server of our own making

my %says = (in_recovery => 'on', consistent => 'on', replay_lsn => '0/1', received_lsn => '0/1', streaming => 'on',
	replay_paused => 'off', lazy => 'off', shard => '0/0', stripe_size => 0, tenant_id => '', timeline_id => '',
	identity => 'joined', identity_reason => '', birth => '-', incarnation => '-', system_identifier => '',
	data_checksums => 'off', server_version => '', unsafe => '', disk_bytes => 1 << 40, disk_free_bytes => 1 << 39);

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body }
sub field   { return pack('N', length $_[0]) . $_[0] }

my $listener = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1') or die "cannot listen: $@";
my $told = "$files/says";

sub answer_query
{
	my ($client, $query) = @_;
	my $ready = message('Z', 'I');
	if ($query =~ /^pagestream/)
	{
		# whoever wants pages gets an error, or what he has not asked for
		return print {$client} message('E', "SERROR\0CXX000\0Mno pages here\0\0") . $ready if !-e "$files/lies";
		return print {$client} message('W', pack('Cn', 0, 0)) . message('d', 'x' x 100);
	}
	open my $fh, '<', $told or die $!;
	my @rows = map { chomp; message('D', pack('n', 2) . join '', map { field($_) } split /=/, $_, 2) } <$fh>;
	my $columns = message('T', pack('n', 2) . join '', map { "$_\0" . pack('NnNnNn', 0, 0, 25, -1 & 0xffff, 0xffffffff, 0) } 'name', 'value');
	return print {$client} $columns . join('', @rows) . message('C', "SHOW\0") . $ready;
}

sub read_bytes
{
	my ($client, $n) = @_;
	my $got = '';
	while (length $got < $n) { sysread $client, $got, $n - length $got, length $got or exit 0 }
	return $got;
}

sub serve
{
	my ($client) = @_;
	$client->autoflush(1);
	while (1)
	{
		my ($length, $code) = unpack 'NN', read_bytes($client, 8);
		read_bytes($client, $length - 8);
		last if $code == 196608;
		print {$client} 'N';
	}
	print {$client} message('R', pack('N', 0)) . message('Z', 'I');
	while (1)
	{
		my ($type, $length) = unpack 'aN', read_bytes($client, 5);
		my $body = read_bytes($client, $length - 4);
		answer_query($client, $body) if $type eq 'Q';
	}
}

my $server = fork // die $!;
if (!$server)
{
	local $SIG{CHLD} = 'IGNORE';
	while (1)
	{
		my $client = $listener->accept or next;
		my $pid = fork // die $!;
		if (!$pid) { serve($client); exit 0 }
	}
}
END { local $?; kill 'KILL', $server if $server }

sub say_of_itself
{
	my (%other) = @_;
	my %all = (%says, %other);
	open my $fh, '>', "$told.new" or die $!;
	print $fh map { defined $all{$_} ? "$_=$all{$_}\n" : () } sort keys %all;
	close $fh or die $!;
	rename "$told.new", $told or die $!;
	return;
}

# ---- the cluster

open my $foreign, '>', "$files/foreign" or die $!;
print $foreign "somebody else's\n" x 1000;
close $foreign;
chmod 0666, "$files/foreign";

my $c = NeonComm::Cluster->new(shards => 2, no_start => 1, buffers => '16MB', init => [ '--durable', '--write-quorum', 2 ],
	conf => [ 'neon_comm.wal_feed_warn=1MB', 'neon_comm.wait_log_period=1s', 'max_wal_senders=10',
		'neon_comm.lfc_size=16MB', "neon_comm.lfc_path=$files/foreign" ]);
my $real = $c->page_server_port(0);
my $other = $c->page_server_port(1);
my $fake = $listener->sockport;
my $list = "host=127.0.0.1,127.0.0.1 port=$real,$fake,host=127.0.0.1 port=$other";
$c->append_conf('compute', "neon_comm.page_servers = '$list'");
$c->start;
my $version = $c->sql('SHOW server_version');
$says{server_version} = $version;
$says{system_identifier} = $c->sql('SELECT system_identifier FROM pg_control_system()');
# of this start of this compute
($says{birth}, $says{incarnation}) = split /\|/, $c->sql('SELECT birth, incarnation FROM neon_comm.identity');
say_of_itself();

$c->sql('CREATE TABLE t AS SELECT g, repeat(\'x\', 500) AS filler FROM generate_series(1, 40000) g; CREATE ROLE watcher LOGIN IN ROLE pg_monitor');
my $s = $c->session;
sub rows { my ($where, $args) = @_; return $s->query("SELECT item, subject, state, what FROM neon_comm.check(" . ($args // '') . ") WHERE $where") }

# The item of a subject is in this state, and says so.
sub is_told
{
	my ($item, $subject, $state, $what, $name, $args) = @_;
	my $sql = sprintf q{SELECT count(*) > 0 FROM neon_comm.check(%s) WHERE item = '%s' AND subject ~ '%s' AND state ~ '^(%s)$' AND what ~ '%s' AND (remedy IS NULL) = (state IN ('ok', 'unknown'))},
	  $args // '', $item, $subject, $state, $what;
	ok($s->wait_for($sql), $name // "$item of $subject: $state, $what") or diag(rows("item = '$item'"));
	return;
}

# ---- all is well, but for the file cache
ok($s->wait_for(q{SELECT count(*) = 1 FROM neon_comm.check() WHERE state <> 'ok'}), 'one thing is not well') or diag(rows(q{state <> 'ok'}));
is_told('file cache', 'foreign', 'warning', 'it is off');
is($s->query('SELECT count(DISTINCT item) FROM neon_comm.check()'), 19, 'items of a cluster without tokens and TLS');
is(scalar(() = $c->sql('SELECT * FROM neon_comm.check()') =~ /^page server\|/mg), 3, 'each host is asked once');
my $monitor = $c->sql('SET ROLE watcher; SELECT count(*) FROM neon_comm.check()');
cmp_ok($monitor, '>', 30, 'members of pg_monitor may look');
$c->sql('CREATE ROLE nobody_at_all');
like(($c->try_sql('SET ROLE nobody_at_all; SELECT * FROM neon_comm.check()'))[2], qr/permission denied/, 'others may not');
like(($c->try_sql('SELECT * FROM neon_comm.check(seconds => 0)'))[2], qr/seconds is 0, it must be between/, 'bounds of arguments');

# ---- what a page server says of itself
my @lies = (
	[ 'version', 'error', '9\.1 there, here ', server_version => '9.1' ],
	[ 'version', 'warning', 'there, here ', server_version => $version =~ s/^(\d+)\.\d+.*/$1.0/r ],
	[ 'checksums', 'error', 'are on there, and not here', data_checksums => 'on' ],
	[ 'identity', 'error', 'another cluster: its system identifier is 7', system_identifier => 7 ],
	[ 'identity', 'error', 'follows another compute', birth => 'ab' x 16 ],
	[ 'identity', 'error', 'refused: because', identity => 'refused', identity_reason => 'because' ],
	[ 'identity', 'error', 'promoted', identity => 'promoted' ],
	[ 'identity', 'warning', 'has not joined', identity => 'new' ],
	[ 'identity', 'warning', 'another start of this compute', incarnation => 'cd' x 16 ],
	[ 'replay', 'error', 'not a standby any more', in_recovery => 'off' ],
	[ 'replay', 'error', 'not consistent yet', consistent => 'off' ],
	[ 'replay', 'error', 'replay is paused', replay_paused => 'on' ],
	[ 'replay', 'error', 'walreceiver gets no WAL', streaming => 'off' ],
	[ 'replay', 'warning', 'only what is asked for', lazy => 'on' ],
	[ 'tenant', 'error', 'serves timeline ', timeline_id => 'ef' x 16 ],
	[ 'settings', 'warning', 'allow_unsafe', unsafe => 'allow_unsafe' ],
	[ 'disk', 'warning', '9 %', disk_bytes => 1000, disk_free_bytes => 95 ],
	[ 'disk', 'error', '1 %', disk_bytes => 1000, disk_free_bytes => 15 ],
	[ 'map', 'error', 'it serves shard 1 and is asked for the blocks of shard 0', shard => '1/2', stripe_size => 8 ],
	[ 'map', 'unknown', 'does not tell its shard', shard => undef ],
	[ 'identity', 'unknown', 'does not tell its identity', identity => undef ],
	[ 'version', 'unknown', 'does not tell its server_version', server_version => undef ]);
foreach my $lie (@lies)
{
	my ($item, $state, $what, %other) = @$lie;
	say_of_itself(%other);
	my $found = rows("subject = '127.0.0.1:$fake' AND item = '$item'");
	like($found, qr/^\Q$item\E\|[^|]*\|$state\|.*$what/, "$item: $what");
	is($s->query("SELECT count(*) FROM neon_comm.check() WHERE state <> 'ok' AND item <> 'file cache'"), 1, 'and nothing else');
}
say_of_itself();

# ---- settings of page servers
my %was = ('neon_page_service.stripe_size' => 8, 'neon_page_service.shard_count' => 2, 'neon_page_service.tenant_id' => $c->sql('SHOW neon_comm.tenant_id'),
	'neon_page_service.lazy_replay' => 'off');
foreach my $broken (
	[ 'map', 'error', 'its stripe is 16 blocks, that of this compute 8', 'neon_page_service.stripe_size' => 16 ],
	[ 'map', 'error', 'it knows 3 shards, this compute 2', 'neon_page_service.shard_count' => 3 ],
	[ 'map', 'ok', 'blocks of all shards', 'neon_page_service.shard_count' => 0 ],
	[ 'tenant', 'error', 'it serves tenant ', 'neon_page_service.tenant_id' => 'ab' x 16 ],
	[ 'replay', 'warning', 'only what is asked for', 'neon_page_service.lazy_replay' => 'on' ])
{
	my ($item, $state, $what, $setting, $value) = @$broken;
	$c->configure({ $setting => $value }, part => 'page_server_1');
	is_told($item, ":$other\$", $state, $what);
	$c->configure({ $setting => $was{$setting} }, part => 'page_server_1');
}
is_told('replay', ":$other\$", 'ok', '^replayed up to', 'all is set back');

# ---- of the compute
$c->configure({ 'neon_comm.stripe_size' => 0 });
is_told('map', 'compute', 'error', 'stripe_size was refused at the last reload');
$c->configure({ 'neon_comm.stripe_size' => 8 });
is_told('map', 'compute', 'ok', 'in force');
$s->query('SET neon_comm.allow_unsafe_backup = on');
is_told('settings', 'neon_comm.allow_unsafe_backup', 'warning', '^on: ');
$s->query('RESET neon_comm.allow_unsafe_backup');
is_told('disk', '^(\.|pg_wal)$', 'warning|error', '%', 'disk: too little room', '3, 30, 100');

sub base64url { my ($bytes) = @_; my $text = pack 'u', $bytes; $text =~ s/^.//mg; $text =~ s/\n//g; $text =~ tr{` -_}{AA-Za-z0-9\-_}; return substr $text, 0, int((length($bytes) * 8 + 5) / 6) }
sub token_until
{
	my ($exp) = @_;
	open my $fh, '>', "$files/token" or die $!;
	print $fh join('.', base64url('{"alg":"EdDSA","typ":"JWT"}'), base64url(qq({"scope":"tenant","tenant_id":"$was{'neon_page_service.tenant_id'}","exp":$exp})), base64url('s' x 64)), "\n";
	close $fh or die $!;
	chmod 0600, "$files/token";
	return;
}
token_until(time - 5 * 86400);
$c->configure({ 'neon_comm.token_file' => "$files/token" });
is_told('token', 'token', 'error', 'it ended [45] days ago');
token_until(time + 5 * 86400);
is_told('token', 'token', 'warning', 'good for [45] days more');
token_until(time + 50 * 86400);
is_told('token', 'token', 'ok', 'good for (49|50) days more');
unlink "$files/token";
is_told('token', 'token', 'error', 'cannot read it: No such file');
is_told('page server', ":$real\$", 'error', 'cannot use the token file');
$c->configure({ 'neon_comm.token_file' => '' });
is_told('page server', ":$real\$", 'ok', 'it answers');

# ---- slots
$c->sql(q{SELECT pg_create_physical_replication_slot('stray', true); UPDATE t SET g = g WHERE g < 4000});
is_told('slots', 'stray', 'warning', 'not of a page server; [1-9]');
$c->sql(q{SELECT pg_drop_replication_slot('stray')});

# ---- a page server is down
my $reader = $c->session;
$reader->query('SELECT count(*) FROM t');
$c->stop('page-server', 1);
is_told('page server', ":$other\$", 'error', 'of shard 1: .*Connection refused');
is_told('version', ":$other\$", 'unknown', 'did not answer');
is_told('wal feed', 'page_server_1', 'error', '^absent');
is_told('commits', 'compute', 'error', '1 of 2 page servers .* commits wait for 2');
is_told('members', 'compute_members', 'error', '1 of 2 members answer, the write quorum is 2');
$reader->send('SELECT count(*) FROM t');
is_told('waits', 'compute', 'error', 'has been waiting for a page for ');
$c->start('page-server', 1);
is_told('waits', 'compute', 'ok', 'requests are under way');
is_told('members', 'compute_members', 'ok', '2 of 2 members');

# ---- one that is frozen is waited for as long as is said, and no longer
my @frozen = ($c->postmaster_pid('page_server_1'), $c->pids_of('page_server_1', qr/./));
kill 'STOP', @frozen;
like(rows(qq{subject = '127.0.0.1:$other' AND item = 'page server'}, 1), qr/\|error\|of shard 1: no answer in 1 s$/, 'a frozen page server');
kill 'CONT', @frozen;
is_told('page server', ":$other\$", 'ok', 'it answers');

# ---- answers that are no answers
open my $lies, '>', "$files/lies" or die $!;
close $lies;
is_told('counters', 'connections_poisoned', 'warning', 'did not match');

# ---- the communicator stands still
my ($communicator) = $c->pids_of('compute', qr/communicator/);
kill 'STOP', $communicator;
is_told('communicator', 'compute', 'error', "process $communicator, its last turn was");
kill 'CONT', $communicator;
is_told('communicator', 'compute', 'ok', "process $communicator");

$c->allow_log(qr/./);
$c->stop;
done_testing();
