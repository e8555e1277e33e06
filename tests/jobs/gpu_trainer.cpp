// A trainer on CUDA and NCCL in C++: the counterpart of gpu_trainer.py, with frame pointers and symbols.
//
//   g++ -O1 -g -fno-omit-frame-pointer -pthread gpu_trainer.cpp -o gpu_trainer -ldl
//   gpu_launch.py 4 ./gpu_trainer --steps 50 --fault lock@1 --dose-ms 20
//
// The libraries are loaded by name, so that one executable runs on any version of CUDA and on stand-ins for tests.
// Kinds of faults: slow-read late busy lock malloc-storm sync-copy tiny-kernels sync-loop more-work slow-device.

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <vector>

static int rank_of_job = 0, world = 1;

static uint64_t now_ns()
{
	timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void sleep_ms(double ms)
{
	usleep(useconds_t(ms * 1000));
}

static void *library(std::vector<const char *> names)
{
	for (auto name : names)
		if (void *found = dlopen(name, RTLD_NOW | RTLD_GLOBAL))
			return found;
	fprintf(stderr, "%s\n", dlerror());
	exit(2);
}

// Calls a function of a library by name; ends the process when it does not return 0.
template <typename... Arguments> static void call(void *from, const char *name, Arguments... arguments)
{
	auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(from, name));
	int code = function ? function(arguments...) : -1;
	if (code) {
		fprintf(stderr, "%s: %d\n", name, code);
		exit(3);
	}
}

struct Truth {
	int file = -1;

	Truth()
	{
		const char *path = getenv("STALLSCOPE_DOUBLE_TRUTH");
		if (!path)
			return;
		std::string name = path;
		if (size_t at = name.find("%p"); at != std::string::npos)
			name.replace(at, 2, std::to_string(getpid()));
		file = open(name.c_str(), O_WRONLY | O_APPEND | O_CREAT, 0644);
	}

	void line(const char *kind, const char *what, uint64_t step, uint64_t begin, uint64_t end)
	{
		char text[256];
		int length;
		if (what)
			length = snprintf(text, sizeof(text),
					  "{\"t\":\"%s\",\"pid\":%d,\"thread\":%ld,\"rank\":%d,\"step\":%lu,"
					  "\"what\":\"%s\",\"begin_ns\":%lu,\"end_ns\":%lu}\n",
					  kind, getpid(), syscall(SYS_gettid), rank_of_job, step, what, begin, end);
		else
			length = snprintf(text, sizeof(text),
					  "{\"t\":\"%s\",\"pid\":%d,\"rank\":%d,\"step\":%lu,\"begin_ns\":%lu,"
					  "\"end_ns\":%lu}\n",
					  kind, getpid(), rank_of_job, step, begin, end);
		if (file >= 0 && write(file, text, length) != length)
			perror("truth");
	}
};

struct Options {
	std::map<std::string, std::string> given;

	Options(int argc, char **argv)
	{
		for (int i = 1; i + 1 < argc; i += 2)
			given[argv[i]] = argv[i + 1];
		std::string fault = text("--fault", "none@0");
		size_t at = fault.find('@');
		if (at == std::string::npos || atoi(fault.c_str() + at + 1) != rank_of_job)
			given["--fault"] = "none";
		else
			given["--fault"] = fault.substr(0, at);
	}

	std::string text(const char *name, const char *otherwise) const
	{
		auto found = given.find(name);
		return found == given.end() ? otherwise : found->second;
	}

	double number(const char *name, double otherwise) const
	{
		auto found = given.find(name);
		return found == given.end() ? otherwise : atof(found->second.c_str());
	}
};

struct UniqueId {
	char bytes[128];
};

// Rank 0's bytes, on every rank.
static void exchange(UniqueId &id)
{
	const char *port = getenv("MASTER_PORT");
	sockaddr_in address = {};
	address.sin_family = AF_INET;
	address.sin_port = htons(port ? atoi(port) : 29500);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	auto where = reinterpret_cast<sockaddr *>(&address);
	if (rank_of_job == 0) {
		int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(listener, where, sizeof(address)) || listen(listener, world))
			exit(4);
		for (int i = 1; i < world; i++) {
			int connection = accept(listener, nullptr, nullptr);
			if (send(connection, &id, sizeof(id), 0) != sizeof(id))
				exit(4);
			close(connection);
		}
		close(listener);
		return;
	}
	for (int attempt = 0; attempt < 600; attempt++) {
		int connection = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(connection, where, sizeof(address)) == 0) {
			bool whole = recv(connection, &id, sizeof(id), MSG_WAITALL) == sizeof(id);
			close(connection);
			if (whole)
				return;
			exit(4);
		}
		close(connection);
		sleep_ms(50);
	}
	exit(4);
}

