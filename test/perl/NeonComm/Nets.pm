# NeonComm::Nets - parts of a cluster in network namespaces of their own, so that a network can part them.
#
#   use NeonComm::Nets;
#   my $nets = NeonComm::Nets->enter;            # before anything is started; undef where that is forbidden
#   $nets->add($_, { $port => 'here' }, ...);
#
# The script runs again in a user namespace with a network of its own (unshare), as the same user and with the right to
# change that network. Each node is another network namespace, joined by a pair of interfaces; a node and the script's
# own namespace reach each other's 127.0.0.1 through fault proxies at both ends, by the same ports. part() takes the
# link down: packets are lost, and nobody is told.
package NeonComm::Nets;

use strict;
use warnings;

use NeonComm::Proxy;

my @unshare = ('unshare', '--user', '--map-current-user', '--keep-caps', '--net');

sub command { system(@_) == 0 or die "@_: $?"; return }

# Where user namespaces are forbidden this returns undef and the script goes on as it is.
sub enter
{
	my ($class) = @_;
	if (!$ENV{NC_IN_NETS})
	{
		my $try = 'ip link set lo up && ip link add name here type veth peer name there && unshare --net true';
		return undef if $> == 0 || system("@unshare sh -c '$try' >/dev/null 2>&1") != 0;
		$ENV{NC_IN_NETS} = 1;
		exec @unshare, $^X, (map { ('-I', $_) } @INC), $0, @ARGV or die "unshare: $!";
	}
	command('ip', 'link', 'set', 'lo', 'up');
	return bless { owner => $$, node => {}, proxy => NeonComm::Proxy->new }, $class;
}

sub address { my ($n, $side) = @_; return "10.77.$n.$side" }

# A node: ports of it that are reached from here, and ports of here that are reached from it.
sub add
{
	my ($self, $n, $there, $here) = @_;
	my $pid = fork // die $!;
	if ($pid == 0) { exec 'unshare', '--net', 'sh', '-c', 'ip link set lo up && exec sleep 1000000' or die "unshare: $!" }
	$self->{node}{$n} = { pid => $pid, links => [ map { "$n.$_.from" } @$there ] };
	# it has a namespace of its own
	my $own = readlink '/proc/self/ns/net';
	foreach (1 .. 1000) { last if (readlink("/proc/$pid/ns/net") // $own) ne $own; select undef, undef, undef, 0.01 }
	command('ip', 'link', 'add', "here$n", 'type', 'veth', 'peer', 'name', 'there', 'netns', $pid);
	command('ip', 'address', 'add', address($n, 1) . '/24', 'dev', "here$n");
	command($self->inside($n), 'ip', 'address', 'add', address($n, 2) . '/24', 'dev', 'there');
	command($self->inside($n), 'ip', 'link', 'set', 'there', 'up');
	$self->heal($n);
	my $proxy = $self->{node}{$n}{proxy} = NeonComm::Proxy->new(inside => [ $self->inside($n) ]);
	foreach ([ $self->{proxy}, $proxy, address($n, 2), $there ], [ $proxy, $self->{proxy}, address($n, 1), $here ])
	{
		my ($from, $to, $address, $ports) = @$_;
		foreach my $port (@$ports)
		{
			# another one, for a server looks whether anybody has its own
			my $between = $port + 20000;
			$from->cmd("link $n.$port.from $port $address:$between");
			$to->cmd("link $n.$port.to $address:$between 127.0.0.1:$port");
		}
	}
	return;
}

# In front of a command: it runs there.
sub inside { my ($self, $n) = @_; return ('nsenter', "--net=/proc/$self->{node}{$n}{pid}/ns/net", '--') }

sub part { my ($self, $n) = @_; command('ip', 'link', 'set', "here$n", 'down'); return }
sub heal { my ($self, $n) = @_; command('ip', 'link', 'set', "here$n", 'up'); return }

# Its ports are free here, or lead there again.
sub close_ports { my ($self, $n) = @_; $self->{proxy}->cmd("down $_") foreach @{ $self->{node}{$n}{links} }; return }
sub open_ports { my ($self, $n) = @_; $self->{proxy}->cmd("up $_") foreach @{ $self->{node}{$n}{links} }; return }

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	return unless $self->{owner} == $$;
	delete $_->{proxy} foreach values %{ $self->{node} };
	kill 'KILL', map { $_->{pid} } values %{ $self->{node} };
	return;
}

1;
