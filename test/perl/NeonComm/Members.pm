# NeonComm::Members - what tests of takeovers ask page servers (docs/takeover.md).
package NeonComm::Members;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use Time::HiRes qw(usleep);

our @EXPORT_OK = qw(ask status_of promise incarnation number_of members_known);

# (output, stderr) of a query to a page server's port.
sub ask
{
	my ($c, $n, $query) = @_;
	my ($out, $err) = ('', '');
	my $port = $c->page_server_port($n);
	IPC::Run::run([ 'psql', '-XqAtw', '-d', "host=127.0.0.1 port=$port user=x dbname=x sslmode=disable", '-c', $query ],
		'<', \undef, '>', \$out, '2>', \$err);
	return ($out, $err);
}

# By name; values that come more than once under "@name".
sub status_of
{
	my ($c, $n) = @_;
	my %said;
	foreach (split /\n/, (ask($c, $n, 'show status'))[0])
	{
		/^(\w+)\|(.*)$/ or next;
		$said{$1} = $2;
		push @{ $said{"\@$1"} }, $2;
	}
	return \%said;
}

sub number_of { my ($id) = @_; return $id =~ /^0000([0-9a-f]{8})/ ? hex $1 : 0 }

# An ordered incarnation; $fill are its random digits.
sub incarnation { my ($number, $fill) = @_; return sprintf('0000%08x', $number) . ($fill // 'a') x 20 }

# (answer, error) of the command takeover.
sub promise
{
	my ($c, $n, $id) = @_;
	my %conf = do { open my $fh, '<', "$c->{dir}/neon_dev.conf" or die $!; map { /^(\w+)=(.*)$/ ? ($1 => $2) : () } <$fh> };
	return ask($c, $n, "takeover $conf{tenant_id} $conf{timeline_id} $id");
}

# Waits until each of these page servers has been told who the members are.
sub members_known
{
	my ($c, $count, @which) = @_;
	foreach my $n (@which)
	{
		my $known = 0;
		foreach (1 .. 1800)
		{
			$known = @{ status_of($c, $n)->{'@member_of_quorum'} // [] };
			last if $known == $count;
			usleep(100_000);
		}
		return 0 if $known != $count;
	}
	return 1;
}

1;
