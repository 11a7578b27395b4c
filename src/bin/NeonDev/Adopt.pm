# NeonDev::Adopt - a cluster made of a copy of an ordinary one.
#
# The copy touches neither the original nor anything that the original talks to, whatever its
# configuration says: no file of it is used as it is. Its settings are read, and those that stay inside of a
# server are written into a file of our own; what is not known to stay inside is left out, and named.
package NeonDev::Adopt;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Make;
use NeonDev::Settings;

our @EXPORT = qw(adopt divide_settings settings_text $local_hba cut_subscriptions);

# ---- the original

# An identity of what is to be copied: changes as soon as a server opens it.
sub source_state
{
	return join ' ', map { control_value($opt{from}, $_) } 'Database cluster state', 'Latest checkpoint location',
	  'pg_control last modified';
}

sub check_not_running
{
	my $pid = slurp("$opt{from}/postmaster.pid") // return;
	$pid =~ s/\n.*//s;
	fail "$opt{from} has a postmaster.pid (process $pid): stop that server cleanly first";
}

sub check_source
{
	-d $opt{from} or fail "there is no directory $opt{from}";
	my $version = slurp("$opt{from}/PG_VERSION")
	  // fail "$opt{from} is not a data directory, or user ", user_name(), ' may not read it';
	chomp $version;
	$cluster{pg_version} =~ /^\Q$version\E\./
	  or fail "$opt{from} is of PostgreSQL $version, the server here is $cluster{pg_version}";
	check_not_running();
	my $state = control_value($opt{from}, 'Database cluster state');
	$state eq 'shut down' or fail "$opt{from} was not shut down cleanly (its state is \"", $state || 'unknown', '")';
	foreach my $file (qw(backup_label standby.signal recovery.signal neon_comm.skeleton compute_identity))
	{
		!-e "$opt{from}/$file" or fail "$opt{from} has a file $file: it is not an ordinary stopped cluster";
	}
	foreach my $link (grep { -l } directory_entries("$opt{from}/pg_tblspc"))
	{
		fail "$opt{from} has a tablespace with a location (", readlink $link, '): page servers on the same machine ',
		  'would share it; move its tables to the default tablespace first';
	}
	"$opt{dir}/" !~ m{^\Q$opt{from}\E/} or fail "DIR may not be inside of $opt{from}";
	return;
}

# ---- its settings

# [name, value] of each line of a configuration file, in order, included files in their places. Relative
# names are looked up beside the file, as the server does.
sub read_settings
{
	my ($file, $depth) = @_;
	my $text = slurp($file) // fail "cannot read $file, which the configuration of $opt{from} is made of";
	my @settings;

	$depth < 10 or fail "$file is included too deep";
	foreach my $line (split /\n/, $text)
	{
		next unless $line =~ /^\s*([A-Za-z_][\w.\$-]*)\s*(?:=|\s)\s*('(?:[^'\\]|''|\\.)*'|[^'#\s][^#\s]*)/;
		my ($name, $value) = (lc $1, $2);
		push @settings, $name =~ /^include/ ? included($name, $value, $file, $depth) : [ $name, $value ];
	}
	return @settings;
}

sub included
{
	my ($how, $value, $by, $depth) = @_;
	my $name = unquoted($value);
	$name = ($by =~ s{/[^/]*$}{}r) . "/$name" unless $name =~ m{^/};

	return if $how eq 'include_if_exists' && !-e $name;
	my @files = $how eq 'include_dir' ? sort grep { m{/[^./][^/]*\.conf$} } directory_entries($name) : $name;
	return map { read_settings($_, $depth + 1) } @files;
}

sub unquoted
{
	my ($value) = @_;
	return $value unless $value =~ s/^'(.*)'$/$1/s;
	$value =~ s/''|\\(.)/defined $1 ? $1 : "'"/ge;
	return $value;
}

# Groups of settings that reach out of a server, name files outside, or are ours to choose.
my $not_inside = qr{^(?:File\ Locations|Connections\ and\ Authentication|Replication|Write-Ahead\ Log|
	Reporting\ and\ Logging\ /\ Where|Client\ Connection\ Defaults\ /\ Shared\ Library|Error\ Handling|
	Preset|Customized|Developer)}x;
my %inside_all_the_same = map { $_ => 1 } qw(max_connections superuser_reserved_connections password_encryption
	wal_compression wal_buffers commit_delay commit_siblings synchronous_commit checkpoint_timeout
	checkpoint_completion_target max_wal_size min_wal_size allow_in_place_tablespaces);
# Ours to choose, or outside of the groups above.
my %not_adopted = map { $_ => 1 } qw(cluster_name stats_temp_directory huge_pages event_source log_line_prefix
	log_checkpoints max_worker_processes recovery_init_sync_method dynamic_library_path);
