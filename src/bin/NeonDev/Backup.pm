# NeonDev::Backup - a backup of a cluster, of a page server that runs, and an archive of its WAL.
#
# DIR2/data is pg_basebackup's, with a manifest; DIR2/compute.conf has the compute's settings; DIR2/neon_backup.conf
# says what it is, and is there when all of it is whole, checked and on disk. Until that was told there is a file
# neon_backup.making; without neon_backup.conf, what is beside it may be removed.
package NeonDev::Backup;

use strict;
use warnings;

use Exporter 'import';
use Fcntl qw(:flock);
use File::Path ();
use NeonDev::Adopt;
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Copy;
use NeonDev::Make;
use NeonDev::Ordinary;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Settings;
use POSIX ();

our @EXPORT = qw(backup archive read_backup verify_backup);

use constant FORMAT => 1;

# What a restored cluster is made like.
my @of_cluster = qw(pg_version shards page_servers stripe_blocks checksums superuser auth tls write_quorum system_identifier);
my @of_copy = qw(page_server start_lsn first_wal end_lsn started ended prepared libraries);

sub at { return join '/', "$opt{to_dir}", @_ }

# ---- the directory

sub hold_target
{
	my $to = $opt{to_dir};
	if (!-e $to)
	{
		File::Path::make_path($to, { error => \my $errors, mode => 0700 });
		@$errors == 0 or fail "cannot make $to: ", values %{ $errors->[0] };
	}
	-d $to or fail "$to exists and is not a directory";
	open my $fh, '<', $to or fail "cannot open $to: $!";
	flock $fh, LOCK_EX | LOCK_NB or fail "another neon_dev makes a backup in $to";
	return $fh;
}

# Removes what this or an earlier call had made, but for the directory itself.
sub remove_unfinished
{
	return unless -e at('neon_backup.making');
	end_processes_below($opt{to_dir});
	must_run('cannot remove ' . at('data'), {}, 'rm', '-rf', '--', at('data'), map { at($_) } 'settings', 'compute.conf', 'neon_backup.conf');
	unlink at('neon_backup.making') or fail 'cannot remove ', at('neon_backup.making'), ": $!";
	return;
}

# What an earlier call has made, and could not tell: undef, or its description.
sub made_before
{
	return unless -e at('neon_backup.conf');
	-e at('neon_backup.making') or fail "$opt{to_dir} is a backup already";
	my %about = read_backup($opt{to_dir});
	$about{system_identifier} eq $cluster{system_identifier} or fail "$opt{to_dir} is a backup of another cluster";
	return \%about;
}

sub claim_target
{
	remove_unfinished();
	unlink grep { m{/(?:neon_backup\.(?:making|conf)|compute\.conf)\.new\.\d+$} } directory_entries($opt{to_dir});
	directory_entries($opt{to_dir}) == 0 or fail "$opt{to_dir} is not empty";
	chmod 0700, $opt{to_dir} or fail "cannot set the mode of $opt{to_dir}: $!";
	write_file(at('neon_backup.making'), "Written by neon_dev backup. Until this file is gone it is not whole.\n");
	return;
}

# ---- what it says

sub now { return POSIX::strftime('%Y-%m-%d %H:%M:%S+00', gmtime) }

# Of the two files that pg_basebackup has left.
sub positions
{
	my $label = slurp(at('data', 'backup_label')) // fail 'the backup has no backup_label';
	my $manifest = slurp(at('data', 'backup_manifest')) // fail 'the backup has no manifest';
	my ($start, $first) = $label =~ /^START WAL LOCATION: (\S+) \(file (\S+)\)/m or fail 'cannot read backup_label';
	my ($end) = $manifest =~ /"End-LSN": "([0-9A-F\/]+)"/ or fail 'cannot read backup_manifest';
	return (start_lsn => $start, first_wal => $first, end_lsn => $end);
}

