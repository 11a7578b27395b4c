# The boot image that was recorded from a page server of Neon is laid, and servers start on it: one without
# neon_comm, which has a clean stop to begin with and replays nothing, and one with it, which then asks for its
# first relation. A page server that plays the recording answers (test/wire).
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use IPC::Run ();
use POSIX ();
use Test::More;
use Time::HiRes qw(usleep);

my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;
my $version = `"$bindir/postgres" --version`;
plan skip_all => 'the recording is of PostgreSQL 15' if $version !~ / 15\./;

my ($T, $L) = qw(6859ba5e23f1241ce5eb54f2d47ff929 dbc9886da0c99e9a31587570683deba7);
my $wire = abs_path(dirname(__FILE__) . '/../wire');
my $dir = tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $zipped = do { local (@ARGV, $/) = "$wire/neon_basebackup.tar.gz"; <> };
my $tar = `gzip -dc "$wire/neon_basebackup.tar.gz"`;

# ---- the page server

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body }
sub error { my ($code, $text) = @_; return message('E', "SERROR\0C$code\0M$text\0\0") }
my $ready = message('Z', 'I');

sub take
{
	my ($s, $n) = @_;
	my $got = '';
	while (length $got < $n)
	{
		sysread $s, $got, $n - length $got, length $got or POSIX::_exit(0);
	}
	return $got;
}

# An image as Neon sends it, in messages of at most 8192 bytes; cut: it breaks off there.
sub send_image
{
	my ($s, $image, $cut) = @_;
	print $s message('H', pack('Cn', 0, 0));
	$image = substr $image, 0, $cut if defined $cut;
	for (my $at = 0; $at < length $image; $at += 8192) { print $s message('d', substr $image, $at, 8192) }
	print $s defined $cut ? error('XX000', 'no more of it') : message('c', '') . message('C', "SELECT 1\0");
	print $s $ready;
	return;
}

# The recording's content by name, and the same without what tells states of transactions.
my %content;
my $without = '';
for (my $at = 0; $at < length($tar) - 1024;)
{
	my ($name, $bytes) = (unpack('Z100', substr $tar, $at), oct unpack 'x124 Z12', substr $tar, $at);
	my $all = 512 + 512 * int(($bytes + 511) / 512);
	last if $name eq '';
	$content{$name} = substr $tar, $at + 512, $bytes;
	$without .= substr $tar, $at, $all unless $name =~ m{^(?:pg_xact|pg_multixact/\w+)/\d};
	$at += $all;
}
$without .= "\0" x 1024;

# ---- the same image at another LSN: the control file, and the one segment with two page headers

