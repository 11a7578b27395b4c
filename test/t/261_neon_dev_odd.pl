# neon_dev with odd paths and values, called many times at once, interrupted, moved, and started from a
# shell full of variables.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use IPC::Run ();
use NeonComm::Cluster;
use Test::More;
use Time::HiRes qw(usleep);

my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1));
my $dev = NeonComm::Cluster::neon_dev_path();
my $dir = "$top/a \$x[\xc3\xbc]# \`b";
my $c = bless { dir => $dir, allowed => [] }, 'NeonComm::Cluster';
my ($ok, $out);

sub text_of { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return scalar(<$fh>) // '' }
# Shared memory that a part names, and whether it is there.
sub segment { my ($part) = @_; return (split ' ', (split /\n/, text_of("$dir/$part/postmaster.pid"))[6])[1] }
sub is_there { my ($id) = @_; return scalar grep { /^0x\S+\s+$id\s/ } `ipcs -m` }

# Starts all of these at once; what each printed, and whether it was a success.
sub at_once
{
	my (@commands) = @_;
	my @out = ('') x @commands;
	my @running = map { IPC::Run::start($commands[$_], '<', \undef, '>', \$out[$_], '2>&1') } 0 .. $#commands;
	my @good = map { $_->finish ? 1 : 0 } @running;
	return (\@out, \@good);
}

# ---- a path with everything in it, keys and certificates; variables of libpq; values

{
	local @ENV{qw(PGHOST PGPASSWORD PGOPTIONS PGSSLMODE PGAPPNAME PGDATA)} = ('nowhere.invalid', 'secret', '-c work_mem=1', 'require', 'x', '/nowhere');
	$c->dev('init', '-D', $dir, '--quiet', '--shards', 1, '--auth', '--tls', '--conf', 'shared_buffers=16MB',
		'--conf', 'log_line_prefix=%m\t[%p] %b ', '--conf', 'cluster_name=x\\', '--conf', q{search_path='"$user", public'},
		'--conf', q{bonjour_name=it's}, '--conf', q{temp_tablespaces=''}, '--initdb', '-U', '--initdb', 'Al ice');
	$c->start;
}
is($c->sql(q{SELECT current_setting('log_line_prefix')}), '%m\t[%p] %b ', 'a backslash is a backslash');
is($c->sql(q{SELECT current_setting('cluster_name')}), 'x\\', 'at the end, too');
is($c->sql(q{SELECT current_setting('search_path')}), '"$user", public', 'a value in quotes is taken as it is');
is($c->sql(q{SELECT reset_val FROM pg_settings WHERE name = 'bonjour_name'}), q{it's}, 'a quote inside of a value');
is($c->sql(q{SELECT reset_val FROM pg_settings WHERE name = 'temp_tablespaces'}), '', 'quotes with nothing inside are nothing');
is($c->dev('psql', '-D', $dir, '-XAtc', 'SELECT current_user'), qq{Al ice\n}, 'psql as the superuser that initdb was given');
($ok, $out) = $c->try_dev('status', '-D', $dir, '--json');
ok($ok, 'status') or diag($out);
like($out, qr/"page_server_0":\{"state":"running"/, 'as JSON');
foreach my $part ('compute', 'page_server_0')
{
	my @set = grep { /^PG[A-Z]/ && !/^PGLOCALEDIR|^PGSYSCONFDIR/ } split /\0/, text_of('/proc/' . $c->postmaster_pid($part) . '/environ');
	is("@set", '', "$part has no variables of the shell that started it");
}
is($c->sql('CREATE TABLE t AS SELECT 1 AS x; CHECKPOINT; SELECT count(*) FROM t'), 1, 'it works');

# ---- twelve at once

my ($texts, $good) = at_once(map { [ $dev, 'token', '-D', $dir, '--expires', 1000 * $_ ] } 1 .. 12);
my %seen;
foreach my $token (@$texts)
{
	chomp $token;
	my ($signed, $signature) = $token =~ /^(.*)\.(.*)$/;
	my %file = map { ($_ => "$top/$_") } qw(signed signature);
	open my $fh, '>', $file{signed} or die $!;
	print $fh $signed // '';
	close $fh;
	$signature =~ tr{A-Za-z0-9\-_}{`!-_};
	my $bytes = join '', map { unpack 'u', chr(32 + int(length($_) * 3 / 4)) . $_ } $signature =~ /(.{1,60})/g;
	open $fh, '>', $file{signature} or die $!;
	print $fh $bytes;
	close $fh;
	IPC::Run::run([ 'openssl', 'pkeyutl', '-verify', '-rawin', '-pubin', '-inkey', "$dir/security/issuer.pub", '-in', $file{signed},
		'-sigfile', $file{signature} ], '>', '/dev/null', '2>&1') and $seen{$token}++;
}
is(scalar keys %seen, 12, 'twelve tokens made at once are twelve valid tokens');
at_once(map { [ $dev, 'token', '-D', $dir, '--install' ] } 1 .. 4);
is(text_of("$dir/security/pgpass"), '*:*:*:*:' . text_of("$dir/security/token"), 'installed at once: both files have the same');
is(join(' ', grep { !/(?:issuer\.(?:key|pub)|ca\.(?:key|crt)|server\.(?:key|crt)|token|pgpass)$/ } glob(quotemeta($dir) . '/security/*')), '', 'and nothing else is left');

# ---- killed, removed: nothing is left

my @segments = map { segment($_) } 'compute', 'page_server_0';
is(scalar(grep { is_there($_) } @segments), 2, 'each part has shared memory');
$c->kill9;
($texts, $good) = at_once(map { [ $dev, 'start', '-D', $dir ] } 1 .. 3);
is("@$good", '1 1 1', 'three starts at once') or diag(@$texts);
is(scalar(grep { /starting compute/ } @$texts), 1, 'one of them starts it');
$c->check_logs;

# ---- moved

$c->stop;
rename $dir, "$top/moved" or die $!;
foreach my $command ('start', 'status')
{
	($ok, $out) = $c->try_dev($command, '-D', "$top/moved");
	ok(!$ok, "moved: no $command");
	like($out, qr/was made as .*move it back/, 'and why');
}
ok(!-e $dir, 'nothing is made where it was');
rename "$top/moved", $dir or die $!;
$c->start;
push @segments, map { segment($_) } 'compute', 'page_server_0';
$c->kill9;
$c->dev('destroy', '-D', $dir, '--quiet');
ok(!-e $dir, 'moved back, started, killed, removed');
is(scalar(grep { is_there($_) } @segments), 0, 'no shared memory is left');

# ---- interrupted

my $d = "$top/interrupted";
foreach my $signal ('TERM', 'INT', 'KILL')
{
	foreach my $when ("$d/compute/PG_VERSION", "$d/compute/postmaster.pid", "$d/page_server_0")
	{
		my $at = $when =~ s{.*/}{}r;
		my $whole = 1;
		# one that was done before the signal came is no case
		for (my $try = 0; $whole && $try < 20; $try++)
		{
			$c->dev('destroy', '-D', $d, '--quiet') if $try;
			$out = '';
			my $init = IPC::Run::start([ $dev, 'init', '-D', $d, '--shards', 2 ], '<', \undef, '>', \$out, '2>&1');
			while (!-e $when && $init->pumpable) { $init->pump_nb; usleep(2000) }
			$init->signal($signal) if -e $when;
			$whole = eval { $init->finish };
		}
		ok(!$whole, "init was under way at $at");
		if ($signal ne 'KILL')
		{
			ok(!-e $d, "init interrupted by $signal at $at leaves nothing") or diag($out, `ls -R $d | head`);
		}
		else
		{
			($ok, $out) = $c->try_dev('start', '-D', $d);
			like($out, qr/is not whole: it is still being made, or that was interrupted; .*destroy -D \Q$d\E" removes it/,
				"killed at $at: it is not started");
			($ok, $out) = $c->try_dev('init', '-D', $d, '--shards', 2);
			ok($ok, 'another init begins anew') or diag($out);
			like($out, qr/an earlier call was interrupted: removing what it had made/, '... and says so');
			($ok, $out) = $c->try_dev('init', '-D', $d, '--shards', 2);
			ok(!$ok && $out =~ /is a cluster already/, '... which a whole one does not') or diag($out);
		}
		if (-e $d)
		{
			$c->dev('destroy', '-D', $d, '--quiet');
			ok(!-e $d, 'destroy removes it');
		}
	}
}

# ---- a part that was moved to another disk, with a link in its place

$d = "$top/linked";
$c->dev('init', '-D', $d, '--quiet', '--shards', 1);
foreach my $part ('page_server_0', 'compute')
{
	rename "$d/$part", "$top/moved_$part" or die $!;
	symlink "$top/moved_$part", "$d/$part" or die $!;
}
# one that finds no server where the link leads waits for ever
$ok = IPC::Run::run([ 'timeout', 120, $dev, 'start', '-D', $d ], '<', \undef, '>', \$out, '2>&1');
ok($ok, 'a cluster with links is started') or diag($out);
($ok, $out) = $c->try_dev('status', '-D', $d, '--no-measure');
is(() = $out =~ /^(?:compute|page server 0) +running/mg, 2, 'status finds both parts running') or diag($out);
$c->dev('destroy', '-D', $d, '--quiet');
foreach my $part ('page_server_0', 'compute')
{
	ok(!-e "$top/moved_$part/postmaster.pid", "destroy has stopped $part")
	  or system 'pg_ctl', 'stop', '-s', '-m', 'immediate', '-D', "$top/moved_$part";
}

# ---- limits

($ok, $out) = $c->try_dev('init', '-D', $d, '--shards', 129);
ok(!$ok, '129 shards');
like($out, qr/--shards must be between 1 and 128/, 'are more than there can be');
($ok, $out) = $c->try_dev('init', '-D', "$top/a,b");
ok(!$ok, 'a comma in the path');
like($out, qr/may not contain quotes, backslashes, commas or line ends/, 'is refused');
done_testing();
