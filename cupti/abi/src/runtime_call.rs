//! Calls of the runtime API by the number that CUPTI gives them (`CUpti_runtime_api_trace_cbid`): those that are recorded.
//!
//! What the runtime asks of the driver it does not ask through the driver's public functions: in traces of programs that
//! use the runtime, `cudaLaunchKernel` has no `cuLaunchKernel` within it. So both layers are recorded, each by its table.
//! Names carry the version in which the call got its present form, as CUPTI's do. Numbers are the same in all versions.

use crate::call::{Call, Group};

macro_rules! calls {
    ($(($id:literal, $name:literal, $group:ident),)*) => {
        /// The calls that are recorded, by number.
        pub const RUNTIME_CALLS: &[Call] = &[$(Call { id: $id, name: $name, group: Group::$group }),*];
    };
}

/// The call with this number, where it is one that is recorded.
#[must_use]
pub fn runtime_call(id: u32) -> Option<&'static Call> {
    let index = RUNTIME_CALLS.binary_search_by_key(&id, |call| call.id).ok()?;
    RUNTIME_CALLS.get(index)
}

impl Call {
    /// The name as programs write it: without the version.
    #[must_use]
    pub fn plain_name(&self) -> &'static str {
        match self.name.rfind("_v") {
            Some(at)
                if self.name[at + 2..].bytes().all(|b| b.is_ascii_digit()) && self.name.len() > at + 4 =>
            {
                &self.name[..at]
            }
            _ => self.name,
        }
    }
}

