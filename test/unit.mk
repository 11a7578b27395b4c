# Builds the core with assertions (and, when asked, sanitizers), the unit tests
# and the fuzzers in $(BUILD), and runs them.  Called by the top Makefile.
CC ?= cc
BUILD ?= build/unit
SANITIZE ?=
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 60

CORE_DIRS = base obs wire shard lsn ring cache ahead io auth serve identity boot record net engine trace
CORE_SRCS = $(sort $(foreach d,$(CORE_DIRS),$(wildcard src/$(d)/*.c)))
PQ_INCLUDE := $(shell pkg-config --cflags-only-I libpq 2>/dev/null || echo -I/usr/include/postgresql)
# names that cmocka 2 has new ones for, which cmocka 1 has not
CFLAGS = -DCMOCKA_DISABLE_DEPRECATION_WARNINGS -std=gnu11 -O1 -g -Wall -Wextra -Werror -Wno-unused-parameter -D_GNU_SOURCE \
	-DNC_ASSERTIONS -Iinclude -Itest/unit $(PQ_INCLUDE) $(SANITIZE)
OBJS = $(CORE_SRCS:%.c=$(BUILD)/%.o)
TESTS = $(patsubst test/unit/%.c,$(BUILD)/%,$(sort $(wildcard test/unit/test_*.c)))
SUPPORT = $(filter-out $(wildcard test/unit/test_*.c),$(wildcard test/unit/*.c))
SUPPORT_OBJS = $(SUPPORT:%.c=$(BUILD)/%.o)
FUZZERS = $(patsubst test/fuzz/%.c,$(BUILD)/%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
HEADERS = $(wildcard include/nc/*/*.h include/nc/*/*.def src/*/*.h test/unit/*.h)

# RUNNER: a command that runs each test, e.g. valgrind
RUNNER ?=

# With -j several at a time; -O keeps what each of them says together.
run: $(TESTS:%=%.run)
$(TESTS:%=%.run): %.run: %
	@echo "== $<"; $(RUNNER) $<

$(BUILD)/libcore.a: $(OBJS)
	rm -f $@; ar crs $@ $^

$(BUILD)/%.o: %.c $(HEADERS)
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -c -o $@ $<

$(BUILD)/test_%: test/unit/test_%.c $(BUILD)/libcore.a $(SUPPORT_OBJS) $(HEADERS)
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -o $@ $< $(SUPPORT_OBJS) $(BUILD)/libcore.a -lcmocka -luring -lpq -lssl -lcrypto -lz -lpthread

# One binary a decoder; the corpus is kept in the tree, what a run adds is not.
fuzz: $(FUZZERS)
	@set -e; for f in $(FUZZERS); do n=$$(basename $$f); mkdir -p $(BUILD)/corpus/$$n test/fuzz/corpus/$$n; \
		echo "== $$n for $(FUZZ_SECONDS) s"; \
		$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 -verbosity=0 -rss_limit_mb=2048 \
			-artifact_prefix=$(BUILD)/ $(BUILD)/corpus/$$n test/fuzz/corpus/$$n; done

$(BUILD)/fuzz_%: test/fuzz/fuzz_%.c $(CORE_SRCS) $(HEADERS)
	@mkdir -p $(dir $@)
	$(FUZZ_CC) -std=gnu11 -O1 -g -D_GNU_SOURCE -DNC_ASSERTIONS -Iinclude $(PQ_INCLUDE) \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $< $(CORE_SRCS) -luring -lpq -lssl -lcrypto -lz
.PHONY: run fuzz $(TESTS:%=%.run)
