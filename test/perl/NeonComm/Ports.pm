# NeonComm::Ports - free_port(): a port of this script's. Needs nothing of PostgreSQL's modules, which take STDOUT.
package NeonComm::Ports;

use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;

our @EXPORT_OK = qw(free_port);

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

1;
