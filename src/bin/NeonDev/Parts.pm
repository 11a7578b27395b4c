# NeonDev::Parts - starting, stopping and killing parts, and whether somebody can log in.
package NeonDev::Parts;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Processes;
use NeonDev::Settings;
use POSIX ();

our @EXPORT = qw(start stop restart kill_chosen takeover start_part stop_part kill_part launch show_log_end ensure_socket_dir configured configured_text metrics_port
	compute_query page_server_query compute_question page_server_question log_end answers why_not missing);

# Why the compute must not be started, or nothing: NeonDev::Takeover knows.
our $against_compute = sub { return };

# ---- logs

sub log_bytes { return -s part_log($_[0]) || 0 }

# Lines of a part's log from a byte on that tell why something failed.
sub telling_lines
{
	my ($part, $from, $pattern) = @_;
	open my $fh, '<', part_log($part) or return;
	my $start = -s $fh;
	$start = $start - $from > 262144 ? $start - 262144 : $from;
	seek $fh, $start, 0;
	my @lines = <$fh>;
	my @telling = grep { /$pattern/ } @lines;
	return @telling ? @telling : @lines;
}

# The last lines of a part's log.
sub log_end { my ($part) = @_; return telling_lines($part, 0, qr/./) }

sub show_log_end
{
	my ($part, $from) = @_;
	my @lines = telling_lines($part, $from, qr/FATAL|PANIC|ERROR|HINT|DETAIL|could not/);
	print STDERR map { "    $_" } @lines > 8 ? @lines[ -8 .. -1 ] : @lines;
	warning 'the log is ', part_log($part);
	return;
}

# ---- logging in

# psql without questions.
sub psql_of { my ($conninfo, $query) = @_; return (program_of('psql'), '-XqAtw', '-v', 'ON_ERROR_STOP=1', '-d', $conninfo, '-c', $query) }

