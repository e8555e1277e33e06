//! A small data-parallel training job, step by step: load a batch, copy it, forward, backward with bucketed all-reduces
//! on a stream of their own, optimizer, now and then a look at the loss.
//!
//! Ranks meet in the all-reduces only: one begins on each rank when that rank is ready and ends on all ranks together,
//! a transfer time after the last has begun.

use crate::host::{COMM_STREAM, COMPUTE_STREAM, Host, HostKind, Work};

/// What a job is like.
#[derive(Clone, Debug)]
pub struct Job {
    /// Seed of all jitter.
    pub seed: u64,
    /// Ranks, one GPU each.
    pub ranks: u32,
    /// Number of the first recorded step.
    pub first_step: u32,
    /// Recorded steps.
    pub steps: u32,
    /// Transformer blocks of the model.
    pub layers: u32,
    /// Usual time of one `DataLoader.__next__`, ns.
    pub load_ns: u64,
    /// Rank whose loader is slow in some steps.
    pub slow_rank: u32,
    /// Steps (counted from 0) in which it is.
    pub slow_steps: Vec<u32>,
    /// Time of a slow `__next__`, ns.
    pub slow_load_ns: u64,
}

/// An all-reduce that a rank has asked for.
#[derive(Debug)]
struct Bucket {
    op: usize,
    transfer_ns: u64,
}

const LOADER: &str = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__";
const GEMM: &str = "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas";
const LAYER_NORM: &str = "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::BFloat16, float>(int, float, c10::BFloat16 const*)";
const GELU: &str = "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl(at::TensorIteratorBase&)>(int)";
const FLASH: &str = "flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>, false, true>";
const FLASH_BACKWARD: &str =
    "flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<64, 128, 128, 8>>";
const ADAM: &str =
    "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>";
const ALL_REDUCE: &str = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)";

impl Job {
    /// Runs the job; one host per rank.
    #[must_use]
    pub fn run(&self) -> Vec<Host> {
        let mut hosts: Vec<Host> = (0..self.ranks).map(|rank| Host::new(rank, self.seed)).collect();
        for step in 0..self.steps {
            let started: Vec<u64> = hosts.iter().map(|h| h.now).collect();
            let buckets: Vec<Vec<Bucket>> =
                hosts.iter_mut().map(|host| self.until_backward(host, step)).collect();
            meet(&mut hosts, &buckets);
            for ((host, buckets), started) in hosts.iter_mut().zip(&buckets).zip(started) {
                self.optimize(host, buckets, step);
                self.close_step(host, step, started);
            }
        }
        hosts
    }

    /// Everything up to the end of backward; the all-reduces it asked for.
    fn until_backward(&self, host: &mut Host, step: u32) -> Vec<Bucket> {
        self.load(host, step);
        host.python("train.py(64): to_device", |h| {
            h.within(HostKind::Operator, "aten::to", |h| h.copy_pageable(3_145_728));
            h.within(HostKind::Operator, "aten::to", |h| h.copy_pageable(32_768));
        });
        host.python("model.py(71): forward", |h| {
            for layer in 0..self.layers {
                h.python("model.py(33): block", |h| forward_block(h, step == 0 && layer < 2));
            }
        });
        host.python("torch/_tensor.py(525): backward", |h| {
            h.within(HostKind::Operator, "aten::ones_like", |h| {
                h.launch("cudaMemsetAsync", COMPUTE_STREAM, Work::Memset(4), "Memset (Device)", 1_300, 0);
            });
            h.on_thread(1, |h| self.backward(h))
        })
    }

    fn load(&self, host: &mut Host, step: u32) {
        let slow = host.rank == self.slow_rank && self.slow_steps.contains(&step);
        let load_ns = if slow { self.slow_load_ns } else { self.load_ns };
        host.python("torch/utils/data/dataloader.py(701): __next__", |h| {
            h.within(HostKind::Annotation, LOADER, |h| {
                h.python("torch/utils/data/dataloader.py(1448): _next_data", |h| {
                    h.python("multiprocessing/connection.py(253): poll", |h| h.work(load_ns));
                });
            });
        });
    }

