/*
 * A stand-in for libnvidia-ml.so.1 whose answers are in a file beside it: VALUES is the name of the library and ".values",
 * with lines of "key=number", or "key=!code" for an answer that NVML refuses. What is not in the file is not supported.
 *
 * BARE leaves out all but what a library must have, NO_INIT that too. OLD is a library of long ago. PROCESS_WORDS is the
 * size of an element of the list of processes, in words of eight bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PROCESS_WORDS
#define PROCESS_WORDS 3
#endif

enum { SUCCESS, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10 };

typedef unsigned status;

/* The handle of a GPU, or of an instance of it. */
struct device {
	int gpu, instance;
};
static struct device devices[8][8];

static status look(const char *key, uint64_t *value)
{
	Dl_info self;
	char line[256];
	status code = NOT_SUPPORTED;
	size_t length = strlen(key);

	if (!dladdr((void *)look, &self))
		abort();
	snprintf(line, sizeof line, "%s.values", self.dli_fname);
	FILE *file = fopen(line, "re");
	if (!file)
		abort();
	while (fgets(line, sizeof line, file)) {
		if (strncmp(line, key, length) || line[length] != '=')
			continue;
		const char *text = line + length + 1;
		code = *text == '!' ? (status)atoi(text + 1) : SUCCESS;
		*value = strtoull(text, NULL, 10);
	}
	fclose(file);
	return code;
}

static status ask(const struct device *of, const char *what, uint64_t *value)
{
	char key[128];

	if (of->instance < 0)
		snprintf(key, sizeof key, "gpu%d.%s", of->gpu, what);
	else
		snprintf(key, sizeof key, "gpu%d.mig%d.%s", of->gpu, of->instance, what);
	return look(key, value);
}

static status ask_of(const struct device *of, const char *what, unsigned part, uint64_t *value)
{
	char key[64];

	snprintf(key, sizeof key, "%s%u", what, part);
	return ask(of, key, value);
}

#define ANSWER(type, to, question)             \
	do {                                   \
		uint64_t value;                \
		status code = question;        \
		if (code == SUCCESS)           \
			*(to) = (type)value;   \
		return code;                   \
	} while (0)

/* Starts and stops are counted in the file's place of the values, for the test to see. */
static void note(const char *what)
{
	Dl_info self;
	char path[256];

	if (!dladdr((void *)look, &self))
		abort();
	snprintf(path, sizeof path, "%s.log", self.dli_fname);
	FILE *file = fopen(path, "ae");
	if (!file)
		abort();
	fprintf(file, "%s\n", what);
	fclose(file);
}

#ifndef NO_INIT
status nvmlInit_v2(void)
{
	uint64_t value;
	status code = look("init", &value);

	note("init");
	return code == NOT_SUPPORTED ? SUCCESS : code;
}
#endif

status nvmlShutdown(void)
{
	note("shutdown");
	return SUCCESS;
}

status nvmlDeviceGetCount_v2(unsigned *to)
{
	ANSWER(unsigned, to, look("gpus", &value));
}

status nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **to)
{
	uint64_t state;
	struct device *device = &devices[index][0];

	*device = (struct device){(int)index, -1};
	*to = device;
	status code = ask(device, "state", &state);
	return code == NOT_SUPPORTED ? SUCCESS : code;
}

status nvmlDeviceGetUUID(const struct device *of, char *to, unsigned length)
{
	if (of->instance < 0)
		snprintf(to, length, "GPU-%d", of->gpu);
	else
		snprintf(to, length, "MIG-%d-%d", of->gpu, of->instance);
	return SUCCESS;
}

#ifndef BARE

status nvmlSystemGetDriverVersion(char *to, unsigned length)
{
	snprintf(to, length, "555.42.02");
	return SUCCESS;
}

status nvmlDeviceGetName(const struct device *of, char *to, unsigned length)
{
	snprintf(to, length, of->instance < 0 ? "Stand-in" : "Stand-in MIG 1g.10gb");
	return SUCCESS;
}

#define ONE(function, type, what)                            \
	status function(const struct device *of, type *to)   \
	{                                                    \
		ANSWER(type, to, ask(of, what, &value));     \
	}

