# neon_comm.lfc_path may be a mistake: whatever stands there and is not this
# cluster's cache is left as it is, with its list, and the cache is off and says
# so. Two servers with one path: the second one goes without, also while the first
# one is down, and the first one's cache is there when it comes back.
use strict;
use warnings;

use File::Temp qw(tempdir);
use Test::More;
use NeonComm::Cluster;

my $dir = tempdir('nc_owner_XXXXXX', TMPDIR => 1, CLEANUP => 1);
chmod 0777, $dir;
my @conf = ('neon_comm.lfc_size=32MB', "neon_comm.lfc_path='$dir/pages'", 'neon_comm.lfc_prewarm_workers=0');
my $rows = 'SELECT count(*), sum(n) FROM t';
my $make = q{CREATE TABLE t AS SELECT g AS id, 1 AS n, repeat('t', 400) AS f FROM generate_series(1, 10000) g};

sub content { local (@ARGV, $/) = @_; return scalar <> }
sub write_file
{
	my ($name, $text) = @_;
	open my $fh, '>', $name or die $!;
	print $fh $text;
	close $fh;
	return;
}
sub state_is
{
	my ($c, $state, $what) = @_;
	return ok($c->wait_for("SELECT state = '$state' FROM neon_comm.lfc"), $what);
}
# The cache is off before it says why.
sub says
{
	my ($c, $reason, $what) = @_;
	return ok($c->wait_for(qq{SELECT last_error LIKE '%pages" $reason' FROM neon_comm.lfc}), $what);
}

# Somebody's files, at the path and where the list would be.
my $text = "the only copy of something\n" x 10000;
write_file("$dir/pages", $text);
write_file("$dir/pages.index", $text);
my $one = NeonComm::Cluster->new(shards => 1, conf => \@conf);
state_is($one, 'failed', 'a file that is no cache');
says($one, 'is not a file of the local file cache', 'the reason');
ok($one->wait_log('compute', qr/Set neon_comm\.lfc_path to a name that nobody else uses/), 'the log says what to do');
$one->sql($make);
is($one->sql($rows), '10000|10000', 'queries do not mind');
my (undef, undef, $err) = $one->try_sql('SELECT neon_comm.lfc_save()');
like($err, qr/pages\.index" is not a list of cached pages and is left alone/, 'the list is not replaced');
$one->restart('compute');
state_is($one, 'failed', 'nor by another start');
is(content("$dir/pages"), $text, 'the file is as it was');
is(content("$dir/pages.index"), $text, 'and what stands beside it');
# in one step: the file is tried again by time, too, and where there is none one is made
system('mkfifo', "$dir/fifo") == 0 or die 'mkfifo';
rename "$dir/fifo", "$dir/pages" or die $!;
$one->sql('SELECT pg_reload_conf()');
says($one, 'is not a regular file', 'nothing but a file is one');
unlink "$dir/pages", "$dir/pages.index";

# Two servers.
$one->sql('SELECT pg_reload_conf()');
state_is($one, 'on', 'the name is free now');
foreach (1 .. 100)
{
	$one->sql($rows);
	last if $one->sql('SELECT used_pages > 400 AND staged_pages = 0 FROM neon_comm.lfc') eq 't';
}
my $two = NeonComm::Cluster->new(shards => 1, conf => \@conf);
state_is($two, 'failed', 'a second server with the same path');
says($two, 'is in use by another server', 'the reason');
my $hits = $one->counter('lfc_hits');
is($one->sql($rows), '10000|10000', 'the first one');
cmp_ok($one->counter('lfc_hits'), '>', $hits + 100, 'finds its pages');
is($one->counter('lfc_mismatches'), 0, 'as they were');
$one->stop('compute');
my $before = content("$dir/pages.index");
$two->sql('SELECT pg_reload_conf()');
says($two, 'is the file cache of another server', 'nor is it the second one\'s while the first one is down');
(undef, undef, $err) = $two->try_sql('SELECT neon_comm.lfc_save()');
like($err, qr/pages\.index" is the list of another server and is left alone/, 'nor is the list');
$two->stop('compute');
is(content("$dir/pages.index"), $before, 'it is as it was');
$one->start('compute');
state_is($one, 'on', 'the first one comes back');
$hits = $one->counter('lfc_hits');
is($one->sql($rows), '10000|10000', 'its rows');
cmp_ok($one->counter('lfc_hits'), '>', $hits + 100, 'come from its cache');
is($one->counter('lfc_mismatches'), 0, 'which nobody else has written to');
$_->check_logs foreach $one;
undef $one;
undef $two;
done_testing();
