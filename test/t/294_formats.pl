# Files and messages of another format than this one's, as an older or newer neon_comm would have them
# (docs/upgrade.md, "Other versions of neon_comm"): refused, or set aside, and left as they are.
#
# What another version writes is made by changing the number in a file, or in a library of its own directory.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $pkglibdir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --pkglibdir`;
chomp $pkglibdir;
my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.lfc_size=8MB', 'neon_comm.lfc_prewarm_workers=0' ]);
my $rows = 'SELECT count(*), sum(id) FROM t';
my $right = '20000|200010000';
my @page_server = ('page-server', 0);
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS f FROM generate_series(1, 20000) g});
is($c->sql($rows), $right, 'rows');
$c->into_cache($rows);

sub content { local (@ARGV, $/) = @_; return scalar <> }

sub write_file
{
	my ($name, $text) = @_;
	open my $fh, '>:raw', $name or die "$name: $!";
	print $fh $text;
	close $fh or die $!;
	return;
}

# Calls $do with another number in the file; what was there comes back. What is changed stays as it was made.
sub with_other
{
	my ($file, $from, $to, $do, $sum) = @_;
	my $whole = content("$c->{dir}/$file");
	my $other = $whole =~ s/\Q$from\E/$to/r;
	$sum->($other) if $sum;
	isnt($other, $whole, "$file has its number") or return;
	write_file("$c->{dir}/$file", $other);
	$do->(sub { ok(content("$c->{dir}/$file") eq $other, "$file, @{[ $to =~ s/\n//r ]}: is left as it is") });
	write_file("$c->{dir}/$file", $whole);
	return;
}

sub crc32c
{
	my ($crc, $text) = (0xffffffff, @_);
	foreach my $byte (unpack 'C*', $text)
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 foreach 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

# ---- files without which nothing goes

$c->stop;
foreach my $case (
	[ 'compute/neon_comm.skeleton', 'neon_comm skeleton ', 'is not understood' ],
	[ 'compute/compute_identity', 'neon_comm identity ', 'it is not a text of this version' ],
	[ 'page_server_0/page_service_identity', 'neon_page_service identity ', 'it is not a text of this version' ])
{
	my ($file, $line, $says) = @$case;
	my ($part) = $file =~ m{^(\w+)/};
	foreach my $number (2, 10)
	{
		with_other($file, "${line}1\n", "$line$number\n", sub {
			my ($unchanged) = @_;
			my $from = length $c->log_text($part);
			my ($ok) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 30, $part eq 'compute' ? $part : @page_server);
			ok(!$ok, "$file, $line$number: no start");
			like(substr($c->log_text($part), $from), qr/FATAL:(?:.*\n)*?.*$says/, 'and a reason');
			$unchanged->();
		});
	}
}

# What was replayed and not yet judged; the file is empty when there is none.
my $unjudged = "$c->{dir}/page_server_0/page_service_unjudged";
my $before = -e $unjudged ? content($unjudged) : '';
write_file($unjudged, "neon_page_service unjudged 2\nlast 0/1000028 00\n");
my $from = length $c->log_text('page_server_0');
my ($ok, $said) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 30, @page_server);
ok(!$ok, 'page_service_unjudged: no start');
like(substr($c->log_text('page_server_0'), $from), qr/FATAL:(?:.*\n)*?.*it is not a text of this version/, 'and a reason');
write_file($unjudged, $before);

with_other('neon_dev.conf', "format=", "format=1", sub {
	my ($unchanged) = @_;
	($ok, $said) = $c->try_dev('start', '-D', $c->{dir});
	ok(!$ok, 'neon_dev.conf: no start');
	like($said, qr/has format "\w+"; this neon_dev knows format/, 'and a reason');
	$unchanged->();
});

# ---- files that can be done without

