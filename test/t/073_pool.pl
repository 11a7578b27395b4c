# 200 backends, idle and then active at once, use no more page-server
# connections than the cap; all get right answers (rows name their own block).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	conf => [ 'max_connections=260', 'neon_comm.connections_per_shard=3', 'shared_buffers=4MB' ]);

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 3999) g;});
is($c->sql('SELECT count(*) FROM self WHERE (ctid::text::point)[0]::int <> id'), 0,
	'each row is in the block it names');

my $script = "$c->{dir}/one.sql";
open my $fh, '>', $script or die $!;
print $fh q{\set id random(0, 3999)
SELECT 1 / (CASE WHEN id = :id AND f = lpad(:id::text, 700, '0') THEN 1 ELSE 0 END) FROM self WHERE ctid = ('(' || :id || ',1)')::tid;
};
close $fh;
my $text = '';
my $h = $c->background(\$text, 'pgbench', '-n', '-c', 200, '-j', 2, '-t', 60, '-f', $script,
	$c->conninfo . ' dbname=postgres');
my $most = 0;
while ($h->pumpable)
{
	$h->pump_nb;
	my $n = $c->sql(q{SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM neon_comm.connections GROUP BY shard) x});
	$most = $n if $n > $most;
}
ok($h->finish, '200 clients got right rows') or diag($text);
cmp_ok($most, '>=', 1, 'connections were seen');
cmp_ok($most, '<=', 3, 'never more than the cap for a shard');
is($c->counter('connections_poisoned'), 0, 'no answer was mixed up');
$c->check_logs;
done_testing();
