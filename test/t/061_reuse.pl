# The number of a dropped relation is given to another one of the same database,
# in every order of kinds, with page servers that follow and with page servers
# that lag: contents and sizes are the new relation's (rule page_lsn).  And a
# block that no write ever dated, because it was jumped over, is not the one of
# the relation before (rule relation_lsn).
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

# A hash index makes many blocks by writing the last of them; the others are
# never written and have no date but the relation's.  Page servers get no WAL
# from then on, so whoever asks for too little gets the table that was there.
# VACUUM passes by a page that the background writer has in its hands, and a dead row keeps the number.
my @alone = ('bgwriter_lru_maxpages=0', 'checkpoint_timeout=1h');
my $c = NeonComm::Cluster->new(buffers => '16MB', conf => \@alone);
my $p = NeonComm::TestPoint->new($c);
$c->sql('CREATE EXTENSION pageinspect; CREATE TABLE h (k int)');
my $number = $c->sql(q{SELECT max(oid)::bigint + 100000 FROM pg_class});
my $s = $c->session;
my $ctl = $p->{session};
my $old = q{CREATE TABLE x AS SELECT g, repeat('o', 900) AS f FROM generate_series(1, 2000) g};
my $index = 'CREATE INDEX x ON h USING hash (k); INSERT INTO h SELECT generate_series(1, 11000)';
my $zero = q{encode(get_raw_page('x', %s), 'hex') = repeat('00', 8192)};
my $asks = 'SELECT count(*) FROM neon_comm.slots WHERE pid = ' . $s->pid;

# Once with other numbers, so that nothing but the block in question will have to be read.
$s->query("$old; DROP TABLE x; VACUUM pg_class; CHECKPOINT");
$s->query($index);
my $block = $s->query('SELECT max(b) FROM generate_series(0, pg_relation_size($$x$$)::int / 8192 - 1) b WHERE '
	  . sprintf($zero, 'b'));
cmp_ok($block, '>', 8, 'the index has blocks that it jumped over');
$s->query('SELECT ' . sprintf($zero, 0));
$s->query('DROP INDEX x; TRUNCATE h');
$ctl->query($asks);

$p->set_next_oid($number);
$s->query($old);
my $flushed = $s->query('SELECT pg_current_wal_flush_lsn()');
ok($c->wait_for("SELECT bool_and(coalesce(apply_lsn >= '$flushed', false)) FROM neon_comm.page_servers"), 'page servers have the old table');
cmp_ok($s->query('SELECT pg_relation_size($$x$$) / 8192'), '>', $block, 'which has that block');
$p->true('feed-withhold');
$s->query('DROP TABLE x; VACUUM pg_class; CHECKPOINT');
$p->set_next_oid($number);
$s->query($index);
is($s->query('SELECT relfilenode FROM pg_class WHERE relname = $$x$$'), $number, 'the index has its number');
$s->send('SELECT ' . sprintf($zero, $block));
my $waits = 0;
$waits = $ctl->query($asks) until $s->ready || $waits;
$p->disarm('feed-withhold');
is($s->wait, 't', 'a block jumped over is empty');
$s->close;
$p->close;
$c->check_logs;
undef $c;

$c = NeonComm::Cluster->new(conf => [ @alone, 'neon_comm.lfc_size=16MB', 'neon_comm.lfc_size_limit=0' ]);
$p = NeonComm::TestPoint->new($c);

$c->sql(q{CREATE EXTENSION amcheck; CREATE TABLE h (k int, f text);
	INSERT INTO h SELECT g, repeat('h', 200) FROM generate_series(1, 15000) g;});
$c->evict;
$number = $c->sql(q{SELECT max(oid)::bigint + 100000 FROM pg_class});

sub size_fits
{
	return $c->sql(q{SELECT pg_relation_size('x') / 8192 = max((ctid::text::point)[0]) + 1 FROM x}) eq 't';
}

