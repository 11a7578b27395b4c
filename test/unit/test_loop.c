/*
 * test_loop.c
 *	  The loop, with both methods: each operation, cancelling, descriptors that are
 *	  closed and opened again, and that a collected operation runs once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc/io/loop.h"

#define WAIT_US 5000000

typedef struct Bench
{
	NcLoop	   *loop;
	int			ours;			/* used through the loop */
	int			theirs;			/* used by the test, non-blocking */
	int			runs;			/* calls of complete */
	NcOp		in;
	NcOp		out;
} Bench;

static NcLoopMethod method;

static void
completed(NcOp *op)
{
	((Bench *) op->owner)->runs++;
}

static void
connect_pair(Bench *b)
{
	int			fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	b->ours = fds[0];
	b->theirs = fds[1];
	assert_int_equal(fcntl(b->theirs, F_SETFL, O_NONBLOCK), 0);
	/* as libpq leaves a socket */
	assert_int_equal(fcntl(b->ours, F_SETFL, O_NONBLOCK), 0);
	nc_loop_adopt(b->loop, b->ours);
}

static int
setup(void **state, NcLoopMethod m)
{
	Bench	   *b = calloc(1, sizeof(*b));
	char		err[128] = "";

	method = m;
	b->loop = nc_loop_create(m, err, sizeof(err));
	if (b->loop == NULL)
		fail_msg("%s", err);
	b->in.complete = b->out.complete = completed;
	b->in.owner = b->out.owner = b;
	connect_pair(b);
	*state = b;
	return 0;
}

static int
setup_uring(void **state)
{
	return setup(state, NC_LOOP_URING);
}

static int
setup_epoll(void **state)
{
	return setup(state, NC_LOOP_EPOLL);
}

static int
teardown(void **state)
{
	Bench	   *b = *state;

	nc_loop_cancel(b->loop, &b->in);
	nc_loop_cancel(b->loop, &b->out);
	for (int i = 0; i < 100 && nc_loop_started(b->loop) > 0; i++)
	{
		nc_loop_wait(b->loop, 10000);
		nc_loop_run(b->loop);
	}
	assert_int_equal(nc_loop_started(b->loop), 0);
	nc_loop_forget(b->loop, b->ours);
	close(b->ours);
	close(b->theirs);
	nc_loop_destroy(b->loop);
	free(b);
	return 0;
}

/* Waits until an operation is done and runs what was collected. */
static void
finish(Bench *b, const NcOp *op)
{
	for (int i = 0; i < 100 && op->state != NC_OP_IDLE; i++)
	{
		nc_loop_wait(b->loop, WAIT_US);
		nc_loop_run(b->loop);
	}
	assert_int_equal(op->state, NC_OP_IDLE);
}

static void
test_name(void **state)
{
	Bench	   *b = *state;

	assert_string_equal(nc_loop_name(b->loop),
						method == NC_LOOP_URING ? "io_uring" : "epoll");
}

static void
test_recv(void **state)
{
	Bench	   *b = *state;
	char		buffer[64] = {0};	/* valgrind does not see what the kernel writes for io_uring */

	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	nc_loop_wait(b->loop, 0);
	assert_int_equal(nc_loop_run(b->loop), 0);
	assert_int_equal(nc_loop_started(b->loop), 1);
	assert_int_equal(write(b->theirs, "hello", 5), 5);
	finish(b, &b->in);
	assert_int_equal(b->in.result, 5);
	assert_memory_equal(buffer, "hello", 5);
	assert_int_equal(b->runs, 1);
	assert_int_equal(nc_loop_started(b->loop), 0);
}

/* What arrived before the receive was started is found. */
static void
test_recv_early(void **state)
{
	Bench	   *b = *state;
	char		buffer[3] = {0};

	assert_int_equal(write(b->theirs, "abcdef", 6), 6);
	for (int i = 0; i < 2; i++)
	{
		nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
		finish(b, &b->in);
		assert_int_equal(b->in.result, 3);
		assert_memory_equal(buffer, i == 0 ? "abc" : "def", 3);
	}
}

static void
test_end_of_stream(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	assert_int_equal(shutdown(b->theirs, SHUT_WR), 0);
	finish(b, &b->in);
	assert_int_equal(b->in.result, 0);
}

