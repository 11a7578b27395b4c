# Builds and runs the simulation of the core (docs/simulation.md).  Called by the
# top Makefile.
#
# The core is linked without the two methods of its loop, its resolver and its
# TLS, for which test/sim has its own; functions of libpq that the
# simulation defines come before the library's.
CC ?= cc
BUILD ?= build/sim
SANITIZE ?=
OPTIMIZE ?= -O2

CORE_DIRS = base wire shard lsn ring cache io net engine
CORE_SRCS = $(filter-out src/io/loop_uring.c src/io/loop_epoll.c src/net/resolve.c, \
	$(sort $(foreach d,$(CORE_DIRS),$(wildcard src/$(d)/*.c))))
SIM_SRCS = $(sort $(wildcard test/sim/*.c))
PQ_INCLUDE := $(shell pkg-config --cflags-only-I libpq 2>/dev/null || echo -I/usr/include/postgresql)
CFLAGS = -std=gnu11 $(OPTIMIZE) -g -Wall -Wextra -Werror -Wno-unused-parameter -D_GNU_SOURCE \
	-DNC_ASSERTIONS -Iinclude -Isrc/io -Isrc/net -Isrc/engine -Itest/unit $(PQ_INCLUDE) $(SANITIZE)
OBJS = $(CORE_SRCS:%.c=$(BUILD)/%.o) $(SIM_SRCS:%.c=$(BUILD)/%.o)
HEADERS = $(wildcard include/nc/*/*.h include/nc/*/*.def src/io/*.h src/net/*.h src/engine/*.h \
	src/serve/*.h test/sim/*.h test/unit/*.h)
WRAP = -Wl,--wrap=nc_slot_move,--wrap=nc_conn_send,--wrap=nc_doorbell_sleep,--wrap=nc_net_turn,--wrap=nc_deliver_wakes \
	-Wl,--wrap=write,--wrap=send,--wrap=shutdown,--wrap=getpid

$(BUILD)/sim: $(OBJS)
	$(CC) $(CFLAGS) $(WRAP) -o $@ $^ -lpq -lssl -lcrypto -lpthread

# The door has a simulation of its own, over the loop and TLS as they are.
DOOR_DIRS = base wire io auth serve
DOOR_SRCS = $(sort $(foreach d,$(DOOR_DIRS),$(wildcard src/$(d)/*.c))) \
	test/sim/door/sim_door.c test/unit/tls_files.c test/unit/tokens.c
DOOR_OBJS = $(DOOR_SRCS:%.c=$(BUILD)/%.o)

$(BUILD)/sim_door: $(DOOR_OBJS)
	$(CC) $(CFLAGS) -o $@ $^ -luring -lssl -lcrypto

$(BUILD)/%.o: %.c $(HEADERS)
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -c -o $@ $<

# With something taken away (test/mutants.sh): below $(VARIANT) lie the sources of $(TOUCHED) as they are then.
ifdef VARIANT
VARIANT_OBJS = $(filter-out $(TOUCHED:%.c=$(BUILD)/%.o),$(OBJS)) $(TOUCHED:%.c=$(VARIANT)/%.o)
.PHONY: variant
variant: $(VARIANT)/sim
$(VARIANT)/sim: $(VARIANT_OBJS)
	$(CC) $(CFLAGS) $(WRAP) -o $@ $^ -lpq -lssl -lcrypto -lpthread
$(VARIANT)/%.o: $(VARIANT)/%.c
	$(CC) $(CFLAGS) -w -iquote $(dir $*) -c -o $@ $<
endif
