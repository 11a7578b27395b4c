# NeonComm::Cluster - a developer cluster for a TAP test, made with neon_dev.
#
# One compute, N page servers, all below a temporary directory that goes away
# with the test.  shared_buffers is 1 MB unless a test asks for more, so that
# reads and evictions reach the storage layer; a test that must hit storage
# asserts that its table is larger than that.
#
# From the environment come: a directory with libraries that servers load instead of those that
# are installed (NEON_TEST_LIBRARIES, of test/rules.sh), and further arguments of neon_dev init:
# NEON_TEST_INIT="--auth --tls" runs any test behind TLS and tokens.
package NeonComm::Cluster;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More ();
use POSIX ();
use Time::HiRes qw(usleep);
use NeonComm::Session;

my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;
my $neon_dev = "$bindir/neon_dev";

# Only ends a hang: a minute, which is pg_ctl's own, is not much for a busy machine.
$ENV{PGCTLTIMEOUT} //= 300;

# Lines that no server log of a test may hold, whatever the test says.
my $forbidden = qr/PANIC|TRAP:|AddressSanitizer|runtime\ error:|could\ not\ read\ block|
	was\ terminated\ by\ signal\ (?!9:)|found_late|old\ version\ of\ block|from\ the\ future|verification\ failed/x;

sub neon_dev_path { return $neon_dev }

# Without what it tests, a test has to fail, and one failure says it all. What is waited for
# may never come then, so nobody waits for minutes: looks at a condition, a tenth of a second apart.
my $must_fail = $NeonComm::Session::must_fail;
my $tries = $must_fail ? 300 : 1800;
if ($must_fail)
{
	no warnings 'redefine';
	my $ok = \&Test::Builder::ok;
	*Test::Builder::ok = sub { my $good = $ok->(@_); exit 1 unless $good; return $good };
}

# PostgreSQL::Test::Utils sends STDERR, and with it what a script dies of, to a log of its own: it is said where failures are.
$SIG{__DIE__} = sub {
	return if !defined $^S || $^S || !$INC{'PostgreSQL/Test/Utils.pm'};
	Test::More::diag(@_);
	return;
};

