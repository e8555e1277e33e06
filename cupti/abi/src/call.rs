//! Calls of the driver API by the number that CUPTI gives them (`CUpti_driver_api_trace_cbid`): those that are recorded.
//!
//! Queries (`cuEventQuery`, `cuStreamQuery` …) are left out on purpose: programs spin on them. Numbers are never reused;
//! a call that a version does not know has a number that it refuses.

/// Why a call is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// It puts kernels, graphs or host functions on a stream.
    Launch,
    /// It copies, fills or moves memory.
    Copy,
    /// It waits for the device.
    Wait,
    /// It gets or gives back memory, which can wait for the device.
    Memory,
    /// It loads code or builds graphs, which can take long.
    Load,
}

/// A call of the driver API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub id: u32,
    /// Its name; `_ptsz` and `_ptds` are the variants for a default stream per thread.
    pub name: &'static str,
    /// Why it is recorded.
    pub group: Group,
}

/// `cuDeviceGetCount`: it changes nothing, waits for nothing and needs no context. The agent calls it to have a record that
/// must come back; of the job's own calls of it nothing is told.
pub const MARK_CALL: u32 = 4;

macro_rules! calls {
    ($(($id:literal, $name:literal, $group:ident),)*) => {
        /// The calls that are recorded, by number.
        pub const DRIVER_CALLS: &[Call] = &[$(Call { id: $id, name: $name, group: Group::$group }),*];
    };
}

/// The call with this number, where it is one that is recorded.
#[must_use]
pub fn driver_call(id: u32) -> Option<&'static Call> {
    let index = DRIVER_CALLS.binary_search_by_key(&id, |call| call.id).ok()?;
    DRIVER_CALLS.get(index)
}

