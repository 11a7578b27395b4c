/*
 * loadgen.c
 *	  The page service's own ceiling: connections x depth of GetPage requests,
 *	  without a compute, on the core library's handshake and codec.
 *
 * One thread.  Every answer is decoded and compared with its request; the page
 * is not looked at, so that the figure is the server's and not ours.  A
 * connection is filled up again when half of its depth has been answered, with one
 * send, as a client with readahead does.  Prints one line of JSON.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc/net/handshake.h"
#include "nc/shard/shard_map.h"
#include "nc/wire/pagestream.h"
#include "nc/wire/session.h"

#include "histogram.h"

#define CONNS_MAX 256
#define DEPTH_MAX 256
#define RECV_BYTES (256 * 1024)

typedef struct Options
{
	const char *page_servers;	/* as neon_comm.page_servers */
	const char *tenant;
	const char *timeline;
	NcRelKey	rel;
	uint32_t	blocks;
	uint32_t	stripe;
	uint64_t	lsn;
	bool		sequential;
	uint32_t	conns;
	uint32_t	depth;
	double		seconds;
	double		warmup;
} Options;

typedef struct Sent
{
	NcPsRequest msg;
	uint64_t	at_ns;
} Sent;

typedef struct Conn
{
	NcHandshake *handshake;
	int			fd;
	uint32_t	shard;
	uint32_t	next_block;		/* sequential */
	Sent		sent[DEPTH_MAX];	/* circular, oldest first */
	uint32_t	first;
	uint32_t	count;
	uint8_t		buffer[RECV_BYTES];
	size_t		bytes;
} Conn;

static Options opt = {
	.page_servers = "", .stripe = 2048, .lsn = 1, .conns = 1, .depth = 1, .seconds = 3, .warmup = 0.5
};
static NcShardMap map;
static Conn *conns;
static Histogram histogram;
static bool counting;
static uint64_t reqids;
static uint64_t receives;
static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "loadgen: %s: %s\n", what, why);
	exit(1);
}

static uint32_t
next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t) (random_state >> 32);
}

/* ---- connecting ---- */

static void
open_conn(Conn *c, uint32_t index)
{
	NcHandshakeParams params = {
		.token_file = "",
		.options = "",
		.protocol_version = 3,
		.tenant_id = opt.tenant,
		.timeline_id = opt.timeline
	};
	NcHandshakeStep step;

	c->shard = index % map.shard_count;
	/* sequential: each connection reads its own part of the relation */
	c->next_block = (uint32_t) ((uint64_t) opt.blocks * index / opt.conns);
	params.conninfo = map.conninfo[c->shard];
	c->handshake = nc_handshake_start(&params);
	if (c->handshake == NULL)
		die("connect", "out of memory");
	while ((step = nc_handshake_advance(c->handshake)) != NC_HANDSHAKE_DONE)
	{
		struct pollfd p = {.fd = nc_handshake_socket(c->handshake), .events = POLLIN};

		if (step == NC_HANDSHAKE_FAILED)
			die(params.conninfo, nc_handshake_error(c->handshake));
		if (step == NC_HANDSHAKE_WRITE)
			p.events = POLLOUT;
		if (step == NC_HANDSHAKE_READ_WRITE)
			p.events = POLLIN | POLLOUT;
		if (poll(&p, 1, 10000) <= 0)
			die(params.conninfo, "no answer");
	}
	if (nc_handshake_encrypted(c->handshake))
		die(params.conninfo, "TLS is not measured here: use sslmode=disable");
	c->fd = nc_handshake_socket(c->handshake);
}

/* ---- requests ---- */

static uint32_t
choose_block(Conn *c)
{
	for (;;)
	{
		uint32_t	block;

		if (opt.sequential)
		{
			block = c->next_block;
			c->next_block = (c->next_block + 1) % opt.blocks;
		}
		else
			block = next_random() % opt.blocks;
		if (nc_shard_of_block(map.shard_count, map.stripe_blocks, &opt.rel, block) == c->shard)
			return block;
	}
}

static void
fill(Conn *c)
{
	static uint8_t out[DEPTH_MAX * (NC_REQUEST_BYTES_MAX + 5)];
	NcWriter	w = nc_writer(out, sizeof(out));
	uint64_t	now = clock_ns();
	size_t		done = 0;

	while (c->count < opt.depth)
	{
		Sent	   *s = &c->sent[(c->first + c->count) % DEPTH_MAX];
		uint8_t    *length_at = nc_frame_begin(&w, 'd');

		s->at_ns = now;
		s->msg = (NcPsRequest) {
			.tag = NC_REQ_GETPAGE, .reqid = ++reqids, .request_lsn = NC_LSN_MAX,
			.not_modified_since = opt.lsn, .rel = opt.rel, .block = choose_block(c)
		};
		if (!nc_ps_request_encode(&w, 3, &s->msg))
			die("encode", "failed");
		nc_frame_end(&w, length_at);
		c->count++;
	}
	while (done < nc_writer_bytes(&w))
	{
		ssize_t		n = send(c->fd, out + done, nc_writer_bytes(&w) - done, MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t) n;
		else if (errno == EAGAIN)
		{
			struct pollfd p = {.fd = c->fd, .events = POLLOUT};

			(void) poll(&p, 1, 1000);
		}
		else
			die("send", strerror(errno));
	}
}

static void
answer(Conn *c, const NcFrame *frame)
{
	Sent	   *s = &c->sent[c->first];
	NcPsResponse resp;
	const char *wrong;

	if (frame->type != 'd' || c->count == 0 ||
		!nc_ps_response_decode(frame->body, frame->body_bytes, 3, &resp))
		die("answer", "not one that was asked for");
	wrong = nc_ps_response_mismatch(&resp, &s->msg, 3);
	if (wrong != NULL)
		die("answer differs from its request", wrong);
	if (resp.tag != NC_RESP_GETPAGE)
		die("answer", "is an error");
	if (counting)
		histogram_add(&histogram, clock_ns() - s->at_ns);
	c->first = (c->first + 1) % DEPTH_MAX;
	c->count--;
}