static void
test_send(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	nc_loop_send(b->loop, &b->out, b->ours, "xyz", 3);
	finish(b, &b->out);
	assert_int_equal(b->out.result, 3);
	assert_int_equal(read(b->theirs, buffer, sizeof(buffer)), 3);
	assert_memory_equal(buffer, "xyz", 3);
}

/* A full socket: the send waits without blocking the loop and goes on when there is room. */
static void
test_send_full(void **state)
{
	Bench	   *b = *state;
	static char block[65536];
	size_t		sent = 0;
	size_t		got = 0;
	bool		full = false;
	ssize_t		n;

	for (int i = 0; i < 10000 && !full; i++)
	{
		nc_loop_send(b->loop, &b->out, b->ours, block, sizeof(block));
		for (int turn = 0; turn < 5 && b->out.state != NC_OP_IDLE; turn++)
		{
			nc_loop_wait(b->loop, 0);
			nc_loop_run(b->loop);
		}
		full = b->out.state == NC_OP_STARTED;
		if (!full)
		{
			assert_true(b->out.result > 0);
			sent += (size_t) b->out.result;
		}
	}
	assert_true(full);
	while ((n = read(b->theirs, block, sizeof(block))) > 0)
		got += (size_t) n;
	finish(b, &b->out);
	assert_true(b->out.result > 0);
	sent += (size_t) b->out.result;
	while ((n = read(b->theirs, block, sizeof(block))) > 0)
		got += (size_t) n;
	assert_int_equal(got, sent);
}

/* To a peer that is gone: an error value, no signal. */
static void
test_send_broken(void **state)
{
	Bench	   *b = *state;

	close(b->theirs);
	b->theirs = -1;
	nc_loop_send(b->loop, &b->out, b->ours, "x", 1);
	finish(b, &b->out);
	assert_int_equal(b->out.result, -EPIPE);
}

static void
test_both_directions(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	nc_loop_send(b->loop, &b->out, b->ours, "ping", 4);
	finish(b, &b->out);
	assert_int_equal(b->in.state, NC_OP_STARTED);
	assert_int_equal(write(b->theirs, "pong", 4), 4);
	finish(b, &b->in);
	assert_int_equal(b->in.result, 4);
	assert_int_equal(b->runs, 2);
}

static void
test_poll(void **state)
{
	Bench	   *b = *state;

	nc_loop_poll(b->loop, &b->out, b->ours, POLLOUT);
	nc_loop_poll(b->loop, &b->in, b->ours, POLLIN);
	finish(b, &b->out);
	assert_true((b->out.result & POLLOUT) != 0);
	assert_int_equal(b->in.state, NC_OP_STARTED);
	assert_int_equal(write(b->theirs, "x", 1), 1);
	finish(b, &b->in);
	assert_true((b->in.result & POLLIN) != 0);
}

/* Either direction with one operation, as the handshake asks. */
static void
test_poll_either(void **state)
{
	Bench	   *b = *state;

	nc_loop_poll(b->loop, &b->in, b->ours, POLLIN | POLLOUT);
	finish(b, &b->in);
	assert_int_equal(b->in.result & (POLLIN | POLLOUT), POLLOUT);
}

static void
test_cancel(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	nc_loop_wait(b->loop, 0);
	nc_loop_cancel(b->loop, &b->in);
	assert_int_equal(b->runs, 0);
	finish(b, &b->in);
	assert_int_equal(b->in.result, -ECANCELED);
	assert_int_equal(b->runs, 1);
	/* and the descriptor is as good as before */
	assert_int_equal(write(b->theirs, "x", 1), 1);
	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	finish(b, &b->in);
	assert_int_equal(b->in.result, 1);
}

/* A socket shut down under a receive: it ends. */
static void
test_shutdown(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	nc_loop_wait(b->loop, 0);
	assert_int_equal(shutdown(b->ours, SHUT_RDWR), 0);
	nc_loop_cancel(b->loop, &b->in);
	finish(b, &b->in);
	assert_true(b->in.result == 0 || b->in.result == -ECANCELED);
}

