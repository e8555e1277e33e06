//! What the events of Kineto and Chrome traces become.

mod kineto_support;

use kineto_support::{Import, document, kernel, launch};
use stallscope_core::rows::{ApiCall, Collective, DeviceSpan, GpuOp, HostSpan, StreamWait};
use stallscope_import::Format;
use stallscope_import::kineto::Limits;
use stallscope_schemas::record::{CopyKind, OpKind, SpanKind, op_flags};
use stallscope_schemas::units::TimeNs;

#[test]
fn an_operation_leaves_with_its_launch_whichever_comes_first() {
    let (k1, k2) = (kernel("2000.5", "3.25", 5), kernel("2010", "1", 6));
    let (l1, l2) = (launch("1000", "10.1", 5), launch("1020", "2", 6));
    let import = Import::of(document(&[&k1, &l1, &l2, &k2]));
    let ops = import.rows::<GpuOp>();
    assert_eq!(ops.len(), 2);
    assert_eq!((ops[0].start, ops[0].duration_ns, ops[0].stream), (TimeNs(2_000_500), 3_250, 7));
    let launches: Vec<_> = ops.iter().map(|op| op.launch.expect("joined")).collect();
    assert_eq!((launches[0].start, launches[0].duration_ns), (TimeNs(1_000_000), 10_100));
    assert_eq!(launches[1].start, TimeNs(1_020_000));
    assert_eq!(import.string(launches[0].name), "cudaLaunchKernel");
    assert_eq!(import.losses(), []);
    let tables = import.capture.tables();
    assert_eq!((tables.threads()[0].tid, tables.processes()[0].pid), (43, 42));
    assert_eq!(tables.devices()[0].processes.len(), 1);
    let imported = import.result.as_ref().expect("imports");
    assert_eq!((imported.gpu_ops, imported.host_records, imported.format), (2, 2, Format::Json));
}

#[test]
fn a_base_time_after_the_events_moves_them_all_to_unix_time() {
    let events = document(&[&kernel("1414456661852.962", "2.272", 1)]);
    let text = format!("{},\"baseTimeNanoseconds\": 1751410836000000000}}", &events[..events.len() - 1]);
    let import = Import::of(text);
    assert_eq!(import.rows::<GpuOp>()[0].start, TimeNs(1_752_825_292_661_852_962));
}

#[test]
fn times_in_quotes_with_exponents_or_byte_order_mark_are_exact() {
    let text = document(&[
        &kernel("\"1623142623460111\"", "\"2.5\"", 1),
        &kernel("1.6231426234601125e15", "1e0", 2),
    ]);
    let import = Import::of(format!("\u{feff}{text}"));
    let times: Vec<_> = import.rows::<GpuOp>().iter().map(|op| (op.start.0, op.duration_ns)).collect();
    assert_eq!(times, [(1_623_142_623_460_111_000, 2_500), (1_623_142_623_460_112_500, 1_000)]);
}

#[test]
fn a_bare_array_is_a_trace_even_without_its_closing_bracket() {
    for text in [format!("[{}]", kernel("1", "2", 0)), format!("[{},\n", kernel("1", "2", 0))] {
        let import = Import::of(&text);
        assert_eq!(
            (import.rows::<GpuOp>().len(), import.losses()),
            (1, vec![("launch_missing", 1)]),
            "{text}"
        );
    }
}

#[test]
fn metadata_around_the_events_names_devices_processes_and_ranks() {
    let text = format!(
        r#"{{"huge":{{"a":[[[{{"traceEvents":[1]}}]]],"b":"]}}"}},"hostname":"node-1",
        "distributedInfo":{{"backend":"nccl","rank":3,"world_size":8}},
        "traceEvents":[{},{},
        {{"ph":"M","name":"process_name","pid":42,"tid":0,"ts":1,"args":{{"name":"python3"}}}},
        {{"ph":"M","name":"process_name","pid":0,"tid":0,"ts":1,"args":{{"name":"python3"}}}},
        {{"ph":"M","name":"thread_name","pid":42,"tid":"43","ts":1,"args":{{"name":"thread 43 (python3)"}}}}],
        "deviceProperties":[{{"id":0,"name":"NVIDIA H100"}},{{"id":1,"name":"NVIDIA B200"}}]}}"#,
        launch("1", "1", 1),
        kernel("2", "1", 1),
    );
    let import = Import::of(text);
    let tables = import.capture.tables();
    assert_eq!(tables.devices().len(), 1);
    assert_eq!(
        (tables.devices()[0].id.as_str(), tables.devices()[0].model.as_str()),
        ("rank3-gpu0", "NVIDIA H100")
    );
    let [process] = tables.processes() else {
        panic!("the GPU's pid is no process: {:?}", tables.processes())
    };
    assert_eq!((process.name.as_str(), process.rank, process.world_size), ("python3", Some(3), Some(8)));
    assert_eq!((process.host.as_str(), import.capture.host()), ("node-1", "node-1"));
    assert_eq!(tables.threads()[0].name, "thread 43 (python3)");
    assert_eq!(
        (tables.sources()[0].path.as_str(), tables.sources()[0].format.as_str()),
        ("trace.json", "kineto")
    );
}

