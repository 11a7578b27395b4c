# Recordings of a test's cluster, and nc_replay; docs/record.md.

package NeonComm::Recording;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run ();
use JSON::PP ();

our @EXPORT = qw(replay replay_json dumped record_on record_off file_of page_server_conninfo served slurp_bytes spew_bytes);

chomp(my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`);

# (exit status, stdout, stderr) of nc_replay.
sub replay
{
	my (@args) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ "$bindir/nc_replay", @args ], '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}

# (exit status, report, stderr) of a replay.
sub replay_json
{
	my (@args) = @_;
	my ($rc, $out, $err) = replay(@args, '--json', '--quiet');
	return ($rc, $out eq '' ? undef : JSON::PP::decode_json($out), $err);
}

# The lines of a recording as lists of words, comments apart: (requests, comments).
sub dumped
{
	my ($file) = @_;
	my ($rc, $out, $err) = replay($file, '--dump');
	$rc == 0 or die "nc_replay --dump: $err";
	my @lines = split /\n/, $out;
	return ([ map { [ split ' ' ] } grep { !/^#/ } @lines ], [ grep { /^#/ } @lines ]);
}

# Begins a recording, in another directory if one is given; its file.
sub record_on
{
	my ($c, %more) = @_;
	my $in = $more{'neon_comm.record_directory'} // '';
	$c->configure({ 'neon_comm.record' => 'on', %more });
	$c->wait_for("SELECT state = 'recording' AND path LIKE '$in%' FROM neon_comm.recording") or die 'no recording';
	return file_of($c);
}

# The file of the present recording, or of the last one.
sub file_of
{
	my ($c) = @_;
	my $path = $c->sql('SELECT path FROM neon_comm.recording');
	return $path =~ m{^/} ? $path : "$c->{dir}/compute/$path";
}

# Ends it, when all that was asked has ended.
sub record_off
{
	my ($c) = @_;
	$c->wait_for(q{SELECT count(*) = 0 FROM neon_comm.slots}) or die 'requests do not end';
	$c->configure({ 'neon_comm.record' => 'off' });
	return $c->wait_for(q{SELECT state = 'off' FROM neon_comm.recording});
}

# For --conninfo: these shards.
sub page_server_conninfo
{
	my ($c, @shards) = @_;
	return join ',', map { 'host=127.0.0.1 user=x dbname=x sslmode=disable port=' . $c->page_server_port($_) } @shards;
}

# What page servers have served: a figure of their status, the sum over these shards.
sub served
{
	my ($c, $name, @shards) = @_;
	my $sum = 0;
	foreach my $n (@shards)
	{
		my $out = '';
		IPC::Run::run([ 'psql', '-XqAt', '-d', page_server_conninfo($c, $n), '-c', 'show status' ], '<', \undef, '>', \$out) or die 'no status';
		$out =~ /^\Q$name\E\|(\d+)$/m or die "no $name in: $out";
		$sum += $1;
	}
	return $sum;
}

sub slurp_bytes { my ($file) = @_; open my $fh, '<:raw', $file or die "$file: $!"; local $/; return scalar <$fh> }

sub spew_bytes
{
	my ($file, $bytes) = @_;
	open my $fh, '>:raw', $file or die "$file: $!";
	print $fh $bytes;
	close $fh or die $!;
	return $file;
}

1;
