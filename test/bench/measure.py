"""What benchmarks say of a series of figures, and how quiet the machine was meanwhile. Needs no server.

    test/bench/measure.py --self-test

Paired rounds: each round gives one ratio of what was measured in turn in it. The figure is
the median of the rounds, and a target is met only if the worse quartile meets it.
"""
import ctypes
import math
import os
import signal
import subprocess
import sys
import time

OTHERS_MAX = 0.02		# share of the CPUs' time that processes not ours may use
STEAL_MAX = 0.01		# share of it that the host may keep for itself
RUNNING_MAX = 0.5		# processes of others that run or wait for a disk, on average of half a second, before and after


def quartiles(values):
	"""(lower quartile, median, upper quartile), interpolated between neighbours: of one value it thrice."""
	v = sorted(values)

	def at(q):
		i = (len(v) - 1) * q
		low = math.floor(i)
		high = min(low + 1, len(v) - 1)
		# no arithmetic with what is not finite
		return v[low] if v[low] == v[high] else v[low] + (v[high] - v[low]) * (i - low)
	return at(0.25), at(0.5), at(0.75)


def paired(above, below, key, key_below=None):
	"""The ratio of each round."""
	if len(above) != len(below):
		raise ValueError(f'{len(above)} rounds are not {len(below)}')
	ratios = []
	for x, y in zip(above, below):
		y = y[key_below or key]
		ratios.append(x[key] / y if y else math.inf)
	return ratios


def judge(values, at_most=None, at_least=None):
	"""The median of rounds, its quartiles, and whether the worse of them meets the target; `ok` is None without one."""
	low, median, high = quartiles(values)
	ok, worse = None, None
	if at_most is not None:
		worse, ok = high, high <= at_most
	elif at_least is not None:
		worse, ok = low, low >= at_least
	return {'median': median, 'low': low, 'high': high, 'worse': worse, 'ok': ok, 'rounds': len(values), 'values': list(values)}


def shown(v):
	"""Three digits, and never a power of ten."""
	return f'{v:.0f}' if abs(v) >= 100 else f'{v:.1f}' if abs(v) >= 10 else f'{v:.2f}' if abs(v) >= 0.1 or v == 0 else f'{v:.4f}'


def never_slower(faster, slower):
	"""Is the fastest of one series no slower than the fastest of the other, and so on to the slowest?"""
	if len(faster) != len(slower):
		raise ValueError(f'{len(faster)} are not {len(slower)}')
	return all(a <= b for a, b in zip(sorted(faster), sorted(slower)))


# ---- CPU of processes

def read(path):
	with open(path, encoding='utf-8', errors='replace') as f:
		return f.read()


def cpu_seconds(pid, proc='/proc'):
	"""CPU of a process and its threads, to the nanosecond where the kernel counts so; 0 of one that is gone."""
	total = 0
	try:
		for task in os.listdir(f'{proc}/{pid}/task'):
			total += int(read(f'{proc}/{pid}/task/{task}/schedstat').split()[0])
		return total / 1e9
	except FileNotFoundError:
		pass
	except ProcessLookupError:
		return 0.0
	try:
		p = parse_stat(read(f'{proc}/{pid}/stat'))
	except (FileNotFoundError, ProcessLookupError):
		return 0.0
	return p['own']


TICKS = os.sysconf('SC_CLK_TCK')


def parse_stat(line):
	"""A process of /proc/PID/stat; seconds. Its name may hold blanks and parentheses."""
	pid, rest = line.split(' ', 1)
	w = rest.rsplit(')', 1)[1].split()
	return {'pid': int(pid), 'state': w[0], 'parent': int(w[1]), 'own': (int(w[11]) + int(w[12])) / TICKS,
			'reaped': (int(w[13]) + int(w[14])) / TICKS, 'start': int(w[19])}


def processes(proc='/proc'):
	"""All that there are: pid -> as parse_stat()."""
	found = {}
	for name in os.listdir(proc):
		if not name.isdigit():
			continue
		try:
			p = parse_stat(read(f'{proc}/{name}/stat'))
		except OSError:
			continue
		found[p['pid']] = p
	return found


def descendants(found, roots):
	"""These processes and all below them."""
	below = {}
	for p in found.values():
		below.setdefault(p['parent'], []).append(p['pid'])
	seen, todo = set(), [r for r in roots if r in found]
	while todo:
		pid = todo.pop()
		if pid not in seen:
			seen.add(pid)
			todo += below.get(pid, [])
	return seen


