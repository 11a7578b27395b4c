#!/usr/bin/env python3
"""Figures of build/bench/results.json into docs/benchmarks.md (between its markers) and docs/benchmarks/*.svg.

    test/bench/bench_docs.py [RESULTS.json]
    test/bench/bench_docs.py --self-test
"""
import json
import math
import os
import re
import sys

from measure import shown

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COLOURS = ['#1b6ca8', '#d1495b', '#66a182', '#edae49', '#6a4c93']
W, H, LEFT, BOTTOM, TOP_MARGIN, RIGHT = 640, 330, 70, 50, 40, 20


def esc(s):
	return str(s).replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def text(x, y, s, size=12, anchor='middle', extra=''):
	return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {extra}>{esc(s)}</text>'


def nice(v):
	if v >= 1e6:
		return f'{v / 1e6:g}M'
	if v >= 1e3:
		return f'{v / 1e3:g}k'
	return f'{v:g}'


class Chart:
	"""Labels along x, a linear or logarithmic y axis; bars or lines."""

	def __init__(self, title, ylabel, xlabel, labels, log=False):
		self.title, self.ylabel, self.xlabel, self.labels, self.log = title, ylabel, xlabel, labels, log
		self.series = []

	def add(self, name, values):
		if any(v is not None for v in values):
			self.series.append((name, values))

	def y(self, v):
		span = H - BOTTOM - TOP_MARGIN
		if self.log:
			share = (math.log10(max(v, self.lo)) - math.log10(self.lo)) / (math.log10(self.hi) - math.log10(self.lo))
		else:
			share = v / self.hi
		return H - BOTTOM - span * share

	def axis(self):
		values = [v for _, vs in self.series for v in vs if v is not None and v > 0]
		if self.log:
			self.lo = 10 ** math.floor(math.log10(min(values)))
			self.hi = 10 ** math.ceil(math.log10(max(values) * 1.01))
			return [10 ** e for e in range(int(math.log10(self.lo)), int(math.log10(self.hi)) + 1)]
		top = max(values)
		step = 10 ** math.floor(math.log10(top))
		while top / step < 4:
			step /= 2
		self.lo, self.hi = 0, step * math.ceil(top / step)
		return [step * i for i in range(round(self.hi / step) + 1)]

	def x(self, i):
		return LEFT + (W - LEFT - RIGHT) * (i + 0.5) / len(self.labels)

	def frame(self, ticks):
		out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="sans-serif">',
			   f'<rect width="{W}" height="{H}" fill="white"/>', text(W / 2, 18, self.title, 14)]
		for t in ticks:
			y = self.y(t)
			out.append(f'<line x1="{LEFT}" x2="{W - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
			out.append(text(LEFT - 6, y + 4, nice(t), 11, 'end'))
		for i, l in enumerate(self.labels):
			out.append(text(self.x(i), H - BOTTOM + 16, l, 11))
		out.append(text(LEFT + (W - LEFT - RIGHT) / 2, H - 12, self.xlabel))
		out.append(text(16, H / 2, self.ylabel, 12, 'middle', f'transform="rotate(-90 16 {H / 2})"'))
		x = LEFT + 8
		for n, (name, _) in enumerate(self.series):
			out.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{COLOURS[n]}"/>')
			out.append(text(x + 14, 35, name, 11, 'start'))
			x += 32 + 7 * len(name)
		return out

	def bars(self):
		out = self.frame(self.axis())
		slot = (W - LEFT - RIGHT) / len(self.labels) * 0.8
		width = slot / len(self.series)
		for n, (_, values) in enumerate(self.series):
			for i, v in enumerate(values):
				if v is None:
					continue
				x, y = self.x(i) - slot / 2 + n * width, self.y(v)
				out.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width * 0.92:.1f}" height="{H - BOTTOM - y:.1f}" fill="{COLOURS[n]}">'
						   f'<title>{esc(self.labels[i])}: {v:.4g}</title></rect>')
		return '\n'.join(out + ['</svg>']) + '\n'

	def lines(self):
		out = self.frame(self.axis())
		for n, (_, values) in enumerate(self.series):
			points = [(self.x(i), self.y(v)) for i, v in enumerate(values) if v is not None]
			out.append(f'<polyline fill="none" stroke="{COLOURS[n]}" stroke-width="2" points="'
					   + ' '.join(f'{x:.1f},{y:.1f}' for x, y in points) + '"/>')
			out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[n]}"/>' for x, y in points]
		return '\n'.join(out + ['</svg>']) + '\n'


