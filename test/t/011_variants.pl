# The same work under each variant of the setup: protocol version, event loop,
# number of shards and stripe, checksums; and changes of settings while it runs.
# Rows name their own block, so a page from a wrong place shows.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my %variants = (
	'v2, epoll' => { conf => [ 'neon_comm.protocol_version=2', 'neon_comm.io_method=epoll' ] },
	'one shard' => { shards => 1 },
	'four shards, stripe 1, checksums' => { shards => 4, stripe => 1, checksums => 1 },
	'checksums, lazy page servers' =>
	  { checksums => 1, ps_conf => ['neon_page_service.lazy_replay=on'] });

sub work
{
	my ($c, $what) = @_;
	$c->sql(q{DROP TABLE IF EXISTS self; CREATE TABLE self (id int, n int, f text) WITH (fillfactor = 10);
		ALTER TABLE self ALTER f SET STORAGE PLAIN;
		INSERT INTO self SELECT g, 0, lpad(g::text, 850, '0') FROM generate_series(0, 2999) g;
		CREATE INDEX ON self (id);});
	$c->evict;
	is($c->sql(q{SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int = id AND f = lpad(id::text, 850, '0')) FROM self}),
		'3000|3000', "$what: each row in the block it names");
	$c->sql('UPDATE self SET n = n + 1');
	$c->evict;
	is($c->sql(q{SET enable_seqscan = off; SELECT count(*), sum(n) FROM self WHERE id BETWEEN 500 AND 1499}),
		'1000|1000', "$what: updated, through an index");
	return;
}

foreach my $what (sort keys %variants)
{
	my $c = NeonComm::Cluster->new(%{ $variants{$what} });
	work($c, $what);
	is($c->sql('SELECT io_method FROM neon_comm.status()'), 'epoll', 'by epoll') if $what =~ /epoll/;
	my $shards = $variants{$what}{shards} // 2;
	is($c->sql('SELECT count(DISTINCT shard) FROM neon_comm.connections'), $shards, "$what: every shard is asked");
	$c->kill9('compute');
	$c->start('compute');
	is($c->sql('SELECT count(*), sum(n) FROM self'), '3000|3000', "$what: after a crash");

	# settings change under load
	if ($what =~ /v2/)
	{
		my $text = '';
		my ($rc) = $c->pgbench('-i', '-q', '-s', 1);
		my $h = $c->background(\$text, 'pgbench', '-n', '-c', 4, '-t', 3000, $c->conninfo . ' dbname=postgres');
		foreach my $round (1 .. 10)
		{
			my $v = 2 + $round % 2;
			my $n = $c->counter('requests');
			$c->sql("ALTER SYSTEM SET neon_comm.protocol_version = $v");
			$c->sql("ALTER SYSTEM SET neon_comm.connections_per_shard = $round");
			$c->sql('SELECT pg_reload_conf()');
			$c->wait_for("SELECT value > $n FROM neon_comm.counters WHERE name = 'requests'", tries => 20);
		}
		ok($h->finish, 'no transaction failed while the protocol version changed') or diag($text);
	}
	$c->check_logs;
	undef $c;
}
done_testing();
