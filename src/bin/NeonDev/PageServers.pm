# NeonDev::PageServers - page servers that come and go while the compute runs.
#
# A new page server is a copy of another one, which is stopped for as long as that takes and until the new one
# follows: so its slot, and the new one's, which begins where WAL is kept for all, keep the WAL that the copy needs.
# Copies are made beside what is there and get their names when they are whole. Each step looks whether it was
# done already: after an interruption the same command goes on, or begins anew.
#
# Who counts for commits is changed when a new page server follows, and before one is taken away (docs/takeover.md).
package NeonDev::PageServers;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Make;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Settings;
use NeonDev::Takeover;

our @EXPORT = qw(add_page_server remove_page_server replace_page_server move_page_server change_write_quorum);

sub is_there { return -e $_[0] || -l $_[0] }
sub remove_tree { my ($path) = @_; return must_run("cannot remove $path", {}, 'rm', '-rf', '--', $path) }
sub move { my ($from, $to) = @_; rename $from, $to or fail "cannot move $from to $to: $!"; return }
sub to_disk { return run({}, 'sync', '-f', $_[0]) }

# A page server whose directory was moved has a link in its place: what that leads to goes with it.
sub remove_data
{
	my ($path) = @_;
	remove_moved($path) if -l $path;
	return remove_tree($path);
}

# ---- configuration

# The last line of a setting gets another value, or there is one more.
sub change_setting
{
	my ($file, $key, $value) = @_;
	my $text = slurp($file) // fail "cannot read $file";
	my $line = setting_line($key, $value);

	$text =~ s/(.*)^\Q$key\E\s*=[^\n]*\n/$1$line/ms or $text .= $line;
	write_file($file, $text);
	return;
}

# By a reload. It is told to the configuration of a compute that is made anew as well.
sub change_compute
{
	my ($key, $value) = @_;
	my $pid = part_pid('compute') // fail 'the compute does not run: start it first';

	change_setting($_, $key, $value) foreach part_data('compute') . '/postgresql.conf', compute_conf();
	kill 'HUP', $pid or fail "cannot reload the compute: $!";
	return;
}

sub slots_listed { return split /\s*,\s*/, configured_text('compute', 'neon_comm.wal_feed_slots') }

# The slot's directory tells, for which nobody has to log in: a shard may be away.
sub register
{
	my ($name) = @_;
	my @others = grep { $_ ne $name } slots_listed();
	my $until = monotonic() + $opt{timeout};

	change_compute('neon_comm.wal_feed_slots', join(',', @others, $name));
	until (-d part_data('compute') . "/pg_replslot/$name")
	{
		monotonic() < $until or fail "the compute has made no replication slot $name: its log tells why";
		pause(0.05);
	}
	return;
}

sub unregister
{
	my ($name) = @_;
	my $until = monotonic() + $opt{timeout};

	change_compute('neon_comm.wal_feed_slots', join(',', grep { $_ ne $name } slots_listed()));
	while (1)
	{
		my $result = compute_query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$name'");
		return if $result->{status} == 0;
		monotonic() < $until or fail "cannot drop the replication slot $name: ", why_not($result, 10);
		pause(0.1);
	}
}

# Which page servers a shard has follows from how many there are.
sub tell_shards
{
	return if hosts_per_shard() == 1;
	progress 'telling the compute which page servers its shards have ...';
	change_compute('neon_comm.page_servers', join(',', map { shard_conninfo($_) } shards()));
	return;
}

# ---- commits that wait, and members