def delay_label(x):
	return f'{x["delay_us"] / 1000:g} ms'


def plots(series):
	"""name -> (alternative text, svg)"""
	out = {}
	if 'ceiling' in series:
		t = [x for x in series['ceiling']['table'] if x['pattern'] == 'random']
		s = [x for x in series['ceiling']['table'] if x['pattern'] == 'sequential']
		c = Chart('Page service alone', 'pages per second', 'connections x depth', [f'{x["connections"]}x{x["depth"]}' for x in t])
		c.add('random', [x['per_second'] for x in t])
		c.add('sequential', [x['per_second'] for x in s])
		out['ceiling'] = ('Pages per second of the page service by connections and depth', c.bars())
	if 'point_latency' in series:
		t = series['point_latency']['table']
		c = Chart('Random page, one client', 'microseconds (log)', 'delay added to a round trip', [delay_label(x) for x in t], True)
		for m in ('communicator', 'direct'):
			for q in ('p50', 'p99'):
				c.add(f'{m} {q}', [x[m][f'{q}_us'] for x in t])
		out['point_latency'] = ('Latency of one client by network delay', c.bars())
	if 'point_throughput' in series:
		t = series['point_throughput']['table']
		c = Chart('Random pages, many clients', 'pages per second', 'clients, delay', [f'{x["clients"]}, {delay_label(x)}' for x in t])
		for m in ('communicator', 'direct'):
			c.add(m, [x[m]['per_second'] for x in t])
		out['point_throughput'] = ('Throughput of many clients', c.bars())
	if 'scan' in series:
		t = series['scan']['table']
		c = Chart('Cold sequential scan', 'pages per second (log)', 'delay added to a round trip', [delay_label(x) for x in t], True)
		for m in ('communicator', 'no readahead', 'direct'):
			c.add(m, [x.get(m, {}).get('pages_per_second') for x in t])
		c.add('ceiling', [x.get('ceiling', {}).get('per_second') for x in t])
		out['scan'] = ('Speed of a cold scan by network delay', c.lines())
	if 'bitmap' in series:
		t = series['bitmap']['table']
		c = Chart('Bitmap heap scan of 2000 pages', 'milliseconds (log)', 'delay added to a round trip', [delay_label(x) for x in t], True)
		for m in ('eic 64', 'off'):
			c.add(m, [x[m]['ms'] for x in t])
		out['bitmap'] = ('Time of a bitmap heap scan by network delay', c.lines())
	return out


def between(spread):
	return f'{shown(spread["low"])} to {shown(spread["high"])}, {spread["rounds"]} rounds' if spread else ''


def place(row):
	"""2, 2b, 2c, 3; then the rows that have names."""
	number = re.match(r'[0-9]+', str(row))
	return (int(number[0]) if number else 99, str(row))


def portions(taken, m, s):
	"""Of portions that were taken otherwise than the last one: what differs, so that nobody compares what cannot be."""
	by = {}
	for n, t in taken.items():
		if (t['commit'], t['rounds'], t['seconds']) != (m['commit'], s['rounds'], s['seconds']):
			by.setdefault((t['commit'], t['date'], t['rounds'], t['seconds']), []).append(f'`{n}`')
	return [f'Of these {", ".join(names)} {date} from {commit}, {rounds} rounds of {seconds:g} s.'
			for (commit, date, rounds, seconds), names in by.items()]


