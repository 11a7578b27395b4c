# scripts/demo says what it installs and how much before it does, refuses what it cannot install before it builds anything,
# and says at --stop what stays. Programs that would change the system are stand-ins.

use strict;
use warnings;

use FindBin;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use Test::More;

my $tree = abs_path("$FindBin::RealBin/../..");
my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1));
chomp(my $pg_config = `sh -c "command -v @{[ $ENV{PG_CONFIG} // q(pg_config) ]}"`);

$> != 0 or plan skip_all => 'root may write everywhere';

sub text_of { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return scalar(<$fh>) // '' }

sub write_program
{
	my ($name, $text) = @_;
	open my $fh, '>', "$top/bin/$name" or die "$name: $!";
	print $fh "#!/bin/sh\n$text\n";
	close $fh or die $!;
	chmod 0755, "$top/bin/$name";
	return;
}

# A tree with what the demo looks at, in which nothing is built, and a server in whose directories nobody may write.
mkdir "$top/$_" or die $! foreach qw(bin tree server);
system("cp -R $tree/scripts $tree/sql $tree/neon_comm.control $top/tree/ && mkdir -p $top/tree/src && cp -R $tree/src/bin $tree/src/smgr $top/tree/src/") == 0 or die;
write_program('make', qq{echo made >>"$top/made"; exit 9});
write_program('sudo', 'exit 1');
chomp(my $version = `$pg_config --version`);
write_program('pg_config', qq{case "\$1" in --version) echo "$version" ;; *) echo $top/server ;; esac});
my $apt = 'case "$*" in
	*--print-uris*) echo "\'http://x/a.deb\' a.deb 12000000 SHA256:0"; echo "\'http://x/b.deb\' b.deb 34000000 SHA256:0" ;;
	*" -s "*) echo "Inst a (1 Debian)"; echo "Inst b (1 Debian)" ;;
	*update*) echo "Err:1 http://x Could not resolve \'x\'"; exit 0 ;;
';
write_program('apt-cache', 'echo "Installed-Size: 90000"; echo "Installed-Size: 10000"');

sub demo
{
	my ($argument) = @_;
	local @ENV{qw(PATH PG_CONFIG CREATECLUSTER_CONF NEON_DEMO_DIR)} = ("$top/bin:$ENV{PATH}", "$top/bin/pg_config", "$top/etc/c.conf", "$top/demo");
	my $said = `$top/tree/scripts/demo $argument </dev/null 2>&1`;
	return ($? >> 8, $said);
}

# ---- nobody who may install

write_program('dpkg-query', '[ "$1" != -S ] || exit 1; echo installed');
chmod 0555, "$top/server";
my ($status, $said) = demo('');
is($status, 1, 'without the right to install it is refused');
like($said, qr/nothing was built.*needs root or sudo.*make -C \S+ PG_CONFIG=\S+ all install/s, 'which says what to do');
ok(!-e "$top/made", 'before anything is built');
write_program('dpkg-query', 'exit 1');
($status, $said) = demo('');
is($status, 1, 'with packages missing, too');
like($said, qr/these packages are missing and only root can install them:.*apt-get install postgresql-/s, 'which says what to do');
ok(!-e "$top/made", 'before anything is built');

# ---- a package that is there

write_program('dpkg-query', 'case "$1" in -S) echo "postgresql-15-neon-comm: $2" ;; *) echo installed ;; esac');
($status, $said) = demo('');
is($status, 1, 'files of a package are not overwritten');
like($said, qr/is of the package postgresql-15-neon-comm: use its neon_demo, or remove it/, 'which says what to do');
ok(!-e "$top/made", 'before anything is built');
write_program('dpkg-query', 'exit 1');

# ---- no network

write_program('sudo', '[ "$1" != -n ] || shift; exec "$@"');
write_program('apt-get', "$apt	*install*) echo \"E: Failed to fetch http://x/a.deb  Could not resolve 'x'\"; exit 100 ;;\nesac");
($status, $said) = demo('');
is($status, 1, 'without a network it is refused');
like($said, qr/installing packages: postgresql-.*2 packages with what they need: 46 MB to fetch, 100 MB on disk.*cannot be fetched.*Is the network there\?/s,
	'having said what, how much, and why not');
ok(!-e "$top/made", 'before anything is built');
ok(!-e "$top/etc/c.conf", 'and nothing stays');

# ---- what stays

write_program('apt-get', "$apt	*install*) ;;\nesac");
($status, $said) = demo('');
is(text_of("$top/made"), "made\n", 'with network and rights it builds');
like($said, qr/46 MB to fetch.*==> building/s, 'having said how much it installs');
chmod 0755, "$top/server";
foreach my $file ("$top/server/neon_comm.so", "$top/tree/libnc_core.a")
{
	open my $fh, '>', $file or die $!;
	close $fh;
}
($status, $said) = demo('--stop');
is($status, 0, '--stop') or diag($said);
like($said, qr/there is no demo in \Q$top\E\/demo/, 'of nothing');
like($said, qr{what stays:.*neon_comm in \Q$top\E/server; to remove it: make -C \Q$top\E/tree PG_CONFIG=\S+ uninstall}s, 'says that what is installed stays');
like($said, qr/packages that the demo has installed; to remove them: apt-get purge .*\bpostgresql-server-dev-\d+\b/, 'and packages');
like($said, qr{built in \Q$top\E/tree; to remove it: make -C \Q$top\E/tree clean}, 'and what was built');
done_testing();
