# NeonComm::Figures - every figure of /metrics must be moved by a test. The figures of a compute or a page server are
# those of its lists (families.def, counters.def), so a new one is missed by name until something moves it.
#
#   my $f = NeonComm::Figures->new('neon_comm');              # or 'neon_page_service'
#   $f->begin($port);                                         # what they are
#   ... a cause ...
#   $f->look('a cause');                                      # notes which have changed
#   $f->begin($other_port); ...                               # of another cluster, or after a restart
#   $f->judge(except => \%why, only => \@names);              # one check
#
# A figure has moved when a sample of it has another value than at some look before, of the same server; with it go
# away samples that were there, and come others (an info, whose value is always 1, moves by its labels).
package NeonComm::Figures;

use strict;
use warnings;

use FindBin;
use Test::More ();
use NeonComm::Http qw(metrics);
use NeonComm::Node qw(until_true);

# What only a test build can move: 389_figures_of_faults does, and 388_figures leaves it out.
our @BY_TEST_POINTS = map { "neon_comm_$_" } qw(found_late lfc_given_up lfc_stale reads_zero_recovery);

my %lists = (
	neon_comm => [ 'src/metrics/families.def', 'include/nc/obs/counters.def' ],
	neon_page_service => ['src/page_service/families.def']);

sub new
{
	my ($class, $of) = @_;
	my %families;

	foreach my $file (map { "$FindBin::RealBin/../../$_" } @{ $lists{$of} })
	{
		open my $fh, '<', $file or die "$file: $!";
		while (<$fh>)
		{
			$families{$1} = 1 if /^NC_FAMILY\(\w+, "(\w+)"/;
			$families{ 'neon_comm_' . $1 =~ s/_us$/_seconds/r } = 1 if /^NC_COUNTER\(\w+, "(\w+)"/;
		}
	}
	die "no figures of $of" if keys %families < 20;
	return bless { families => \%families, moved => {} }, $class;
}

# OpenMetrics: a family has its bare name there.
sub samples { my ($self) = @_; return metrics($self->{port}, 'Accept: application/openmetrics-text') }

sub begin
{
	my ($self, $port) = @_;
	$self->{port} = $port;
	until_true(sub { $self->{last} = $self->samples; keys %{ $self->{last} } > 20 }) or die "no metrics at port $port";
	return;
}

# Notes what has changed since the last look; returns the samples.
sub look
{
	my ($self, $cause) = @_;
	my ($then, $now) = ($self->{last}, $self->samples);

	die "no metrics at port $self->{port}" if keys %$now < 20;
	foreach my $sample (grep { ($then->{$_} // '') ne ($now->{$_} // '') } keys %$now, keys %$then)
	{
		my ($name) = $sample =~ /^(\w+)/;
		$name =~ s/_(?:total|info|bucket|sum|count)$// unless $self->{families}{$name};
		next if $self->{moved}{$name};
		$self->{moved}{$name} = $cause;
		push @{ $self->{by}{$cause} }, $name;
	}
	$self->{last} = $now;
	return $now;
}

# Waits until a cause has moved these (names without their prefix).
sub moves
{
	my ($self, $cause, @names) = @_;
	my ($prefix) = (keys %{ $self->{families} })[0] =~ /^(neon_comm|neon_page_service)_/;
	my @left;
	my $all = until_true(sub { $self->look($cause); @left = grep { !$self->{moved}{"${prefix}_$_"} } @names; !@left });
	return Test::More::ok($all, "$cause: moves @names") || Test::More::diag("not moved: @left");
}

sub judge
{
	my ($self, %o) = @_;
	my $families = $self->{families};
	my %except = map { $_ => 1 } @{ $o{except} // [] };

	Test::More::note("$_: @{ $self->{by}{$_} }") foreach sort keys %{ $self->{by} // {} };
	Test::More::is(join(' ', grep { !$families->{$_} } sort keys %{ $self->{moved} }), '', 'all that has moved is on a list');
	Test::More::is(join(' ', grep { !$families->{$_} } sort keys %except), '', 'as is all that is left out');
	my @wanted = sort grep { !$except{$_} } $o{only} ? @{ $o{only} } : keys %$families;
	return Test::More::is(join(' ', grep { !$self->{moved}{$_} } @wanted), '', scalar(@wanted) . ' figures have moved, each by a cause');
}

1;