def tables(results):
	m, out = results['meta'], []
	s = m['settings']
	taken = {n: t for n, t in results.get('taken', {}).items() if n in results['rows']}
	noisy = {n: t['machine']['why'] for n, t in taken.items() if not t['quiet']}
	if noisy:
		out += ['**The machine was not quiet** while these were taken, so their figures say that the benchmarks run, and little more: '
				+ '; '.join(f'`{n}` ({", ".join(why)})' for n, why in noisy.items()) + '.', '']
	elif not taken and m['load_before'] > 0.5:
		out += [f'**Provisional:** the machine was busy with other work (load {m["load_before"]:.1f}), so these figures say that the benchmarks run and little more.', '']
	out.append(f'Taken {m["date"]} from {m["commit"]} in {sum(t["took_seconds"] for t in taken.values()) or m["took_seconds"]} s: '
			   f'{m["cpus"]} CPUs ({m["cpu"].strip()}), Linux {m["kernel"]}, '
			   f'load {m["load_before"]:.1f} before the run. Everything runs on this machine: compute, page servers ({s["shards"]} shard), '
			   f'clients, and the proxy that delays. Medians of {s["rounds"]} rounds of {s["seconds"]:g} s, variants in turn.')
	for how in portions(taken, m, s):
		out.append(how)
	if taken and not noisy:
		out.append(f'Others used at most {max(t["machine"]["others"] for t in taken.values()) * 100:.1f} % of the CPUs meanwhile, '
				   f'the host {max(t["machine"]["steal"] for t in taken.values()) * 100:.1f} %.')
	out.append('')
	out.append('* compute: `' + ' '.join(s['compute']) + f'`; event loop {s["io_method"]}, depth {s["depth"]}')
	out.append('* page servers: `' + ' '.join(s['page_server']) + '`')
	out.append(f'* table: {s["table"]}')
	out.append('')
	out.append('| # | work | target | figure | quartiles | verdict |')
	out.append('|---|---|---|---|---|---|')
	rows = [r for rs in results['rows'].values() for r in rs]
	for name, r in sorted(((n, r) for n, rs in results['rows'].items() for r in rs), key=lambda x: place(x[1]['row'])):
		if r['row'] != 0:
			busy = ', not quiet' if name in noisy and r['verdict'] in ('met', 'MISSED') else ''
			out.append(f'| {r["row"]} | {r["what"]} | {r["target"]} | {r["figure"]} | {between(r.get("spread"))} | {r["verdict"]}{busy} |')
	scan = next((r['detail'] for r in rows if r['row'] == 9 and r['detail']), None)
	if scan:
		out += ['', 'One cold scan without delay, per page:', '', '| figure | value |', '|---|---|']
		for k, name in (('communicator_cpu_us', 'communicator CPU, us'), ('page_service_cpu_us', 'page service CPU, us'),
						('instructions_per_page', 'communicator instructions'), ('wakes_per_page', 'wakes'),
						('sleeps_per_page', 'sleeps of the reader'), ('pages_per_receive', 'pages a receive'),
						('sends_per_page', 'sends'), ('turns_per_page', 'turns of the loop')):
			if scan.get(k) is not None:
				out.append(f'| {name} | {scan[k]:.3g} |')
	lat = results['series'].get('point_latency', {}).get('table', [])
	thr = results['series'].get('point_throughput', {}).get('table', [])
	if lat or thr:
		out += ['', '| clients | delay | mode | per second | p50 us | p99 us | p99.9 us |', '|---|---|---|---|---|---|---|']
		for x in lat + thr:
			for mode in ('communicator', 'direct'):
				v = x[mode]
				out.append(f'| {x.get("clients", 1)} | {delay_label(x)} | {mode} | {v["per_second"]:.0f} | {v["p50_us"]:.0f} | {v["p99_us"]:.0f} | {v["p999_us"]:.0f} |')
	ceiling = results['series'].get('ceiling', {}).get('table', [])
	if ceiling:
		out += ['', 'The page service alone (`loadgen`):', '', '| connections x depth | pattern | pages/s | p50 us | p99 us | server CPU us/page | pages a receive |', '|---|---|---|---|---|---|---|']
		for x in ceiling:
			out.append(f'| {x["connections"]} x {x["depth"]} | {x["pattern"]} | {x["per_second"]:.0f} | {x["p50_us"]:.0f} | {x["p99_us"]:.0f} | {x["server_cpu_us"]:.2f} | {x["pages_per_receive"]:.1f} |')
	return out