sub is_durable { return ($cluster{write_quorum} // '') ne '' }

# The page servers that there are become the members, by their directories as they are now. Interrupted, or over time, it
# goes on with the next call.
sub change_members
{
	my $names = join ', ', map { "'" . part_id($_) . "'" } page_servers();

	progress "changing the members: $cluster{write_quorum} of ", scalar(page_servers()), ' page servers confirm ...';
	# who is gone does not go on waiting
	my $result = compute_query("SELECT neon_comm.change_members(ARRAY[$names], $cluster{write_quorum})", $opt{timeout} + 10,
		"SET statement_timeout = '$opt{timeout}s'", q{SET client_connection_check_interval = '500ms'});
	return if $result->{status} == 0;
	my ($waits) = reverse grep { /waiting: / } split /\n/, $result->{err};
	fail 'the members are not changed yet: ', why_not($result, $opt{timeout} + 10),
	  defined $waits ? ' (' . ($waits =~ s/^.*?waiting: //r) . ')' : '', '; the same command goes on';
}

# Whatever synchronous_standby_names lists, a page server's entry says no more than what a write quorum of members has: so
# the setting may be of before while members change. Other durable clusters have the setting alone.
sub tell_commits
{
	return unless is_durable();
	change_members() if has_members();
	progress 'telling the compute which page servers commits wait for ...';
	change_compute('synchronous_standby_names', commits_wait_for());
	change_compute('neon_comm.write_quorum', $cluster{write_quorum}) if has_members();
	return;
}

# ---- copies

# Shards without a page server that runs when these are stopped.
sub shards_without
{
	my %stopped = map { ($_ => 1) } @_;
	my @without = grep { !grep { !$stopped{$_} && part_pid($_) } shard_hosts($_) } shards();
	return scalar @without;
}

# One without which fewest shards have to wait, the last of these.
sub choose_source
{
	my ($n) = @_;
	my @others = grep { $_ != $n && -d part_data($_) } page_servers();
	@others > 0 or fail 'there is no other page server to copy';
	my %waiting = map { ($_ => shards_without($n, $_)) } @others;
	my ($source) = sort { $waiting{$a} <=> $waiting{$b} || $b <=> $a } @others;
	return $source;
}

# What makes a copy another page server than its original.
sub configure_copy
{
	my ($data, $source, $n) = @_;
	my $file = "$data/postgresql.conf";
	# a member of its own: it shows what it has replayed when it joins
	remove_tree("$data/page_service_identity");
	my $text = slurp($file) // fail "cannot read $file";

	$text =~ s/\bapplication_name=page_server_$source\b/application_name=page_server_$n/g;
	write_file($file, $text);
	change_setting($file, 'port', part_port($n));
	change_setting($file, 'neon_page_service.port', part_port($n));
	change_setting($file, 'neon_page_service.metrics_port', metrics_port($source) && $cluster{ part_id($n) . '_metrics_port' } || 0);
	change_setting($file, 'primary_slot_name', part_id($n));
	change_setting($file, 'neon_page_service.shard_number', $n % $cluster{shards});
	return;
}

# What earlier calls have left; their cp may still be at work, in a directory of its own.
sub remove_copies
{
	my ($to) = @_;
	foreach my $left (glob quotemeta($to) . '.new.*')
	{
		foreach my $round (1 .. 50)
		{
			last if run({}, 'rm', '-rf', '--', $left)->{status} == 0;
			pause(0.1);
		}
	}
	return;
}

# A directory that is whole when it has its name.
sub copy_to
{
	my ($from, $to, $finish) = @_;
	my $new = "$to.new.$$";

	remove_copies($to);
	copy_directory($from, $new);
	remove_tree("$new/postmaster.pid");
	$finish->($new);
	to_disk($new);
	return $new;
}

sub wait_until_follows
{
	my ($n) = @_;
	my $until = monotonic() + $opt{timeout};

	progress "waiting until page server $n follows ...";
	while (1)
	{
		my $result = page_server_query($n);
		return if $result->{status} == 0 && $result->{out} =~ /^streaming\|on$/m;
		part_pid($n) or fail "page server $n has ended: see ", part_log($n);
		monotonic() < $until or fail "page server $n does not follow in $opt{timeout} s: see ", part_log($n), ' and ', part_log('compute');
		pause(0.1);
	}
}

sub start_following
{
	my ($n) = @_;
	start_part($n) or fail "page server $n did not start";
	return wait_until_follows($n);
}

# Who an interrupted call has left stopped.
sub start_source
{
	my $source = $cluster{copied} // '';
	return if $source eq '';
	start_part($source) or fail "page server $source did not start again";
	$cluster{copied} = '';
	save_cluster();
	return;
}

# Runs steps with a page server stopped; whatever happens, it is started again.
sub while_stopped
{
	my ($source, $steps) = @_;
	$cluster{copied} = $source;
	save_cluster();
	stop_part($source) or fail "page server $source did not stop";
	my $done = eval { $steps->(); 1 };
	my $failure = $@;
	my $started = eval { start_source(); 1 };
	die $failure unless $done;
	die $@ unless $started;
	return;
}

sub working
{
	my ($steps) = @_;
	my @signals = qw(INT TERM HUP);

	load_cluster();
	hold_cluster();
	load_cluster();
	local @SIG{@signals} = (\&interrupted) x @signals;
	part_pid('compute') or fail 'the compute does not run: start it first, since it has to keep WAL and to follow';
	start_source();
	$steps->();
	return 0;
}

# ---- commands

# neon_dev.conf remembers the number and the port of one that is being added.
sub begin_adding
{
	return $cluster{adding} if ($cluster{adding} // '') ne '';
	my $n = page_servers();
	$n < SHARDS_MAX or fail 'there are ', SHARDS_MAX, ' page servers already';
	@cluster{ 'adding', 'adding_port', 'adding_metrics_port' } = ($n, choose_ports(2));
	save_cluster();
	return $n;
}

sub add_page_server
{
	return working(sub {
		my $n = begin_adding();
		@cluster{ "page_server_${n}_port", "page_server_${n}_metrics_port" } = @cluster{ 'adding_port', 'adding_metrics_port' };
		my $new = part_data($n);
		my $source = choose_source($n);
		progress "adding page server $n, a copy of page server $source ...";
		register(part_id($n));
		if (!is_there($new))
		{
			while_stopped($source, sub {
				progress "copying page server $source ...";
				move(copy_to(part_data($source), $new, sub { configure_copy($_[0], $source, $n) }), $new);
				start_following($n);
			});
		}
		start_following($n);
		$cluster{page_servers} = $n + 1;
		save_cluster();
		tell_commits();
		tell_shards();
		@cluster{ 'adding', 'adding_port', 'adding_metrics_port' } = ('', '', '');
		save_cluster();
		progress "page server $n is added";
	});
}

sub remove_page_server
{
	return working(sub {
		my $n = $opt{part};
		$n == page_servers() - 1 && $n >= $cluster{shards}
		  or fail "only the last page server can be removed, and none of the first $cluster{shards}, which shards have for their own";
		$n >= hosts_per_shard() or fail 'each shard has ', hosts_per_shard(), ' page servers as hosts: there are no more';
		!is_durable() || $cluster{write_quorum} <= $n
		  or fail "commits wait for $cluster{write_quorum} page servers: change that first, with neon_dev write-quorum";
		progress "removing page server $n ...";
		{
			local $cluster{page_servers} = $n;
			tell_shards();
			tell_commits();
		}
		unregister(part_id($n));
		stop_part($n) or fail "page server $n did not stop";
		remove_data(part_data($n));
		remove_data(part_data($n) . '.old');
		remove_copies(part_data($n));
		$cluster{page_servers} = $n;
		save_cluster();
		progress "page server $n is removed";
	});
}

sub replace_page_server
{
	return working(sub {
		my $n = $opt{part};
		my ($data, $old) = (part_data($n), part_data($n) . '.old');
		my $source = choose_source($n);
		progress "replacing page server $n by a copy of page server $source ...";
		part_pid($n) && (stop_part($n) or fail "page server $n did not stop");
		while_stopped($source, sub {
			progress "copying page server $source ...";
			my $new = copy_to(part_data($source), $data, sub { configure_copy($_[0], $source, $n) });
			# an interrupted call has put the old one away; what has its name is a copy then
			is_there($old) ? remove_data($data) : move($data, $old) if is_there($data);
			move($new, $data);
			start_following($n);
		});
		tell_commits();
		remove_data($old);
		progress "page server $n is replaced";
	});
}

sub is_moved_here
{
	my ($dir) = @_;
	return (slurp("$dir/" . MOVED) // '') eq "$opt{dir} " . part_id($opt{part}) . "\n";
}

# The copy goes on as the same page server, if it is of a directory at its place: as was_moved_here() of the page service has it.
sub say_moved
{
	my ($new) = @_;
	my ($place) = (slurp("$new/page_service_identity") // '') =~ /^place (\S+)$/m or return;
	my $inode = (stat $new)[1] // fail "cannot look at $new: $!";
	my $word = 2166136261;
	$word = (($word ^ ord) * 16777619) & 0xffffffff foreach split //, "$place $inode";
	write_file("$new/page_service_moved", sprintf "%08x\n", $word);
	return;
}

# Stopped, so that what is copied is whole.
sub move_data
{
	my ($n, $to) = @_;
	my ($data, $old) = (part_data($n), part_data($n) . '.old');

	stop_part($n) or fail "page server $n did not stop";
	# put away already, and its name not given yet
	if (!is_there($data) && is_there($old))
	{
		return symlink($to, $data) || fail "cannot make the link $data: $!" if is_moved_here($to);
		move($old, $data);
	}
	progress "copying page server $n to $to ...";
	remove_tree($to) if is_moved_here($to);
	my $new = copy_to($data, $to, sub {
		write_file("$_[0]/" . MOVED, "$opt{dir} " . part_id($n) . "\n");
		say_moved($_[0]);
	});
	move($new, $to);
	move($data, $old);
	symlink $to, $data or fail "cannot make the link $data: $!";
	return;
}

sub move_page_server
{
	return working(sub {
		my $n = $opt{part};
		my $data = part_data($n);
		my $to = absolute($opt{to_dir});
		$to !~ /['"\\,\n]/ or fail "$to has a quote, backslash, comma or line end in it";
		!is_there($to) || is_moved_here($to) or fail "$to is there already";
		progress "moving page server $n to $to ...";
		move_data($n, $to) unless -l $data && readlink($data) eq $to;
		start_following($n);
		remove_data("$data.old") if is_there("$data.old");
		progress "page server $n is moved";
	});
}

sub change_write_quorum
{
	return working(sub {
		is_durable() or fail 'commits of this cluster wait for no page servers (init --durable)';
		my $count = () = page_servers();
		$opt{write_quorum} <= $count or fail "the write quorum has to be from 1 to the number of page servers, which is $count";
		$cluster{write_quorum} = $opt{write_quorum};
		save_cluster();
		tell_commits();
		progress "commits wait for $cluster{write_quorum} of $count page servers";
	});
}

1;
