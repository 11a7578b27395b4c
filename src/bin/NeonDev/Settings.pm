# NeonDev::Settings - every line of configuration that neon_dev writes, and how values are quoted.
package NeonDev::Settings;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;

our @EXPORT = qw(print_config conninfo_value setting_line client_security compute_settings page_server_settings
	stock_settings check_given page_server_conninfo shard_conninfo shard_hosts write_quorum commits_wait_for);

# ---- quoting

# A value in a libpq connection string.
sub conninfo_value
{
	my ($value) = @_;
	return $value if $value =~ m{^[A-Za-z0-9_./:,-]+$};
	$value =~ s/([\\'])/\\$1/g;
	return "'$value'";
}

sub conninfo
{
	my @pairs = @_;
	my @words;
	while (my ($key, $value) = splice @pairs, 0, 2)
	{
		push @words, "$key=" . conninfo_value($value);
	}
	return join ' ', @words;
}

# A line of postgresql.conf. A value that is a quoted string already is taken as it is; in any other
# each byte means itself.
sub setting_line
{
	my ($key, $value) = @_;
	if ($value !~ /^'(?:[^'\\]|''|\\.)*'$/)
	{
		$value =~ s/\\/\\\\/g;
		$value =~ s/'/''/g;
		$value = "'$value'";
	}
	return "$key = $value\n";
}

sub lines
{
	my @pairs = @_;
	my $text = '';
	while (my ($key, $value) = splice @pairs, 0, 2)
	{
		$text .= setting_line($key, $value);
	}
	return $text;
}

# What a setting given as key=value means, quotes taken off.
sub plain_value
{
	my ($value) = @_;
	return $value unless $value =~ s/^'((?:[^'\\]|''|\\.)*)'$/$1/;
	$value =~ s/''|\\(.)/defined $1 ? $1 : "'"/ge;
	return $value;
}

# ---- security

# What a client of our ports adds to its connection string: pairs.
sub client_security
{
	my (%how) = @_;
	my @pairs;
	push @pairs, sslmode => 'verify-full', sslrootcert => security_dir() . '/ca.crt' if $cluster{tls};
	push @pairs, passfile => security_dir() . '/pgpass' if $how{passfile} && $cluster{auth};
	return @pairs;
}

sub server_security
{
	my ($prefix) = @_;
	my @pairs;
	push @pairs, "${prefix}auth_public_key_file" => security_dir() . '/issuer.pub' if $cluster{auth};
	push @pairs, "${prefix}ssl_cert_file" => security_dir() . '/server.crt',
	  "${prefix}ssl_key_file" => security_dir() . '/server.key'
	  if $cluster{tls};
	return @pairs;
}

# How neon_dev itself logs in to a page server.
sub page_server_conninfo
{
	my ($n) = @_;
	return conninfo(host => '127.0.0.1', port => part_port($n), user => 'neon_dev', dbname => 'neon_dev',
		$cluster{tls} ? () : (sslmode => 'disable'), client_security(passfile => 1));
}

# ---- what is given on the command line

# The last value that --conf or --ps-conf gives a setting.
sub given
{
	my ($settings, $wanted) = @_;
	my $found;
	foreach (@$settings)
	{
		my ($key, $value) = /^([^=]*)=(.*)$/s;
		$found = plain_value($value) if lc $key eq $wanted;
	}
	return $found;
}

sub is_off { my ($value) = @_; return $value =~ /^(?:of|off|f|fa|fal|fals|false|n|no|0)$/i }

sub is_on { my ($value) = @_; return $value =~ /^(?:on|t|tr|tru|true|y|ye|yes|1)$/i }
sub is_set { my ($value) = @_; return $value ne '' }

# What no part starts with, and what the compute or a page server does not start with.
my %refused_by_all = (
	fsync => \&is_off,
	zero_damaged_pages => \&is_on,
	ignore_checksum_failure => \&is_on,
	ignore_invalid_pages => \&is_on,
	data_sync_retry => \&is_on);
my %refused = (
	conf => { %refused_by_all,
		full_page_writes => \&is_off,
		wal_consistency_checking => \&is_set,
		wal_level => sub { $_[0] =~ /^minimal$/i },
		max_slot_wal_keep_size => sub { $_[0] !~ /^-1$/ } },
	ps_conf => { %refused_by_all,
		restore_command => \&is_set,
		recovery_min_apply_delay => sub { $_[0] !~ /^0+\s*[a-z]*$/ },
		promote_trigger_file => \&is_set,
		map { ($_ => \&is_set) } qw(recovery_target recovery_target_lsn recovery_target_name recovery_target_time recovery_target_xid) });