def wrapped(line, width=100):
	"""As the rest of the page: not within what is code, and neither tables nor pictures."""
	if line.startswith(('|', '!')):
		return line
	out = ['']
	for word in re.findall(r'(?:`[^`]*`|[^ `])+', line):
		if out[-1].strip() and len(out[-1]) + 1 + len(word) > width:
			out.append('  ' if line.startswith('* ') else '')
		out[-1] += (' ' if out[-1].strip() else '') + word
	return '\n'.join(out)


def self_test():
	failed = []

	def same(what, got, wanted):
		if got != wanted:
			failed.append(f'{what}: {got} is not {wanted}')

	rows = ['A', 10, '2c', 3, 'runs', 2, '2b', '', 1]
	same('order of rows', sorted(rows, key=place), [1, 2, '2b', '2c', 3, 10, '', 'A', 'runs'])
	same('quartiles', between({'low': 0.91, 'high': 12.34, 'rounds': 5}), '0.91 to 12.3, 5 rounds')
	same('a row without rounds', between(None), '')
	same('wrapped', wrapped('* aa bb `c c c` dd', 12), '* aa bb\n  `c c c` dd')
	same('a table is not', wrapped('| aa bb cc |', 5), '| aa bb cc |')
	machine = {'others': 0.01, 'steal': 0.0, 'why': []}
	once = {'commit': 'c1', 'date': 'd', 'rounds': 5, 'seconds': 1, 'took_seconds': 7, 'quiet': True, 'machine': machine}
	results = {
		'meta': {'date': 'd', 'commit': 'c1', 'took_seconds': 9, 'cpus': 2, 'cpu': 'x', 'kernel': 'k', 'load_before': 3.0,
				 'settings': {'compute': [], 'page_server': [], 'shards': 1, 'rounds': 5, 'seconds': 1, 'table': 't', 'io_method': 'i', 'depth': 4}},
		'rows': {n: [{'row': i, 'what': n, 'target': '', 'figure': '', 'verdict': 'met'}] for i, n in ((1, 'calm'), (2, 'old'), (3, 'noisy'))},
		'series': {},
		'taken': {'calm': once, 'old': {**once, 'commit': 'c0'}, 'noisy': {**once, 'quiet': False, 'machine': {**machine, 'why': ['noise']}},
				  'gone': {**once, 'quiet': False, 'machine': {**machine, 'why': ['long ago']}}}}
	text = '\n'.join(tables(results))
	for wanted in ('not quiet** while', '`noisy` (noise)', 'noisy |  |  |  | met, not quiet |', 'calm |  |  |  | met |', 'Of these `old` d from c0, 5 rounds',
				   'in 21 s'):
		same(f'"{wanted}" is there', wanted in text, True)
	same('what has no row any more is not told of', 'long ago' in text, False)
	for n in ('noisy', 'old'):
		del results['rows'][n]
	text = '\n'.join(tables(results))
	same('all quiet', ('not quiet' in text, 'Of these' in text, 'Others used at most 1.0 %' in text), (False, False, True))
	for f in failed:
		print(f)
	return 1 if failed else 0


def main():
	if sys.argv[1:] == ['--self-test']:
		return self_test()
	path = sys.argv[1] if len(sys.argv) > 1 else f'{TOP}/build/bench/results.json'
	with open(path) as f:
		results = json.load(f)
	os.makedirs(f'{TOP}/docs/benchmarks', exist_ok=True)
	lines = tables(results)
	for name, (alt, svg) in plots(results['series']).items():
		with open(f'{TOP}/docs/benchmarks/{name}.svg', 'w') as f:
			f.write(svg)
		lines += ['', f'![{alt}](benchmarks/{name}.svg)']
	page = f'{TOP}/docs/benchmarks.md'
	with open(page) as f:
		old = f.read()
	begin, end = '<!-- figures: begin -->\n', '<!-- figures: end -->'
	head, rest = old.split(begin)
	with open(page, 'w') as f:
		f.write(head + begin + '\n'.join(wrapped(l) for l in lines) + '\n' + end + rest.split(end)[1])


if __name__ == '__main__':
	sys.exit(main())
