# What is asked of page servers is recorded, and played against them again (docs/record.md).
#
# A recording has each request that the communicator took while it ran, of every class; played, every block of it is
# answered, and page servers count as many as nc_replay says. It keeps to the recording's order and pace, or goes as
# fast as it can; classes can be chosen; what is printed adds up.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Recording;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '1MB', conf => [ 'neon_comm.lfc_size=32MB', 'neon_comm.lfc_size_limit=0',
	# or the list is saved once more, for page servers
	'neon_comm.lfc_list_to_page_servers=off' ]);
my @shards = (0, 1);

sub sum { my $s = 0; $s += $_ foreach @_; return $s }

# ---- off

is($c->sql('SELECT state, path, requests, dropped, bytes, last_error FROM neon_comm.recording'), 'off||0|0|0|', 'nothing is recorded');
ok(!-e "$c->{dir}/compute/neon_recordings", '... and there is no directory');

# ---- a recording

my ($rc, undef, $err) = $c->pgbench('-i', '-s', '1', '-q');
is($rc, 0, 'pgbench has its tables') or diag($err);
$c->sql('CREATE EXTENSION IF NOT EXISTS neon_comm; CHECKPOINT');
my $before = $c->counter('requests');
my $file = record_on($c);
ok(-e $file, 'the file is there');
is((stat $file)[2] & 0777, 0600, '... for its owner only');
is((stat "$c->{dir}/compute/neon_recordings")[2] & 0777, 0700, '... as the directory is');
my $from = $c->counter('requests');
($rc, undef, $err) = $c->pgbench('-n', '-S', '-c', '4', '-t', '200');
is($rc, 0, 'pgbench reads') or diag($err);
($rc, undef, $err) = $c->pgbench('-n', '-c', '2', '-t', '20');
is($rc, 0, 'pgbench writes') or diag($err);
$c->sql('SELECT count(abalance) FROM pgbench_accounts');
my $until = $c->counter('requests');
ok(record_off($c), 'it ends');
my $after = $c->counter('requests');
my ($path, $n, $dropped, $bytes) = split /\|/, $c->sql('SELECT path, requests, dropped, bytes FROM neon_comm.recording');
is("$c->{dir}/compute/$path", $file, 'the view still names it');
is($dropped, 0, 'nothing was dropped');
is($bytes, -s $file, 'its size is known');
cmp_ok($n, '>=', $until - $from, "every request of that time is in it: $n");
cmp_ok($n, '<=', $after - $before, '... and none besides');
cmp_ok($n, '>', 500, '... which are many');
cmp_ok($bytes / $n, '<', 25, sprintf '%.1f bytes a request', $bytes / $n);

# ---- as text

