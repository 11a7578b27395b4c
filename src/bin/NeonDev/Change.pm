# NeonDev::Change - how an upgrade begins and ends, wherever it is interrupted.
#
# The new parts are made in DIR/upgrade. Until they have shown what they hold, the state is "upgrading", nothing
# else has been changed, and going back is to remove that directory. Then the state is "changing": old parts go to
# DIR/old_MAJOR, new ones take their places, and each step can be done again. Whoever finds one of these
# states and nobody at work ends it: back from the first, on from the second.
package NeonDev::Change;

use strict;
use warnings;

use Exporter 'import';
use File::Path ();
use File::Temp ();
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Make;
use NeonDev::Processes;

our @EXPORT = qw(work_dir kept_dir major_of begin_upgrade undo_upgrade change_places settle);

sub work_dir { return join '/', "$opt{dir}/upgrade", @_ }
sub major_of { my ($version) = @_; return $version =~ /^(\d+)/ ? $1 : 0 }
sub kept_dir { return "$opt{dir}/old_" . major_of($cluster{pg_version}) }

sub is_there { return -e $_[0] || -l $_[0] }
sub move { my ($from, $to) = @_; return rename($from, $to) || fail "cannot move $from to $to: $!" }

# Servers that are at work here have their sockets where nobody else looks for them; pg_upgrade, whose shell reads
# paths, gets that one too, which has no blank or other such byte.
sub begin_upgrade
{
	$cluster{upgrade_tmp} = File::Temp::tempdir('/tmp/neon_dev.XXXXXX');
	set_state('upgrading');
	remove_work();
	foreach my $dir ('upgrade', map { ("upgrade/$_", "upgrade/$_/log") } 'ordinary', 'new')
	{
		mkdir "$opt{dir}/$dir", 0700 or fail "cannot make $opt{dir}/$dir: $!";
	}
	symlink work_dir(), "$cluster{upgrade_tmp}/at" or fail "cannot make a link in $cluster{upgrade_tmp}: $!";
	return;
}

sub remove_work
{
	end_upgrade_processes(work_dir());
	foreach my $round (1 .. 50)
	{
		last unless is_there(work_dir());
		pause(0.1) if $round > 1;
		File::Path::remove_tree(work_dir(), { error => \my $errors });
	}
	!is_there(work_dir()) or fail 'could not remove ', work_dir();
	return;
}

sub end_upgrade
{
	remove_work();
	File::Path::remove_tree($cluster{upgrade_tmp}) if ($cluster{upgrade_tmp} // '') =~ m{^/tmp/neon_dev\.\w+$};
	$cluster{upgrade_tmp} = '';
	set_state('made');
	return;
}

sub undo_upgrade { return end_upgrade() }

# %cluster is what the cluster was; what it becomes is in the work directory's neon_dev.conf. Each step looks
# whether it was done already.
sub change_places
{
	my $kept = kept_dir();
	if (is_there(work_dir('new/neon_dev.conf')))
	{
		-d $kept or mkdir $kept, 0700 or fail "cannot make $kept: $!";
		foreach my $name ('log', map { part_id($_) } 'compute', page_servers())
		{
			next unless is_there(work_dir("new/$name"));
			move("$opt{dir}/$name", "$kept/$name") if is_there("$opt{dir}/$name");
			move(work_dir("new/$name"), "$opt{dir}/$name");
		}
		keep_conf("$kept/neon_dev.conf");
		run({}, 'sync', '-f', $opt{dir});
		move(work_dir('new/neon_dev.conf'), conf_file());
		load_cluster(any => 1);
	}
	end_upgrade();
	return;
}

# As it is when it is put back in its place.
sub keep_conf
{
	my ($file) = @_;
	my $text = slurp(conf_file()) // fail 'cannot read ', conf_file();
	$text =~ s/^state=.*$/state=made/m;
	$text =~ s/^upgrade_tmp=.*$/upgrade_tmp=/m;
	write_file($file, $text, 0644);
	return;
}

# Before each command but those that make or remove a cluster.
sub settle
{
	return unless (slurp(conf_file()) // '') =~ /^state=(?:upgrading|changing)$/m;
	load_cluster(any => 1);
	check_place();
	my $lock = lock_if_free() // fail "$opt{dir} is being upgraded by another neon_dev";
	load_cluster(any => 1);
	if ($cluster{state} eq 'upgrading')
	{
		warning "an upgrade of $opt{dir} was interrupted: removing what it had made; the cluster is as it was";
		undo_upgrade();
	}
	elsif ($cluster{state} eq 'changing')
	{
		warning "an upgrade of $opt{dir} was interrupted when its result was good: putting that in its place";
		change_places();
	}
	return;
}

1;
