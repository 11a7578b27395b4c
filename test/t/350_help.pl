# What programs say with --help is true, and what is made of it: manual pages, completion. Needs no cluster.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../src/bin";

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use NeonDev::Base ();
use NeonDev::Commands ();
use Test::More;

my $tree = abs_path("$FindBin::RealBin/../..");
my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1));
chomp(my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`);
my $dev = "$tree/src/bin/neon_dev";
my %help = ('' => scalar `$dev --help`);
my %seen;
my @commands = grep { !$seen{$_}++ } $help{''} =~ /^  neon_dev ([a-z-]+)/gm;

# ---- neon_dev: commands, and the options of each

cmp_ok(scalar @commands, '>', 20, 'neon_dev --help names commands');
$help{$_} = `$dev $_ --help 2>&1` foreach @commands;
my @unknown = grep { $help{$_} =~ /unknown command/ } @commands;
is("@unknown", '', 'all of them are there');

# What a command says to these words, which never are all right: nothing is done.
sub complaint
{
	my (@words) = @_;
	my $said = '';
	%NeonDev::Base::opt = ();
	open my $err, '>&', \*STDERR or die $!;
	close STDERR;
	open STDERR, '>', \$said or die $!;
	my $status = NeonDev::Commands::main("$tree/src/bin", @words);
	close STDERR;
	open STDERR, '>&', $err or die $!;
	$status == 2 or die "neon_dev @words: status $status: $said";
	return $said;
}

# Options in a text, but what it says of other programs or commands in parentheses.
sub options_in { my ($text) = @_; $text =~ s/\([^()]*\)//g; return map { ($_ => 1) } $text =~ /(?<![\w-])(-[A-Za-z]|--[a-z][a-z-]+)(?![\w-])/g }

# Those that it says it takes itself: in the lines of its form, and in the list.
sub own_options { my ($text) = @_; return map { options_in($_) } grep { /^(?:neon_dev|  ) *\S/ } split /\n/, $text =~ s/\n\n(?=[A-Z]).*?(?=\n\n|\z)//gsr }

my %all = map { options_in($_) } values %help;
cmp_ok(scalar keys %all, '>', 30, 'they name options');
my @wrong;
foreach my $command (grep { $_ ne 'psql' } @commands)
{
	my %says = (options_in($help{$command}), map { ($_ => 1) } qw(-D -q --quiet));
	my %own = own_options($help{$command});
	foreach my $option (sort grep { $_ ne '--help' } keys %all, '-q')
	{
		# restore's --to is the cluster's directory; a word that nobody knows comes after all
		my $takes = complaint($command, $option, "\n", '--nobody-knows') !~ /\Q$option\E does not belong to|unknown argument "\Q$option\E"/;
		push @wrong, "$command takes $option, and does not say so" if $takes && !$says{$option};
		push @wrong, "$command says $option, and does not take it" if !$takes && $own{$option};
	}
}
is(join("\n", @wrong), '', 'each command takes the options that its help names, and no others');

# ---- neon_boot, nc_replay

foreach my $program (qw(neon_boot nc_replay))
{
	@wrong = ();
	my $said_of = `$bindir/$program --help`;
	foreach my $option (sort keys %{ { options_in($said_of) } })
	{
		my $said = `$bindir/$program $option 2>&1 </dev/null`;
		push @wrong, "$program says $option: $said" if $said =~ /unrecognized option|invalid option/;
	}
	is(join("\n", @wrong), '', "$program takes the options that its help names");
	like(scalar `$bindir/$program --nobody-knows 2>&1`, qr/unrecognized option|unknown/, 'and says what it does not take');
	my $source = do { local (@ARGV, $/) = "$tree/src/bin/$program/$program.c"; <> };
	my @unsaid = grep { $_ ne 'help' && $said_of !~ /--\Q$_\E\b/ } $source =~ /\{"([a-z-]+)", (?:no|required)_argument/g;
	is("@unsaid", '', 'and no others');
}

# ---- one version

my ($version) = do { local (@ARGV, $/) = "$tree/neon_comm.control"; <> } =~ /^default_version = '(.*)'$/m;
is(scalar `$dev --version`, "neon_dev $version\n", 'neon_dev is of the version of the extension');

# ---- manual pages

foreach my $program ($dev, "$tree/src/bin/neon_demo", "$bindir/neon_boot", "$bindir/nc_replay")
{
	my ($name) = $program =~ m{([^/]+)$};
	my $page = `$tree/scripts/man $program 2>&1`;
	is($?, 0, "a page of $name") or diag($page);
	like($page, qr/^\.TH \U$name\E 1 "" "neon_comm \Q$version\E"\n\.SH NAME\n$name \\- \S/, 'begins as one');
	unlike($page, qr/^\.(?!TH|SH|PP|TP|B |nf|fi)/m, 'has requests that it should have only');
	next unless $name eq 'neon_dev';
	my @missing = grep { my $c = s/-/\\-/gr; $page !~ /^\.SH \Q$c\E$/m } @commands;
	is("@missing", '', 'has a section for each command');
	like($page, qr/^\.TP\n\.B \\-\\-shards N\nshards that/m, 'and items for options');
}

# ---- completion

sub completed
{
	my (@words) = @_;
	my $quoted = join ' ', map { "'$_'" } $dev, @words;
	return join ' ', sort split ' ', scalar `bash -c '. $tree/src/bin/neon_dev.bash; COMP_WORDS=(); for w in "\$@"; do COMP_WORDS+=("\$w"); done
		COMP_CWORD=\$((\$# - 1)); _neon_dev; printf "%s\\n" "\${COMPREPLY[@]}" | sort -u' bash $quoted`;
}
is(completed('st'), 'start status stop', 'commands');
is(scalar `bash -c '. $tree/src/bin/nc_replay.bash; COMP_WORDS=($bindir/nc_replay --t); COMP_CWORD=1; _nc_replay; echo "\${COMPREPLY[*]}"'`,
	"--tenant --timeline --token-file --token-in-clear --timeout\n", 'options of nc_replay');
is(completed('status', '--'), '--help --json --no-measure --quiet --values', 'options of a command');
is(completed('kill', 'c'), 'compute', 'parts');
is(completed('init', '-D', "$tree/neon_comm.c"), "$tree/neon_comm.control", 'files');
done_testing();