def tree_cpu(roots):
	"""pid -> CPU of these processes and all below them."""
	return {pid: cpu_seconds(pid) for pid in descendants(processes(), roots)}


def used_between(before, after):
	"""Seconds that were used by what is there afterwards."""
	return sum(s - before.get(pid, 0) for pid, s in after.items())


def accounts(found, root):
	"""Seconds of CPU of a process that takes in orphans, and of all that is or was below it; and of the kernel's threads."""
	ours = sum(found[pid]['own'] + found[pid]['reaped'] for pid in descendants(found, [root]))
	kernel = sum(found[pid]['own'] for pid in descendants(found, [2]))
	return ours, kernel


def machine_cpu(text):
	"""(all, used by somebody, stolen) seconds of all CPUs, by /proc/stat."""
	w = [int(x) for x in text.split('\n', 1)[0].split()[1:9]]
	return sum(w) / TICKS, (sum(w) - w[3] - w[4] - w[7]) / TICKS, w[7] / TICKS


def running(found, root):
	"""Processes of others that run or wait for a disk."""
	mine = descendants(found, [root, 2])
	return sum(p['state'] in 'RD' for p in found.values() if p['pid'] not in mine)


def why_not_quiet(seen):
	"""Reasons, none if it was quiet: of a record as Watch makes it."""
	why = []
	if seen['others'] > OTHERS_MAX:
		why.append(f'other processes used {seen["others"] * 100:.1f} % of the CPUs')
	if seen['steal'] > STEAL_MAX:
		why.append(f'the host kept {seen["steal"] * 100:.1f} % of the CPUs')
	for when in ('before', 'after'):
		if seen[f'running_{when}'] > RUNNING_MAX:
			why.append(f'{seen[f"running_{when}"]:.1f} other processes ran {when}')
	return why


def take_in_orphans():
	"""
	Goes on in a child of this process, which stays to take in servers that nobody waits for: so all CPU that is ours
	is in the accounts of the processes below it, or in its own of those that ended. Its number is the result.
	"""
	ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)		# PR_SET_CHILD_SUBREAPER
	child = os.fork()
	if child == 0:
		return os.getppid()
	for s in (signal.SIGTERM, signal.SIGHUP):
		signal.signal(s, lambda number, _: os.kill(child, number))
	# of a terminal the child has it as well
	signal.signal(signal.SIGINT, signal.SIG_IGN)
	while True:
		pid, status = os.wait()
		if pid == child:
			os._exit(os.waitstatus_to_exitcode(status) & 0xff)


class Watch:
	"""Who else used the machine while something ran."""

	def __init__(self, root):
		self.root = root

	def at_rest(self, seconds=0.5):
		"""Processes of others that run or wait for a disk: the load of now, where the machine's remembers a minute."""
		n = []
		end = time.monotonic() + seconds
		while time.monotonic() < end:
			time.sleep(0.02)
			n.append(running(processes(), self.root))
		return sum(n) / len(n)

	def look(self):
		# by the kernel first: what is ours in between is not somebody else's
		return machine_cpu(read('/proc/stat')) + accounts(processes(), self.root)

	def begin(self):
		self.before, self.load_before = self.at_rest(), os.getloadavg()[0]
		self.first = self.look()

	def end(self):
		total, used, steal, ours, kernel = (b - a for a, b in zip(self.first, self.look()))
		seen = {'others': min(max(used - ours - kernel, 0) / max(total, 0.01), 1.0), 'steal': steal / max(total, 0.01),
				'running_before': self.before, 'running_after': self.at_rest(),
				'load_before': self.load_before, 'load_after': os.getloadavg()[0]}
		seen['why'] = why_not_quiet(seen)
		return seen


# ---- self-test

