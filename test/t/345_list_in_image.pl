# A compute gives its page servers the list of the pages in its file cache; it is in the boot image, and the compute that is
# made anew is warm without a command of anybody. Page servers keep whatever they get, if it is not too much, and understand
# nothing of it: the compute that loads it judges it.
use strict;
use warnings;

use IO::Socket::INET;
use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $c = NeonComm::Cluster->new(
	shards => 2,
	conf => [ 'neon_comm.lfc_size=64MB', 'neon_comm.lfc_list_save_interval=0', 'neon_comm.sweep_interval=200ms', 'max_worker_processes=20' ]);
my $kept = 'page_service_cache_list';
my $list = "$c->{dir}/compute/neon_comm.lfc.index";

sub text_of { my ($path) = @_; open my $fh, '<:raw', $path or return ''; local $/; return scalar(<$fh>) // '' }
sub kept_by { my ($n) = @_; return text_of("$c->{dir}/page_server_$n/$kept") }

sub set { my (%set) = @_; $c->configure(\%set); return $c->reload_is_over }

my $read = 'SELECT count(*), sum(length(f)) FROM t';
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('w', 400) AS f FROM generate_series(1, 20000) g; VACUUM t});
$c->evict;
my $answer = $c->sql($read);
ok($c->into_cache($read), 'the table is in the cache');
cmp_ok($c->sql('SELECT pg_table_size($$t$$) / 8192'), '>', 1000, 'and larger than shared buffers');

# ---- it travels

set('neon_comm.lfc_list_to_page_servers' => 'off');
$c->sql('SELECT neon_comm.lfc_save()');
is(kept_by(0), '', 'switched off, nothing travels');
set('neon_comm.lfc_list_to_page_servers' => 'on');
$c->sql('SELECT neon_comm.lfc_save()');
ok(until_true(sub { kept_by(0) ne '' && kept_by(1) ne '' }), 'lfc_save() gives the list to page servers');
is(kept_by(0), text_of($list), 'as it is');
is(kept_by(1), text_of($list), 'to each');
unlink "$c->{dir}/page_server_$_/$kept" or die $! foreach 0, 1;
set('neon_comm.lfc_list_save_interval' => 1);
ok(until_true(sub { kept_by(0) ne '' && kept_by(1) ne '' }), 'it travels by itself, too');
set('neon_comm.lfc_list_save_interval' => 0);
ok(until_true(sub { !$c->pids_of('compute', qr/cache list/) }), 'and that ends');
is_deeply([ map { glob "$c->{dir}/page_server_$_/$kept.*" } 0, 1 ], [], 'nothing is left beside it');

# ---- a page server that is away

my $from = length $c->log_text('compute');
$c->kill9('page-server', '1');
$c->sql('SELECT neon_comm.lfc_save()');
ok($c->wait_log('compute', qr/page server \S+ did not take the list of cached pages: /, $from), 'one that is away is told in the log');
ok(until_true(sub { !$c->pids_of('compute', qr/cache list/) }), 'and not waited for');
$c->dev('start', '-D', $c->{dir}, '--quiet', 'page-server', '1');

# ---- what comes to the port

# One message, or more than one; what is answered until the server has nothing more to say.
sub port_of { my ($n) = @_; my ($port) = text_of("$c->{dir}/neon_dev.conf") =~ /^page_server_${n}_port=(\d+)/m; return $port }

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body }

sub talk
{
	my ($wanted, @messages) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port_of(0)) or die "cannot connect: $@";
	my $start = pack('N', 196608) . "user\0x\0database\0x\0\0";
	my $said = '';
	print {$s} pack('N', 4 + length $start) . $start, @messages;
	$s->flush;
	while ($said !~ $wanted) { sysread($s, $said, 65536, length $said) or last }
	return ($said, $s);
}
sub list_query { my ($bytes) = @_; my $ids = text_of("$c->{dir}/neon_dev.conf"); return message('Q', "cache_list " . ($ids =~ /^tenant_id=(\S+)/m)[0] . ' ' . ($ids =~ /^timeline_id=(\S+)/m)[0] . " $bytes\0") }

my $before = kept_by(0);
like((talk(qr/ERROR|W/, list_query('16777217')))[0], qr/a number of bytes from 1 to 16777216/, 'more than 16 MB are not taken');
like((talk(qr/ERROR|W/, list_query('-1')))[0], qr/a number of bytes from 1 to/, 'nor less than nothing');
like((talk(qr/ERROR/, list_query(3), message('d', 'abcd')))[0], qr/unexpected message inside a list/, 'nor more than was said');
{
	# half of one: its connection stands, another one ends, and then this one
	my ($said, $half) = talk(qr/W/, list_query(6), message('d', 'abc'));
	ok(until_true(sub { glob "$c->{dir}/page_server_0/$kept.*.tmp" }), 'half of a list is a file with another name');
	is(kept_by(0), $before, 'and not the list');
	close $half;
	ok(until_true(sub { my @left = glob "$c->{dir}/page_server_0/$kept.*.tmp"; !@left }), 'which goes when its connection ends');
}
is(kept_by(0), $before, 'the list is what it was');

# ---- it comes back

sub from_nothing
{
	my (@more) = @_;
	$c->kill9('compute');
	system('rm', '-rf', "$c->{dir}/compute") == 0 or die;
	$c->dev('create-compute', '-D', $c->{dir}, '--quiet', '--from', 'page-server', '0', '--conf', 'neon_comm.lfc_list_to_page_servers=off', @more);
	return;
}
my $warm = q{SELECT state = 'done' AND loaded > 1000 AND failed = 0 FROM neon_comm.prewarm_progress};

from_nothing();
ok($c->wait_for($warm), 'a compute from nothing is warm by itself') or diag($c->sql('SELECT * FROM neon_comm.prewarm_progress'), substr($c->log_text('compute'), -3000));
my $remote = $c->counter('reads_remote');
is($c->sql($read), $answer, 'its rows are right');
cmp_ok($c->counter('lfc_hits'), '>', 1000, 'and come from the cache');
cmp_ok($c->counter('reads_remote') - $remote, '<', 300, 'hardly any from page servers');

my $place = "$c->{dir}/elsewhere";
from_nothing('--conf', "neon_comm.lfc_path=$place");
ok($c->wait_for($warm), 'one whose cache is elsewhere, too');
is(text_of("$place.index"), $before, 'the list is beside it');
ok(!-e $list, 'and nowhere else');
unlink $place, "$place.index";

# ---- nonsense is kept, and does nothing

foreach my $case ([ 'nonsense', 'x' x 5000 ], [ 'a list that was changed', substr($before, 0, 300) . 'y' . substr($before, 301) ],
	[ 'half of a list', substr($before, 0, 1000) ])
{
	my ($what, $bytes) = @$case;
	like((talk(qr/kept|ERROR/, list_query(length $bytes), map { message('d', $_) } unpack '(a30000)*', $bytes))[0], qr/kept/, "$what: the page server keeps it");
	is(kept_by(0), $bytes, 'as it came');
	my $at = length $c->log_text('compute');
	from_nothing();
	ok($c->wait_log('compute', qr/prewarm: .*(?:is no list of cached pages|is damaged)/, $at), 'the compute refuses it');
	is($c->sql($read), $answer, 'and is none the worse');
}

$c->check_logs;
done_testing();
