# The outage drill: all processes of all page servers are frozen, nobody has a session, no page is asked for. The
# exporter of the compute, neon_dev top and neon_dev doctor say what is wrong, and when it is over that all is well. How soon each
# says it is told in notes.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);
use NeonComm::Cluster;
use NeonComm::Http qw(get metrics);
use NeonComm::Node qw(free_port until_true);

my $port = free_port();
my $c = NeonComm::Cluster->new(shards => 2, buffers => '16MB', conf => [ "neon_comm.metrics_port=$port", 'neon_comm.wal_feed_timeout=10min' ]);
my @frozen;
sub thaw { kill 'CONT', splice @frozen; return }
END { local $?; thaw() }

# Asks until a page of the exporter says this; seconds since then, or undef.
sub endpoint_says
{
	my ($since, $page, $regex) = @_;
	my $last = '';
	until_true(sub { my $a = get($port, $page); $last = $a ? "$a->{status} $a->{body}" : ''; $last =~ $regex }) and return time - $since;
	diag("$page: $last");
	return;
}

# Lines of a command as they come, each with the seconds since it was called.
sub lines_of
{
	my (@command) = @_;
	my ($began, @lines) = (time);
	open my $pipe, '-|', NeonComm::Cluster::neon_dev_path(), @command or die $!;
	while (<$pipe>) { push @lines, [ time - $began, $_ ] }
	close $pipe;
	return ($? >> 8, time - $began, @lines);
}
sub first_line { my ($regex, @lines) = @_; my ($found) = grep { $_->[1] =~ $regex } @lines; return $found ? $found->[0] : undef }
sub told { my ($what, $seconds) = @_; return note(sprintf '%s: %.1f s', $what, $seconds // -1) }

$c->sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS id');
ok(defined endpoint_says(time, '/readyz', qr/^200 .*"problems":\[\],"page_servers_away":\[\]/), 'all is well');
ok(until_true(sub { (lines_of('doctor', '-D', $c->{dir}))[0] == 0 }), 'doctor finds nothing');

# ---- nobody has a session, and all page servers stand still
@frozen = map { ($c->postmaster_pid("page_server_$_"), $c->pids_of("page_server_$_", qr/./)) } 0, 1;
kill 'STOP', @frozen;
my $since = time;
my $soon = endpoint_says($since, '/readyz', qr/^503 .*"WAL feed: no page server streams and answers".*"page_servers_away":\["page_server_0 has not answered for [\d.]+ s","page_server_1 has not answered/);
ok(defined $soon, '/readyz says that no page server answers');
told('/readyz, since they were frozen', $soon);
my $m = metrics($port);
is(scalar(grep { /^neon_comm_page_server_silence_seconds\{/ && $m->{$_} > 0 } keys %$m), 2, 'metrics say since when');

my ($status, $end, @lines) = lines_of('top', '-D', $c->{dir}, '--once');
is($status, 0, 'top ends');
foreach my $n (0, 1)
{
	ok(defined first_line(qr/^! compute: page_server_$n has not answered for/, @lines), "top says that page server $n does not answer the compute");
	ok(defined first_line(qr/^! page server $n: /, @lines), 'nor top');
}
told('top --once', $end);
($status, $end, @lines) = lines_of('doctor', '-D', $c->{dir});
is($status, 1, 'doctor finds something');
foreach my $n (0, 1)
{
	$soon = first_line(qr/^error +process +page server $n: stopped by a signal/, @lines);
	ok(defined $soon, "doctor says that page server $n stands still");
	told("doctor, page server $n", $soon);
	ok(defined first_line(qr/^error +page server +page server $n: no answer in 6 s/, @lines), 'and that it gives no answer');
}
told('doctor, to its end', $end);

# ---- it is over
thaw();
ok(until_true(sub { my ($rc, undef, @now) = lines_of('top', '-D', $c->{dir}, '--once'); $rc == 0 && !grep { $_->[1] =~ /^! / } @now }), 'top: all is well again');
ok(defined endpoint_says(time, '/readyz', qr/^200 .*"problems":\[\],"page_servers_away":\[\]/), 'the exporter: all is well again');
ok(until_true(sub { (lines_of('doctor', '-D', $c->{dir}))[0] == 0 }), 'so does doctor');
is($c->sql('SELECT count(*) FROM t'), 1000, 'the table is there');
$c->check_logs;
done_testing();