/* The number of a closed descriptor comes again for another socket. */
static void
test_number_again(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	for (int i = 0; i < 20; i++)
	{
		int			number = b->ours;

		nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
		assert_int_equal(write(b->theirs, "ab", 2), 2);
		finish(b, &b->in);
		assert_int_equal(b->in.result, 2);
		nc_loop_forget(b->loop, b->ours);
		close(b->ours);
		close(b->theirs);
		connect_pair(b);
		assert_int_equal(b->ours, number);
	}
}

static void
test_bad_descriptor(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	nc_loop_recv(b->loop, &b->in, -1, buffer, sizeof(buffer));
	finish(b, &b->in);
	assert_int_equal(b->in.result, -EBADF);
}

/*
 * Nothing to come: the wait ends all the same, and the operation is still there.
 * (How long it took is not asked: what a closed ring leaves to the kernel interrupts
 * a later wait of the same thread.)
 */
static void
test_timeout(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	for (int i = 0; i < 3; i++)
	{
		nc_loop_wait(b->loop, 1000);
		assert_int_equal(nc_loop_run(b->loop), 0);
	}
	assert_int_equal(b->in.state, NC_OP_STARTED);
	assert_int_equal(write(b->theirs, "x", 1), 1);
	finish(b, &b->in);
	assert_int_equal(b->in.result, 1);
}

/* A hang-up that nobody waits for does not keep the loop busy. */
static void
test_idle_hangup(void **state)
{
	Bench	   *b = *state;
	char		buffer[8];

	assert_int_equal(write(b->theirs, "x", 1), 1);
	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	finish(b, &b->in);
	close(b->theirs);
	b->theirs = -1;
	for (int i = 0; i < 3; i++)
	{
		nc_loop_wait(b->loop, 1000);
		assert_int_equal(nc_loop_run(b->loop), 0);
	}
	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	finish(b, &b->in);
	assert_int_equal(b->in.result, 0);
}

/* More operations than entries of the submission queue. */
static void
test_many(void **state)
{
	Bench	   *b = *state;
	enum
	{
		MANY = 400
	};
	static NcOp ops[MANY];
	static int	fds[MANY][2];
	static char bytes[MANY];

	for (int i = 0; i < MANY; i++)
	{
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds[i]), 0);
		nc_loop_adopt(b->loop, fds[i][0]);
		ops[i] = (NcOp) {.complete = completed, .owner = b};
		nc_loop_recv(b->loop, &ops[i], fds[i][0], &bytes[i], 1);
	}
	assert_int_equal(nc_loop_started(b->loop), MANY);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(write(fds[i][1], "y", 1), 1);
	for (int i = 0; i < MANY; i++)
	{
		finish(b, &ops[i]);
		assert_int_equal(ops[i].result, 1);
		assert_int_equal(bytes[i], 'y');
		nc_loop_forget(b->loop, fds[i][0]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
	assert_int_equal(b->runs, MANY);
}

/* Who waits for the loop's descriptor is woken by what the loop would find. */
static void
test_descriptor(void **state)
{
	Bench	   *b = *state;
	char		buffer[8] = {0};
	struct pollfd fd = {.fd = nc_loop_fd(b->loop),.events = POLLIN};

	if (method == NC_LOOP_URING)
	{
		assert_int_equal(fd.fd, -1);
		return;
	}
	nc_loop_recv(b->loop, &b->in, b->ours, buffer, sizeof(buffer));
	nc_loop_flush(b->loop);
	assert_int_equal(poll(&fd, 1, 0), 0);
	assert_int_equal(write(b->theirs, "x", 1), 1);
	assert_int_equal(poll(&fd, 1, 1000), 1);
	finish(b, &b->in);
	assert_int_equal(b->in.result, 1);
}

#define BOTH(test) \
	cmocka_unit_test_setup_teardown(test, setup_uring, teardown), \
	cmocka_unit_test_setup_teardown(test, setup_epoll, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_name),
		BOTH(test_recv),
		BOTH(test_recv_early),
		BOTH(test_end_of_stream),
		BOTH(test_send),
		BOTH(test_send_full),
		BOTH(test_send_broken),
		BOTH(test_both_directions),
		BOTH(test_poll),
		BOTH(test_poll_either),
		BOTH(test_cancel),
		BOTH(test_shutdown),
		BOTH(test_number_again),
		BOTH(test_bad_descriptor),
		BOTH(test_timeout),
		BOTH(test_idle_hangup),
		BOTH(test_descriptor),
		BOTH(test_many)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
