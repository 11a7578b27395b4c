# NeonComm::TestPoint - named places in the code where a test stops a process or
# makes it fail (include/nc/shared/test_point.h).  Only a test build has them: a
# script that uses this module skips itself on a release build, and
# test/rules.sh runs all such scripts on a test build.
#
#	use NeonComm::TestPoint;
#	my $p = NeonComm::TestPoint->new($c);            # a session of its own
#	$p->pause('client-submitted', pid => $s->pid);
#	$s->send('SELECT ...');
#	$p->wait('client-submitted');                    # until a process is stopped there
#	...
#	$p->disarm('client-submitted');                  # it goes on
#
# Options of pause, error, true, kill and fail: pid => N (0: any process),
# rel => relfilenode (at points that know one; 0: any), times => N (visits to
# act on, -1: all), skip => N (visits to let pass first).
package NeonComm::TestPoint;

use strict;
use warnings;

use Errno ();
use Test::More ();

# How long a wait for a process may take before it counts as a hang.
my $GIVE_UP_MS = 120_000;

sub available
{
	my $dir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --pkglibdir`;
	chomp $dir;
	open my $fh, '<:raw', "$dir/neon_comm.so" or return 0;
	local $/;
	return index(<$fh>, 'nc_test_arm') >= 0;
}

sub import
{
	Test::More::plan(skip_all => 'needs a test build, test/rules.sh makes one') unless available();
	return;
}

sub new
{
	my ($class, $cluster) = @_;

	$cluster->sql(q{CREATE SCHEMA IF NOT EXISTS nc_test;
		CREATE OR REPLACE FUNCTION nc_test.arm(point text, action text, arg int, times bigint, skip bigint, pid int, rel oid)
			RETURNS void LANGUAGE C STRICT AS 'neon_comm', 'nc_test_arm';
		CREATE OR REPLACE FUNCTION nc_test.wake(point text)
			RETURNS int LANGUAGE C STRICT AS 'neon_comm', 'nc_test_wake';
		CREATE OR REPLACE FUNCTION nc_test.wait(point text, n int, give_up_ms int)
			RETURNS void LANGUAGE C STRICT AS 'neon_comm', 'nc_test_wait';
		CREATE OR REPLACE FUNCTION nc_test.waiting(point text)
			RETURNS bigint LANGUAGE C STRICT AS 'neon_comm', 'nc_test_waiting';
		CREATE OR REPLACE FUNCTION nc_test.hits(point text)
			RETURNS bigint LANGUAGE C STRICT AS 'neon_comm', 'nc_test_hits';
		CREATE OR REPLACE FUNCTION nc_test.disarm_all()
			RETURNS void LANGUAGE C STRICT AS 'neon_comm', 'nc_test_disarm_all';
		CREATE OR REPLACE FUNCTION nc_test.set_next_oid(next oid)
			RETURNS void LANGUAGE C STRICT AS 'neon_comm', 'nc_test_set_next_oid';
		REVOKE ALL ON ALL FUNCTIONS IN SCHEMA nc_test FROM PUBLIC;});
	my $self = bless { session => $cluster->session }, $class;
	# what it will need from catalogs is cached now: it must work while pages cannot be read
	$self->pause('warm-up', times => 1);
	$self->wait('warm-up', 0);
	$self->wake('warm-up');
	$self->hits('warm-up');
	$self->waiting('warm-up');
	$self->disarm_all;
	return $self;
}

sub _arm
{
	my ($self, $point, $action, $arg, %o) = @_;
	$self->{session}->query(sprintf(q{SELECT nc_test.arm('%s', '%s', %d, %d, %d, %d, %d::oid)}, $point, $action,
		$arg, $o{times} // -1, $o{skip} // 0, $o{pid} // 0, $o{rel} // 0));
	return;
}

sub pause  { my ($s, $point, %o) = @_; return $s->_arm($point, 'pause', 0, %o) }
sub error  { my ($s, $point, %o) = @_; return $s->_arm($point, 'error', 0, %o) }
sub true   { my ($s, $point, %o) = @_; return $s->_arm($point, 'true', 0, %o) }
sub kill   { my ($s, $point, %o) = @_; return $s->_arm($point, 'kill', 0, %o) }
sub disarm { my ($s, $point) = @_; return $s->_arm($point, 'none', 0) }

# fail('smgr-keep-write', 'ENOSPC', ...)
sub fail
{
	my ($self, $point, $name, %o) = @_;
	return $self->_arm($point, 'errno', Errno->can($name)->(), %o);
}

sub disarm_all { my ($s) = @_; $s->{session}->query('SELECT nc_test.disarm_all()'); return }

# Until so many processes (1) are stopped there.
sub wait
{
	my ($self, $point, $n) = @_;
	$self->{session}->query(sprintf(q{SELECT nc_test.wait('%s', %d, %d)}, $point, $n // 1, $GIVE_UP_MS));
	return;
}

# Those who wait go on, the point stays armed; returns their number.
sub wake    { my ($s, $point) = @_; return $s->{session}->query("SELECT nc_test.wake('$point')") }
sub waiting { my ($s, $point) = @_; return $s->{session}->query("SELECT nc_test.waiting('$point')") }

# Visits acted on since the point was armed.
sub hits { my ($s, $point) = @_; return $s->{session}->query("SELECT nc_test.hits('$point')") }

# The number that the next relation gets (if none has it).
sub set_next_oid { my ($s, $oid) = @_; $s->{session}->query("SELECT nc_test.set_next_oid($oid)"); return }

sub close { my ($s) = @_; $s->{session}->close; return }

1;