#[test]
fn the_rank_may_stand_in_the_file_name() {
    let text = document(&[&kernel("1", "1", 0)]);
    let import = Import::read("/x/rank_5.json", text.as_bytes(), Format::Json, Limits::default());
    let tables = import.capture.tables();
    assert_eq!((tables.devices()[0].id.as_str(), tables.processes()[0].rank), ("rank5-gpu0", Some(5)));
}

#[test]
fn copies_fills_and_graph_nodes_are_told_apart() {
    let import = Import::of(document(&[
        r#"{"ph":"X","cat":"Memcpy","name":"Memcpy HtoD (Pageable -> Device)","pid":0,"tid":"stream 7","ts":1,"dur":1,
            "args":{"device":0,"bytes":1024,"correlation":1}}"#,
        r#"{"ph":"X","cat":"gpu_memset","name":"Memset (Device)","pid":0,"tid":7,"ts":2,"dur":1,"args":{"stream":9}}"#,
        r#"{"ph":"X","cat":"KERNEL","name":"CopyDeviceToHost","pid":0,"tid":7,"ts":3,"dur":1,"args":{}}"#,
        r#"{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":4,"dur":1,"args":{"graph node id":17}}"#,
        r#"{"ph":"X","cat":"gpu_memcpy","name":"copy","pid":0,"tid":7,"ts":5,"dur":1,"args":{"kind":"DtoD"}}"#,
    ]));
    let ops = import.rows::<GpuOp>();
    let seen: Vec<_> = ops.iter().map(|op| (op.kind, op.copy_kind, op.stream, op.bytes, op.flags)).collect();
    assert_eq!(
        seen,
        [
            (OpKind::Memcpy, CopyKind::HostToDevicePageable, 7, 1024, 0),
            (OpKind::Memset, CopyKind::Unknown, 9, 0, 0),
            (OpKind::Memcpy, CopyKind::DeviceToHost, 7, 0, 0),
            (OpKind::Kernel, CopyKind::Unknown, 7, 0, op_flags::GRAPH_NODE),
            (OpKind::Memcpy, CopyKind::DeviceToDevice, 7, 0, 0),
        ]
    );
}

#[test]
fn every_device_of_a_file_is_a_device_of_the_capture() {
    let on = |device: u32, pid: u32| {
        format!(
            r#"{{"ph":"X","cat":"kernel","name":"k","pid":{pid},"tid":7,"ts":1,"dur":1,"args":{{"device":{device}}}}}"#
        )
    };
    let import = Import::of(document(&[&on(0, 0), &on(1, 1), &on(1, 0)]));
    let ids: Vec<_> = import.capture.tables().devices().iter().map(|d| (d.id.as_str(), d.ordinal)).collect();
    assert_eq!(ids, [("trace-gpu0", 0), ("trace-gpu1", 1)]);
}