calls! {
    (17, "cuCtxSynchronize", Wait),
    (18, "cuModuleLoad", Load),
    (19, "cuModuleLoadData", Load),
    (20, "cuModuleLoadDataEx", Load),
    (21, "cuModuleLoadFatBinary", Load),
    (38, "cuMemFreeHost", Memory),
    (39, "cuMemHostAlloc", Memory),
    (121, "cuEventSynchronize", Wait),
    (126, "cuStreamSynchronize", Wait),
    (216, "cuMemsetD8Async", Copy),
    (218, "cuMemsetD16Async", Copy),
    (220, "cuMemsetD32Async", Copy),
    (222, "cuMemsetD2D8Async", Copy),
    (224, "cuMemsetD2D16Async", Copy),
    (226, "cuMemsetD2D32Async", Copy),
    (243, "cuMemAlloc_v2", Memory),
    (244, "cuMemAllocPitch_v2", Memory),
    (245, "cuMemFree_v2", Memory),
    (249, "cuMemsetD8_v2", Copy),
    (250, "cuMemsetD16_v2", Copy),
    (251, "cuMemsetD32_v2", Copy),
    (252, "cuMemsetD2D8_v2", Copy),
    (253, "cuMemsetD2D16_v2", Copy),
    (254, "cuMemsetD2D32_v2", Copy),
    (276, "cuMemcpyHtoD_v2", Copy),
    (277, "cuMemcpyHtoDAsync_v2", Copy),
    (278, "cuMemcpyDtoH_v2", Copy),
    (279, "cuMemcpyDtoHAsync_v2", Copy),
    (280, "cuMemcpyDtoD_v2", Copy),
    (281, "cuMemcpyDtoDAsync_v2", Copy),
    (282, "cuMemcpyAtoH_v2", Copy),
    (283, "cuMemcpyAtoHAsync_v2", Copy),
    (284, "cuMemcpyAtoD_v2", Copy),
    (285, "cuMemcpyDtoA_v2", Copy),
    (286, "cuMemcpyAtoA_v2", Copy),
    (287, "cuMemcpy2D_v2", Copy),
    (288, "cuMemcpy2DUnaligned_v2", Copy),
    (289, "cuMemcpy2DAsync_v2", Copy),
    (290, "cuMemcpy3D_v2", Copy),
    (291, "cuMemcpy3DAsync_v2", Copy),
    (292, "cuMemcpyHtoA_v2", Copy),
    (293, "cuMemcpyHtoAAsync_v2", Copy),
    (294, "cuMemAllocHost_v2", Memory),
    (301, "cuMemHostRegister", Memory),
    (302, "cuMemHostUnregister", Memory),
    (305, "cuMemcpy", Copy),
    (306, "cuMemcpyAsync", Copy),
    (307, "cuLaunchKernel", Launch),
    (318, "cuMemcpyPeer", Copy),
    (319, "cuMemcpyPeerAsync", Copy),
    (320, "cuMemcpy3DPeer", Copy),
    (321, "cuMemcpy3DPeerAsync", Copy),
    (371, "cuMemAllocManaged", Memory),
    (379, "cuMemHostRegister_v2", Memory),
    (397, "cuMemcpyHtoD_v2_ptds", Copy),
    (398, "cuMemcpyDtoH_v2_ptds", Copy),
    (399, "cuMemcpyDtoD_v2_ptds", Copy),
    (400, "cuMemcpyDtoA_v2_ptds", Copy),
    (401, "cuMemcpyAtoD_v2_ptds", Copy),
    (402, "cuMemcpyHtoA_v2_ptds", Copy),
    (403, "cuMemcpyAtoH_v2_ptds", Copy),
    (404, "cuMemcpyAtoA_v2_ptds", Copy),
    (405, "cuMemcpy2D_v2_ptds", Copy),
    (406, "cuMemcpy2DUnaligned_v2_ptds", Copy),
    (407, "cuMemcpy3D_v2_ptds", Copy),
    (408, "cuMemcpy_ptds", Copy),
    (409, "cuMemcpyPeer_ptds", Copy),
    (410, "cuMemcpy3DPeer_ptds", Copy),
    (411, "cuMemsetD8_v2_ptds", Copy),
    (412, "cuMemsetD16_v2_ptds", Copy),
    (413, "cuMemsetD32_v2_ptds", Copy),
    (414, "cuMemsetD2D8_v2_ptds", Copy),
    (415, "cuMemsetD2D16_v2_ptds", Copy),
    (416, "cuMemsetD2D32_v2_ptds", Copy),
    (418, "cuMemcpyAsync_ptsz", Copy),
    (419, "cuMemcpyHtoAAsync_v2_ptsz", Copy),
    (420, "cuMemcpyAtoHAsync_v2_ptsz", Copy),
    (421, "cuMemcpyHtoDAsync_v2_ptsz", Copy),
    (422, "cuMemcpyDtoHAsync_v2_ptsz", Copy),
    (423, "cuMemcpyDtoDAsync_v2_ptsz", Copy),
    (424, "cuMemcpy2DAsync_v2_ptsz", Copy),
    (425, "cuMemcpy3DAsync_v2_ptsz", Copy),
    (426, "cuMemcpyPeerAsync_ptsz", Copy),
    (427, "cuMemcpy3DPeerAsync_ptsz", Copy),
    (428, "cuMemsetD8Async_ptsz", Copy),
    (429, "cuMemsetD16Async_ptsz", Copy),
    (430, "cuMemsetD32Async_ptsz", Copy),
    (431, "cuMemsetD2D8Async_ptsz", Copy),
    (432, "cuMemsetD2D16Async_ptsz", Copy),
    (433, "cuMemsetD2D32Async_ptsz", Copy),
    (440, "cuStreamSynchronize_ptsz", Wait),
    (442, "cuLaunchKernel_ptsz", Launch),
    (467, "cuMemPrefetchAsync", Copy),
    (468, "cuMemPrefetchAsync_ptsz", Copy),
    (477, "cuLaunchCooperativeKernel", Launch),
    (478, "cuLaunchCooperativeKernel_ptsz", Launch),
    (480, "cuLaunchCooperativeKernelMultiDevice", Launch),
    (513, "cuGraphInstantiate", Load),
    (514, "cuGraphLaunch", Launch),
    (515, "cuGraphLaunch_ptsz", Launch),
    (527, "cuLaunchHostFunc", Launch),
    (528, "cuLaunchHostFunc_ptsz", Launch),
    (549, "cuMemCreate", Memory),
    (550, "cuMemRelease", Memory),
    (551, "cuMemMap", Memory),
    (552, "cuMemUnmap", Memory),
    (553, "cuMemSetAccess", Memory),
    (578, "cuGraphInstantiate_v2", Load),
    (580, "cuGraphUpload", Load),
    (581, "cuGraphUpload_ptsz", Load),
    (598, "cuMemAllocAsync", Memory),
    (599, "cuMemAllocAsync_ptsz", Memory),
    (600, "cuMemFreeAsync", Memory),
    (601, "cuMemFreeAsync_ptsz", Memory),
    (611, "cuMemAllocFromPoolAsync", Memory),
    (612, "cuMemAllocFromPoolAsync_ptsz", Memory),
    (643, "cuGraphInstantiateWithFlags", Load),
    (652, "cuLaunchKernelEx", Launch),
    (653, "cuLaunchKernelEx_ptsz", Launch),
    (656, "cuGraphInstantiateWithParams", Load),
    (657, "cuGraphInstantiateWithParams_ptsz", Load),
    (678, "cuLibraryLoadData", Load),
    (679, "cuLibraryLoadFromFile", Load),
    (716, "cuMemPrefetchAsync_v2", Copy),
    (717, "cuMemPrefetchAsync_v2_ptsz", Copy),
    (776, "cuMemcpyBatchAsync", Copy),
    (777, "cuMemcpyBatchAsync_ptsz", Copy),
    (778, "cuMemcpy3DBatchAsync", Copy),
    (779, "cuMemcpy3DBatchAsync_ptsz", Copy),
    (784, "cuMemPrefetchBatchAsync", Copy),
    (785, "cuMemPrefetchBatchAsync_ptsz", Copy),
    (796, "cuMemcpyBatchAsync_v2", Copy),
    (797, "cuMemcpyBatchAsync_v2_ptsz", Copy),
    (798, "cuMemcpy3DBatchAsync_v2", Copy),
    (799, "cuMemcpy3DBatchAsync_v2_ptsz", Copy),
    (800, "cuCtxSynchronize_v2", Wait),
    (831, "cuLaunchHostFunc_v2", Launch),
    (832, "cuLaunchHostFunc_v2_ptsz", Launch),
    (837, "cuMemcpyWithAttributesAsync", Copy),
    (838, "cuMemcpyWithAttributesAsync_ptsz", Copy),
    (839, "cuMemcpy3DWithAttributesAsync", Copy),
    (840, "cuMemcpy3DWithAttributesAsync_ptsz", Copy),
}
