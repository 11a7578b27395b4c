# NeonComm::Session - one psql process that stays open, for tests that arrange
# what several backends do one after the other.
package NeonComm::Session;

use strict;
use warnings;

use IPC::Run qw(start pump finish timeout);
use Time::HiRes qw(usleep);

# True where the test has to fail, because what it tests is taken away (test/rules.sh, test/without.sh).
our $must_fail = $ENV{NEON_TEST_FIRST_FAILURE};

# The only limit of time: a test that hangs ends, it is not judged by speed.
my $GIVE_UP_SECONDS = $must_fail ? 100 : 300;

sub new
{
	my ($class, $conninfo) = @_;
	my $self = bless { in => '', out => '', err => '', n => 0 }, $class;

	$self->{timer} = timeout($GIVE_UP_SECONDS);
	$self->{harness} = start([ 'psql', '-XqAt', '-d', $conninfo, '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timer});
	# now, while it can answer
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# Sends SQL without waiting for its end.
sub send
{
	my ($self, $sql) = @_;
	local $SIG{PIPE} = 'IGNORE';    # psql may have gone with its server
	$self->{n}++;
	$self->{in} .= "$sql\n;\n\\echo :done:$self->{n}:\n\\warn :done:$self->{n}:\n";
	# until it is written: nothing else would pump this session while others are waited for
	do { $self->{harness}->pump_nb } while ($self->{in} ne '' && $self->{harness}->pumpable);
	return;
}

# Waits for the end of what was sent; returns its output. psql's stderr has no buffer: a mark
# may come without its newline first.
sub wait
{
	my ($self) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $mark = ":done:$self->{n}:";

	$self->{timer}->start($GIVE_UP_SECONDS);
	$self->{harness}->pump
	  until ($self->{out} =~ /^\Q$mark\E\n/m && $self->{err} =~ /^\Q$mark\E\n/m)
	  || !$self->{harness}->pumpable;
	my ($out, $err) = ($self->{out}, $self->{err});
	$self->{out} = $self->{err} = '';
	$out =~ s/^\Q$mark\E\n//m;
	$err =~ s/^\Q$mark\E\n//m;
	chomp $out;
	$self->{last_error} = $err;
	return $out;
}

# True when what was sent has ended; never waits.
sub ready
{
	my ($self) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $mark = ":done:$self->{n}:";

	$self->{harness}->pump_nb;
	return $self->{out} =~ /^\Q$mark\E\n/m && $self->{err} =~ /^\Q$mark\E\n/m;
}

sub query
{
	my ($self, $sql) = @_;
	$self->send($sql);
	my $out = $self->wait;
	die "session: $sql\n$self->{last_error}" if $self->{last_error} =~ /ERROR|FATAL/;
	return $out;
}

# As query, but an error is an answer: returns (output, error text).
sub try
{
	my ($self, $sql) = @_;
	$self->send($sql);
	my $out = $self->wait;
	return ($out, $self->{last_error});
}

# Waits until a condition is true, as NeonComm::Cluster's wait_for, but with this session: a new one may
# be stuck with those that it is to watch. Ask once before the fault, so that the catalogs are known.
sub wait_for
{
	my ($self, $sql) = @_;
	foreach (1 .. ($must_fail ? 600 : 3600))
	{
		return 1 if $self->query($sql) eq 't';
		usleep(50_000);
	}
	return 0;
}

sub pid { my ($self) = @_; return $self->{pid} }

sub close
{
	my ($self) = @_;
	local $SIG{PIPE} = 'IGNORE';
	$self->{in} .= "\\q\n";
	eval { finish $self->{harness} };
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	local $SIG{PIPE} = 'IGNORE';
	eval { $self->{harness}->kill_kill(grace => 1) if $self->{harness}->pumpable };
	return;
}

1;