# Each makes relation x with the number, fills it, and returns what is wrong with it after eviction.
my $step = 0;
my $rows = 0;
my %kind = (
	table => sub {
		$rows = 2500 + 37 * ($step % 30);
		$c->sql("CREATE TABLE x AS SELECT g AS id, 'row $step' || repeat('t', 400) AS f FROM generate_series(1, $rows) g");
	},
	# several commands in one transaction: its pages stay local for a while
	local => sub {
		$rows = 2500 + 37 * ($step % 30);
		$c->sql("BEGIN; CREATE TABLE x (id int, f text); INSERT INTO x VALUES (1, 'row $step');
			INSERT INTO x SELECT g, 'row $step' || repeat('l', 400) FROM generate_series(2, $rows) g; COMMIT");
	},
	# an own relation from before, which gets the number by TRUNCATE
	truncated => sub {
		$rows = 2500 + 37 * ($step % 30);
		$p->set_next_oid($number + 1000);
		$c->sql("CREATE TABLE x AS SELECT -g AS id, 'before' || repeat('t', 400) AS f FROM generate_series(1, 3000) g");
		$p->set_next_oid($number);
		$c->sql("TRUNCATE x; INSERT INTO x SELECT g, 'row $step' || repeat('t', 400) AS f FROM generate_series(1, $rows) g");
	},
	unlogged => sub {
		$rows = 2500 + 37 * ($step % 30);
		$c->sql("CREATE UNLOGGED TABLE x AS SELECT g AS id, 'row $step' || repeat('u', 400) AS f FROM generate_series(1, $rows) g");
	},
	sequence => sub { $c->sql("CREATE SEQUENCE x START 1000 INCREMENT 1; SELECT setval('x', $step)") },
	index => sub { $c->sql('CREATE INDEX x ON h (k)') },
	aborted => sub {
		$c->sql("BEGIN; CREATE TABLE x AS SELECT g AS id, 'row $step' || repeat('a', 400) AS f FROM generate_series(1, 2000) g; ROLLBACK");
	});
my $rows_right = sub {
	my $got = $c->sql("SELECT count(*), sum(id), count(*) FILTER (WHERE f LIKE 'row $step%') FROM x");
	my $want = join('|', $rows, $rows * ($rows + 1) / 2, $rows);
	return $got eq $want && size_fits() ? '' : "got $got, not $want";
};
my %wrong = (
	(map { $_ => $rows_right } 'table', 'local', 'truncated', 'unlogged'),
	sequence => sub { my $got = $c->sql(q{SELECT nextval('x')}); return $got == $step + 1 ? '' : "got $got" },
	index    => sub {
		return $c->sql(q{SELECT bt_index_check('x', true); SET enable_seqscan = off; SET enable_bitmapscan = off;
			SELECT count(*), sum(k) FROM h WHERE k > 0}) =~ /^15000\|112507500$/m ? '' : 'the index has other rows';
	},
	aborted => sub { return '' });
my %drop = ((map { $_ => 'DROP TABLE x' } 'table', 'local', 'truncated', 'unlogged'),
	sequence => 'DROP SEQUENCE x', index => 'DROP INDEX x', aborted => 'SELECT 1');

# Every kind after every kind.
my @kinds = sort keys %kind;
my @order = map { my $i = $_; ($kinds[$i], map { ($kinds[$i], $kinds[$_]) } $i + 1 .. $#kinds) } 0 .. $#kinds;

sub reuse
{
	my ($servers) = @_;
	my $before = 'nothing';
	my (@bad, $same);
	foreach my $kind (@_[1 .. $#_])
	{
		$step++;
		$p->set_next_oid($number);
		$kind{$kind}->();
		$same += $c->sql(q{SELECT count(*) FROM pg_class WHERE relname = 'x' AND relfilenode = } . $number);
		$c->evict;
		my $wrong = eval { $wrong{$kind}->() } // $@;
		push @bad, "$kind after $before: $wrong" if $wrong ne '';
		$c->sql($drop{$kind});
		# the dead row of pg_class keeps the number, the file does until a checkpoint
		$c->sql('VACUUM pg_class; CHECKPOINT');
		$before = $kind;
	}
	is($same, scalar(grep { $_ ne 'aborted' } @_[1 .. $#_]), "$servers: the number came again each time");
	is(join("\n", @bad), '', "$servers: every relation is the new one");
	return;
}
reuse('page servers follow', @order[0 .. 12]);
$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 16; SELECT pg_reload_conf()');
ok($c->wait_for(q{SELECT limit_bytes > 0 FROM neon_comm.lfc}), 'the local file cache is on');
reuse('pages come from the file cache', @order[13 .. 27]);
cmp_ok($c->counter('lfc_hits'), '>', 0, 'it was used');
$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf()');
ok($c->wait_for(q{SELECT limit_bytes = 0 FROM neon_comm.lfc}), 'and is off again');
foreach my $n (0, 1)
{
	$c->append_conf("page_server_$n", 'neon_page_service.lazy_replay = on');
	kill 'HUP', $c->postmaster_pid("page_server_$n");
}
reuse('page servers lag', @order[0 .. 9], @order[28 .. $#order]);

# A crash before the new relation's pages were ever written out.
foreach my $kind ('local', 'table')
{
	$step++;
	$p->set_next_oid($number);
	$kind{$kind}->();
	$c->sql("$drop{$kind}; VACUUM pg_class; CHECKPOINT") if $kind eq 'local';
}
$p->close;
$c->kill9('compute');
$c->start('compute');
is($rows_right->(), '', 'after a crash, too');
is($c->counter('stale_answers'), 0, 'no answer was old');
$c->check_logs;
done_testing();