// The loader: a thread that waits in read() for a late writer where it is told to, and puts batches into a queue.
struct Loader {
	std::mutex lock;
	std::condition_variable changed;
	std::queue<uint64_t> batches;
	std::thread thread;

	void run(const Options &options, Truth &truth)
	{
		bool slow = options.text("--fault", "none") == "slow-read";
		double dose_ms = options.number("--dose-ms", 10), load_ms = options.number("--load-ms", 1);
		uint64_t every = uint64_t(options.number("--every", 1));
		int pipe_ends[2];
		if (pipe(pipe_ends))
			exit(4);
		for (uint64_t step = 0;; step++) {
			sleep_ms(load_ms);
			if (slow && step % every == 0) {
				uint64_t begin = now_ns();
				std::thread writer([&] {
					sleep_ms(dose_ms);
					if (write(pipe_ends[1], "x", 1) != 1)
						exit(4);
				});
				char byte;
				if (read(pipe_ends[0], &byte, 1) != 1)
					exit(4);
				truth.line("dose", "slow-read", step, begin, now_ns());
				writer.join();
			}
			std::unique_lock<std::mutex> held(lock);
			changed.wait(held, [&] { return batches.size() < 2; });
			batches.push(step);
			changed.notify_all();
		}
	}

	uint64_t next()
	{
		std::unique_lock<std::mutex> held(lock);
		changed.wait(held, [&] { return !batches.empty(); });
		uint64_t batch = batches.front();
		batches.pop();
		changed.notify_all();
		return batch;
	}
};

static const char *const KERNELS[] = {"forward_gemm", "backward_gemm", "optimizer_step", "elementwise_add"};

// Each kernel spins for as many nanoseconds as its parameter says.
static std::string ptx()
{
	std::string text = ".version 7.0\n.target sm_70\n.address_size 64\n";
	for (auto name : KERNELS)
		text += std::string(".visible .entry ") + name +
			"(.param .u64 duration_ns) {\n  .reg .pred %p; .reg .u64 %begin, %now, %wanted;\n"
			"  ld.param.u64 %wanted, [duration_ns];\n  mov.u64 %begin, %globaltimer;\nagain:\n"
			"  mov.u64 %now, %globaltimer;\n  sub.u64 %now, %now, %begin;\n"
			"  setp.lt.u64 %p, %now, %wanted;\n  @%p bra again;\n  ret;\n}\n";
	return text;
}

struct Trainer {
	const Options &options;
	Truth &truth;
	void *driver = library({"libcuda.so.1"});
	void *runtime = library({"libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"});
	void *nccl = library({"libnccl.so.2"});
	void *compute, *communication, *backward_done, *reduced, *comm, *pinned, *batch, *gradients;
	std::map<std::string, void *> kernels;
	size_t batch_bytes = 1 << 20, count;
	std::string fault;
	double dose_ms;

	Trainer(const Options &options, Truth &truth) : options(options), truth(truth)
	{
		const char *local = getenv("LOCAL_RANK");
		call(runtime, "cudaSetDevice", local ? atoi(local) : rank_of_job);
		void *module;
		std::string image = ptx();
		call(driver, "cuModuleLoadData", &module, image.c_str());
		for (auto name : KERNELS)
			call(driver, "cuModuleGetFunction", &kernels[name], module, name);
		UniqueId id = {};
		if (rank_of_job == 0)
			call(nccl, "ncclGetUniqueId", &id);
		exchange(id);
		call(nccl, "ncclCommInitRank", &comm, world, id, rank_of_job);
		for (void **stream : {&compute, &communication})
			call(runtime, "cudaStreamCreateWithFlags", stream, 1u);
		for (void **event : {&backward_done, &reduced})
			call(runtime, "cudaEventCreate", event);
		count = size_t(options.number("--bucket-mib", 16) * (1 << 20)) / 4;
		call(runtime, "cudaMallocHost", &pinned, batch_bytes);
		call(runtime, "cudaMalloc", &batch, batch_bytes);
		call(runtime, "cudaMalloc", &gradients, count * 4);
		fault = options.text("--fault", "none");
		dose_ms = options.number("--dose-ms", 10);
	}

	void launch(const char *name, double microseconds)
	{
		uint64_t duration_ns = uint64_t(microseconds * 1000);
		void *parameters[] = {&duration_ns};
		call(driver, "cuLaunchKernel", kernels[name], 1u, 1u, 1u, 32u, 1u, 1u, 0u, compute, (void **)parameters,
		     (void **)nullptr);
	}