# new(shards => 2, stripe => 8, checksums => 0, init => ['--auth'], conf => [...], ps_conf => [...], buffers => '1MB')
sub new
{
	my ($class, %o) = @_;
	my $top = tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{NEON_TEST_KEEP});
	my $self = bless { dir => "$top/c", owner => $$, allowed => [], started => 0 }, $class;
	my @args = ('init', '-D', $self->{dir}, '--quiet',
		'--shards', $o{shards} // 2, '--stripe-blocks', $o{stripe} // 8);

	push @args, '--checksums' if $o{checksums};
	push @args, @{ $o{init} // [] }, split ' ', $ENV{NEON_TEST_INIT} // '';
	my @conf = ('shared_buffers=' . ($o{buffers} // '1MB'),
		'autovacuum=' . ($o{autovacuum} // 'off'), 'max_wal_size=256MB',
		'allow_in_place_tablespaces=on', @{ $o{conf} // [] });
	# a statement may never end then: it shall fail
	push @conf, 'statement_timeout=40s' if $must_fail;
	my @libraries = ($ENV{NEON_TEST_LIBRARIES} // '') ne '' ? ("dynamic_library_path='$ENV{NEON_TEST_LIBRARIES}:\$libdir'") : ();
	push @args, '--conf', $_ foreach (@conf, @libraries);
	push @args, '--ps-conf', $_ foreach (@libraries, @{ $o{ps_conf} // [] });
	$self->dev(@args);
	$self->start unless $o{no_start};
	return $self;
}

# Runs neon_dev; dies with its output when it fails.
sub dev
{
	my ($self, @args) = @_;
	my ($ok, $out) = $self->try_dev(@args);

	die $self->log_tail . "neon_dev @args failed:\n$out\n" unless $ok;
	return $out;
}

sub try_dev
{
	my ($self, @args) = @_;
	my $out = '';
	# a file, not a pipe: servers that it starts would keep a pipe open
	my $file = File::Temp->new;
	my $ok = IPC::Run::run([ $neon_dev, @args ], '<', \undef, '>', "$file", '2>&1');

	open my $fh, '<', "$file" or die $!;
	local $/;
	$out = <$fh>;
	return ($ok, $out);
}

# Starts neon_dev beside the test, which may kill it; its pid. What it says goes to a file, not a pipe: servers that it
# starts would keep a pipe open.
sub dev_alone
{
	my ($self, $file, @args) = @_;
	my $pid = fork // die $!;
	return $pid if $pid > 0;
	open STDOUT, '>', $file or POSIX::_exit(126);
	open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
	exec($neon_dev, @args) or POSIX::_exit(127);
}

sub start   { my ($s, @part) = @_; $s->{started} = 1; $s->dev('start', '-D', $s->{dir}, '--quiet', @part) }
sub stop    { my ($s, @part) = @_; $s->dev('stop', '-D', $s->{dir}, '--quiet', @part) }
sub restart { my ($s, @part) = @_; $s->dev('restart', '-D', $s->{dir}, '--quiet', @part) }

# SIGKILL of every process of a part: 'compute' or 'page-server', N.
sub kill9 { my ($s, @part) = @_; $s->dev('kill', '-D', $s->{dir}, '--quiet', @part) }

sub conninfo
{
	my ($self) = @_;
	if (!defined $self->{conninfo})
	{
		$self->{conninfo} = $self->dev('conninfo', '-D', $self->{dir});
		chomp $self->{conninfo};
	}
	return $self->{conninfo};
}

# Output of one SQL script; dies on an error.
sub sql
{
	my ($self, $sql, %o) = @_;
	my ($rc, $out, $err) = $self->try_sql($sql, %o);

	die "SQL failed: $sql\n$err" . $self->log_tail if $rc != 0;
	return $out;
}

# (exit code, stdout, stderr)
sub try_sql
{
	my ($self, $sql, %o) = @_;
	my $conninfo = $self->conninfo . ' dbname=' . ($o{db} // 'postgres') . (defined $o{user} ? " user=$o{user}" : '');
	my ($out, $err) = ('', '');

	# without a server psql may have gone before it is told what to do
	local $SIG{PIPE} = 'IGNORE';
	my $ran = eval {
		IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $conninfo, '-f', '-' ],
			'<', \$sql, '>', \$out, '2>', \$err);
		1;
	};
	die $@ unless $ran || $@ =~ /Broken pipe/;
	my $rc = $ran ? $? >> 8 : 2;
	chomp $out;
	return ($rc, $out, $err);
}

# A session that stays open.
sub session
{
	my ($self, %o) = @_;
	return NeonComm::Session->new($self->conninfo . ' dbname=' . ($o{db} // 'postgres'));
}

sub counter { my ($s, $name) = @_; $s->sql("SELECT value FROM neon_comm.counters WHERE name = '$name'") }

# Reads with $sql until the local file cache has what is read, but for fewer than 128 pages. What the writer
# had no room for is dropped: a page that is missed, and one that leaves shared buffers with hint bits set.
sub into_cache
{
	my ($self, $sql) = @_;
	my $lost = q{SELECT sum(value) FROM neon_comm.counters WHERE name IN ('lfc_misses', 'lfc_drops')};
	foreach (1 .. 50)
	{
		my $before = $self->sql($lost);
		$self->sql($sql);
		return 1 if $self->wait_for('SELECT staged_pages = 0 FROM neon_comm.lfc') && $self->sql($lost) - $before < 128;
	}
	return 0;
}

# Pushes everything else out of shared buffers: reads a table larger than they are.
sub evict
{
	my ($self, %o) = @_;
	$self->sql(q{CREATE TABLE IF NOT EXISTS nc_evict AS
		SELECT g, repeat('x', 900) AS filler FROM generate_series(1, 4000) g;
		SELECT count(*) FROM nc_evict; SELECT count(*) FROM nc_evict WHERE g % 2 = 0;
		UPDATE nc_evict SET g = g WHERE g % 40 = 0;}, %o);
	return;
}

# Settings of a part ('compute' unless told otherwise) by one reload; later ones win.
sub configure
{
	my ($self, $settings, %o) = @_;
	my $part = $o{part} // 'compute';

	open my $fh, '>>', "$self->{dir}/$part/postgresql.conf" or die $!;
	print $fh "$_ = '$settings->{$_}'\n" foreach sort keys %$settings;
	close $fh or die $!;
	kill 'HUP', $self->postmaster_pid($part) or die "no $part to reload";
	return;
}

# Waits until the compute's sessions have done all reloads asked for so far.  A setting left
# behind tells: neon_comm.request_timeout, of 20 s and some milliseconds from then on.
sub reload_is_over
{
	my ($self) = @_;
	my $mark = $self->{reload_mark} = ($self->{reload_mark} // 20_000) + 1;

	$self->configure({ 'neon_comm.request_timeout' => "${mark}ms" });
	return $self->wait_for("SELECT setting = '$mark' FROM pg_settings WHERE name = 'neon_comm.request_timeout'");
}

# Port that page server N listens on for pagestream.
sub page_server_port
{
	my ($self, $n) = @_;
	open my $fh, '<', "$self->{dir}/neon_dev.conf" or die $!;
	my ($port) = map { /^page_server_${n}_port=(\d+)/ ? $1 : () } <$fh>;
	return $port;
}

# The text of neon_comm.page_servers for these ports.
sub page_server_list { my ($s, @ports) = @_; return join(',', map { "host=127.0.0.1 port=$_" } @ports) }

# Puts a fault proxy between the compute and its page servers; links have the shards' numbers.
# Waits until the communicator works with the new addresses.
sub use_proxy
{
	my ($self, $proxy, $shards) = @_;
	my @ports = map { $proxy->link($_, $self->page_server_port($_)) } 0 .. $shards - 1;
	my $changes = $self->counter('map_changes');

	$self->configure({ 'neon_comm.page_servers' => $self->page_server_list(@ports) });
	$self->wait_for("SELECT value > $changes FROM neon_comm.counters WHERE name = 'map_changes'")
	  or die 'the new page servers were not taken over';
	return @ports;
}

# Runs pgbench; returns (exit code, stdout, stderr).
sub pgbench
{
	my ($self, @args) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'pgbench', @args, $self->conninfo . ' dbname=postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}

# Starts a command in the background; ->finish of the IPC::Run harness ends it.
sub background
{
	my ($self, $out, @command) = @_;
	return IPC::Run::start([@command], '<', \undef, '>', $out, '2>&1');
}

sub postmaster_pid
{
	my ($self, $part) = @_;
	open my $fh, '<', "$self->{dir}/$part/postmaster.pid" or return undef;
	my $pid = <$fh>;
	chomp $pid;
	return $pid;
}

# Process ids of a part whose title matches, the postmaster's own children only.
sub pids_of
{
	my ($self, $part, $title) = @_;
	my $pm = $self->postmaster_pid($part) // return;
	my @lines = grep { $_ =~ $title } split /\n/, `ps -o pid=,args= --ppid $pm`;
	return map { /^\s*(\d+)/ ? $1 : () } @lines;
}

# Waits until an SQL condition is true; progress of the condition, not time, is what counts.
sub wait_for
{
	my ($self, $sql, %o) = @_;
	foreach (1 .. ($o{tries} // $tries))
	{
		my ($rc, $out) = $self->try_sql($sql, %o);
		return 1 if $rc == 0 && $out eq 't';
		usleep(100_000);
	}
	return 0;
}

sub log_file { my ($s, $part) = @_; return "$s->{dir}/log/$part.log" }

sub log_text
{
	my ($self, $part) = @_;
	open my $fh, '<', $self->log_file($part) or return '';
	local $/;
	return <$fh> // '';
}

sub log_tail
{
	my ($self) = @_;
	my $text = '';
	foreach my $file (glob(quotemeta("$self->{dir}/log/") . "*.log"))
	{
		my @lines = split /\n/, do { local (@ARGV, $/) = $file; <> // '' };
		$text .= "---- $file\n" . join("\n", @lines > 15 ? @lines[ -15 .. -1 ] : @lines) . "\n";
	}
	return $text;
}

# Adds a line to a part's postgresql.conf; the last of a setting counts.
sub append_conf
{
	my ($self, $part, $line) = @_;
	open my $fh, '>>', "$self->{dir}/$part/postgresql.conf" or die $!;
	print $fh "$line\n";
	close $fh;
	return;
}

# Waits until a part's log has a line like this, from offset $from (0) on.
sub wait_log
{
	my ($self, $part, $regex, $from) = @_;
	foreach (1 .. $tries)
	{
		return 1 if substr($self->log_text($part), $from // 0) =~ $regex;
		usleep(100_000);
	}
	return 0;
}

# Says that lines like this are expected in the logs of this test.
sub allow_log { my ($s, $regex) = @_; push @{ $s->{allowed} }, $regex; return }

# The last test of every script: nothing forbidden in any log.
sub check_logs
{
	my ($self) = @_;
	my @bad;
	foreach my $file (glob(quotemeta("$self->{dir}/log/") . "*.log"))
	{
		open my $fh, '<', $file or next;
		while (my $line = <$fh>)
		{
			next unless $line =~ $forbidden;
			next if grep { $line =~ $_ } @{ $self->{allowed} };
			push @bad, "$file: $line";
		}
	}
	Test::More::is(scalar(@bad), 0, 'server logs hold nothing unexpected')
	  or Test::More::diag(join('', @bad > 10 ? @bad[ 0 .. 9 ] : @bad));
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	# a child that dies has a copy
	return unless ($self->{owner} // $$) == $$ && -d $self->{dir};
	if ($ENV{NEON_TEST_KEEP})
	{
		Test::More::diag("kept $self->{dir}");
		return;
	}
	eval { $self->try_dev('destroy', '-D', $self->{dir}, '--quiet') };
	return;
}

1;
