# NeonDev::Doctor - what is wrong, found out without waiting for whoever is.
#
# Everything that may hang is asked at once, in processes of their own, and ended when the time is over:
# logging in to the compute, where check() knows most; page servers on their own ports; the file system.
# What processes, ports and logs say needs nobody.
package NeonDev::Doctor;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Security;
use NeonDev::Settings;

our @EXPORT = qw(doctor);

use constant {
	SECONDS => 6,				# for all questions together
	CHECK_SECONDS => 3,			# of these, for what check() asks
	DAYS => 30,					# tokens and certificates are good for longer
	FREE_PERCENT => 10,
};

my @rows;						# [item, subject, state, what, remedy]

sub row { my (@row) = @_; push @rows, [ @row, '' ]; return }
sub days { return $opt{days} // DAYS }
sub parts { return ('compute', page_servers()) }

# ---- without asking anybody

# The last line of a log that tells of an error.
sub last_error
{
	my ($part) = @_;
	my ($line) = grep { /(?:ERROR|FATAL|PANIC): |shard \d+ \(|still waiting for page servers/ } reverse log_end($part);
	return defined $line ? $line =~ s/\s+\z//r : undef;
}

sub look_at_process
{
	my ($part) = @_;
	my ($name, $state) = (part_name($part), part_state($part));
	my $start = "neon_dev start -D $opt{dir}";
	my @still = $state eq 'stopped' || $state eq 'crashed' ? () : standing_still($part);
	if (@still) { row('process', $name, 'error', 'stopped by a signal: process ' . join(', ', sort { $a <=> $b } @still), 'kill -CONT them') }
	elsif ($state eq 'running') { row('process', $name, 'ok', 'runs as process ' . part_pid($part)) }
	elsif (!-e part_data($part))
	{
		row('process', $name, 'error', part_data($part) . ' is not there', $part eq 'compute' ? "neon_dev create-compute -D $opt{dir}"
			: "neon_dev replace-page-server $part -D $opt{dir}");
	}
	else { row('process', $name, 'error', "it is $state", $start) }
	return;
}

sub look_at_log
{
	my ($part) = @_;
	my $line = last_error($part);
	row('log', part_name($part), ($line // '') =~ /PANIC/ ? 'warning' : 'ok', defined $line ? "last of its errors: $line" : 'no error at its end',
		'read ' . part_log($part));
	return;
}

sub look_at_port
{
	my ($ports, $port, $part, $what) = @_;
	my $runs = defined part_pid($part);
	my $open = $ports->{$port};
	row('port', $what, !$open == !$runs ? 'ok' : 'error', "$port: " . ($open ? $runs ? 'somebody listens' : 'another process listens'
			: $runs ? 'nobody listens' : 'nobody listens, as it should be'),
		$runs ? 'read ' . part_log($part) : 'end that process, or the part cannot start');
	return;
}

sub look_at_ports
{
	my $ports = listening_ports();
	look_at_port($ports, $cluster{compute_port}, 'compute', 'SQL of the compute');
	look_at_port($ports, $cluster{wal_feed_port}, 'compute', 'WAL feed');
	look_at_port($ports, part_port($_), $_, part_name($_)) foreach page_servers();
	return;
}

# ---- tokens and certificates

sub ends
{
	my ($item, $subject, $until, $remedy) = @_;
	my $days = int(($until - time) / 86400);
	return row($item, $subject, 'error', 'it ended ' . -$days . ' days ago', $remedy) if $until <= time;
	return row($item, $subject, $days < days() ? 'warning' : 'ok', "it is good for $days days more", $remedy);
}

sub look_at_token
{
	my ($file) = @_;
	my $remedy = "neon_dev token -D $opt{dir} --install";
	my $text = slurp($file);
	return row('token', $file, 'error', "cannot read it: $!", $remedy) unless defined $text;
	my $until = token_until($text);
	return row('token', $file, 'unknown', 'it is not understood', $remedy) unless defined $until;
	return $until eq '' ? row('token', $file, 'ok', 'it has no end') : ends('token', $file, $until, $remedy);
}

sub judge_certificate
{
	my ($file, $result) = @_;
	my %month = map { (qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec))[$_] => $_ } 0 .. 11;
	$result->{out} =~ /^notAfter=(\w{3}) +(\d+) (\d+):(\d+):(\d+) (\d{4}) GMT/
	  or return row('certificate', $file, 'error', 'cannot read it: ' . why_not($result, SECONDS), 'put it back');
	my ($mon, $day, $h, $m, $s, $year) = ($month{$1}, $2, $3, $4, $5, $6);
	# days of years and months before: from 1970 on, in the one calendar there is
	my ($y, $mm) = $mon < 2 ? ($year - 1, $mon + 10) : ($year, $mon - 2);
	my $days = 365 * $y + int($y / 4) - int($y / 100) + int($y / 400) + int((306 * $mm + 5) / 10) + $day - 1 - 719468;
	return ends('certificate', $file, (($days * 24 + $h) * 60 + $m) * 60 + $s, 'put another one in its place and reload all parts');
}

# ---- what was asked

sub judge_disk
{
	my (undef, $result) = @_;
	my %seen;
	foreach (split /\n/, $result->{out})
	{
		my ($blocks, $free, $mounted) = /^\S.*?\s+(\d+)\s+\d+\s+(\d+)\s+\d+%\s+(.*)$/ or next;
		next if $seen{$mounted}++ || $blocks == 0;
		my $percent = int($free * 100 / $blocks);
		row('disk', $mounted, $percent < FREE_PERCENT / 5 ? 'error' : $percent < FREE_PERCENT ? 'warning' : 'ok',
			sprintf('%d MB free, %d %%', $free / 1024, $percent), 'make room');
	}
	row('disk', $opt{dir}, 'unknown', 'cannot ask for its room: ' . why_not($result, SECONDS)) unless %seen;
	return;
}

sub judge_control
{
	my ($part, $result) = @_;
	my $name = part_name($part);
	return unless -e part_data($part);
	my ($sysid) = $result->{out} =~ /^Database system identifier:\s+(\d+)/m;
	my ($sums) = $result->{out} =~ /^Data page checksum version:\s+(\d+)/m;
	my ($state) = $result->{out} =~ /^Database cluster state:\s+(.*)/m;
	return row('control file', $name, 'error', 'cannot read it: ' . why_not($result, SECONDS), 'put a copy of another part in its place') unless defined $sums;
	return row('control file', $name, 'error', "it is of another cluster: its system identifier is $sysid", 'this directory does not belong here')
	  if ($cluster{system_identifier} // '') ne '' && $sysid ne $cluster{system_identifier};
	return row('control file', $name, 'error', 'data checksums are ' . ($sums ? 'on' : 'off'), 'undo what pg_checksums has done')
	  if ($sums ? 'on' : 'off') ne $cluster{checksums};
	return row('control file', $name, 'ok', $state);
}

sub judge_page_server
{
	my ($n, $result) = @_;
	my $name = part_name($n);
	return row('page server', $name, 'error', why_not($result, SECONDS), 'see its process and log') if $result->{status} != 0;
	my %is = map { /^([a-z_]+)\|(.*)$/ ? ($1 => $2) : () } split /\n/, $result->{out};
	my $why = $is{in_recovery} ne 'on' ? 'it is not a standby any more'
	  : $is{consistent} ne 'on' ? 'recovery is not consistent yet'
	  : $is{replay_paused} eq 'on' ? 'replay is paused'
	  : $is{identity} =~ /^(?:refused|promoted)$/ ? "$is{identity}: $is{identity_reason}"
	  : $is{streaming} ne 'on' ? 'its walreceiver gets no WAL' : undef;
	return row('page server', $name, 'error', "$why; replayed up to $is{replay_lsn}", 'read ' . part_log($n)) if defined $why;
	return row('page server', $name, 'ok', "it answers; replayed up to $is{replay_lsn}");
}

sub judge_compute
{
	my (undef, $result) = @_;
	if ($result->{status} != 0)
	{
		my $state = part_state('compute');
		return row('compute', 'check()', 'unknown', "it is $state") if $state ne 'running';
		return row('compute', 'check()', answers($result) ? 'unknown' : 'error', 'nobody can log in: ' . why_not($result, SECONDS),
			'see the other lines: it waits for what is missing there') unless $result->{err} =~ /ERROR: /;
		return row('compute', 'check()', 'unknown', why_not($result, SECONDS), 'CREATE EXTENSION neon_comm, or update it');
	}
	row('compute', 'check()', 'ok', 'it answers');
	push @rows, map { [ split /\x1f/, $_, 5 ] } split /\n/, $result->{out};
	return;
}

sub check_statement { return sprintf q{SELECT replace(concat_ws(chr(31), item, subject, state, what, coalesce(remedy, '')), chr(10), ' ')
	FROM neon_comm.check(%d, %d, %d)}, CHECK_SECONDS, days(), FREE_PERCENT }

# [judge, what it is told, program, arguments]
sub questions
{
	my @certificates = $cluster{tls} ? map { security_dir() . "/$_" } 'ca.crt', 'server.crt' : ();
	return (
		[ \&judge_disk, undef, '/bin/df', '-Pk', grep { -e } $opt{dir}, map { (part_data($_), part_data($_) . '/pg_wal') } parts() ],
		(map { [ \&judge_certificate, $_, openssl_path(), 'x509', '-enddate', '-noout', '-in', $_ ] } @certificates),
		(map { [ \&judge_control, $_, program_of('pg_controldata'), '-D', part_data($_) ] } parts()),
		(map { [ \&judge_page_server, $_, page_server_question($_) ] } page_servers()),
		[ \&judge_compute, undef, compute_question(check_statement()) ]);
}

sub ask
{
	my @questions = questions();
	my @results = run_together({ seconds => SECONDS, env => { PGCONNECT_TIMEOUT => SECONDS } }, map { [ @$_[ 2 .. $#$_ ] ] } @questions);
	foreach my $i (0 .. $#questions)
	{
		my ($judge, $about) = @{ $questions[$i] };
		$judge->($about, $results[$i]);
	}
	return;
}

# ---- telling

my %rank = (ok => 0, warning => 1, unknown => 2, error => 3);
sub worst { my ($worst) = sort { $rank{$b} <=> $rank{$a} } map { $_->[2] } @rows; return $worst }

my $printed = 0;				# rows

# What is known now: who has to wait for the rest has something to begin with.
sub print_rows
{
	return if $opt{format} eq 'json';
	foreach (@rows[ $printed .. $#rows ])
	{
		my ($item, $subject, $state, $what, $remedy) = @$_;
		printf "%-8s %-13s %s: %s\n", $state, $item, $subject, $what;
		print '         ', ' ' x 14, "-> $remedy\n" if $state ne 'ok' && ($remedy // '') ne '';
	}
	$printed = @rows;
	STDOUT->flush;
	return;
}

sub print_text
{
	print_rows();
	my $bad = grep { $_->[2] ne 'ok' } @rows;
	print $bad ? "$bad of " . @rows . " lines are not ok\n" : "all is well\n";
	return;
}

sub print_json
{
	my @keys = qw(item subject state what remedy);
	my @objects = map {
		my @row = @$_;
		$row[4] = '' if $row[2] eq 'ok';
		'{' . join(',', map { json_text($keys[$_]) . ':' . ($row[$_] eq '' ? 'null' : json_text($row[$_])) } 0 .. 4) . '}'
	} @rows;
	print '{"state":', json_text(worst()), ",\"checks\":[\n", join(",\n", @objects), "\n]}\n";
	return;
}

sub doctor
{
	load_cluster();
	look_at_process($_) foreach parts();
	look_at_ports();
	if ($cluster{auth}) { look_at_token(security_dir() . "/$_") foreach 'token', 'pgpass' }
	print_rows();
	ask();
	look_at_log($_) foreach parts();
	$opt{format} eq 'json' ? print_json() : print_text();
	return worst() eq 'ok' ? 0 : 1;
}

1;