#[test]
fn host_ranges_keep_their_kinds_and_old_operators_their_stacks() {
    let import = Import::of(document(&[
        &kernel("9", "1", 0),
        r#"{"ph":"X","cat":"Operator","name":"aten::add","pid":1,"tid":"1","ts":1,"dur":9,
            "args":{"Input Dims":[[1],[]],"Call stack":"a.py(2): inner;b.py(1): <module>"}}"#,
        r#"{"ph":"X","cat":"user_annotation","name":"ProfilerStep#6","pid":1,"tid":1,"ts":2,"dur":5,"args":{}}"#,
        r#"{"ph":"X","cat":"user_annotation","name":"my \"range\"","pid":1,"tid":1,"ts":3,"dur":0,"args":{}}"#,
        r#"{"ph":"X","cat":"python_function","name":"a.py(2): inner","pid":0,"tid":0,"ts":4,"dur":2}"#,
        r#"{"ph":"X","cat":"gpu_user_annotation","name":"ProfilerStep#6","pid":0,"tid":7,"ts":9,"dur":1,"args":{}}"#,
        r#"{"ph":"X","cat":"Trace","name":"PyTorch Profiler (0)","pid":"Traces","tid":"x","ts":1,"dur":9}"#,
        r#"{"ph":"i","s":"t","name":"[memory]","pid":1,"tid":1,"ts":1}"#,
        r#"{"ph":"f","id":1,"pid":1,"tid":1,"ts":1,"cat":"ac2g","name":"ac2g","bp":"e"}"#,
    ]));
    let spans = import.rows::<HostSpan>();
    let seen: Vec<_> = spans.iter().map(|s| (s.kind, import.string(s.name), s.duration_ns)).collect();
    assert_eq!(
        seen,
        [
            (SpanKind::Operator, "aten::add", 9_000),
            (SpanKind::Step, "ProfilerStep#6", 5_000),
            (SpanKind::Annotation, "my \"range\"", 0),
            (SpanKind::Python, "a.py(2): inner", 2_000),
        ]
    );
    let tables = import.capture.tables();
    let frames: Vec<_> =
        tables.stack_names(spans[0].stack).into_iter().map(|name| tables.string(name)).collect();
    assert_eq!(frames, ["b.py(1): <module>", "a.py(2): inner"]);
    assert_eq!(
        (tables.threads().len(), tables.processes().len()),
        (2, 1),
        "a python function without a thread stays apart, in its process"
    );
    let device_spans = import.rows::<DeviceSpan>();
    assert_eq!((device_spans.len(), device_spans[0].kind), (1, SpanKind::Step));
    assert_eq!(import.losses(), [("launch_missing", 1)]);
}

#[test]
fn metadata_of_a_collective_becomes_a_row_and_a_flag() {
    let import = Import::of(document(&[
        r#"{"ph":"X","cat":"kernel","name":"ncclDevKernel_AllReduce","pid":0,"tid":20,"ts":10,"dur":5,
            "args":{"device":0,"stream":20,"correlation":3,"Collective name":"allreduce","In msg nelems":1000,
            "Out msg nelems":1000,"Group size":8,"dtype":"BFloat16","Process Group Name":"2",
            "Process Group Ranks":"[0, 1]","Seq":12}}"#,
    ]));
    assert_eq!(import.rows::<GpuOp>()[0].flags, op_flags::COLLECTIVE_METADATA);
    let [row] = import.rows::<Collective>()[..] else { panic!("one collective") };
    assert_eq!((row.start, row.duration_ns, row.bytes, row.group_size), (TimeNs(10_000), 5_000, 2000, 8));
    assert_eq!(
        (import.string(row.name), import.string(row.group), row.sequence),
        ("allreduce", "2", Some(12))
    );
}

#[test]
fn a_launch_inside_a_collective_range_of_its_thread_communicates() {
    let range = |tid: u32| {
        format!(
            r#"{{"ph":"X","cat":"user_annotation","name":"nccl:all_reduce","pid":42,"tid":{tid},"ts":100,"dur":50}}"#
        )
    };
    for (tid, at, collective) in [(43, "120", true), (43, "160", false), (44, "120", false)] {
        let import = Import::of(document(&[&range(tid), &launch(at, "1", 1), &kernel("200", "1", 1)]));
        let flags = import.rows::<GpuOp>()[0].flags;
        assert_eq!(flags & op_flags::COLLECTIVE_CORRELATED != 0, collective, "thread {tid}, {at}");
    }
}