my ($lines, $comments) = dumped($file);
is(scalar @$lines, $n, 'the dump has as many');
like($comments->[-1], qr/^# ended: stopped, $n requests, 0 dropped$/, '... and how it ended');
my ($tenant, $timeline) = split /\|/, $c->sql(q{SELECT current_setting('neon_comm.tenant_id'), current_setting('neon_comm.timeline_id')});
is($comments->[0], "# tenant $tenant timeline $timeline", '... and whose it is');
my (%class, %blocks, %rels, %by_shard, %good);
foreach my $l (@$lines)
{
	my ($at, $class, $kind, $shard, $rel, $fork, $block, $blocks) = @$l;
	$class =~ s/\+$//;
	$class{$class}++;
	$blocks{$class} += $blocks if $kind eq 'getpage';
	$rels{ (split m{/}, $rel)[2] }++;
	$by_shard{$shard}++;
	$good{$class}++ if $l->[10] eq 'ok';
}
cmp_ok($class{foreground}, '>', 100, 'some were waited for');
cmp_ok($class{ahead}, '>', 10, 'some were read ahead');
cmp_ok($rels{ $c->sql(q{SELECT pg_relation_filenode('pgbench_accounts')}) }, '>', 100, 'the table is in it by its number');
is(join(',', sort keys %by_shard), '0,1', 'both shards were asked');
is($good{foreground}, $class{foreground}, 'all that somebody waited for were answered');
# what is read ahead is withdrawn at the end of a transaction
is(scalar grep({ $_->[10] !~ /^(?:ok|cancelled)$/ } @$lines), 0, '... and others unless they were withdrawn');

# ---- played

my $conninfo = page_server_conninfo($c, @shards);
my ($pages, $requests) = map { served($c, $_, @shards) } qw(pages_served requests_served);
($rc, my $report, $err) = replay_json($file, '--conninfo', $conninfo, '--speed', 'max');
is($rc, 0, 'it is played as fast as it goes') or diag($err);
is($report->{recorded}, $n, 'it says how many there are');
foreach my $class (sort keys %class)
{
	my $of = $report->{classes}{$class};
	is($of->{requests}, $class{$class}, "$class: each is sent");
	is($of->{answered}, $class{$class}, '... and answered');
	is($of->{blocks}, $blocks{$class}, '... as many blocks as in the dump');
	is($of->{blocks_answered}, $blocks{$class}, '... all of which came');
	is($of->{played}{count}, $class{$class}, '... each was timed');
	is($of->{recorded}{count}, $good{$class}, '... and had been when it was recorded');
	cmp_ok($of->{$_}{p50_us}, '<=', $of->{$_}{max_us}, "... $_ times are in order") foreach qw(played recorded);
}
is(sum(values %{ $report->{errors} }), 0, 'no errors');
cmp_ok(served($c, 'pages_served', @shards) - $pages, '>=', sum(values %blocks), 'page servers count as many pages');
cmp_ok(served($c, 'requests_served', @shards) - $requests, '>=', $report->{messages}, '... and requests');
is($report->{messages}, sum(values %blocks) + grep({ $_->[2] ne 'getpage' } @$lines), '... which are a message for each block');

($rc, $report, $err) = replay_json($file, '--conninfo', $conninfo, '--speed', '20', '--lsn', 'recorded');
is($rc, 0, 'it is played at 20 times its pace, with the LSNs that it has') or diag($err);
is(sum(map { $_->{answered} } values %{ $report->{classes} }), $n, '... all is answered');
cmp_ok($report->{seconds}, '>=', $report->{recorded_seconds} / 20, '... and not sooner than it was asked');

($rc, $report, $err) = replay_json($file, '--conninfo', $conninfo, '--speed', 'max', '--class', 'ahead', '--connections', '1', '--depth', '1');
is($rc, 0, 'one class, a request at a time') or diag($err);
is($report->{classes}{ahead}{answered}, $class{ahead}, '... is played');
is($report->{classes}{foreground}{requests}, 0, '... and no other');

($rc, my $text, $err) = replay($file, '--conninfo', $conninfo, '--speed', 'max');
is($rc, 0, 'and as text');
like($text, qr/^foreground +$class{foreground} +0 +$blocks{foreground} +$blocks{foreground} /m, '... the class with its numbers');
like($text, qr/^foreground played( +\d+){4}$/m, '... its times') or diag($text);
like($err, qr/^nc_replay: $n requests$/m, '... progress on stderr');

# ---- what fills the file cache is told from what somebody waits for; here from the start of the server on

$c->configure({ 'neon_comm.lfc_size_limit' => '32MB' });
$c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}) or die 'the cache is not on';
ok($c->into_cache('SELECT count(*) FROM pgbench_accounts'), 'a table is cached');
$c->sql('SELECT neon_comm.lfc_save()');
$c->configure({ 'neon_comm.record' => 'on' });
$c->kill9('compute');
$c->start('compute');
ok($c->wait_for(q{SELECT state = 'done' FROM neon_comm.prewarm_progress}), 'the cache is filled after a crash');
my $loaded = $c->sql('SELECT loaded FROM neon_comm.prewarm_progress');
$c->wait_for(q{SELECT state = 'recording' FROM neon_comm.recording}) or die 'no recording';
$file = file_of($c);
record_off($c);
($lines) = dumped($file);
my $prewarm = sum(map { $_->[7] } grep { $_->[1] eq 'prewarm' } @$lines);
cmp_ok($loaded, '>', 100, "... with pages: $loaded");
cmp_ok($prewarm, '>=', $loaded, "... which are recorded as such: $prewarm");
cmp_ok(scalar grep({ $_->[1] eq 'foreground' } @$lines), '>', 0, '... beside what somebody waited for');

$c->check_logs;
done_testing();
