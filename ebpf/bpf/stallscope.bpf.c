// All probes in one object: they share maps. Each is in a file beside its attach side in src/probes; which of them are
// loaded is decided there.
#include "state.bpf.h"
#include "stack.bpf.h"

#include "../src/probes/sched/sched.bpf.h"
#include "../src/probes/files/files.bpf.h"
#include "../src/probes/syscalls/syscalls.bpf.h"
#include "../src/probes/block/block.bpf.h"
#include "../src/probes/network/network.bpf.h"
#include "../src/probes/faults/faults.bpf.h"
#include "../src/probes/sampling/sampling.bpf.h"
#include "../src/probes/collectives/collectives.bpf.h"
#include "../src/probes/launches/launches.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
