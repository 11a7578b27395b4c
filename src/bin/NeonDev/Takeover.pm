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

our @EXPORT = qw(has_members reachable_members reachable_too_few takeover_log wait_for_leases members_text overtaken);

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

# Members that count by what a page server says; two lists while they change. { quorum, need, count, member => { id => name } }
sub list_of
{
	my ($said, $quorum, $members) = @_;
	my %member = map { split / /, $_, 2 } @$members;
	my $count = keys %member;
	return { quorum => $quorum, count => $count, need => $count - $quorum + 1, member => \%member };
}

sub lists_of
{
	my ($said) = @_;
	return () unless ($said->{write_quorum} // 0) > 0;
	my @lists = list_of($said, $said->{write_quorum}, $said->{'@member_of_quorum'} // $said->{'@member'});
	push @lists, list_of($said, $said->{next_write_quorum}, $said->{'@next_member_of_quorum'} // $said->{'@next_member'})
	  if ($said->{next_write_quorum} // 0) > 0;
	return @lists;
}

# The first list of which too few have one of these member ids; undefined: there is none.
sub lacking
{
	my ($lists, @ids) = @_;
	my %have = map { ($_ => 1) } @ids;
	foreach my $list (@$lists)
	{
		my $have = grep { $have{$_} } keys %{ $list->{member} };
		return { %$list, have => $have } if $have < $list->{need};
	}
	return;
}

# The newest lists that are known, and who is in any of them.
# { lists, known => [lists...], answer => { number => status }, there => the same, members only, missing => [[number, why]...] }
sub reachable_members
{
	my (%status, @missing);
	foreach my $n (page_servers())
	{
		my $result = page_server_query($n);
		if ($result->{status} == 0) { $status{$n} = said($result->{out}) }
		else { push @missing, [ $n, why_not($result, 10) ] }
	}
	my @know = sort { ($status{$b}{change_of_members} // 0) <=> ($status{$a}{change_of_members} // 0) || $a <=> $b } grep { lists_of($status{$_}) } keys %status;
	@know > 0 or fail 'no page server that answers knows the members', @missing ? ' (' . name_list(@missing) . ')' : '',
	  ': they are told when all of them have joined a compute for the first time';
	my %is_member = map { ($_ => 1) } map { keys %{ $_->{member} } } map { lists_of($status{$_}) } @know;
	my %there = map { ($_ => $status{$_}) } grep { $is_member{ $status{$_}{member} } } keys %status;
	push @missing, [ $_, 'is no member: its directory is another one than the one that the members were named with' ]
	  foreach grep { !$there{$_} } sort { $a <=> $b } keys %status;
	return { lists => [ lists_of($status{ $know[0] }) ], known => [ map { [ lists_of($status{$_}) ] } @know ], answer => \%status, there => \%there, missing => \@missing };
}

# By what page servers say before they are asked for anything: could some of their lists be enough? The lists of the best
# log decide, and nobody knows yet which that is.
sub reachable_too_few
{
	my ($members) = @_;
	my @ids = map { $_->{member} } values %{ $members->{there} };
	foreach my $lists (@{ $members->{known} })
	{
		return unless lacking($lists, @ids);
	}
	return too_few($members, lacking($members->{lists}, @ids));
}

sub too_few
{
	my ($members, $list) = @_;
	return "promises of $list->{need} of $list->{count} page servers are needed, so that one of them has what $list->{quorum} had confirmed; there "
	  . ($list->{have} == 1 ? 'is 1' : "are $list->{have}") . '. Missing: ' . name_list(@{ $members->{missing} });
}

# ---- promises

# An incarnation that is newer than all that they have followed or promised.
sub newer_incarnation
{
	my ($members) = @_;
	my $number = 0;
	foreach (map { @{$_}{qw(incarnation promised)} } values %{ $members->{answer} })
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

# Who is in a list of one that has answered, and was not asked yet.
sub to_be_asked
{
	my ($members, $asked, $log) = @_;
	my %named = map { ($_ => 1) } map { keys %{ $_->{member} } } map { lists_of($_) } values %$log;
	return sort { $a <=> $b } grep { !$asked->{$_} && ($members->{there}{$_} || $named{ $members->{answer}{$_}{member} }) } keys %{ $members->{answer} };
}

# Asks members for their promises, and on whoever is one by the logs that they tell: { number => answer }. "leases_until" of
# an answer: by monotonic().
sub ask_for_promises
{
	my ($members, $incarnation) = @_;
	my (%log, %asked);
	while (my ($n) = to_be_asked($members, \%asked, \%log))
	{
		my $result = page_server_query($n, "takeover $cluster{tenant_id} $cluster{timeline_id} $incarnation", $opt{timeout});
		$asked{$n} = 1;
		$members->{missing} = [ grep { $_->[0] != $n } @{ $members->{missing} } ];
		if ($result->{status} == 0)
		{
			$log{$n} = said($result->{out});
			$log{$n}{leases_until} = monotonic() + $log{$n}{lease_ms} / 1000 + 0.02;
		}
		else { push @{ $members->{missing} }, [ $n, why_not($result, $opt{timeout}) ] }
	}
	return %log;
}

# Whose log goes on: the last incarnation decides, then the length, then who knows most of the members.
sub best_of
{
	my ($log) = @_;
	my %last = map { ($_ => last_incarnation($log->{$_})) } keys %$log;
	my %end = map { ($_ => lsn_number($log->{$_}{end})) } keys %$log;
	my ($best) = sort { $last{$b} cmp $last{$a} || $end{$b} <=> $end{$a} || $log->{$b}{change_of_members} <=> $log->{$a}{change_of_members} || $a <=> $b } keys %$log;
	my $source = $opt{from_page_server} // $best;
	exists $log->{$source} && $last{$source} eq $last{$best} && $end{$source} == $end{$best}
	  or fail part_name($source), ' has not what ', part_name($best), " has (up to $log->{$best}{end})";
	return ($best, $source, $last{$best});
}

# Gets the promises, then looks at the logs: { incarnation, unbegun, source, log, wal_from, followed, leases_until }. The members of the best log count,
# both lists while they change, whoever was asked: all that any page server names are. Fails when they are too few,
# unless --lose-unconfirmed.
sub takeover_log
{
	my $members = reachable_members();
	my $few = reachable_too_few($members);
	!defined $few || $opt{lose_unconfirmed} or fail "$few. Nothing was changed. --lose-unconfirmed goes on without them";
	keys %{ $members->{there} } > 0 or fail 'no member answers: ', name_list(@{ $members->{missing} });
	my $incarnation = newer_incarnation($members);
	my %log = ask_for_promises($members, $incarnation);
	%log or fail 'no member has promised anything: ', name_list(@{ $members->{missing} });
	my ($best, $source, $last) = best_of(\%log);
	my $lacking = lacking([ lists_of($log{$best}) ], map { $_->{self} } values %log);
	$few = defined $lacking ? too_few($members, $lacking) : undef;
	!defined $few || $opt{lose_unconfirmed} or fail "$few. Those that were given stand: call again";
	warning "$few: commits behind $log{$source}{end} may be gone (missing: ", name_list(@{ $members->{missing} }), ')' if defined $few;
	my ($from) = sort { lsn_number($a) <=> lsn_number($b) } map { $_->{last_record} } values %log;
	my ($until) = sort { $b <=> $a } map { $_->{leases_until} } values %log;
	return { incarnation => $incarnation, unbegun => [ unbegun($last, values %log) ], source => $source, log => $log{$best}, wal_from => $from,
		followed => [ map { (split / /, $_->{incarnation})[0] } values %log ], leases_until => $until };
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
	my $text = "neon_comm promise 1\npromised -\n";
	$text .= "write_quorum $log->{write_quorum}\n" . join '', map { "member $_\n" } @{ $log->{'@member'} };
	$text .= "change $log->{change_of_members}\n" if ($log->{change_of_members} // 0) > 0;
	$text .= "next_write_quorum $log->{next_write_quorum}\n" . join '', map { "next_member $_\n" } @{ $log->{'@next_member'} }
	  if ($log->{next_write_quorum} // 0) > 0;
	return $text;
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
	my @ids = map { $members->{there}{$_}{member} } @newer;
	return unless grep { !lacking([$_], @ids) } @{ $members->{lists} };
	return 'this compute was overtaken: ' . join(', ', map { part_name($_) } @newer) . ' belong to a newer one; it must not be started again';
}

$NeonDev::Parts::against_compute = \&overtaken;

1;
