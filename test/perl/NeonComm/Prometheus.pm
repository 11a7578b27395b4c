# NeonComm::Prometheus - a Prometheus for a test: it scrapes once a second, evaluates rules as often, and is asked by
# its API. Its time is what counts: "so many scrapes" are waited for as samples, not as seconds of the test.
#
#   my $prom = NeonComm::Prometheus->new($dir, factor => 20, neon_comm => [$port], neon_page_service => [@ports]);
#   $prom->value('neon_comm_shards');          # or undef
#   $prom->firing;                             # names of alarms
#   $prom->outage('NeonFeedStuck', \&begin, \&end);     # four checks
#
# The program is that of $PROMETHEUS_BIN, or of PATH; available() is false without it.
package NeonComm::Prometheus;

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use JSON::PP ();
use Test::More ();
use NeonComm::Http qw(get);
use NeonComm::Node qw(free_port until_true);

sub program
{
	my ($name) = @_;
	my ($path) = grep { -x } map { "$_/$name" } grep { length } $ENV{PROMETHEUS_BIN} // '', split /:/, $ENV{PATH};
	return $path;
}

sub available { return defined program('prometheus') && defined program('promtool') }

# Times of rules are divided by factor (contrib/prometheus/scale_rules); jobs: lists of ports on loopback.
sub new
{
	my ($class, $dir, %o) = @_;
	my $contrib = "$FindBin::RealBin/../../contrib/prometheus";
	my $self = bless { dir => $dir, port => free_port() }, $class;

	mkdir $dir or die "$dir: $!";
	system("$contrib/scale_rules $o{factor} >$dir/rules.yml") == 0 or die 'scale_rules';
	open my $fh, '>', "$dir/prometheus.yml" or die $!;
	print $fh "global: {scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}\nrule_files: [rules.yml]\nscrape_configs:\n";
	foreach my $job ('neon_comm', 'neon_page_service')
	{
		my $targets = join ', ', map { "'127.0.0.1:$_'" } @{ $o{$job} };
		print $fh "  - {job_name: $job, static_configs: [{targets: [$targets]}]}\n";
	}
	close $fh or die $!;
	$self->{run} = IPC::Run::start([ program('prometheus'), "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/data",
			"--web.listen-address=127.0.0.1:$self->{port}", '--log.level=warn' ], '<', \undef, '>', "$dir/prometheus.log", '2>&1');
	until_true(sub { (get($self->{port}, '/-/ready', 'Connection: close') // {})->{status} == 200 })
	  or die 'prometheus did not start: ' . do { local (@ARGV, $/) = "$dir/prometheus.log"; <> };
	return $self;
}

# What the API answers to a path, decoded; dies with its error.
sub api
{
	my ($self, $path, %query) = @_;
	my $text = join '&', map { "$_=" . $query{$_} =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger } sort keys %query;
	my $answer = get($self->{port}, "/api/v1/$path?$text", 'Connection: close') or die "no answer to $path?$text\n";
	my $body = $answer->{body};
	# it may come in chunks
	$body = unchunked($body) if $answer->{head} =~ /^Transfer-Encoding: chunked/mi;
	my $json = JSON::PP::decode_json($body);
	die "$json->{error}\n" unless $json->{status} eq 'success';
	return $json->{data};
}

sub unchunked
{
	my ($text) = @_;
	my $out = '';
	while ($text =~ s/\A([0-9a-f]+)\r\n//i)
	{
		my $n = hex $1 or last;
		$out .= substr $text, 0, $n, '';
		$text =~ s/\A\r\n//;
	}
	return $out;
}

# [ labels, value ] of each series of an instant query.
sub query
{
	my ($self, $expr) = @_;
	my $data = $self->api('query', query => $expr);
	return [ {}, $data->{result}[1] ] if $data->{resultType} eq 'scalar';
	return map { [ $_->{metric}, $_->{value}[1] ] } @{ $data->{result} };
}

# The value of an expression that has one series at most.
sub value
{
	my ($self, $expr) = @_;
	my ($first) = $self->query($expr);
	return $first ? $first->[1] : undef;
}

# Names of alarms that fire, and that are about to, as of the last evaluation.
sub alarms
{
	my ($self, $state) = @_;
	my %names = map { $_->{labels}{alertname} => 1 } grep { $_->{state} eq $state } @{ $self->api('alerts')->{alerts} };
	my @sorted = sort keys %names;
	return @sorted;
}
sub firing  { return $_[0]->alarms('firing') }
sub pending { return $_[0]->alarms('pending') }

# Names of alarms that have fired since a time of Prometheus'.
sub fired_since
{
	my ($self, $then) = @_;
	my $ms = int 1000 * ($self->now - $then);
	my @sorted = sort map { $_->[0]{alertname} } $self->query(qq{sum by (alertname) (count_over_time(ALERTS{alertstate="firing"}[${ms}ms]))});
	return @sorted;
}

sub now { my ($self) = @_; return $self->value('time()') }

# Waits until each target has been tried so often from now on.
sub scrapes
{
	my ($self, $n) = @_;
	my $then = $self->now;
	return until_true(sub { ($self->value("min(timestamp(up)) - $then") // -1) >= $n });
}

# One outage for an alarm. Nothing fires before; it is held until its alarm fires, and for three scrapes more; then that
# alarm has fired, and no other one but those that its cause implies (names with blanks between); after it nothing
# fires. What is to be done all the while is done between two looks.
sub outage
{
	my ($self, $alarm, $begin, $end, $implied, $meanwhile) = @_;
	my %implied = map { $_ => 1 } split ' ', $implied // '';
	my $then;

	Test::More::ok(until_true(sub { !$self->firing && !$self->pending }), "$alarm: nothing fires before")
	  or Test::More::diag(join ' ', $self->firing, $self->pending);
	$then = $self->now;
	$begin->();
	Test::More::ok(until_true(sub { $meanwhile->() if $meanwhile; grep { $_ eq $alarm } $self->firing }), "$alarm: fires")
	  or Test::More::diag(join ' ', 'instead:', $self->firing, 'pending:', $self->pending);
	foreach (1 .. 3)
	{
		$meanwhile->() if $meanwhile;
		$self->scrapes(1);
	}
	Test::More::is(join(' ', grep { !$implied{$_} } $self->fired_since($then)), $alarm, "$alarm: and no other one that it does not imply");
	Test::More::note(sprintf '%s: %.0f s', $alarm, $self->now - $then);
	$end->();
	return Test::More::ok(until_true(sub { !$self->firing }), "$alarm: ends") || Test::More::diag(join ' ', $self->firing);
}

sub stop
{
	my ($self) = @_;
	my $run = delete $self->{run} or return;
	$run->signal('TERM');
	eval { $run->finish };
	return;
}

sub DESTROY { my ($self) = @_; local ($?, $@, $!); $self->stop; return }

1;
