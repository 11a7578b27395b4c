#!/usr/bin/env python3
"""Benchmarks: every row of the table of targets, on throw-away clusters of this machine.

    test/bench/bench.py [--rounds N] [--seconds S] [--shards N] [--delays US,...]
                        [--keep] [--list] [NAME...]

What is compared runs in turn within one run, and each round gives one ratio: the figure is
their median, in brackets their quartiles, and a target is met if the worse quartile meets it.
Prints the table and writes build/bench/results.json, which bench_docs.py turns into
docs/benchmarks. Names given alone replace only their rows in that file, so the whole can be
taken in portions. Says when the machine was not quiet.
As root, servers run as user postgres. Not a test: a missed target is reported,
and only a workload that cannot be run is a failure.
"""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from measure import Watch, cpu_seconds, descendants, judge, never_slower, paired, processes, shown, take_in_orphans, tree_cpu, used_between

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, 'build', 'bench')
BLOCKS = 20000					# of the table that is read: 160 MB, 20 x shared_buffers
BUFFERS = '8MB'
POINT = 'SELECT id FROM b WHERE ctid = $1::text::tid'
COMPUTE_CONF = [
	f'shared_buffers={BUFFERS}', 'autovacuum=off', 'max_connections=260', 'max_wal_size=8GB',
	'checkpoint_timeout=1h', 'max_parallel_workers_per_gather=0', 'jit=off',
	'synchronize_seqscans=off', 'neon_comm.connections_per_shard=16', 'neon_comm.sweep_interval=1h',
]
# direct mode has a connection for each of a thousand sessions
PS_CONF = ['shared_buffers=512MB', 'max_wal_size=8GB', 'checkpoint_timeout=1h', 'neon_page_service.max_connections=1200']
LFC_MB = 512


class Missing(Exception):
	"""The workload needs something that this build does not have."""


def run(args, check=True, **kw):
	r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
					   stdin=subprocess.DEVNULL, **kw)
	if check and r.returncode != 0:
		raise RuntimeError(f'{" ".join(args[:6])} ...: {r.stdout[-2000:]}')
	return r.stdout


