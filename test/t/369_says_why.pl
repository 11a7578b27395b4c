# A test script that dies says why where its results go, and ends with a status: PostgreSQL::Test::Utils sends STDERR to a
# log of its own, which nobody keeps. What a script catches itself is not said.
use strict;
use warnings;

use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More;

my $dir = tempdir(CLEANUP => 1);

# (status, what it says) of a script of these lines.
sub script
{
	my ($with, $lines) = @_;
	open my $fh, '>', "$dir/script.pl" or die $!;
	print $fh "use strict; use warnings; use Test::More; use $with;\nok(1, 'first');\n$lines\ndone_testing();\n";
	close $fh or die $!;
	local $ENV{TESTDIR} = $dir;
	my $said = '';
	IPC::Run::run([ $^X, (map { ('-I', $_) } @INC), "$dir/script.pl" ], '<', \undef, '>', \$said, '2>&1');
	return ($?, $said);
}

foreach my $with ('NeonComm::Cluster', 'NeonComm::Node')
{
	my ($status, $said) = script($with, q{die "of this\n";});
	isnt($status, 0, "$with: a script that dies has failed");
	is(scalar(() = $said =~ /of this/g), 1, '... and says of what, once');
	($status, $said) = script($with, q{(bless { dir => '/nowhere', owner => 0 }, 'NeonComm::Cluster')->dev('nonsense');});
	isnt($status, 0, '... and one whose neon_dev fails');
	like($said, qr/neon_dev nonsense failed:.*nonsense/s, '... says what that said');
	($status, $said) = script($with, q{eval { die "of that\n" }; ok(until_it(), 'second'); sub until_it { return eval { die "of that\n" } // 1 }});
	is($status, 0, '... but not one that catches it');
	unlike($said, qr/of that/, '... nor says it');
}

# The child of a script takes nothing away from it when it dies.
my ($status, $said) = script('NeonComm::Cluster', q{
	my $c = bless { dir => $ENV{TESTDIR}, owner => $$ }, 'NeonComm::Cluster';
	my $owner = $$;
	{ no warnings 'redefine'; *NeonComm::Cluster::try_dev = sub { print STDERR 'destroyed by ', $$ == $owner ? 'its owner' : 'a child', "\n" } }
	my $pid = fork // die $!;
	die "a child\n" if $pid == 0;
	waitpid $pid, 0;
	undef $c;});
unlike($said, qr/destroyed by a child/, 'a child that dies destroys no cluster');
like($said, qr/destroyed by its owner/, '... its owner does');
done_testing();
