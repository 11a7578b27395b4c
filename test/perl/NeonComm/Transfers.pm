# NeonComm::Transfers - clients that transfer money, and what must be true of it whoever takes over (docs/takeover.md).
#
#   my $t = NeonComm::Transfers->new($c);        # makes the tables
#   $t->send($_) foreach @sessions;              # one transfer of each session, not waited for
#   $t->judge($_) foreach @sessions;
#   $t->check("round 1");                        # five checks, by the compute of the moment
package NeonComm::Transfers;

use strict;
use warnings;

use Test::More ();

my $AMOUNT = 1000;

# accounts => 50
sub new
{
	my ($class, $c, %o) = @_;
	my $self = bless { c => $c, accounts => $o{accounts} // 50, sent => 0, acknowledged => {}, refused => {} }, $class;
	$c->sql(qq{CREATE EXTENSION amcheck;
		CREATE TABLE account (id int PRIMARY KEY, amount int);
		INSERT INTO account SELECT g, $AMOUNT FROM generate_series(1, $self->{accounts}) g;
		CREATE TABLE transfer (id int PRIMARY KEY, a int, b int, n int)});
	return $self;
}

# A transfer has a number; what comes back without a warning is acknowledged.
sub send
{
	my ($self, $s) = @_;
	my $sent = $self->{sent};
	my ($a, $b, $n) = (1 + $sent * 7 % $self->{accounts}, 1 + $sent * 13 % $self->{accounts}, $sent % 10);
	$s->{transfer} = $self->{sent} = ++$sent;
	($a, $b) = ($b, $a) if $a > $b;
	$s->send("BEGIN; UPDATE account SET amount = amount - $n WHERE id = $a; UPDATE account SET amount = amount + $n WHERE id = $b;
		INSERT INTO transfer VALUES ($sent, $a, $b, $n); COMMIT; SELECT 'done $sent'");
	return;
}

# Waits for its end, or for the end of the connection; true: it was acknowledged.
sub judge
{
	my ($self, $s) = @_;
	my $done = $s->wait =~ /^done $s->{transfer}$/m;
	my $acknowledged = $done && $s->{last_error} eq '';
	$self->{acknowledged}{ $s->{transfer} } = 1 if $acknowledged;
	# of a transfer whose connection was lost nobody knows
	$self->{refused}{ $s->{transfer} } = 1 if !$done && $s->{last_error} =~ /ERROR:/ && $s->{last_error} !~ /FATAL|connection|closed/;
	return $acknowledged;
}

sub acknowledged { my ($self) = @_; return scalar keys %{ $self->{acknowledged} } }

# Nothing acknowledged is lost, nothing refused is there, sums are exact, indexes are sound.
sub check
{
	my ($self, $what) = @_;
	my ($c, $accounts) = @{$self}{qw(c accounts)};
	my %there = map { ($_ => 1) } split /\n/, $c->sql('SELECT id FROM transfer');
	my @lost = grep { !$there{$_} } sort { $a <=> $b } keys %{ $self->{acknowledged} };
	Test::More::is("@lost", '', "$what: every acknowledged transfer is there (" . $self->acknowledged . ')');
	my @odd = grep { $self->{refused}{$_} } sort { $a <=> $b } keys %there;
	Test::More::is("@odd", '', '... and none that was refused');
	Test::More::is($c->sql('SELECT sum(amount) FROM account'), $AMOUNT * $accounts, '... no money is lost or made');
	Test::More::is($c->sql(qq{SELECT count(*) FROM account x WHERE amount <> $AMOUNT - (SELECT coalesce(sum(n), 0) FROM transfer WHERE a = x.id)
		+ (SELECT coalesce(sum(n), 0) FROM transfer WHERE b = x.id)}), 0, '... and each account is what its transfers say');
	Test::More::is($c->sql(q{SELECT count(*) FROM (SELECT bt_index_check(i::regclass, true) FROM unnest(ARRAY['account_pkey', 'transfer_pkey']) i OFFSET 0) x}),
		2, '... indexes are sound');
	return;
}

1;
