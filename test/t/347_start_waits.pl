# A start waits for page servers that replay, and tells how far they are, whatever limits there are for a login that waits for
# their pages. Replay goes on a segment at a time here: when the test lets the page server have the next one.
use strict;
use warnings;

use IPC::Run;
use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'checkpoint_timeout=1h', 'max_wal_size=8GB', 'neon_comm.request_timeout=6s' ],
	ps_conf => [ 'checkpoint_timeout=1h', 'max_wal_size=8GB' ]);
my $dir = $c->{dir};
my $gate = "$dir/gate";

# ---- much to replay: all since the page server was made

foreach my $n (1 .. 3)
{
	$c->sql("CREATE TABLE t$n AS SELECT g AS id, repeat('w', 400) AS f FROM generate_series(1, 20000) g");
	$c->sql('SELECT pg_switch_wal()');
}
$c->kill9('page-server', 0);
$c->stop('compute');

# A segment is looked for in the archive first, where it never is; but the answer comes when the test says so.
mkdir $gate or die $!;
$c->append_conf('page_server_0', "neon_page_service.allow_unsafe = on\nrestore_command = 'echo %f >>$gate/asked; case %f in *.history) false;; *) while ! test -e $gate/%f -o -e $gate/all; do sleep 0.05; done; false;; esac'");
sub asked { open my $fh, '<', "$gate/asked" or return; my @names = grep { !/history/ } <$fh>; chomp @names; return @names }
sub open_gate { my ($name) = @_; open my $fh, '>', "$gate/$name" or die $!; close $fh or die $!; return }

sub said { open my $fh, '<', "$dir/start.out" or return ''; local $/; return scalar(<$fh>) // '' }
sub logins_given_up { my @all = $c->log_text('compute') =~ /FATAL: +no answer from page servers/g; return scalar @all }
my %opened;

# The next segment for which the page server asks.
sub next_segment
{
	return until_true(sub {
		my ($next) = grep { !$opened{$_} } asked();
		return 0 unless defined $next;
		open_gate($next);
		return $opened{$next} = 1;
	});
}

my $before = logins_given_up();
my $bindir = qx{$ENV{PG_CONFIG} --bindir} =~ s/\n//r;
my $h = IPC::Run::start([ "$bindir/neon_dev", 'start', '-D', $dir ], '<', \undef, '>', "$dir/start.out", '2>&1');
ok(next_segment(), 'the page server reads its first segment');
ok(until_true(sub { logins_given_up() > $before }), 'a login waits for its pages, and is given up');
ok(next_segment(), 'one segment more, during the next login');
ok(until_true(sub { logins_given_up() > $before + 1 }), 'which is given up, too');
ok(until_true(sub { said() =~ /to go|it was left alone/ }), 'a start says something');
like(said(), qr/page server 0 replays: [0-9.]+ MB to go/, '... which is how far the page server is');
open_gate('all');
ok($h->finish, 'and waits for it') or diag(said());
is($c->sql('SELECT count(*) FROM t3'), 20000, 'all is there');

$c->check_logs;
done_testing();
