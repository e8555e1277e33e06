/* Reads NVML as a sampler would and prints "name value" lines; goes on when a line comes on stdin. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void *nvml;
#define NVML(name, ...) ((unsigned (*)())dlsym(nvml, name))(__VA_ARGS__)

/* Calls first, prints then: arguments are evaluated in any order. */
#define SHOW(name, value, ...)                                                                             \
	do {                                                                                               \
		unsigned code = __VA_ARGS__;                                                               \
		printf("%s %u %llu\n", name, code, (unsigned long long)(value));                          \
	} while (0)

static void print(uintptr_t gpu)
{
	uint32_t temperature = 0, power = 0, clock = 0, width = 0, tx = 0, rates[2] = {0, 0};
	uint64_t reasons = 0, ecc = 0;
	SHOW("temperature", temperature, NVML("nvmlDeviceGetTemperature", gpu, 0, &temperature));
	SHOW("power", power, NVML("nvmlDeviceGetPowerUsage", gpu, &power));
	SHOW("clock", clock, NVML("nvmlDeviceGetClockInfo", gpu, 1, &clock));
	SHOW("reasons", reasons, NVML("nvmlDeviceGetCurrentClocksThrottleReasons", gpu, &reasons));
	SHOW("rates", rates[0], NVML("nvmlDeviceGetUtilizationRates", gpu, rates));
	SHOW("width", width, NVML("nvmlDeviceGetCurrPcieLinkWidth", gpu, &width));
	SHOW("pcie", tx, NVML("nvmlDeviceGetPcieThroughput", gpu, 0, &tx));
	SHOW("ecc", ecc, NVML("nvmlDeviceGetTotalEccErrors", gpu, 1, 0, &ecc));
}

int main(void)
{
	nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
	if (!nvml)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	uintptr_t gpu, divided, instance, set;
	uint32_t count = 0, mig[2];
	char uuid[96];
	NVML("nvmlInit_v2");
	NVML("nvmlDeviceGetCount_v2", &count);
	printf("count %u\n", count);
	NVML("nvmlDeviceGetHandleByIndex_v2", 0, &gpu);
	NVML("nvmlDeviceGetUUID", gpu, uuid, 96);
	printf("uuid %s\n", uuid);
	print(gpu);
	struct {
		uint32_t id, scope;
		int64_t timestamp, latency;
		uint32_t type, code;
		uint64_t value;
	} fields[2] = {{138, 0xffffffff}, {139, 3}};
	NVML("nvmlDeviceGetFieldValues", gpu, 2, fields);
	printf("nvlink %llu %llu\n", (unsigned long long)fields[0].value, (unsigned long long)fields[1].value);

	NVML("nvmlDeviceGetHandleByIndex_v2", 1, &divided);
	NVML("nvmlDeviceGetMigMode", divided, &mig[0], &mig[1]);
	printf("mig %u\n", mig[0]);
	for (uint32_t i = 0; NVML("nvmlDeviceGetMigDeviceHandleByIndex", divided, i, &instance) == 0; i++) {
		NVML("nvmlDeviceGetUUID", instance, uuid, 96);
		printf("instance %s\n", uuid);
	}
	struct {
		uint32_t pid;
		uint64_t used;
		uint32_t gpu_instance, compute_instance;
	} processes[4];
	uint32_t room = 0;
	SHOW("size", room, NVML("nvmlDeviceGetComputeRunningProcesses_v3", divided, &room, NULL));
	NVML("nvmlDeviceGetComputeRunningProcesses_v3", divided, &room, processes);
	for (uint32_t i = 0; i < room; i++)
		printf("process %u %llu %u\n", processes[i].pid, (unsigned long long)processes[i].used,
		       processes[i].gpu_instance);

	struct {
		uintptr_t device;
		uint64_t kind, data;
		uint32_t gpu_instance, compute_instance;
	} event;
	NVML("nvmlEventSetCreate", &set);
	NVML("nvmlDeviceRegisterEvents", gpu, 8ull, set);
	printf("quiet %u\n", NVML("nvmlEventSetWait_v2", set, &event, 10));
	printf("ready\n");
	fflush(stdout);
	getchar();
	unsigned code = NVML("nvmlEventSetWait_v2", set, &event, 30000);
	printf("xid %u %llu %d\n", code, (unsigned long long)event.data, event.device == gpu);
	printf("again %u\n", NVML("nvmlEventSetWait_v2", set, &event, 20));
	print(gpu);
	return 0;
}
