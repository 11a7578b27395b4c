# NeonComm::Members - what tests of takeovers ask page servers (docs/takeover.md).
package NeonComm::Members;

use strict;
use warnings;

use Exporter 'import';
use NeonComm::Ports qw(free_port);
use IPC::Run ();
use Time::HiRes qw(usleep);

our @EXPORT_OK = qw(ask status_of promise incarnation number_of members_known settings_of edit disown_compute);

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

# What neon_dev.conf says.
sub settings_of
{
	my ($c) = @_;
	open my $fh, '<', "$c->{dir}/neon_dev.conf" or die $!;
	return map { /^(\w+)=(.*)$/ ? ($1 => $2) : () } <$fh>;
}

# Does something to each line of a file.
sub edit
{
	my ($file, $edit) = @_;
	open my $fh, '+<', $file or die "$file: $!";
	my @lines = <$fh>;
	$edit->() foreach @lines;
	seek $fh, 0, 0;
	truncate $fh, 0;
	print $fh @lines;
	return close $fh;
}

# The cluster's compute is another one from now on, as if it had been on a machine that nobody reaches: it runs on in
# compute_lost, and who takes over has no directory yet and other ports. ({ name => port } before, the same after.)
sub disown_compute
{
	my ($c) = @_;
	my %conf = settings_of($c);
	my %before = map { ($_ => $conf{$_}) } qw(compute_port wal_feed_port);
	my %after;
	foreach my $name (sort keys %before)
	{
		$after{$name} = free_port();
		edit("$c->{dir}/neon_dev.conf", sub { s/^$name=.*/$name=$after{$name}/ });
	}
	edit("$c->{dir}/compute.conf", sub { foreach my $name (keys %after) { s/\b$before{$name}\b/$after{$name}/ } });
	rename "$c->{dir}/compute", "$c->{dir}/compute_lost" or die $!;
	delete $c->{conninfo};
	return (\%before, \%after);
}

# (answer, error) of the command takeover.
sub promise
{
	my ($c, $n, $id) = @_;
	my %conf = settings_of($c);
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