ONE(nvmlDeviceGetPowerUsage, unsigned, "power")
ONE(nvmlDeviceGetPcieReplayCounter, unsigned, "replays")
ONE(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, "generation")
ONE(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, "generation_max")
ONE(nvmlDeviceGetCurrPcieLinkWidth, unsigned, "width")
ONE(nvmlDeviceGetMaxPcieLinkWidth, unsigned, "width_max")
ONE(nvmlDeviceGetMaxMigDeviceCount, unsigned, "instances_max")
ONE(nvmlDeviceGetGpuInstanceId, unsigned, "gpu_instance")
ONE(nvmlDeviceGetComputeInstanceId, unsigned, "compute_instance")
ONE(nvmlDeviceGetSupportedEventTypes, unsigned long long, "event_types")
#ifdef OLD
ONE(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "reasons")
#else
ONE(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "reasons")
#endif

#define PART(function, type, what)                                          \
	status function(const struct device *of, unsigned part, type *to)   \
	{                                                                   \
		ANSWER(type, to, ask_of(of, what, part, &value));           \
	}

PART(nvmlDeviceGetClockInfo, unsigned, "clock")
PART(nvmlDeviceGetPcieThroughput, unsigned, "pcie_rate")
PART(nvmlDeviceGetNvLinkState, unsigned, "link_active")
#ifdef OLD
PART(nvmlDeviceGetTemperature, unsigned, "temperature")
#else
struct temperature {
	unsigned version, sensor;
	int celsius;
};

status nvmlDeviceGetTemperatureV(const struct device *of, struct temperature *to)
{
	if (to->version != (sizeof *to | 1 << 24) || to->sensor)
		return INVALID;
	ANSWER(int, &to->celsius, ask(of, "temperature0", &value));
}
#endif

struct utilisation {
	unsigned gpu, memory;
};

status nvmlDeviceGetUtilizationRates(const struct device *of, struct utilisation *to)
{
	uint64_t gpu, memory;
	status code = ask(of, "utilisation_gpu", &gpu);

	if (code == SUCCESS)
		code = ask(of, "utilisation_memory", &memory);
	if (code == SUCCESS)
		*to = (struct utilisation){(unsigned)gpu, (unsigned)memory};
	return code;
}

struct memory {
	unsigned long long total, free, used;
};

status nvmlDeviceGetMemoryInfo(const struct device *of, struct memory *to)
{
	ANSWER(unsigned long long, &to->used, ask(of, "used_and_reserved", &value));
}

#ifndef OLD
struct memory_2 {
	unsigned version;
	unsigned long long total, reserved, free, used;
};

status nvmlDeviceGetMemoryInfo_v2(const struct device *of, struct memory_2 *to)
{
	if (to->version != (sizeof *to | 2 << 24))
		return INVALID;
	ANSWER(unsigned long long, &to->used, ask(of, "used", &value));
}
#endif

status nvmlDeviceGetTotalEccErrors(const struct device *of, unsigned kind, unsigned span, unsigned long long *to)
{
	if (span)
		return INVALID;
	ANSWER(unsigned long long, to, ask_of(of, "ecc", kind, &value));
}

status nvmlDeviceGetMigDeviceHandleByIndex(const struct device *of, unsigned index, struct device **to)
{
	uint64_t there;
	struct device *instance = &devices[of->gpu][index + 1];

	*instance = (struct device){of->gpu, (int)index};
	*to = instance;
	return ask(instance, "there", &there) == SUCCESS ? SUCCESS : NOT_FOUND;
}

/* The processes of a device: so many, with pids and memory that tell them apart. */
static status list(const struct device *of, unsigned *count, void *array)
{
	uint64_t found;
	status code = ask(of, "processes", &found);

	if (code != SUCCESS)
		return code;
	if (*count < found) {
		*count = (unsigned)found;
		return TOO_SMALL;
	}
	for (unsigned i = 0; i < found; i++) {
		uint64_t *element = (uint64_t *)array + (size_t)i * PROCESS_WORDS;
		*(unsigned *)element = 1000 + i;
		element[1] = i ? (uint64_t)i << 20 : UINT64_MAX;
		if (PROCESS_WORDS > 2)
			element[2] = UINT64_MAX;
		if (PROCESS_WORDS > 3)
			element[3] = 0;
	}
	*count = (unsigned)found;
	return SUCCESS;
}

