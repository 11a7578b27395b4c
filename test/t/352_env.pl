# neon_dev env: what a shell gets from it leads to the cluster, whatever was set before.  JSON has booleans where there
# are some, and means the same as --values.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use JSON::PP ();
use NeonComm::Cluster;
use Test::More;

my $dev = NeonComm::Cluster::neon_dev_path();
my $c = bless { dir => File::Temp::tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1) . '/a $x `b;#', allowed => [] }, 'NeonComm::Cluster';
$c->dev('init', '-D', $c->{dir}, '--quiet', '--shards', 1, '--checksums', '--conf', 'shared_buffers=16MB');
$c->start;
# a superuser with a name that needs quotes, as an adopted cluster may have
$c->sql(q{CREATE ROLE "O'Al ice" SUPERUSER LOGIN});
{
	local ($^I, @ARGV) = ('', "$c->{dir}/neon_dev.conf");
	while (<>) { print s/^superuser=.*/superuser=O'Al ice/r }
}

# ---- env

my ($ok, $env) = $c->try_dev('env', '-D', $c->{dir});
ok($ok, 'env') or diag($env);
chomp(my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`);
foreach my $shell (grep { -x "/bin/$_" } qw(sh bash))
{
	local @ENV{qw(NEON_DEV PGHOST PGHOSTADDR PGPORT PGSERVICE PGSSLMODE PGUSER PGDATABASE NEON_DEV_DIR)} =
	  ($dev, 'nowhere.invalid', '192.0.2.1', '1', 'nothing', 'verify-full', 'nobody', 'nothing', '/nowhere');
	my $out = `/bin/$shell -c 'eval "\$("\$NEON_DEV" env -D "\$1")"; $bindir/psql -XAtc "SELECT current_user, current_database(), inet_server_port()"; "\$NEON_DEV" conninfo' x '$c->{dir}' 2>&1`;
	like($out, qr/^O'Al ice\|postgres\|(\d+)\nhost=127\.0\.0\.1 port=\1 user='O\\'Al ice' dbname=postgres\n\z/, "$shell: psql, and neon_dev without -D");
}
my ($again, $said) = $c->try_dev('env', '-D', '/nowhere');
ok(!$again, 'of what is no cluster nothing is printed that a shell could take');
unlike($said, qr/^export/m, 'but an error');

# ---- JSON

my %value = map { /^(\w+)\.(\w+)=(.*)$/ ? ("$1.$2" => $3) : () } split /\n/, $c->dev('status', '-D', $c->{dir}, '--values', '--no-measure');
my $json = JSON::PP->new->decode($c->dev('status', '-D', $c->{dir}, '--json', '--no-measure'));
my (@booleans, @words);
foreach my $section (sort keys %$json)
{
	foreach my $key (sort keys %{ $json->{$section} })
	{
		my $v = $json->{$section}{$key};
		push @booleans, "$section.$key" if JSON::PP::is_bool($v);
		push @words, "$section.$key" if defined $v && !ref $v && $v =~ /^(?:on|off|true|false|t|f|yes|no)\z/;
		push @words, "$section.$key is no value of --values" unless exists $value{"$section.$key"};
	}
}
is("@words", '', 'no boolean is a word');
is("@booleans", join(' ', sort grep { $value{$_} =~ /^(?:on|off)\z/ } keys %value), 'they are those that --values has as on and off');
cmp_ok(scalar @booleans, '>=', 6, 'there are some');
is($json->{cluster}{checksums}, JSON::PP::true(), 'on is true');
is($json->{page_server_0}{replay_paused}, JSON::PP::false(), 'off is false');
is($json->{compute}{port}, $value{'compute.port'}, 'numbers are numbers');
is($json->{cluster}{dir}, $c->{dir}, 'and strings are strings');
is($json->{cluster}{write_quorum}, undef, 'what there is not is null');
done_testing();
