# What page servers report is what commits wait for: written under remote_write, on disk under on,
# replayed under remote_apply; and who reports what cannot be, or is no page server, does not count
# (docs/wal_feed.md, "Commits that wait").
#
# A program between the page server and the feed changes the positions in its reports.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Select;
use IO::Socket::INET;
use NeonComm::Node qw(free_port);
use NeonComm::Cluster;
use Test::More;
use Time::HiRes qw(usleep);

plan skip_all => 'reads what TLS would hide' if ($ENV{NEON_TEST_INIT} // '') =~ /--tls|--auth/;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '128MB',
	conf => ['synchronous_standby_names=page_server_0'], ps_conf => ['wal_receiver_status_interval=1s']);
my ($feed_port) = do { open my $fh, '<', "$c->{dir}/neon_dev.conf" or die $!; map { /^wal_feed_port=(\d+)/ ? $1 : () } <$fh> };
my $rules = "$c->{dir}/rules";
my $port = free_port();
my @children;
END { local $?; kill 'KILL', @children }

# ---- the program between

# What each of write, flush, apply becomes: "." as it is, "<N" N at most, "=N" is N.
sub rewrite
{
	my ($body) = @_;
	my ($tag, @lsns) = unpack 'aQ>Q>Q>', $body;
	open my $fh, '<', $rules or return $body;
	my @rules = split ' ', <$fh> // '';
	foreach my $i (0 .. 2)
	{
		my ($how, $n) = ($rules[$i] // '.') =~ /^(.)(\d*)$/ or next;
		$lsns[$i] = $n if $how eq '=' || ($how eq '<' && $lsns[$i] > $n);
	}
	return pack('aQ>Q>Q>', $tag, @lsns) . substr $body, 25;
}

# Whole messages at the beginning of what came from the page server, changed; they are taken off.
sub passed_on
{
	my ($from) = @_;
	my $out = '';
	while (length $from->{data} >= 5)
	{
		my $head = $from->{startup} ? 0 : 1;
		my $bytes = $head + unpack 'N', substr $from->{data}, $head, 4;
		last if length $from->{data} < $bytes;
		my $message = substr $from->{data}, 0, $bytes, '';
		# asked for encryption: a startup packet follows still
		$from->{startup} = 0 if $from->{startup} && unpack('N', substr $message, 4, 4) < 80877103;
		$message = substr($message, 0, 5) . rewrite(substr $message, 5) if $head && $message =~ /^d....r/s;
		$out .= $message;
	}
	return $out;
}

sub between
{
	my ($page_server) = @_;
	my $feed = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $feed_port) or return;
	my $from = { startup => 1, data => '' };
	my $both = IO::Select->new($page_server, $feed);
	while (1)
	{
		foreach my $socket ($both->can_read)
		{
			sysread $socket, my $data, 65536 or return;
			if ($socket == $page_server) { $from->{data} .= $data; $data = passed_on($from) }
			my $to = $socket == $feed ? $page_server : $feed;
			print $to $data;
			$to->flush;
		}
	}
}

sub child
{
	my ($do) = @_;
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		$SIG{PIPE} = 'IGNORE';
		$do->();
		require POSIX;
		POSIX::_exit(0);
	}
	push @children, $pid;
	return $pid;
}

child(sub {
	my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1) or die $!;
	while (my $socket = $listen->accept) { between($socket); close $socket }
});

sub report
{
	my ($text) = @_;
	open my $fh, '>', "$rules.new" or die $!;
	print $fh "$text\n";
	close $fh;
	rename "$rules.new", $rules or die $!;
	return;
}

# ---- the levels

my $watch = $c->session;
my $s = $c->session;
my $waiting = q{SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = } . $s->pid;
my $counts = q{SELECT sync_state = 'sync' FROM neon_comm.page_servers};
my $n = 0;
sub insert { my ($level) = @_; $n++; $s->send("SET synchronous_commit = $level; INSERT INTO t VALUES ($n)"); return }
sub ends { my ($what) = @_; $s->wait; return is($s->{last_error}, '', $what) }
sub lsn { return $watch->query(q{SELECT pg_current_wal_insert_lsn() - '0/0'}) }

