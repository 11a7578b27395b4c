# NeonDev::Make - making a cluster, and removing one: init, destroy, and what adopt shares with init.
#
# From its first moment DIR has a neon_dev.conf that says "making", so that whatever interrupts the
# making, a kill -9 too, leaves something that destroy takes.
package NeonDev::Make;

use strict;
use warnings;

use Exporter 'import';
use File::Path ();
use File::Temp ();
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Security;
use NeonDev::Settings;
use POSIX ();

our @EXPORT = qw(init destroy making interrupted find_server server_of copy_directory control_value single_user
	prepare_and_finish show_end must_run append checksum_arguments run_as_stock stock_query read_control write_marker remove_traces
	directory_entries remove_moved MOVED);

use constant MOVED => 'neon_dev_moved';

# ---- the directory

sub is_empty
{
	my ($dir) = @_;
	opendir my $dh, $dir or fail "cannot read $dir: $!";
	return !grep { !/^\.\.?$/ } readdir $dh;
}

# Makes DIR ours: the lock, and whether it was made. What is found in it is not touched.
sub claim_dir
{
	my $made;

	$opt{dir} !~ /['"\\,\n]/
	  or fail 'the path of a cluster may not contain quotes, backslashes, commas or line ends';
	if (-e $opt{dir})
	{
		-d _ or fail "$opt{dir} exists and is not a directory";
		-w _ && -x _ or fail 'user ', user_name(), " may not write into $opt{dir}";
	}
	else
	{
		$made = File::Path::make_path($opt{dir}, { error => \my $errors });
		@$errors == 0 or fail "cannot make $opt{dir}: ", values %{ $errors->[0] };
	}
	my $lock = lock_cluster();
	is_empty($opt{dir}) or fail "$opt{dir} is not empty";
	chmod 0700, $opt{dir} or fail "cannot set the mode of $opt{dir}: $!";
	return ($lock, $made);
}

sub contents
{
	opendir my $dh, $opt{dir} or fail "cannot read $opt{dir}: $!";
	return map { "$opt{dir}/$_" } grep { !/^(?:\.\.?|neon_dev\.conf)$/ } readdir $dh;
}

# The metadata goes last: what is left of an interrupted removal is still a cluster that destroy accepts.
# Programs of a neon_dev that was killed may go on for a moment and make files.
sub remove_files
{
	my $errors = [];

	File::Path::remove_tree(grep { m{^/tmp/neon_dev\.\w+$} } map { $_ // '' } @cluster{qw(socket_dir upgrade_tmp)});
	remove_wal_dir();
	remove_moved($_) foreach glob quotemeta($opt{dir}) . '/page_server_*';
	foreach my $round (1 .. 50)
	{
		my @contents = contents() or last;
		pause(0.1) if $round > 1;
		File::Path::remove_tree(@contents, { error => \$errors });
	}
	!contents() or fail "could not remove everything below $opt{dir}: ", map { %$_, ' ' } @$errors;
	unlink conf_file() or fail 'could not remove ', conf_file(), ": $!";
	return;
}

# Where a link in the place of a page server leads to, if move-page-server has made that: the file MOVED in it says for whom.
sub remove_moved
{
	my ($path) = @_;
	my $target = readlink $path // return;

	(slurp("$target/" . MOVED) // '') =~ /^\Q$opt{dir}\E page_server_\d+$/ or return;
	return must_run("cannot remove $target", {}, 'rm', '-rf', '--', $target);
}

# The directory that init --initdb --waldir=... made outside of DIR.
sub remove_wal_dir
{
	my $dir = $cluster{wal_dir} // '';
	my $link = readlink("$opt{dir}/compute/pg_wal") // '';
	return if $dir eq '' || $link ne $dir || !-d $dir;
	File::Path::remove_tree($dir, { keep_root => 1, error => \my $errors });
	rmdir $dir;
	return;
}

my %status_of = (INT => 130, TERM => 143, HUP => 143);

sub interrupted
{
	my ($signal) = @_;
	end_program();
	die { text => "ended by SIG$signal", status => $status_of{$signal} };
}

# Makes a cluster with $steps; on failure, or a signal, nothing stays behind.
sub making
{
	my ($steps) = @_;
	my ($lock, $made) = claim_dir();
	my @signals = keys %status_of;

	local @SIG{@signals} = (\&interrupted) x @signals;
	%cluster = (%cluster, format => 1, state => 'making', dir => $opt{dir}, shards => 0);
	return 0 if eval { set_state('making'); $steps->(); 1 };
	my $failure = $@;
	@SIG{@signals} = ('IGNORE') x @signals;
	warning ref $failure ? $failure->{text} : $failure;
	warning 'removing what was made so far';
	kill 'KILL', part_processes('compute');
	remove_shared_memory('compute');
	remove_files();
	rmdir $opt{dir} if $made;
	return ref $failure ? $failure->{status} : 1;
}

# ---- the server

sub in_path
{
	my ($program) = @_;
	return -x $program ? $program : undef if $program =~ m{/};
	my ($found) = grep { -f && -x _ } map { "$_/$program" } split /:/, $ENV{PATH} // '';
	return $found;
}

sub choose_pg_config
{
	if (defined $opt{pg_config})
	{
		return in_path($opt{pg_config}) // fail "there is no $opt{pg_config}";
	}
	foreach my $candidate (grep { ($_ // '') ne '' } $ENV{PG_CONFIG}, "$opt{here}/pg_config", 'pg_config')
	{
		my $found = in_path($candidate);
		return $found if defined $found;
	}
	return fail 'cannot find PostgreSQL: give --pg-config PATH';
}

sub pg_config
{
	my ($program, $what) = @_;
	my $result = run({}, $program, $what);
	$result->{status} == 0 or fail "$program failed: $result->{err}";
	return $result->{out} =~ s/\n\z//r;
}

# (directory of the programs, version) of a server that has these programs and our libraries.
sub server_of
{
	my ($pg_config, @programs) = @_;
	my $bindir = pg_config($pg_config, '--bindir');
	my $pkglibdir = pg_config($pg_config, '--pkglibdir');

	foreach my $name (qw(postgres initdb pg_controldata psql), @programs)
	{
		-x "$bindir/$name" or fail "there is no $bindir/$name: is the server installed?";
	}
	my $result = run({}, "$bindir/postgres", '--version');
	my ($version) = $result->{out} =~ /^postgres \(PostgreSQL\) (\S+)/
	  or fail "$bindir/postgres does not run: $result->{err}";
	my $control = pg_config($pg_config, '--sharedir') . '/extension/neon_comm.control';
	foreach my $file ("$pkglibdir/neon_comm.so", "$pkglibdir/neon_page_service.so", $control)
	{
		-f $file or fail "$file is missing: install the package postgresql-NN-neon-comm of this version, or run \"make install\"";
	}
	return ($bindir, $version);
}

sub find_server
{
	@cluster{qw(bindir pg_version)} = server_of(choose_pg_config());
	return;
}

# ---- names, ports

sub choose_names
{
	# the ports of exporters last: the others stay where they were before there were any
	my ($sql, $feed, @ports) = choose_ports(2 * $opt{page_servers} + 3);
	my ($metrics, @metrics) = splice @ports, $opt{page_servers};

	%cluster = (%cluster, shards => $opt{shards}, page_servers => $opt{page_servers}, write_quorum => write_quorum(), hosts => $opt{hosts},
		members => defined $opt{write_quorum} ? 'on' : '',
		stripe_blocks => $opt{stripe_blocks}, superuser => 'postgres',
		tenant_id => random_id(), timeline_id => random_id(), compute_port => $sql, wal_feed_port => $feed,
		metrics_port => $metrics, map { ("page_server_${_}_port" => $ports[$_], "page_server_${_}_metrics_port" => $metrics[$_]) } 0 .. $#ports);
	$cluster{socket_dir} = "$opt{dir}/sockets";
	# sun_path holds 107 bytes and a NUL.
	if (length "$cluster{socket_dir}/.s.PGSQL.65535" > 107)
	{
		$cluster{socket_dir} = File::Temp::tempdir('/tmp/neon_dev.XXXXXX');
		progress "the path is too long for sockets; they are in $cluster{socket_dir}";
	}
	save_cluster();
	ensure_socket_dir();
	mkdir "$opt{dir}/log" or fail "cannot make $opt{dir}/log: $!";
	return;
}

# ---- data directories

sub show_end
{
	my ($text) = @_;
	my @lines = split /\n/, $text;
	print STDERR map { "    $_\n" } @lines > 8 ? @lines[ -8 .. -1 ] : @lines;
	return;
}

# From 18 on the server makes checksums unless it is told otherwise.
sub checksum_arguments
{
	my ($wanted) = @_;
	return $wanted ? '-k' : $cluster{pg_version} =~ /^(\d+)/ && $1 >= 18 ? '--no-data-checksums' : ();
}

sub run_initdb
{
	my $locales = run({}, 'locale', '-a')->{out};
	my $locale = $locales =~ /^c\.utf-?8$/mi ? 'C.UTF-8' : 'C';

	progress 'making the data directory ...';
	my @checksums = checksum_arguments($opt{checksums});
	my $result = run({}, program_of('initdb'), '-D', part_data('compute'), '-U', 'postgres', '-A', 'trust', '-E', 'UTF8',
		"--locale=$locale", '-N', @checksums, @{ $opt{initdb} });
	write_file("$opt{dir}/log/initdb.log", $result->{out} . $result->{err});
	if ($result->{status} != 0)
	{
		show_end($result->{err});
		fail 'initdb failed';
	}
	-f part_data('compute') . '/PG_VERSION' or fail 'initdb made nothing; its output is ', $result->{out};
	my $wal = readlink part_data('compute') . '/pg_wal';
	$cluster{wal_dir} = $wal if defined $wal;
	save_cluster();
	return;
}

sub must_run
{
	my ($what, $how, @command) = @_;
	my $result = run($how // {}, @command);
	$result->{status} == 0 or fail "$what: $result->{err}";
	return;
}

# A copy that shares nothing with its original: where that has a link (a WAL directory elsewhere), the
# copy has the contents. Tablespaces, which are links too, are refused before.
sub copy_directory
{
	my ($from, $to, $how) = @_;
	must_run("copying $from failed", $how, 'cp', '-a', '-L', '--reflink=auto', '--sparse=always', "$from/.", $to);
	chmod 0700, $to or fail "cannot set the mode of $to: $!";
	return;
}

sub control_value
{
	my ($data, $label) = @_;
	my $result = run({}, program_of('pg_controldata'), '-D', $data);
	return $result->{out} =~ /^\Q$label\E: *(.*)$/m ? $1 : '';
}

# Runs statements, each in a line, in single-user mode, which starts no other process and takes no
# connection: what it prints.
sub single_user
{
	my ($sql) = @_;
	my $result = run({ input => $sql }, program_of('postgres'), '--single', '-D', part_data('compute'),
		stock_settings(), 'postgres');

	if ($result->{status} != 0 || $result->{err} =~ /\b(?:ERROR|FATAL|PANIC):  /)
	{
		show_end($result->{err});
		fail 'cannot work in the data directory as a stock server';
	}
	return $result->{out};
}

# The bootstrap superuser has OID 10, whatever its name; single-user mode logs in as it without
# knowing the name.
sub find_superuser
{
	my $out = single_user("SELECT rolname FROM pg_catalog.pg_authid WHERE oid = 10\n");
	($cluster{superuser}) = $out =~ /1: rolname = "(.*?)"\s+\(typeid/s
	  or fail 'cannot find the superuser of the data directory';
	return;
}

# A script, not one statement, may have the commands of psql.
sub stock_query
{
	my ($db, $sql, $script) = @_;
	my $conninfo = join ' ', map { "$_->[0]=" . conninfo_value($_->[1]) } [ host => $cluster{socket_dir} ],
	  [ port => $cluster{compute_port} ], [ user => $cluster{superuser} ], [ dbname => $db ],
	  # nothing that is set for a role or a database gets in the way, nor does an event trigger of an adopted copy
	  # fire. (Single-user mode fires none either, but gives the extension an OID that pg_dump takes for the server's own.)
	  [ options => '-c session_replication_role=replica -c session_preload_libraries= -c local_preload_libraries= -c default_transaction_read_only=off'
		. ' -c statement_timeout=0 -c lock_timeout=0 -c role=none' ];
	my @psql = (program_of('psql'), '-XqAtw', '-v', 'ON_ERROR_STOP=1', '-d', $conninfo);
	return $script ? run({ input => $sql }, @psql, '-f', '-') : run({}, @psql, '-c', $sql);
}

# Starts the data directory as the stock server that it is, on a private socket, for some work, and stops
# it cleanly. Afterwards pg_control carries wal_level and friends.
sub run_as_stock
{
	my ($work, @arguments) = @_;
	my $pid = launch('compute', stock_settings(), @arguments);
	my $until = monotonic() + $opt{timeout};
	# one in recovery runs, but lets nobody in
	while (pidfile_line('compute', 8) !~ /^ready/)
	{
		my $ended = waitpid $pid, POSIX::WNOHANG();
		if ($ended != 0 || monotonic() > $until)
		{
			show_log_end('compute', 0);
			fail 'the stock server did not start';
		}
		pause(0.03);
	}
	$work->();
	local $opt{quiet} = 1;
	local $opt{mode} = 'fast';
	stop_part('compute') or fail 'the stock server did not stop';
	waitpid $pid, 0;
	return;
}

sub make_extension
{
	progress 'making the extension in template1 and postgres ...';
	run_as_stock(sub {
		foreach my $db ('template1', 'postgres')
		{
			my $result = stock_query($db, 'CREATE EXTENSION IF NOT EXISTS neon_comm');
			$result->{status} == 0 or fail "cannot make the extension neon_comm in database $db:\n$result->{err}";
		}
	});
	return;
}

sub append
{
	my ($file, $text) = @_;
	open my $fh, '>>', $file or fail "cannot open $file: $!";
	(print $fh $text) && close $fh or fail "cannot write $file: $!";
	return;
}

sub make_page_server
{
	my ($n) = @_;
	my $data = part_data($n);

	progress "copying the data directory for page server $n ...";
	copy_directory(part_data('compute'), $data);
	append("$data/standby.signal", '');
	append("$data/postgresql.conf", page_server_settings($n));
	return;
}

sub read_control
{
	my $data = part_data('compute');
	$cluster{checksums} = control_value($data, 'Data page checksum version') eq '0' ? 'off' : 'on';
	($cluster{system_identifier}) = control_value($data, 'Database system identifier') =~ /^(\d+)$/
	  or fail 'cannot read the system identifier';
	control_value($data, 'Database cluster state') eq 'shut down'
	  or fail 'the data directory was not shut down cleanly';
	return;
}

# Tells neon_comm that page servers have the content.
sub write_marker
{
	write_file(part_data('compute') . '/neon_comm.skeleton',
		"neon_comm skeleton 1\nsystem_identifier=$cluster{system_identifier}\ndata_checksums=$cluster{checksums}\n"
		. "content=whole\n");
	return;
}

# What a copy of a part was is nothing that new parts are.
sub remove_traces
{
	my ($data, @more) = @_;
	my @ours = grep { m{/(?:neon_comm\.|neon_page_service\.|compute_|page_service_)[a-z._]+$} } directory_entries($data);
	foreach my $left (@ours, directory_entries("$data/pg_replslot"), "$data/postmaster.opts", "$data/postmaster.pid", @more)
	{
		must_run("cannot remove $left", {}, 'rm', '-rf', '--', $left);
	}
	return;
}

sub directory_entries
{
	my ($dir) = @_;
	opendir my $dh, $dir or return;
	return map { "$dir/$_" } grep { !/^\.\.?$/ } readdir $dh;
}

# What is a stopped stock cluster in DIR/compute becomes a compute and its page servers.
sub finish_cluster
{
	my $data = part_data('compute');

	read_control();
	make_page_server($_) foreach page_servers();
	append("$data/postgresql.conf", compute_settings());
	write_file(compute_conf(), compute_settings());
	write_marker();
	run({}, 'sync', '-f', $opt{dir});
	set_state('made');
	progress "done: $cluster{shards} shards, $cluster{page_servers} page servers, SQL port $cluster{compute_port}. Next: neon_dev start -D $opt{dir}";
	return;
}

# ---- commands

# init and adopt: $data makes the data directory of the compute.
sub prepare_and_finish
{
	my ($data) = @_;
	choose_names();
	make_security();
	$data->();
	find_superuser();
	make_extension();
	finish_cluster();
	return;
}

sub init
{
	check_given();
	find_server();
	return making(sub { prepare_and_finish(\&run_initdb) });
}

sub destroy
{
	load_cluster(any => 1);
	my $lock = ($cluster{state} // 'made') eq 'made' ? lock_cluster() : lock_if_free();
	$lock // fail "$opt{dir} is being ", ${ { making => 'made', removing => 'removed' } }{ $cluster{state} } // 'upgraded', ' by another neon_dev';
	set_state('removing');
	end_upgrade_processes("$opt{dir}/upgrade");
	@opt{qw(mode timeout part)} = ('immediate', 20, 'all');
	foreach my $part ('compute', page_servers())
	{
		!part_pid($part) || stop_part($part) || kill_part($part) or return 1;
		local $opt{quiet} = 1;
		kill_part($part) or return 1;	# orphans of an earlier kill
		remove_shared_memory($part);
	}
	progress "removing $opt{dir} ...";
	remove_files();
	# As root's stand-in we may not be allowed to; root does it then.
	rmdir $opt{dir} or $opt{for_root} or fail "could not remove $opt{dir}: $!";
	return 0;
}

1;
