# make for another server builds anew, uninstall takes away what install put there, and the scripts say what
# is missing before they change anything.

use strict;
use warnings;

use FindBin;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use Test::More;

my $tree = abs_path("$FindBin::RealBin/../..");
my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1));
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
chomp($pg_config = `sh -c 'command -v $pg_config'`);
my $out;

sub write_program
{
	my ($path, $text) = @_;
	open my $fh, '>', $path or die "$path: $!";
	print $fh $text;
	close $fh or die $!;
	chmod 0755, $path;
	return;
}

sub ok_run { my ($name, $command) = @_; $out = `$command 2>&1`; ok($? == 0, $name) or diag(substr $out, -1500); return }

# ---- make

# With what is built in it, if the tree is: then nothing is compiled but what is to be made anew.
ok_run('a copy of the tree', "cd $tree && { find Makefile neon_comm.control libnc_core.a neon_comm.so include src sql build/made_for -type f 2>/dev/null; } |"
	  . " tar -cf - -T - | tar -xf - -C $top");
my $make = "make -s -C $top";
my $objects = 'src/net/pool.core.o src/ext/guc.o';
ok_run('made', "$make PG_CONFIG=$pg_config $objects");
ok_run('the same again', "$make -q PG_CONFIG=$pg_config $objects");
write_program("$top/pg_config", <<"END");
#!/bin/sh
case "\$*" in *--version*) echo "another server" ;; esac
exec $pg_config "\$@"
END
system("$make -q PG_CONFIG=$top/pg_config src/ext/guc.o >/dev/null 2>&1");
is($? >> 8, 1, 'for another server it is to be made anew');
ok_run('and is', "sed -i '/another/d' $top/pg_config; $make PG_CONFIG=$pg_config $objects");
system("$make -q PG_CONFIG=$pg_config EXTRA_CFLAGS=-DNC_TEST_RULES_TWICE $objects >/dev/null 2>&1");
is($? >> 8, 1, 'with other flags, too');

# ---- install, uninstall

ok_run('install', "$make PG_CONFIG=$pg_config DESTDIR=$top/root all install");
cmp_ok(scalar(my @files = `find $top/root -type f`), '>', 8, 'it installs files');
ok_run('uninstall', "$make PG_CONFIG=$pg_config DESTDIR=$top/root uninstall");
is(`find $top/root -type f`, '', 'and nothing is left of them');

# ---- packages that this system does not have

mkdir "$top/bin" or die $!;
write_program("$top/bin/dpkg-query", "#!/bin/sh\nexit 1\n");
write_program("$top/bin/sudo", "#!/bin/sh\n[ \"\$1\" != -n ] || shift\nexec \"\$@\"\n");
write_program("$top/bin/apt-get", <<'END');
#!/bin/sh
case "$*" in
	*-s*postgresql-77*) echo "E: Unable to locate package postgresql-77"; exit 100 ;;
	*broken*) case "$*" in *-s*) exit 0 ;; esac; echo "E: it broke"; exit 100 ;;
	*-s*) ;;
	*install*) printf 'Need to get 12 MB of archives.\nGet:1 http://x bookworm/main amd64 small amd64 1 [1 kB]\nSetting up small (1) ...\n' ;;
esac
END

sub packages
{
	my ($names) = @_;
	local $ENV{PATH} = "$top/bin:$ENV{PATH}";
	local $ENV{CREATECLUSTER_CONF} = "$top/etc/createcluster.conf";
	return scalar `bash -c '. $tree/scripts/lib.sh; need_packages $names; echo went on' 2>&1`;
}

$out = packages('postgresql-77');
like($out, qr/Unable to locate package postgresql-77/, 'a package that does not exist is named');
like($out, qr/has not all of these packages.*apt\.postgresql\.org.*PG_CONFIG/s, 'and what to do');
unlike($out, qr/went on/, 'it ends there');
ok(!-e "$top/etc/createcluster.conf", 'and leaves no configuration file');
$out = packages('broken');
like($out, qr/could not install: broken/, 'apt fails');
ok(!-e "$top/etc/createcluster.conf", 'no configuration file then either');
$out = packages('small');
like($out, qr/fetching 12 MB.*fetched small.*setting up small.*went on/s, 'while apt works it is told how far it is');
ok(-e "$top/etc/createcluster.conf", 'and the server package makes no cluster of its own');
done_testing();
