# NeonDev::Verify - compares what page servers have, relation by relation, slowly.
#
# The compute does the comparing (neon_comm.verify_relation); here is the way through databases and relations,
# the rate, and where an interrupted call was: DIR/verifying, written after each portion.
package NeonDev::Verify;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Parts;
use NeonDev::Processes;

our @EXPORT = qw(verify);

use constant {
	PORTION => 1024,			# blocks of one statement
	RELATIONS => 200,			# and relations
	TELL_SECONDS => 5,
};

my ($blocks_done, $blocks_all, $found) = (0, 0, 0);
my ($started, $told);

# Rows of a query in a database, as lists. A page server that hangs is given up by the function itself.
sub rows_in
{
	my ($db, $sql) = @_;
	my $result = run({}, compute_question($sql, $db));
	$result->{status} == 0 or fail "database $db: ", why_not($result, 0);
	return map { [ split /\x1f/, $_, -1 ] } split /\n/, $result->{out};
}

sub state_file { return "$opt{dir}/verifying" }
# Of a part of the cluster nothing is written down.
sub is_whole { return !defined $opt{relation} && !defined $opt{database} }

# Where an interrupted call was: database, relation, block, and what had been found until then.
sub left_at
{
	my ($db, $oid, $block, $before) = (slurp(state_file()) // '') =~ /^(.*)\n(\d+) (\d+) (\d+)\n\z/ or return ('', 0, 0);
	$found = $before;
	progress "going on where an interrupted call was, in database $db; it had found $found";
	return ($db, $oid, $block);
}

sub remember
{
	my ($db, $oid, $block) = @_;
	write_file(state_file(), "$db\n$oid $block $found\n", 0644) if is_whole();
	return;
}

sub literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'" }

# [oid, blocks] of what page servers have of a database, in the order of OIDs; catalogs that all share are in one.
sub relations_of
{
	my ($db, $shared) = @_;
	my $which = defined $opt{relation} ? 'oid = ' . literal($opt{relation}) . '::regclass'
	  : $shared ? 'true' : 'NOT relisshared';
	return rows_in($db, qq{SELECT concat_ws(chr(31), oid, coalesce(pg_relation_size(oid), 0) / current_setting('block_size')::int) FROM pg_class
		WHERE relpersistence = 'p' AND relkind IN ('r', 't', 'm', 'i', 'S') AND $which ORDER BY pg_class.oid});
}

sub tell_progress
{
	my $now = monotonic();
	return if $now - $told < TELL_SECONDS;
	$told = $now;
	progress sprintf '%d of %d MB, %.1f MB/s, %d found', $blocks_done / 128, $blocks_all / 128, $blocks_done / 128 / ($now - $started || 1), $found;
	return;
}

# [oid, first, blocks] each, in one statement: less than a megabyte is not worth one of its own.
sub verify_portion
{
	my ($db, @pieces) = @_;
	my $began = monotonic();
	my $list = join ', ', map { sprintf '(%d::oid, %d::bigint, %d::bigint)', @$_ } @pieces;
	foreach (rows_in($db, qq{SELECT concat_ws(chr(31), p.oid::regclass, coalesce(v.block::text, ''), v.page_server, v.state, v.what)
		FROM (VALUES $list) p (oid, first, blocks), LATERAL neon_comm.verify_relation(p.oid::regclass, p.first, p.blocks) v}))
	{
		my ($relation, $block, $page_server, $state, $what) = @$_;
		$found++;
		print "$db: $relation", $block eq '' ? '' : " block $block", ", page server $page_server: $state: $what\n";
	}
	my $blocks = 0;
	$blocks += $_->[2] foreach @pieces;
	$blocks_done += $blocks;
	remember($db, $pieces[-1][0], $pieces[-1][1] + $pieces[-1][2]);
	tell_progress();
	my $rest = $opt{rate} ? $blocks / 128 / $opt{rate} - (monotonic() - $began) : 0;
	pause($rest) if $rest > 0;
	return;
}

sub verify_database
{
	my ($db, $from_oid, $from_block, @relations) = @_;
	my (@pieces, $size);
	foreach (@relations)
	{
		my ($oid, $blocks) = @$_;
		next if $oid < $from_oid;
		my $first = $oid == $from_oid ? $from_block : 0;
		# one that is empty here may not be there
		do
		{
			my $n = $blocks - $first > PORTION ? PORTION : $blocks - $first;
			$n = 0 if $n < 0;
			push @pieces, [ $oid, $first, $n ] if $n > 0 || $first == 0;
			$first += PORTION;
			$size += $n;
			if ($size >= PORTION || @pieces >= RELATIONS)
			{
				verify_portion($db, @pieces);
				@pieces = ();
				$size = 0;
			}
		} while ($first < $blocks);
	}
	verify_portion($db, @pieces) if @pieces;
	return;
}

sub databases_to_do
{
	return $opt{database} // 'postgres' unless is_whole();
	return map { $_->[0] } rows_in('postgres', q{SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname COLLATE "C"});
}

sub verify
{
	load_cluster();
	defined part_pid('compute') or fail 'the compute does not run: it does the comparing';
	my @databases = databases_to_do();
	my ($at_db, $at_oid, $at_block) = is_whole() ? left_at() : ('', 0, 0);
	my %relations = map { ($_ => [ relations_of($_, $_ eq $databases[0]) ]) } @databases;
	foreach my $db (@databases) { $blocks_all += $_->[1] foreach @{ $relations{$db} } }
	$started = $told = monotonic();
	foreach my $db (@databases)
	{
		if ($db lt $at_db)
		{
			$blocks_done += $_->[1] foreach @{ $relations{$db} };
			next;
		}
		verify_database($db, $db eq $at_db ? ($at_oid, $at_block) : (0, 0), @{ $relations{$db} });
	}
	unlink state_file() if is_whole();
	progress sprintf '%d MB compared in %d s: %s', $blocks_done / 128, monotonic() - $started, $found ? "$found found" : 'page servers have the same';
	return $found ? 1 : 0;
}

1;
