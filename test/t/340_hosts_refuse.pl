# A shard has two hosts, and one of them answers with errors about itself: it has parted from the compute, cannot read
# its own files, is another shard's, is not ready. The other one is asked, by the communicator and directly, and no error
# reaches a client unless both say so; what is wrong with the request is not asked twice. A process that reads directly
# leaves a host that is frozen without waiting for silence_timeout (docs/communicator.md, docs/direct.md).
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of);
use NeonComm::Proxy;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 1, init => [ '--page-servers', 2, '--hosts', 2 ],
	conf => [ 'neon_comm.request_timeout=40s', 'neon_comm.silence_timeout=30min', 'neon_comm.connect_timeout=30min',
		'neon_comm.readahead_blocks=0' ]);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server: .*injected|Read error: of/);
my $right = 'SELECT count(*), count(*) FILTER (WHERE says <> md5(id::text)) FROM rows';
my @modes = ('communicator', 'direct');

sub rename_dir { rename "$dir/$_[0]", "$dir/$_[1]" or die "$_[0]: $!"; return }
sub in_mode { my ($mode, $sql) = @_; return $c->try_sql("SET neon_comm.mode = $mode; $sql") }

$c->sql('CREATE TABLE rows (id int PRIMARY KEY, says text);
	INSERT INTO rows SELECT g, md5(g::text) FROM generate_series(1, 40000) g; VACUUM FREEZE rows');
cmp_ok($c->sql("SELECT pg_relation_size('rows')"), '>', 2 * 1024 * 1024, 'the table is larger than shared buffers');

# ---- the first host follows a life of the compute that is given up

ok($c->wait_for('SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) FROM neon_comm.page_servers'), 'both have it all');
$c->stop('page-server', 1);
$c->stop('compute');
system('cp', '-a', '--sparse=always', "$dir/compute", "$dir/older") == 0 or die 'cp';
$c->start('compute');
$c->sql('UPDATE rows SET says = says WHERE id <= 100');
ok($c->wait_for("SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers WHERE state = 'streaming'"), 'the first one follows');
$c->stop('compute', '--mode', 'immediate');
rename_dir('compute', 'newer');
rename_dir('older', 'compute');
my ($ok) = $c->try_dev('start', '-D', $dir, '--quiet', '-t', 30, 'compute');
ok(!$ok, 'the older copy does not start by itself');
$c->dev('takeover', '-D', $dir, 'compute');
$c->start('page-server', 1);
my $from = length $c->log_text('compute');
$c->start('compute');
ok($c->wait_log('compute', qr/WAL feed refused page_server_0 at .*have parted/, $from), 'it has parted from what went on');
foreach my $mode (@modes)
{
	my ($rc, $out, $error) = in_mode($mode, $right);
	is($rc, 0, "$mode: the first host has parted, and no error reaches a client") or diag($error);
	is($out, '40000|0', "$mode: ... all rows are there and right");
}
cmp_ok($c->counter('page_server_errors'), '>', 0, 'it was asked and refused');
ok($c->wait_log('compute', qr/shard 0 \(127\.0\.0\.1:\d+\): cannot answer now: parted: /, $from), '... which the log tells');
is(status_of($c, 0)->{identity}, 'refused', '... as its status does');

# ---- a second host that has the same blocks, and what both say

my $p = NeonComm::Proxy->new;
my $served = $c->page_server_port(1);
my @ports = map { $p->link($_, $served) } 'a', 'b';
my $changes = $c->counter('map_changes');
$c->configure({ 'neon_comm.page_servers' => "host=127.0.0.1,127.0.0.1 port=$ports[0],$ports[1]" });
ok($c->wait_for("SELECT value > $changes FROM neon_comm.counters WHERE name = 'map_changes'"), 'other hosts are asked');
my $rel = $c->sql(q{SELECT pg_relation_filenode('rows')});
my $of = "tag=getpage rel=$rel block=5";
my $read = "SELECT count(*) FROM rows WHERE ctid = '(5,1)'";

sub session_in { my ($mode) = @_; my $s = $c->session; $s->query("SET neon_comm.mode = $mode"); return $s }

# One read of that block under these rules: what was read, the error, and how often each of them fired.
sub reads
{
	my ($s, @rules) = @_;
	$s->query($read);
	$c->evict;
	my @ids = map { $p->rule($_) } @rules;
	$s->send($read);
	my $out = $s->wait;
	my $error = $s->{last_error};
	my @fired = map { $p->fired($_) } @ids;
	$p->clear;
	return ($out, $error, @fired);
}

foreach my $mode (@modes)
{
	my $s = session_in($mode);
	foreach my $says ('Read_error:_injected', 'parted:_injected', 'wrong_shard:_injected', 'not_ready:_injected')
	{
		my ($out, $error) = reads($s, "link=a $of error=$says");
		is("$out$error", '1', "$mode, $says: another host is asked");
	}
	my ($out, $error, @fired) = reads($s, map { "link=$_ $of error=Read_error:_of_$_" } 'a', 'b');
	like($error, qr/shard 0 \(127\.0\.0\.1:\d+\).*: Read error: of [ab]/, "$mode: both say so, and it is an error");
	is("@fired", '1 1', '... when each was asked');
	(undef, $error, @fired) = reads($s, map { "link=$_ $of error=relation_not_found:_injected" } 'a', 'b');
	like($error, qr/relation not found: injected/, "$mode: what is wrong with the request is an error");
	is($fired[0] + $fired[1], 1, '... of the first that says so');
}

# ---- one host alone is asked again while it is not ready

$c->configure({ 'neon_comm.page_servers' => "host=127.0.0.1 port=$ports[0]" });
my $s = session_in('direct');
my ($out, $error, @fired) = reads($s, "link=a $of count=3 error=not_ready:_injected");
is("$out$error", '1', 'direct, one host: it is asked until it is ready');
is($fired[0], 3, '... after three refusals');

# ---- frozen: connections stand, or are not even answered

$c->configure({ 'neon_comm.page_servers' => "host=127.0.0.1,127.0.0.1 port=$ports[0],$ports[1]" });
$s = session_in('direct');
($out, $error, @fired) = reads($s, "link=a $of silent");
is("$out$error", '1', 'direct: a host that falls silent is left');
is($fired[0], 1, '... which it did');
my $id = $p->rule('link=a on=connect silent');
my ($rc, $answer) = $c->try_sql("SET neon_comm.mode = direct; $right");
is("$rc $answer", '0 40000|0', 'direct: a host that does not answer who connects is left');
cmp_ok($p->fired($id), '>', 0, '... which happened');
$p->clear;
$c->check_logs;
done_testing();