sub crc32c
{
	my ($crc, $bytes) = (0xffffffff, @_);
	foreach my $byte (unpack 'C*', $bytes)
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

# Where the control file has its sum: behind that what is summed up.
my ($control, $crc_at) = ($content{'global/pg_control'});
foreach my $at (map { 4 * $_ } 50 .. 120) { $crc_at = $at if unpack('V', substr $control, $at) == crc32c(substr $control, 0, $at) }

sub entry
{
	my ($name, $bytes) = @_;
	my $header = pack 'Z100 Z8 Z8 Z8 Z12 Z12 A8 a Z100 a6 a2 x247', $name, '0000600', '0000000', '0000000', sprintf('%011o', length $bytes),
	  '00000000000', '', "\0", '', 'ustar ', " \0";
	substr($header, 148, 8) = sprintf "%06o\0 ", unpack '%32C*', $header;
	return $header . $bytes . "\0" x (-length($bytes) % 512);
}

sub page_header
{
	my ($page, $left) = @_;
	my $long = $page % 2**24 == 0;
	my $header = pack 'v v V Q< V x4', 0xd110, ($left ? 1 : 0) | ($long ? 2 : 0), 1, $page, $left;
	return $header . ($long ? pack('Q< V V', 7713352565287487659, 2**24, 8192) : '');
}

sub image_at
{
	my ($lsn) = @_;
	my $image = '';
	my $changed = $control;
	substr($changed, 40, 8) = pack 'Q<', $lsn;
	substr($changed, $crc_at, 4) = pack 'V', crc32c(substr $changed, 0, $crc_at);
	for (my $at = 0; $at < length($tar) - 1024;)
	{
		my ($name, $bytes) = (unpack('Z100', substr $tar, $at), oct unpack 'x124 Z12', substr $tar, $at);
		my $all = 512 + 512 * int(($bytes + 511) / 512);
		last if $name eq '';
		$image .= substr $tar, $at, $all unless $name =~ m{^pg_wal/\d|^global/pg_control$|\.signal$};
		$at += $all;
	}
	my $segment = "\0" x 2**24;
	my ($start, $page) = ($lsn - $lsn % 2**24, $lsn - $lsn % 8192);
	substr($segment, 0, 40) = page_header($start, 0);
	my $header = page_header($page, $lsn - $page - ($page == $start ? 40 : 24));
	substr($segment, $page - $start, length $header) = $header;
	return $image . entry('neon.signal', 'PREV LSN: 0/59000028') . entry('global/pg_control', $changed) .
	  entry(sprintf('pg_wal/0000000100000000%08X', $lsn >> 24), $segment) . "\0" x 1024;
}

# ---- requests

# Requests of protocol 3: what was asked goes to the log, and the answer is a segment of the recording, or Error.
sub serve_pages
{
	my ($s, $log) = @_;
	print $s message('W', pack('Cn', 0, 0));
	while (1)
	{
		my ($type, $bytes) = unpack 'aN', take($s, 5);
		my $body = take($s, $bytes - 4);
		POSIX::_exit(0) if $type ne 'd';
		my $segment = '';
		if (unpack('C', $body) == 4)
		{
			my ($kind, $segno) = unpack 'x25 C N', $body;
			my $file = (qw(pg_xact pg_multixact/members pg_multixact/offsets))[$kind] . sprintf '/%04X', $segno;
			print $log "asked for $file at ", join(' ', map { sprintf '%X', $_ } unpack('x9 Q> Q>', $body)), "\n";
			$segment = $content{$file} // '';
			next if print $s message('d', pack('C', 105) . substr($body, 1) . pack('N', length($segment) / 8192) . $segment);
		}
		print $log join(' ', 'asked', unpack('C', $body), unpack('x25 N3 C', $body)), "\n";
		print $s message('d', pack('C', 103) . substr($body, 1, 24) . "Read error\0");
	}
	return;
}

sub serve
{
	my ($s, %how) = @_;
	$s->autoflush(1);
	open my $log, '>>', "$dir/mock.log" or die $!;
	$log->autoflush(1);
	while (1)
	{
		my ($bytes, $code) = unpack 'NN', take($s, 8);
		take($s, $bytes - 8);
		last if $code == 196608;
		print $s 'N';
	}
	print $s message('R', pack('N', 0)), message('S', "client_encoding\0UTF8\0"), message('S', "integer_datetimes\0on\0"),
	  message('S', "server_version\0" . "14.1\0"), $ready;
	while (1)
	{
		my ($type, $n) = unpack 'aN', take($s, 5);
		my $query = take($s, $n - 4) =~ s/\0.*//sr;
		POSIX::_exit(0) if $type ne 'Q';
		print $log "query $query\n";
		if ($query =~ /^basebackup $T $L latest( --gzip)?$/) { send_image($s, $1 ? $zipped : $how{image} // $tar, $how{cut}) }
		elsif ($query =~ /^pagestream_v3 $T $L$/) { serve_pages($s, $log) }
		else { print $s error('XX000', 'not found'), $ready }
	}
	return;
}

# (port, pid)
sub page_server
{
	my (%how) = @_;
	my $listener = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
	my $pid = fork // die $!;
	return ($listener->sockport, $pid) if $pid;
	$SIG{CHLD} = 'IGNORE';
	while (1)
	{
		my $s = $listener->accept or next;
		my $child = fork // POSIX::_exit(1);
		next if $child;
		serve($s, %how);
		POSIX::_exit(0);
	}
}

my ($port, $mock) = page_server();
my ($cut_port, $cut_mock) = page_server(cut => 100_000);
my ($less_port, $less_mock) = page_server(image => $without);
my $parent = $$;
END { kill 'KILL', grep { defined } $mock, $cut_mock, $less_mock if $$ == ($parent // 0) }

# ---- helpers

sub boot
{
	my ($to, $at, @more) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ "$bindir/neon_boot", '--conninfo', "host=127.0.0.1 port=$at user=x dbname=x sslmode=disable", '--tenant', $T,
		'--timeline', $L, '-D', $to, @more ], '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $err);
}

sub slurp { my ($file) = @_; open my $fh, '<', $file or return ''; local $/; my $text = <$fh>; return $text }

# Starts a server, and returns its log when the condition holds for it, or at the end of patience.
sub start_until
{
	my ($data, $condition, $act, @settings) = @_;
	my $log = "$data.log";
	open my $hba, '>', "$data/pg_hba.conf" or die $!;
	print $hba "local all all trust\n";
	close $hba;
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		open STDOUT, '>>', $log or POSIX::_exit(1);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(1);
		exec "$bindir/postgres", '-D', $data, map({ ('-c', $_) } "unix_socket_directories=$dir", 'listen_addresses=', 'port=5432',
			'shared_buffers=1MB', @settings) or POSIX::_exit(1);
	}
	my $gone = 0;
	for (1 .. 1200)
	{
		$gone = waitpid($pid, POSIX::WNOHANG()) == $pid;
		last if $gone || slurp($log) =~ $condition;
		usleep(50_000);
	}
	$act->() if $act && !$gone;
	kill 'QUIT', $pid unless $gone;
	waitpid $pid, 0 unless $gone;
	return slurp($log);
}

# ---- laid

my ($rc, $err) = boot("$dir/cut", $cut_port);
isnt($rc, 0, 'an image that breaks off is none');
like($err, qr/broke off.*no more of it/, '... and what the page server said is said');
ok(!-e "$dir/cut" && !-e "$dir/cut.neon_boot", '... and nothing is left');

foreach my $way ([ 'plain' ], [ 'zipped', '--gzip' ])
{
	my ($name, @words) = @$way;
	($rc, $err) = boot("$dir/$name", $port, @words);
	is($rc, 0, "$name: laid") or diag($err);
	my $control = `"$bindir/pg_controldata" -D "$dir/$name"`;
	like($control, qr{cluster state: +shut down$}m, '... as after a clean stop');
	like($control, qr{Latest checkpoint location: +0/596B1E08$}m, '... whose checkpoint is at the LSN of the image');
	unlike($control, qr/WARNING|does not match/, '... with the right sum');
	my $wal = `"$bindir/pg_waldump" -p "$dir/$name/pg_wal" -s 0/596B1E08 -n 1 2>&1`;
	like($wal, qr{lsn: 0/596B1E08, prev 0/00000000, desc: CHECKPOINT_SHUTDOWN redo 0/596B1E08}, '... where a record says so');
	like($wal, qr{xid 0:937; oid 21306;}, '... with the counters of the control file');
	like(slurp("$dir/$name/neon_comm.skeleton"), qr/^neon_comm skeleton 1\nsystem_identifier=7713352565287487659\n.*^lengths=asked$/ms,
		'... and lengths will be asked for');
	ok(!-e "$dir/$name/neon.signal" && !-e "$dir/$name/zenith.signal", '... its signal files are not left');
	ok(-e "$dir/$name/base/16384/21144" && -e "$dir/$name/base/16384/21144_init", '... an unlogged table is there, and empty');
	is(-s "$dir/$name/pg_hba.conf", 0, '... configuration is not taken over');
}

# ---- without segments of transaction states, which are fetched

($rc, $err) = boot("$dir/less", $less_port);
is($rc, 0, 'an image without states of transactions is laid') or diag($err);
like($err, qr{fetching pg_xact/0000, which is not in the image}, '... and what is missing is fetched');
is(slurp("$dir/less/$_"), $content{$_}, "... $_ is that of the page server") foreach qw(pg_xact/0000 pg_multixact/offsets/0000);
ok(!-e "$dir/less/pg_multixact/members/0000", '... and nothing that nobody needs');
like(slurp("$dir/mock.log"), qr{^asked for pg_xact/0000 at 596B1E08 596B1E08$}m, '... as of the LSN of the image');

# ---- where a record of WAL may begin

my @bare = ('zipped', 'less');
my %place = (page => 0x5a002000 + 24, segment => 0x5b000000 + 40, page_end => 0x5a003ff0, segment_end => 0x5affffe8, first_page => 0x5b000100);
foreach my $place (sort keys %place)
{
	my ($at, $pid) = page_server(image => image_at($place{$place}));
	($rc, $err) = boot("$dir/$place", $at);
	is($rc, 0, "$place: laid") or diag($err);
	kill 'KILL', $pid;
	waitpid $pid, 0;
	my $lsn = sprintf '0/%X', $place{$place};
	like(`"$bindir/pg_waldump" -p "$dir/$place/pg_wal" -s $lsn -n 1 2>&1`,
		qr{lsn: 0/0*\Q@{[ substr $lsn, 2 ]}\E, prev 0/59000028, desc: CHECKPOINT_SHUTDOWN}, '... with a record, which knows the one before');
	unlink "$dir/$place/recovery.conf" or die $!;
	push @bare, $place;
}

# ---- a server without neon_comm, which the trap has to be taken away for

ok(unlink("$dir/zipped/recovery.conf"), 'no server without neon_comm starts there');
unlink "$dir/less/recovery.conf" or die $!;
my $log;
foreach my $name (@bare)
{
	$log = start_until("$dir/$name", qr/ready to accept connections|FATAL|PANIC/);
	like($log, qr/database system was shut down at .*ready to accept connections/s, "$name: without the trap one does");
	unlike($log, qr/redo starts|PANIC/, '... and replays nothing');
}

# ---- one with it

my ($out, $said) = ('', '');
$log = start_until("$dir/plain", qr/ready to accept connections|FATAL|PANIC/,
	sub { IPC::Run::run([ 'psql', '-Xq', '-h', $dir, '-p', 5432, '-U', 'postgres', '-d', 'postgres', '-c', 'SELECT 1' ], '<', \undef, '>', \$out, '2>', \$said) },
	'shared_preload_libraries=neon_comm', "neon_comm.page_servers=host=127.0.0.1 port=$port sslmode=disable",
	"neon_comm.tenant_id=$T", "neon_comm.timeline_id=$L", 'autovacuum=off');
like($log, qr/database system was shut down at .*ready to accept connections/s, 'a server with neon_comm starts');
like($said, qr{could not read the length of fork 0 of relation 1664/0/\d+ from its page server: .*Read error}, 'who logs in asks for a length first');
my $asked = slurp("$dir/mock.log");
like($asked, qr/^query pagestream_v3 $T $L\nasked 0 1664 0 \d+ 0$/m, '... by Exists, of a catalog');
unlike($log, qr/PANIC|was terminated by signal/, 'nothing worse comes of it');
done_testing();
