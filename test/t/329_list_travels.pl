# The list of the file cache's pages goes elsewhere by a command of the operator, and a compute that begins from nothing gets
# it back by another one: it is warm then. A command that fails, hangs, or brings nothing of use hurts nobody.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $c = NeonComm::Cluster->new(
	shards => 2,
	conf => [ 'neon_comm.lfc_size=64MB', 'neon_comm.lfc_list_save_interval=0', 'neon_comm.lfc_list_to_page_servers=off', 'neon_comm.sweep_interval=200ms',
		'max_worker_processes=20' ]);
my $top = $c->{dir} =~ s{/[^/]*$}{}r;
my $away = "$top/list of %";

sub text_of { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return scalar(<$fh>) // '' }
sub at_work { return scalar $c->pids_of('compute', qr/cache list/) }

sub set
{
	my (%set) = @_;
	$c->configure({ map { ("neon_comm.lfc_list_$_" => $set{$_} =~ s/'/''/gr) } keys %set });
	return $c->reload_is_over;
}

my $read = 'SELECT count(*), sum(length(f)) FROM t';
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('w', 400) AS f FROM generate_series(1, 20000) g; VACUUM t});
$c->evict;
my $answer = $c->sql($read);
ok($c->into_cache($read), 'the table is in the cache');
cmp_ok($c->sql('SELECT pg_table_size($$t$$) / 8192'), '>', 1000, 'and larger than shared buffers');

# ---- it goes away

is($c->sql('SELECT neon_comm.lfc_save() > 1000'), 't', 'a list without a command');
ok(!at_work(), 'nothing runs');
my $path = q{'} . ($away =~ s/%/%%/gr) . q{'};
set(save_command => "cp %p $path.new && mv $path.new $path && echo '100%%' >$top/said");
$c->sql('SELECT neon_comm.lfc_save()');
ok(until_true(sub { -s $away && -s "$top/said" }), 'lfc_save() has the command run');
is(text_of($away), text_of("$c->{dir}/compute/neon_comm.lfc.index"), 'which gets the list');
is(text_of("$top/said"), "100%\n", '%% is a percent sign');
unlink $away or die $!;
set(save_interval => 1);
ok(until_true(sub { -s $away }), 'it runs by itself, too');
set(save_interval => 0);
ok(until_true(sub { !at_work() }), 'and ends');

# ---- what goes wrong

my $from = length $c->log_text('compute');
set(save_command => 'echo unhappy >&2; exit 3');
$c->sql('SELECT neon_comm.lfc_save()');
ok($c->wait_log('compute', qr/lfc_list_save_command failed: child process exited with exit code 3.*\n.*DETAIL:  The command was: echo unhappy/, $from), 'a failure is told');
set(save_command => "echo \$\$ >'$top/hangs'; sleep 100000; true");
$c->sql('SELECT neon_comm.lfc_save()');
ok(until_true(sub { -s "$top/hangs" }), 'a command that hangs');
is($c->sql($read), $answer, 'stops nobody who reads');
$c->sql('SELECT neon_comm.lfc_save()') foreach 1 .. 3;
is(scalar(at_work()), 1, 'and is alone');
my ($hanging) = text_of("$top/hangs") =~ /(\d+)/;
$c->restart('compute');
ok(until_true(sub { !kill 0, $hanging }), 'a stop ends it');
is($c->sql($read), $answer, 'the server goes on');

# ---- it comes back

sub from_nothing
{
	my (%set) = @_;
	$c->kill9('compute');
	system('rm', '-rf', "$c->{dir}/compute") == 0 or die;
	$c->dev('create-compute', '-D', $c->{dir}, '--quiet', map { ('--conf', "neon_comm.lfc_list_$_=$set{$_}") } keys %set);
	return;
}

ok(-s $away, 'there is a list elsewhere');
from_nothing(restore_command => "cp $path %p");
ok($c->wait_for(q{SELECT state = 'done' AND loaded > 1000 AND failed = 0 FROM neon_comm.prewarm_progress}), 'a compute from nothing gets the list, and is warm')
  or diag($c->sql('SELECT * FROM neon_comm.prewarm_progress'), substr($c->log_text('compute'), -3000));
my $remote = $c->counter('reads_remote');
is($c->sql($read), $answer, 'its rows are right');
cmp_ok($c->counter('lfc_hits'), '>', 1000, 'and come from the cache');
cmp_ok($c->counter('reads_remote') - $remote, '<', 300, 'hardly any from page servers');
ok(!-e "$c->{dir}/compute/neon_comm.lfc.index.fetched", 'nothing is left');

foreach my $case (
	[ 'a command that fails', 'false', qr/lfc_list_restore_command failed: child process exited with exit code 1/ ],
	[ 'one that brings nothing', 'true', qr/brought nothing of use: could not open "neon_comm\.lfc\.index\.fetched"/ ],
	[ 'one that brings something else', 'echo list >%p', qr/brought nothing of use: .* is no list of cached pages/ ],
	[ 'one that brings half of it', "head -c 2000 $path >%p", qr/brought nothing of use: .* is no list of cached pages/ ])
{
	my ($what, $command, $says) = @$case;
	my $at = length $c->log_text('compute');
	from_nothing(restore_command => $command);
	ok($c->wait_log('compute', $says, $at), "$what: is told");
	is($c->sql($read), $answer, 'the server is none the worse');
	ok(!-e "$c->{dir}/compute/neon_comm.lfc.index" && !-e "$c->{dir}/compute/neon_comm.lfc.index.fetched", 'and nothing is left of it');
}

$c->check_logs;
done_testing();