# Settings of ours that are of no cluster, and name neither files nor commands.
my $of_ours = qr/^neon_comm\.(?!page_servers|stripe_size|tenant_id|timeline_id|wal_feed_|lfc_path|test_points|\w*_(?:file|command)\b)/;

# The compute's settings; of a lost one what neon_dev gave it is all there is.
sub save_settings
{
	my ($n) = @_;
	local $opt{from} = settings_source($n, at('settings'));
	local @opt{qw(adopted_prepared adopted_preload)};
	my ($kept, $left_out) = divide_settings();
	push @$kept, grep { /$of_ours/ } @$left_out;
	@$left_out = grep { !/$of_ours/ } @$left_out;
	write_file(at('compute.conf'), settings_text($kept, $left_out, 'Not taken over', "the compute of $opt{dir}"));
	must_run('cannot remove ' . at('settings'), {}, 'rm', '-rf', '--', at('settings'));
	return (prepared => $opt{adopted_prepared}, libraries => join(',', grep { !/^neon_/ } split /,/, $opt{adopted_preload} // ''));
}

sub describe
{
	my (%about) = (%cluster, @_);
	my $text = "# Written by neon_dev: a backup of $opt{dir}. neon_dev restore --from $opt{to_dir} --to DIR\n" . 'format=' . FORMAT . "\n";
	$text .= "$_=" . ($about{$_} // '') . "\n" foreach @of_cluster, @of_copy;
	return $text;
}

# A backup's description: a hash. Of one that is not whole there is none.
sub read_backup
{
	my ($dir) = @_;
	my $file = "$dir/neon_backup.conf";

	-d $dir or fail "there is no directory $dir";
	-e $file || !-e "$dir/neon_backup.making" or fail "$dir is a backup that is being made, or that was interrupted";
	my $text = slurp($file) // fail "$dir is no backup of neon_dev: cannot read neon_backup.conf";
	my %about = map { /^([a-z_]+)=(.*)$/ ? ($1 => $2) : () } split /\n/, $text;
	($about{format} // '') eq FORMAT or fail "$file has format \"", $about{format} // 'none', '"; this neon_dev knows format ', FORMAT;
	return %about;
}

# Each file is the one that was copied, and the WAL is there from which it becomes consistent.
sub verify_backup
{
	my ($dir) = @_;
	my $program = program_of('pg_verifybackup');
	-x $program or fail "there is no $program";
	progress 'checking the backup ...';
	my $result = run({ cwd => $dir }, $program, '-q', "$dir/data");
	return if $result->{status} == 0;
	show_end($result->{out} . $result->{err});
	return fail "the backup in $dir is damaged";
}

# ---- the commands

sub make_backup
{
	my ($n) = @_;
	my $started = now();
	my $position = part_pid('compute') ? compute_position() : undef;

	let_in($n);
	copy_running($n, at('data'), $opt{to_dir}, $position);
	my $ended = now();
	# while it is not whole yet: whoever is ended here is called again
	as_configured($n);
	verify_backup($opt{to_dir});
	my %about = (page_server => $n, started => $started, ended => $ended, positions(), save_settings($n));
	run({}, 'sync', '-f', $opt{to_dir});
	write_file(at('neon_backup.conf'), describe(%about));
	run({}, 'sync', '-f', $opt{to_dir});
	return \%about;
}

# Only then nobody may take it for one that was not told.
sub tell_backup
{
	my ($about) = @_;
	progress "done: $opt{to_dir} has everything up to $about->{end_lsn} ($about->{ended}). WAL from $about->{first_wal} on belongs to it";
	unlink at('neon_backup.making') or fail 'cannot remove ', at('neon_backup.making'), ": $!";
	return 0;
}

# The last one: copies behind the shards are nobody's source of reads.
sub choose_source
{
	return $opt{from_page_server} if defined $opt{from_page_server};
	my @run = grep { part_pid($_) } page_servers();
	@run or fail "no page server runs: \"neon_dev start -D $opt{dir}\" first";
	return $run[-1];
}

sub backup
{
	defined $opt{to_dir} or usage '--to DIR2 is missing';
	load_cluster();
	check_target($opt{to_dir});
	check_page_server();
	mend_page_servers();
	my $n = choose_source();
	my $lock = hold_page_server($n);
	check_room(part_data($n), $opt{to_dir}, 1);
	my $target = hold_target();
	my $before = made_before();
	return tell_backup($before) if $before;
	claim_target();
	my @signals = qw(INT TERM HUP);

	local @SIG{@signals} = (\&interrupted) x @signals;
	my $about = eval { make_backup($n) };
	my $failure = $@;
	@SIG{@signals} = ('IGNORE') x @signals;
	as_configured($n);
	if (!$about)
	{
		remove_unfinished();
		die $failure;
	}
	return tell_backup($about);
}

# ---- archiving

my $mark = '# written by neon_dev archive';

# Copies a segment to the archive, whole or not at all. One that is there already must be the same: several page
# servers archive to the same place, so that it has no gap when one of them is lost.
sub archive_command
{
	my ($to) = @_;
	my $file = ($to =~ s/%/%%/gr) . '/%f';
	return "new='$file'.\$\$; if test -f '$file'; then cmp -s '%p' '$file'; "
	  . "else cp '%p' \"\$new\" && sync \"\$new\" && mv \"\$new\" '$file' || { rm -f \"\$new\"; exit 1; }; fi";
}

# Replaces what an earlier call has written.
sub write_settings
{
	my ($file, @pairs) = @_;
	my $text = slurp($file) // fail "cannot read $file";

	$text =~ s/^[^\n]*\Q$mark\E\n//mg;
	$text .= "\n" unless $text =~ /\n\z/;
	while (my ($key, $value) = splice @pairs, 0, 2)
	{
		$text .= setting_line($key, $value) =~ s/\n/ $mark\n/r;
	}
	write_file($file, $text);
	return;
}

sub reload { my ($part) = @_; my $pid = part_pid($part); kill 'HUP', $pid if $pid; return }

sub check_archive
{
	my $to = $opt{to_dir};
	$opt{off} xor defined $to or usage 'give --to ARCHIVE or --off';
	return unless defined $to;
	check_target($to);
	if (!-e $to)
	{
		mkdir $to, 0700 or fail "cannot make $to: $!";
	}
	-d $to && -w _ or fail "$to is no directory that user ", user_name(), ' may write into';
	return;
}

sub archive
{
	load_cluster();
	check_archive();
	# who was stopped to be started again, by a call that was killed
	mend_page_servers();
	my $on = !$opt{off};
	foreach my $n (page_servers())
	{
		-d part_data($n) or fail part_data($n), ' is not there';
		my $restart = part_pid($n) && configured_text($n, 'archive_mode') ne ($on ? 'always' : 'off');
		write_settings(part_data($n) . '/postgresql.conf', $on ? (archive_mode => 'always', archive_command => archive_command($opt{to_dir})) : ());
		if (!$restart) { reload($n); next }
		my $lock = hold_page_server($n);
		local $opt{mode} = 'fast';
		begin_copy($n);
		{
			local $opt{quiet} = 1;
			stop_part($n) or return 1;
		}
		progress part_name($n), ' is started again';
		local $opt{quiet} = 1;
		start_part($n) or return 1;
		end_copy($n);
	}
	# the second is for a compute that is made anew
	foreach my $file (grep { -e } part_data('compute') . '/postgresql.conf', compute_conf())
	{
		write_settings($file, $on ? (archive_timeout => $opt{archive_timeout}) : ());
	}
	reload('compute');
	progress $on ? "done: WAL that page servers have received goes to $opt{to_dir}, the last of it $opt{archive_timeout} s after it was written"
	  : 'done: WAL is not archived any more';
	return 0;
}

1;
