#!/usr/bin/perl
#
# chaos.pl - a cluster under everything at once, for minutes.
#
#   chaos.pl --minutes N [--seed S] [--shards N] [--hosts N] [--workers N] [--steps NAME,...] [--keep]
#
# Workers move money between accounts, look at rows that identify themselves,
# create and drop tables. Meanwhile one step follows another, chosen by the seed:
# faults of the network (test/proxy), page servers killed, stopped, frozen and
# restarted, the communicator restarted, terminated and killed, backends
# cancelled, terminated and killed, settings and shard maps changed by reloads,
# the compute restarted and killed.
#
# With --hosts 2 or more each shard has so many hosts, only page servers and what leads to them are
# disturbed, one at a time, and no error may reach a client.
#
# At the end everything heals and must be exact: the sum of the balances, each
# acknowledged transfer, each row that identifies itself, each index; no slot,
# connection, descriptor or pin is left; logs hold nothing that is not expected.
#
# The last lines are "ok - ..." or "not ok - ..." and the seed. The seed gives the
# same steps; what the machine makes of them differs.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Getopt::Long;
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(time usleep sleep);

use lib abs_path(dirname(__FILE__) . '/../perl');
use NeonComm::Chaos;
use NeonComm::Cluster;
use NeonComm::Proxy;

my %o = (minutes => 3, seed => time ^ $$, shards => 3, hosts => 1, workers => 5);
GetOptions(\%o, 'minutes=f', 'seed=i', 'shards=i', 'hosts=i', 'workers=i', 'steps=s', 'keep', 'help')
  && !$o{help} && !@ARGV && $o{hosts} >= 1 && $o{hosts} <= $o{shards}
  or do { print "chaos.pl [--minutes N] [--seed S] [--shards N] [--hosts N] [--workers N] [--steps NAME,...] [--keep]\n"; exit 2 };
$ENV{NEON_TEST_KEEP} = 1 if $o{keep};
$| = 1;
# a session whose psql has ended is an error of that session, not our end
$SIG{PIPE} = 'IGNORE';
print "# seed $o{seed}, $o{minutes} minutes, $o{shards} shards, $o{hosts} hosts, $o{workers} workers\n";
my $chaos = NeonComm::Chaos->new(%o);
$chaos->prepare;
$chaos->start_workers;
$chaos->run;
$chaos->heal;
$chaos->stop_workers;
$chaos->verify;
print "# seed $o{seed}\n";
exit($chaos->failures ? 1 : 0);