#[test]
fn stream_waits_are_kept_and_other_synchronisations_are_not() {
    let import = Import::of(document(&[
        &kernel("1", "1", 0),
        r#"{"ph":"X","cat":"cuda_sync","name":"Stream Wait Event","pid":0,"tid":7,"ts":5,"dur":2,"args":{
            "cuda_sync_kind":"Stream Wait Event","stream":7,"correlation":9,"device":0,"wait_on_stream":20}}"#,
        r#"{"ph":"X","cat":"cuda_sync","name":"Stream Wait Event","pid":0,"tid":7,"ts":6,"dur":2,"args":{
            "cuda_sync_kind":"Stream Wait Event","stream":7,"correlation":10,"device":0,"wait_on_stream":-1}}"#,
        r#"{"ph":"X","cat":"cuda_sync","name":"Context Synchronize","pid":0,"tid":7,"ts":7,"dur":2,"args":{
            "cuda_sync_kind":"Context Synchronize","stream":-1,"device":0}}"#,
    ]));
    let waits: Vec<_> =
        import.rows::<StreamWait>().iter().map(|w| (w.start.0, w.stream, w.on_stream)).collect();
    assert_eq!(waits, [(5_000, 7, Some(20)), (6_000, 7, None)]);
}

#[test]
fn begins_and_ends_pair_up_by_thread_and_the_rest_is_counted() {
    let mark = |phase: &str, name: &str, tid: u32, at: u32| {
        format!(r#"{{"ph":"{phase}","cat":"cpu_op","name":"{name}","pid":1,"tid":{tid},"ts":{at}}}"#)
    };
    let events = [
        mark("B", "outer", 1, 10),
        mark("B", "other", 2, 11),
        mark("B", "inner", 1, 12),
        mark("E", "", 1, 15),
        mark("E", "", 1, 20),
        mark("E", "", 1, 21),
        kernel("1", "1", 0),
    ];
    let import = Import::of(document(&events.each_ref().map(String::as_str)));
    let spans = import.rows::<HostSpan>();
    let seen: Vec<_> = spans.iter().map(|s| (import.string(s.name), s.start.0, s.duration_ns)).collect();
    assert_eq!(seen, [("outer", 10_000, 10_000), ("inner", 12_000, 3_000)]);
    assert_eq!(import.losses(), [("launch_missing", 1), ("span_unmatched", 2)]);
}

#[test]
fn traces_without_categories_are_read_by_the_names_of_their_lines() {
    let import = Import::of(document(&[
        r#"{"ph":"M","pid":1,"name":"process_name","args":{"name":"/device:GPU:0"}}"#,
        r#"{"ph":"M","pid":1,"tid":13,"name":"thread_name","args":{"name":"Stream #13(Compute)"}}"#,
        r#"{"ph":"M","pid":1,"tid":2,"name":"thread_name","args":{"name":"XLA Modules"}}"#,
        r#"{"ph":"M","pid":701,"name":"process_name","args":{"name":"/host:CPU"}}"#,
        r#"{"ph":"X","pid":1,"tid":13,"ts":10.5,"dur":3.25,"name":"fusion_1","args":{"correlation_id":"77"}}"#,
        r#"{"ph":"X","pid":1,"tid":13,"ts":20,"dur":3,"name":"MemcpyH2D","args":{
            "memcpy_details":"kind_src:pinned kind_dst:device size:4096 dest:0 async:1"}}"#,
        r#"{"ph":"X","pid":1,"tid":2,"ts":10,"dur":20,"name":"jit_f"}"#,
        r#"{"ph":"X","pid":701,"tid":5,"ts":1,"dur":2,"name":"cuLaunchKernel","args":{"correlation_id":"77"}}"#,
        r#"{"ph":"X","pid":701,"tid":5,"ts":0,"dur":9,"name":"$train.py:12 step"}"#,
    ]));
    let ops = import.rows::<GpuOp>();
    assert_eq!(
        (ops[0].stream, ops[0].kind, ops[0].launch.map(|l| l.start)),
        (13, OpKind::Kernel, Some(TimeNs(1_000)))
    );
    assert_eq!((ops[1].copy_kind, ops[1].bytes), (CopyKind::HostToDevice, 4096));
    assert_eq!(import.rows::<DeviceSpan>().len(), 1);
    assert_eq!(import.rows::<HostSpan>()[0].kind, SpanKind::Python);
    assert_eq!(import.rows::<ApiCall>(), []);
}

#[test]
fn overlapping_operations_of_a_stream_are_counted_and_kept() {
    let import = Import::of(document(&[&kernel("0", "10", 1), &kernel("5", "10", 2), &kernel("15", "1", 3)]));
    assert_eq!(import.rows::<GpuOp>().len(), 3);
    assert!(import.losses().contains(&("stream_overlap", 1)), "{:?}", import.losses());
}