def self_test():
	failed = []

	def same(what, got, wanted):
		if got != wanted:
			failed.append(f'{what}: {got} is not {wanted}')

	same('quartiles of one', quartiles([3]), (3, 3, 3))
	same('quartiles of three', quartiles([3, 1, 2]), (1.5, 2, 2.5))
	same('quartiles of five', quartiles([5, 1, 4, 2, 3]), (2, 3, 4))
	same('quartiles with what is not finite', quartiles([1, math.inf, math.inf]), (math.inf, math.inf, math.inf))
	a, b = [{'us': 2, 'n': 5}, {'us': 9, 'n': 5}], [{'us': 1, 'n': 5}, {'us': 3, 'n': 0}]
	same('ratios are of the same round', paired(a, b, 'us'), [2, 3])
	same('ratios of two keys', paired(a, b, 'us', 'n'), [0.4, math.inf])
	try:
		paired(a, b[:1], 'us')
		failed.append('rounds without a partner are taken')
	except ValueError:
		pass
	# the median meets these targets and the worse quartile does not
	same('at most', judge([1.0, 1.05, 1.3], at_most=1.1)['ok'], False)
	same('at least', judge([0.8, 1.0, 1.1], at_least=0.95)['ok'], False)
	same('at most, the better quartile does not count', judge([0.1, 1.0, 1.05], at_most=1.1)['ok'], True)
	same('at least, the better quartile does not count', judge([1.0, 1.0, 9.0], at_least=1.0)['ok'], True)
	same('the worse of at most', judge([1, 2, 3], at_most=9)['worse'], 2.5)
	same('the worse of at least', judge([1, 2, 3], at_least=0)['worse'], 1.5)
	same('the median', judge([1, 9, 2], at_most=9)['median'], 2)
	same('without a target', judge([1, 2, 3])['ok'], None)
	same('as it is shown', [shown(v) for v in (0, 0.00926, 0.567, 1.2, 28.26, 381294.3)], ['0.00', '0.0093', '0.57', '1.20', '28.3', '381294'])
	same('never slower', never_slower([3, 1, 2], [2, 3, 4]), True)
	same('slower once', never_slower([1, 1, 9], [2, 3, 4]), False)
	same('one fast scan does not hide', never_slower([3, 3, 3], [2, 3, 9]), False)

	stat = '7 (a) b (c)) S 4 7 7 0 -1 0 0 0 0 0 {} {} {} {} 20 0 1 0 99 0'
	p = parse_stat(stat.format(150 * TICKS // 100, 50 * TICKS // 100, TICKS, 2 * TICKS))
	same('a name with blanks and parentheses', p, {'pid': 7, 'state': 'S', 'parent': 4, 'own': 2.0, 'reaped': 3.0, 'start': 99})

	def proc(pid, parent, own=0.0, reaped=0.0, state='S'):
		return {'pid': pid, 'parent': parent, 'own': own, 'reaped': reaped, 'state': state}

	tree = {p['pid']: p for p in (proc(1, 0, 7, 900), proc(2, 0), proc(3, 2, 0.25, state='R'), proc(10, 1, 5, 50), proc(11, 10, 1, 2),
								  proc(12, 11, 4, state='R'),
								  proc(13, 11, 8, 16), proc(40, 10, 32, state='R'), proc(41, 10, state='D'))}
	same('descendants', descendants(tree, [11, 99]), {11, 12, 13})
	same('accounts: those below, who ended with them, and threads of the kernel', accounts(tree, 11), (31, 0.25))
	same('used', used_between({1: 5.0, 2: 7.0}, {1: 6.0, 3: 0.5}), 1.5)

	same('who runs: neither ours nor threads of the kernel', running(tree, 11), 2)
	text = 'cpu  {} 0 0 {} {} 0 0 {} 0 0\ncpu0 1 1\n'
	same('CPUs', machine_cpu(text.format(3 * TICKS, 5 * TICKS, 4 * TICKS, 2 * TICKS)), (14, 3, 2))
	calm = {'others': OTHERS_MAX, 'steal': STEAL_MAX, 'running_before': RUNNING_MAX, 'running_after': 0, 'load_before': 9, 'load_after': 9}
	same('a quiet machine', why_not_quiet(calm), [])
	for key in ('others', 'steal', 'running_before', 'running_after'):
		same(f'not quiet by {key}', len(why_not_quiet({**calm, key: 1.0})), 1)
	same('our own CPU is seen', cpu_seconds(os.getpid()) > 0, True)
	same('one that is gone', cpu_seconds(2 ** 22 + 1), 0.0)
	root = take_in_orphans()
	w = Watch(root)
	first, own = w.look(), time.process_time()
	# a grandchild that nobody waits for, as servers are
	subprocess.run(['sh', '-c', 'i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done & exit 0'], check=True)
	deadline = time.monotonic() + 60
	while time.monotonic() < deadline and any(p['parent'] == root and p['pid'] != os.getpid() for p in processes().values()):
		time.sleep(0.01)
	same('CPU of an orphan that has ended is ours', w.look()[3] - first[3] - (time.process_time() - own) > 0.05, True)
	w.begin()
	seen = w.end()
	same('a look at this machine', all(0 <= seen[k] <= 1 for k in ('others', 'steal')), True)
	for f in failed:
		print(f)
	return 1 if failed else 0


if __name__ == '__main__':
	if sys.argv[1:] != ['--self-test']:
		sys.exit(__doc__)
	sys.exit(self_test())