calls! {
    (13, "cudaLaunch_v3020", Launch),
    (20, "cudaMalloc_v3020", Memory),
    (21, "cudaMallocPitch_v3020", Memory),
    (22, "cudaFree_v3020", Memory),
    (23, "cudaMallocArray_v3020", Memory),
    (24, "cudaFreeArray_v3020", Memory),
    (25, "cudaMallocHost_v3020", Memory),
    (26, "cudaFreeHost_v3020", Memory),
    (27, "cudaHostAlloc_v3020", Memory),
    (31, "cudaMemcpy_v3020", Copy),
    (32, "cudaMemcpy2D_v3020", Copy),
    (33, "cudaMemcpyToArray_v3020", Copy),
    (34, "cudaMemcpy2DToArray_v3020", Copy),
    (35, "cudaMemcpyFromArray_v3020", Copy),
    (36, "cudaMemcpy2DFromArray_v3020", Copy),
    (37, "cudaMemcpyArrayToArray_v3020", Copy),
    (38, "cudaMemcpy2DArrayToArray_v3020", Copy),
    (39, "cudaMemcpyToSymbol_v3020", Copy),
    (40, "cudaMemcpyFromSymbol_v3020", Copy),
    (41, "cudaMemcpyAsync_v3020", Copy),
    (42, "cudaMemcpyToArrayAsync_v3020", Copy),
    (43, "cudaMemcpyFromArrayAsync_v3020", Copy),
    (44, "cudaMemcpy2DAsync_v3020", Copy),
    (45, "cudaMemcpy2DToArrayAsync_v3020", Copy),
    (46, "cudaMemcpy2DFromArrayAsync_v3020", Copy),
    (47, "cudaMemcpyToSymbolAsync_v3020", Copy),
    (48, "cudaMemcpyFromSymbolAsync_v3020", Copy),
    (49, "cudaMemset_v3020", Copy),
    (50, "cudaMemset2D_v3020", Copy),
    (51, "cudaMemsetAsync_v3020", Copy),
    (52, "cudaMemset2DAsync_v3020", Copy),
    (126, "cudaThreadSynchronize_v3020", Wait),
    (131, "cudaStreamSynchronize_v3020", Wait),
    (137, "cudaEventSynchronize_v3020", Wait),
    (140, "cudaMalloc3D_v3020", Memory),
    (141, "cudaMalloc3DArray_v3020", Memory),
    (142, "cudaMemset3D_v3020", Copy),
    (143, "cudaMemset3DAsync_v3020", Copy),
    (144, "cudaMemcpy3D_v3020", Copy),
    (145, "cudaMemcpy3DAsync_v3020", Copy),
    (152, "cudaHostRegister_v4000", Memory),
    (153, "cudaHostUnregister_v4000", Memory),
    (160, "cudaMemcpyPeer_v4000", Copy),
    (161, "cudaMemcpyPeerAsync_v4000", Copy),
    (162, "cudaMemcpy3DPeer_v4000", Copy),
    (163, "cudaMemcpy3DPeerAsync_v4000", Copy),
    (165, "cudaDeviceSynchronize_v3020", Wait),
    (192, "cudaMallocMipmappedArray_v5000", Memory),
    (194, "cudaFreeMipmappedArray_v5000", Memory),
    (197, "cudaStreamAddCallback_v5000", Launch),
    (206, "cudaMallocManaged_v6000", Memory),
    (211, "cudaLaunchKernel_v7000", Launch),
    (213, "cudaLaunch_ptsz_v7000", Launch),
    (214, "cudaLaunchKernel_ptsz_v7000", Launch),
    (215, "cudaMemcpy_ptds_v7000", Copy),
    (216, "cudaMemcpy2D_ptds_v7000", Copy),
    (217, "cudaMemcpyToArray_ptds_v7000", Copy),
    (218, "cudaMemcpy2DToArray_ptds_v7000", Copy),
    (219, "cudaMemcpyFromArray_ptds_v7000", Copy),
    (220, "cudaMemcpy2DFromArray_ptds_v7000", Copy),
    (221, "cudaMemcpyArrayToArray_ptds_v7000", Copy),
    (222, "cudaMemcpy2DArrayToArray_ptds_v7000", Copy),
    (223, "cudaMemcpyToSymbol_ptds_v7000", Copy),
    (224, "cudaMemcpyFromSymbol_ptds_v7000", Copy),
    (225, "cudaMemcpyAsync_ptsz_v7000", Copy),
    (226, "cudaMemcpyToArrayAsync_ptsz_v7000", Copy),
    (227, "cudaMemcpyFromArrayAsync_ptsz_v7000", Copy),
    (228, "cudaMemcpy2DAsync_ptsz_v7000", Copy),
    (229, "cudaMemcpy2DToArrayAsync_ptsz_v7000", Copy),
    (230, "cudaMemcpy2DFromArrayAsync_ptsz_v7000", Copy),
    (231, "cudaMemcpyToSymbolAsync_ptsz_v7000", Copy),
    (232, "cudaMemcpyFromSymbolAsync_ptsz_v7000", Copy),
    (233, "cudaMemset_ptds_v7000", Copy),
    (234, "cudaMemset2D_ptds_v7000", Copy),
    (235, "cudaMemsetAsync_ptsz_v7000", Copy),
    (236, "cudaMemset2DAsync_ptsz_v7000", Copy),
    (239, "cudaStreamSynchronize_ptsz_v7000", Wait),
    (243, "cudaMemset3D_ptds_v7000", Copy),
    (244, "cudaMemset3DAsync_ptsz_v7000", Copy),
    (245, "cudaMemcpy3D_ptds_v7000", Copy),
    (246, "cudaMemcpy3DAsync_ptsz_v7000", Copy),
    (248, "cudaStreamAddCallback_ptsz_v7000", Launch),
    (249, "cudaMemcpy3DPeer_ptds_v7000", Copy),
    (250, "cudaMemcpy3DPeerAsync_ptsz_v7000", Copy),
    (252, "cudaMemPrefetchAsync_v8000", Copy),
    (253, "cudaMemPrefetchAsync_ptsz_v8000", Copy),
    (269, "cudaLaunchCooperativeKernel_v9000", Launch),
    (270, "cudaLaunchCooperativeKernel_ptsz_v9000", Launch),
    (272, "cudaLaunchCooperativeKernelMultiDevice_v9000", Launch),
    (284, "cudaLaunchHostFunc_v10000", Launch),
    (285, "cudaLaunchHostFunc_ptsz_v10000", Launch),
    (310, "cudaGraphInstantiate_v10000", Load),
    (311, "cudaGraphLaunch_v10000", Launch),
    (312, "cudaGraphLaunch_ptsz_v10000", Launch),
    (335, "cudaGraphExecUpdate_v10020", Load),
    (348, "cudaGraphUpload_v10000", Load),
    (349, "cudaGraphUpload_ptsz_v10000", Load),
    (373, "cudaMallocAsync_v11020", Memory),
    (374, "cudaMallocAsync_ptsz_v11020", Memory),
    (375, "cudaFreeAsync_v11020", Memory),
    (376, "cudaFreeAsync_ptsz_v11020", Memory),
    (391, "cudaMallocFromPoolAsync_v11020", Memory),
    (392, "cudaMallocFromPoolAsync_ptsz_v11020", Memory),
    (418, "cudaGraphInstantiateWithFlags_v11040", Load),
    (430, "cudaLaunchKernelExC_v11060", Launch),
    (431, "cudaLaunchKernelExC_ptsz_v11060", Launch),
    (436, "cudaGraphInstantiateWithParams_v12000", Load),
    (437, "cudaGraphInstantiateWithParams_ptsz_v12000", Load),
    (443, "cudaGraphInstantiate_v12000", Load),
    (449, "cudaMemPrefetchAsync_v12020", Copy),
    (450, "cudaMemPrefetchAsync_ptsz_v12020", Copy),
    (470, "cudaLibraryLoadData_v12060", Load),
    (471, "cudaLibraryLoadFromFile_v12060", Load),
    (482, "cudaMemcpyBatchAsync_v12080", Copy),
    (483, "cudaMemcpyBatchAsync_ptsz_v12080", Copy),
    (484, "cudaMemcpy3DBatchAsync_v12080", Copy),
    (485, "cudaMemcpy3DBatchAsync_ptsz_v12080", Copy),
    (487, "cudaMemPrefetchBatchAsync_v13000", Copy),
    (488, "cudaMemPrefetchBatchAsync_ptsz_v13000", Copy),
    (509, "cudaMemcpyBatchAsync_v13000", Copy),
    (510, "cudaMemcpyBatchAsync_ptsz_v13000", Copy),
    (511, "cudaMemcpy3DBatchAsync_v13000", Copy),
    (512, "cudaMemcpy3DBatchAsync_ptsz_v13000", Copy),
    (550, "cudaLaunchHostFunc_v2_v13020", Launch),
    (551, "cudaLaunchHostFunc_v2_ptsz_v13020", Launch),
    (554, "cudaMemcpyWithAttributesAsync_v13020", Copy),
    (555, "cudaMemcpyWithAttributesAsync_ptsz_v13020", Copy),
    (556, "cudaMemcpy3DWithAttributesAsync_v13020", Copy),
    (557, "cudaMemcpy3DWithAttributesAsync_ptsz_v13020", Copy),
}
