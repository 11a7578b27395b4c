# Whoever belongs to pg_monitor and is no superuser sees all that there is to see: each view, each function that only
# reads, as much of check() as a superuser, comparisons of tables that are not his. What changes something is refused.
use strict;
use warnings;

use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '16MB', init => [ '--hosts', 2, '--auth', '--tls' ], conf => ['neon_comm.lfc_size=8MB']);
$c->sql(q{CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE TABLE secret AS SELECT generate_series(1, 1000) AS id;
	REVOKE ALL ON secret FROM PUBLIC; CHECKPOINT});
ok($c->wait_for(q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'page servers follow');
is($c->sql(q{SELECT rolsuper OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = 'watcher'}), 'f', 'a role that may nothing');

# (exit code, output, error) of who is logged in as that role
sub watch { my ($sql) = @_; return $c->try_sql($sql, user => 'watcher') }
is((watch('SELECT session_user, current_user'))[1], 'watcher|watcher', 'logged in as that');
isnt((watch('SELECT * FROM secret'))[0], 0, 'which may not read tables');

# ---- views and functions
my @views = split /\n/, $c->sql(q{SELECT relname FROM pg_class WHERE relnamespace = 'neon_comm'::regnamespace AND relkind = 'v' ORDER BY 1});
cmp_ok(scalar @views, '>', 8, 'views');
foreach my $view (@views)
{
	my ($rc, undef, $err) = watch("SELECT count(*) FROM neon_comm.$view");
	is($rc, 0, "view $view") or diag($err);
}
foreach my $call (qw(status staging local_bytes local_blocks))
{
	my ($rc, undef, $err) = watch("SELECT count(*) FROM neon_comm.$call()");
	is($rc, 0, "$call()") or diag($err);
}

# ---- as much of check() as a superuser: what is told differs in figures only
my $check = q{SELECT string_agg(DISTINCT concat_ws('|', item, subject, state), e'\n' ORDER BY concat_ws('|', item, subject, state)) FROM neon_comm.check()};
my ($rc, $seen, $err) = watch($check);
is($rc, 0, 'check()') or diag($err);
is($seen, $c->sql($check), 'says what it says to a superuser');
unlike($seen, qr/\|unknown$/m, 'and nothing is unknown');
like($seen, qr/^$_\|/m, "it looks at: $_")
  foreach 'map', 'tenant', 'identity', 'checksums', 'version', 'slots', 'certificate', 'token', 'disk', 'settings', 'page server', 'scrub';

# ---- comparing
is((watch(q{SELECT count(*) FROM neon_comm.verify_relation('secret')}))[1], '0', 'a table of somebody else');
is((watch(q{SELECT count(*) FROM pg_class c, neon_comm.verify_relation(c.oid) v WHERE relkind IN ('r', 'i', 't')}))[1], '0', 'all tables, catalogs too');

# ---- settings can be seen, but for connection strings and files
is((watch('SHOW neon_comm.scrub_rate'))[1], '0', 'settings');

# ---- nothing can be changed
foreach my $call ('sweep()', 'restart_communicator()', 'lfc_save()', 'lfc_prewarm()', 'lfc_prewarm_stop()', q{change_members('{}', 1)})
{
	like((watch("SELECT neon_comm.$call"))[2], qr/permission denied/, "$call is refused");
}
$c->check_logs;
done_testing();
