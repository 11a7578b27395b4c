# NeonDev::Security - keys, tokens and certificates of a cluster, in DIR/security.
package NeonDev::Security;

use strict;
use warnings;

use Exporter 'import';
use File::Temp ();
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Settings;

our @EXPORT = qw(make_security token token_until openssl_path);

# The reference's limit of a connection string, without its NUL.
use constant CONNINFO_BYTES => 255;

sub openssl
{
	my ($how, @arguments) = @_;
	my $result = run($how, openssl_path(), @arguments);
	$result->{status} == 0 or fail "openssl $arguments[0] failed:\n$result->{err}";
	return $result->{out};
}

sub openssl_path
{
	my ($path) = grep { -x } map { "$_/openssl" } split /:/, $ENV{PATH} // '';
	return $path // fail '--auth and --tls need the openssl tool';
}

# ---- tokens

sub base64url
{
	my ($bytes) = @_;
	my $text = join '', pack('u', $bytes) =~ /^.(.*)$/mg;	# each line begins with its length
	$text =~ tr{` -_}{AA-Za-z0-9\-_};
	substr($text, length($bytes) % 3 - 3) = '' if length($bytes) % 3;
	return $text;
}

# Many may be made at the same time: what is signed is in a file that nobody else has.
sub make_token
{
	my ($scope, $tenant, $seconds) = @_;
	my $claims = qq({"scope":"$scope");
	$claims .= qq(,"tenant_id":"$tenant") if $scope eq 'tenant';
	$claims .= ',"exp":' . (time + $seconds) if defined $seconds;
	my $signed = base64url('{"alg":"EdDSA","typ":"JWT"}') . '.' . base64url("$claims}");

	my $file = File::Temp->new(DIR => security_dir(), TEMPLATE => 'signed.XXXXXXXX');
	(print $file $signed) && $file->flush or fail 'cannot write into ', security_dir(), ": $!";
	my $signature = openssl({}, 'pkeyutl', '-sign', '-rawin', '-inkey', security_dir() . '/issuer.key', '-in', "$file");
	return "$signed." . base64url($signature);
}

# When a token ends, in seconds since 1970; '' if never, nothing if the text is none. A line of a file of
# passwords will do.
sub token_until
{
	my ($text) = @_;
	my ($claims) = $text =~ /(?:^|:)[\w-]+\.([\w-]+)\.[\w-]+$/m or return;
	$claims =~ tr{A-Za-z0-9\-_}{ -_};
	my $json = unpack 'u', join "\n", map { chr(32 + int(length($_) * 3 / 4)) . $_ } $claims =~ /(.{1,60})/g;
	return $json =~ /^\{.*"scope"/ ? $json =~ /"exp":(\d+)/ ? $1 : '' : undef;
}

# The compute reads "token", walreceivers and status read "pgpass", top and whoever scrapes "metrics_token";
# each at each connect, so that a file which is replaced is all that rotation takes.
sub install_token
{
	my ($token, $seconds) = @_;
	write_file(security_dir() . '/metrics_token', make_token('metrics', undef, $seconds) . "\n");
	write_file(security_dir() . '/token', "$token\n");
	write_file(security_dir() . '/pgpass', "*:*:*:*:$token\n");
	return;
}

sub token
{
	load_cluster();
	$cluster{auth} or fail "$opt{dir} was made without --auth: nobody there asks for a token";
	my $token = make_token($opt{scope}, $opt{tenant_id} // $cluster{tenant_id}, $opt{expires});
	if (!$opt{install})
	{
		print "$token\n";
		return 0;
	}
	my $lock = lock_cluster();
	install_token($token, $opt{expires});
	return 0;
}

# ---- what init and adopt make

sub make_certificates
{
	my $dir = security_dir();
	openssl({}, 'req', '-x509', '-newkey', 'ed25519', '-nodes', '-days', 3650, '-subj', '/CN=neon_dev authority',
		'-keyout', "$dir/ca.key", '-out', "$dir/ca.crt");
	openssl({}, 'req', '-newkey', 'ed25519', '-nodes', '-subj', '/CN=neon_dev', '-keyout', "$dir/server.key",
		'-out', "$dir/server.csr", '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost');
	openssl({}, 'x509', '-req', '-in', "$dir/server.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key",
		'-CAcreateserial', '-days', 3650, '-copy_extensions', 'copy', '-out', "$dir/server.crt");
	unlink "$dir/server.csr", "$dir/ca.srl";
	return;
}

sub check_length
{
	my $longest = join ' ', 'host=127.0.0.1 port=65535', client_security_words();
	length $longest <= CONNINFO_BYTES or fail "$opt{dir} is too long a path for --tls";
	return;
}

sub client_security_words
{
	my %pairs = client_security();
	return map { "$_=" . conninfo_value($pairs{$_}) } keys %pairs;
}

# Before anything large is made: what cannot work fails first.
sub make_security
{
	my $dir = security_dir();

	$cluster{auth} = $opt{auth} ? 'on' : '';
	$cluster{tls} = $opt{tls} ? 'on' : '';
	return unless $opt{auth} || $opt{tls};
	openssl_path();
	check_length();
	mkdir $dir, 0700 or fail "cannot make $dir: $!";
	umask 077;
	if ($opt{auth})
	{
		progress "making the issuer's key and a token ...";
		openssl({}, 'genpkey', '-algorithm', 'ed25519', '-out', "$dir/issuer.key");
		openssl({}, 'pkey', '-in', "$dir/issuer.key", '-pubout', '-out', "$dir/issuer.pub");
		install_token(make_token('tenant', $cluster{tenant_id}, undef));
	}
	if ($opt{tls})
	{
		progress 'making an authority and a certificate ...';
		make_certificates();
	}
	return;
}

1;
