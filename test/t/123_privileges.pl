# Who may use what the extension has, and what happens with arguments and values
# that nobody would give in good faith.
#
# Objects are enumerated from the catalog, so that a new one which is open to PUBLIC
# fails here.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use NeonComm::Cluster;
use Test::More;

my $cluster = NeonComm::Cluster->new(shards => 1, buffers => '16MB');
$cluster->sql(q{CREATE ROLE nobody_special LOGIN; CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher;
	CREATE TABLE t AS SELECT generate_series(1, 1000) g});

# ---- nothing for PUBLIC

my $members = q{SELECT %s FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass
	JOIN %s o ON d.objid = o.oid AND d.classid = '%s'::regclass WHERE e.extname = 'neon_comm' AND d.deptype = 'e'};

sub objects
{
	my ($what, $catalog, $where) = @_;
	return split /\n/, $cluster->sql(sprintf($members, $what, $catalog, $catalog) . ($where // '') . ' ORDER BY 1');
}

my @functions = objects('o.oid::regprocedure::text', 'pg_proc');
my @relations = objects('o.oid::regclass::text', 'pg_class', q{ AND relkind IN ('r', 'v', 'm', 'S', 'f', 'p')});
cmp_ok(scalar @functions, '>=', 9, 'the extension has functions');
cmp_ok(scalar @relations, '>=', 4, 'and views');
is_deeply([ objects(q{o.oid::regprocedure::text}, 'pg_proc', q{ AND has_function_privilege('public', o.oid, 'EXECUTE')}) ],
	[], 'PUBLIC may execute none of the functions');
is_deeply([ objects('o.oid::regclass::text', 'pg_class',
			q{ AND relkind <> 'c' AND has_table_privilege('public', o.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')}) ],
	[], 'nor touch one of the views');
is_deeply([ objects(q{o.oid::regprocedure::text}, 'pg_proc', q{ AND prosecdef}) ], [],
	'no function runs with the rights of its owner');
is($cluster->sql(q{SELECT has_schema_privilege('public', 'neon_comm', 'CREATE') OR has_schema_privilege('public', 'neon_comm', 'USAGE')}),
	'f', 'the schema is closed as well');

sub as_role
{
	my ($role, $sql) = @_;
	return $cluster->try_sql("SET ROLE $role; $sql");
}

foreach my $relation (@relations)
{
	my ($rc, $out, $err) = as_role('nobody_special', "SELECT * FROM $relation");
	like($err, qr/permission denied/, "$relation is not for everybody");
	($rc, $out, $err) = as_role('watcher', "SELECT * FROM $relation");
	is($rc, 0, "$relation is for pg_monitor") or diag($err);
}

# What changes something is the superuser's; all else pg_monitor may do.
my @denied = grep { (as_role('watcher', "SELECT has_function_privilege('$_'::regprocedure, 'EXECUTE')"))[1] ne 't' } @functions;
ok((grep { /sweep\(\)/ } @denied) && (grep { /restart_communicator\(\)/ } @denied),
	'pg_monitor may not sweep or restart');
ok(!(grep { /(get_counters|get_connections|get_slots|get_page_servers|status|local_bytes)\(/ } @denied),
	'and may read') or diag("@denied");

foreach my $setting (split /\n/, $cluster->sql(q{SELECT name FROM pg_settings WHERE name LIKE 'neon\_comm.%'
	AND context <> 'user' ORDER BY 1}))
{
	my ($rc, $out, $err) = as_role('nobody_special', "SET $setting = '1'");
	isnt($rc, 0, "nobody else sets $setting");
}
my ($rc, $out) = as_role('nobody_special', q{SELECT count(*) FROM pg_settings WHERE name IN ('neon_comm.page_servers',
	'neon_comm.token_file', 'neon_comm.wal_feed_ssl_key_file')});
is($out, '0', 'addresses and files are not shown to everybody');

# who may not make a tablespace learns nothing about paths
foreach my $path ('/', '/nowhere', '/etc', '/etc/passwd')
{
	my ($rc, $out, $err) = as_role('nobody_special', "CREATE TABLESPACE x LOCATION '$path'");
	like($err, qr/permission denied to create tablespace/, "CREATE TABLESPACE at $path: no permission, and no more is said");
}
like(($cluster->try_sql(q{CREATE TABLESPACE x LOCATION '/'}))[2], qr/tablespaces with a location are not supported/,
	'a superuser is told the reason');

# ---- hostile arguments

my %values = (
	boolean => [ 'NULL', 'true', 'false' ],
	integer => [ 'NULL', '0', '-1', '2147483647', '-2147483648' ],
	bigint => [ 'NULL', '0', '-1', '9223372036854775807', '(-9223372036854775808)' ],
	oid => [ 'NULL', '0', '1', '4294967295', q{'t'::regclass::oid} ],
	regclass => [ 'NULL', '0', '4294967295', q{'t'}, q{'pg_class'}, q{'pg_stat_activity'} ],
	pg_lsn => [ 'NULL', q{'0/0'}, q{'FFFFFFFF/FFFFFFFF'}, q{'0/1'} ],
	text => [ 'NULL', q{''}, q{'x'}, q{repeat('x', 10000000)}, q{'%s%n%s'}, q{E'\n\t'}, q{'../../etc/passwd'}, q{'neon_comm'} ],
	interval => [ 'NULL', q{'0'}, q{'-1 year'}, q{'178000000 years'} ],
	other => [ 'NULL' ]);

sub combinations
{
	my (@types) = @_;
	my @all = ([]);
	foreach my $type (@types)
	{
		my $list = $values{$type} // $values{other};
		@all = map { my $head = $_; map { [ @$head, "($_)::$type" ] } @$list } @all;
		@all = @all[ 0 .. 299 ] if @all > 300;
	}
	return @all;
}

my $session = $cluster->session;
my $calls = 0;
foreach my $function (@functions)
{
	next if $function =~ /restart_communicator/;
	my ($name, $arguments) = $function =~ /^(.*?)\((.*)\)$/;
	foreach my $arguments (combinations(split /,\s*/, $arguments))
	{
		my ($out, $err) = $session->try("SELECT count(*) FROM $name(" . join(', ', @$arguments) . ')');
		$calls++;
		next if $err !~ /server closed|terminat|PANIC/ && $session->query('SELECT 1') eq '1';
		fail("$name(" . join(', ', @$arguments) . ") ended the session: $err");
		last;
	}
}
cmp_ok($calls, '>=', scalar(@functions) - 1, "$calls calls end with a result or an error");
foreach my $relation (@relations)
{
	# a view is read in pieces and left in the middle
	is(($session->try("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM $relation; FETCH 1 FROM c; CLOSE c"))[1], '',
		"$relation can be left in the middle");
}

# ---- hostile settings: what postgresql.auto.conf takes must be harmless, all else an error

my @hostile = ("''", "' '", "','", "',,,,'", "'-1'", "'0'", "'99999999999999999999'", "'1e308'", "'NaN'", "'%s%n'",
	"'host='", "'host=a b c'", "'postgresql://'", "'host=''x'", "'" . 'x' x 100000 . "'", "'" . join(',', ('host=h') x 200) . "'",
	"E'\\t\\x01'", "'localhost,'", "'/'", "'../..'");
foreach my $setting (split /\n/, $cluster->sql(q{SELECT name FROM pg_settings WHERE name LIKE 'neon\_comm.%'
	AND name NOT LIKE '%test%' ORDER BY 1}))
{
	my $taken = 0;
	foreach my $value (@hostile)
	{
		my ($out, $err) = $session->try("ALTER SYSTEM SET $setting = $value");
		fail("$setting = " . substr($value, 0, 40) . " ends the session: $err") if $err =~ /server closed|PANIC/;
		$taken++ if $err !~ /ERROR/;
	}
	$session->query("ALTER SYSTEM RESET $setting");
	cmp_ok($taken, '<', scalar @hostile, "$setting does not take everything")
	  if $setting !~ /file$/;
}
$session->close;
is($cluster->sql('SELECT count(*) FROM t'), '1000', 'the server has survived it');
# who reads at this moment has one, and the server's own processes look at catalogs now and then
ok($cluster->wait_for('SELECT count(*) = 0 FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 'no slot is left behind');
$cluster->check_logs;
done_testing();
