# The sweeper works against readers, writers and DROP: rounds follow each other
# without a pause while large transactions keep pages, others read them, and
# tables come and go.  Nothing is lost, no old page comes back, and in the end
# nothing is kept.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => [ 'neon_comm.sweep_interval=100ms', 'checkpoint_timeout=30s' ]);

$c->sql(q{CREATE TABLE acc (id int PRIMARY KEY, bal int, f text) WITH (fillfactor = 50);
	INSERT INTO acc SELECT g, 100, repeat('a', 300) FROM generate_series(1, 8000) g;
	CREATE TABLE load (s int, n int, f text);});

my %scripts = (
	# several commands a transaction, so that pages carry command ids; rows in one order, or two may deadlock
	writer => q{\set a random(1, 8000)
\set b random(1, 8000)
BEGIN;
INSERT INTO load SELECT 1, g, repeat('l', 300) FROM generate_series(1, 30) g;
UPDATE acc SET bal = bal - 1 WHERE id = least(:a, :b);
INSERT INTO load SELECT -1, g, repeat('l', 300) FROM generate_series(1, 30) g;
UPDATE acc SET bal = bal + 1 WHERE id = greatest(:a, :b);
COMMIT;
},
	big => q{BEGIN;
INSERT INTO load SELECT 1, g, repeat('b', 300) FROM generate_series(1, 1500) g;
INSERT INTO load SELECT -1, g, repeat('b', 300) FROM generate_series(1, 1500) g;
UPDATE load SET n = n + 1 WHERE ctid IN (SELECT ctid FROM load ORDER BY random() LIMIT 50);
COMMIT;
},
	reader => q{SELECT 1 / (CASE WHEN sum(bal) = 800000 AND count(*) = 8000 THEN 1 ELSE 0 END) FROM acc;
SELECT 1 / (CASE WHEN coalesce(sum(s), 0) = 0 THEN 1 ELSE 0 END) FROM load;
},
	dropper => q{CREATE TABLE d_:client_id AS SELECT g, repeat('d', 300) f FROM generate_series(1, 600) g;
BEGIN;
INSERT INTO d_:client_id SELECT * FROM d_:client_id;
INSERT INTO d_:client_id SELECT * FROM d_:client_id LIMIT 600;
SELECT 1 / (CASE WHEN count(*) = 1800 THEN 1 ELSE 0 END) FROM d_:client_id;
TRUNCATE d_:client_id;
INSERT INTO d_:client_id VALUES (1, 'x');
COMMIT;
SELECT 1 / (CASE WHEN count(*) = 1 THEN 1 ELSE 0 END) FROM d_:client_id;
DROP TABLE d_:client_id;
});
my %clients = (writer => [ 3, 500 ], big => [ 1, 25 ], reader => [ 2, 40 ], dropper => [ 2, 40 ]);
my (%h, %text);
foreach my $name (sort keys %scripts)
{
	my $file = "$c->{dir}/$name.sql";
	open my $fh, '>', $file or die $!;
	print $fh $scripts{$name};
	close $fh;
	$text{$name} = '';
	$h{$name} = $c->background(\$text{$name}, 'pgbench', '-n', '-c', $clients{$name}[0],
		'-t', $clients{$name}[1], '-f', $file, $c->conninfo . ' dbname=postgres');
}
my $manual = $c->session;
while (grep { $_->pumpable } values %h)
{
	$_->pump_nb foreach grep { $_->pumpable } values %h;
	$manual->query('SELECT neon_comm.sweep()');
}
foreach my $name (sort keys %h)
{
	ok($h{$name}->finish, "$name: no transaction failed") or diag($text{$name});
}
cmp_ok($c->counter('writes_local_command_id'), '>', 0, 'pages were kept');
cmp_ok($c->counter('swept_pages'),             '>', 0, 'and swept');
is($c->sql('SELECT sum(bal), count(*) FROM acc'), '800000|8000', 'sums at the end');
is($c->sql('SELECT sum(s), count(*) % 60 FROM load'), '0|0', 'loads are whole');
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
is($c->sql(q{SELECT count(*) FROM neon_comm.local_blocks() WHERE reason <> 'sequence'}), 0, 'nothing is kept in the end');
# (a file that had many pieces may keep a block of the file system's own map of it)
cmp_ok($c->sql('SELECT allocated - sequences - empty FROM neon_comm.local_bytes()'), '<', 64 * 1024, 'nor held on disk');
$c->sql('CREATE EXTENSION amcheck');
is($c->sql(q{SELECT count(*) FROM verify_heapam('load')}), 0, 'heap is sound');
is($c->sql(q{SELECT bt_index_parent_check('acc_pkey', true)}), '', 'index is sound');
cmp_ok($c->counter($_), '>', 0, "$_ moved") foreach qw(sweeps);
$c->check_logs;
done_testing();
