# NeonComm::Chaos - cluster, workload, steps and final checks of test/chaos/chaos.pl.
package NeonComm::Chaos;

use strict;
use warnings;

use POSIX qw(:sys_wait_h);
use Time::HiRes qw(time usleep sleep);

use NeonComm::Cluster;
use NeonComm::Proxy;
use NeonComm::Session;

my $ACCOUNTS = 3000;
my $BALANCE = 1000;
my $SELF = 1500;

# What a statement may end with while servers are broken on purpose.
my $expected_error = qr/canceling\ statement|terminating\ connection|server\ closed\ the\ connection|
	connection\ to\ server|could\ not\ (?:receive|send)\ data|the\ database\ system\ is|no\ connection\ to\ the\ server|
	connection\ .*\ (?:lost|reset|failed)|deadlock\ detected|no\ answer\ from\ page\ servers|
	from\ its\ page\ server:\ .*(?:injected|wrong\ shard|parted)|SSL\ connection|session\ ended|Broken\ pipe/x;

# With several hosts for each shard: what two clients may do to each other, and nothing else.
my $expected_with_hosts = qr/deadlock detected/;

# What logs may hold besides what NeonComm::Cluster forbids anyway.
my $expected_fatal = qr/the\ database\ system\ is|a\ page\ server\ cannot\ be\ promoted|this\ page\ server\ was\ promoted|is\ a\ copy\ of\ a\ page\ server|could\ not\ join\ the\ compute|
	terminating\ (?:connection|walreceiver|background\ worker|autovacuum)|
	could\ not\ (?:connect\ to\ the\ primary|receive\ data\ from\ WAL|start\ WAL\ streaming|send\ (?:data|end-of-streaming))|
	connection\ to\ client\ lost|page\ service\ is\ shutting\ down|requested\ starting\ point|timeline|
	it\ is\ a\ copy|parted|no\ answer\ from\ page\ servers/x;

sub new
{
	my ($class, %o) = @_;
	my $self = bless { hosts => 1, %o, steps_wanted => $o{steps}, bad => [], steps => {}, rng => $o{seed} & 0x7fffffff }, $class;
	return $self;
}

# An own generator: Perl's differs between versions.
sub rnd
{
	my ($self, $n) = @_;
	$self->{rng} = ($self->{rng} * 1103515245 + 12345) & 0x7fffffff;
	return int(($self->{rng} >> 8) / (0x7fffffff >> 8) * 0.999999 * $n);
}

sub pick { my ($self, @from) = @_; return $from[ $self->rnd(scalar @from) ] }

