/* Ranks of one job by fork, and what NCCL does between them. argv: what to do.
 *
 * pairs   three times a ring: send to the next rank and receive from the one before, in one group
 * group   two all-reduces and a broadcast in one group, then an all-gather
 * self    a message to itself
 * gone    rank 0, where ranks meet, leaves without a word after an all-reduce; the others see an error and abort
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RANKS 3
typedef uintptr_t handle;
struct unique_id {
	char bytes[128];
};

static void *cuda, *nccl;
#define CUDA(name, ...) check(((unsigned (*)())dlsym(cuda, name))(__VA_ARGS__), name)
#define NCCL(name, ...) check(((unsigned (*)())dlsym(nccl, name))(__VA_ARGS__), name)

static void check(unsigned code, const char *name)
{
	if (code) {
		fprintf(stderr, "%s: %u\n", name, code);
		exit(3);
	}
}

static unsigned all_reduce(handle comm, handle stream, size_t count)
{
	unsigned (*f)(void *, void *, size_t, int, int, handle, handle) = dlsym(nccl, "ncclAllReduce");
	return f(NULL, NULL, count, 7, 0, comm, stream);
}

static void run(int rank, const char *what, struct unique_id id)
{
	handle context, stream, comm;
	CUDA("cuInit", 0);
	CUDA("cuDevicePrimaryCtxRetain", &context, rank);
	CUDA("cuCtxSetCurrent", context);
	CUDA("cuStreamCreate", &stream, 1);
	unsigned (*join)(handle *, int, struct unique_id, int) = dlsym(nccl, "ncclCommInitRank");
	check(join(&comm, RANKS, id, rank), "ncclCommInitRank");
	int number = -1, count = -1, device = -1;
	NCCL("ncclCommUserRank", comm, &number);
	NCCL("ncclCommCount", comm, &count);
	NCCL("ncclCommCuDevice", comm, &device);
	if (number != rank || count != RANKS || device != rank)
		exit(4);
	unsigned (*send)(void *, size_t, int, int, handle, handle) = dlsym(nccl, "ncclSend");
	unsigned (*receive)(void *, size_t, int, int, handle, handle) = dlsym(nccl, "ncclRecv");
	if (!strcmp(what, "pairs")) {
		for (int i = 0; i < 3; i++) {
			usleep(rank * 3000);
			NCCL("ncclGroupStart");
			check(send(NULL, 1000, 7, (rank + 1) % RANKS, comm, stream), "ncclSend");
			check(receive(NULL, 1000, 7, (rank + RANKS - 1) % RANKS, comm, stream), "ncclRecv");
			NCCL("ncclGroupEnd");
		}
		CUDA("cuStreamSynchronize", stream);
	} else if (!strcmp(what, "group")) {
		unsigned (*broadcast)(void *, void *, size_t, int, int, handle, handle) = dlsym(nccl, "ncclBroadcast");
		unsigned (*gather)(void *, void *, size_t, int, handle, handle) = dlsym(nccl, "ncclAllGather");
		NCCL("ncclGroupStart");
		check(all_reduce(comm, stream, 1000), "ncclAllReduce");
		check(all_reduce(comm, stream, 2000), "ncclAllReduce");
		check(broadcast(NULL, NULL, 10, 0, 0, comm, stream), "ncclBroadcast");
		NCCL("ncclGroupEnd");
		check(gather(NULL, NULL, 500, 6, comm, stream), "ncclAllGather");
		CUDA("cuStreamSynchronize", stream);
	} else if (!strcmp(what, "self")) {
		NCCL("ncclGroupStart");
		check(send(NULL, 10, 7, rank, comm, stream), "ncclSend");
		check(receive(NULL, 10, 7, rank, comm, stream), "ncclRecv");
		NCCL("ncclGroupEnd");
		CUDA("cuStreamSynchronize", stream);
	} else {
		check(all_reduce(comm, stream, 1000), "ncclAllReduce");
		CUDA("cuStreamSynchronize", stream);
		if (rank == 0)
			_exit(0);
		check(all_reduce(comm, stream, 1000), "ncclAllReduce");
		unsigned error = 0;
		while (!error) {
			usleep(1000);
			NCCL("ncclCommGetAsyncError", comm, &error);
		}
		printf("error %u\n", error);
		printf("waits %d\n", ((unsigned (*)())dlsym(cuda, "cuStreamQuery"))(stream) == 600);
		NCCL("ncclCommAbort", comm);
		CUDA("cuStreamSynchronize", stream);
		printf("aborted\n");
		return;
	}
	NCCL("ncclCommDestroy", comm);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	cuda = dlopen("libcuda.so.1", RTLD_NOW);
	nccl = dlopen("libnccl.so.2", RTLD_NOW);
	if (!cuda || !nccl)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	/* The parent is no rank: it waits for them. */
	int ends[2], rank = -1;
	if (pipe(ends))
		return 2;
	for (int i = 0; i < RANKS && rank < 0; i++)
		if (fork() == 0)
			rank = i;
	if (rank < 0) {
		int status, worst = 0;
		while (wait(&status) > 0)
			worst |= status;
		return worst != 0;
	}
	struct unique_id id;
	if (rank == 0) {
		NCCL("ncclGetUniqueId", &id);
		for (int i = 1; i < RANKS; i++)
			if (write(ends[1], &id, sizeof(id)) != sizeof(id))
				return 2;
	} else if (read(ends[0], &id, sizeof(id)) != sizeof(id)) {
		return 2;
	}
	run(rank, argv[1], id);
	return 0;
}
