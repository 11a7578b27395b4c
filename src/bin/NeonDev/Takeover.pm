# NeonDev::Takeover - promises of page servers, and whose WAL a new compute begins with (docs/takeover.md).
#
# For clusters whose page servers keep members and write quorum (init --durable --write-quorum W). The rules
# are those of the protocol's model; what a page server has promised it keeps whatever becomes of the caller,
# who calls again then.
package NeonDev::Takeover;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Parts;

our @EXPORT = qw(has_members reachable_members takeover_log wait_for_leases members_text overtaken);

sub has_members { return ($cluster{members} // '') eq 'on' }

# What a page server says, by name: the last value, and under "@name" all of them.
sub said
{
	my ($text) = @_;
	my %said;
	foreach (split /\n/, $text)
	{
		my ($name, $value) = /^(\w+)\|(.*)$/ or next;
		$said{$name} = $value;
		push @{ $said{"\@$name"} }, $value;
	}
	return \%said;
}

# ---- who is there

sub name_list { return join '; ', map { part_name($_->[0]) . ": $_->[1]" } @_ }

# The members as page servers keep them: they are told by a compute, all the same.
sub member_lines
{
	my ($statuses, $key) = @_;
	my %lists = map { (join(',', sort @{ $_->{"\@$key"} // [] }) => $_) } grep { ($_->{write_quorum} // 0) > 0 } values %$statuses;
	my @lists = values %lists;

	@lists <= 1 or fail 'page servers name different members: nothing can be said of what was confirmed';
	return @lists ? $lists[0] : undef;
}

# { quorum, need, count, there => { number => status }, missing => [[number, why]...] }
sub reachable_members
{
	my (%status, @missing);
	foreach my $n (page_servers())
	{
		my $result = page_server_query($n);
		if ($result->{status} == 0) { $status{$n} = said($result->{out}) }
		else { push @missing, [ $n, why_not($result, 10) ] }
	}
	my $list = member_lines(\%status, 'member_of_quorum');
	defined $list or fail 'no page server that answers knows the members', @missing ? ' (' . name_list(@missing) . ')' : '',
	  ': they are told when all of them have joined a compute for the first time';
	my %is_member = map { ((split / /)[0] => 1) } @{ $list->{'@member_of_quorum'} };
	foreach my $n (grep { !$is_member{ $status{$_}{member} } } sort { $a <=> $b } keys %status)
	{
		delete $status{$n};
		push @missing, [ $n, 'is no member: its directory is another one than the one that the members were named with' ];
	}
	my $count = keys %is_member;
	return { quorum => $list->{write_quorum}, count => $count, need => $count - $list->{write_quorum} + 1, there => \%status, missing => \@missing };
}

sub too_few
{
	my ($members, $have, $what) = @_;
	return "$what of $members->{need} of $members->{count} page servers are needed, so that one of them has what $members->{quorum} had confirmed; there "
	  . ($have == 1 ? 'is 1' : "are $have") . '. Missing: ' . name_list(@{ $members->{missing} });
}

# ---- promises

# An incarnation that is newer than all that they have followed or promised.
sub newer_incarnation
{
	my ($members) = @_;
	my $number = 0;
	foreach (map { @{$_}{qw(incarnation promised)} } values %{ $members->{there} })
	{
		my ($n) = /^0000([0-9a-f]{8})[0-9a-f]{20}$/ or next;
		$number = hex $n if hex $n > $number;
	}
	open my $fh, '<:raw', '/dev/urandom' or fail "cannot open /dev/urandom: $!";
	(read $fh, my $random, 10) == 10 or fail "cannot read /dev/urandom: $!";
	return sprintf '0000%08x%s', $number + 1, unpack 'H*', $random;
}

# The incarnation that wrote the end of a log: the last one that began before it.
sub last_incarnation
{
	my ($log) = @_;
	my $end = lsn_number($log->{end});
	my @wrote = grep { my $began = lsn_number((split / /)[1]); $began > 0 && $began < $end } @{ $log->{'@incarnation'} };
	return (split / /, @wrote ? $wrote[-1] : $log->{'@incarnation'}[0])[0];
}

# Incarnations that are newer than the end of the best log: others have followed them, and nothing of theirs was
# confirmed. They are of the new lineage, or who followed them would be parted.
sub unbegun
{
	my ($last, @logs) = @_;
	my %newer = map { ($_ => 1) } grep { $_ gt $last } map { (split / /)[0] } map { @{ $_->{'@incarnation'} } } @logs;
	return sort keys %newer;
}

# Gets the promises, then looks at the logs: { incarnation, unbegun, source, log, wal_from, followed, leases_until }.
# Fails when they are too few, unless --lose-unconfirmed.
sub takeover_log
{
	my $members = reachable_members();
	my $there = keys %{ $members->{there} };

	$there >= $members->{need} || $opt{lose_unconfirmed}
	  or fail too_few($members, $there, 'promises'), ". Nothing was changed. --lose-unconfirmed goes on without them";
	$there > 0 or fail 'no member answers: ', name_list(@{ $members->{missing} });
	my $incarnation = newer_incarnation($members);
	my $leases_until = 0;
	my %log;
	foreach my $n (sort { $a <=> $b } keys %{ $members->{there} })
	{
		my $result = page_server_query($n, "takeover $cluster{tenant_id} $cluster{timeline_id} $incarnation", $opt{timeout});
		if ($result->{status} == 0)
		{
			$log{$n} = said($result->{out});
			my $until = monotonic() + $log{$n}{lease_ms} / 1000 + 0.02;
			$leases_until = $until if $until > $leases_until;
		}
		else { push @{ $members->{missing} }, [ $n, why_not($result, $opt{timeout}) ] }
	}
	my $have = keys %log;
	$have >= $members->{need} || ($have > 0 && $opt{lose_unconfirmed})
	  or fail too_few($members, $have, 'promises'), $have ? '. Those that were given stand: call again' : '';
	my %last = map { ($_ => last_incarnation($log{$_})) } keys %log;
	my %end = map { ($_ => lsn_number($log{$_}{end})) } keys %log;
	my ($best) = sort { $last{$b} cmp $last{$a} || $end{$b} <=> $end{$a} || $a <=> $b } keys %log;
	my $source = $opt{from_page_server} // $best;
	exists $log{$source} && $last{$source} eq $last{$best} && $end{$source} == $end{$best}
	  or fail part_name($source), ' has not what ', part_name($best), " has (up to $log{$best}{end})";
	warning "the promises of $have page servers are fewer than $members->{need}: commits behind $log{$source}{end} may be gone (missing: ",
	  name_list(@{ $members->{missing} }), ')' if $have < $members->{need};
	my ($from) = sort { lsn_number($a) <=> lsn_number($b) } map { $_->{last_record} } values %log;
	return { incarnation => $incarnation, unbegun => [ unbegun($last{$source}, values %log) ], source => $source, log => $log{$source}, wal_from => $from,
		followed => [ map { $_->{incarnation} } values %log ], leases_until => $leases_until };
}

# Until then the compute before may answer from its own memory, with leases that page servers have granted: unless its
# processes have ended, which are those of the directory whose compute_identity is given.
sub wait_for_leases
{
	my ($choice, $ended) = @_;
	my $left = $choice->{leases_until} - monotonic();
	return if $left <= 0;
	return if defined $ended && !grep { $ended !~ /^incarnation \Q$_\E /m } @{ $choice->{followed} };
	progress sprintf 'waiting %.1f s for the leases of the compute before, which may run somewhere ...', $left;
	pause($left);
	return;
}

# compute_members of the new directory.
sub members_text
{
	my ($log) = @_;
	return "neon_comm promise 1\npromised -\nwrite_quorum $log->{write_quorum}\n" . join '', map { "member $_\n" } @{ $log->{'@member'} };
}

# ---- an old compute

# Why the compute's directory must not be started: so many members belong to a newer one that it could never
# get anything confirmed. Undefined: nothing is known against it.
sub overtaken
{
	return unless has_members();
	my $text = slurp(part_data('compute') . '/compute_identity') // return;
	my $members = eval { reachable_members() } // return;
	my @newer = grep { my $p = $members->{there}{$_}{promised} // '-'; $p ne '-' && $text !~ /^incarnation \Q$p\E /m }
	  sort { $a <=> $b } keys %{ $members->{there} };
	return if @newer < $members->{need};
	return 'this compute was overtaken: ' . join(', ', map { part_name($_) } @newer) . ' belong to a newer one; it must not be started again';
}

$NeonDev::Parts::against_compute = \&overtaken;

1;