#ifdef OLD
status nvmlDeviceGetComputeRunningProcesses(const struct device *of, unsigned *count, void *array)
{
	return list(of, count, array);
}
#else
status nvmlDeviceGetComputeRunningProcesses_v3(const struct device *of, unsigned *count, void *array)
{
	return list(of, count, array);
}

struct field {
	unsigned id, scope;
	long long timestamp_us, latency_us;
	unsigned type;
	status code;
	union {
		double d;
		unsigned ui;
		unsigned long long ull;
		int si;
	} value;
};

/* "field138.2" is the field of link 2. A key that ends with ".small" has 32 bits, ".negative" and ".double" are that. */
status nvmlDeviceGetFieldValues(const struct device *of, int count, struct field *fields)
{
	uint64_t whole;
	status code = ask(of, "fields", &whole);

	if (code != SUCCESS && code != NOT_SUPPORTED)
		return code;
	for (int i = 0; i < count; i++) {
		struct field *field = &fields[i];
		static const char *const types[] = {"", ".small", ".negative", ".double"};

		/* What is not used of the value is left as it was: here, not zero. */
		memset(&field->value, 0x77, sizeof field->value);
		for (unsigned type = 0; type < 4; type++) {
			char key[64];
			uint64_t value;

			snprintf(key, sizeof key, "field%u.%u%s", field->id, field->scope, types[type]);
			field->code = ask(of, key, &value);
			if (field->code == NOT_SUPPORTED)
				continue;
			field->type = (unsigned[]){3, 1, 5, 0}[type];
			switch (type) {
			case 0: field->value.ull = value; break;
			case 1: field->value.ui = (unsigned)value; break;
			case 2: field->value.si = -(int)value; break;
			case 3: field->value.d = (double)value; break;
			}
			break;
		}
	}
	return SUCCESS;
}
#endif

struct event {
	const struct device *device;
	unsigned long long type, data;
	unsigned gpu_instance, compute_instance;
};

static int set, watched[8];
static unsigned delivered;

status nvmlEventSetCreate(int **to)
{
	*to = &set;
	return SUCCESS;
}

status nvmlEventSetFree(int *of)
{
	note(of == &set ? "free" : "free of another set");
	return SUCCESS;
}

status nvmlDeviceRegisterEvents(const struct device *of, unsigned long long types, int *to)
{
	uint64_t value;
	status code = ask(of, "register", &value);

	if (types != 8 || to != &set || of->instance >= 0)
		return INVALID;
	watched[of->gpu]++;
	return code == NOT_SUPPORTED ? SUCCESS : code;
}

/* "event0.gpu", "event0.xid", "event0.gi", "event0.ci" is the first, and so on. */
status nvmlEventSetWait_v2(int *of, struct event *to, unsigned timeout_ms)
{
	uint64_t gpu, xid, gi, ci;
	char key[4][32];
	const char *const parts[] = {"gpu", "xid", "gi", "ci"};

	if (of != &set || timeout_ms)
		return INVALID;
	status code = look("wait", &gpu);
	if (code != NOT_SUPPORTED)
		return code;
	for (int part = 0; part < 4; part++)
		snprintf(key[part], sizeof key[part], "event%u.%s", delivered, parts[part]);
	if (look(key[0], &gpu) != SUCCESS)
		return TIMEOUT;
	look(key[1], &xid);
	gi = look(key[2], &gi) == SUCCESS ? gi : UINT32_MAX;
	ci = look(key[3], &ci) == SUCCESS ? ci : UINT32_MAX;
	delivered++;
	*to = (struct event){&devices[gpu][0], watched[gpu] == 1 ? 8 : 1, xid, (unsigned)gi, (unsigned)ci};
	return SUCCESS;
}

#endif
