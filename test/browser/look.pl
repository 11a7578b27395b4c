#!/usr/bin/perl
# Looks at pages with a real browser: each at 400 and 1600 pixels, light and dark.
#
#   look.pl CHROMIUM DIRECTORY-FOR-PICTURES PAGE.html...
#
# Chromium is told what to do over two pipes (--remote-debugging-pipe), one JSON text after the other with a NUL
# behind each. One line an item, "ok" or "not ok"; the status is 1 if something is not.
use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl;
use File::Temp qw(tempdir);
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use POSIX ();

my ($chromium, $pictures, @pages) = @ARGV;
@pages or die "usage: look.pl CHROMIUM DIRECTORY PAGE.html...\n";
my $json = JSON::PP->new->utf8;
my $failed = 0;

sub item { my ($good, $name, $why) = @_; print $good ? 'ok      ' : 'not ok  ', $name, $good ? '' : ' # ' . substr($why, 0, 600), "\n"; $failed ||= !$good; return $good }

# ---- the browser

my ($to, $from, $pid);
my $number = 0;
my @events;

# Chromium reads from descriptor 3 and writes to 4.
sub start
{
	my $profile = tempdir('nc_browser_XXXXXX', TMPDIR => 1, CLEANUP => 1);
	pipe my $its_in, $to or die $!;
	pipe $from, my $its_out or die $!;
	$pid = fork // die $!;
	if (!$pid)
	{
		my ($in, $out) = map { fcntl($_, F_DUPFD, 10) } $its_in, $its_out;
		POSIX::dup2($in, 3);
		POSIX::dup2($out, 4);
		open STDOUT, '>', "$pictures/chromium.log" or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
		exec $chromium, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--no-first-run',
		  "--user-data-dir=$profile", '--remote-debugging-pipe', 'about:blank' or POSIX::_exit(127);
	}
	close $_ foreach $its_in, $its_out;
	$to->autoflush(1);
	return;
}

sub next_message
{
	local $/ = "\0";
	my $text = readline($from) // die "the browser has ended: see $pictures/chromium.log\n";
	chop $text;
	return $json->decode($text);
}

my $session;

# What the browser answers; what it says meanwhile is kept in @events.
sub ask
{
	my ($method, %params) = @_;
	my $id = ++$number;
	print $to $json->encode({ id => $id, method => $method, params => \%params, defined $session ? (sessionId => $session) : () }), "\0";
	while (1)
	{
		my $message = next_message();
		if (($message->{id} // 0) != $id) { push @events, $message; next }
		die "$method: $message->{error}{message}\n" if $message->{error};
		return $message->{result};
	}
}

sub wait_for
{
	my ($method) = @_;
	until (grep { ($_->{method} // '') eq $method } @events) { push @events, next_message() }
	return;
}

sub evaluate
{
	my ($script) = @_;
	my $r = ask('Runtime.evaluate', expression => $script, returnByValue => JSON::PP::true);
	die "in the page: $r->{exceptionDetails}{exception}{description}\n" if $r->{exceptionDetails};
	return $r->{result}{value};
}

# ---- what is measured in the page

my $measure = <<'END';
(() => {
	const bad = { overflow: [], outside: [], contrast: [] };
	const seen = e => { const r = e.getBoundingClientRect(); return r.width > 0 || r.height > 0 };
	const name = e => e.tagName.toLowerCase() + ' "' + e.textContent.trim().slice(0, 40) + '"';
	const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim() !== '');
	const root = document.documentElement;
	if (root.scrollWidth > window.innerWidth) bad.overflow.push(root.scrollWidth + ' > ' + window.innerWidth);
	document.querySelectorAll('details').forEach(d => d.open = true);
	if (root.scrollWidth > window.innerWidth) bad.overflow.push('open details: ' + root.scrollWidth + ' > ' + window.innerWidth);

	// a colour as four numbers, whatever its name
	const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
	const ctx = canvas.getContext('2d', { willReadFrequently: true });
	const rgba = c => { ctx.clearRect(0, 0, 1, 1); ctx.fillStyle = c; ctx.fillRect(0, 0, 1, 1); return [...ctx.getImageData(0, 0, 1, 1).data] };
	const behind = e => {
		for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c }
		return [255, 255, 255, 255];
	};
	const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
	const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) };
	let texts = 0, drawn = 0;
	for (const e of document.body.querySelectorAll('*')) {
		if (e.tagName === 'title' || !seen(e)) continue;
		const style = getComputedStyle(e), inSvg = e instanceof SVGElement;
		if (own(e)) {
			texts++;
			const c = contrast(rgba(inSvg ? style.fill : style.color), behind(e));
			if (c < 4.5) bad.contrast.push(name(e) + ' ' + c.toFixed(2));
			const box = inSvg ? e.ownerSVGElement.getBoundingClientRect() : (e.parentElement.closest('.table, .plot, .tiles div, section, header') || document.body).getBoundingClientRect();
			const range = document.createRange(); range.selectNodeContents(e);
			const r = range.getBoundingClientRect();
			const scrolls = !inSvg && e.closest('.table');
			if (!scrolls && (r.left < box.left - 1 || r.right > box.right + 1) || inSvg && (r.top < box.top - 1 || r.bottom > box.bottom + 1))
				bad.outside.push(name(e) + ' ' + [r.left, r.right, box.left, box.right].map(Math.round));
			if (inSvg && r.height < 9) bad.outside.push(name(e) + ' is ' + r.height.toFixed(1) + ' pixels high');
		}
		if (e.matches('polyline, .swatch line, circle, rect[class^=f]')) {
			drawn++;
			const c = contrast(rgba(e.matches('circle, rect') ? style.fill : style.stroke), behind(e));
			if (c < 3) bad.contrast.push(e.outerHTML.slice(0, 60) + ' ' + c.toFixed(2));
		}
	}
	// the texts of a drawing do not lie on each other
	for (const svg of document.querySelectorAll('.plot > svg')) {
		const boxes = [...svg.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()]);
		boxes.forEach(([t, a], i) => boxes.slice(i + 1).forEach(([u, b]) => {
			if (a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom) bad.outside.push(name(t) + ' lies on ' + name(u));
		}));
	}
	document.querySelectorAll('details').forEach(d => d.open = false);
	return { ...bad, texts, drawn, plots: document.querySelectorAll('.plot > svg').length, dark: light(behind(document.body)) < 0.2, height: root.scrollHeight };
})()
END

