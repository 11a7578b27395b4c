# Every view, column and function of the extension has a comment, every setting a long description,
# and a role that only monitors reads all views and changes nothing.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1);
my $s = $c->session;
my $ns = q{'neon_comm'::regnamespace};

is($s->query("SELECT string_agg(relname, ' ') FROM pg_class c WHERE relnamespace = $ns AND relkind = 'v'
	AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''"), '', 'each view has a comment');
is($s->query("SELECT string_agg(relname || '.' || attname, ' ') FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
	WHERE relnamespace = $ns AND relkind = 'v' AND attnum > 0 AND coalesce(col_description(c.oid, attnum), '') = ''"),
	'', 'each column has one');
is($s->query("SELECT string_agg(proname, ' ') FROM pg_proc p WHERE pronamespace = $ns
	AND coalesce(obj_description(p.oid, 'pg_proc'), '') = ''"), '', 'each function has one');
cmp_ok($s->query("SELECT count(*) FROM pg_class WHERE relnamespace = $ns AND relkind = 'v'"), '>=', 11, 'and there are some');

my $undescribed = q{SELECT string_agg(name, ' ') FROM pg_settings
	WHERE name LIKE 'neon\_%' AND (coalesce(short_desc, '') = '' OR coalesce(extra_desc, '') = '' OR short_desc = extra_desc)};
my $settings = q{SELECT count(*) FROM pg_settings WHERE name LIKE 'neon\_%'};
cmp_ok($s->query($settings), '>=', 60, 'the compute has settings');
is($s->query($undescribed), '', 'each setting of the compute has a long description');
(my $of_server = $undescribed) =~ s/neon\\_%/%/;
like($s->query($of_server), qr/\bport\b/, 'settings of the server without one are found');

# ---- a role that monitors ----
$s->query('CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN');
$s->query('SET ROLE watcher');
foreach my $view (split /\n/, $s->query("SELECT relname FROM pg_class WHERE relnamespace = $ns AND relkind = 'v' ORDER BY 1"))
{
	my ($rows, $err) = $s->try("SELECT count(*) >= 0 FROM (SELECT * FROM neon_comm.$view) v");
	is("$rows$err", 't', "a monitor reads $view");
	($rows, $err) = $s->try("SELECT * FROM neon_comm.$view LIMIT 0");
	is($err, '', 'with all its columns');
}
foreach my $what ('neon_comm.reset()', 'neon_comm.sweep()', 'neon_comm.restart_communicator()')
{
	my ($rows, $err) = $s->try("SELECT $what");
	like($err, qr/permission denied/, "it may not call $what");
}
$s->query('RESET ROLE; SET ROLE nobody');
like(($s->try('SELECT neon_comm.reset()'))[1], qr/permission denied/, 'nor may anybody');
$s->query('RESET ROLE; GRANT USAGE ON SCHEMA neon_comm TO nobody; GRANT EXECUTE ON FUNCTION neon_comm.reset() TO nobody; SET ROLE nobody');
is(($s->try('SELECT neon_comm.reset()'))[1], '', 'but who was granted it');
$s->query('RESET ROLE');
$c->check_logs;
done_testing();
