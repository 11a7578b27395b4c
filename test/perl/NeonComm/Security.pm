# NeonComm::Security - keys, tokens and certificates for tests, made by the openssl
# tool in a directory of the test.
package NeonComm::Security;

use strict;
use warnings;

use File::Copy ();
use File::Temp qw(tempdir);
use IPC::Run ();
use JSON::PP ();
use MIME::Base64 qw(encode_base64url);

sub new
{
	my ($class) = @_;
	return bless { dir => tempdir('nc_security_XXXXXX', TMPDIR => 1, CLEANUP => 1) }, $class;
}

sub path { my ($self, $name) = @_; return "$self->{dir}/$name" }

sub openssl
{
	my ($self, @args) = @_;
	my $out = '';
	IPC::Run::run([ 'openssl', @args ], '<', \undef, '>', \$out, '2>&1') or die "openssl @args: $out";
	return;
}

sub write_file
{
	my ($self, $name, $text, $mode) = @_;
	my $path = $self->path($name);
	open my $fh, '>', "$path.new" or die "$path: $!";
	binmode $fh;
	print $fh $text;
	close $fh or die $!;
	chmod $mode // 0600, "$path.new";
	rename "$path.new", $path or die $!;
	return $path;
}

sub read_file
{
	my ($self, $name) = @_;
	open my $fh, '<', $self->path($name) or die "$name: $!";
	local $/;
	return scalar <$fh>;
}

# ---- tokens

# A key pair of an issuer of tokens, made once.
sub key
{
	my ($self, $name) = @_;
	my $path = $self->path("$name.key");
	if (!-f $path)
	{
		$self->openssl('genpkey', '-algorithm', 'ed25519', '-out', $path);
		$self->openssl('pkey', '-in', $path, '-pubout', '-out', $self->path("$name.pub"));
	}
	return $path;
}

# A file with the public keys of these issuers.
sub public_keys
{
	my ($self, $file, @names) = @_;
	$self->key($_) foreach @names;
	return $self->write_file($file, join('', map { $self->read_file("$_.pub") } @names));
}

# token(key => 'issuer', header => {...}, claims => {...} or text)
sub token
{
	my ($self, %o) = @_;
	my $header = $o{header} // { alg => 'EdDSA', typ => 'JWT' };
	my $claims = ref $o{claims} ? JSON::PP->new->canonical->encode($o{claims}) : $o{claims};
	my $signed = encode_base64url(JSON::PP->new->canonical->encode($header)) . '.'
	  . encode_base64url($claims);
	my $text = $self->write_file('to_sign', $signed);
	$self->openssl('pkeyutl', '-sign', '-rawin', '-inkey', $self->key($o{key} // 'issuer'),
		'-in', $text, '-out', $self->path('signature'));
	return "$signed." . encode_base64url($self->read_file('signature'));
}

sub tenant_token
{
	my ($self, $tenant, %claims) = @_;
	return $self->token(claims => { scope => 'tenant', tenant_id => $tenant, %claims });
}

# ---- certificates

# A certification authority; returns its certificate.
sub authority
{
	my ($self, $name) = @_;
	my $path = $self->path("$name.crt");
	$self->openssl('req', '-x509', '-newkey', 'ed25519', '-nodes', '-days', 30, '-subj', "/CN=$name",
		'-keyout', $self->path("$name.key"), '-out', $path) unless -f $path;
	return $path;
}

# A server certificate (name.crt, name.key): names => 'DNS:..,IP:..', days => 30 (0: it has expired).
sub certificate
{
	my ($self, $name, %o) = @_;
	my $ca = $o{authority} // 'authority';
	$self->authority($ca);
	$self->openssl('req', '-newkey', 'ed25519', '-nodes', '-subj', "/CN=$name", '-keyout',
		$self->path("$name.key"), '-out', $self->path("$name.csr"), '-addext',
		'subjectAltName=' . ($o{names} // 'DNS:localhost,IP:127.0.0.1'));
	$self->openssl('x509', '-req', '-in', $self->path("$name.csr"), '-CA', $self->path("$ca.crt"),
		'-CAkey', $self->path("$ca.key"), '-CAcreateserial', '-days', $o{days} // 30,
		'-copy_extensions', 'copy', '-out', $self->path("$name.crt"));
	chmod 0600, $self->path("$name.key");
	return;
}

# Puts a certificate and its key in the place where a server reads them.
sub install
{
	my ($self, $name, $place) = @_;
	foreach my $end ('crt', 'key')
	{
		$self->write_file("$place.$end", $self->read_file("$name.$end"));
	}
	return;
}

1;
