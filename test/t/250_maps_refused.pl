# A working shard map is replaced by one that can work, or not at all: a string
# that libpq refuses, an empty list and a line that was lost leave it in force, in
# each process and whichever way they come. So does a stripe that is refused; and
# what came along with the one that was refused is not taken over without it: page
# servers refuse blocks by another stripe than theirs. Another number of shards, or
# another stripe, is taken over and said.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 2,
	conf => [ 'max_parallel_workers_per_gather=0', 'neon_comm.request_timeout=60s' ]);
my @ports = map { $c->page_server_port($_) } 0 .. 1;
my $list = $c->page_server_list(@ports);
my $conf = "$c->{dir}/compute/postgresql.conf";

$c->sql(q{CREATE TABLE self AS SELECT g AS id, lpad(g::text, 700, '0') AS f FROM generate_series(1, 3000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 1024 * 1024, 'larger than shared buffers');
my $look = 'SELECT count(*), sum(id) FROM self';
my $right = '3000|4501500';
my ($old, $old_direct, $busy) = map { $c->session } 1 .. 3;
$old_direct->query('SET neon_comm.mode = direct');
is($_->query($look), $right, 'rows') foreach $old, $old_direct;
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
my $good = text_of_conf();
my $changes = $c->counter('map_changes');

# the setting was renamed in 16
my $force_parallel = $c->sql("SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");

my $in_parallel = "SET $force_parallel = on; SET max_parallel_workers_per_gather = 2;";

sub map_stays { my ($setting) = @_; return qr/WARNING: .*the shard map stays as it was, because \Q$setting\E was refused/ }

# Rows come through each kind of process, by the map that was.
sub all_read
{
	my ($what) = @_;

	is($old->query($look), $right, "$what: rows in a session that stands");
	is($old_direct->query($look), $right, "$what: and in one that reads without the communicator");
	is($c->sql($look), $right, "$what: and in a new one");
	is($c->sql("SET neon_comm.mode = direct; $look"), $right, "$what: and in a new one without the communicator");
	is($c->sql("$in_parallel $look"), $right, "$what: and in a parallel worker");
	is($c->sql("SET neon_comm.mode = direct; $in_parallel $look"), $right, "$what: and in one without the communicator");
	is($c->counter('map_changes'), $changes, "$what: no change of the map");
	return;
}

sub stays
{
	my ($what, $said, $setting) = (@_, 'neon_comm.page_servers');
	my $from = length $c->log_text('compute');

	kill 'HUP', $c->postmaster_pid('compute');
	ok($c->wait_log('compute', $said, $from), "$what: said in the log");
	ok($c->wait_log('compute', map_stays($setting), $from), "$what: and that the map stays");
	ok($c->reload_is_over, "$what: reloaded");
	if ($setting ne 'neon_comm.stripe_size')
	{
		is($old->query('SHOW neon_comm.page_servers'), $list, "$what: the list in a session that stands");
		is($c->sql('SHOW neon_comm.page_servers'), $list, "$what: and in a new one");
	}
	all_read($what);
	return;
}

# What is in the file now is whole again, with the map that is in force.
sub mended
{
	write_conf($good);
	ok($c->reload_is_over, 'and all is well again');
	return;
}

my $first = "host=127.0.0.1 port=$ports[0]";
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
	mended();
}

# the line is lost
(my $without = $good) =~ s/^neon_comm\.page_servers.*\n//mg;
write_conf($without);
stays('no line', qr/invalid value for parameter "neon_comm\.page_servers"/);
mended();

# one of the two is refused, and the other one could be taken
my $typo = "neon_comm.page_servers = '$first,host=127.0.0.1 prot=$ports[1]'\n";
my $refused_list = qr/shard 1: the connection string does not work/;
my $other = "neon_comm.page_servers = '$first'\n";
my $stripe = "neon_comm.stripe_size = 16\n";
my ($small, $no_number) = map { "neon_comm.stripe_size = '$_'\n" } 0, 'l6';
my @apart = (
	[ 'stripe, then typing error', "$stripe$typo", $refused_list, 'neon_comm.page_servers' ],
	[ 'typing error, then stripe', "$typo$stripe", $refused_list, 'neon_comm.page_servers' ],
	[ 'list, then no stripe', "$other$small", qr/outside the valid range for parameter "neon_comm.stripe_size"/, 'neon_comm.stripe_size' ],
	[ 'no stripe, then list', "$small$other", qr/outside the valid range for parameter "neon_comm.stripe_size"/, 'neon_comm.stripe_size' ],
	[ 'a stripe that is no number', "$other$no_number", qr/invalid value for parameter "neon_comm.stripe_size"/, 'neon_comm.stripe_size' ]);
foreach my $case (@apart)
{
	my ($what, $lines, $said, $setting) = @$case;
	my $from = length $c->log_text('compute');

	write_conf("$good$lines");
	stays($what, $said, $setting);
	kill 'HUP', $c->postmaster_pid('compute');
	ok($c->reload_is_over, "$what: once more");
	is(scalar(() = substr($c->log_text('compute'), $from) =~ /the shard map stays as it was/g), 1, "$what: said once");
	mended();
	all_read("$what, mended");
}

# A session at its statement does not hear of the reload that puts things right, and hands the
# settings of the one before to workers that are made after it.
$c->sql(q{CREATE FUNCTION read_later() RETURNS text LANGUAGE plpgsql AS $$
	DECLARE found text;
	BEGIN
		PERFORM pg_advisory_lock(250);
		EXECUTE 'SELECT count(*) || ''|'' || sum(id) FROM self' INTO found;
		RETURN found;
	END $$});
$old->query('SELECT pg_advisory_lock(250)');
$busy->query("SET neon_comm.mode = direct; $in_parallel");
is($busy->query($look), $right, 'rows in workers that read without the communicator');
write_conf("$good$stripe$typo");
stays('with a session that will be late', $refused_list);
is($busy->query('SHOW neon_comm.stripe_size'), '128kB', 'it has the other stripe');
$busy->send('SELECT read_later()');
ok($c->wait_for(q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'it is at its statement');
mended();
$old->query('SELECT pg_advisory_unlock(250)');
is($busy->wait, $right, 'and its workers read by a map that is whole');

sub page_servers_take
{
	my ($name, $value) = @_;
	foreach my $n (0 .. 1)
	{
		my $from = length $c->log_text("page_server_$n");

		$c->configure({ "neon_page_service.$name" => $value }, part => "page_server_$n");
		ok($c->wait_log("page_server_$n", qr/"neon_page_service.$name" changed to "$value"/, $from), "page server $n has another $name");
	}
	return;
}

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
	is($old_direct->query($look), $right, 'and without the communicator');
	return;
}

# who looks at a wrong file, or is refused himself, is at no reload that was refused
write_conf("$good$typo");
cmp_ok($old_direct->query('SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL'), '>', 0, 'a look at a wrong file');
write_conf($good);
my (undef, $refusal) = $old_direct->try("ALTER SYSTEM SET $typo");
like($refusal, $refused_list, 'a session is refused');
page_servers_take('shard_count', 0);
changed({ 'neon_comm.stripe_size' => 16 }, qr/from 2 shards with stripes of 8 blocks to 2 shards with stripes of 16 blocks/);
$changes = $c->counter('map_changes');
page_servers_take('stripe_size', 16);
page_servers_take('shard_count', 2);
all_read('another stripe on both sides');

page_servers_take('shard_count', 0);
changed({ 'neon_comm.page_servers' => $first }, qr/from 2 shards with stripes of 16 blocks to 1 shards with stripes of 16 blocks/);
changed({ 'neon_comm.page_servers' => $list, 'neon_comm.stripe_size' => 8 },
	qr/from 1 shards with stripes of 16 blocks to 2 shards with stripes of 8 blocks/);

$_->close foreach $old, $old_direct, $busy;
$c->check_logs;
done_testing();
