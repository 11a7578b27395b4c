# NeonComm::Ordinary - what is in a cluster, by a dump and by sums, and an ordinary server to compare it with, which
# finds none of our libraries.
package NeonComm::Ordinary;

use strict;
use warnings;

use Exporter 'import';
use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More;
use NeonComm::Cluster ();

our @EXPORT = qw(fill_cluster contents_of);

my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;

# ---- contents

# Two databases with all kinds of indexes, TOAST, large objects, sequences, an unlogged table, a tablespace, a prepared
# transaction. The cluster needs room for the latter.
sub fill_cluster
{
	my ($c) = @_;
	$c->sql(q{CREATE DATABASE other; CREATE ROLE reader; CREATE TABLESPACE ts LOCATION ''});
	foreach my $db ('postgres', 'other')
	{
		$c->sql(q{CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
			INSERT INTO accounts SELECT g, 100 FROM generate_series(1, 3000) g;
			CREATE TABLE kinds (id int, p point, a int[], t text, v tsvector);
			INSERT INTO kinds SELECT g, point(g % 100, g / 100), ARRAY[g, g % 7], md5(g::text), to_tsvector('simple', 'a' || g || ' b' || g % 50)
				FROM generate_series(1, 2000) g;
			CREATE INDEX kinds_btree ON kinds (t); CREATE INDEX kinds_hash ON kinds USING hash (id); CREATE INDEX kinds_gist ON kinds USING gist (p);
			CREATE INDEX kinds_spgist ON kinds USING spgist (p); CREATE INDEX kinds_gin ON kinds USING gin (a);
			CREATE INDEX kinds_gin_text ON kinds USING gin (v); CREATE INDEX kinds_brin ON kinds USING brin (id);
			CREATE TABLE large (id int, f text); ALTER TABLE large ALTER f SET STORAGE EXTERNAL;
			INSERT INTO large SELECT g, repeat(md5(g::text), 400) FROM generate_series(1, 60) g;
			CREATE TABLE in_ts TABLESPACE ts AS SELECT g AS id, repeat('t', 400) AS f FROM generate_series(1, 500) g;
			CREATE UNLOGGED TABLE nothing_logged (i int); INSERT INTO nothing_logged SELECT generate_series(1, 100);
			CREATE SEQUENCE counted; SELECT nextval('counted') FROM generate_series(1, 40); SELECT setval('counted', 1000);
			SELECT lo_from_bytea(0, decode(repeat('ab', 9000), 'hex'));
			DELETE FROM kinds WHERE id % 11 = 0; UPDATE accounts SET balance = balance - id % 10}, db => $db);
	}
	$c->sql(q{BEGIN; INSERT INTO accounts VALUES (-1, 1); PREPARE TRANSACTION 'in doubt'});
	return;
}

# Answers by each kind of index, without another way to the rows.
my $by_index = <<'END';
SET enable_seqscan = off;
SELECT 'btree', count(*), sum(id) FROM kinds WHERE t > 'a';
SELECT 'hash', count(*), min(t) FROM kinds WHERE id = 1234;
SELECT 'gist', count(*), sum(id) FROM kinds WHERE p <@ box '(10,2),(40,9)';
SELECT 'spgist', count(*), sum(id) FROM kinds WHERE p << point(20, 0);
SELECT 'gin', count(*), sum(id) FROM kinds WHERE a @> ARRAY[3];
SELECT 'gin text', count(*), sum(id) FROM kinds WHERE v @@ 'b17'::tsquery;
SELECT 'brin', count(*), sum(id) FROM kinds WHERE id BETWEEN 500 AND 600;
SELECT 'large objects', sum(length(lo_get(oid))) FROM pg_largeobject_metadata;
SELECT 'sequence', last_value, is_called FROM counted;
SELECT format('SELECT %L, count(*), sum(hashtextextended(x::text, 0)) FROM %I x', relname, relname) FROM pg_class
	WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relpersistence = 'p' ORDER BY relname \gexec
END

sub output_of
{
	my ($input, @command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '<', \$input, '>', \$out, '2>', \$err) or die "@command: $err";
	return $out;
}

# name => text: for each database the answers and a dump. Unlogged contents and our extension are left out.
sub contents_of
{
	my ($conninfo) = @_;
	my %found = (roles => output_of('', "$bindir/pg_dumpall", '-d', $conninfo, '-g', '--no-role-passwords'));
	foreach my $db ('postgres', 'other')
	{
		my $in = "$conninfo dbname=$db";
		$found{"answers of $db"} = output_of($by_index, "$bindir/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $in, '-f', '-');
		$found{"dump of $db"} = output_of('', "$bindir/pg_dump", '-d', $in, '--no-unlogged-table-data', '--no-comments');
	}
	# the dump has a key of its own each time, from some minor release on
	s/^(?:\\(?:un)?restrict |--|.*\bneon_comm\b).*\n//mg, s/\n\n+/\n/g foreach values %found;
	return %found;
}

# ---- an ordinary server

# Starts a data directory with stock PostgreSQL on a socket of its own; whatever wants a library of ours fails.
sub start
{
	my ($class, $data) = @_;
	my $self = bless { data => $data, socket => tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1) }, $class;
	my $out = '';
	IPC::Run::run([ "$bindir/pg_ctl", 'start', '-w', '-s', '-D', $data, '-l', "$self->{socket}/log", '-o',
		"-c unix_socket_directories='$self->{socket}' -c listen_addresses='' -c allow_in_place_tablespaces=on" ], '>&', \$out)
	  or die "no start: $out" . `cat $self->{socket}/log`;
	$self->{runs} = 1;
	unlike(`cat $self->{socket}/log`, qr/recovery|not properly shut down|PANIC/, 'it starts as after a clean stop');
	return $self;
}

sub conninfo { my ($self) = @_; return "host=$self->{socket} user=postgres dbname=postgres" }
sub sql { my ($self, $sql) = @_; my $out = output_of($sql, "$bindir/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $self->conninfo, '-f', '-'); chomp $out; return $out }
sub text_of { my ($self, $name) = @_; open my $fh, '<', "$self->{data}/$name" or die $!; local $/; return scalar(<$fh>) // '' }

sub stop
{
	my ($self) = @_;
	return unless delete $self->{runs};
	system("$bindir/pg_ctl", 'stop', '-s', '-m', 'fast', '-D', $self->{data}) == 0 or die 'no stop';
	return;
}

sub DESTROY { my ($self) = @_; local ($?, $@, $!); system("$bindir/pg_ctl", 'stop', '-s', '-m', 'immediate', '-D', $self->{data}) if delete $self->{runs}; return }

1;
