# neon_comm: PostgreSQL whose table pages live on page servers.
#
# Ordinary targets: all install installcheck unit check bench lint clean.
# PG_CONFIG chooses the server; see README.md for the two commands that do everything.

PG_CONFIG ?= pg_config

# PGXS has a target "check" of its own, which only says that it has none.
ifeq ($(MAKECMDGOALS),check)
check:
	scripts/check
else

PG_MAJOR := $(shell $(PG_CONFIG) --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')

# What objects are made for: another server, or other flags, make them anew.
MADE_FOR := $(shell $(PG_CONFIG) --version --includedir-server --pkglibdir | cksum) $(EXTRA_CFLAGS) $(CORE_EXTRA_CFLAGS)
MADE_FOR_FILE := build/made_for
$(shell mkdir -p build; printf '%s\n' '$(MADE_FOR)' | cmp -s - $(MADE_FOR_FILE) || printf '%s\n' '$(MADE_FOR)' >$(MADE_FOR_FILE))

EXTENSION = neon_comm
DATA = sql/neon_comm--1.0.sql
SCRIPTS = src/bin/neon_dev src/bin/neon_demo

# installcheck runs against a running compute (PGHOST, PGPORT), see docs/testing.md
REGRESS = basic guc views

# ---- the core: no server header on its include path
CORE_DIRS = base obs wire shard lsn ring cache ahead io auth serve identity boot record net engine trace
CORE_SRCS = $(sort $(foreach d,$(CORE_DIRS),$(wildcard src/$(d)/*.c)))
CORE_OBJS = $(CORE_SRCS:.c=.core.o)
CORE_CC ?= cc
PQ_INCLUDE := $(shell pkg-config --cflags-only-I libpq 2>/dev/null || echo -I/usr/include/postgresql)
CORE_CFLAGS = -std=gnu11 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wmissing-prototypes \
	-Wno-unused-parameter -D_GNU_SOURCE -Iinclude $(PQ_INCLUDE) $(CORE_EXTRA_CFLAGS)

# ---- the extension
# a server with a front door says so in its headers: a storage-manager hook, 18 a function to register with (docs/interposition.md)
NC_HOOK := $(shell grep -qswE 'define NEON_SMGR|smgrregister' '$(shell $(PG_CONFIG) --includedir-server)/storage/smgr.h' && echo hook_)
FRONT_DOOR := $(if $(NC_HOOK),-DNC_FRONT_DOOR)
SERVER_DIRS = shared safety exporter tracer tracing smgr client direct filecache check worker feed metrics ext
SERVER_SRCS = $(sort $(filter-out src/smgr/abi_%.c src/smgr/aio_%.c src/smgr/hook.c src/ext/explain_%.c,$(foreach d,$(SERVER_DIRS),$(wildcard src/$(d)/*.c)))) \
	src/smgr/abi_$(NC_HOOK)$(PG_MAJOR).c $(wildcard src/smgr/aio_$(PG_MAJOR).c) $(if $(NC_HOOK),src/smgr/hook.c) \
	$(or $(wildcard src/ext/explain_$(PG_MAJOR).c),src/ext/explain_none.c)
MODULE_big = neon_comm
OBJS = $(SERVER_SRCS:.c=.o)
PG_CPPFLAGS = -Iinclude -D_GNU_SOURCE $(FRONT_DOOR) -I$(shell $(PG_CONFIG) --includedir)
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-declaration-after-statement -Wno-missing-field-initializers -Werror $(EXTRA_CFLAGS)
SHLIB_LINK = libnc_core.a -luring -lpq -lssl -lcrypto -lz
EXTRA_CLEAN = libnc_core.a $(CORE_OBJS) build tmp_check tmp_regress

# no bitcode: nothing here is inlined into queries
override with_llvm = no
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

all: libnc_core.a
neon_comm.so: libnc_core.a
NC_HEADERS := $(wildcard include/nc/*/*.h include/nc/*/*.def src/*/*.h src/*/*.def)
$(OBJS): $(NC_HEADERS) $(MADE_FOR_FILE)

libnc_core.a: $(CORE_OBJS)
	rm -f $@
	$(AR) crs $@ $^

%.core.o: %.c $(NC_HEADERS) $(MADE_FOR_FILE)
	$(CORE_CC) $(CORE_CFLAGS) -c -o $@ $<

# ---- the page service: a second library with its own small Makefile
PAGE_SERVICE = $(MAKE) -C src/page_service PG_CONFIG=$(PG_CONFIG) EXTRA_CFLAGS="$(EXTRA_CFLAGS)" FRONT_DOOR="$(FRONT_DOOR)"
all: page-service
# safety, exporter and tracer are in both libraries; their objects are made here, once
page-service: libnc_core.a $(patsubst %.c,%.o,$(wildcard src/safety/*.c src/exporter/*.c src/tracer/*.c))
	$(PAGE_SERVICE) all
install: install-page-service
install-page-service: page-service
	$(PAGE_SERVICE) install
uninstall: uninstall-page-service
uninstall-page-service:
	$(PAGE_SERVICE) uninstall
clean: clean-page-service
clean-page-service:
	$(PAGE_SERVICE) clean

# ---- neon_dev: PGXS installs the programs, and forgets where it put them; its modules go beside the libraries
NEON_DEV_LIB = $(DESTDIR)$(pkglibdir)/neon_dev
install: install-neon-dev
install-neon-dev:
	rm -rf '$(NEON_DEV_LIB)'
	$(MKDIR_P) '$(NEON_DEV_LIB)/NeonDev'
	$(INSTALL_DATA) $(wildcard src/bin/NeonDev/*.pm) '$(NEON_DEV_LIB)/NeonDev/'
uninstall: uninstall-neon-dev
uninstall-neon-dev:
	rm -f '$(DESTDIR)$(bindir)/neon_dev' '$(DESTDIR)$(bindir)/neon_demo'
	rm -rf '$(NEON_DEV_LIB)'

# ---- neon_boot: a program over the core; control file and WAL are those of the server it was made for
NEON_BOOT_SRCS = $(sort $(wildcard src/bin/neon_boot/*.c))
all: build/neon_boot
build/neon_boot: $(NEON_BOOT_SRCS) $(wildcard src/bin/neon_boot/*.h) libnc_core.a $(NC_HEADERS) $(MADE_FOR_FILE)
	$(CORE_CC) $(CORE_CFLAGS) -isystem $(includedir_server) -o $@ $(NEON_BOOT_SRCS) libnc_core.a -lpq -lz
install: install-neon-boot
install-neon-boot: build/neon_boot
	$(MKDIR_P) '$(DESTDIR)$(bindir)'
	$(INSTALL_PROGRAM) build/neon_boot '$(DESTDIR)$(bindir)/neon_boot'
uninstall: uninstall-neon-boot
uninstall-neon-boot:
	rm -f '$(DESTDIR)$(bindir)/neon_boot'

# ---- nc_replay: a program over the core, of no server's version
NC_REPLAY_SRCS = $(sort $(wildcard src/bin/nc_replay/*.c))
all: build/nc_replay
build/nc_replay: $(NC_REPLAY_SRCS) $(wildcard src/bin/nc_replay/*.h) libnc_core.a $(NC_HEADERS) $(MADE_FOR_FILE)
	$(CORE_CC) $(CORE_CFLAGS) -o $@ $(NC_REPLAY_SRCS) libnc_core.a -luring -lpq -lssl -lcrypto -lz
install: install-nc-replay
install-nc-replay: build/nc_replay
	$(MKDIR_P) '$(DESTDIR)$(bindir)'
	$(INSTALL_PROGRAM) build/nc_replay '$(DESTDIR)$(bindir)/nc_replay'
uninstall: uninstall-nc-replay
uninstall-nc-replay:
	rm -f '$(DESTDIR)$(bindir)/nc_replay'

# ---- tests that need no server
UNIT_SRCS = $(sort $(wildcard test/unit/test_*.c))
FUZZ_SRCS = $(sort $(wildcard test/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 60

unit: bench-programs
	$(MAKE) -f test/unit.mk CC="$(CORE_CC)" BUILD=build/unit run
unit-sanitize:
	$(MAKE) -f test/unit.mk CC="$(CORE_CC)" BUILD=build/asan \
		SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" run
unit-tsan:
	NC_THREAD_ROUNDS=700 $(MAKE) -f test/unit.mk CC="$(CORE_CC)" BUILD=build/tsan \
		SANITIZE="-fsanitize=thread -Wno-tsan -fno-omit-frame-pointer" run
unit-valgrind:
	NC_THREAD_ROUNDS=60 $(MAKE) -f test/unit.mk CC="$(CORE_CC)" BUILD=build/unit \
		RUNNER="valgrind -q --fair-sched=try --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite --error-exitcode=9" run
fuzz:
	$(MAKE) -f test/unit.mk BUILD=build/fuzz FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz
# the fault proxy, see test/proxy/nc_proxy --help
proxy:
	$(MAKE) --no-print-directory -C test/proxy
# everything goes wrong for MINUTES minutes; the same SEED takes the same steps
MINUTES ?= 3
chaos: proxy
	test/chaos/run.sh --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(HOSTS),--hosts $(HOSTS))
model: model-takeover model-ring model-identity
model-ring:
	$(MAKE) --no-print-directory -C test/model run
model-identity:
	$(MAKE) --no-print-directory -C test/identity run
model-takeover:
	$(MAKE) --no-print-directory -C test/takeover run

# ---- the core against a simulated world, see docs/simulation.md
.PHONY: sim sim-sanitize mutants unit-tsan unit-valgrind
SEEDS ?= 550
FIRST ?= 1
SIM_ASAN = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
sim:
	$(MAKE) --no-print-directory -s -f test/sim.mk CC="$(CORE_CC)" BUILD=build/sim
	build/sim/sim $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS) --first $(FIRST))
	$(MAKE) --no-print-directory -s -f test/sim.mk CC="$(CORE_CC)" BUILD=build/sim build/sim/sim_door
	build/sim/sim_door $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --first $(FIRST))
sim-sanitize:
	$(MAKE) --no-print-directory -s -f test/sim.mk CC="$(CORE_CC)" BUILD=build/sim-asan OPTIMIZE=-O1 SANITIZE="$(SIM_ASAN)"
	build/sim-asan/sim --seeds 60
	$(MAKE) --no-print-directory -s -f test/sim.mk CC="$(CORE_CC)" BUILD=build/sim-asan OPTIMIZE=-O1 SANITIZE="$(SIM_ASAN)" build/sim-asan/sim_door
	build/sim-asan/sim_door --seeds 60
mutants:
	CC="$(CORE_CC)" test/mutants.sh simulation

# whatever a test proves taken away, one at a time; the test must fail: test/without.sh --help
.PHONY: without
without:
	test/without.sh $(WITHOUT)

# ---- style
lint:
	PG_CONFIG=$(PG_CONFIG) scripts/lint

.PHONY: page-service install-page-service uninstall-page-service clean-page-service install-neon-dev uninstall-neon-dev install-neon-boot uninstall-neon-boot unit unit-sanitize chaos fuzz proxy model model-ring model-identity model-takeover lint

# ---- Debian packages, into build/deb
deb:
	scripts/deb
.PHONY: deb

# ---- benchmarks of what is installed: make install bench [BENCH="scan bitmap"] [BENCH_OPTS="--rounds 5"]
bench-programs: libnc_core.a
	$(MAKE) -f test/bench/Makefile
bench: all
	PG_CONFIG=$(PG_CONFIG) test/bench/bench.py $(BENCH_OPTS) $(BENCH)
# figures of the last run into docs/benchmarks.md and docs/benchmarks/*.svg
bench-docs:
	test/bench/bench_docs.py
.PHONY: check bench bench-docs bench-programs

endif