    fn backward(&self, host: &mut Host) -> Vec<Bucket> {
        let mut buckets = Vec::new();
        for layer in (0..self.layers).rev() {
            host.within(HostKind::Operator, "autograd::engine::evaluate_function: AddmmBackward0", |h| {
                h.work(9_000);
                h.within(HostKind::Operator, "aten::mm", |h| kernel(h, GEMM, 104_000));
                h.within(HostKind::Operator, "aten::mm", |h| kernel(h, GEMM, 98_000));
            });
            host.within(HostKind::Operator, "FlashAttnFuncBackward", |h| {
                h.work(14_000);
                kernel(h, FLASH_BACKWARD, 163_000)
            });
            let last = host.within(HostKind::Operator, "NativeLayerNormBackward0", |h| {
                h.work(8_000);
                kernel(h, LAYER_NORM, 21_000)
            });
            // A bucket is full after every second block.
            if layer % 2 == 0 {
                buckets.push(all_reduce(host, last, 2_097_152));
            }
        }
        buckets
    }

    fn optimize(&self, host: &mut Host, buckets: &[Bucket], step: u32) {
        let reduced = buckets.iter().filter_map(|b| host.ops.get(b.op)).map(|op| op.end()).max().unwrap_or(0);
        host.python("torch/optim/adamw.py(216): step", |h| {
            h.stream_wait(COMPUTE_STREAM, COMM_STREAM);
            h.within(HostKind::Annotation, "Optimizer.step#AdamW.step", |h| {
                h.work(70_000);
                for part in 0..4 {
                    h.within(HostKind::Operator, "aten::_fused_adamw_", |h| {
                        h.work(11_000);
                        let after = if part == 0 { reduced } else { 0 };
                        h.launch("cudaLaunchKernel", COMPUTE_STREAM, Work::Kernel, ADAM, 88_000, after);
                    });
                }
            });
        });
        if step % 4 == 3 {
            host.python("train.py(92): log", |h| {
                h.within(HostKind::Operator, "aten::item", |h| h.synchronize());
                h.work(180_000);
            });
        }
    }

    fn close_step(&self, host: &mut Host, step: u32, started: u64) {
        host.work(2_000);
        host.mark(started, HostKind::Annotation, &format!("ProfilerStep#{}", self.first_step + step));
        host.work(35_000);
    }
}

fn forward_block(host: &mut Host, allocate: bool) {
    host.within(HostKind::Operator, "aten::layer_norm", |h| {
        h.work(7_000);
        kernel(h, LAYER_NORM, 14_000)
    });
    host.within(HostKind::Operator, "aten::linear", |h| {
        h.within(HostKind::Operator, "aten::addmm", |h| {
            h.work(8_000);
            if allocate {
                h.plain_call("cudaMalloc", 210_000);
            }
            kernel(h, GEMM, 92_000)
        })
    });
    host.within(HostKind::Operator, "FlashAttnFunc", |h| {
        h.work(16_000);
        kernel(h, FLASH, 71_000)
    });
    host.within(HostKind::Operator, "aten::gelu", |h| {
        h.work(6_000);
        kernel(h, GELU, 18_000)
    });
}

/// Launches a kernel on the compute stream.
fn kernel(host: &mut Host, name: &'static str, mean_ns: u64) -> usize {
    host.launch("cudaLaunchKernel", COMPUTE_STREAM, Work::Kernel, name, mean_ns, 0)
}

fn all_reduce(host: &mut Host, gradient: usize, elements: u64) -> Bucket {
    let ready = host.ops.get(gradient).map_or(0, |op| op.end());
    let op = host.within(HostKind::Operator, "record_param_comms", |h| {
        h.within(HostKind::Annotation, "nccl:all_reduce", |h| {
            h.stream_wait(COMM_STREAM, COMPUTE_STREAM);
            h.work(12_000);
            h.launch("cudaLaunchKernelExC", COMM_STREAM, Work::AllReduce(elements), ALL_REDUCE, 1, ready)
        })
    });
    // 4 bytes an element at 21 GB/s: two GPUs on PCIe.
    Bucket { op, transfer_ns: elements * 4 / 21 }
}

/// Settles when the all-reduces of a step run, in their order.
fn meet(hosts: &mut [Host], buckets: &[Vec<Bucket>]) {
    let count = buckets.first().map_or(0, Vec::len);
    let mut before = 0;
    for at in 0..count {
        let asked: Vec<(usize, u64, u64)> = hosts
            .iter()
            .zip(buckets)
            .filter_map(|(h, b)| {
                b.get(at).map(|b| (b.op, h.ops[b.op].start.max(before + 700), b.transfer_ns))
            })
            .collect();
        let end = asked.iter().map(|(_, start, transfer)| start + transfer).max().unwrap_or(0);
        for (host, (op, start, _)) in hosts.iter_mut().zip(asked) {
            host.place(op, start, end);
        }
        before = end;
    }
}
