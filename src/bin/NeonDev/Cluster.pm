# NeonDev::Cluster - what is written down about a cluster, and where its parts are.
#
# DIR/neon_dev.conf holds key=value lines, read, never executed. "state" tells whether the cluster
# is whole: making (init or adopt is at it, or was interrupted), made, removing; upgrading and changing
# (NeonDev::Change).
package NeonDev::Cluster;

use strict;
use warnings;

use Exporter 'import';
use Fcntl qw(:flock);
use NeonDev::Base;

our @EXPORT = qw(%cluster SHARDS_MAX PREPARED_MAX load_cluster save_cluster conf_file lock_cluster lock_if_free
	hold_cluster check_unchanged check_place set_state part_name part_id part_data part_log part_port chosen_page_servers chosen_compute page_servers hosts_per_shard
	shards program_of security_dir compute_conf);

use constant {
	FORMAT => 1,
	SHARDS_MAX => 128,			# NC_SHARDS_MAX
	PREPARED_MAX => 1000,		# max_prepared_transactions of page servers
};

our %cluster;
my $held;						# the lock, if this process keeps it

my @keys = qw(format state dir pg_version bindir shards page_servers stripe_blocks checksums superuser socket_dir
	compute_port wal_feed_port tenant_id timeline_id system_identifier auth tls write_quorum members hosts wal_dir upgrade_tmp adding adding_port
	adding_metrics_port copied metrics_port);

sub conf_file { return "$opt{dir}/neon_dev.conf" }

sub read_conf
{
	my ($file) = @_;
	%cluster = ();
	foreach (split /\n/, slurp($file) // fail "user ", user_name(), " may not read $file")
	{
		$cluster{$1} = $2 if /^([a-z_0-9]+)=(.*)$/;
	}
	return;
}

# A cluster whose directory was renamed or copied names the old one in its settings: started, it
# would use the sockets, keys and ports of what may still be there.
sub check_place
{
	return if ($cluster{dir} // $opt{dir}) eq $opt{dir};
	fail "$opt{dir} was made as $cluster{dir}, and its settings name that directory: move it back ",
	  "(or remove it with \"neon_dev destroy\")";
}

sub check_state
{
	my $state = $cluster{state} // 'made';
	return if $state eq 'made';
	fail "$opt{dir} is being upgraded by another neon_dev" if $state =~ /^(?:upgrading|changing)$/;
	fail "$opt{dir} is not whole: ", $state eq 'making' ? 'it is still being made, or that was interrupted'
	  : 'it is being removed, or that was interrupted', "; \"neon_dev destroy -D $opt{dir}\" removes it";
}

# Reads the cluster. Only "destroy" takes one that is not whole or stands elsewhere.
sub load_cluster
{
	my (%how) = @_;
	my $file = conf_file();

	-d $opt{dir} or fail "there is no directory $opt{dir}";
	-x _ or fail 'user ', user_name(), " may not look into $opt{dir}";
	-f $file or fail "$opt{dir} is not a cluster of neon_dev (it has no neon_dev.conf)";
	read_conf($file);
	my $format = $cluster{format} // 'none';
	$format eq FORMAT or fail "$file has format \"$format\"; this neon_dev knows format ", FORMAT;
	if (!$how{any})
	{
		check_state();
		check_place();
	}
	$opt{part} =~ /^\d+$/ && $opt{part} >= page_servers()
	  and fail "there is no page server $opt{part}: the cluster has ", scalar(page_servers()), ' of them';
	return;
}

sub save_cluster
{
	my ($file) = @_;
	my $text = "# Written by neon_dev. Do not edit while the cluster runs.\n";
	foreach my $key (@keys, map { ("page_server_${_}_port", "page_server_${_}_metrics_port") } page_servers())
	{
		my $value = $cluster{$key} // '';
		$value !~ /\n/ or fail "\"$value\" has a line end, which neon_dev.conf cannot hold";
		$text .= "$key=$value\n";
	}
	write_file($file // conf_file(), $text, 0644);
	return;
}

sub set_state { my ($state) = @_; $cluster{state} = $state; save_cluster(); return }

# What two calls must not do at the same time is done under this lock; it ends with the process, or
# when what is returned is forgotten.
sub lock_cluster
{
	return $held if $held;
	open my $fh, '<', $opt{dir} or fail "cannot open $opt{dir}: $!";
	flock $fh, LOCK_EX or fail "cannot lock $opt{dir}: $!";
	return $fh;
}

# Takes the lock until the process ends: what is called meanwhile, and would take it, has it already.
sub hold_cluster { $held = shift // lock_cluster(); return }

# Who waited for the lock may have read what does not hold any more.
sub check_unchanged
{
	my $text = slurp(conf_file()) // fail "$opt{dir} was removed meanwhile";
	return if $held;
	$text !~ /^state=(?!made$)/m && $text =~ /^pg_version=\Q$cluster{pg_version}\E$/m
	  or fail "$opt{dir} was changed meanwhile by another neon_dev: try again";
	return;
}

sub lock_if_free
{
	open my $fh, '<', $opt{dir} or fail "cannot open $opt{dir}: $!";
	return flock($fh, LOCK_EX | LOCK_NB) ? $fh : undef;
}

# ---- parts: "compute", or the number of a page server

sub part_name { my ($part) = @_; return $part eq 'compute' ? 'compute' : "page server $part" }
sub part_id   { my ($part) = @_; return $part eq 'compute' ? 'compute' : "page_server_$part" }
# An upgrade has parts elsewhere for a while.
sub parts_dir { return $opt{parts} // $opt{dir} }
sub part_data { return parts_dir() . '/' . part_id($_[0]) }
sub part_log  { return parts_dir() . '/log/' . part_id($_[0]) . '.log' }
sub part_port { return $cluster{ part_id($_[0]) . '_port' } }

sub page_servers { my @all = 0 .. ($cluster{page_servers} || $cluster{shards} || 0) - 1; return @all }
# Those that are read from: number N has the blocks of shard N, as its copies have.
sub shards { return 0 .. ($cluster{shards} // 0) - 1 }
sub hosts_per_shard { return $cluster{hosts} || 1 }
sub chosen_page_servers { return $opt{part} eq 'all' ? page_servers() : $opt{part} eq 'compute' ? () : $opt{part} }
sub chosen_compute { return $opt{part} eq 'all' || $opt{part} eq 'compute' }

sub program_of { return "$cluster{bindir}/$_[0]" }
sub security_dir { return "$opt{dir}/security" }
# What neon_dev has put into the compute's configuration: for a compute that is made anew.
sub compute_conf { return "$opt{dir}/compute.conf" }

1;
