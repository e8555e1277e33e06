//! Stand-ins for libcuda, libcupti, libnccl and NVML, for tests.
