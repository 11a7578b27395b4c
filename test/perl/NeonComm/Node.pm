# NeonComm::Node - what tests of a single PostgreSQL::Test::Cluster node have in
# common: settings, conditions, starts that must fail.
package NeonComm::Node;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET;
use NeonComm::Cluster ();		# a test that must fail does so at its first failure
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT_OK = qw(conf free_port until_true refuses_to_start);

# Ports that nobody else is given. This script's range is below those that the system gives to connections
# (PostgreSQL::Test::Cluster::get_free_port is not, and one may be gone when its server starts). neon_dev looks
# for ports of its own, among those that nobody listens on yet: it has the lower part, free_port() the rest.
my ($own_low, $own_high);
{
	my ($low, $high) = split /-/, $ENV{NEON_DEV_PORTS} // '20000-31999';
	$own_low = $low + int(($high - $low) * 3 / 4);
	$own_high = $high;
	$ENV{NEON_DEV_PORTS} = "$low-" . ($own_low - 1);
}
my %given;

sub free_port
{
	while (1)
	{
		my $port = $own_low + int rand($own_high - $own_low + 1);
		next if $given{$port};
		my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1) or next;
		$given{$port} = 1;
		return $port;
	}
}

# Appends settings to a node's postgresql.conf.
sub conf
{
	my ($node, %set) = @_;
	$node->append_conf('postgresql.conf', "$_ = '$set{$_}'") foreach sort keys %set;
	return;
}

# Until the condition holds; a deadlock guard, not a measure.
sub until_true
{
	my ($sub) = @_;
	foreach (1 .. ($NeonComm::Session::must_fail ? 200 : 1200))
	{
		return 1 if eval { $sub->() };
		usleep(100_000);
	}
	return 0;
}

# With these settings the node does not start, and its log says why; its settings come back.
sub refuses_to_start
{
	my ($node, $regex, $name, %set) = @_;
	my $before = slurp_file($node->data_dir . '/postgresql.conf');
	my $from = -f $node->logfile ? length slurp_file($node->logfile) : 0;
	conf($node, %set);
	ok(!$node->start(fail_ok => 1), "$name: no start");
	like(substr(slurp_file($node->logfile), $from), $regex, $name);
	open my $fh, '>', $node->data_dir . '/postgresql.conf' or die $!;
	print $fh $before;
	close $fh;
	return;
}

1;
