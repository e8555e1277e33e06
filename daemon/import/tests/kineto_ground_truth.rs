//! Real traces that nobody here made: counts and times known from elsewhere.

mod kineto_support;

use std::fs::File;

use kineto_support::{Import, ground_truth};
use stallscope_core::rows::{DeviceSpan, GpuOp, HostSpan, Row};
use stallscope_import::Format;
use stallscope_import::kineto::Limits;
use stallscope_schemas::record::{OpKind, SpanKind};

struct Expected {
    file: &'static str,
    model: &'static str,
    gpu_ops: usize,
    /// Operations whose host call lies before the trace.
    without_launch: u64,
    first_ns: i64,
    span_ns: i64,
}

const TRACES: [Expected; 5] = [
    Expected {
        file: "kineto/resnet50_num_workers_0.json.gz",
        model: "Tesla V100-DGXS-32GB",
        gpu_ops: 9096,
        without_launch: 0,
        first_ns: 1_623_142_623_529_248_000,
        span_ns: 996_477_000,
    },
    Expected {
        file: "tracelens/h100/Falconsai_nsfw_image_detection__1016002.json.gz",
        model: "NVIDIA H100 80GB HBM3",
        gpu_ops: 156,
        without_launch: 0,
        first_ns: 1_751_410_836_000_000_000 + 1_414_456_661_852_962,
        span_ns: 7_559_844,
    },
    Expected {
        file: "tracelens/h100/Qwen_Qwen1.5-0.5B-Chat__1016005.json.gz",
        model: "NVIDIA H100 80GB HBM3",
        gpu_ops: 1465 + 241 + 1,
        without_launch: 509,
        first_ns: 1_752_839_461_731_622_250,
        span_ns: 49_652_832,
    },
    Expected {
        file: "tracelens/h100/facebook_timesformer-base-finetuned-k400__1016002.json.gz",
        model: "NVIDIA H100 80GB HBM3",
        gpu_ops: 446 + 86 + 2,
        without_launch: 0,
        first_ns: 1_752_831_015_703_274_099,
        span_ns: 159_992_427,
    },
    Expected {
        file: "tracelens/mi300/Falconsai_nsfw_image_detection__1016002.json.gz",
        model: "AMD Instinct MI300X VF",
        gpu_ops: 155,
        without_launch: 0,
        first_ns: 1_751_410_836_000_000_000 + 2_199_280_223_674_156,
        span_ns: 6_868_849,
    },
];

fn import(name: &str) -> Option<Import> {
    let path = ground_truth(name)?;
    let file = File::open(&path).expect("readable");
    Some(Import::read(&path.to_string_lossy(), file, Format::JsonGz, Limits::default()))
}

#[test]
fn operations_of_real_traces_are_all_there_and_exact() {
    for expected in &TRACES {
        let Some(import) = import(expected.file) else { continue };
        let ops = import.rows::<GpuOp>();
        let first = ops.iter().map(|op| op.start).min().expect("operations");
        let last = ops.iter().map(Row::end).max().expect("operations");
        assert_eq!(ops.len(), expected.gpu_ops, "{}", expected.file);
        assert_eq!((first.0, last.0 - first.0), (expected.first_ns, expected.span_ns), "{}", expected.file);
        let unlaunched = ops.iter().filter(|op| op.launch.is_none()).count() as u64;
        assert_eq!(unlaunched, expected.without_launch, "{}", expected.file);
        let mut losses = import.losses();
        losses.retain(|&loss| loss != ("launch_missing", expected.without_launch));
        assert_eq!(losses, [], "{}", expected.file);
        let tables = import.capture.tables();
        assert_eq!((tables.devices().len(), tables.devices()[0].model.as_str()), (1, expected.model));
        assert_eq!(tables.processes().len(), 1, "{}", expected.file);
    }
}

#[test]
fn what_the_device_and_the_host_did_is_told_apart_in_real_traces() {
    if let Some(import) = import(TRACES[0].file) {
        let ops = import.rows::<GpuOp>();
        let of = |kind: OpKind| ops.iter().filter(|op| op.kind == kind).count();
        assert_eq!([of(OpKind::Kernel), of(OpKind::Memcpy), of(OpKind::Memset)], [8772, 12, 312]);
        let spans = import.rows::<HostSpan>();
        assert_eq!(spans.iter().filter(|span| span.kind == SpanKind::Step).count(), 6);
        assert_eq!(spans.iter().filter(|span| span.stack.0 != 0).count(), 14_994);
    }
    if let Some(import) = import(TRACES[4].file) {
        let spans = import.rows::<HostSpan>();
        assert_eq!(spans.iter().filter(|span| span.kind == SpanKind::Python).count(), 2121);
        assert_eq!(
            import.capture.tables().threads().len(),
            2,
            "a thread that ran no operator stays apart from the main thread"
        );
        assert_eq!(import.rows::<DeviceSpan>()[0].kind, SpanKind::Step);
    }
}
