# NeonDev::Content - what is in a cluster, as lines that are the same before and after an upgrade.
#
# Not of the server's own catalogs, which a new major has others of: databases, roles, and in each database the
# relations with their OIDs, functions, types, large objects, the rows of each table and where sequences are.
package NeonDev::Content;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Make;

our @EXPORT = qw(rows_of databases content first_difference);

# Lines that a query of the server that runs finds; a script may have the commands of psql.
sub rows_of
{
	my ($db, $sql, $script) = @_;
	my $result = stock_query($db, $sql, $script);
	$result->{status} == 0 or fail "cannot look into database $db: $result->{err}";
	return split /\n/, $result->{out};
}

sub databases { return rows_of('postgres', q{SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname COLLATE "C"}) }

# The names of what databases share, and of what a pg_upgrade gives the OIDs back to.
my $of_all = <<'END';
SELECT 'database', oid, datname, pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database
	WHERE datname NOT IN ('template0', 'template1', 'postgres') ORDER BY oid;
SELECT 'role', rolname, rolsuper, rolcanlogin FROM pg_authid WHERE oid >= 16384 ORDER BY rolname COLLATE "C";
END

# Unlogged relations are empty wherever a page server was made a server of its own.
my $of_each = <<'END';
SET search_path = pg_catalog;
SELECT 'relation', c.oid, n.nspname, c.relname, c.relkind, c.relnatts FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid >= 16384 AND c.relkind <> 't' AND n.nspname <> 'pg_toast' ORDER BY c.oid;
SELECT 'function', line FROM (SELECT format('%s.%s(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS line
	FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384) f ORDER BY line COLLATE "C";
SELECT 'type', t.oid, n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
	WHERE t.oid >= 16384 AND t.typtype <> 'b' ORDER BY t.oid;
SELECT 'extension', extname, extversion FROM pg_extension WHERE oid >= 16384 ORDER BY extname COLLATE "C";
SELECT 'large objects', count(*), sum(length(data)) FROM pg_largeobject;
SELECT format('SELECT %L, %s, count(*) FROM ONLY %I.%I', 'rows', c.oid, n.nspname, c.relname) FROM pg_class c
	JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid >= 16384 AND c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated ORDER BY c.oid \gexec
SELECT format('SELECT %L, %s, last_value, is_called FROM %I.%I', 'sequence', c.oid, n.nspname, c.relname) FROM pg_class c
	JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid >= 16384 AND c.relkind = 'S' AND c.relpersistence = 'p' ORDER BY c.oid \gexec
END

sub content
{
	my @lines = rows_of('postgres', $of_all, 1);
	foreach my $db (databases())
	{
		push @lines, map { "$db: $_" } rows_of($db, $of_each, 1);
	}
	return \@lines;
}

# Nothing if both are the same.
sub first_difference
{
	my ($before, $after) = @_;
	foreach my $i (0 .. ($#$before > $#$after ? $#$before : $#$after))
	{
		my ($was, $is) = ($before->[$i] // 'nothing', $after->[$i] // 'nothing');
		return "\"$was\" became \"$is\"" if $was ne $is;
	}
	return;
}

1;