# Libraries that are known to talk to nobody.
my %harmless_library = map { $_ => 1 } qw(pg_stat_statements auto_explain auth_delay passwordcheck pg_prewarm pgaudit
	pg_hint_plan pg_stat_kcache pg_qualstats pg_wait_sampling plpgsql pg_trgm);

# name => group of the settings that this server knows, developers' options excepted
sub known_settings
{
	my $result = run({}, program_of('postgres'), '--describe-config');
	return map { my @c = split /\t/; (lc $c[0] => $c[2]) } split /\n/, $result->{out};
}

sub stays_inside
{
	my ($name, $known) = @_;
	return $name !~ /^neon_/ if $name =~ /\./;
	return 1 if $inside_all_the_same{$name};
	return if $not_adopted{$name} || !defined $known->{$name};
	return $known->{$name} !~ $not_inside;
}

# Settings of the copy: what the files together say, last lines win, divided into (kept, left out).
sub divide_settings
{
	my %known = known_settings();
	my (%value, @kept, @left_out);

	foreach my $file (grep { -e } "$opt{from}/postgresql.conf", "$opt{from}/postgresql.auto.conf")
	{
		$value{ $_->[0] } = $_->[1] foreach read_settings($file, 0);
	}
	foreach my $name (sort keys %value)
	{
		if (stays_inside($name, \%known)) { push @kept, "$name = $value{$name}" }
		elsif ($name ne 'shared_preload_libraries') { push @left_out, "$name = $value{$name}" }
	}
	$opt{adopted_prepared} = unquoted($value{max_prepared_transactions} // '0');
	choose_libraries(unquoted($value{shared_preload_libraries} // ''), \@left_out);
	return (\@kept, \@left_out);
}

sub choose_libraries
{
	my ($libraries, $left_out) = @_;
	my @kept;
	foreach my $library (grep { /./ } map { s/^[\s"]+|[\s"]+$//gr } split /,/, $libraries)
	{
		if ($harmless_library{$library}) { push @kept, $library }
		else { push @$left_out, "shared_preload_libraries = '$library'" }
	}
	$opt{adopted_preload} = join ',', @kept;
	return;
}

# ---- the copy

our $local_hba = <<'END';
# Written by neon_dev: a developer cluster trusts this machine.
local   all   all                  trust
host    all   all   127.0.0.1/32   trust
host    all   all   ::1/128        trust
END

# A configuration file of these settings, with the others for people to read.
sub settings_text
{
	my ($kept, $left_out, $called, $whose) = @_;
	return join "\n", "# Settings of $whose that stay inside of a server.", @$kept,
	  '', "# $called:", (map { "#   $_" } @$left_out), '';
}

# What was there is kept for people to read.
sub adopt_configuration
{
	my ($kept, $left_out) = @_;
	my $data = part_data('compute');

	foreach my $name (qw(postgresql.conf postgresql.auto.conf pg_hba.conf pg_ident.conf))
	{
		rename "$data/$name", "$data/$name.adopted" or fail "cannot rename $data/$name: $!" if -e "$data/$name";
	}
	progress "$opt{from} has no postgresql.conf; the defaults are used (see --conf)" unless -e "$data/postgresql.conf.adopted";
	write_file("$data/postgresql.conf", settings_text($kept, $left_out, 'Not adopted', $opt{from}));
	write_file("$data/postgresql.auto.conf", '');
	write_file("$data/pg_hba.conf", $local_hba);
	write_file("$data/pg_ident.conf", '');
	progress 'not adopted: ', join ', ', map { s/ = .*//sr } @$left_out if @$left_out;
	return;
}

sub copy_source
{
	my $before = source_state();
	my $data = part_data('compute');

	progress "copying $opt{from} ...";
	copy_directory($opt{from}, $data);
	check_not_running();
	source_state() eq $before or fail "$opt{from} was started while it was copied";
	remove_traces($data);
	return;
}

# A subscription of the copy would take the changes, and the slot, that the original is to get; dropped
# there, it would drop the slot. Done where no other process runs. The new connection leads nowhere.
sub cut_subscriptions
{
	my $out = single_user("SELECT count(*) AS n FROM pg_catalog.pg_subscription\n");
	my ($n) = $out =~ /1: n = "(\d+)"/ or fail 'cannot count the subscriptions of the copy';
	return if $n == 0;
	single_user("UPDATE pg_catalog.pg_subscription SET subenabled = false, subslotname = NULL,"
		. " subconninfo = 'host=/nowhere dbname=not_adopted'\n");
	progress "$n subscription(s) of the copy were disabled and lead nowhere";
	return;
}

sub adopt
{
	defined $opt{from} or usage '--from PGDATA is missing';
	check_given();
	find_server();
	check_source();
	my ($kept, $left_out) = divide_settings();
	return making(sub {
		prepare_and_finish(sub {
			copy_source();
			adopt_configuration($kept, $left_out);
			cut_subscriptions();
		});
	});
}

1;