class Bench:
	def __init__(self, opt):
		self.opt = opt
		self.pg_config = os.environ.get('PG_CONFIG', 'pg_config')
		self.bindir = run([self.pg_config, '--bindir']).strip()
		self.user = [] if os.getuid() != 0 else ['runuser', '-u', 'postgres', '--']
		self.work = tempfile.mkdtemp(prefix='nc_bench.', dir='/var/tmp')
		if self.user:
			shutil.chown(self.work, 'postgres')
		os.chmod(self.work, 0o755)
		self.dir = f'{self.work}/c'
		self.proxy = None
		self.nlinks = 0
		self.servers = []
		self.rows = {}
		self.series = {}
		self.meta = {}
		self.taken = {}
		self.next_scan = 0

	# ---- programs

	def bin(self, name):
		return f'{self.bindir}/{name}'

	def dev(self, *args):
		"""neon_dev; its output goes to a file, because servers that it starts would keep a pipe open."""
		with open(f'{self.work}/dev.log', 'w+') as f:
			r = subprocess.run([self.bin('neon_dev'), *args], stdout=f, stderr=subprocess.STDOUT,
							   stdin=subprocess.DEVNULL, cwd=self.work)
			f.seek(0)
			out = f.read()
		if r.returncode != 0:
			raise RuntimeError(f'neon_dev {args[0]}: {out}')
		return out

	def sql(self, text, conninfo=None):
		out = run([*self.user, self.bin('psql'), '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d',
				   conninfo or self.conninfo, '-c', text], cwd=self.work)
		return out.strip()

	def sqlload(self, query, conninfo=None, **kw):
		return json.loads(run(self.sqlload_args(query, conninfo, **kw), cwd=self.work))

	def sqlload_args(self, query, conninfo=None, clients=1, idle=0, seconds=None, warmup=0.3, param=None,
					 range_=BLOCKS, setup=()):
		args = [*self.user, f'{self.work}/sqlload', '--conninfo', conninfo or self.conninfo, '--query', query,
				'--clients', str(clients), '--seconds', str(seconds or self.opt.seconds),
				'--warmup', str(warmup)]
		if idle:
			args += ['--idle', str(idle)]
		if param:
			args += ['--param', param, '--range', str(range_)]
		for s in setup:
			args += ['--setup', s]
		return args

	def points(self, mode, clients=1, **kw):
		kw.setdefault('setup', [f'SET neon_comm.mode = {mode}'] if mode else [])
		return self.sqlload(POINT, clients=clients, param='(%u,1)', **kw)

	def watched_load(self, args, look):
		"""What sqlload found, and what look() says when its measurement begins and when it has ended, all still connected."""
		with subprocess.Popen([*args, '--tell'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
							  cwd=self.work) as p:
			seen = []
			for word in ('begin', 'end'):
				if p.stdout.readline() != word + '\n':
					raise RuntimeError(f'sqlload: {p.communicate()[1][-2000:]}')
				seen.append(look())
			out, err = p.communicate('\n')
			if p.returncode != 0:
				raise RuntimeError(f'sqlload: {err[-2000:]}')
			return json.loads(out), *seen

	def points_cpu(self, mode, clients, **kw):
		"""points(), and the CPU of all processes of the compute, of page servers and of the client for each of them."""
		args = self.sqlload_args(POINT, clients=clients, param='(%u,1)', setup=[f'SET neon_comm.mode = {mode}'], **kw)
		compute, page_servers = self.postmasters()

		def look():
			return tree_cpu([compute]), tree_cpu(page_servers)
		x, before, after = self.watched_load(args, look)
		parts = {'compute': used_between(before[0], after[0]), 'page_servers': used_between(before[1], after[1]), 'client': x['cpu_seconds']}
		x.update({f'{k}_cpu_us': v * 1e6 / max(x['count'], 1) for k, v in parts.items()})
		x['cpu_us'] = sum(parts.values()) * 1e6 / max(x['count'], 1)
		return x

	# ---- clusters

	def start(self):
		conf = list(COMPUTE_CONF)
		if self.has('neon_comm.lfc_size'):
			conf += [f'neon_comm.lfc_size={LFC_MB}MB', 'neon_comm.lfc_size_limit=0']
		args = []
		for c in conf:
			args += ['--conf', c]
		for c in PS_CONF:
			args += ['--ps-conf', c]
		for p in ('sqlload', 'loadgen'):
			shutil.copy(f'{BUILD}/{p}', self.work)
			os.chmod(f'{self.work}/{p}', 0o755)
		self.dev('init', '-D', self.dir, '--quiet', '--shards', str(self.opt.shards), *args)
		self.dev('start', '-D', self.dir, '--quiet')
		self.conninfo = self.dev('conninfo', '-D', self.dir).strip() + ' dbname=postgres'
		self.page_servers = self.sql('SHOW neon_comm.page_servers')
		self.make_tables(self.conninfo)
		self.meta['settings'] = {
			'compute': conf, 'page_server': PS_CONF, 'shards': self.opt.shards,
			'table': f'{BLOCKS} blocks of 8 kB, one row each', 'rounds': self.opt.rounds,
			'seconds': self.opt.seconds,
			'depth': self.sql('SHOW neon_comm.connection_depth'),
			'io_method': self.sql('SELECT io_method FROM neon_comm.status()')}

	def has(self, setting):
		"""Settings are asked of the library, before there is a cluster."""
		with open(f'{run([self.pg_config, "--pkglibdir"]).strip()}/neon_comm.so', 'rb') as f:
			return setting.encode() in f.read()

	def make_tables(self, conninfo):
		self.sql(f'''CREATE TABLE b (id int, k int, f text) WITH (fillfactor = 10);
			INSERT INTO b SELECT g, (g * 7919 + g / 13) %% 10, repeat('x', 700) FROM generate_series(0, {BLOCKS - 1}) g;
			CREATE INDEX b_k ON b (k); CREATE INDEX b_id ON b (id);'''.replace('%%', '%'), conninfo)
		self.sql('VACUUM (FREEZE, ANALYZE) b', conninfo)
		self.sql('CHECKPOINT', conninfo)
		if self.sql("SELECT count(*) FROM b WHERE (ctid::text::point)[0]::int <> id", conninfo) != '0':
			raise RuntimeError('rows are not where they should be')
		if conninfo == self.conninfo and self.sql("SELECT to_regproc('neon_comm.sweep') IS NOT NULL") == 't':
			self.sql('SELECT neon_comm.sweep()')

	def stock(self):
		"""A stock server with the same table."""
		if hasattr(self, 'stock_conninfo'):
			return self.stock_conninfo
		d = f'{self.work}/stock'
		port = free_port()
		run([*self.user, self.bin('initdb'), '-A', 'trust', '-U', 'postgres', '-D', d], cwd=self.work)
		conf = [c for c in COMPUTE_CONF if not c.startswith('neon_comm')]
		with open(f'{d}/postgresql.conf', 'a') as f:
			f.write('\n'.join(['', f'port={port}', "listen_addresses='127.0.0.1'", f"unix_socket_directories='{self.work}'",
							   'wal_level=replica', *[c.replace('=', " = '", 1) + "'" for c in conf]]) + '\n')
		self.pg_ctl(d, 'start')
		# by the same way as the compute: a local socket is some microseconds faster
		self.stock_conninfo = f'host=127.0.0.1 port={port} user=postgres dbname=postgres'
		self.make_tables(self.stock_conninfo)
		return self.stock_conninfo

	def pg_ctl(self, d, what):
		with open(f'{self.work}/pg_ctl.log', 'a') as f:
			subprocess.run([*self.user, self.bin('pg_ctl'), '-w', '-s', '-D', d, '-l', f'{d}.log', '-m', 'immediate'
							if what == 'stop' else 'smart', what], check=True, stdout=f, stderr=f,
						   stdin=subprocess.DEVNULL, cwd=self.work)
		if what == 'start':
			self.servers.append(d)

	def standby(self):
		"""A streaming standby of the stock server."""
		self.stock()
		d = f'{self.work}/standby'
		run([*self.user, self.bin('pg_basebackup'), '-d', self.stock_conninfo, '-D', d, '-R', '-X', 'stream',
			 '-c', 'fast'], cwd=self.work)
		with open(f'{d}/postgresql.auto.conf', 'a') as f:
			f.write(f'port={free_port()}\n')
		self.pg_ctl(d, 'start')
		for _ in range(300):
			if self.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", self.stock_conninfo) == '1':
				return
			time.sleep(0.1)
		raise RuntimeError('the standby does not stream')

	def end(self):
		for d in reversed(self.servers):
			try:
				self.pg_ctl(d, 'stop')
			except subprocess.CalledProcessError:
				pass
		if self.proxy:
			self.proxy.kill()
			self.proxy.wait()
		if self.opt.keep:
			print(f'kept {self.work}')
			return
		try:
			self.dev('destroy', '-D', self.dir, '--quiet')
		except (RuntimeError, OSError):
			pass
		shutil.rmtree(self.work, ignore_errors=True)

	# ---- network delay

	def start_proxy(self):
		if not os.path.exists(f'{TOP}/test/proxy/Makefile'):
			raise Missing('the fault proxy (test/proxy)')
		run(['make', '-s', '-C', f'{TOP}/test/proxy', f'BUILD={BUILD}'])
		targets = re.findall(r'port=(\d+)', self.page_servers)
		args = [f'{BUILD}/nc_proxy', '--control', f'{self.work}/proxy']
		args += [f'link s{i} 0 127.0.0.1:{p}' for i, p in enumerate(targets)]
		self.proxy = subprocess.Popen(args, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
		ports = {}
		for line in self.proxy.stdout:
			w = line.split()
			if w[0] == 'link':
				ports[w[1]] = w[2]
			if w[0] == 'ready':
				break
		parts = self.page_servers.split(',')
		self.proxied = ','.join(re.sub(r'port=\d+', f'port={ports[f"s{i}"]}', p) for i, p in enumerate(parts))

	def proxy_says(self, command):
		"""What the proxy answers behind "ok"; it is started if need be."""
		if not self.proxy:
			self.start_proxy()
		s = socket.socket(socket.AF_UNIX)
		s.connect(f'{self.work}/proxy')
		s.sendall(f'{command}\n'.encode())
		said = s.recv(200)
		s.close()
		if not said.startswith(b'ok'):
			raise RuntimeError(f'the proxy refused "{command}": {said.decode()}')
		return said[2:].decode().strip()

	def behind_proxy(self, page_servers):
		"""The same list of page servers, each over a new link of the proxy."""
		def link(m):
			self.nlinks += 1
			return 'port=' + self.proxy_says(f'link n{self.nlinks} 0 127.0.0.1:{m[1]}')
		return re.sub(r'port=(\d+)', link, page_servers)

	def delay(self, us):
		"""Adds this much to each round trip, half of it in each direction. 0: no proxy."""
		if us > 0:
			self.proxy_says(f'delay * {us // 2} {us - us // 2}')
		self.set('neon_comm.page_servers', self.proxied if us > 0 else self.page_servers)
		ports = re.findall(r'port=(\d+)', self.proxied if us > 0 else self.page_servers)
		for _ in range(200):
			self.points('communicator', seconds=0.05, warmup=0)
			ready = self.sql("SELECT string_agg(DISTINCT address, ' ') FROM neon_comm.connections WHERE state = 'ready'")
			if all(p in ready for p in ports):
				return
			time.sleep(0.05)
		raise RuntimeError('connections did not follow the delay')

	def set(self, name, value):
		quoted = str(value).replace("'", "''")
		self.sql(f"ALTER SYSTEM SET {name} = '{quoted}'")
		self.sql('SELECT pg_reload_conf()')
		for _ in range(100):
			if self.sql(f"SELECT setting FROM pg_file_settings WHERE name = '{name}' AND applied") == str(value) and \
			   self.sql(f"SELECT reset_val FROM pg_settings WHERE name = '{name}'") is not None:
				break
			time.sleep(0.02)
		time.sleep(0.1)

	# ---- measuring

	def counters(self):
		return {l.split('|')[0]: int(l.split('|')[1])
				for l in self.sql('SELECT name, value FROM neon_comm.counters').splitlines()}

	def stages(self, before=None):
		"""Microseconds that the reads of processes have spent in each stage, and how many; or the means since then."""
		now = {l.split('|')[0]: (int(l.split('|')[1]), float(l.split('|')[2])) for l in self.sql(
			"SELECT stage, count, coalesce(count * mean_us, 0) FROM neon_comm.latency WHERE class = 'demand'").splitlines()}
		if before is None:
			return now
		return {k: round((now[k][1] - before[k][1]) / max(now[k][0] - before[k][0], 1), 1) for k in now}

	def communicator(self):
		return int(self.sql('SELECT communicator_pid FROM neon_comm.status()'))

	def postmasters(self):
		"""That of the compute, and those of its page servers."""
		def pid(part):
			with open(f'{self.dir}/{part}/postmaster.pid') as f:
				return int(f.readline())
		return pid('compute'), [pid(f'page_server_{i}') for i in range(self.opt.shards)]

	def page_service_pids(self):
		pids = []
		for i in range(self.opt.shards):
			with open(f'{self.dir}/page_server_{i}/postmaster.pid') as f:
				pm = int(f.readline())
			for p in run(['ps', '-o', 'pid=', '--ppid', str(pm)]).split():
				with open(f'/proc/{p}/cmdline', 'rb') as f:
					if b'page service' in f.read():
						pids.append(int(p))
		return pids

	def in_turn(self, variants, least=0, most=None):
		"""variants: name -> function; each once a round, every other round backwards. Returns name -> list of results, in
		the order of the rounds, of which there are as many as was asked for, within what is given here."""
		out = {name: [] for name in variants}
		for r in range(max(min(self.opt.rounds, most or self.opt.rounds), least)):
			for name, f in list(variants.items())[::-1 if r % 2 else 1]:
				out[name].append(f())
		return out

	def timed(self, query, setup=(), conninfo=None, explain=True):
		"""Milliseconds of a query, whose catalog pages have been read by an EXPLAIN before."""
		r = run([*self.user, self.bin('psql'), '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', conninfo or self.conninfo,
				 *[a for s in [*setup, *[f'EXPLAIN {query}'] * explain] for a in ('-c', s)], '-c', '\\timing on', '-c', query], cwd=self.work)
		return float(re.search(r'Time: ([0-9.]+) ms', r).group(1))

	def scan(self, blocks=BLOCKS, setup=(), conninfo=None):
		"""A cold scan of so many blocks, those after the last scan's; pages per second and counters."""
		if blocks == BLOCKS:
			q = 'SELECT count(f) FROM b'
		else:
			first = self.next_scan % (BLOCKS - blocks)
			self.next_scan = first + blocks
			q = f"SELECT count(f) FROM b WHERE ctid >= '({first},0)' AND ctid < '({first + blocks},0)'"
		pids = [self.communicator(), *self.page_service_pids()] if conninfo is None else []
		before, cpu = (self.counters(), [cpu_seconds(p) for p in pids]) if conninfo is None else ({}, [])
		ms = self.timed(q, setup, conninfo)
		out = {'pages_per_second': blocks / ms * 1000, 'ms': ms}
		if conninfo is None:
			after = self.counters()
			used = [cpu_seconds(p) - c for p, c in zip(pids, cpu)]
			d = {k: after[k] - before.get(k, 0) for k in after}
			pages = max(d['reads_remote'], 1)
			out.update(communicator_cpu_us=used[0] * 1e6 / pages, page_service_cpu_us=sum(used[1:]) * 1e6 / pages,
					   wakes_per_page=d['wakes'] / pages, sleeps_per_page=d['client_sleeps'] / pages,
					   pages_per_receive=d['pages_received'] / max(d['receives'], 1), sends_per_page=d['sends'] / pages,
					   turns_per_page=d['loop_turns'] / pages, remote=d['reads_remote'],
					   prefetched=d.get('prefetch_hits', 0) + d.get('prefetch_joined', 0))
		return out

	def loadgen(self, conns, depth, sequential=False, seconds=None, page_servers=None):
		rel = self.sql("""SELECT coalesce(nullif(reltablespace, 0), (SELECT dattablespace FROM pg_database
			WHERE datname = current_database())) || '/' || (SELECT oid FROM pg_database
			WHERE datname = current_database()) || '/' || relfilenode FROM pg_class WHERE relname = 'b'""")
		pids = self.page_service_pids()
		cpu = [cpu_seconds(p) for p in pids]
		args = [f'{self.work}/loadgen', '--page-servers', page_servers or self.page_servers, '--tenant', self.sql('SHOW neon_comm.tenant_id'),
				'--timeline', self.sql('SHOW neon_comm.timeline_id'), '--rel', rel, '--blocks', str(BLOCKS),
				'--stripe', self.sql("SELECT setting FROM pg_settings WHERE name = 'neon_comm.stripe_size'"),
				'--connections', str(conns), '--depth', str(depth), '--seconds', str(seconds or self.opt.seconds), '--warmup', '0.2']
		r = json.loads(run(args + (['--sequential'] if sequential else []), cwd=self.work))
		# warm-up included on both sides
		pages = r['count'] * (1 + 0.2 / (seconds or self.opt.seconds))
		r['server_cpu_us'] = sum(cpu_seconds(p) - c for p, c in zip(pids, cpu)) * 1e6 / max(pages, 1)
		return r

	def record(self, name, row, what, target, figure, ok, detail=None, spread=None):
		"""ok: True, False, None when it was not measured, or a text for a figure without a target."""
		verdict = ok if isinstance(ok, str) else 'not measured' if ok is None else 'met' if ok else 'MISSED'
		self.rows[name] = self.rows.get(name, []) + [
			{'row': row, 'what': what, 'target': target, 'figure': figure, 'verdict': verdict, 'spread': spread, 'detail': detail or {}}]
		between = f'[{shown(spread["low"])} .. {shown(spread["high"])}]' if spread else ''
		print(f'  {row:>7}  {what:<58} {target:<24} {figure:<28} {between:<16} {verdict}', flush=True)

	def judged(self, name, row, what, target, values, text='', detail=None, at_most=None, at_least=None, also=True, unit=''):
		"""A row with a figure from each round. Without a bound it is for information. `also` is what else has to be."""
		j = judge(values, at_most, at_least)
		self.record(name, row, what, target, f'{shown(j["median"])}{unit}{text and f" ({text})"}', '-' if j['ok'] is None else j['ok'] and also,
					detail, j)

	def plot(self, name, **series):
		self.series[name] = series


def free_port():
	with socket.socket() as s:
		s.bind(('127.0.0.1', 0))
		return s.getsockname()[1]


def med(results, key):
	return statistics.median(r[key] for r in results)


def summary(results):
	return {k: med(results, k) for k in results[0] if isinstance(results[0][k], (int, float))}


# ---- the workloads

def b_ceiling(b):
	"""what the page service answers without a compute, connections x depth"""
	table = []
	for conns, depth in ((1, 1), (1, 8), (1, 32), (4, 1), (4, 8), (4, 32), (16, 1), (16, 8), (16, 32)):
		r = {p: b.loadgen(conns, depth, p == 'sequential', b.opt.seconds / 2) for p in ('random', 'sequential')}
		for p, x in r.items():
			table.append(x)
		print(f'       {conns:>2} x {depth:<2}  random {r["random"]["per_second"]:>9.0f}/s p50 {r["random"]["p50_us"]:>7.0f} us'
			  f'  sequential {r["sequential"]["per_second"]:>9.0f}/s  server {r["sequential"]["server_cpu_us"]:.2f} us/page', flush=True)
	b.plot('ceiling', table=table)
	best = max(table, key=lambda x: x['per_second'])
	b.record('ceiling', 0, 'page service alone, best of connections x depth', 'no target',
			 f'{best["per_second"]:.0f} pages/s', '-', best)


def b_point_latency(b):
	"""random single-page reads, one client, against direct mode"""
	xs = []
	for us in b.opt.delays:
		b.delay(us)
		r = b.in_turn({m: lambda m=m: b.points(m) for m in ('communicator', 'direct')})
		c, d = summary(r['communicator']), summary(r['direct'])
		xs.append({'delay_us': us, 'communicator': c, 'direct': d})
		b.judged('point_latency', 1, f'one client, random page, p50, {us / 1000:g} ms delay', '<= 1.10 x direct',
				 paired(r['communicator'], r['direct'], 'p50_us'), f'{c["p50_us"]:.0f} : {d["p50_us"]:.0f} us', xs[-1], at_most=1.10)
	b.delay(0)
	b.plot('point_latency', table=xs)


def b_point_throughput(b):
	"""random single-page reads, 16, 64 and 200 clients, and the CPU of all for each with 64"""
	xs = []
	for us in [x for x in b.opt.delays if x in (0, 1000)]:
		b.delay(us)
		for clients in b.opt.clients:
			most = [0]

			def go(m):
				x = b.points_cpu(m, clients, warmup=0.5)
				n = b.sql("SELECT coalesce(max(n), 0) FROM (SELECT count(*) n FROM neon_comm.connections WHERE state <> 'unused' GROUP BY shard) x")
				most[0] = max(most[0], int(n))
				return x

			r = b.in_turn({m: lambda m=m: go(m) for m in ('communicator', 'direct')})
			c, d = summary(r['communicator']), summary(r['direct'])
			least = 1.2 if us else 1.0
			xs.append({'delay_us': us, 'clients': clients, 'communicator': c, 'direct': d})
			b.judged('point_throughput', 2, f'{clients} clients, {us / 1000:g} ms delay, {most[0]} connections a shard',
					 f'>= {least:.1f} x direct, <= 16', paired(r['communicator'], r['direct'], 'per_second'),
					 f'{c["per_second"]:.0f} : {d["per_second"]:.0f}/s', xs[-1], at_least=least, also=most[0] <= 16)
			b.judged('point_throughput', '2b', f'CPU of all processes per read, {clients} clients, {us / 1000:g} ms delay',
					 '<= 1.15 x direct' if clients == 64 else 'direct, for info', paired(r['communicator'], r['direct'], 'cpu_us'),
					 f'{c["cpu_us"]:.0f} : {d["cpu_us"]:.0f} us', xs[-1], at_most=1.15 if clients == 64 else None)
	b.delay(0)
	b.plot('point_throughput', table=xs)


def connected_to(ports):
	"""TCP connections of this machine to these ports."""
	n = 0
	for path in ('/proc/net/tcp', '/proc/net/tcp6'):
		if os.path.exists(path):
			with open(path) as f:
				for w in (l.split() for l in f.readlines()[1:]):
					n += w[3] == '01' and int(w[2].rsplit(':', 1)[1], 16) in ports
	return n


SESSIONS, ACTIVE = 1000, 32


def b_idle_sessions(b):
	"""1000 sessions of which 32 are active, against 32 alone, 1 ms delay"""
	restart(b, {'max_connections': SESSIONS + 60})
	try:
		idle_sessions(b)
	finally:
		b.delay(0)
		restart(b, {'max_connections': None})


def idle_sessions(b):
	b.delay(1000)
	ports = {int(p) for p in re.findall(r'port=(\d+)', b.proxied)}

	def go(mode, idle, **kw):
		args = b.sqlload_args(POINT, clients=ACTIVE, idle=idle, param='(%u,1)', warmup=0.5, setup=[f'SET neon_comm.mode = {mode}'], **kw)
		x, connections, _ = b.watched_load(args, lambda: connected_to(ports))
		x['connections'] = connections
		return x

	def gone():
		"""Sessions end after their clients."""
		wait_until(lambda: int(b.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")) == 1, 'sessions do not end')

	def quietly(*what, **kw):
		x = go(*what, **kw)
		gone()
		return x

	r = b.in_turn({'alone': lambda: quietly('communicator', 0), 'beside': lambda: quietly('communicator', SESSIONS - ACTIVE)})
	direct = quietly('direct', SESSIONS - ACTIVE, seconds=1)
	alone, beside = summary(r['alone']), summary(r['beside'])
	b.judged('idle_sessions', '2c', f'{SESSIONS} sessions, {ACTIVE} active, 1 ms delay, {beside["connections"]:.0f} connections, direct {direct["connections"]}',
			 f'>= 0.95 x {ACTIVE} alone', paired(r['beside'], r['alone'], 'per_second'), f'{beside["per_second"]:.0f} : {alone["per_second"]:.0f}/s',
			 {'alone': alone, 'beside': beside, 'direct': direct}, at_least=0.95)


def b_spin(b):
	"""the communicator looks for work before it sleeps, or sleeps at once"""
	if not b.has('neon_comm.spin_time'):
		return b.record('spin', 0, 'spinning', 'no target', 'needs neon_comm.spin_time', None)
	for clients in (1, 4):
		def go(us):
			b.set('neon_comm.spin_time', us)
			return b.points('communicator', clients=clients)
		r = {k: summary(v) for k, v in b.in_turn({'0': lambda: go(0), '100': lambda: go(100)}, most=3).items()}
		b.set('neon_comm.spin_time', 100)
		b.record('spin', 0, f'p50 with spin_time 100 : 0 us, {clients} clients', 'no target',
				 f'{r["100"]["p50_us"]:.0f} : {r["0"]["p50_us"]:.0f} us', '-', r)


def scan_blocks(us):
	return {0: BLOCKS, 200: 8000, 1000: 2000}.get(us, 1000)


class Pinned:
	"""Page servers alone on the first half of the CPUs, the compute and whatever is started meanwhile on the rest."""

	def __init__(self, b):
		self.all = sorted(os.sched_getaffinity(0))
		if len(self.all) < 2:
			raise Missing('two CPUs')
		self.b = b
		self.half = self.all[:len(self.all) // 2], self.all[len(self.all) // 2:]

	def pin(self, server, rest):
		compute, page_servers = self.b.postmasters()
		found = processes()
		for roots, cpus in ((page_servers, server), ([compute], rest)):
			for pid in descendants(found, roots):
				try:
					for task in os.listdir(f'/proc/{pid}/task'):
						os.sched_setaffinity(int(task), cpus)
				except (FileNotFoundError, ProcessLookupError):
					pass
		os.sched_setaffinity(0, rest)

	def __enter__(self):
		self.pin(*self.half)

	def __exit__(self, *_):
		self.pin(self.all, self.all)


def several(f, key, n=3):
	"""What takes a tenth of a second: the middle one of some."""
	return sorted((f() for _ in range(n)), key=lambda x: x[key])[n // 2]


def ceiling(b):
	return max((b.loadgen(c, d, True, b.opt.seconds / 2) for c, d in ((1, 32), (4, 32))), key=lambda x: x['per_second'])


def b_scan(b):
	"""cold sequential scan: against the ceiling, and against no readahead"""
	ahead = b.has('neon_comm.readahead_blocks')
	xs = []
	for us in b.opt.delays:
		b.delay(us)
		n = scan_blocks(us)
		variants = {'communicator': lambda: several(lambda: b.scan(n), 'ms') if us < 1000 else b.scan(n),
					'direct': lambda: b.scan(n, ['SET neon_comm.mode = direct'])}
		if ahead:
			variants['no readahead'] = lambda: b.scan(n, ['SET neon_comm.readahead_blocks = 0'])
		if us == 0:
			variants['ceiling'] = lambda: ceiling(b)
		# the slow way takes the same seconds each time
		rounds = b.in_turn(variants, most=3 if us > 1000 else None)
		r = {k: summary(v) for k, v in rounds.items()}
		x = {'delay_us': us, 'blocks': n, **r}
		xs.append(x)
		speed = r['communicator']['pages_per_second']
		if us == 0:
			b.judged('scan', 3, 'cold sequential scan, no delay, nobody pinned', 'ceiling, for info',
					 paired(rounds['communicator'], rounds['ceiling'], 'pages_per_second', 'per_second'),
					 f'{speed:.0f} : {r["ceiling"]["per_second"]:.0f}/s', x)
		off = r.get('no readahead')
		if off is None:
			b.record('scan', 3, f'cold sequential scan, {us / 1000:g} ms delay', '>= 4 x readahead off',
					 'needs neon_comm.readahead_blocks', None, x)
			continue
		b.judged('scan', 3, f'cold sequential scan, {us / 1000:g} ms delay',
				 '>= 4 x readahead off' if us == 200 else 'readahead off, for info',
				 paired(rounds['communicator'], rounds['no readahead'], 'pages_per_second'),
				 f'{speed:.0f} : {off["pages_per_second"]:.0f}/s', x, at_least=4 if us == 200 else None)
	b.delay(0)
	b.plot('scan', table=xs)


def b_pinned_scan(b):
	"""cold sequential scan against the ceiling, page servers alone on the same CPUs in both"""
	b.delay(0)
	try:
		with Pinned(b) as _:
			rounds = b.in_turn({'communicator': lambda: several(b.scan, 'ms', 5), 'ceiling': lambda: ceiling(b)}, least=5)
	except Missing as e:
		return b.record('pinned_scan', 3, 'cold sequential scan, no delay, pinned', '>= 0.85 x ceiling', f'needs {e}', None)
	r = {k: summary(v) for k, v in rounds.items()}
	c = r['communicator']
	b.judged('pinned_scan', 3, 'cold sequential scan, no delay, page servers alone on their CPUs', '>= 0.85 x ceiling',
			 paired(rounds['communicator'], rounds['ceiling'], 'pages_per_second', 'per_second'),
			 f'{c["pages_per_second"]:.0f} : {r["ceiling"]["per_second"]:.0f}/s; us a page: server {c["page_service_cpu_us"]:.2f}, communicator '
			 f'{c["communicator_cpu_us"]:.2f}', r, at_least=0.85)


def b_bitmap(b):
	"""bitmap heap scans, effective_io_concurrency 64 against 0, 25 one after another"""
	if not b.has('neon_comm.readahead_blocks'):
		return b.record('bitmap', 4, 'bitmap heap scan, eic 64, 1 ms delay', '>= 20 x prefetch off', 'needs prefetch', None)
	xs, scans = [], {}
	plan = ['SET enable_seqscan = off', 'SET enable_indexscan = off', 'SET enable_indexonlyscan = off']
	key = [0]

	def go(eic, extra=()):
		key[0] = (key[0] + 1) % 10
		before = b.counters()
		ms = b.timed(f'SELECT count(f) FROM b WHERE k = {key[0]}', [*plan, f'SET effective_io_concurrency = {eic}', *extra])
		after = b.counters()
		return {'ms': ms, 'pages_per_second': BLOCKS / 10 / ms * 1000, **{k: after.get(k, 0) - before.get(k, 0) for k in (
			'reads_remote', 'prefetch_issued', 'prefetch_refused', 'reads_to_shared_buffer', 'reads_from_staging')}}

	for us in b.opt.delays:
		b.delay(us)
		# without prefetch it waits for the network alone and takes the same seconds each time
		off = [go(0, ['SET neon_comm.readahead_blocks = 0']) for _ in range(3 if us < 5000 else 1)]
		found = [go(64) for _ in range(25)]
		scans[us] = [x['ms'] for x in found]
		r = {'eic 64': summary(found), 'off': summary(off)}
		xs.append({'delay_us': us, **r, 'all': found})
		least = {200: 12, 1000: 20}.get(us)
		usual = r['off']['ms']
		b.judged('bitmap', 4, f'25 bitmap heap scans, eic 64, {us / 1000:g} ms delay', f'each >= {least} x prefetch off' if least else 'prefetch off, for info',
				 [usual / ms for ms in scans[us]], f'slowest {usual / max(scans[us]):.1f}; {r["eic 64"]["ms"]:.0f}, at most {max(scans[us]):.0f} : {usual:.0f} ms',
				 xs[-1], at_least=least, also=least is None or usual / max(scans[us]) >= least)
	for fast, slow in zip(sorted(scans), sorted(scans)[1:]):
		b.record('bitmap', 4, f'the same, {fast / 1000:g} ms delay against {slow / 1000:g} ms', 'fastest to slowest, none slower',
				 f'{min(scans[fast]):.0f} to {max(scans[fast]):.0f} : {min(scans[slow]):.0f} to {max(scans[slow]):.0f} ms',
				 never_slower(scans[fast], scans[slow]), {'faster': sorted(scans[fast]), 'slower': sorted(scans[slow])})
	b.delay(0)
	b.plot('bitmap', table=xs)


def need_lfc(b, name, row, what, target):
	if b.has('neon_comm.lfc_size'):
		return True
	b.record(name, row, what, target, 'needs neon_comm.lfc_size', None)
	return False


def lfc_limit(b, mb):
	b.set('neon_comm.lfc_size_limit', f'{mb}MB' if mb else '0')
	# the writer switches it
	for _ in range(300):
		if b.sql("SELECT state = 'on' FROM neon_comm.lfc") == ('t' if mb else 'f'):
			return
		time.sleep(0.05)
	raise RuntimeError('the file cache is not switched')


def lfc_fill(b, passes=3):
	"""Reads everything a few times; what the cache takes, it then has."""
	for _ in range(passes):
		b.sql('SELECT count(f) FROM b')
		time.sleep(0.3)


def b_lfc_hits(b):
	"""LFC hits against stock PostgreSQL reading the same from the page cache"""
	if not need_lfc(b, 'lfc_hits', 5, 'LFC hits, small shared_buffers', '>= 0.9 x stock'):
		return
	stock = b.stock()
	lfc_limit(b, LFC_MB)
	lfc_fill(b)
	before = b.counters()['reads_remote']
	for clients in (1, 8):
		rounds = b.in_turn({
			'lfc': lambda: b.points('communicator', clients=clients),
			'stock': lambda: b.points(None, clients=clients, conninfo=stock)})
		r = {k: summary(v) for k, v in rounds.items()}
		b.judged('lfc_hits', 5, f'LFC hits, {clients} clients, random page', '>= 0.9 x stock', paired(rounds['lfc'], rounds['stock'], 'per_second'),
				 f'{r["lfc"]["per_second"]:.0f} : {r["stock"]["per_second"]:.0f}/s', r, at_least=0.9)
	rounds = b.in_turn({'lfc': lambda: several(b.scan, 'ms', 5), 'stock': lambda: several(lambda: b.scan(conninfo=stock), 'ms', 5)}, least=5)
	r = {k: summary(v) for k, v in rounds.items()}
	b.judged('lfc_hits', 5, 'LFC hits, scan', '>= 0.9 x stock', paired(rounds['lfc'], rounds['stock'], 'pages_per_second'),
			 f'{r["lfc"]["pages_per_second"]:.0f} : {r["stock"]["pages_per_second"]:.0f}/s',
			 {**r, 'remote_reads_meanwhile': b.counters()['reads_remote'] - before}, at_least=0.9)
	lfc_limit(b, 0)


def b_beside_scans(b):
	"""point reads beside 4 cold scans, 1 ms delay"""
	b.delay(1000)
	# the last hundredth of too few would be a handful
	stages, seconds = [], max(b.opt.seconds, 2)

	def unloaded():
		before = b.stages()
		x = b.points('communicator', seconds=seconds)
		stages.append(b.stages(before))
		return x

	def loaded():
		scans = subprocess.Popen(b.sqlload_args('SELECT count(f) FROM b', clients=4, seconds=seconds + 2, warmup=0),
								 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=b.work)
		time.sleep(0.7)
		try:
			before, pages, began = b.stages(), b.counters()['pages_received'], time.monotonic()
			x = b.points('communicator', seconds=seconds)
			x['pages_per_second'] = (b.counters()['pages_received'] - pages) / (time.monotonic() - began)
			stages.append(b.stages(before))
			return x
		finally:
			scans.kill()
			scans.wait()
			# its server processes notice when they next send
			b.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT count(f) FROM b%' AND pid <> pg_backend_pid()")

	rounds = b.in_turn({'unloaded': unloaded, 'loaded': loaded})
	r = {k: summary(v) for k, v in rounds.items()}
	b.judged('beside_scans', 6, 'point reads beside 4 cold scans, 1 ms delay, p99', '<= 1.25 x unloaded',
			 paired(rounds['loaded'], rounds['unloaded'], 'p99_us'), f'{r["loaded"]["p99_us"]:.0f} : {r["unloaded"]["p99_us"]:.0f} us',
			 {**r, 'stages': stages}, at_most=1.25)
	b.delay(0)


def wait_until(true, otherwise, seconds=60):
	deadline = time.monotonic() + seconds
	while not true():
		if time.monotonic() > deadline:
			raise RuntimeError(otherwise)
		time.sleep(0.05)


def hit_rate(b, hot):
	before = b.counters()
	b.points('communicator', clients=4, range_=hot)
	after = b.counters()
	hits, remote = after['lfc_hits'] - before['lfc_hits'], after['reads_remote'] - before['reads_remote']
	return hits / max(hits + remote, 1)


SHORT_RUNS = """DO $$ DECLARE p int; c tid; BEGIN PERFORM setseed({seed});
	FOR i IN 1..{places} LOOP
		p := floor(random() * {range})::int;
		FOR j IN 0..{last} LOOP c := format('(%s,1)', p + j); PERFORM 1 FROM b WHERE ctid = c; END LOOP;
		IF i % {each} = 0 THEN COMMIT; END IF;
	END LOOP; END $$"""


def runs(b, places, each, length, seed):
	"""So many neighbouring blocks at each of so many random places, read one by one, so many places a transaction: what was counted."""
	# the table leaves shared buffers, the staging memory of whoever reads has nothing of it
	b.sql("SELECT count(*) FROM b WHERE ctid >= '(0,0)' AND ctid < '(1200,0)'")
	b.sql('SELECT 1 FROM b LIMIT 1')
	before = b.counters()
	ms = b.timed(SHORT_RUNS.format(seed=seed, places=places, each=each, range=BLOCKS - length, last=length - 1), explain=False)
	after = b.counters()
	d = {k: after[k] - before.get(k, 0) for k in after}
	read = max(d['reads_remote'], 1)
	return {'ms': ms, 'read': read, 'ahead': d.get('reads_from_staging', 0) / read, 'asked': d['pages_requested'] / read,
			**{k: d.get(k, 0) for k in ('pages_requested', 'prefetch_issued', 'prefetch_hits', 'prefetch_joined', 'prefetch_wasted', 'prefetch_refused')}}


def b_short_runs(b):
	"""runs of 9 blocks and pairs of blocks at random places: what readahead brings, and what it asks for in vain"""
	if not b.has('neon_comm.readahead_blocks'):
		return b.record('short_runs', 'runs', 'short runs', '>= 60 % from readahead', 'needs readahead', None)
	b.delay(0)
	places, few = 2400, 40
	for row, length, each in (('runs', 9, places), ('runs', 9, few), ('pairs', 2, places), ('pairs', 2, few)):
		found = [runs(b, places, each, length, seed / 10) for seed in range(1, 4)]
		r = summary(found)
		when = 'one transaction' if each == places else f'{each} a transaction'
		if row == 'runs':
			b.judged('short_runs', row, f'{places} runs of {length} blocks at random places, {when}',
					 '>= 60 % from readahead' if each == places else 'for info', [x['ahead'] * 100 for x in found],
					 f'of {r["read"]:.0f} pages, {r["asked"]:.2f} x asked for', {**r, 'rounds': found}, at_least=60 if each == places else None, unit=' %')
		else:
			b.judged('short_runs', row, f'{places} pairs of blocks at random places, {when}, asked for', '<= 1.2 x pages read',
					 [x['asked'] for x in found], f'{r["pages_requested"]:.0f} : {r["read"]:.0f}', {**r, 'rounds': found}, at_most=1.2)


def b_idle_cursors(b):
	"""a scan beside 23 idle transactions that have read through open cursors"""
	n = 23
	for us in [x for x in b.opt.delays if x in (0, 1000)]:
		b.delay(us)

		def beside():
			sessions = []
			try:
				for _ in range(n):
					sessions.append(subprocess.Popen([*b.user, b.bin('psql'), '-XqAt', '-d', b.conninfo], stdin=subprocess.PIPE,
													 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, cwd=b.work))
				# all at once, or the first have been idle for long when the last is
				for first, then in (('SELECT 1;', 'idle'), ('BEGIN; DECLARE c CURSOR FOR SELECT f FROM b OFFSET {};\nFETCH 1500 FROM c;', 'idle in transaction')):
					for i, p in enumerate(sessions):
						p.stdin.write(first.format(i * 100) + '\n')
						p.stdin.flush()
					wait_until(lambda: int(b.sql(f"SELECT count(*) FROM pg_stat_activity WHERE state = '{then}' AND query ~ '^(SELECT 1;|FETCH)'")) == n,
							   'cursors do not get there')
				x = b.scan()
				# who has not used its staging memory for a second may lose it
				time.sleep(1.5)
				x['later_ms'] = b.scan()['ms']
				x['staging_lent'] = int(b.sql('SELECT lent FROM neon_comm.staging()'))
				return x
			finally:
				for p in sessions:
					p.stdin.close()
				for p in sessions:
					p.wait()

		def alone():
			x = b.scan()
			x['later_ms'] = b.scan()['ms']
			return x

		rounds = b.in_turn({'alone': alone, 'beside': beside}, least=5)
		r = {k: summary(v) for k, v in rounds.items()}
		for key, when in (('ms', 'at once'), ('later_ms', 'the second one')):
			b.judged('idle_cursors', 'cursors', f'a scan beside {n} idle transactions with cursors, {us / 1000:g} ms delay, {when}', '<= 1.2 x alone',
					 paired(rounds['beside'], rounds['alone'], key), f'{r["beside"][key]:.0f} : {r["alone"][key]:.0f} ms', r, at_most=1.2)
	b.delay(0)


def b_scan_resistance(b):
	"""a hot set in the LFC, and a scan of ten times the cache"""
	if not need_lfc(b, 'scan_resistance', 7, 'hit rate of a hot set, a scan of 10 x the cache passes', 'falls <= 3 points'):
		return
	lfc_limit(b, 16)
	hot = 1600						# blocks: 12.5 of 16 MB
	calm = 0
	for _ in range(12):				# until it does not get better
		last, calm = calm, hit_rate(b, hot)
		if calm - last < 0.002:
			break
	found = []
	for _ in range(min(b.opt.rounds, 3)):
		oltp = subprocess.Popen(b.sqlload_args(POINT, clients=4, seconds=b.opt.seconds + 4, param='(%u,1)', range_=hot),
								stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=b.work)
		b.sql('SELECT count(f) FROM b')		# 160 MB
		oltp.wait()
		found.append({'calm': calm, 'after': hit_rate(b, hot)})
		calm = hit_rate(b, hot)
	r = summary(found)
	b.judged('scan_resistance', 7, 'hit rate of a hot set, a scan of 10 x the cache passes', 'falls <= 3 points',
			 [(f['calm'] - f['after']) * 100 for f in found], f'{r["calm"] * 100:.1f} -> {r["after"] * 100:.1f} %',
			 {'rounds': found, 'counters': b.counters()}, at_most=3, unit=' points')
	lfc_limit(b, 0)


def until_steady(rate, start, steady):
	"""Rates one after the other, until one is 90 % of the steady one, or for a minute."""
	rates = []
	while time.monotonic() - start < 60:
		rates.append(round(rate()))
		if rates[-1] >= 0.9 * steady:
			break
	return rates


def b_prewarm(b):
	"""restart with prewarm: time to 90 % of steady throughput"""
	what = 'restart with prewarm, time to 90 % of steady throughput'
	if not need_lfc(b, 'prewarm', 8, what, '<= 0.15 x without'):
		return

	def rate(seconds=0.5):
		return b.points('communicator', clients=4, seconds=seconds, warmup=0)['per_second']

	def once(without):
		# the round before may have left some pages out
		b.sql('SELECT count(f) FROM b')
		time.sleep(0.3)
		b.dev('stop', '-D', b.dir, '--quiet', 'compute')
		for name in without:
			os.unlink(f'{b.dir}/compute/{name}')
		b.dev('start', '-D', b.dir, '--quiet', 'compute')
		start = time.monotonic()
		rates = until_steady(rate, start, steady)
		history.append({'without': without, 'rates': rates, 'progress': b.sql('SELECT * FROM neon_comm.prewarm_progress')})
		return {'seconds': time.monotonic() - start}

	history = []

	lfc_limit(b, LFC_MB)
	lfc_fill(b)
	b.delay(1000)
	steady = statistics.median(rate(1) for _ in range(3))
	# the cache file taken over; only its list, as on another machine; nothing
	rounds = b.in_turn({
		'file': lambda: once([]), 'list': lambda: once(['neon_comm.lfc']),
		'cold': lambda: once(['neon_comm.lfc', 'neon_comm.lfc.index'])}, most=3)
	r = {k: summary(v) for k, v in rounds.items()}
	b.delay(0)
	lfc_limit(b, 0)
	for how, most, text in (('file', 0.2, 'after a clean stop'), ('list', 0.15, 'by the list, 1 ms delay')):
		b.judged('prewarm', 8, f'{what}: {text}', f'<= {most:g} x without', paired(rounds[how], rounds['cold'], 'seconds'),
				 f'{r[how]["seconds"]:.1f} : {r["cold"]["seconds"]:.1f} s', {**r, 'steady': steady, 'history': history}, at_most=most)


def b_beside_prewarm(b):
	"""point reads of another table while a prewarm runs"""
	what, target = 'point reads beside a prewarm', '<= 1.5 x without, p99'
	if not need_lfc(b, 'beside_prewarm', 19, what, target):
		return
	b.sql('CREATE TABLE IF NOT EXISTS other WITH (fillfactor = 10) AS SELECT * FROM b')
	b.sql('VACUUM (FREEZE) other')
	lfc_limit(b, LFC_MB)
	lfc_fill(b)
	b.sql('SELECT neon_comm.lfc_save()')

	def reads(workers):
		# an empty cache, to which the list brings everything
		lfc_limit(b, 0)
		lfc_limit(b, LFC_MB)
		if workers:
			b.sql(f'SELECT neon_comm.lfc_prewarm({workers})')
		x = b.sqlload(POINT.replace('FROM b', 'FROM other'), clients=4, seconds=0.7, warmup=0.1, param='(%u,1)', setup=['SET neon_comm.mode = communicator'])
		b.sql('SELECT neon_comm.lfc_prewarm_stop()')
		return x

	usual = int(b.sql('SHOW neon_comm.lfc_prewarm_workers'))
	for us in (0, 1000):
		b.delay(us)
		rounds = b.in_turn({'without': lambda: reads(0), 'beside': lambda: reads(usual)}, least=6)
		r = {k: summary(v) for k, v in rounds.items()}
		b.judged('beside_prewarm', 19, f'{what} by {usual} processes, {us / 1000:g} ms delay, p99', '<= 1.5 x without',
				 paired(rounds['beside'], rounds['without'], 'p99_us'), f'{r["beside"]["p99_us"]:.0f} : {r["without"]["p99_us"]:.0f} us, p50 '
				 f'{r["beside"]["p50_us"] / r["without"]["p50_us"]:.2f}', r, at_most=1.5)
	b.delay(0)
	lfc_limit(b, 0)
	b.sql('DROP TABLE other')


# Rows of PostgreSQL 18, with the memory and the sessions of a server as it comes.
ASYNC_CONF = {'shared_buffers': '128MB', 'max_connections': '100', 'effective_io_concurrency': '64'}


def restart(b, conf):
	"""The compute again, with other settings that only a start takes."""
	for name, value in conf.items():
		b.sql(f"ALTER SYSTEM SET {name} = '{value}'" if value is not None else f'ALTER SYSTEM RESET {name}')
	b.dev('stop', '-D', b.dir, '--quiet', 'compute')
	b.dev('start', '-D', b.dir, '--quiet', 'compute')


def forget(b):
	"""Nothing of the table is in shared buffers."""
	b.sql("SELECT pg_buffercache_evict_relation('b')")


def async_ways(b, run, more=()):
	"""The same by each way, from cold buffers: name -> function."""
	def go(setup):
		forget(b)
		return run([*setup, *more])
	return {'async': lambda: go(['SET neon_comm.async_reads = on']), 'own': lambda: go(['SET neon_comm.async_reads = off'])}


def b_async(b):
	"""PostgreSQL 18: scans, bitmap scans and VACUUM that the communicator completes"""
	if int(b.sql('SHOW server_version_num')) < 180000:
		return b.record('async', 'A', 'reads of the server in flight', '18 only', 'not on this version', '-')
	b.sql('CREATE EXTENSION IF NOT EXISTS pg_buffercache')
	restart(b, ASYNC_CONF)
	try:
		async_scans(b)
		async_bitmap(b)
		async_vacuum(b)
	finally:
		b.delay(0)
		restart(b, {name: None for name in ASYNC_CONF})


def async_scans(b):
	for us, least in ((1000, 0.85), (0, 0.8)):
		b.delay(us)
		ways = async_ways(b, lambda setup: b.scan(BLOCKS, setup))
		# through the same proxy and as deep as readahead is; without a delay as deep as it helps
		ways['ceiling'] = lambda: b.loadgen(4, 32 if us else 64, True, 1, b.proxied if us else None)
		rounds = b.in_turn(ways)
		r = {k: summary(v) for k, v in rounds.items()}
		a, own, most = r['async']['pages_per_second'], r['own']['pages_per_second'], r['ceiling']['per_second']
		row, name = ('A', '1 ms delay') if us else ('B', 'no delay')
		if us:
			b.async_scan = a
		b.judged('async', row, f'cold sequential scan, {name}', '>= 1.5 x own readahead' if us else 'own readahead, for info',
				 paired(rounds['async'], rounds['own'], 'pages_per_second'), f'{a:.0f} : {own:.0f}/s', r, at_least=1.5 if us else None)
		b.judged('async', row, f'cold sequential scan, {name}', f'>= {least:g} x load generator',
				 paired(rounds['async'], rounds['ceiling'], 'pages_per_second', 'per_second'), f'{a:.0f} : {most:.0f}/s', r, at_least=least)
		if us:
			b.judged('async', 'D', 'communicator CPU per page in A', '<= 0.45 x load generator',
					 paired(rounds['async'], rounds['ceiling'], 'communicator_cpu_us', 'client_cpu_us'),
					 f'{r["async"]["communicator_cpu_us"]:.2f} : {r["ceiling"]["client_cpu_us"]:.2f} us', r, at_most=0.45)
			b.judged('async', 'D', 'wakes per page in A', '<= 1/32 (0.0313)', [x['wakes_per_page'] for x in rounds['async']], '', r, at_most=1 / 32)


def async_bitmap(b):
	b.delay(1000)
	key = [0]
	pages = BLOCKS // 10

	def go(setup):
		key[0] = (key[0] + 1) % 10
		ms = b.timed(f'SELECT count(f) FROM b WHERE k = {key[0]}', [*setup, 'SET enable_seqscan = off', 'SET enable_indexscan = off',
			'SET enable_indexonlyscan = off'])
		return {'ms': ms, 'pages_per_second': pages / ms * 1000}

	rounds = b.in_turn(async_ways(b, go))
	r = {k: summary(v) for k, v in rounds.items()}
	flying = min(64, int(b.sql('SHOW io_max_concurrency')))
	limit = pages / flying
	b.judged('async', 'C', f'bitmap heap scan, 1 ms delay, {flying} in flight', '>= 0.9 x pages / in flight x delay',
			 [limit / x['ms'] for x in rounds['async']], f'{r["async"]["ms"]:.0f} : {limit:.0f} ms, own readahead {r["own"]["ms"]:.0f}', r, at_least=0.9)


def async_vacuum(b):
	b.delay(1000)

	def go(setup):
		before = b.counters()['reads_remote']
		ms = b.timed('VACUUM (DISABLE_PAGE_SKIPPING, INDEX_CLEANUP off, TRUNCATE off) b', setup, explain=False)
		return {'ms': ms, 'pages_per_second': (b.counters()['reads_remote'] - before) / ms * 1000}

	rounds = b.in_turn(async_ways(b, go))
	r = {k: summary(v) for k, v in rounds.items()}
	b.judged('async', 'F', 'VACUUM of a cold table, 1 ms delay', ">= 0.8 x A's pages/s",
			 [x['pages_per_second'] / b.async_scan for x in rounds['async']],
			 f'{r["async"]["pages_per_second"]:.0f} : {b.async_scan:.0f}/s, own readahead {r["own"]["pages_per_second"]:.0f}', r, at_least=0.8)


def b_small_buffers(b):
	"""PostgreSQL 18: cold scans with few shared buffers, against own readahead"""
	if int(b.sql('SHOW server_version_num')) < 180000:
		return b.record('small_buffers', '-', 'scans with few shared buffers', '18 only', 'not on this version', '-')
	b.sql('CREATE EXTENSION IF NOT EXISTS pg_buffercache')
	for size in ('1MB', '16MB', '128MB'):
		restart(b, {'shared_buffers': size, 'max_connections': '100'})
		for us in (0, 1000):
			b.delay(us)
			for eic in (16, 64):
				rounds = b.in_turn(async_ways(
					b, lambda setup: b.scan(BLOCKS if us == 0 else 5000, setup), [f'SET effective_io_concurrency = {eic}']))
				r = {k: summary(v) for k, v in rounds.items()}
				b.judged('small_buffers', '-', f'scan, {size}, concurrency {eic}, {us / 1000:g} ms delay', '>= 0.95 x own readahead',
						 paired(rounds['async'], rounds['own'], 'pages_per_second'),
						 f'{r["async"]["pages_per_second"]:.0f} : {r["own"]["pages_per_second"]:.0f}/s', r, at_least=0.95)
	b.delay(0)
	restart(b, {name: None for name in ('shared_buffers', 'max_connections')})


def instructions(pid, seconds):
	"""Instructions of a process while something else runs; None where the hardware does not count."""
	if not shutil.which('perf'):
		return None
	return subprocess.Popen(['perf', 'stat', '-x', ',', '-e', 'instructions', '-p', str(pid), '--', 'sleep', str(seconds)],
							stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def b_communicator_cpu(b):
	"""communicator CPU and wakes per page while it serves scans"""
	# ten scans: one is some 50 ms of the communicator's CPU; the load generator has as many connections, as deep
	rounds = b.in_turn({'scan': lambda: summary([b.scan() for _ in range(10)]), 'load generator': lambda: b.loadgen(4, 32, True, 1)})
	r = summary(rounds['scan'])
	r['load_generator_cpu_us'] = med(rounds['load generator'], 'client_cpu_us')
	before = b.counters()['reads_remote']
	p = instructions(b.communicator(), 2)
	if p:
		load = subprocess.Popen(b.sqlload_args('SELECT count(f) FROM b', seconds=2.5, warmup=0), stdout=subprocess.DEVNULL,
								stdin=subprocess.DEVNULL, cwd=b.work)
		err = p.communicate()[1]
		pages = b.counters()['reads_remote'] - before
		load.wait()
		m = re.search(r'^(\d+),', err, re.M)
		r['instructions_per_page'] = int(m.group(1)) / max(pages, 1) if m else None
	n = r.get('instructions_per_page')
	b.judged('communicator_cpu', 9, 'communicator CPU per page, scan', '<= 0.45 x load generator',
			 paired(rounds['scan'], rounds['load generator'], 'communicator_cpu_us', 'client_cpu_us'),
			 f'{r["communicator_cpu_us"]:.2f} : {r["load_generator_cpu_us"]:.2f} us, {f"{n:.0f}" if n else "no count of"} instructions', r, at_most=0.45)
	b.judged('communicator_cpu', 10, 'wakes per page, scan', '<= 1/16 (0.0625)', [x['wakes_per_page'] for x in rounds['scan']],
			 f'{r["pages_per_receive"]:.1f} pages a receive', r, at_most=1 / 16)


def b_bulk_load(b):
	"""pgbench -i and COPY against stock that streams WAL to a standby"""
	b.stock()
	b.standby()
	path = f'{b.work}/copy.txt'
	with open(path, 'w') as f:
		for i in range(400000):
			f.write(f'{i}\t{i * 7919 % 1000003}\t{"abcdefgh" * 8}\n')

	def pgbench(conninfo):
		start = time.monotonic()
		run([*b.user, b.bin('pgbench'), '-i', '-q', '-s', '10', conninfo], cwd=b.work)
		return {'seconds': time.monotonic() - start}

	def copy(conninfo):
		b.sql('DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int PRIMARY KEY, b int, c text)', conninfo)
		start = time.monotonic()
		b.sql(f"COPY copied FROM '{path}'", conninfo)
		return {'seconds': time.monotonic() - start}

	for name, f in (('pgbench -i -s 10', pgbench), ('COPY of 400000 rows', copy)):
		rounds = b.in_turn({'compute': lambda: f(b.conninfo), 'stock': lambda: f(b.stock_conninfo)})
		r = {k: summary(v) for k, v in rounds.items()}
		b.judged('bulk_load', 11, name, '>= 0.8 x stock + standby', paired(rounds['stock'], rounds['compute'], 'seconds'),
				 f'{r["compute"]["seconds"]:.2f} : {r["stock"]["seconds"]:.2f} s', r, at_least=0.8)


def b_memory(b):
	"""shared memory"""
	rows = [l.split('|') for l in b.sql("""SELECT name, allocated_size FROM pg_shmem_allocations
		WHERE name LIKE 'neon_comm%' ORDER BY 2 DESC""").splitlines()]
	sizes = {n: int(s) for n, s in rows}
	processes = int(b.sql("""SELECT current_setting('max_connections')::int + current_setting('autovacuum_max_workers')::int + 1 +
		current_setting('max_worker_processes')::int + current_setting('max_wal_senders')::int + 5"""))
	lfc = sum(s for n, s in sizes.items() if 'lfc' in n or 'file cache' in n)
	fixed = sum(s for n, s in sizes.items() if re.search('last|lsn|local|staging', n))
	other = sum(sizes.values()) - lfc - fixed
	b.record('memory', 12, f'shared memory per process ({processes}), without the maps whose size is a setting', '<= 8 KiB',
			 f'{other / processes / 1024:.1f} KiB', other / processes <= 8192, sizes)
	if b.has('neon_comm.lfc_size'):
		share = lfc / (LFC_MB * 1024 * 1024) * 100
		b.record('memory', 12, f'shared memory of an LFC of {LFC_MB} MB', '<= 0.6 % of it', f'{share:.2f} %', share <= 0.6, sizes)
	else:
		b.record('memory', 12, 'shared memory of the LFC', '<= 0.6 % of it', 'needs neon_comm.lfc_size', None)


def b_crash_start(b):
	"""start after a crash, with few and with many tables, both with recovery_init_sync_method = syncfs"""
	# what neon_dev sets for a compute and sizes shared memory or logs, both have
	conf = ['shared_buffers=64MB', 'max_locks_per_transaction=1024', 'autovacuum=off', 'recovery_init_sync_method=syncfs',
			'max_worker_processes=16', 'max_replication_slots=11', "log_line_prefix='%m [%p] %b '"]
	d, stock = f'{b.work}/many', f'{b.work}/many_stock'
	args = [a for c in conf for a in ('--conf', c)]
	b.dev('init', '-D', d, '--quiet', '--shards', '1', *args)
	b.dev('start', '-D', d, '--quiet')
	run([*b.user, b.bin('initdb'), '-A', 'trust', '-U', 'postgres', '-D', stock], cwd=b.work)
	port = free_port()
	with open(f'{stock}/postgresql.conf', 'a') as f:
		f.write('\n'.join(['', f'port={port}', "unix_socket_directories=''", *conf]) + '\n')
	b.pg_ctl(stock, 'start')
	sides = {'compute': (f'{d}/compute', b.dev('conninfo', '-D', d).strip() + ' dbname=postgres'),
			 'stock': (stock, f'host=127.0.0.1 port={port} user=postgres dbname=postgres')}
	have = 0

	def lines(data):
		with open(f'{data}/postmaster.pid') as f:
			return f.read().split('\n')

	def crash(data, conninfo):
		"""kills it after a change, and times from the call of pg_ctl until it lets sessions in"""
		b.sql('UPDATE t0 SET v = v + 1', conninfo)
		pid = int(lines(data)[0])
		children = run(['pgrep', '-P', str(pid)], check=False).split()
		for p in [pid, *map(int, children)]:
			try:
				os.kill(p, signal.SIGKILL)
			except ProcessLookupError:
				pass
		while any(os.path.exists(f'/proc/{p}') for p in [pid, *children]):
			time.sleep(0.01)
		os.unlink(f'{data}/postmaster.pid')
		os.sync()
		start = time.monotonic()
		with open(f'{b.work}/pg_ctl.log', 'a') as f:
			subprocess.run([*b.user, b.bin('pg_ctl'), '-W', '-s', '-D', data, '-l', f'{data}.log', 'start'], check=True,
						   stdout=f, stderr=f, stdin=subprocess.DEVNULL, cwd=b.work)
		while not os.path.exists(f'{data}/postmaster.pid') or lines(data)[7:8] != ['ready   ']:
			time.sleep(0.002)
		return {'ms': (time.monotonic() - start) * 1000}

	for tables in (500, 10000):
		for _, conninfo in sides.values():
			for first in range(have, tables, 500):
				b.sql(f"""DO $$ BEGIN FOR i IN {first} .. {first + 499} LOOP
					EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v int)', i); EXECUTE format('INSERT INTO t%s VALUES (1, 1)', i);
					END LOOP; END $$""", conninfo)
			b.sql('CHECKPOINT', conninfo)
		have = tables
		# each start is some 50 ms, of which a neighbour's work can be half: more rounds than others need
		rounds = b.in_turn({n: lambda s=s: crash(*s) for n, s in sides.items()}, least=15)
		r = {k: summary(v) for k, v in rounds.items()}
		b.judged('crash_start', 13, f'start after kill -9, {tables} tables', '<= 1.2 x stock', paired(rounds['compute'], rounds['stock'], 'ms'),
				 f'{r["compute"]["ms"]:.0f} : {r["stock"]["ms"]:.0f} ms', r, at_most=1.2)
	b.pg_ctl(stock, 'stop')
	b.servers.remove(stock)
	b.dev('destroy', '-D', d, '--quiet')


def b_durable(b):
	"""pgbench when commits wait for one of two page servers, against stock that waits for one of two standbys"""
	# what neon_dev sets for the parts, and what the others need of it, both have
	conf = ['shared_buffers=256MB', 'autovacuum=off', 'max_wal_size=8GB', 'checkpoint_timeout=1h', 'max_replication_slots=12',
			'recovery_init_sync_method=syncfs', "log_line_prefix='%m [%p] %b '"]
	names = ['page_server_0', 'page_server_1']
	d, stock = f'{b.work}/durable', f'{b.work}/durable_stock'
	args = [a for c in conf for a in ('--conf', c)] + [a for c in PS_CONF for a in ('--ps-conf', c)]
	b.dev('init', '-D', d, '--quiet', '--shards', '2', '--durable', '--write-quorum', '1', *args)
	b.dev('start', '-D', d, '--quiet')
	run([*b.user, b.bin('initdb'), '-A', 'trust', '-U', 'postgres', '-D', stock], cwd=b.work)
	port = free_port()
	with open(f'{stock}/postgresql.conf', 'a') as f:
		f.write('\n'.join(['', f'port={port}', f"unix_socket_directories='{b.work}'", *conf]) + '\n')
	b.pg_ctl(stock, 'start')
	conninfo = f'host=127.0.0.1 port={port} user=postgres dbname=postgres'
	for name in names:
		s = f'{b.work}/durable_{name}'
		run([*b.user, b.bin('pg_basebackup'), '-d', f'{conninfo} application_name={name}', '-D', s, '-R', '-X', 'stream', '-c', 'fast',
			 '-C', '-S', name], cwd=b.work)
		with open(f'{s}/postgresql.auto.conf', 'a') as f:
			f.write('\n'.join([f'port={free_port()}', "listen_addresses=''", 'hot_standby=off', *PS_CONF]) + '\n')
		with open(f'{b.work}/pg_ctl.log', 'a') as f:
			subprocess.run([*b.user, b.bin('pg_ctl'), '-W', '-s', '-D', s, '-l', f'{s}.log', 'start'], check=True, stdout=f, stderr=f,
						   stdin=subprocess.DEVNULL, cwd=b.work)
		b.servers.append(s)
	b.sql(f"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({', '.join(names)})'", conninfo)
	b.sql('SELECT pg_reload_conf()', conninfo)
	sides = {'compute': b.dev('conninfo', '-D', d).strip() + ' dbname=postgres', 'stock': conninfo}
	view = {'compute': 'neon_comm.page_servers', 'stock': 'pg_stat_replication'}
	for side, c in sides.items():
		for _ in range(300):
			if b.sql(f"SELECT count(*) FROM {view[side]} WHERE sync_state = 'quorum'", c) == '2':
				break
			time.sleep(0.1)
		else:
			raise RuntimeError(f'{side}: two do not count')
		run([*b.user, b.bin('pgbench'), '-i', '-q', '-s', '10', c], cwd=b.work)
		b.sql('CHECKPOINT', c)

	def pgbench(c, clients):
		out = run([*b.user, b.bin('pgbench'), '-n', '-M', 'prepared', '-c', str(clients), '-j', str(min(clients, 2)),
				   '-T', str(max(round(b.opt.seconds * 2), 2)), c], cwd=b.work)
		return {'per_second': float(re.search(r'tps = ([0-9.]+)', out).group(1)),
				'ms': float(re.search(r'latency average = ([0-9.]+)', out).group(1))}

	for clients in (1, 8, 32):
		# a rate of some thousand commits hangs on who gets which processor: more rounds than others need
		rounds = b.in_turn({n: lambda c=c: pgbench(c, clients) for n, c in sides.items()}, least=6)
		r = {k: summary(v) for k, v in rounds.items()}
		b.judged('durable', 14, f'pgbench, ANY 1 of two, {clients} clients', '>= 0.9 x stock + 2 standbys',
				 paired(rounds['compute'], rounds['stock'], 'per_second'),
				 f'{r["compute"]["per_second"]:.0f} : {r["stock"]["per_second"]:.0f}/s', r, at_least=0.9)
	for s in [f'{b.work}/durable_{name}' for name in names] + [stock]:
		b.pg_ctl(s, 'stop')
		b.servers.remove(s)
	b.dev('destroy', '-D', d, '--quiet')


# A table that fills up: each row is alone on its page, so a GB costs 0.1 GB of WAL.
FILL = "CREATE TABLE {0} (id int, f text) WITH (fillfactor = 10); INSERT INTO {0} SELECT g, repeat('x', 700) FROM generate_series(1, {1}) g"


def b_boot(b):
	"""kill -9 and loss of the compute's directory, until the new compute has answered its first query"""
	# a checkpoint comes when it is asked for, not by itself
	conf = ['shared_buffers=128MB', 'autovacuum=off', 'max_wal_size=64GB', 'checkpoint_timeout=1d', 'max_locks_per_transaction=1024']
	ps_conf = ['shared_buffers=256MB', 'max_wal_size=64GB', 'checkpoint_timeout=1d']
	clusters, found = [], {}

	def lose(c, page_servers):
		"""kills the compute, removes its directory, and times from there"""
		with open(f'{c["dir"]}/compute/postmaster.pid') as f:
			pid = int(f.readline())
		pids = [pid, *map(int, run(['pgrep', '-P', str(pid)], check=False).split())]
		for p in pids:
			try:
				os.kill(p, signal.SIGKILL)
			except ProcessLookupError:
				pass
		while any(os.path.exists(f'/proc/{p}') for p in pids):
			time.sleep(0.005)
		shutil.rmtree(f'{c["dir"]}/compute')
		start = time.monotonic()
		out = b.dev('create-compute', '-D', c['dir'], '--conf', f'neon_comm.page_servers={page_servers}')
		b.sql('SELECT abalance FROM pgbench_accounts WHERE aid = 1', c['conninfo'])
		ms = (time.monotonic() - start) * 1000
		sent = re.search(r'laid .* ([0-9.]+) MB received', out)
		return {'ms': ms, 'image_mb': float(sent[1])}

	def pgbench(*args):
		return subprocess.Popen([*b.user, b.bin('pgbench'), *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
								cwd=b.work, text=True)

	def ended(p):
		_, said = p.communicate()
		if p.returncode != 0:
			raise RuntimeError(f'pgbench: {said[-2000:]}')

	def written(c):
		return int(b.sql("SELECT pg_current_wal_lsn() - '0/0'", c['conninfo']))

	def measure(c, when):
		b.delay(1000)
		rounds = b.in_turn({us: lambda p=p: lose(c, p) for us, p in c['delays'].items()}, least=3, most=3)
		r = {k: summary(v) for k, v in rounds.items()}
		b.delay(0)
		limit = 5000 if c['relations'] == 500 else 15000
		for us, x in sorted(r.items()):
			b.judged('boot', 15, f'lost to first query, {c["gb"]} GB, {c["relations"]} relations, {us / 1000:g} ms delay, {when}', f'<= {limit // 1000} s',
					 [y['ms'] / 1000 for y in rounds[us]], f'image {x["image_mb"]:.1f} MB', x, at_most=limit / 1000, unit=' s')
		return r

	for gb, relations in [(1, 500), (1, 20000)] + [(g, 500) for g in b.opt.boot_gb if g != 1]:
		c = {'dir': f'{b.work}/boot_{gb}_{relations}', 'gb': gb, 'relations': relations}
		clusters.append(c)
		args = [a for s in conf for a in ('--conf', s)] + [a for s in ps_conf for a in ('--ps-conf', s)]
		# what is large is there once
		b.dev('init', '-D', c['dir'], '--quiet', '--shards', '2' if gb == 1 else '1', *args)
		b.dev('start', '-D', c['dir'], '--quiet')
		c['conninfo'] = b.dev('conninfo', '-D', c['dir']).strip() + ' dbname=postgres'
		page_servers = b.sql('SHOW neon_comm.page_servers', c['conninfo'])
		c['delays'] = {1000: b.behind_proxy(page_servers), 0: page_servers}
		have = int(b.sql('SELECT count(*) FROM pg_class WHERE relfilenode <> 0 OR relisshared OR pg_relation_filenode(oid) IS NOT NULL', c['conninfo']))
		for first in range(0, max(relations - have, 0), 500):
			b.sql(f"""DO $$ BEGIN FOR i IN {first} .. {min(first + 499, relations - have)} LOOP
				EXECUTE format('CREATE TABLE r%s (id int, v int)', i); END LOOP; END $$""", c['conninfo'])
		ended(pgbench('-i', '-q', '-I', 'dtGvp', '-s', '68', c['conninfo']))
		for i in range(gb - 1):
			b.sql(FILL.format(f'fill{i}', 131072), c['conninfo'])
		# a clean stop is one for page servers, too, which let nobody in
		b.dev('stop', '-D', c['dir'], '--quiet')
		b.dev('start', '-D', c['dir'], '--quiet')
		r = measure(c, 'a checkpoint just now')
		if relations == 500:
			for us, x in r.items():
				found.setdefault(us, {})[gb] = x['ms']
	# all clusters at once: an hour is one hour
	before = [written(c) for c in clusters]
	for p in [pgbench('-n', '-c', '4', '-j', '1', '-R', str(b.opt.boot_rate), '-T', str(round(b.opt.boot_minutes * 60)), c['conninfo']) for c in clusters]:
		ended(p)
	for c, was in zip(clusters, before):
		measure(c, f'after {b.opt.boot_minutes:g} minutes of pgbench, {(written(c) - was) / 2 ** 30:.1f} GB of WAL')
		b.dev('destroy', '-D', c['dir'], '--quiet')
	for us, few in found.items():
		if len(few) > 1:
			ratio = max(few.values()) / min(few.values())
			b.record('boot', 15, 'the same with ' + ' and '.join(f'{g} GB' for g in few) + f', {us / 1000:g} ms delay', 'within noise', f'{ratio:.2f} x',
					 ratio <= 1.25, few)


def b_replace(b):
	"""a planned replacement of the compute, as a client sees it that connects again"""
	conf = ['shared_buffers=128MB', 'autovacuum=off']
	d = f'{b.work}/replace'
	b.dev('init', '-D', d, '--quiet', '--durable', '--page-servers', '3', '--write-quorum', '2', *[a for c in conf for a in ('--conf', c)])
	b.dev('start', '-D', d, '--quiet')
	conninfo = b.dev('conninfo', '-D', d).strip() + ' dbname=postgres'
	run([*b.user, b.bin('pgbench'), '-i', '-q', '-s', '10', conninfo], cwd=b.work)
	deadline = time.monotonic() + 60
	while b.sql('SELECT count(*) FROM neon_comm.members', conninfo) != '3':
		if time.monotonic() > deadline:
			raise RuntimeError('members are not known')
		time.sleep(0.1)

	def works():
		return subprocess.run([*b.user, b.bin('psql'), '-XqAt', '-d', conninfo, '-c', 'UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1'],
							  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=b.work).returncode == 0

	def replace():
		with open(f'{b.work}/replace.log', 'w') as f:
			p = subprocess.Popen([b.bin('neon_dev'), 'replace-compute', '-D', d], stdout=f, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=b.work)
			last, longest = time.monotonic(), 0.0
			while p.poll() is None or time.monotonic() - last > 0.5:
				if works():
					longest, last = max(longest, time.monotonic() - last), time.monotonic()
				if time.monotonic() - last > 60:
					p.kill()
					raise RuntimeError('nothing works any more')
		if p.returncode != 0:
			raise RuntimeError('neon_dev replace-compute failed: see its log')
		return {'ms': longest * 1000}

	found = b.in_turn({'replace': replace}, least=3)['replace']
	b.judged('replace', 16, 'planned replacement, between two updates of a client that connects again', '<= 2 s',
			 [x['ms'] / 1000 for x in found], '', summary(found), at_most=2, unit=' s')
	b.dev('destroy', '-D', d, '--quiet')


def b_hosts(b):
	"""kill -9 of the page server that is read from, when the shard has another one"""
	conf = [c for c in COMPUTE_CONF if 'shared_buffers' in c or 'autovacuum' in c or 'synchronize' in c]
	d = f'{b.work}/hosts'
	b.dev('init', '-D', d, '--quiet', '--shards', '1', '--page-servers', '2', '--hosts', '2', *[a for c in conf for a in ('--conf', c)],
		  *[a for c in PS_CONF for a in ('--ps-conf', c)])
	b.dev('start', '-D', d, '--quiet')
	conninfo = b.dev('conninfo', '-D', d).strip() + ' dbname=postgres'
	b.make_tables(conninfo)
	with open(f'{d}/neon_dev.conf') as f:
		ports = re.findall(r'^page_server_\d+_port=(\d+)', f.read(), re.M)
	found = []

	def served(n):
		out = b.sql('show status', f'host=127.0.0.1 port={ports[n]} user=x dbname=x')
		return int(re.search(r'^pages_served\|(\d+)', out, re.M)[1])

	def connect():
		"""Milliseconds from nothing to a server that takes a query."""
		start = time.monotonic()
		s = socket.create_connection(('127.0.0.1', int(ports[1])))
		body = struct.pack('!i', 196608) + b'user\0x\0database\0x\0\0'
		s.sendall(struct.pack('!i', 4 + len(body)) + body)
		said = b''
		while b'Z\0\0\0\5I' not in said:
			said += s.recv(8192)
		s.close()
		return (time.monotonic() - start) * 1000

	def all_read_from_first():
		"""A host that comes back gets its share of the reads step by step."""
		deadline = time.monotonic() + 120
		while time.monotonic() < deadline:
			before = [served(0), served(1)]
			b.sqlload(POINT, conninfo, clients=4, seconds=0.3, warmup=0, param='(%u,1)')
			first, second = served(0) - before[0], served(1) - before[1]
			if first > 100 and second < first / 20:
				return
		raise RuntimeError('the first host does not get the reads')

	def kill(n):
		with open(f'{d}/page_server_{n}/postmaster.pid') as f:
			pid = int(f.readline())
		pids = [pid, *map(int, run(['pgrep', '-P', str(pid)]).split())]

		def now():
			for one in pids:
				os.kill(one, signal.SIGKILL)
		return now

	def cut():
		b.proxy_says(f'down {link}')
		b.proxy_says(f'cut {link} rst')

	def reads(happens=lambda: None):
		"""A short run, or the longest read is one that the machine's other work made long."""
		p = subprocess.Popen(b.sqlload_args(POINT, conninfo, clients=4, seconds=0.4, warmup=0.3, param='(%u,1)'), stdout=subprocess.PIPE,
							 stderr=subprocess.STDOUT, text=True, cwd=b.work)
		time.sleep(0.5)
		happens()
		out, _ = p.communicate()
		if p.returncode != 0:
			raise RuntimeError(f'a read failed: {out[-500:]}')
		return json.loads(out)

	for _ in range(max(b.opt.rounds, 5)):
		all_read_from_first()
		usual = reads()
		connected = statistics.median(connect() for _ in range(20))
		# what the end of so many processes costs the machine: the one that nobody reads from
		other = reads(kill(1))
		b.dev('start', '-D', d, '--quiet', 'page-server', '1')
		all_read_from_first()
		r = reads(kill(0))
		found.append({'ms': r['max_us'] / 1000, 'usual_ms': usual['p50_us'] / 1000, 'usual_longest_ms': usual['max_us'] / 1000,
					  'other_killed_ms': other['max_us'] / 1000, 'connect_ms': connected})
		b.dev('start', '-D', d, '--quiet', 'page-server', '0')
	r = summary(found)
	spread = {k: f'{min(f[k] for f in found):.1f} to {max(f[k] for f in found):.1f}' for k in ('ms', 'usual_longest_ms', 'other_killed_ms')}
	b.judged('hosts', 17, 'longest read when its page server is killed, two hosts', '<= 1 x (connect + 5 x usual)',
			 [f['ms'] / (f['connect_ms'] + 5 * f['usual_ms']) for f in found],
			 f'{r["ms"]:.1f} ms, {spread["ms"]} : {r["connect_ms"]:.1f} + 5 x {r["usual_ms"]:.2f}; longest with nobody killed '
			 f'{r["usual_longest_ms"]:.1f}, {spread["usual_longest_ms"]}, with the one that nobody reads from killed '
			 f'{r["other_killed_ms"]:.1f}, {spread["other_killed_ms"]}', {**r, 'rounds': found}, at_most=1)

	# nobody's processes end: what leaving a host costs by itself
	proxied = b.behind_proxy(b.sql('SHOW neon_comm.page_servers', conninfo))
	link = f'n{b.nlinks}'
	b.sql(f"ALTER SYSTEM SET neon_comm.page_servers = '{proxied}'", conninfo)
	b.sql('SELECT pg_reload_conf()', conninfo)
	cuts = []
	for _ in range(max(b.opt.rounds, 7)):
		all_read_from_first()
		usual = reads()
		cuts.append({'ms': reads(cut)['max_us'] / 1000, 'usual_longest_ms': usual['max_us'] / 1000})
		b.proxy_says(f'up {link}')
	r = summary(cuts)
	b.judged('hosts', 17, 'longest read when its connections are reset, and refused from then on', '<= 1.25 x with none reset',
			 paired(cuts, cuts, 'ms', 'usual_longest_ms'), f'{r["ms"]:.1f} : {r["usual_longest_ms"]:.1f} ms', {**r, 'rounds': cuts}, at_most=1.25)
	b.dev('destroy', '-D', d, '--quiet')


def b_list_travels(b):
	"""the list of the file cache, brought to a compute made anew: time to 90 % of steady throughput"""
	what, target = 'made anew, 1 ms delay, time to 90 % of steady throughput: list ', '<= 1/5 of without'
	if not need_lfc(b, 'list_travels', 18, what, target):
		return
	kept, given = f'{b.work}/kept.list', f'{b.dir}/page_server_0/page_service_cache_list'

	def rate(seconds=0.5):
		return b.points('communicator', clients=4, seconds=seconds, warmup=0)['per_second']

	def again(command='', image=False):
		b.sql('SELECT count(f) FROM b')
		b.dev('kill', '-D', b.dir, '--quiet', 'compute')
		shutil.rmtree(f'{b.dir}/compute')
		if os.path.exists(given):
			os.rename(given, f'{b.work}/given')
		if image:
			os.rename(f'{b.work}/given', given)
		b.dev('create-compute', '-D', b.dir, '--quiet', '--conf', f'neon_comm.lfc_size_limit={LFC_MB}MB',
			  '--conf', f'neon_comm.page_servers={b.proxied}', '--conf', f'neon_comm.lfc_list_restore_command={command}',
			  '--conf', 'neon_comm.lfc_list_to_page_servers=off')
		start = time.monotonic()
		rates = until_steady(rate, start, steady)
		history.append({'command': command, 'image': image, 'rates': rates, 'progress': b.sql('SELECT * FROM neon_comm.prewarm_progress')})
		return {'seconds': time.monotonic() - start}

	history = []
	lfc_limit(b, LFC_MB)
	lfc_fill(b)
	b.delay(1000)
	steady = statistics.median(rate(1) for _ in range(3))
	b.set('neon_comm.lfc_list_save_command', f'cp %p {kept}.new && mv {kept}.new {kept}')
	b.sql('SELECT neon_comm.lfc_save()')
	for _ in range(200):
		if os.path.exists(kept) and os.path.exists(given):
			break
		time.sleep(0.1)
	rounds = b.in_turn({'image': lambda: again(image=True), 'list': lambda: again(f'cp {kept} %p'), 'cold': again}, most=3)
	r = {k: summary(v) for k, v in rounds.items()}
	for how, text in (('image', 'of the boot image'), ('list', 'restored by a command')):
		b.judged('list_travels', 18, what + text, target, paired(rounds[how], rounds['cold'], 'seconds'),
				 f'{r[how]["seconds"]:.1f} : {r["cold"]["seconds"]:.1f} s', {**r, 'steady': steady, 'history': history}, at_most=0.2)
	b.delay(0)
	lfc_limit(b, 0)


BENCHES = {
	'memory': b_memory, 'ceiling': b_ceiling, 'point_latency': b_point_latency, 'point_throughput': b_point_throughput,
	'idle_sessions': b_idle_sessions, 'spin': b_spin,
	'scan': b_scan, 'pinned_scan': b_pinned_scan, 'communicator_cpu': b_communicator_cpu, 'bitmap': b_bitmap, 'beside_scans': b_beside_scans,
	'short_runs': b_short_runs, 'idle_cursors': b_idle_cursors,
	'async': b_async, 'small_buffers': b_small_buffers,
	'lfc_hits': b_lfc_hits, 'scan_resistance': b_scan_resistance, 'prewarm': b_prewarm, 'beside_prewarm': b_beside_prewarm,
	'bulk_load': b_bulk_load,
	'crash_start': b_crash_start, 'durable': b_durable, 'boot': b_boot,
	'replace': b_replace, 'hosts': b_hosts, 'list_travels': b_list_travels,
}


def commit():
	"""In a chroot there may be neither git nor a repository: then who calls may say it."""
	if 'BENCH_COMMIT' in os.environ:
		return os.environ['BENCH_COMMIT']
	try:
		return run(['git', '-C', TOP, 'describe', '--always', '--dirty'], check=False).strip()
	except FileNotFoundError:
		return '?'


def machine():
	with open('/proc/cpuinfo') as f:
		model = re.search(r'model name\s*: (.*)', f.read())
	return {'cpus': os.cpu_count(), 'cpu': model.group(1) if model else '?', 'kernel': os.uname().release,
			'load_before': os.getloadavg()[0],
			'commit': commit(),
			'date': time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}


def save(b, took):
	"""What was measured now takes the place of what was there of the same benches."""
	path = f'{BUILD}/results.json'
	old = {'rows': {}, 'series': {}, 'meta': {}, 'taken': {}}
	if os.path.exists(path):
		with open(path) as f:
			old = json.load(f)
	old['meta'] = {**b.meta, 'took_seconds': round(took)}
	# in portions each bench has its own commit, rounds and quiet
	old['taken'] = {**old.get('taken', {}), **b.taken}
	old['rows'].update(b.rows)
	old['series'].update(b.series)
	for part in ('rows', 'taken'):
		old[part] = {n: old[part][n] for n in BENCHES if n in old[part]}
	with open(f'{path}.new', 'w') as f:
		json.dump(old, f, indent=1)
	os.rename(f'{path}.new', path)
	return path


def main():
	p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
	p.add_argument('--rounds', type=int, default=5)
	p.add_argument('--seconds', type=float, default=1.2, help='of each measurement')
	p.add_argument('--shards', type=int, default=1)
	p.add_argument('--clients', default='16,64,200', help='in benchmark point_throughput')
	p.add_argument('--delays', default='0,200,1000,5000', help='microseconds added to a round trip')
	p.add_argument('--boot-gb', default='1', help='sizes of the data in benchmark boot, such as 1,10')
	p.add_argument('--boot-minutes', type=float, default=1.0, help='of pgbench in benchmark boot')
	p.add_argument('--boot-rate', type=int, default=500, help='transactions a second of that pgbench, on each of its clusters')
	p.add_argument('--keep', action='store_true')
	p.add_argument('--list', action='store_true')
	p.add_argument('names', nargs='*')
	opt = p.parse_args()
	opt.delays = [int(d) for d in opt.delays.split(',')]
	opt.clients = [int(n) for n in opt.clients.split(',')]
	opt.boot_gb = [int(g) for g in opt.boot_gb.split(',')]
	if opt.list:
		for n, f in BENCHES.items():
			print(f'{n:<20} {f.__doc__}')
		return 0
	names = opt.names or list(BENCHES)
	for n in names:
		if n not in BENCHES:
			p.error(f'there is no benchmark "{n}", see --list')
	os.makedirs(BUILD, exist_ok=True)
	run(['make', '-s', '-f', 'test/bench/Makefile'], cwd=TOP)
	began, failed = time.monotonic(), 0
	watch = Watch(take_in_orphans())
	# whoever ends us wants the servers gone, too
	def end(*_):
		# once: a second one would end the end
		signal.signal(signal.SIGTERM, signal.SIG_IGN)
		sys.exit(143)
	signal.signal(signal.SIGTERM, end)
	b = Bench(opt)
	try:
		b.meta = machine()
		b.start()
		m = b.meta
		print(f'{m["cpus"]} CPUs ({m["cpu"]}), Linux {m["kernel"]}, load {m["load_before"]:.1f} before; {m["commit"]}')
		print('compute: ' + ' '.join(m['settings']['compute']))
		print('page servers: ' + ' '.join(PS_CONF) + f'; {opt.shards} shard(s) on this machine; {m["settings"]["table"]}; '
			  f'medians of {opt.rounds} rounds of {opt.seconds:g} s, in brackets their quartiles; met is what the worse quartile meets')
		print(f'      row  {"work":<58} {"target":<24} {"figure":<28} {"quartiles":<16} verdict')
		for n in names:
			t = time.monotonic()
			watch.begin()
			try:
				BENCHES[n](b)
			except Missing as e:
				b.record(n, '', BENCHES[n].__doc__, '', f'needs {e}', None)
			except (RuntimeError, subprocess.SubprocessError, KeyError) as e:
				failed += 1
				b.record(n, '', BENCHES[n].__doc__, '', 'failed, see stderr', None)
				print(f'{n}: {e}', file=sys.stderr)
			seen = watch.end()
			b.taken[n] = {'commit': m['commit'], 'date': m['date'], 'rounds': opt.rounds, 'seconds': opt.seconds,
						  'took_seconds': round(time.monotonic() - t), 'quiet': not seen['why'], 'machine': seen}
			print(f'       {n} took {time.monotonic() - t:.0f} s' + (f'; NOT QUIET: {", ".join(seen["why"])}' if seen['why'] else ''), flush=True)
			# what is there is there, if the rest is interrupted
			save(b, time.monotonic() - began)
		b.meta['load_after'] = os.getloadavg()[0]
		noisy = [n for n, x in b.taken.items() if not x['quiet']]
		b.meta['quiet'] = not noisy
		if noisy:
			print(f'WARNING: the machine was not quiet during {", ".join(noisy)}: these figures say that the benchmarks run, and little more')
		took = time.monotonic() - began
		print(f'{took:.0f} s in all; written to {os.path.relpath(save(b, took), os.getcwd())}')
	finally:
		b.end()
	return 1 if failed else 0


if __name__ == '__main__':
	sys.exit(main())