sub compute_question { my ($sql, $db) = @_; return psql_of(compute_conninfo($db), $sql) }
sub page_server_question { my ($n, $query) = @_; return psql_of(page_server_conninfo($n), $query // 'show status') }

# { status, out, err }; the time is for connect and query together.
sub query
{
	my ($seconds, @psql) = @_;
	return run({ seconds => $seconds, env => { PGCONNECT_TIMEOUT => $seconds } }, @psql);
}

sub compute_conninfo
{
	my ($db) = @_;
	return join ' ', map { "$_->[0]=" . conninfo_value($_->[1]) } [ host => $cluster{socket_dir} ],
	  [ port => $cluster{compute_port} ], [ user => $cluster{superuser} ], [ dbname => $db // 'postgres' ],
	  [ application_name => 'neon_dev' ];
}

sub compute_query
{
	my ($sql, $seconds, @settings) = @_;
	my ($program, @rest) = compute_question($sql);
	return query($seconds // 10, $program, (map { ('-c', $_) } @settings), @rest);
}

sub page_server_query
{
	my ($n, $query, $seconds) = @_;
	return query($seconds // 10, page_server_question($n, $query));
}

my $refusal = qr/no password supplied|authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects connection|is not permitted to log in/;

# A server that asks for a password, or that lets somebody else in, has looked for the user: it answers.
sub answers { my ($result) = @_; return $result->{status} == 0 || $result->{err} =~ $refusal }

# One line that tells why a query of ours got no result.
sub why_not
{
	my ($result, $seconds) = @_;
	return "no answer in $seconds s" if $result->{status} == 124;
	my @lines = grep { /\S/ && !/^\tIs the server running/ } reverse split /\n/, $result->{err};
	# below the error of a query stands which part of the query it is
	my $line = (grep { /(?:FATAL|ERROR): / } @lines)[0] // $lines[0] // "psql ended with status $result->{status}";
	$line =~ s/^.*?(?:FATAL|ERROR):\s+//;
	$line =~ s/^psql: error: //;
	return $line;
}

# The last thing that the compute's own log says about a page server.
sub last_complaint
{
	my @lines = telling_lines('compute', 0, qr/shard \d+ \(|still waiting for page servers/);
	my ($line) = grep { /shard \d+ \(|still waiting/ } reverse @lines or return;
	chomp $line;
	$line =~ s/^.*?(?:LOG|WARNING|ERROR):\s+//;
	return "the compute's log: $line";
}

# What of the cluster is not there: for a compute that does not answer.
sub missing
{
	my @missing = last_complaint();
	foreach my $n (page_servers())
	{
		if (!part_pid($n)) { push @missing, "page server $n does not run"; next }
		my $result = page_server_query($n);
		push @missing, "page server $n: " . why_not($result, 10) if $result->{status} != 0;
	}
	return @missing;
}

# ---- page servers that replay

sub human
{
	my ($bytes) = @_;
	my $unit = 'kB';
	foreach my $larger ('MB', 'GB', 'TB')
	{
		$bytes /= 1024;
		last if $bytes < 1024;
		$unit = $larger;
	}
	return sprintf '%.1f %s', $bytes, $unit;
}

# Where the compute's WAL ends at least, as its files say it.
sub known_end
{
	my $result = run({}, program_of('pg_controldata'), '-D', part_data('compute'));
	return $result->{out} =~ m{^Latest checkpoint location: +(\S+)$}m ? lsn_number($1) : 0;
}

# Those that have got on since the last look: what they have still to do, in words.
sub who_replays
{
	my ($watch) = @_;
	my $last = $watch->{at} // {};
	my @who;

	$watch->{at} = {};
	$watch->{end} //= known_end();
	foreach my $n (grep { part_pid($_) } page_servers())
	{
		my $result = page_server_query($n);
		my %says = map { /^(\w+)\|(.*)$/ ? ($1 => $2) : () } split /\n/, $result->{out};
		next unless defined $says{replay_lsn};
		my ($at, $received) = map { lsn_number($_) } @says{qw(replay_lsn received_lsn)};
		my $end = $received > $watch->{end} ? $received : $watch->{end};
		$watch->{at}{$n} = $at;
		next unless defined $last->{$n} && $at > $last->{$n};
		push @who, "page server $n replays: " . ($end > $at ? human($end - $at) . ' to go' : "it is at $says{replay_lsn}");
	}
	return @who;
}

# True while page servers replay on, who have what the compute waits for; tells how far they are.
sub replay_gets_on
{
	my ($watch) = @_;
	my $now = monotonic();
	return $watch->{on} if $now < ($watch->{look} // 0);
	if (!$watch->{at})
	{
		who_replays($watch);
		pause(1);
		$now = monotonic();
	}
	my @who = who_replays($watch);
	$watch->{look} = $now + 1;
	$watch->{on} = @who > 0;
	if (@who && $now >= ($watch->{tell} // 0))
	{
		progress $_ foreach @who;
		$watch->{tell} = $now + 10;
	}
	return $watch->{on};
}

# ---- starting

# A compute that is silent for so long may wait for page servers.
use constant SILENCE => 5;

sub ensure_socket_dir
{
	my $dir = $cluster{socket_dir};
	-d $dir or mkdir $dir, 0700 or fail "cannot make the socket directory $dir: $!";
	-o $dir or fail "the socket directory $dir belongs to somebody else";
	return;
}

# A setting as the server's files say it: its text, and as a number.
sub configured_text
{
	my ($part, $name) = @_;
	my $result = run({}, program_of('postgres'), '-D', part_data($part), '-C', $name);
	return $result->{status} == 0 ? $result->{out} =~ s/\n\z//r : '';
}

sub configured { return configured_text(@_) =~ /^(-?\d+)/ ? $1 : 0 }

# Where the exporter of a part answers, as its configuration says it; 0 if it has none.
sub metrics_port { my ($part) = @_; return configured($part, ($part eq 'compute' ? 'neon_comm' : 'neon_page_service') . '.metrics_port') }

sub check_prepared
{
	my $wanted = configured('compute', 'max_prepared_transactions');
	return if $wanted <= PREPARED_MAX;
	foreach my $n (page_servers())
	{
		my $there = configured($n, 'max_prepared_transactions');
		$there >= $wanted
		  or fail "max_prepared_transactions of the compute is $wanted: page server $n would end when it meets ",
		  "more than $there prepared transactions; raise it in ", part_data($n), '/postgresql.conf first';
	}
	return;
}

# Starts a server as pg_ctl does, but without a shell that would read the path: its process id.
sub launch
{
	my ($part, @arguments) = @_;
	my $grandparent = getppid;
	my $pid = fork // fail "cannot fork: $!";

	return $pid if $pid;
	POSIX::setsid();
	umask 077;
	$SIG{$_} = 'DEFAULT' foreach qw(INT TERM HUP PIPE);
	$ENV{PG_GRANDPARENT_PID} = $grandparent;
	open STDIN, '<', '/dev/null' or POSIX::_exit(126);
	open STDOUT, '>>', part_log($part) or POSIX::_exit(126);
	open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
	exec { program_of('postgres') } program_of('postgres'), '-D', part_data($part), @arguments
	  or POSIX::_exit(127);
}

# Logs in to the compute. An error that comes at once may be one of the first moments; silence is
# waited out, because each attempt that is given up leaves a session that waits. As long as page
# servers replay on, a login can only wait: there is none then, and the time does not run.
sub log_in
{
	my ($until) = @_;
	my $give_up = monotonic() + 10;
	my (%watch, $told);
	while (1)
	{
		my $began = monotonic();
		my $left = $until - $began;
		my $patience = $told || $left < SILENCE ? $left : SILENCE;
		my $result = compute_query('SELECT 1', $patience > 1 ? int $patience : 1);
		return if answers($result);
		if (($result->{status} == 124 || monotonic() - $began >= SILENCE) && replay_gets_on(\%watch))
		{
			pause(0.5) while part_pid('compute') && replay_gets_on(\%watch);
			$until = monotonic() + $opt{timeout};
			$give_up = monotonic() + 10;
			$told = 0;
			next;
		}
		my $over = monotonic() >= ($result->{status} == 124 ? $until : $give_up);
		my $why = why_not($result, int $patience);
		return join('; ', $why, missing()) if $over || !part_pid('compute');
		progress "compute runs, but nobody can log in yet: ", join('; ', $why, missing())
		  if !$told++ && $result->{status} == 124;
		pause(0.1);
	}
}

sub check_ports
{
	my ($part) = @_;
	check_port_free(part_port($part), $part eq 'compute' ? 'SQL port of the compute' : 'port of ' . part_name($part));
	check_port_free($cluster{wal_feed_port}, 'port of the WAL feed') if $part eq 'compute';
	# figures are no reason not to start
	my $metrics = metrics_port($part);
	warning "port $metrics (exporter of ", part_name($part), ') is taken by another process: it has no figures until that ends'
	  if $metrics && listening_ports()->{$metrics};
	return;
}

# Launches a part unless it runs. Two calls at the same time: one of them does it.
sub launch_once
{
	my ($part, @arguments) = @_;
	my $lock = lock_cluster();

	check_unchanged();
	return if part_pid($part);
	-e part_data($part) or fail part_data($part), ' is not there',
	  $part eq 'compute' ? "; if it is lost: neon_dev create-compute -D $opt{dir}" : '';
	clear_zombie_locks($part);
	ensure_socket_dir();
	check_ports($part);
	check_prepared() if $part eq 'compute';
	progress 'starting ', part_name($part), ' ...';
	my $pid = launch($part, @arguments);
	# the next one who looks shall see it
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		return $pid if (part_pid($part) // 0) == $pid;
		pause(0.01);
	}
	return -1;
}

sub start_part
{
	my ($part, @arguments) = @_;
	my $name = part_name($part);
	my $from = log_bytes($part);
	my $until = monotonic() + $opt{timeout};
	my $against = $part eq 'compute' && !part_pid($part) ? $against_compute->() : undef;
	fail $against if defined $against;
	my $pid = launch_once($part, @arguments);

	if (!defined $pid)
	{
		progress "$name runs already";
		$pid = part_pid($part) // -1;
	}
	$until = wait_until_up($part, $pid, $until);
	if (!$until)
	{
		warning $name, part_pid($part) ? " did not get ready in $opt{timeout} s; it was left alone" : ' did not start';
		show_log_end($part, $from);
		return;
	}
	return $part eq 'compute' ? compute_answers($until) : page_server_answers($part);
}

# Waits until a server is up, our child or somebody else's: until when there is time for the rest. False when it
# ended, or the time is over, which does not run while page servers replay on what a compute needs.
sub wait_until_up
{
	my ($part, $pid, $until) = @_;
	my $silent = monotonic() + SILENCE;
	my %watch;
	return if $pid < 0;
	while (1)
	{
		waitpid $pid, POSIX::WNOHANG();
		my $now = part_pid($part);
		return unless defined $now && $now == $pid;
		return $until if part_state($part) eq 'running';
		$until = monotonic() + $opt{timeout} if $part eq 'compute' && monotonic() > $silent && replay_gets_on(\%watch);
		return if monotonic() > $until;
		pause(0.03);
	}
}

sub compute_answers
{
	my ($until) = @_;
	my $why = log_in($until);
	return 1 unless defined $why;
	warning "compute runs, but nobody can log in: $why";
	warning 'it was left alone; its log is ', part_log('compute');
	return;
}

# A page server that refuses us (a token that has expired, a key that was changed) runs all the same.
sub page_server_answers
{
	my ($n) = @_;
	my $give_up = monotonic() + 10;
	my $result;
	while (1)
	{
		$result = page_server_query($n);
		return 1 if $result->{status} == 0;
		last if monotonic() > $give_up || !part_pid($n) || $result->{err} !~ /Connection refused|starting up/;
		pause(0.1);
	}
	warning part_name($n), ' runs, but does not let us in: ', why_not($result, 10);
	return part_pid($n) ? 1 : 0;
}

# ---- stopping

my %signal = (smart => 'TERM', fast => 'INT', immediate => 'QUIT');

sub stop_part
{
	my ($part) = @_;
	my $name = part_name($part);
	my $from = log_bytes($part);
	my $until = monotonic() + $opt{timeout};
	my $pid = part_pid($part);

	if (!$pid)
	{
		progress "$name does not run";
		return 1;
	}
	progress "stopping $name ...";
	kill $signal{ $opt{mode} }, $pid;
	while ((part_pid($part) // 0) == $pid)
	{
		if (monotonic() > $until)
		{
			warning "$name did not stop in $opt{timeout} s (mode $opt{mode})";
			show_log_end($part, $from);
			return;
		}
		pause(0.03);
	}
	return 1;
}

sub kill_part
{
	my ($part) = @_;
	my @pids;
	foreach my $round (0 .. 999)
	{
		# The postmaster goes first so that it forks nobody new; who was forked between the
		# look and the kill is found in the next round.
		@pids = (part_pid($part) // (), part_processes($part));
		if (!@pids)
		{
			progress part_name($part), ' does not run' if $round == 0;
			return 1;
		}
		progress 'killing ', part_name($part), ' ...' if $round == 0;
		kill 'KILL', $_ foreach @pids;
		pause(0.02);
	}
	warning 'processes of ', part_name($part), " do not end: @pids";
	return;
}

# ---- commands

sub start_chosen
{
	foreach my $n (chosen_page_servers())
	{
		start_part($n) or return;
	}
	return !chosen_compute() || start_part('compute');
}

# Page servers that have replayed the last checkpoint of a compute begin there at their next start.
sub wait_until_replayed
{
	my ($n) = @_;
	my $last = '';
	while (part_pid($n))
	{
		my $result = page_server_query($n);
		my %says = map { /^(\w+)\|(.*)$/ ? ($1 => $2) : () } split /\n/, $result->{out};
		return if $result->{status} != 0 || $says{replayed_all} eq 'on' || $says{replay_lsn} eq $last;
		$last = $says{replay_lsn};
		pause(0.3);
	}
	return;
}

sub stop_chosen
{
	my $whole = $opt{part} eq 'all' && $opt{mode} ne 'immediate' && part_pid('compute');
	# Page servers go on when the compute does not stop: it needs them to stop.
	return if chosen_compute() && !stop_part('compute');
	if ($whole) { wait_until_replayed($_) foreach chosen_page_servers() }
	return !grep { !stop_part($_) } chosen_page_servers();
}

sub start
{
	load_cluster();
	start_chosen() or return 1;
	progress "running: neon_dev psql -D $opt{dir}" if $opt{part} eq 'all';
	return 0;
}

sub stop
{
	load_cluster();
	return stop_chosen() ? 0 : 1;
}

sub restart
{
	load_cluster();
	return stop_chosen() && start_chosen() ? 0 : 1;
}

sub kill_chosen
{
	load_cluster();
	my @failed = grep { !kill_part($_) } chosen_compute() ? 'compute' : (), chosen_page_servers();
	return @failed ? 1 : 0;
}

# The word that the last refused start of a part asked for: it names this copy and no other.
sub takeover_word
{
	my ($part) = @_;
	my $word;
	open my $fh, '<', part_log($part) or return;
	while (my $line = <$fh>)
	{
		$word = $1 if $line =~ /the word ([0-9a-f]{8})\b/;
	}
	return $word;
}

sub takeover
{
	load_cluster();
	my $part = $opt{part} eq 'all' ? 'compute' : $opt{part};
	my $name = $part eq 'compute' ? 'compute_takeover' : 'page_service_takeover';

	fail part_name($part), ' runs: a takeover is for a copy that was refused at its start' if defined part_pid($part);
	my $word = takeover_word($part)
	  // fail 'the log of ', part_name($part), ' names no copy that was refused: start it first';
	open my $fh, '>', part_data($part) . "/$name" or fail "cannot write $name: $!";
	print $fh "$word\n" or fail "cannot write $name: $!";
	close $fh or fail "cannot write $name: $!";
	progress part_name($part), ' goes on in place of its original at the next start.';
	progress 'Given up: the original must never be started again, and what it wrote after this copy was made is lost, '
	  . 'unless page servers have it; then they refuse this copy.' if $part eq 'compute';
	return 0;
}

1;
