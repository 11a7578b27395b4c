# neon_dev init --print-config: the configuration of parts on several machines, of which nothing is made.  That servers
# run with it, test/two_hosts.sh shows.

use strict;
use warnings;

use FindBin;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use Test::More;

my $dev = abs_path("$FindBin::RealBin/../../src/bin/neon_dev");
my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1));

sub init { my (@words) = @_; my $quoted = join ' ', map { "'$_'" } @words; my $out = `$dev init -D $top/c $quoted 2>&1`; return ($? >> 8, $out) }

my @two = ('--print-config', '--compute-address', '10.0.0.1', '--page-server-address', '10.0.0.2', '--page-server-address', '10.0.0.3');
my ($status, $out) = init(@two, '--auth', '--tls', '--durable', '--hosts', 2, '--shards', 1, '--port', 7000, '--conf', 'work_mem=8MB', '--ps-conf', 'work_mem=9MB');
is($status, 0, 'it prints') or diag($out);
ok(!-e "$top/c", 'and makes nothing');
my ($none, $compute_name, $compute, @rest) = split /^# ==> (\S+)\n/m, $out;
is("$none$compute_name", 'compute.conf', 'the compute first');
my %page_server = @rest;
is(join(' ', sort keys %page_server), 'page_server_0.conf page_server_1.conf', 'then each page server');
sub has { my ($text, $line, $what) = @_; like($text, qr/^\Q$line\E$/m, $what); return }
my $tls = "sslmode=verify-full sslrootcert=$top/c/security/ca.crt";
has($compute, "neon_comm.page_servers = 'host=10.0.0.2,10.0.0.3 port=7002,7003 $tls'", 'the shard with both hosts');
has($compute, "neon_comm.wal_feed_listen_addresses = '10.0.0.1'", 'the feed at its address');
has($compute, "synchronous_standby_names = 'ANY 2 (page_server_0, page_server_1)'", 'options mean what they mean');
has($compute, "work_mem = '8MB'", 'settings of the compute');
foreach my $n (0, 1)
{
	my $text = $page_server{"page_server_$n.conf"};
	has($text, "primary_conninfo = 'host=10.0.0.1 port=7001 application_name=page_server_$n $tls passfile=$top/c/security/pgpass'", "page server $n: the feed");
	has($text, "neon_page_service.listen_addresses = '10.0.0.@{[ 2 + $n ]}'", 'its address');
	has($text, "neon_page_service.port = '700@{[ 2 + $n ]}'", 'and port');
	has($text, "work_mem = '9MB'", 'settings of page servers');
	my ($id) = $compute =~ /^neon_comm\.tenant_id = '([0-9a-f]{32})'$/m;
	has($text, "neon_page_service.tenant_id = '$id'", 'the same tenant');
}

# ---- what is refused

sub refused
{
	my ($why, $name, @words) = @_;
	my ($failed, $said) = init(@words);
	is($failed, 2, $name) or diag($said);
	like($said, $why, 'which says why');
	return;
}
refused(qr/several machines need --auth and --tls/, 'several machines without keys', @two);
refused(qr/several machines need --auth and --tls/, 'nor without TLS', @two, '--auth');
refused(qr/needs --compute-address and --page-server-address/, 'no addresses', '--print-config');
refused(qr/of use with --print-config only/, 'addresses for a cluster on this machine', '--compute-address', '10.0.0.1');
refused(qr/"10\.0\.0\.1 x" is no address/, 'what is no address', '--print-config', '--compute-address', '10.0.0.1 x');
refused(qr/--page-servers 3 are not the 2 that have an address/, 'page servers without an address', @two, '--page-servers', 3);
refused(qr/does not start with fsync = off/, 'what a part does not start with', @two, '--auth', '--tls', '--conf', 'fsync=off');
($status, $out) = init('--print-config', '--compute-address', '127.0.0.2', '--page-server-address', '127.0.0.3');
is($status, 0, 'on one machine keys are not needed') or diag($out);
ok(!-e "$top/c", 'and nothing was made');
done_testing();