my %called = (conf => [ 'a compute', 'neon_comm.allow_unsafe' ], ps_conf => [ 'a page server', 'neon_page_service.allow_unsafe' ]);

sub check_given_to
{
	my ($list) = @_;
	my ($part, $escape) = @{ $called{$list} };
	return if is_on(given($opt{$list}, $escape) // 'off');
	foreach my $key (sort keys %{ $refused{$list} })
	{
		my $value = given($opt{$list}, $key);
		usage "$part does not start with $key = $value" if defined $value && $refused{$list}{$key}->($value);
	}
	return;
}

# What neon_dev itself relies on, and why another one is of no use.
my $ports = 'ports are chosen at init, --port says from which on';
my $ids = 'it is chosen at init, the same for all parts';
my %of_all = (port => $ports, unix_socket_directories => 'neon_dev looks for sockets in the directory of the cluster');
my %relied_on = (
	conf => { %of_all, 'neon_comm.wal_feed_port' => $ports, 'neon_comm.tenant_id' => $ids, 'neon_comm.timeline_id' => $ids },
	ps_conf => { %of_all, 'neon_page_service.port' => $ports, 'neon_page_service.tenant_id' => $ids, 'neon_page_service.timeline_id' => $ids,
		primary_slot_name => 'it is page_server_N, for which the compute keeps WAL' });

sub check_relied_on
{
	my ($list) = @_;
	foreach my $key (sort keys %{ $relied_on{$list} })
	{
		usage "$key cannot be given: $relied_on{$list}{$key}" if defined given($opt{$list}, $key);
	}
	return;
}

# A port that asks for no token is open to this machine only.
sub check_addresses
{
	my ($list, $prefix) = @_;
	my $addresses = given($opt{$list}, "${prefix}listen_addresses") // return;
	return if $opt{auth} || defined given($opt{$list}, "${prefix}auth_public_key_file")
	  || is_on(given($opt{$list}, "${prefix}allow_unauthenticated") // 'off');
	grep { !/^(?:127(?:\.\d+){3}|::1|localhost|)$/ } split /[,\s]+/, $addresses
	  and usage "$called{$list}[0] does not start with ${prefix}listen_addresses = $addresses without --auth";
	return;
}

sub check_slots
{
	my $slots = given($opt{conf}, 'max_replication_slots') // return;
	usage "a compute does not start with max_replication_slots = $slots: each of $opt{page_servers} page servers has one"
	  if $slots =~ /^\d+$/ && $slots < $opt{page_servers};
	return;
}

# How many page servers confirm a commit; '' is none.
sub write_quorum
{
	return !$opt{durable} ? '' : $opt{write_quorum} // int($opt{page_servers} / 2) + 1;
}

sub commits_wait_for { return "ANY $cluster{write_quorum} (" . join(', ', map { "page_server_$_" } page_servers()) . ')' }

# What --durable says must hold.
sub check_durable
{
	!defined $opt{write_quorum} || $opt{durable} or usage '--write-quorum is of use with --durable only';
	return unless $opt{durable};
	write_quorum() <= $opt{page_servers}
	  or usage "--write-quorum $opt{write_quorum} is more than there are page servers ($opt{page_servers})";
	!defined given($opt{conf}, 'synchronous_standby_names') or usage '--durable writes synchronous_standby_names itself';
	my $level = given($opt{conf}, 'synchronous_commit') // 'on';
	!is_off($level) && lc $level ne 'local' or usage "with synchronous_commit = $level no commit is durable elsewhere";
	my $senders = given($opt{conf}, 'max_wal_senders') // $opt{page_servers};
	$senders !~ /^\d+$/ || $senders >= $opt{page_servers}
	  or usage "max_wal_senders = $senders is too small: each of $opt{page_servers} page servers counts as one";
	(given($opt{ps_conf}, 'wal_receiver_status_interval') // 1) !~ /^0+\s*[a-z]*$/
	  or usage 'with wal_receiver_status_interval = 0 page servers confirm nothing';
	return;
}

sub check_page_servers
{
	$opt{page_servers} //= $opt{shards};
	$opt{page_servers} >= $opt{shards} or usage "--page-servers $opt{page_servers} is fewer than one for each of $opt{shards} shards";
	($opt{hosts} //= 1) <= $opt{page_servers}
	  or usage "--hosts $opt{hosts} is more than there are page servers ($opt{page_servers})";
	return;
}

# Settings that a part would not start with are refused before anything is made.
sub check_given
{
	check_page_servers();
	check_relied_on($_) foreach 'conf', 'ps_conf';
	check_given_to($_) foreach 'conf', 'ps_conf';
	check_addresses('conf', 'neon_comm.wal_feed_');
	check_addresses('ps_conf', 'neon_page_service.');
	check_slots();
	check_durable();
	foreach my $conf (@{ $opt{conf} }, @{ $opt{ps_conf} })
	{
		$conf !~ /^(?:data_directory|config_file|hba_file|ident_file|external_pid_file)\s*=/i
		  or usage "\"$conf\": parts of a cluster have their files in their own directories";
	}
	return;
}

# The server loads ours in any case, whatever else is asked for.
sub merged_libraries
{
	my ($library, $settings) = @_;
	my @libraries = ($library, split /\s*,\s*/, given($settings, 'shared_preload_libraries') // $opt{adopted_preload} // '');
	my %seen;
	return join ',', grep { /./ && !$seen{$_}++ } map { s/^\s+|\s+$//gr } @libraries;
}

sub given_lines
{
	my ($settings) = @_;
	my $text = '';
	foreach (@$settings)
	{
		my ($key, $value) = /^([^=]*)=(.*)$/s;
		$text .= setting_line($key, $value) unless lc $key eq 'shared_preload_libraries';
	}
	return $text;
}

# ---- the parts

# Blanks and commas separate names there unless a name is in double quotes.
sub socket_directory { return qq{"$cluster{socket_dir}"} }

sub common_settings
{
	return (
		unix_socket_directories => socket_directory(),
		unix_socket_permissions => '0700',
		logging_collector => 'off',
		log_destination => 'stderr',
		log_line_prefix => '%m [%p] %b ',
		log_checkpoints => 'on',
		# one call for all files of a data directory, of which there are many and most are empty
		recovery_init_sync_method => 'syncfs');
}

# This machine, but for --print-config.
sub compute_address { return $opt{compute_address} // '127.0.0.1' }
sub page_server_address { my ($n) = @_; return ($opt{page_server_address} // [])->[$n] // '127.0.0.1' }

# The page servers that a shard is read from, the one of its own number first.
sub shard_hosts
{
	my ($shard) = @_;
	my $page_servers = () = page_servers();
	return map { ($shard + $_) % $page_servers } 0 .. hosts_per_shard() - 1;
}

sub shard_conninfo
{
	my ($shard) = @_;
	my @hosts = shard_hosts($shard);
	return conninfo(host => join(',', map { page_server_address($_) } @hosts), port => join(',', map { part_port($_) } @hosts), client_security());
}

# The exporter of a part, if its port was chosen: tokens and TLS as at the other ports.
sub metrics_settings
{
	my ($prefix, $port) = @_;
	return ($port // '') eq '' ? () : ("${prefix}metrics_port" => $port, server_security("${prefix}metrics_"));
}

sub compute_settings
{
	my @page_servers = map { shard_conninfo($_) } shards();

	return "\n# ---- written by neon_dev\n" . lines(
		common_settings(),
		listen_addresses => '127.0.0.1',
		port => $cluster{compute_port},
		wal_level => 'replica',
		max_replication_slots => $cluster{page_servers} + 10,
		# room for parallel queries beside the workers of neon_comm
		max_worker_processes => 16,
		shared_preload_libraries => merged_libraries('neon_comm', $opt{conf}),
		'neon_comm.page_servers' => join(',', @page_servers),
		'neon_comm.stripe_size' => $cluster{stripe_blocks},
		'neon_comm.tenant_id' => $cluster{tenant_id},
		'neon_comm.timeline_id' => $cluster{timeline_id},
		'neon_comm.wal_feed_port' => $cluster{wal_feed_port},
		'neon_comm.wal_feed_listen_addresses' => compute_address(),
		'neon_comm.wal_feed_slots' => join(',', map { "page_server_$_" } page_servers()),
		server_security('neon_comm.wal_feed_'),
		metrics_settings('neon_comm.', $cluster{metrics_port}),
		($cluster{write_quorum} // '') ne ''
		? (synchronous_standby_names => commits_wait_for(),
			max_wal_senders => $cluster{page_servers} + 10)
		: (),
		($cluster{members} // '') eq 'on' ? ('neon_comm.write_quorum' => $cluster{write_quorum}) : (),
		$cluster{auth} ? ('neon_comm.token_file' => security_dir() . '/token') : ())
	  . given_lines($opt{conf});
}

# What init would write for parts on these addresses, DIR being the same path on each machine. Makes nothing.
sub print_config
{
	my @addresses = @{ $opt{page_server_address} // [] };
	my $port = $opt{port} // 6000;

	@addresses && defined $opt{compute_address} or usage '--print-config needs --compute-address and --page-server-address';
	!$opt{given}{page_servers} || $opt{page_servers} == @addresses
	  or usage "--page-servers $opt{page_servers} are not the ", scalar(@addresses), ' that have an address';
	$opt{page_servers} = @addresses;
	$opt{shards} = @addresses unless $opt{given}{shards};
	$opt{auth} && $opt{tls} || !grep({ !/^127\./ } @addresses, $opt{compute_address})
	  or usage 'parts on several machines need --auth and --tls';
	$port + 1 + @addresses <= 65535 or usage "--port $port leaves no ports for the parts";
	check_given();
	%cluster = (shards => $opt{shards}, page_servers => scalar(@addresses), hosts => $opt{hosts}, write_quorum => write_quorum(),
		members => defined $opt{write_quorum} ? 'on' : '', stripe_blocks => $opt{stripe_blocks}, socket_dir => $opt{dir},
		tenant_id => random_id(), timeline_id => random_id(), auth => $opt{auth} ? 'on' : '', tls => $opt{tls} ? 'on' : '',
		compute_port => $port, wal_feed_port => $port + 1, map { ("page_server_${_}_port" => $port + 2 + $_) } 0 .. $#addresses);
	print "# ==> compute.conf\n", compute_settings();
	print "# ==> page_server_$_.conf\n", page_server_settings($_) foreach page_servers();
	return 0;
}

# As many as the compute may have.
sub prepared_transactions
{
	my $wanted = given($opt{conf}, 'max_prepared_transactions') // $opt{adopted_prepared} // 0;
	return $wanted =~ /^\d+$/ && $wanted > PREPARED_MAX ? $wanted : PREPARED_MAX;
}

sub page_server_settings
{
	my ($n) = @_;
	my $feed = conninfo(host => compute_address(), port => $cluster{wal_feed_port}, application_name => "page_server_$n",
		client_security(passfile => 1));

	return "\n# ---- written by neon_dev\n" . lines(
		common_settings(),
		listen_addresses => '',
		# only the name of the socket file: nobody can log in here
		port => part_port($n),
		hot_standby => 'off',
		# Replay ends the server when the compute has more prepared transactions than this; the one
		# setting of the primary that a standby without queries needs.
		max_prepared_transactions => prepared_transactions(),
		primary_conninfo => $feed,
		primary_slot_name => "page_server_$n",
		# After a restart of the compute, reads of its newest WAL wait for this: 5 s by default.
		wal_retrieve_retry_interval => '500ms',
		shared_preload_libraries => merged_libraries('neon_page_service', $opt{ps_conf}),
		'neon_page_service.listen_addresses' => page_server_address($n),
		'neon_page_service.port' => part_port($n),
		'neon_page_service.workers' => 2,
		server_security('neon_page_service.'),
		metrics_settings('neon_page_service.', $cluster{"page_server_${n}_metrics_port"}),
		'neon_page_service.tenant_id' => $cluster{tenant_id},
		'neon_page_service.timeline_id' => $cluster{timeline_id},
		# who is read from for several shards refuses the blocks of none
		'neon_page_service.shard_count' => hosts_per_shard() > 1 ? 0 : $cluster{shards},
		'neon_page_service.shard_number' => $n % $cluster{shards},
		'neon_page_service.stripe_size' => $cluster{stripe_blocks})
	  . given_lines($opt{ps_conf});
}

# The data directory as the stock server that it still is: arguments that win over every file, so that
# it touches nothing but itself, whatever it was part of.
sub stock_settings
{
	my @pairs = (
		listen_addresses => '',
		unix_socket_directories => socket_directory(),
		port => $cluster{compute_port},
		wal_level => 'replica',
		fsync => 'off',
		shared_preload_libraries => $opt{adopted_preload} // '',
		archive_mode => 'off',
		synchronous_standby_names => '',
		ssl => 'off',
		logging_collector => 'off',
		log_destination => 'stderr',
		autovacuum => 'off',
		max_slot_wal_keep_size => -1,
		max_logical_replication_workers => 0);
	my @arguments;
	while (my ($key, $value) = splice @pairs, 0, 2)
	{
		push @arguments, '-c', "$key=$value";
	}
	return @arguments;
}

1;
