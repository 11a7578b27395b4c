# A compute is a primary and nothing else: with standby.signal, recovery.signal or the label of a
# backup in its directory, or with the control file of a standby, it does not start, says what to do
# instead, and its directory is as it was.  A page server is a standby and nothing else.  The same holds
# when one process is killed and the postmaster starts over in place.
use strict;
use warnings;

use File::Copy qw(copy);
use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $c = NeonComm::Cluster->new(shards => 1, conf => ['restart_after_crash=on'], ps_conf => ['restart_after_crash=on']);
my ($compute, $page_server) = ("$c->{dir}/compute", "$c->{dir}/page_server_0");

sub put
{
	my ($file, $text) = @_;
	open my $fh, '>', $file or die "$file: $!";
	print $fh $text;
	close $fh or die $!;
	chmod 0600, $file;
	return;
}

# The part does not start, and its log says why.
sub refused
{
	my ($part, $regex, $name) = @_;
	my $from = length $c->log_text($part);
	my ($ok) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 30, $part eq 'compute' ? $part : ('page-server', 0));
	ok(!$ok, "$name: no start");
	my $log = substr $c->log_text($part), $from;
	like($log, $regex, $name);
	unlike($log, qr/redo starts|database system is ready/, "$name: nothing was replayed");
	return $log;
}

# One process of the part is killed: the postmaster does not start over, but ends, and its log says why.
sub ends
{
	my ($part, $pid, $regex, $name) = @_;
	my $from = length $c->log_text($part);
	my $postmaster = $c->postmaster_pid($part);
	kill 'KILL', $pid or die "no process to kill: $!";
	ok(until_true(sub { !kill 0, $postmaster }), "$name, one process killed: the server ends");
	my $log = substr $c->log_text($part), $from;
	like($log, $regex, "$name: and says why");
	unlike($log, qr/redo starts|entering standby mode|starting archive recovery|database system is ready/, "$name: nothing was replayed");
	return;
}

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS f FROM generate_series(1, 5000) g;
	CREATE SEQUENCE s; SELECT nextval('s')});
my $label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
  . "BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-01 00:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n";

# ---- after a clean stop and after a crash
foreach my $how ('stop', 'kill9')
{
	$c->$how('compute');
	foreach my $case (
		[ 'standby.signal', '', qr/a neon_comm compute cannot be a standby/ ],
		[ 'recovery.signal', '', qr/a neon_comm compute cannot be recovered from an archive/ ],
		[ 'backup_label', $label, qr/a neon_comm compute cannot be restored from a backup of its directory/ ])
	{
		my ($file, $text, $says) = @$case;
		put("$compute/$file", $text);
		my $log = refused('compute', qr/FATAL:.*$says/, "$how, $file");
		like($log, qr/DETAIL:.*"$file"/, 'the file is named');
		like($log, qr/HINT:.*page servers/, 'and what to do');
		unlike(join(' ', $log =~ /HINT:.*/g), qr/remove|anew|delete/i, 'no step that destroys anything is advised');
		ok(-f "$compute/$file", 'it is left where it was');
		unlink "$compute/$file" or die $!;
	}
	# archive recovery in its middle, the label being read already
	$c->stop('page-server', 0);
	copy("$compute/global/pg_control", "$compute/kept") or die $!;
	copy("$page_server/global/pg_control", "$compute/global/pg_control") or die $!;
	refused('compute', qr/FATAL:.*a neon_comm compute cannot be a standby.*\n.*DETAIL:.*pg_control/, "$how, control file of a standby");
	rename "$compute/kept", "$compute/global/pg_control" or die $!;
	$c->start;
	is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', "$how: and all is there");
}

# ---- a crash of one process
$c->configure({ 'restore_command' => 'false' });
foreach my $case (
	[ 'standby.signal', '', qr/FATAL:.*a neon_comm compute cannot be a standby/ ],
	[ 'recovery.signal', '', qr/FATAL:.*a neon_comm compute cannot be recovered from an archive/ ],
	[ 'backup_label', $label, qr/FATAL:.*a neon_comm compute cannot be restored from a backup of its directory/ ])
{
	my ($file, $text, $says) = @$case;
	ok(until_true(sub { -f "$compute/recovery.conf" }), 'recovery is over, and the file for stock servers is there');
	my $backend = $c->session;
	put("$compute/$file", $text);
	ends('compute', $backend->pid, $says, $file);
	ok(-f "$compute/$file", 'the file is left where it was');
	ok(-f "$compute/recovery.conf", 'and the one for stock servers too');
	unlink "$compute/$file" or die $!;
	$c->start('compute');
	is($c->sql('SELECT (SELECT timeline_id FROM pg_control_checkpoint()), count(*), sum(id) FROM t'), '1|5000|12502500', "$file: and all is there");
}
$c->allow_log(qr/was terminated by signal 9/);

# ---- page servers
my ($worker) = $c->pids_of('page_server_0', qr/neon page service \d/);
rename "$page_server/standby.signal", "$page_server/kept" or die $!;
ends('page_server_0', $worker, qr/FATAL:.*is not set up as a standby/, 'page server without standby.signal');
rename "$page_server/kept", "$page_server/standby.signal" or die $!;
$c->start('page-server', 0);
$c->stop('page-server', 0);
rename "$page_server/standby.signal", "$page_server/kept" or die $!;
refused('page_server_0', qr/FATAL:.*is not set up as a standby/, 'page server without standby.signal');
put("$page_server/recovery.signal", '');
refused('page_server_0', qr/FATAL:.*is not set up as a standby/, 'page server with recovery.signal');
unlink "$page_server/recovery.signal";
rename "$page_server/kept", "$page_server/standby.signal" or die $!;
copy("$compute/neon_comm.skeleton", "$page_server/neon_comm.skeleton") or die $!;
rename "$page_server/page_service_identity", "$page_server/kept" or die $!;
refused('page_server_0', qr/FATAL:.*holds files of a neon_comm compute/, 'page server made of a compute');
ok(!-e "$page_server/page_service_identity", 'and nothing was written into it');
rename "$page_server/kept", "$page_server/page_service_identity" or die $!;
unlink "$page_server/neon_comm.skeleton" or die $!;
$c->start('page-server', 0);
$c->evict;
is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', 'and all is there');
$c->check_logs;
done_testing();
