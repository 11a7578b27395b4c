# A whole cluster behind TLS and tokens: neon_dev --auth --tls, reads and writes
# through it, and what the compute says when it is not let in.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);
use NeonComm::Security;
use Test::More;
use Time::HiRes qw(usleep);

my $cluster = NeonComm::Cluster->new(
	init => [ '--auth', '--tls' ],
	# catalogs stay in memory when no page server lets us in; the table does not
	buffers => '32MB',
	conf => [ 'neon_comm.request_timeout=10s' ]);
my $dir = "$cluster->{dir}/security";
my $security = NeonComm::Security->new;

sub read_file
{
	my ($path) = @_;
	open my $fh, '<', $path or die "$path: $!";
	local $/;
	my $text = <$fh>;
	chomp $text;
	return $text;
}

sub write_file
{
	my ($path, $text, $mode) = @_;
	open my $fh, '>', "$path.new" or die "$path: $!";
	print $fh $text;
	close $fh;
	chmod $mode // 0600, "$path.new";
	rename "$path.new", $path or die $!;
	return;
}

my $postgresql_conf = "$cluster->{dir}/compute/postgresql.conf";
my $conf = read_file($postgresql_conf);
my $token = read_file("$dir/token");
foreach my $file ('issuer.key', 'ca.key', 'server.key', 'token', 'pgpass')
{
	is(sprintf('%o', (stat "$dir/$file")[2] & 0777), '600', "$file is private");
}

# ---- it works

$cluster->sql('CREATE TABLE t AS SELECT g, repeat(md5(g::text), 20) AS x FROM generate_series(1, 20000) g');
my $sum = $cluster->sql('SELECT count(*), sum(hashtext(x)) FROM t');
my $before = $cluster->counter('pages_received');
is($cluster->sql('SELECT count(*), sum(hashtext(x)) FROM t'), $sum, 'pages through TLS are the right ones');
cmp_ok($cluster->counter('pages_received') - $before, '>', 1000, 'and they did come from page servers');
$before = $cluster->counter('pages_received');
is($cluster->sql("SET neon_comm.mode = direct; SELECT count(*), sum(hashtext(x)) FROM t"), $sum,
	'in direct mode as well');
cmp_ok($cluster->counter('pages_received') - $before, '>', 1000, 'over connections of the backend');
is($cluster->counter('disconnects'), 0, 'no connection was lost');
like($cluster->dev('status', '-D', $cluster->{dir}, '--no-measure'), qr/page server 1 +running .* \d+ +\d+/,
	'neon_dev status gets in');

# many at a time, so that answers queue up inside TLS
my ($rc, $out, $err) = $cluster->pgbench('-i', '-s', 3, '-q');
is($rc, 0, 'pgbench -i');
($rc, $out, $err) = $cluster->pgbench('-n', '-c', 8, '-j', 2, '-t', 100);
is($rc, 0, 'pgbench with eight clients') or diag($err);
is($cluster->sql('SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)'),
	't', 'its sums are right');

# ---- a token that is refused, a file that cannot be used

# Sessions that have in their caches what they need while page servers are out of reach.
my $reader = $cluster->session;
my $read = 'SELECT count(*), sum(hashtext(x)) FROM t';
is($reader->query($read), $sum, 'a session that stays');
# from here on reads are to fail
$reader->query("SET neon_comm.request_timeout = '3s'");
my $watcher = $cluster->session;
my $watch = q{SELECT string_agg(last_error, ' ') FROM neon_comm.connections};
$watcher->query($watch);
$watcher->query('SELECT pg_reload_conf(); SELECT epoch FROM neon_comm.status()');
my $map_changes = q{SELECT value FROM neon_comm.counters WHERE name = 'map_changes'};
$watcher->query($_) foreach $map_changes, "SELECT ($map_changes) > 0";

# Page servers read their certificate again; true once both show it.
sub reload_certificate
{
	my ($subject) = @_;
	kill HUP => $cluster->postmaster_pid("page_server_$_") foreach 0, 1;
	foreach my $port ($conf =~ /host=127\.0\.0\.1 port=(\d+)/g)
	{
		return 0 unless until_true(
			sub {
				my $out = '';
				IPC::Run::run([ 'openssl', 's_client', '-starttls', 'postgres', '-connect', "127.0.0.1:$port" ],
					'<', \undef, '>', \$out, '2>&1');
				return $out =~ /subject=CN *= *$subject$/m;
			});
	}
	return 1;
}

# The communicator connects anew.
sub break_connections
{
	my $epoch = $watcher->query('SELECT epoch FROM neon_comm.status()');
	$watcher->query('SELECT neon_comm.restart_communicator()');
	ok(until_true(sub { $watcher->query('SELECT epoch FROM neon_comm.status()') > $epoch }),
		'the communicator starts again');
	return;
}

