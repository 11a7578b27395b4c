# A boot image is of one moment, whatever is replayed meanwhile (docs/boot.md, "The cut").
#
# Images are taken under load. In each, WAL can be read up to a shutdown checkpoint behind the last record,
# wherever that falls in a page; a transaction is committed in pg_xact exactly if its commit record is in that
# WAL; prepared transactions are exactly those that this WAL has prepared and not ended.
use strict;
use warnings;

use File::Path qw(remove_tree);
use IPC::Run ();
use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '16MB', conf => [ 'max_prepared_transactions=20', 'max_wal_size=4GB', 'checkpoint_timeout=1h' ],
	ps_conf => [ 'checkpoint_timeout=1h', 'shared_buffers=16MB' ]);
my $dir = $c->{dir};
my %conf = do { open my $fh, '<', "$dir/neon_dev.conf" or die $!; map { /^(\w+)=(.*)$/ ? ($1 => $2) : () } <$fh> };
my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;
my $port = $c->page_server_port(0);
my $aside = "$dir/aside";

sub boot
{
	my (@more) = @_;
	my $err;
	IPC::Run::run([ "$bindir/neon_boot", '--conninfo', "host=127.0.0.1 port=$port user=x dbname=x sslmode=disable", '--tenant', $conf{tenant_id},
		'--timeline', $conf{timeline_id}, '-D', $aside, '--live', '--quiet', @more ], '<', \undef, '>', '/dev/null', '2>', \$err);
	return ($? >> 8, $err);
}

# 1 = committed.
sub status_of
{
	my ($xid) = @_;
	open my $fh, '<', sprintf('%s/pg_xact/%04X', $aside, $xid / 1048576) or return -1;
	binmode $fh;
	seek $fh, ($xid % 1048576) / 4, 0;
	read($fh, my $byte, 1) or return -1;
	return ord($byte) >> ($xid % 4) * 2 & 3;
}

# What the image's WAL says, from the start of its first segment on.
sub read_wal
{
	my @segments = sort { $a cmp $b } map { m{/([0-9A-F]{24})$} ? $1 : () } glob "$aside/pg_wal/*";
	my %wal = (commit => {}, touched => {}, prepared => {}, last => '');
	my ($out, $err);
	IPC::Run::run([ "$bindir/pg_waldump", '-p', "$aside/pg_wal", @segments[ 0, -1 ] ], '<', \undef, '>', \$out, '2>', \$err);
	$wal{err} = $err;
	foreach my $line (split /\n/, $out)
	{
		my ($xid, $desc) = $line =~ /tx: +(\d+), .*? desc: (.*)/ or next;
		$wal{last} = $line;
		$wal{records}++;
		$wal{touched}{$xid} = 1 if $xid != 0;
		if ($desc =~ /^COMMIT_PREPARED (\d+)/) { $wal{commit}{$1} = 1; delete $wal{prepared}{$1} }
		elsif ($desc =~ /^ABORT_PREPARED (\d+)/) { delete $wal{prepared}{$1} }
		elsif ($desc =~ /^COMMIT /) { $wal{commit}{$xid} = 1 }
		elsif ($desc =~ /^PREPARE /) { $wal{prepared}{$xid} = 1 }
	}
	return \%wal;
}

# ---- load

$c->sql('CREATE TABLE load (id int, v text); CREATE TABLE two (id int)');
# gathering takes a while: what is looked at last is looked at some milliseconds after the first
$c->sql(q{DO $$ BEGIN FOR i IN 1 .. 600 LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY)', i); IF i % 100 = 0 THEN COMMIT; END IF; END LOOP; END $$});
my $from = $c->sql('SELECT pg_current_wal_lsn()');
open my $script, '>', "$dir/load.sql" or die $!;
print $script "INSERT INTO load VALUES (1, repeat('x', (random() * 300)::int));\n";
close $script;
open $script, '>', "$dir/two.sql" or die $!;
print $script "BEGIN; INSERT INTO two VALUES (1); PREPARE TRANSACTION 'c:client_id'; COMMIT PREPARED 'c:client_id';\n";
close $script;
my ($out, $prepared_out) = ('', '');
my $load = $c->background(\$out, 'pgbench', '-n', '-c', '3', '-T', '3600', '-f', "$dir/load.sql", $c->conninfo . ' dbname=postgres');
my $two = $c->background(\$prepared_out, 'pgbench', '-n', '-M', 'simple', '-c', '2', '-T', '3600', '-f', "$dir/two.sql", $c->conninfo . ' dbname=postgres');
my $loaded = $c->wait_for('SELECT count(*) > 200 FROM load');
diag($out, $prepared_out) unless $loaded;
ok($loaded, 'there is load');

# ---- images

my ($records, $seen_prepared, $moved, $last_cut) = (0, 0, 0, '');
foreach my $round (1 .. 12)
{
	# one that is prepared for a while, whatever moment the others are caught at
	$c->sql(q{BEGIN; INSERT INTO two VALUES (2); PREPARE TRANSACTION 'kept'}) if $round == 5;
	$c->sql(q{COMMIT PREPARED 'kept'}) if $round == 10;
	my ($rc, $err) = boot('--wal-from', $from, $round % 4 == 0 ? '--gzip' : ());
	is($rc, 0, "image $round") or diag($err), last;
	my $wal = read_wal();
	my ($control) = `"$bindir/pg_controldata" -D $aside` =~ /^Latest checkpoint location: +(\S+)$/m;
	my $ends = $wal->{last} =~ /desc: CHECKPOINT_SHUTDOWN redo/;
	diag("checkpoint at $control\n$wal->{last}\n$wal->{err}") unless $ends;
	ok($ends, '... its WAL ends with a shutdown checkpoint');
	my ($high, $low) = split m{/}, $control // '0/0';
	my ($last_high, $last_low) = $wal->{last} =~ m{lsn: ([0-9A-F]+)/([0-9A-F]+)};
	ok(hex($high) == hex($last_high) && hex($low) == hex($last_low), '... which its control file names');
	my @lost = grep { status_of($_) != 1 } keys %{ $wal->{commit} };
	is("@lost", '', '... what has committed there is committed');
	my @early = grep { !$wal->{commit}{$_} && status_of($_) == 1 } keys %{ $wal->{touched} };
	is("@early", '', '... and nothing else');
	my %files = map { m{/(?:[0-9A-F]{8})?([0-9A-F]{8})$} ? (hex($1) => 1) : () } glob "$aside/pg_twophase/*";
	is(join(' ', sort keys %files), join(' ', sort keys %{ $wal->{prepared} }), '... and prepared is what was prepared');
	$seen_prepared += keys %files;
	$moved++ if $control ne $last_cut;
	$last_cut = $control;
	$records += $wal->{records};
	remove_tree($aside);
}
cmp_ok($records, '>', 1000, 'there was WAL to look at');
cmp_ok($moved, '>=', 8, 'replay went on between images');
cmp_ok($seen_prepared, '>', 3, 'there were prepared transactions at some cuts')
  or diag($prepared_out, $c->sql('SELECT count(*) FROM two'), $c->log_tail);
$_->kill_kill foreach $load, $two;

# ---- replay goes on, and goes on to be right

ok($c->wait_for('SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers'), 'replay has gone on');
my $count = $c->sql('SELECT count(*) FROM load');
$c->restart;
is($c->sql('SELECT count(*) FROM load'), $count, 'the cluster has what it had');
$c->stop;
$c->check_logs;
done_testing();
