# A fifo, or whatever else is no file, where a file should be.  Opening one waits for who
# writes to it, and the process that waits may be the postmaster: so it is never waited for,
# and the error names it.  And an identity file that cannot be written at a start: said,
# with what to do, and the start works once it can be.
#
# Seen to fail without a look at what was opened (73_any_kind of test/without): it is read
# as if it were an empty file, and the error does not say what stands there.
use strict;
use warnings;

use File::Temp qw(tempdir);
use POSIX qw(mkfifo);
use Test::More;
use NeonComm::Cluster;

my $dir = tempdir('nc_no_file_XXXXXX', TMPDIR => 1, CLEANUP => 1);
chmod 0777, $dir;
my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.lfc_size=16MB', "neon_comm.lfc_path='$dir/pages'" ]);
my ($compute, $page_server) = ("$c->{dir}/compute", "$c->{dir}/page_server_0");
my $rows = 'SELECT count(*) FROM t';
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS f FROM generate_series(1, 5000) g});

# Something else stands at the path while the sub runs.
sub in_place_of
{
	my ($path, $make, $sub) = @_;
	my $there = -e $path;
	rename $path, "$path.moved" or die "$path: $!" if $there;
	$make->($path) or die "$path: $!";
	$sub->();
	-d $path ? rmdir $path : unlink $path;
	rename "$path.moved", $path or die $! if $there;
	return;
}
sub fifo { return mkfifo($_[0], 0600) }
sub directory { return mkdir $_[0] }

# The part does not start, at once, and says why.
sub refused
{
	my ($part, $regex, $name) = @_;
	my $from = length $c->log_text($part);
	my ($ok) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 60, $part eq 'compute' ? $part : ('page-server', 0));
	ok(!$ok, "$name: no start");
	like(substr($c->log_text($part), $from), $regex, "$name: and why");
	# a start that waits has not ended
	ok(!-e "$c->{dir}/$part/postmaster.pid", "$name: nobody waits") or kill 'KILL', $c->postmaster_pid($part);
	return;
}

# ---- the list of the file cache
ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'the file cache is on');
in_place_of("$dir/pages.index", \&fifo, sub {
	my (undef, undef, $err) = $c->try_sql(q{SET statement_timeout = '30s'; SELECT neon_comm.lfc_save()});
	like($err, qr/pages\.index" is not a regular file and is left alone/, 'the list is a fifo: not written');
	$c->sql('SELECT neon_comm.lfc_prewarm()');
	ok($c->wait_log('compute', qr/prewarm: could not open ".*pages\.index": it is not a regular file/), 'the list is a fifo: not read');
	$c->restart('compute');
	is($c->sql($rows), 5000, 'the list is a fifo: stop and start pass by it');
});

# ---- files of TLS in a connection string
my $servers = $c->sql('SHOW neon_comm.page_servers');
in_place_of("$dir/ca.crt", \&fifo, sub {
	my $from = length $c->log_text('compute');
	$c->configure({ 'neon_comm.page_servers' => "$servers sslmode=verify-ca sslrootcert=$dir/ca.crt" });
	ok($c->wait_log('compute', qr/one of the files that it names for TLS is not a regular file/, $from), 'a root certificate is a fifo: not taken');
	$c->configure({ 'neon_comm.page_servers' => $servers });
	is($c->sql($rows), 5000, 'the communicator goes on');
});
in_place_of("$dir/server.crt", \&fifo, sub {
	my $from = length $c->log_text('compute');
	$c->configure({ 'neon_comm.wal_feed_ssl_cert_file' => "$dir/server.crt", 'neon_comm.wal_feed_ssl_key_file' => "$dir/server.crt" });
	ok($c->wait_log('compute', qr/server\.crt" is not a file/, $from), 'a certificate is a fifo: not taken');
	$c->configure({ 'neon_comm.wal_feed_ssl_cert_file' => '', 'neon_comm.wal_feed_ssl_key_file' => '' });
	$c->sql('INSERT INTO t VALUES (0)');
	ok($c->wait_for(q{SELECT bool_and((flush_lsn >= pg_current_wal_flush_lsn()) IS TRUE) FROM neon_comm.page_servers}), 'the feed goes on');
});

# ---- files in the data directory
$c->stop('compute');
in_place_of("$compute/neon_comm.skeleton", \&fifo, sub {
	refused('compute', qr/FATAL:  could not read file "neon_comm\.skeleton": it is not a regular file/, 'the marker') });
in_place_of("$compute/compute_identity", \&fifo, sub {
	refused('compute', qr/FATAL:  file "compute_identity" is not understood: it is not a regular file/, 'the identity') });
in_place_of("$compute/compute_identity.new", \&directory, sub {
	refused('compute', qr/FATAL:  could not write file "compute_identity":.*\n.*HINT:  .*has room .*start the server again/, 'an identity that cannot be written') });
in_place_of("$compute/recovery.conf", \&fifo, sub {
	refused('compute', qr/FATAL:  using recovery command file "recovery\.conf" is not supported/, "somebody else's recovery.conf") });
$c->start('compute');
is($c->sql($rows), 5001, 'all is there afterwards');
$c->stop('compute');
in_place_of($_, \&fifo, sub { $c->start('compute'); $c->stop('compute') })
  foreach map { "$compute/$_" } qw(neon_comm.versions neon_comm.versions.new compute_identity.new recovery.conf.neon_comm);
$c->start('compute');
is($c->sql($rows), 5001, 'what is written anew each time is no hindrance');
$c->stop('page-server', 0);
in_place_of("$page_server/page_service_identity", \&fifo, sub {
	refused('page_server_0', qr/FATAL:  page service: "page_service_identity" cannot be understood: it is not a regular file/, "a page server's identity") });
$c->start('page-server', 0);
is($c->sql($rows), 5001, 'and it is served again');
$c->check_logs;
done_testing();
