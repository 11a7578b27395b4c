# Exporters of a compute and of a page server answer by Unix sockets (docs/metrics.md, "By a Unix socket"): without
# a port too, for owner and group alone, in clear where the port insists on TLS. What is left of a process that was
# killed is replaced; what others have at that place is not.
use strict;
use warnings;

use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use Test::More;
use NeonComm::Cluster;
use NeonComm::Http qw(get);
use NeonComm::Node qw(free_port until_true);

my $dir = tempdir('/tmp/nc_XXXXXX', CLEANUP => 1);
my ($path, $theirs) = ("$dir/compute", "$dir/page_server");
my $c = NeonComm::Cluster->new(shards => 1, init => ['--tls'], conf => [ 'neon_comm.metrics_port=0', "neon_comm.metrics_listen_addresses=127.0.0.1, $path" ]);
$c->append_conf('page_server_0', "neon_page_service.metrics_port = 0\nneon_page_service.metrics_listen_addresses = '$theirs'");
$c->restart;

sub answers { my ($at, $page, $regex) = @_; return until_true(sub { my $a = get($at, $page); $a && "$a->{status} $a->{body}" =~ $regex }) }
sub mode_of { return sprintf '%04o', (stat $_[0])[2] & 07777 }

ok(answers($path, '/readyz', qr/^200 .*"ready":true/), 'a compute, without a port');
ok(answers($path, '/metrics', qr/^200 .*^neon_comm_communicator_up 1$/ms), 'its metrics');
ok(answers($theirs, '/metrics', qr/^200 .*^neon_page_service_workers_listening [1-9]/ms), 'a page server');
is(mode_of($path), '0660', 'for owner and group');
is(mode_of($theirs), '0660', 'of a page server too');

# ---- left over
$c->dev('stop', '-D', $c->{dir}, '--quiet', '--mode', 'immediate', 'compute');
my $end = -S $path;
ok($end, 'a process that was killed leaves it');
$c->start('compute');
ok(answers($path, '/readyz', qr/^200 /), 'the next one replaces it');
$c->stop('compute');
ok(!-e $path, 'one that ends by itself removes it');

# ---- somebody else's
my $other = IO::Socket::UNIX->new(Local => $path, Listen => 1) or die $!;
$c->start('compute');
ok($c->wait_log('compute', qr/neon_comm exporter: could not listen on \Q$path\E, port \d+: Address already in use/), 'somebody listens there');
close $other;
unlink $path;
ok(answers($path, '/readyz', qr/^200 /), 'until he goes');
$c->stop('compute');
open my $file, '>', $path or die $!;
print $file 'kept';
close $file;
$c->start('compute');
ok(until_true(sub { (() = $c->log_text('compute') =~ /exporter: could not listen on \Q$path\E/g) >= 2 }), 'a file that is no socket');
is(-s $path, 4, 'stays as it was');
unlink $path;
ok(answers($path, '/readyz', qr/^200 /), 'until it goes');

# ---- with TLS on the port
my $port = free_port();
$c->append_conf('compute', "neon_comm.metrics_port = $port\nneon_comm.metrics_ssl_cert_file = '$c->{dir}/security/server.crt'\n"
	  . "neon_comm.metrics_ssl_key_file = '$c->{dir}/security/server.key'");
$c->restart('compute');
ok(answers($path, '/readyz', qr/^200 /), 'the socket answers in clear');
is(get($port, '/readyz')->{status}, 403, 'the port insists on TLS');

# ---- refused
my ($rc, $out) = $c->try_dev('stop', '-D', $c->{dir}, 'compute');
$c->append_conf('compute', "neon_comm.metrics_listen_addresses = '/@{[ 'x' x 120 ]}'");
($rc, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute');
isnt($?, 0, 'a path that is too long');
like($c->log_text('compute'), qr/is neither an IP address, nor localhost, nor an absolute path that a Unix socket can have/, 'and why');
$c->allow_log(qr/invalid value for parameter "neon_comm.metrics_listen_addresses"/);
$c->check_logs;
done_testing();