$c->sql('CREATE TABLE t (id int)');
report('. . .');
$c->append_conf('page_server_0', "primary_conninfo = 'host=127.0.0.1 port=$port application_name=page_server_0'");
$c->restart('page-server', 0);
ok($watch->wait_for($counts), 'a page server behind a program that changes its reports counts');
foreach my $level (qw(remote_write on remote_apply))
{
	insert($level);
	ends("$level: committed");
}
# what is asked while there is no page server has to be in shared buffers
my $has_all = q{flush_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers};
my $segment = q{SELECT pg_walfile_name(pg_current_wal_lsn())};
$watch->query($_) foreach ($waiting, $counts, $segment, "SELECT state = 'streaming' AND $has_all", "SELECT $has_all",
	'SELECT sync_priority, sync_state FROM neon_comm.page_servers', 'SELECT count(*) FROM t');

my $now = lsn();
report(". <$now <$now");
insert('remote_write');
ends('remote_write: received is enough');
insert('on');
ok($watch->wait_for($waiting), 'on waits until it is on disk');
report(". . <$now");
ends('  and not for replay');
insert('remote_apply');
ok($watch->wait_for($waiting), 'remote_apply waits for replay');
report('. . .');
ends('  and for no more');

# ---- reports that are none
report('. =0 .');
ok($watch->wait_for(q{SELECT sync_state = 'potential' FROM neon_comm.page_servers}), 'without anything on disk it does not count');
insert('remote_write');
ok($watch->wait_for($waiting), 'not for what it has received either');
report('. . .');
ends('it has: the commit ends');
my $from = length $c->log_text('compute');
report('=' . (lsn() + 2**30) . ' . .');
insert('remote_write');
ok($c->wait_log('compute', qr/disconnects page_server_0 .*: page server "page_server_0" has WAL up to/, $from),
	'who says that he has received what is not there is sent away');
report('. . .');
ends('he comes back, and the commit ends');

# ---- who is no page server
$c->stop('page-server', 0);
$c->configure({ 'neon_comm.wal_feed_allow_unjoined' => 'on' });
my ($high, $low) = map { hex } $watch->query($segment) =~ /^.{8}(.{8})(.{8})$/;
my $start = sprintf '%X/%X', $high, $low * 16 * 1024 * 1024;

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body }

# Confirms everything that it is sent. Who is refused (the slot's last stream has not ended, a setting is not yet read)
# comes again, as archives do.
sub archive
{
	local $SIG{PIPE} = 'IGNORE';
	while (1) { stream_to_archive(); select undef, undef, undef, 0.1 }
	return;
}

sub stream_to_archive
{
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $feed_port) or return;
	my $body = pack('N', 3 << 16) . "user\0u\0replication\0true\0\0";
	my $in = '';
	print $socket pack('N', 4 + length $body) . $body, message('Q', "START_REPLICATION SLOT \"page_server_0\" $start TIMELINE 1\0");
	$socket->flush;
	while (sysread $socket, $in, 65536, length $in)
	{
		while (length $in >= 5 && length $in >= 1 + unpack 'N', substr $in, 1, 4)
		{
			my $message = substr $in, 0, 1 + unpack('N', substr $in, 1, 4), '';
			my ($type, $what, $at) = unpack 'ax4aQ>', $message . "\0" x 10;
			my $have = $type eq 'W' ? 0 : $type ne 'd' ? next : $what eq 'w' ? $at + length($message) - 30 : $at;
			print $socket message('d', 'r' . pack('Q>Q>Q>Q>C', ($have) x 3, 0, 0));
			$socket->flush;
		}
	}
	return;
}

my $archive = child(\&archive);
ok($watch->wait_for("SELECT state = 'streaming' AND $has_all"), 'an archive streams in its place');
is($watch->query('SELECT sync_priority, sync_state FROM neon_comm.page_servers'), '1|async', 'and does not count');
insert('on');
ok($watch->wait_for($waiting), 'a commit waits');
ok($watch->wait_for("SELECT $has_all"), '  although the archive has it');
ok(!$s->ready, '  and goes on waiting');
kill 'KILL', $archive;
$c->start('page-server', 0);
ends('the page server comes back: it ends');
is($c->sql('SELECT count(*) FROM t'), $n, 'all are there');

$c->check_logs;
done_testing();