	void kernel(const char *name, double microseconds, bool harmed)
	{
		if (harmed && fault == "more-work")
			microseconds += dose_ms * 1000 / (2 * options.number("--layers", 4));
		if (harmed && fault == "tiny-kernels") {
			for (int i = 0; i < int(microseconds / 2); i++)
				launch("elementwise_add", 2);
			return;
		}
		launch(name, microseconds);
		if (harmed && fault == "sync-loop")
			call(runtime, "cudaStreamSynchronize", compute);
	}

	__attribute__((noinline)) void harm()
	{
		uint64_t end = now_ns() + uint64_t(dose_ms * 1e6);
		if (fault == "late") {
			sleep_ms(dose_ms);
		} else if (fault == "busy") {
			while (now_ns() < end)
				;
		} else if (fault == "lock") {
			std::mutex lock;
			std::condition_variable changed;
			bool held = false;
			std::mutex contended;
			std::thread holder([&] {
				std::lock_guard<std::mutex> mine(contended);
				{
					std::lock_guard<std::mutex> guard(lock);
					held = true;
				}
				changed.notify_one();
				sleep_ms(dose_ms);
			});
			{
				std::unique_lock<std::mutex> guard(lock);
				changed.wait(guard, [&] { return held; });
			}
			{
				std::lock_guard<std::mutex> mine(contended);
			}
			holder.join();
		} else if (fault == "malloc-storm") {
			while (now_ns() < end) {
				void *memory;
				call(runtime, "cudaMalloc", &memory, size_t(1 << 20));
				call(runtime, "cudaFree", memory);
			}
		} else if (fault == "sync-copy") {
			// 6 MB a millisecond on stand-ins.
			size_t bytes = size_t(dose_ms * 6e6);
			void *memory, *host = malloc(bytes);
			call(runtime, "cudaMalloc", &memory, bytes);
			call(runtime, "cudaMemcpy", memory, host, bytes, 1);
			call(runtime, "cudaFree", memory);
			free(host);
		}
	}

	void step(uint64_t step, Loader &loader)
	{
		uint64_t begin = now_ns();
		loader.next();
		bool harmed = step % uint64_t(options.number("--every", 1)) == 0;
		if (harmed && fault != "none" && fault != "slow-read") {
			uint64_t before = now_ns();
			harm();
			truth.line("dose", fault.c_str(), step, before, now_ns());
		}
		int layers = int(options.number("--layers", 4));
		call(runtime, "cudaMemcpyAsync", batch, pinned, batch_bytes, 1, compute);
		for (int i = 0; i < layers; i++)
			kernel("forward_gemm", options.number("--forward-us", 500), harmed);
		for (int i = 0; i < layers; i++) {
			kernel("backward_gemm", options.number("--backward-us", 1000), harmed);
			call(runtime, "cudaEventRecord", backward_done, compute);
			call(runtime, "cudaStreamWaitEvent", communication, backward_done, 0u);
			call(nccl, "ncclAllReduce", gradients, gradients, count, 7, 0, comm, communication);
		}
		call(runtime, "cudaEventRecord", reduced, communication);
		call(runtime, "cudaStreamWaitEvent", compute, reduced, 0u);
		kernel("optimizer_step", options.number("--optimizer-us", 300), false);
		if (step % uint64_t(options.number("--sync-every", 1)) == 0)
			call(runtime, "cudaStreamSynchronize", compute);
		truth.line("step", nullptr, step, begin, now_ns());
	}
};

int main(int argc, char **argv)
{
	if (const char *text = getenv("RANK"))
		rank_of_job = atoi(text);
	if (const char *text = getenv("WORLD_SIZE"))
		world = atoi(text);
	Options options(argc, argv);
	if (options.text("--fault", "none") == "slow-device") {
		const char *before = getenv("STALLSCOPE_DOUBLE");
		std::string slow = "gpu.slow=" + std::to_string(1 + options.number("--dose-ms", 10) / 10);
		setenv("STALLSCOPE_DOUBLE", (slow + ";" + (before ? before : "")).c_str(), 1);
	}
	Truth truth;
	Loader loader;
	loader.thread = std::thread([&] { loader.run(options, truth); });
	loader.thread.detach();
	Trainer trainer(options, truth);
	double seconds = options.number("--seconds", 0);
	uint64_t begin = now_ns(), step = 0, steps = uint64_t(options.number("--steps", 50));
	while (seconds > 0 ? (now_ns() - begin) / 1e9 < seconds : step < steps)
		trainer.step(step++, loader);
	call(trainer.runtime, "cudaDeviceSynchronize");
	printf("rank %d: %lu steps\n", rank_of_job, step);
	fflush(stdout);
	call(trainer.nccl, "ncclCommDestroy", trainer.comm);
	exit(0);
}
