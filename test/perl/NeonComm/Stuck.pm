# NeonComm::Stuck - processes that wait for a page which does not come must be
# free to leave: by statement_timeout, by cancel, by terminate.  In whatever way
# page servers fail, a test of it asks for all three.
#
#   my $stuck = NeonComm::Stuck->new($c, $warm);    # before the fault: sessions with warm catalogs
#   ... the fault ...
#   $stuck->leaves('a silent server', $sql);        # $sql waits for a page
#
# What is asserted is that the wait ends and how, not how fast.
package NeonComm::Stuck;

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);

# It waits for a page, or for another process that reads the same one: BufferIO, on 17 BufferIo, on 18
# that, AioIoCompletion or, for a handle of ours, NeonPageRead.
my $busy = q{SELECT count(*) > 0 FROM pg_stat_get_activity(%1$d) WHERE lower(wait_event) IN ('bufferio', 'aioiocompletion', 'neonpageread')
	OR EXISTS (SELECT FROM neon_comm.slots s WHERE s.pid = %1$d AND state IN ('submitted', 'taken'))};

sub new
{
	my ($class, $c, $warm) = @_;
	my $self = bless { c => $c, warm => $warm }, $class;

	$self->{watch} = $c->session;
	$self->{watch}->query("EXPLAIN SELECT pg_cancel_backend(1), pg_terminate_backend(1)");
	$self->{watch}->query(sprintf($busy, 0));
	$self->{watch}->query('SELECT count(*) FROM neon_comm.slots WHERE pid IN (1,2,3)');
	$self->{session} = [ map { $self->fresh } 1 .. 3 ];
	return $self;
}

# A session whose catalog pages and first page of the table are cached.
sub fresh
{
	my ($self) = @_;
	my $s = $self->{c}->session;

	$s->query($self->{warm});
	$s->query("SET statement_timeout = '1h'");
	$s->pid;
	return $s;
}

# Waits until a session waits for a page; false when its query ended before.
sub waits
{
	my ($self, $s) = @_;
	my $sql = sprintf($busy, $s->pid);

	foreach (1 .. 6000)
	{
		return 1 if $self->{watch}->query($sql) eq 't';
		return 0 if $s->ready;
		usleep(20_000);
	}
	return 0;
}

sub leaves
{
	my ($self, $what, $sql) = @_;
	my ($timeout, $cancel, $terminate) = @{ $self->{session} };
	my (undef, $err) = $timeout->try("SET statement_timeout = '400ms'; $sql");

	like($err, qr/statement timeout/, "$what: statement_timeout ends the wait");
	$cancel->send($sql);
	ok($self->waits($cancel), "$what: it waits") or diag($cancel->{err});
	$self->{watch}->query('SELECT pg_cancel_backend(' . $cancel->pid . ')');
	$cancel->wait;
	like($cancel->{last_error}, qr/canceling statement due to user request/, "$what: cancel ends the wait");
	$terminate->send($sql);
	ok($self->waits($terminate), "$what: it waits again") or diag($terminate->{err});
	$self->{watch}->query('SELECT pg_terminate_backend(' . $terminate->pid . ')');
	$terminate->wait;
	like($terminate->{last_error}, qr/terminating connection due to administrator command/,
		"$what: terminate ends the wait");
	is($self->{watch}->query('SELECT count(*) FROM neon_comm.slots WHERE pid IN ('
			. join(',', map { $_->pid } @{ $self->{session} }) . ')'), 0, "$what: no slot is left behind");
	$timeout->query("SET statement_timeout = '1h'");
	return;
}

# Waits for a condition with the session that watches: new ones may be stuck themselves. Ask it
# once before the fault, for its catalog pages.
sub sees { my ($self, $sql) = @_; return $self->{watch}->wait_for($sql) }

# Replaces the session that was terminated; needs servers that work.
sub refresh { my ($self) = @_; $self->{session}[2] = $self->fresh; return }

sub close { my ($self) = @_; $_->close foreach @{ $self->{session} }, $self->{watch}; return }

1;