# ---- looking

sub look_at
{
	my ($page, $width, $scheme) = @_;
	my ($base) = $page =~ m{([^/]+)\.html$};
	my $name = "$base-$width-$scheme";
	@events = ();
	ask('Emulation.setDeviceMetricsOverride', width => $width + 0, height => 900, deviceScaleFactor => 1, mobile => JSON::PP::false);
	ask('Emulation.setEmulatedMedia', features => [ { name => 'prefers-color-scheme', value => $scheme } ]);
	my $url = 'file://' . abs_path($page);
	ask('Page.navigate', url => $url);
	wait_for('Page.loadEventFired');
	my $m = evaluate($measure);
	my @asked = grep { $_ ne $url && !/^data:/ } map { $_->{params}{request}{url} } grep { ($_->{method} // '') eq 'Network.requestWillBeSent' } @events;
	my @said = map { $json->encode($_->{params}) } grep { ($_->{method} // '') =~ /^(?:Log\.entryAdded|Runtime\.consoleAPICalled|Runtime\.exceptionThrown)$/ } @events;
	item($m->{texts} > 20 && $m->{plots} > 3 && $m->{drawn} > 3, "$name: there is something to see", "$m->{texts} texts, $m->{plots} plots, $m->{drawn} drawn");
	item(!!$m->{dark} eq !!($scheme eq 'dark'), "$name: it is $scheme", 'it is not');
	item(!@{ $m->{overflow} }, "$name: not wider than the window", join '; ', @{ $m->{overflow} });
	item(!@{ $m->{outside} }, "$name: no text outside of its box, or on another", join '; ', @{ $m->{outside} });
	item(!@{ $m->{contrast} }, "$name: contrasts", join '; ', @{ $m->{contrast} });
	item(!@asked, "$name: asks nobody for anything", join '; ', @asked);
	item(!@said, "$name: nothing on the console", join '; ', @said);
	my $shot = ask('Page.captureScreenshot', captureBeyondViewport => JSON::PP::true, clip => { x => 0, y => 0, width => $width + 0, height => $m->{height}, scale => 1 });
	open my $fh, '>:raw', "$pictures/$name.png" or die "$pictures/$name.png: $!\n";
	print $fh decode_base64($shot->{data});
	close $fh or die $!;
	return;
}

start();
my $target = ask('Target.createTarget', url => 'about:blank');
$session = ask('Target.attachToTarget', targetId => $target->{targetId}, flatten => JSON::PP::true)->{sessionId};
ask("$_.enable") foreach qw(Page Runtime Log Network);
foreach my $page (@pages)
{
	foreach my $width (400, 1600)
	{
		look_at($page, $width, $_) foreach qw(light dark);
	}
}
undef $session;
ask('Browser.close');
waitpid $pid, 0;
exit $failed;
