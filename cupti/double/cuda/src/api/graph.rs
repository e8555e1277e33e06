//! Graphs made of explicit nodes. A launch runs every node after those that it depends on; nodes that do not depend on
//! each other run side by side.

use std::ffi::{c_char, c_void};

use stallscope_double_shared::link::{Memory, Op, OpKind};
use stallscope_double_shared::{sys, truth};

use super::{kernel, put};
use crate::calls::{Call, call};
use crate::engine::{self, Submission};
use crate::launch::{self, Launch};
use crate::model::{Marker, Work};
use crate::state::{Error, Graph, Handle, Node, NodeWork, State, Status, Tag};

#[unsafe(no_mangle)]
extern "C" fn cuGraphCreate(graph: Option<&mut Handle>, _flags: u32) -> Status {
    call(501, c"cuGraphCreate", |_| {
        let mut state = engine::lock();
        let handle = state.handle();
        let id = state.graph_id();
        state.graphs.insert(handle, Graph { id, nodes: Vec::new() });
        put(graph, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: Handle) -> Status {
    call(517, c"cuGraphDestroy", |_| {
        let mut state = engine::lock();
        state.nodes.retain(|_, (of, _)| *of != graph);
        state.graphs.remove(&graph).map(|_| ()).ok_or(Error::InvalidHandle)
    })
}

fn add_node(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    work: NodeWork,
) -> Result<(), Error> {
    let after: &[Handle] = if after.is_null() || count == 0 {
        &[]
    } else {
        // SAFETY: the caller passes an array of so many handles.
        unsafe { std::slice::from_raw_parts(after, count) }
    };
    let mut state = engine::lock();
    let after = after.iter().map(|n| match state.nodes.get(n) {
        Some((of, index)) if *of == graph => Ok(*index),
        _ => Err(Error::InvalidHandle),
    });
    let after = after.collect::<Result<Vec<usize>, Error>>()?;
    let handle = state.handle();
    let known = state.graphs.get_mut(&graph).ok_or(Error::InvalidHandle)?;
    // CUPTI's numbers of nodes hold the graph's in their upper half.
    let id = (u64::from(known.id) << 32) + known.nodes.len() as u64;
    known.nodes.push(Node { id, after, work });
    let index = known.nodes.len() - 1;
    state.nodes.insert(handle, (graph, index));
    put(node, handle)
}

/// The beginning of CUDA_KERNEL_NODE_PARAMS, the same in both of its versions.
#[repr(C)]
struct KernelParameters {
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    parameters: *const *const u64,
}

fn add_kernel(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&KernelParameters>,
) -> Result<(), Error> {
    let &KernelParameters { function, grid, block, parameters, .. } =
        parameters.ok_or(Error::InvalidValue)?;
    let duration_ns = kernel::duration_ns(parameters);
    add_node(node, graph, after, count, NodeWork::Kernel { function, duration_ns, grid, block })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphAddKernelNode(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&KernelParameters>,
) -> Status {
    call(502, c"cuGraphAddKernelNode", |_| add_kernel(node, graph, after, count, parameters))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphAddKernelNode_v2(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&KernelParameters>,
) -> Status {
    call(689, c"cuGraphAddKernelNode_v2", |_| add_kernel(node, graph, after, count, parameters))
}

/// CUDA_MEMSET_NODE_PARAMS.
#[repr(C)]
struct SetParameters {
    to: u64,
    pitch: usize,
    value: u32,
    element_bytes: u32,
    width: usize,
    height: usize,
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphAddMemsetNode(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: Option<&SetParameters>,
    _context: Handle,
) -> Status {
    call(506, c"cuGraphAddMemsetNode", |_| {
        let p = parameters.ok_or(Error::InvalidValue)?;
        let elements = p.width.saturating_mul(p.height);
        let bytes = u64::try_from(elements).unwrap_or(u64::MAX).saturating_mul(p.element_bytes.into());
        add_node(node, graph, after, count, NodeWork::Set { bytes, value: p.value })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphAddEmptyNode(
    node: Option<&mut Handle>,
    graph: Handle,
    after: *const Handle,
    count: usize,
) -> Status {
    call(526, c"cuGraphAddEmptyNode", |_| add_node(node, graph, after, count, NodeWork::Empty))
}

fn instantiate(executable: Option<&mut Handle>, graph: Handle) -> Result<(), Error> {
    let mut state = engine::lock();
    let nodes = state.graphs.get(&graph).ok_or(Error::InvalidHandle)?.nodes.clone();
    let handle = state.handle();
    let id = state.graph_id();
    state.executables.insert(handle, Graph { id, nodes });
    put(executable, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiate_v2(
    executable: Option<&mut Handle>,
    graph: Handle,
    _error_node: *mut Handle,
    _log: *mut c_char,
    _log_bytes: usize,
) -> Status {
    call(578, c"cuGraphInstantiate_v2", |_| instantiate(executable, graph))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(
    executable: Option<&mut Handle>,
    graph: Handle,
    _flags: u64,
) -> Status {
    call(643, c"cuGraphInstantiateWithFlags", |_| instantiate(executable, graph))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithParams(
    executable: Option<&mut Handle>,
    graph: Handle,
    _parameters: *const c_void,
) -> Status {
    call(656, c"cuGraphInstantiateWithParams", |_| instantiate(executable, graph))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: Handle) -> Status {
    call(516, c"cuGraphExecDestroy", |_| {
        engine::lock().executables.remove(&executable).map(|_| ()).ok_or(Error::InvalidHandle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: Handle, stream: Handle) -> Status {
    call(514, c"cuGraphLaunch", |call| {
        engine::with_room(stream, call, |state, handle| run(state, executable, handle, call))
    })
}

/// Submit a beginning, every node, and an end that waits for all of them.
fn run(state: &mut State, executable: Handle, stream: Handle, call: &Call) -> Result<(), Error> {
    let Graph { id, nodes } = state.executables.get(&executable).ok_or(Error::InvalidHandle)?.clone();
    let (gap_ns, latency_ns, inner_gap_ns) =
        (state.tuning.kernel_gap_ns, state.tuning.kernel_latency_ns, state.tuning.graph_gap_ns);
    let blank = Op { graph: id, ..launch::blank(state, stream, call.correlation) };
    let after = state.before(stream, call.enter_ns)?;
    let work = Work::For(0);
    let tag = Box::new(launch::tag(blank, None, call));
    let (_, begin) = engine::submit(state, Submission { after, gap_ns, latency_ns, work, tag });
    let mut ends: Vec<Marker> = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let (after, gap_ns) = if node.after.is_empty() {
            (vec![begin.clone()], 0)
        } else {
            (node.after.iter().filter_map(|&n| ends.get(n).cloned()).collect(), inner_gap_ns)
        };
        let record = Op { node: node.id, ..blank };
        let (work, tag) = describe(state, &node.work, record, call)?;
        let tag = Box::new(tag);
        let (_, end) = engine::submit(state, Submission { after, gap_ns, latency_ns: 0, work, tag });
        ends.push(end);
    }
    ends.push(begin.clone());
    let record = Op { kind: OpKind::Graph, ..blank };
    let tag = Box::new(Tag { since: Some(begin), ..launch::tag(record, None, call) });
    let submission = Submission { after: ends, gap_ns: 0, latency_ns: 0, work: Work::For(0), tag };
    let (_, end) = engine::submit(state, submission);
    engine::append(state, stream, end);
    Ok(())
}

fn describe(state: &mut State, node: &NodeWork, blank: Op, call: &Call) -> Result<(Work, Tag), Error> {
    match *node {
        NodeWork::Kernel { function, duration_ns, grid, block } => {
            let Launch { record, kind, work, slowed_ns, .. } =
                kernel::describe(state, blank, function, duration_ns, (grid, block))?;
            Ok((work, Tag { slowed_ns, ..launch::tag(record, Some(kind), call) }))
        }
        NodeWork::Set { bytes, value } => {
            let work = Work::For(state.tuning.copy_ns(bytes, state.tuning.device_gbps));
            let (kind, to, name) = (OpKind::Set, Memory::Device, sys::intern("memset"));
            let record = Op { kind, name, to, bytes, value, ..blank };
            Ok((work, launch::tag(record, Some(truth::OpKind::Set), call)))
        }
        NodeWork::Empty => Ok((Work::For(0), launch::tag(blank, None, call))),
    }
}