sub fails_with
{
	my ($regex, $name) = @_;
	my ($out, $err) = $reader->try($read);
	like($err, qr/ERROR/, "$name: the read fails");
	ok(until_true(sub { $watcher->query($watch) =~ $regex }), "$name: neon_comm.connections says why")
	  or diag($watcher->query($watch));
	ok(until_true(sub { $cluster->log_text('compute') =~ $regex }), "$name: the log says why");
	return;
}

sub works
{
	my ($name) = @_;
	ok(until_true(sub { ($reader->try($read))[0] eq $sum }), $name);
	return;
}

my $expired = $cluster->dev('token', '-D', $cluster->{dir}, '--expires', 0);
my $stranger = $cluster->dev('token', '-D', $cluster->{dir}, '--tenant-id', 'f' x 32);
chomp($expired, $stranger);
write_file("$dir/token", "$stranger\n");
break_connections();
fails_with(qr/the token is refused: it is for another tenant/, "another tenant's token");
write_file("$dir/token", "$token\n", 0644);
fails_with(qr/cannot use the token file .*token": others can/, 'a token that others can read');
unlink "$dir/token";
fails_with(qr/cannot use the token file .*No such file/, 'no token file');
$cluster->dev('token', '-D', $cluster->{dir}, '--expires', 3600, '--install');
works('with a new token in the file it goes on, without a reload');
my $installed = read_file("$dir/token");
isnt($installed, $token, 'which is another token');

# ---- a server that is not the one it should be

sub page_servers
{
	my ($from, $to) = @_;
	my $changed = $conf;
	$changed =~ s/^(neon_comm\.page_servers = .*)/my $l = $1; $l =~ s{$from}{$to}g; $l/me;
	my $before = $watcher->query($map_changes);
	write_file($postgresql_conf, "$changed\n");
	$watcher->query('SELECT pg_reload_conf()');
	# or a read might be done before the communicator hears of it
	ok($watcher->wait_for("SELECT ($map_changes) > $before"), 'the communicator has the other addresses');
	return;
}
page_servers('host=127\.0\.0\.1', 'host=wrong.example hostaddr=127.0.0.1');
fails_with(qr/does not match host name "wrong.example"/, 'a wrong name');
page_servers('sslrootcert=\S+/ca\.crt', 'sslrootcert=' . $security->authority('stranger'));
fails_with(qr/certificate verify failed \(unable to get local issuer certificate\)/, 'an unknown authority');
page_servers('x^', '');
works('as it was before it works');

# an expired certificate of the right authority
rename "$dir/$_", "$dir/$_.good" foreach 'server.crt', 'server.key';
link "$dir/ca.$_", $security->path("ours.$_") or write_file($security->path("ours.$_"), read_file("$dir/ca.$_") . "\n")
  foreach 'crt', 'key';
$security->certificate('old', authority => 'ours', days => 0);
write_file("$dir/server.$_", $security->read_file("old.$_")) foreach 'crt', 'key';
ok(reload_certificate('old'), 'page servers show it');
break_connections();
fails_with(qr/certificate verify failed \(certificate has expired\)/, 'an expired certificate');
rename "$dir/$_.good", "$dir/$_" foreach 'server.crt', 'server.key';
ok(reload_certificate('neon_dev'), 'page servers show the good one');
break_connections();
works('with the good one it goes on');

# ---- nothing of it in logs, views, settings; the connection string of a wrong file neither

my $shown = $cluster->log_text('compute') . $cluster->log_text("page_server_0") . $cluster->log_text("page_server_1")
  . $cluster->sql(q{SELECT * FROM pg_settings; SELECT * FROM neon_comm.connections; SELECT * FROM neon_comm.page_servers;
		SELECT * FROM neon_comm.counters; SELECT * FROM pg_stat_activity});
my @parts = grep { length > 20 } map { split /\./ } $token, $stranger, $expired, $installed;
is((scalar grep { index($shown, $_) >= 0 } @parts), 0, 'no part of a token is in a log or a view');

# ---- crash recovery behind TLS

$_->close foreach $reader, $watcher;
$cluster->sql('UPDATE t SET g = g + 1 WHERE g % 100 = 0');
my $after = $cluster->sql('SELECT count(*), sum(g::bigint) FROM t');
$cluster->kill9('compute');
$cluster->start('compute');
is($cluster->sql('SELECT count(*), sum(g::bigint) FROM t'), $after, 'recovery reads through TLS');
$cluster->check_logs;
done_testing();