sub say { my ($self, $text) = @_; printf "# %7.1f %s\n", time - ($self->{began} // time), $text; return }

sub bad { my ($self, $text) = @_; push @{ $self->{bad} }, $text; print "not ok - $text\n"; return }

sub failures { my ($self) = @_; return scalar @{ $self->{bad} } }

sub check
{
	my ($self, $ok, $what, $detail) = @_;
	if ($ok) { print "ok - $what\n" }
	else { $self->bad($what . (defined $detail ? ": $detail" : '')) }
	return;
}

# ---- before

sub prepare
{
	my ($self) = @_;
	my $c = $self->{c} = NeonComm::Cluster->new(
		shards => $self->{shards}, checksums => 1, buffers => '2MB', autovacuum => 'on',
		conf => [
			'max_connections=60', 'neon_comm.silence_timeout=2s', 'neon_comm.connect_timeout=2s',
			'neon_comm.request_timeout=60s', 'autovacuum_naptime=5s', 'deadlock_timeout=200ms',
			'checkpoint_timeout=30s', 'log_lock_waits=off', 'wal_sender_timeout=5s', 'neon_comm.wal_feed_timeout=5s' ],
		ps_conf => ['neon_page_service.shard_count=0', 'wal_receiver_timeout=5s', 'wal_retrieve_retry_interval=500ms']);
	my $p = $self->{p} = NeonComm::Proxy->new(seed => $self->{seed} & 0xffff);

	$c->sql(qq{CREATE EXTENSION IF NOT EXISTS amcheck; CREATE EXTENSION IF NOT EXISTS pg_buffercache;
		CREATE TABLE acct (id int PRIMARY KEY, balance bigint NOT NULL, pad text) WITH (fillfactor = 20);
		INSERT INTO acct SELECT g, $BALANCE, repeat('p', 300) FROM generate_series(1, $ACCOUNTS) g;
		CREATE TABLE hist (client int, seq int, a int, b int, x int, PRIMARY KEY (client, seq));
		CREATE TABLE self (id int, v int, f text) WITH (fillfactor = 10);
		INSERT INTO self SELECT g, 0, lpad(g::text, 600, '0') FROM generate_series(0, @{[ $SELF - 1 ]}) g;
		CREATE INDEX ON self (id);
		CREATE FUNCTION transfer(c int, s int, a int, b int, x int) RETURNS text LANGUAGE plpgsql AS \$\$
		BEGIN
			INSERT INTO hist VALUES (c, s, a, b, x);
			UPDATE acct SET balance = balance - x WHERE id = a;
			UPDATE acct SET balance = balance + x WHERE id = b;
			RETURN 'moved';
		END \$\$;
		CHECKPOINT;});
	$self->{small} = $c->sql(q{SELECT pg_relation_size('acct') < 3 * 1024 * 1024}) eq 't';
	$self->bad('acct is smaller than shared buffers') if $self->{small};
	$self->{ports} = [ $c->use_proxy($p, $self->{shards}) ];
	$self->{map} = [ @{ $self->{ports} } ];
	$c->configure({ 'neon_comm.page_servers' => $self->map_of(@{ $self->{ports} }) }) if $self->{hosts} > 1;

	# page servers fetch WAL through the proxy too
	my ($feed) = map { /^wal_feed_port=(\d+)/ ? $1 : () } do { local @ARGV = ("$c->{dir}/neon_dev.conf"); <> };
	my $port = $p->link('wal', $feed);
	foreach my $n (0 .. $self->{shards} - 1)
	{
		$c->configure({ primary_conninfo => "host=127.0.0.1 port=$port application_name=page_server_$n" },
			part => "page_server_$n");
	}
	$self->{began} = time;
	$self->{until} = time + $self->{minutes} * 60;
	$self->say('cluster is ready');
	return;
}

# neon_comm.page_servers for shards whose first hosts have these ports; the others are those that follow in the list.
sub map_of
{
	my ($self, @first) = @_;
	my @all = @{ $self->{ports} };
	my %place = map { ($all[$_] => $_) } 0 .. $#all;

	return $self->{c}->page_server_list(@first) if $self->{hosts} == 1;
	return join ',', map {
		my $from = $place{$_};
		'host=' . join(',', ('127.0.0.1') x $self->{hosts}) . ' port=' . join(',', map { $all[ ($from + $_) % @all ] } 0 .. $self->{hosts} - 1)
	} @first;
}

# ---- workers: processes of their own, each with one session after the other

sub start_workers
{
	my ($self) = @_;
	foreach my $n (1 .. $self->{workers})
	{
		my $pid = fork() // die $!;
		if ($pid == 0)
		{
			$self->{c}{owner_gone} = 1;
			my $ok = eval { $self->worker($n); 1 };
			$self->note($n, "worker died: $@") unless $ok;
			POSIX::_exit(0);
		}
		$self->{pid}{$n} = $pid;
	}
	return;
}

sub path { my ($self, $kind, $n) = @_; return "$self->{c}{dir}/chaos_$kind.$n" }

sub append
{
	my ($self, $kind, $n, $line) = @_;
	open my $fh, '>>', $self->path($kind, $n) or die $!;
	print $fh "$line\n";
	close $fh;
	return;
}

# Something that must not be.
sub note { my ($self, $n, $text) = @_; $text =~ s/\s+/ /g; $self->append('bad', $n, $text); return }

sub lines
{
	my ($self, $kind) = @_;
	my @all;
	foreach my $n (1 .. $self->{workers})
	{
		open my $fh, '<', $self->path($kind, $n) or next;
		while (my $line = <$fh>) { chomp $line; push @all, "$n $line" }
	}
	return @all;
}

sub worker
{
	my ($self, $n) = @_;
	my ($s, $seq) = (undef, 0);

	srand($self->{seed} * 100 + $n);
	while (!-e $self->path('stop', 0))
	{
		if (!defined $s)
		{
			$s = eval { NeonComm::Session->new($self->{c}->conninfo . ' dbname=postgres') };
			if (!defined $s) { sleep 0.3; next }
			my $seconds = $self->{hosts} > 1 ? 300 : 5 + int(rand 20);
			eval { $s->query("SET statement_timeout = '${seconds}s'"); 1 } or do { undef $s; next };
		}
		my $what = rand;
		my $lost =
			$what < 0.55 ? $self->one_transfer($n, $s, ++$seq)
		  : $what < 0.70 ? $self->one_look($n, $s)
		  : $what < 0.85 ? $self->one_change($n, $s)
		  : $what < 0.93 ? $self->one_sum($n, $s)
		  : $what < 0.97 ? $self->one_table($n, $s)
		  :                $self->one_chore($n, $s);
		undef $s if $lost;
	}
	$s->close if defined $s;
	return;
}

sub expected { my ($self) = @_; return $self->{hosts} > 1 ? $expected_with_hosts : $expected_error }

# Runs SQL: (output, error). Judges errors; undef output after one.
sub ask
{
	my ($self, $n, $s, $sql) = @_;
	my ($out, $err) = eval { $s->try($sql) };

	$err = "session ended: $@" if !defined $out;
	$err = 'session ended' if $err eq '' && !$s->{harness}->pumpable;
	return ($out, '') unless $err =~ /ERROR|FATAL|PANIC|session ended|connection|server closed/;
	$self->note($n, "$sql: $err") unless $err =~ $self->expected;
	return (undef, $err);
}

sub is_lost { my ($err) = @_; return $err =~ /FATAL|session ended|server closed|connection|Broken pipe/ && $err !~ /^[^\n]*ERROR:  no answer/ }

sub one_transfer
{
	my ($self, $n, $s, $seq) = @_;
	my ($from, $to) = sort { $a <=> $b } 1 + int(rand $ACCOUNTS), 1 + int(rand $ACCOUNTS);
	$to = $from == $ACCOUNTS ? 1 : $from + 1 if $from == $to;
	my $x = int(rand 100) - 50;

	$self->append('tried', $n, $seq);
	my ($out, $err) = $self->ask($n, $s, "SELECT transfer($n, $seq, $from, $to, $x)");
	if (defined $out && $out eq 'moved') { $self->append('acked', $n, "$seq $from $to $x") }
	elsif (defined $out) { $self->note($n, "transfer gave '$out'") }
	elsif ($err =~ /ERROR:/ && !is_lost($err)) { $self->append('refused', $n, $seq) }
	return is_lost($err);
}

# Rows say where they belong.
sub one_look
{
	my ($self, $n, $s) = @_;
	my $id = int(rand $SELF);
	my ($out, $err) = $self->ask($n, $s, "SELECT id, f = lpad(id::text, 600, '0') FROM self WHERE id = $id");

	$self->note($n, "row $id of self is '$out'") if defined $out && $out ne "$id|t";
	return is_lost($err);
}

sub one_change
{
	my ($self, $n, $s) = @_;
	my $id = int(rand $SELF);
	my (undef, $err) = $self->ask($n, $s, "UPDATE self SET v = v + 1 WHERE id BETWEEN $id AND $id + 5");
	return is_lost($err);
}

sub one_sum
{
	my ($self, $n, $s) = @_;
	my $want = $ACCOUNTS . '|' . $ACCOUNTS * $BALANCE;
	my ($out, $err) = $self->ask($n, $s, 'SELECT count(*), sum(balance) FROM acct');

	$self->note($n, "sum of acct is $out, not $want") if defined $out && $out ne $want;
	return is_lost($err) if !defined $out;
	($out, $err) = $self->ask($n, $s, "SELECT count(*), count(*) FILTER (WHERE f <> lpad(id::text, 600, '0')) FROM self");
	$self->note($n, "self is $out") if defined $out && $out ne "$SELF|0";
	return is_lost($err);
}

sub one_table
{
	my ($self, $n, $s) = @_;
	my $rows = 200 + int(rand 2000);
	my ($out, $err) = $self->ask($n, $s, "DROP TABLE IF EXISTS w$n;
		CREATE TABLE w$n AS SELECT g AS id, repeat('w', 200) AS f FROM generate_series(1, $rows) g;
		CREATE INDEX ON w$n (id); DELETE FROM w$n WHERE id % 3 = 0; SELECT count(*), sum(id) FROM w$n");
	my $left = 0;
	my $sum = 0;
	$_ % 3 and $left++, $sum += $_ foreach 1 .. $rows;
	$self->note($n, "w$n is '$out', not $left|$sum") if defined $out && $out ne "$left|$sum";
	return is_lost($err);
}

sub one_chore
{
	my ($self, $n, $s) = @_;
	my @chores = ('VACUUM self', 'CHECKPOINT', 'ANALYZE acct', 'REINDEX INDEX acct_pkey', "TRUNCATE w$n");
	my ($out, $err) = eval { $s->try($chores[ int(rand @chores) ]) };
	$err = 'session ended' if !defined $out;
	$self->note($n, "chore: $err")
	  if $err =~ /ERROR|FATAL|PANIC/ && $err !~ $self->expected && $err !~ /relation "w\d+" does not exist/;
	return is_lost($err);
}

# ---- steps

my @frame_faults = (
	'p=0.01 wrongid', 'p=0.01 wrongecho=block', 'p=0.01 dup', 'p=0.02 swap', 'p=0.01 corrupt=3', 'p=0.01 corrupt=-1',
	'p=0.005 truncate=3000', 'p=0.005 rst', 'p=0.005 drop', 'p=0.003 eat', 'p=0.003 silent', 'p=0.003 halfopen',
	'p=0.02 lie=other', 'p=0.05 delay=20', 'p=0.01 delay=400', 'p=0.02 error=LSN_timeout:_injected',
	'p=0.02 error=not_ready:_injected', 'p=0.01 error=wrong_shard:_injected', 'p=0.01 pgerror=57P01',
	'p=0.01 pgerror=08006', 'throttle=300000');
my @connect_faults = ('p=0.5 refuse', 'p=0.5 drop', 'p=0.3 silent', 'p=0.5 delay=300');

# A step's weight, and what it does. Names appear in the output.
my @steps = (
	[ 14, 'frames' ], [ 6, 'connects' ], [ 5, 'latency' ], [ 5, 'cut' ], [ 4, 'down' ], [ 4, 'feed' ], [ 8, 'map' ],
	[ 6, 'settings' ], [ 4, 'dangerous' ], [ 8, 'cancel' ], [ 6, 'terminate' ], [ 4, 'communicator' ], [ 3, 'ps_kill' ], [ 3, 'ps_restart' ],
	[ 3, 'ps_freeze' ], [ 1, 'ps_promote' ], [ 2, 'backend_kill' ], [ 2, 'communicator_kill' ], [ 1, 'compute_restart' ], [ 1, 'compute_kill' ],
	[ 1, 'older_copy' ]);
my @steps_with_hosts = ([ 4, 'ps_kill' ], [ 3, 'ps_restart' ], [ 5, 'ps_freeze' ], [ 4, 'ps_behind' ], [ 3, 'answers' ], [ 2, 'cut' ], [ 2, 'latency' ],
	[ 2, 'map' ], [ 1, 'settings' ]);

sub run
{
	my ($self) = @_;
	my %only = map { $_ => 1 } split /,/, $self->{steps_wanted} // '';
	my @wanted = grep { !%only || $only{ $_->[1] } } $self->{hosts} > 1 ? @steps_with_hosts : @steps;
	my @deck = map { my ($weight, $name) = @$_; ($name) x $weight } @wanted;
	# each step at least once early, if there is time
	my @first = map { $_->[1] } @wanted;

	die "no such steps\n" unless @wanted;

	for (my $i = $#first; $i > 0; $i--) { my $j = $self->rnd($i + 1); @first[ $i, $j ] = @first[ $j, $i ] }
	while (time < $self->{until})
	{
		my $name = @first ? shift @first : $self->pick(@deck);
		my $step = "step_$name";
		$self->{steps}{$name}++;
		my $ok = eval { $self->$step; 1 };
		$self->say("step $name: $@") unless $ok;
		sleep(0.3 + $self->rnd(20) / 10);
		# rules last for a while and may overlap
		$self->{p}->clear if $self->rnd(3) == 0;
	}
	$self->say('steps: ' . join(', ', map { "$_ $self->{steps}{$_}" } sort keys %{ $self->{steps} }));
	return;
}

# SQL that need not succeed.
sub poke
{
	my ($self, $sql) = @_;
	my ($rc, $out) = $self->{c}->try_sql("SET statement_timeout = '5s'; $sql");
	return $rc == 0 ? $out : '';
}

sub a_shard { my ($self) = @_; return $self->rnd($self->{shards}) }

sub step_frames
{
	my ($self) = @_;
	my $rule = $self->pick(@frame_faults);
	$rule = 'link=' . $self->a_shard . " $rule" if $self->rnd(2);
	$self->say("frames: $rule");
	$self->{p}->rule("tag=getpage $rule");
	return;
}

sub step_connects
{
	my ($self) = @_;
	my $rule = 'on=connect link=' . $self->a_shard . ' ' . $self->pick(@connect_faults);
	$self->say($rule);
	$self->{p}->rule($rule);
	$self->{p}->cmd('cut *') if $self->rnd(2);
	return;
}

sub step_latency
{
	my ($self) = @_;
	my $us = $self->pick(0, 0, 200, 1000, 3000);
	$self->say("latency: $us us");
	$self->{p}->cmd("delay * $us");
	return;
}

sub step_cut
{
	my ($self) = @_;
	my $link = $self->pick('*', 'wal', 0 .. $self->{shards} - 1);
	$self->say("cut: $link");
	$self->{p}->cmd("cut $link" . ($self->rnd(2) ? ' rst' : ''));
	return;
}

sub step_down
{
	my ($self) = @_;
	my $link = $self->pick('wal', 0 .. $self->{shards} - 1);
	$self->say("down: $link");
	$self->{p}->cmd("down $link");
	$self->{p}->cmd("cut $link");
	sleep(0.5 + $self->rnd(25) / 10);
	$self->{p}->cmd("up $link");
	return;
}

# What comes from the WAL feed is late, slow or ends.  Not for ever: a walreceiver begins
# again at the start of a segment, and would not get through one.
sub step_feed
{
	my ($self) = @_;
	my $rule = $self->pick('p=0.2 delay=100', 'throttle=200000', 'p=0.05 count=6 drop', 'p=0.02 count=4 silent',
		'p=0.02 count=6 truncate=100');
	$self->say("feed: $rule");
	$self->{p}->rule("link=wal type=d $rule");
	return;
}

# Another count, order, stripe, all by one reload. Every page server has every block.
sub step_map
{
	my ($self) = @_;
	my @all = (@{ $self->{ports} }, $self->{hosts} > 1 ? () : map { $self->{c}->page_server_port($_) } 0 .. $self->{shards} - 1);
	my $count = 1 + $self->rnd($self->{shards} + 2);
	my @map = map { $self->pick(@all) } 1 .. $count;
	my $stripe = $self->pick(1, 8, 8, 64, 2048);

	# mostly proxies, so that faults have something to act on
	@map = @{ $self->{ports} } if $self->rnd(3);
	$self->say("map: @map, stripe $stripe");
	$self->{c}->configure({ 'neon_comm.page_servers' => $self->map_of(@map), 'neon_comm.stripe_size' => $stripe });
	return;
}

sub step_settings
{
	my ($self) = @_;
	my %set = (
		'neon_comm.connections_per_shard' => 1 + $self->rnd(6),
		'neon_comm.connection_depth' => $self->pick(1, 2, 4, 16),
		'neon_comm.idle_timeout' => $self->pick('1s', '10s', '2min'),
		'neon_comm.protocol_version' => $self->pick(3, 3, 3, 3));
	$self->say('settings: ' . join(', ', map { "$_=$set{$_}" } sort keys %set));
	$self->{c}->configure(\%set);
	return;
}

# A setting with which data can be lost, by a reload: nothing may come of it.
sub step_dangerous
{
	my ($self) = @_;
	my $c = $self->{c};
	my $part = $self->pick('compute', 'page_server_' . $self->a_shard);
	my $set = $self->pick('fsync', 'full_page_writes');
	my $file = "$c->{dir}/$part/postgresql.conf";
	my $before = do { local (@ARGV, $/) = $file; <> };

	$self->say("dangerous: $part, $set = off");
	eval { $c->configure({ $set => 'off' }, part => $part) };	# it may be down
	sleep(0.5);
	my $now = $part eq 'compute' ? $self->poke("SHOW $set") : 'not asked';
	$self->bad("a reload has set $set = off") if $now eq 'off';
	open my $fh, '>', $file or die "$file: $!";
	print $fh $before;
	close $fh or die "$file: $!";
	my $pid = $c->postmaster_pid($part);
	kill 'HUP', $pid if defined $pid;
	return;
}

my $workers_pids = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()};

sub step_cancel
{
	my ($self) = @_;
	$self->say('cancel');
	$self->poke("SELECT count(pg_cancel_backend(pid)) FROM ($workers_pids) x WHERE random() < 0.7");
	return;
}

sub step_terminate
{
	my ($self) = @_;
	$self->say('terminate');
	$self->poke("SELECT count(pg_terminate_backend(pid)) FROM ($workers_pids) x WHERE random() < 0.4");
	return;
}

sub step_communicator
{
	my ($self) = @_;
	my $sql = $self->pick('SELECT neon_comm.restart_communicator()',
		'SELECT pg_reload_conf() FROM generate_series(1, 20)', 'SELECT communicator_pid FROM neon_comm.status()');
	my $pid = $self->poke($sql);

	$self->say("communicator: $sql");
	kill 'TERM', $pid if $sql =~ /pid/ && $pid =~ /^\d+$/;
	return;
}

sub page_server
{
	my ($self, $verb) = @_;
	my $n = $self->a_shard;
	$self->say("page server $n: $verb");
	return $n;
}

sub tree
{
	my ($pid) = @_;
	return ($pid, grep { /^\d+$/ } split /\s+/, `ps -o pid= --ppid $pid`);
}

# As neon_dev kill, which looks at every process of the machine.
sub kill_part
{
	my ($self, $part) = @_;
	my $postmaster = $self->{c}->postmaster_pid($part) // return;

	# stopped, it forks nobody whom we would miss
	kill 'STOP', $postmaster;
	my @pids = tree($postmaster);
	kill 'KILL', @pids;
	foreach my $pid (@pids)
	{
		foreach (1 .. 600)
		{
			open my $fh, '<', "/proc/$pid/stat" or last;
			last if (<$fh> // '') =~ /\) [ZX] /;
			usleep(50_000);
		}
	}
	return;
}

sub step_ps_kill
{
	my ($self) = @_;
	my $n = $self->page_server('killed');
	$self->kill_part("page_server_$n");
	sleep($self->rnd(20) / 10);
	$self->{c}->start('page-server', $n);
	return;
}

sub step_ps_restart
{
	my ($self) = @_;
	$self->{c}->restart('page-server', $self->page_server('restarted'));
	return;
}

sub step_ps_freeze
{
	my ($self) = @_;
	my $n = $self->page_server('frozen');
	my @pids = tree($self->{c}->postmaster_pid("page_server_$n"));
	kill 'STOP', @pids;
	sleep(1 + $self->rnd(30) / 10);
	kill 'CONT', @pids;
	return;
}

# It answers what it has, and gets no further.
sub step_ps_behind
{
	my ($self) = @_;
	my $n = $self->page_server('behind');
	my @pids = $self->{c}->pids_of("page_server_$n", qr/startup/);
	kill 'STOP', @pids;
	sleep(1 + $self->rnd(30) / 10);
	kill 'CONT', @pids;
	return;
}

# One page server says of itself that it cannot answer, for a while.
sub step_answers
{
	my ($self) = @_;
	my $link = $self->a_shard;
	my $says = $self->pick('parted:_injected', 'Read_error:_injected', 'not_ready:_injected', 'LSN_timeout:_injected', 'wrong_shard:_injected');
	$self->say("page server $link says $says");
	my $id = $self->{p}->rule("link=$link tag=getpage error=$says");
	sleep(1 + $self->rnd(20) / 10);
	$self->{p}->unrule($id);
	return;
}

# The directory of a page server as a server of its own, without the library, promoted and changed.
sub promote_alone
{
	my ($self, $n) = @_;
	my ($data, $port) = ("$self->{c}{dir}/page_server_$n", $self->{c}->page_server_port($n));
	my $ctl = sub { return system('pg_ctl', '-s', '-w', '-t', 60, '-D', $data, '-l', "$self->{c}{dir}/log/promoted.out", @_) == 0 };
	my ($socket) = map { /^socket_dir=(.*)/ ? $1 : () } do { local @ARGV = ("$self->{c}{dir}/neon_dev.conf"); <> };

	$ctl->('-o', "-c shared_preload_libraries='' -c hot_standby=on -c max_worker_processes=32 -c primary_conninfo='' -c port=$port", 'start')
	  && $ctl->('promote') or $self->say("page server $n could not be promoted");
	system('psql', '-Xq', '-d', "host=$socket port=$port dbname=postgres user=postgres",
		'-c', 'UPDATE acct SET balance = balance + 1000', '-c', 'CHECKPOINT');
	$ctl->('-m', 'fast', 'stop');
	open my $signal, '>', "$data/standby.signal" or die "$data: $!";
	close $signal;
	return;
}

# Starts a directory that must not start; returns what its log says of it.
sub refused_start
{
	my ($self, $n, $what) = @_;
	my $c = $self->{c};
	my $from = length $c->log_text("page_server_$n");
	my ($ok) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', '-t', 60, 'page-server', $n);
	$self->bad("page server $n starts: $what") if $ok;
	return substr($c->log_text("page_server_$n"), $from);
}

# Told to promote it stops, unharmed. Promoted all the same it never starts again: a copy takes its place.
sub step_ps_promote
{
	my ($self) = @_;
	my $c = $self->{c};
	my $n = $self->page_server('promoted');
	my $data = "$c->{dir}/page_server_$n";

	system('pg_ctl', '-s', '-W', '-D', $data, 'promote');
	foreach (1 .. 6000) { last unless -e "$data/postmaster.pid"; usleep(50_000) }
	$self->bad("page server $n was promoted") if -e "$data/pg_wal/00000002.history" || -e "$data/postmaster.pid";
	if ($self->rnd(2))
	{
		system('cp', '-a', '--sparse=always', $data, "$data.spare") == 0 or die "cp: $?";
		$self->promote_alone($n);
		$self->refused_start($n, 'it was promoted') =~ /was promoted/ or $self->bad("page server $n does not say that it was promoted");
		rename $data, "$data.promoted" or die "$data: $!";
		rename "$data.spare", $data or die "$data: $!";
		my ($word) = $self->refused_start($n, 'it is a copy') =~ /write the word (\w+) into/;
		open my $fh, '>', "$data/page_service_takeover" or die "$data: $!";
		print $fh ($word // ''), "\n";
		close $fh;
		system('rm', '-rf', "$data.promoted");
	}
	$c->start('page-server', $n);
	return;
}

# kill -9 of any process restarts them all: PostgreSQL's rule.
sub step_backend_kill
{
	my ($self) = @_;
	my $pid = $self->poke("$workers_pids ORDER BY random() LIMIT 1");
	$self->say("backend $pid killed");
	kill 'KILL', $pid if $pid =~ /^\d+$/;
	return;
}

sub step_communicator_kill
{
	my ($self) = @_;
	my $pid = $self->poke('SELECT communicator_pid FROM neon_comm.status()');
	$self->say("communicator $pid killed");
	kill 'KILL', $pid if $pid =~ /^\d+$/;
	return;
}

sub step_compute_restart
{
	my ($self) = @_;
	my $mode = $self->pick('fast', 'immediate');
	$self->say("compute restarted: $mode");
	$self->{c}->restart('compute', '--mode', $mode);
	return;
}

sub step_compute_kill
{
	my ($self) = @_;
	$self->say('compute killed');
	$self->kill_part('compute');
	$self->say('compute starts');
	$self->{c}->start('compute');
	$self->say('compute runs');
	return;
}

# An older copy of the compute is started in its place: first as it is, which must be refused, then with a takeover,
# which page servers that have more must refuse. What workers commit meanwhile would be missed in the end.
sub step_older_copy
{
	my ($self) = @_;
	my $c = $self->{c};
	my $dir = $c->{dir};

	$self->{p}->clear;
	$c->stop('compute', '--mode', 'fast');
	system('cp', '-a', '--sparse=always', "$dir/compute", "$dir/older") == 0 or die 'cp';
	$c->start('compute');
	# it has its own history from here on, and the page servers have that
	my $moved = $self->history_moved;
	$c->stop('compute', '--mode', 'immediate');
	rename "$dir/compute", "$dir/newer" or die $!;
	rename "$dir/older", "$dir/compute" or die $!;
	my $ok = eval { $self->run_older_copy($moved); 1 };
	$self->say("older copy: $@") unless $ok;
	$c->try_dev('stop', '-D', $dir, '--quiet', 'compute', '--mode', 'immediate');
	# moved first: who is on his way out may still write there
	rename "$dir/compute", "$dir/parted" or die $!;
	rename "$dir/newer", "$dir/compute" or die $!;
	system('rm', '-rf', "$dir/parted");
	$c->start('compute');
	$self->say('the compute is back in its place');
	return;
}

sub run_older_copy
{
	my ($self, $moved) = @_;
	my $c = $self->{c};
	my $dir = $c->{dir};
	my $from = length $c->log_text('compute');
	my ($started) = $c->try_dev('start', '-D', $dir, '--quiet', '-t', 30, 'compute');
	$self->check(!$started, 'an older copy of the compute does not start');
	if ($moved && !$started)
	{
		$c->dev('takeover', '-D', $dir, '--quiet', 'compute');
		system('pg_ctl', '-s', '-W', '-D', "$dir/compute", '-l', $c->log_file('compute'), 'start');
		$self->check($c->wait_log('compute', qr/have parted/, $from), 'after a takeover its page servers have parted from it');
		sleep(0.5 + $self->rnd(10) / 10);
	}
	return;
}

# Waits until a page server has WAL of the present start; false when none gets there.
sub history_moved
{
	my ($self) = @_;
	return $self->{c}->wait_for(q{SELECT count(*) = 0 AND pg_current_wal_flush_lsn() > (SELECT began + 100000 FROM neon_comm.identity)
		FROM neon_comm.page_servers WHERE apply_lsn IS NULL OR apply_lsn <= (SELECT began + 50000 FROM neon_comm.identity)}, tries => 100);
}

# ---- after

sub heal
{
	my ($self) = @_;
	my $p = $self->{p};
	my $c = $self->{c};

	$self->say('healing');
	$p->clear;
	$p->cmd('delay * 0');
	$p->cmd('up *');
	# what a rule made silent stays so
	$p->cmd('cut *');
	# ten seconds of "in recovery mode" are enough for start, and not for every crash restart
	foreach (1 .. 30)
	{
		last if eval { $c->start; 1 };
		next if $_ < 30 && $@ =~ /nobody can log in: the database system is/;
		$self->bad("cluster does not start: $@");
		last;
	}
	$c->configure({ 'neon_comm.page_servers' => $self->map_of(@{ $self->{ports} }), 'neon_comm.stripe_size' => 8,
			'neon_comm.connections_per_shard' => 4, 'neon_comm.connection_depth' => 4, 'neon_comm.idle_timeout' => '1s' });
	# workers must get on again by themselves
	my $acked = () = $self->lines('acked');
	foreach (1 .. 1500)
	{
		my $now = () = $self->lines('acked');
		last if $now > $acked + 20;
		sleep 0.2;
		$self->bad('no transfer succeeds after everything is healed') if $_ == 1500;
	}
	return;
}

sub stop_workers
{
	my ($self) = @_;

	$self->append('stop', 0, 'stop');
	foreach my $n (sort keys %{ $self->{pid} })
	{
		my $gone = 0;
		# longer than all statements of one turn may take
		foreach (1 .. 1800)
		{
			$gone = waitpid($self->{pid}{$n}, WNOHANG) != 0;
			$self->bad("worker $n ended with status $?") if $gone && $? != 0;
			last if $gone;
			sleep 0.1;
		}
		next if $gone;
		$self->bad("worker $n is stuck");
		print "# $_\n" foreach split /\n/,
		  $self->poke('SELECT pid, state, kind, relfilenode, block, age FROM neon_comm.slots');
		kill 'KILL', $self->{pid}{$n};
		waitpid $self->{pid}{$n}, 0;
	}
	return;
}

sub verify
{
	my ($self) = @_;
	my $c = $self->{c};

	$self->say('verifying');
	$self->check_workers;
	$self->check_rows;
	$self->check_leaks;
	$self->check_logs;
	eval { $c->stop };
	$self->check(!$@, 'everything stops', $@);
	$self->check_logs('after the stop');
	return;
}

sub check_workers
{
	my ($self) = @_;
	my @bad = $self->lines('bad');

	$self->bad("worker $_") foreach @bad > 20 ? @bad[ 0 .. 19 ] : @bad;
	$self->check(!@bad, 'no worker saw a wrong row or an unexpected error');
	my $tried = () = $self->lines('tried');
	my $acked = () = $self->lines('acked');
	print "# $tried transfers tried, $acked acknowledged\n";
	# a machine may be slow; without any work nothing is proved
	$self->check($acked > 10 * $self->{minutes}, 'there was work', "$acked transfers");
	return;
}

sub check_rows
{
	my ($self) = @_;
	my $c = $self->{c};
	my %refused = map { $_ => 1 } $self->lines('refused');
	my %tried = map { $_ => 1 } $self->lines('tried');

	$self->check($c->sql('SELECT count(*), sum(balance) FROM acct') eq $ACCOUNTS . '|' . $ACCOUNTS * $BALANCE,
		'the sum of the balances');
	my %hist = map { my ($n, $seq, @rest) = split /\|/; ("$n $seq" => join(' ', @rest)) }
	  split /\n/, $c->sql('SELECT client, seq, a, b, x FROM hist');
	my @lost;
	foreach my $line ($self->lines('acked'))
	{
		my ($n, $seq, @rest) = split / /, $line;
		push @lost, $line if ($hist{"$n $seq"} // '') ne join(' ', @rest);
	}
	$self->check(!@lost, 'every acknowledged transfer is there', "@lost[0 .. ($#lost > 5 ? 5 : $#lost)]");
	my @odd = grep { !$tried{$_} || $refused{$_} } keys %hist;
	$self->check(!@odd, 'and no other', "@odd[0 .. ($#odd > 5 ? 5 : $#odd)]");
	$self->check($c->sql("SELECT count(*) FROM acct LEFT JOIN
			(SELECT id, sum(d) AS d FROM (SELECT a AS id, -x AS d FROM hist UNION ALL SELECT b, x FROM hist) y GROUP BY id) m
			USING (id) WHERE balance <> $BALANCE + coalesce(m.d, 0)") eq '0', 'each balance is what its transfers make');
	$self->check($c->sql("SELECT count(*), count(*) FILTER (WHERE f <> lpad(id::text, 600, '0')), count(DISTINCT id) FROM self")
		  eq "$SELF|0|$SELF", 'rows that identify themselves');
	my ($rc, undef, $err) = $c->try_sql(q{SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = relam
		WHERE amname = 'btree' AND relpersistence = 'p' AND relkind = 'i'; SELECT count(*) FROM verify_heapam('acct');});
	$self->check($rc == 0, 'indexes', $err);
	return;
}

# Descriptors of a process by what they are.
sub descriptors
{
	my ($pid) = @_;
	my %n;
	foreach my $fd (glob "/proc/$pid/fd/*")
	{
		my $what = readlink $fd // next;
		$n{ $what =~ /^(socket|pipe|anon_inode)/ ? $1 : 'file' }++;
	}
	return \%n;
}

sub check_leaks
{
	my ($self) = @_;
	my $c = $self->{c};

	# autovacuum goes on reading, so nothing stays as it is: what is right at one moment is no leak
	$self->check($c->wait_for('SELECT count(*) = 0 FROM neon_comm.slots', tries => 300), 'no slot is left');
	foreach my $name ('found_late', 'stale_answers', 'future_answers')
	{
		$self->check($c->counter($name) eq '0', "$name is 0");
	}
	# surplus connections go after idle_timeout; then all that stand are shown
	$self->check($c->wait_for('SELECT count(*) <= ' . $self->{shards} * $self->{hosts} . " FROM neon_comm.connections", tries => 300),
		'surplus connections are closed');
	$self->check($c->wait_for('SELECT count(*) = 0 FROM neon_comm.connections WHERE last_error IS NOT NULL', tries => 300),
		'no trouble is shown');
	my $pid = $c->sql('SELECT communicator_pid FROM neon_comm.status()');
	my ($fds, $rows);
	foreach (1 .. 600)
	{
		$fds = descriptors($pid);
		$rows = $c->sql('SELECT count(*) FROM neon_comm.connections');
		last if ($fds->{socket} // 0) <= $rows + 3;
		sleep 0.1;
	}
	$self->check(($fds->{socket} // 0) <= $rows + 3, 'no socket is left',
		"the communicator has $fds->{socket} sockets, $rows connections");
	$self->check(($fds->{file} // 0) < 60, 'no file is left', "$fds->{file} open in the communicator");
	# the query itself may have opened some, and the proxy closes after the communicator
	my $open;
	foreach (1 .. 300)
	{
		$open = 0;
		$open += $self->{p}->stat($_, 'open') foreach 0 .. $self->{shards} - 1;
		$rows = $c->sql('SELECT count(*) FROM neon_comm.connections');
		last if $open <= $rows + 1;
		sleep 0.1;
	}
	$self->check($open <= $rows + 1, 'no connection is left', "$open through the proxy, $rows shown");
	$self->check($c->wait_for(q{SELECT count(*) = 0 FROM pg_buffercache WHERE pinning_backends > 0
		AND relfilenode NOT IN (SELECT pg_relation_filenode(oid) FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
			AND pg_relation_filenode(oid) IS NOT NULL)}, tries => 300), 'no pin is left');
	return;
}

sub check_logs
{
	my ($self, $when) = @_;
	my @bad;

	foreach my $file (glob "$self->{c}{dir}/log/*.log")
	{
		open my $fh, '<', $file or next;
		while (my $line = <$fh>)
		{
			next unless $line =~ /PANIC|TRAP:|Sanitizer|runtime\ error|FATAL|invalid\ page|leak|could\ not\ read\ block|
				old\ version\ of|from\ the\ future|was\ terminated\ by\ signal\ (?!9:|3:)|ERROR:.*neon_comm:/x;
			next if $line =~ /FATAL/ && $line =~ $expected_fatal;
			next if $self->{hosts} == 1 && $line =~ /from its page server: .*(?:injected|wrong shard|parted)/;
			push @bad, ($file =~ /([^\/]+)$/)[0] . ": $line";
		}
	}
	print "# $_" foreach @bad > 20 ? @bad[ 0 .. 19 ] : @bad;
	$self->check(!@bad, 'logs hold nothing unexpected' . (defined $when ? " $when" : ''), scalar(@bad) . ' lines');
	return;
}

1;
