//! What a worker of a pipelined training job did, as its trace says it: the operation's place in the job.

numbered_enum! {
    /// What a [`RecordKind::PipelineOp`](super::RecordKind::PipelineOp) does. Names are those of the stragglers trace.
    PipelineOpKind: u8 {
        /// A kind that this version does not know.
        Other = 0 "other",
        /// The forward pass of a micro-batch through a model chunk.
        ForwardCompute = 1 "forward-compute",
        /// The backward pass of a micro-batch through a model chunk.
        BackwardCompute = 2 "backward-compute",
        /// Activations to the next stage.
        ForwardSend = 3 "forward-send",
        /// Activations from the stage before.
        ForwardRecv = 4 "forward-recv",
        /// Gradients to the stage before.
        BackwardSend = 5 "backward-send",
        /// Gradients from the next stage.
        BackwardRecv = 6 "backward-recv",
        /// Parameters gathered over the data-parallel ranks.
        ParamsAllGather = 7 "params-all-gather",
        /// Gradients reduced and scattered over the data-parallel ranks.
        GradsReduceScatter = 8 "grads-reduce-scatter",
        /// Gradients that are reduced by themselves, over the data-parallel ranks.
        SeparateGradsAllReduce = 9 "separate-grads-all-reduce",
        /// Gradients of layer norms, reduced over the tensor-parallel ranks.
        LayernormGradsAllReduce = 10 "layernorm-grads-all-reduce",
        /// Gradients of the embedding, reduced over the first and the last stage.
        EmbeddingGradsAllReduce = 11 "embedding-grads-all-reduce",
        /// The norm of all gradients, agreed on by all ranks.
        OptimizerClipMainGrad = 12 "optimizer-clip-main-grad",
        /// The optimizer's step.
        Optimizer = 13 "optimizer",
        /// Python's garbage collection, on the host.
        GarbageCollection = 14 "gc",
    }
}

impl PipelineOpKind {
    /// The kind that the trace calls so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind != Self::Other && kind.name() == name)
    }

    /// Whether it moves data between ranks.
    #[must_use]
    pub fn is_communication(self) -> bool {
        !matches!(
            self,
            Self::Other
                | Self::ForwardCompute
                | Self::BackwardCompute
                | Self::Optimizer
                | Self::GarbageCollection
        )
    }
}

/// Columns of [`RecordKind::PipelineOp`](super::RecordKind::PipelineOp), sorted by start.
pub mod pipeline_op {
    /// Start, ns.
    pub const START: u16 = 0;
    /// Duration, ns.
    pub const DURATION: u16 = 1;
    /// A `PipelineOpKind`.
    pub const KIND: u16 = 2;
    /// Name of the operation in the trace (string id).
    pub const NAME: u16 = 3;
    /// Number of the training step.
    pub const STEP: u16 = 4;
    /// Data-parallel rank of the worker.
    pub const DP_RANK: u16 = 5;
    /// Pipeline stage of the worker.
    pub const STAGE: u16 = 6;
    /// Position among the operations of its kind, step and worker.
    pub const SEQUENCE: u16 = 7;
    /// Model chunk within the stage, plus one; 0 where the operation belongs to none.
    pub const CHUNK: u16 = 8;
    /// Model chunk within the model, plus one; 0 where the operation belongs to none.
    pub const GLOBAL_CHUNK: u16 = 9;
    /// Micro-batch, plus one; 0 where the operation belongs to none.
    pub const MICROBATCH: u16 = 10;
    /// How many columns there are.
    pub const COUNT: u16 = 11;
}
