# A working shard map is replaced by one that can work, or not at all: a string
# that libpq refuses, an empty list and a line that was lost leave it in force, in
# each process and whichever way they come. Another number of shards, or another
# stripe, is taken over and said.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 2, ps_conf => ['neon_page_service.shard_count=0'],
	conf => [ 'max_parallel_workers_per_gather=0', 'neon_comm.request_timeout=60s' ]);
my @ports = map { $c->page_server_port($_) } 0 .. 1;
my $list = $c->page_server_list(@ports);
my $conf = "$c->{dir}/compute/postgresql.conf";

$c->sql(q{CREATE TABLE self AS SELECT g AS id, lpad(g::text, 700, '0') AS f FROM generate_series(1, 3000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 1024 * 1024, 'larger than shared buffers');
my $look = 'SELECT count(*), sum(id) FROM self';
my $right = '3000|4501500';
my $old = $c->session;
is($old->query($look), $right, 'rows');
$c->configure({ 'neon_comm.page_servers' => $list });

sub text_of_conf { local (@ARGV, $/) = $conf; return scalar <> }

# In one step: whoever is late with a reload never reads half of it.
sub write_conf
{
	my ($text) = @_;
	open my $fh, '>', "$conf.new" or die $!;
	print $fh $text;
	close $fh or die $!;
	rename "$conf.new", $conf or die $!;
	return;
}

ok($c->reload_is_over, 'the list in one place');
my $changes = $c->counter('map_changes');

# the setting was renamed in 16
my $force_parallel = $c->sql("SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");

sub stays
{
	my ($what, $said) = @_;
	my $from = length $c->log_text('compute');

	kill 'HUP', $c->postmaster_pid('compute');
	ok($c->wait_log('compute', $said, $from), "$what: said in the log");
	ok($c->reload_is_over, "$what: reloaded");
	is($old->query('SHOW neon_comm.page_servers'), $list, "$what: the list in a session that stands");
	is($c->sql('SHOW neon_comm.page_servers'), $list, "$what: and in a new one");
	is($old->query($look), $right, "$what: rows in the one");
	is($c->sql($look), $right, "$what: and the other");
	is($c->sql("SET neon_comm.mode = direct; $look"), $right, "$what: and without the communicator");
	is($c->sql("SET $force_parallel = on; SET max_parallel_workers_per_gather = 2; $look"), $right, "$what: and in a parallel worker");
	is($c->counter('map_changes'), $changes, "$what: no change of the map");
	return;
}

my $first = "host=127.0.0.1 port=$ports[0]";
my $good = text_of_conf();
my %bad = (
	"$first,host=127.0.0.1 prot=$ports[1]" => qr/shard 1: the connection string does not work/,
	"$first,host=127.0.0.1 port=0$ports[1]0" => qr/shard 1: the connection string does not work/,
	"$first,host=127.0.0.1 port=$ports[1] sslmode=requir" => qr/shard 1: the connection string does not work/,
	'' => qr/without any, nothing could be read/,
	' , ' => qr/shard 0: its connection string is empty/);
foreach my $value (sort keys %bad)
{
	write_conf("${good}neon_comm.page_servers = '$value'\n");
	stays("\"$value\"", $bad{$value});
	my ($rc, $out, $err) = $c->try_sql("ALTER SYSTEM SET neon_comm.page_servers = '$value'");
	isnt($rc, 0, "ALTER SYSTEM refuses \"$value\"");
	like($err, $bad{$value}, 'and says why');
	write_conf($good);
}

# the line is lost
(my $without = $good) =~ s/^neon_comm\.page_servers.*\n//mg;
write_conf($without);
stays('no line', qr/invalid value for parameter "neon_comm\.page_servers"/);

# other numbers are what an operator may mean: said, and taken over
sub changed
{
	my ($settings, $said) = @_;
	my $before = $c->counter('map_changes');
	my $from = length $c->log_text('compute');

	$c->configure($settings);
	ok($c->wait_for("SELECT value > $before FROM neon_comm.counters WHERE name = 'map_changes'"), 'taken over');
	ok($c->wait_log('compute', $said, $from), 'and said');
	is($c->sql($look), $right, 'rows');
	return;
}
changed({ 'neon_comm.page_servers' => $first }, qr/from 2 shards with stripes of 8 blocks to 1 shards with stripes of 8 blocks/);
changed({ 'neon_comm.page_servers' => $list, 'neon_comm.stripe_size' => 16 },
	qr/from 1 shards with stripes of 8 blocks to 2 shards with stripes of 16 blocks/);

$old->close;
$c->check_logs;
done_testing();