sub starts_with_other
{
	my ($file, $from, $to, $look, $sum) = @_;
	with_other($file, $from, $to, sub {
		my ($unchanged) = @_;
		$c->start('compute');
		is($c->sql($rows), $right, "$file of another version: rows");
		$look->($unchanged);
		$c->stop('compute');
		$unchanged->() if $file !~ /versions/;
	}, $sum);
	return;
}
$c->start(@page_server);
my $state = 'SELECT state, last_error FROM neon_comm.lfc';
starts_with_other('compute/neon_comm.lfc', "neon_comm file cache 1\n", "neon_comm file cache 2\n", sub {
	ok($c->wait_for(q{SELECT state = 'failed' FROM neon_comm.lfc}), 'the cache is off');
	like($c->sql($state), qr/is not a file of the local file cache/, 'and says why');
});
$from = length $c->log_text('compute');
starts_with_other('compute/neon_comm.lfc.index', 'NCLFC01', 'NCLFC02', sub {
	unlike(substr($c->log_text('compute'), $from), qr/the file cache goes on with/, 'nothing of the list is believed');
	my (undef, undef, $err) = $c->try_sql('SELECT neon_comm.lfc_save()');
	like($err, qr/is not a list of cached pages and is left alone/, 'and it is not replaced');
});
# pages are written, so there are bounds to keep
my $write = 'UPDATE t SET id = id WHERE id % 100 = 0; CHECKPOINT';
$c->start('compute');
$c->sql($write);
$c->stop('compute');
my $head = substr content("$c->{dir}/compute/neon_comm.versions"), 0, 56;
is(unpack('L', substr $head, 52), crc32c(substr $head, 0, 52), 'the sum of a head');
starts_with_other('compute/neon_comm.versions', 'ncvers1', 'ncvers2', sub {
	is($c->counter('versions_restored'), 0, 'no lower bound is taken over');
}, sub { substr($_[0], 52, 4) = pack 'L', crc32c(substr $_[0], 0, 52) });
# what came back is of a stop before the last one
$c->start('compute');
$c->sql($write);
$c->restart('compute');
cmp_ok($c->counter('versions_restored'), '>', 0, 'those of this version are');
is($c->sql($rows), $right, 'rows');

# ---- a library of another version on one side

sub other_library
{
	my ($library, $from, $to) = @_;
	my $text = content("$pkglibdir/$library.so");
	cmp_ok($text =~ s/\Q$from\E/$to/g, '>=', 1, "$library.so has what is changed");
	mkdir "$c->{dir}/other";
	unlink glob "$c->{dir}/other/*";
	write_file("$c->{dir}/other/$library.so", $text);
	chmod 0755, "$c->{dir}/other/$library.so";
	return;
}

my $different = qr/page service: this page server and its compute are of different versions of neon_comm.*\n.*DETAIL:.*\n.*HINT:.*same version/;
sub with_libraries
{
	my ($part, $what, $do) = @_;
	my $conf = "$c->{dir}/$part/postgresql.conf";
	my $before = content($conf);
	write_file($conf, "$before\ndynamic_library_path = '$c->{dir}/other:$pkglibdir'\n");
	my $from = length $c->log_text('page_server_0');
	# it may let nobody in
	$c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 5, $part eq 'compute' ? $part : @page_server);
	ok($c->wait_log('page_server_0', $different, $from), "$what: the page server says that versions differ");
	$do->() if $do;
	$c->stop($part eq 'compute' ? ($part, '--mode', 'immediate') : @page_server);
	write_file($conf, $before);
	$c->start($part eq 'compute' ? $part : @page_server);
	is($c->sql($rows), $right, "$what, then the same on both sides: rows");
	return;
}

$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 0');
$c->restart('compute');
$c->stop(@page_server);
other_library('neon_page_service', 'NEON_COMM_JOIN 1 ', 'NEON_COMM_JOIN 2 ');
with_libraries('page_server_0', 'a newer page server', sub {
	$c->allow_log(qr/could not read block .* are of different versions of neon_comm/);
	my (undef, undef, $err) = $c->try_sql($rows);
	like($err, qr/could not read block .*: this page server and its compute are of different versions of neon_comm/, 'and who reads');
});
$c->stop('compute');
other_library('neon_comm', "%s 1\nbirth %s", "%s 2\nbirth %s");
with_libraries('compute', 'a newer compute');
$c->check_logs;
done_testing();