static void
receive(Conn *c)
{
	ssize_t		n = recv(c->fd, c->buffer + c->bytes, sizeof(c->buffer) - c->bytes, MSG_DONTWAIT);
	size_t		used = 0;
	NcFrame		frame;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		die("receive", n == 0 ? "closed by the server" : strerror(errno));
	receives += counting;
	c->bytes += (size_t) n;
	while (nc_frame_parse(c->buffer + used, c->bytes - used, NC_RESPONSE_BYTES_MAX, &frame) ==
		   NC_FRAME_OK)
	{
		answer(c, &frame);
		used += frame.consumed;
	}
	memmove(c->buffer, c->buffer + used, c->bytes - used);
	c->bytes -= used;
	if (c->count <= opt.depth / 2)
		fill(c);
}

/* ---- run ---- */

static void
run(void)
{
	int			ep = epoll_create1(EPOLL_CLOEXEC);
	uint64_t	begin = clock_ns();
	uint64_t	warm = begin + (uint64_t) (opt.warmup * 1e9);
	uint64_t	end = warm + (uint64_t) (opt.seconds * 1e9);
	uint64_t	now = begin;
	double		cpu = 0;

	for (uint32_t i = 0; i < opt.conns; i++)
	{
		struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};

		epoll_ctl(ep, EPOLL_CTL_ADD, conns[i].fd, &e);
		fill(&conns[i]);
	}
	while (now < end)
	{
		struct epoll_event events[64];
		int			n = epoll_wait(ep, events, 64, 1000);

		for (int i = 0; i < n; i++)
			receive(&conns[events[i].data.u32]);
		now = clock_ns();
		if (!counting && now >= warm)
		{
			counting = true;
			warm = now;
			cpu = cpu_seconds();
		}
	}
	cpu = cpu_seconds() - cpu;
	printf("{\"connections\": %u, \"depth\": %u, \"pattern\": \"%s\", ", opt.conns, opt.depth,
		   opt.sequential ? "sequential" : "random");
	histogram_print(stdout, &histogram, (double) (now - warm) / 1e9);
	printf(", \"client_cpu_us\": %.3f, \"pages_per_receive\": %.2f}\n",
		   histogram.count > 0 ? cpu * 1e6 / (double) histogram.count : 0.0,
		   receives > 0 ? (double) histogram.count / (double) receives : 0.0);
}

static const char usage[] =
"loadgen --page-servers LIST --tenant HEX --timeline HEX --rel SPC/DB/REL --blocks N\n"
"        [--stripe BLOCKS] [--lsn N] [--sequential] [--connections N] [--depth N]\n"
"        [--seconds S] [--warmup S]\n";

static void
parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"page-servers", required_argument, NULL, 'p'}, {"tenant", required_argument, NULL, 't'},
		{"timeline", required_argument, NULL, 'l'}, {"rel", required_argument, NULL, 'r'},
		{"blocks", required_argument, NULL, 'b'}, {"stripe", required_argument, NULL, 'i'},
		{"lsn", required_argument, NULL, 'n'}, {"sequential", no_argument, NULL, 'q'},
		{"connections", required_argument, NULL, 'c'}, {"depth", required_argument, NULL, 'd'},
		{"seconds", required_argument, NULL, 's'}, {"warmup", required_argument, NULL, 'w'},
		{NULL, 0, NULL, 0}
	};
	int			o;

	while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1)
	{
		switch (o)
		{
			case 'p': opt.page_servers = optarg; break;
			case 't': opt.tenant = optarg; break;
			case 'l': opt.timeline = optarg; break;
			case 'b': opt.blocks = (uint32_t) strtoul(optarg, NULL, 10); break;
			case 'i': opt.stripe = (uint32_t) strtoul(optarg, NULL, 10); break;
			case 'n': opt.lsn = strtoull(optarg, NULL, 10); break;
			case 'q': opt.sequential = true; break;
			case 'c': opt.conns = (uint32_t) strtoul(optarg, NULL, 10); break;
			case 'd': opt.depth = (uint32_t) strtoul(optarg, NULL, 10); break;
			case 's': opt.seconds = strtod(optarg, NULL); break;
			case 'w': opt.warmup = strtod(optarg, NULL); break;
			case 'r':
				if (sscanf(optarg, "%u/%u/%u", &opt.rel.spc, &opt.rel.db, &opt.rel.rel) != 3)
					die("--rel", usage);
				break;
			default: die("arguments", usage);
		}
	}
	if (opt.tenant == NULL || opt.timeline == NULL || opt.blocks == 0 || opt.rel.rel == 0 ||
		opt.conns < 1 || opt.conns > CONNS_MAX || opt.depth < 1 || opt.depth > DEPTH_MAX)
		die("arguments", usage);
}

int
main(int argc, char **argv)
{
	char		err[256];

	parse(argc, argv);
	if (!nc_shard_map_parse(opt.page_servers, opt.stripe, &map, err, sizeof(err)))
		die("--page-servers", err);
	if (map.shard_count == 0 || opt.conns < map.shard_count)
		die("--connections", "at least one for each shard");
	conns = calloc(opt.conns, sizeof(*conns));
	if (conns == NULL)
		die("memory", "out of it");
	for (uint32_t i = 0; i < opt.conns; i++)
		open_conn(&conns[i], i);
	run();
	for (uint32_t i = 0; i < opt.conns; i++)
		nc_handshake_free(conns[i].handshake);
	free(conns);
	return 0;
}
