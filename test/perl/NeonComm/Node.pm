# NeonComm::Node - what tests of a single PostgreSQL::Test::Cluster node have in
# common: settings, conditions, starts that must fail.
package NeonComm::Node;

use strict;
use warnings;

use Exporter 'import';
use NeonComm::Cluster ();		# a test that must fail does so at its first failure
use NeonComm::Ports qw(free_port);
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT_OK = qw(conf free_port until_true refuses_to_start);

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
