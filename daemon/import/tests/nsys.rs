//! Nsight Systems exports: small databases that pin one behaviour each.

mod nsys_support;

use nsys_support::{Export, gid, import, only_op, read};
use stallscope_import::ImportError;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind, RecordKind, SpanKind, device_kind, op_flags};
use stallscope_schemas::units::TimeNs;

#[test]
fn a_kernel_is_joined_with_the_call_of_its_own_process() {
    let export = Export::new();
    // Both processes use correlation id 1.
    export.sql(&format!(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName)
           VALUES (100, 200, 0, 7, 1, {}, 1), (150, 250, 1, 7, 1, {}, 1);
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId)
           VALUES (10, 12, {}, 1, 2), (20, 23, {}, 1, 2);",
        gid(5, 0),
        gid(6, 0),
        gid(5, 50),
        gid(6, 60)
    ));
    let capture = read(&export);
    for (tid, start, duration) in [(50, 10, 2), (60, 20, 3)] {
        let op =
            capture.ops.iter().find(|(_, op)| op.launch.is_some_and(|l| l.start == TimeNs(start))).unwrap().1;
        let launch = op.launch.unwrap();
        assert_eq!(launch.duration_ns, duration);
        assert_eq!(capture.tables().thread(launch.thread).unwrap().tid, tid);
    }
    assert_eq!(capture.losses, []);
}

#[test]
fn operations_that_name_no_process_belong_to_the_only_one_that_makes_calls() {
    let export = Export::new();
    export.sql(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, shortName)
           VALUES (0, 1000, 0, 7, 100, 1);
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId)
           VALUES (-3000, -500, 1, 100, 2);",
    );
    let capture = read(&export);
    let op = only_op(&capture);
    assert_eq!(op.start, TimeNs(0), "0 is a time like any other");
    assert_eq!(op.launch.map(|l| (l.start, l.duration_ns)), Some((TimeNs(-3000), 2500)));
    let process = &capture.tables().processes()[0];
    assert_eq!((process.pid, capture.tables().threads()[0].tid), (0, 1));
}

#[test]
fn operations_that_could_be_anyones_are_joined_with_nobody() {
    let export = Export::new();
    export.sql(&format!(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, shortName)
           VALUES (100, 200, 0, 7, 1, 1);
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId)
           VALUES (10, 12, {}, 1, 2), (20, 23, {}, 9, 2);",
        gid(5, 50),
        gid(6, 60)
    ));
    let capture = read(&export);
    assert_eq!(only_op(&capture).launch, None);
    assert_eq!(capture.loss(LossCounter::LaunchMissing), 1);
}

#[test]
fn kernels_are_named_by_their_demangled_name_else_by_what_there_is() {
    let export = Export::new();
    export.sql(
        "INSERT INTO StringIds VALUES (10, 'short'), (11, 'full<T>'), (12, '');
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, demangledName, shortName)
           VALUES (1, 2, 0, 7, 0, 11, 10), (3, 4, 0, 7, 0, 99, 10), (5, 6, 0, 7, 0, 12, 10), (7, 8, 0, 7, 0, NULL, NULL),
                  (9, 10, 0, 7, 0, 'in place', NULL);",
    );
    let capture = read(&export);
    let names: Vec<&str> = capture.ops.iter().map(|(_, op)| capture.tables().string(op.name)).collect();
    assert_eq!(names, ["full<T>", "short", "short", "unnamed kernel", "in place"]);
}

#[test]
fn copies_say_which_way_and_whether_the_host_side_was_pinned() {
    let export = Export::new();
    export.sql(
        "INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY
           (start, end, deviceId, streamId, correlationId, bytes, copyKind, srcKind, dstKind, srcDeviceId, dstDeviceId)
           VALUES (1, 2, 0, 7, 0, 64, 1, 0, 2, NULL, NULL), (3, 4, 0, 7, 0, 65, 2, 2, 1, NULL, NULL),
                  (5, 6, 0, 7, 0, 66, 8, 2, 2, 0, 1), (7, 8, 0, 7, 0, -1, 77, NULL, NULL, NULL, NULL);
         INSERT INTO CUPTI_ACTIVITY_KIND_MEMSET (start, end, deviceId, streamId, correlationId, bytes, memKind)
           VALUES (9, 10, 0, 7, 0, 12, 2);",
    );
    let capture = read(&export);
    let found: Vec<_> = capture
        .ops
        .iter()
        .map(|(_, op)| (capture.tables().string(op.name), op.kind, op.copy_kind, op.bytes))
        .collect();
    assert_eq!(
        found,
        [
            ("Memcpy HtoD (Pageable -> Device)", OpKind::Memcpy, CopyKind::HostToDevicePageable, 64),
            ("Memcpy DtoH (Device -> Pinned)", OpKind::Memcpy, CopyKind::DeviceToHostPinned, 65),
            ("Memcpy DtoD (Device -> Device)", OpKind::Memcpy, CopyKind::PeerToPeer, 66),
            ("Memcpy Unknown", OpKind::Memcpy, CopyKind::Unknown, 0),
            ("Memset (Device)", OpKind::Memset, CopyKind::Unknown, 12),
        ]
    );
}

#[test]
fn a_graph_replay_occupies_the_device_and_carries_its_launch() {
    let export = Export::new();
    export.sql(&format!(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE
           (start, end, deviceId, contextId, streamId, correlationId, globalPid, graphId, graphExecId);
         INSERT INTO CUPTI_ACTIVITY_KIND_GRAPH_TRACE VALUES (100, 300, 0, 1, 7, 4, {}, 12, 13);
         INSERT INTO StringIds VALUES (20, 'cudaGraphLaunch_v10000');
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId)
           VALUES (10, 12, {}, 4, 20);",
        gid(5, 0),
        gid(5, 50)
    ));
    let capture = read(&export);
    let op = only_op(&capture);
    assert_eq!(capture.tables().string(op.name), "graph 12");
    assert_eq!((op.kind, op.flags & op_flags::GRAPH_NODE), (OpKind::Other, op_flags::GRAPH_NODE));
    assert!(op.launch.is_some());
}

#[test]
fn kernels_of_a_graph_are_marked_as_its_nodes() {
    let export = Export::new();
    export.sql(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, shortName, graphNodeId)
           VALUES (1, 2, 0, 7, 0, 1, 99);",
    );
    assert_eq!(only_op(&read(&export)).flags & op_flags::GRAPH_NODE, op_flags::GRAPH_NODE);
}

#[test]
fn a_stream_wait_names_the_stream_that_records_the_event() {
    let export = Export::with_kernel();
    export.sql(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_SYNCHRONIZATION
           (start, end, deviceId, contextId, streamId, correlationId, globalPid, syncType, eventId, eventSyncId);
         CREATE TABLE CUPTI_ACTIVITY_KIND_CUDA_EVENT
           (timestamp, deviceId, contextId, streamId, correlationId, globalPid, eventId, eventSyncId);
         INSERT INTO CUPTI_ACTIVITY_KIND_CUDA_EVENT VALUES (0, 0, 1, 21, 3, NULL, 5, 77);
         INSERT INTO CUPTI_ACTIVITY_KIND_SYNCHRONIZATION VALUES
           (30, 31, 0, 1, 7, 4, NULL, 2, 5, 77), (40, 42, 0, 1, 7, 5, NULL, 2, 6, 78), (50, 90, 0, 1, 7, 6, NULL, 3, 7, 0);",
    );
    let capture = read(&export);
    let waits: Vec<_> =
        capture.waits.iter().map(|w| (w.start.0, w.duration_ns, w.stream, w.on_stream)).collect();
    assert_eq!(waits, [(30, 1, 7, Some(21)), (40, 2, 7, None)]);
}

#[test]
fn a_stream_wait_is_on_the_device_of_its_context_whatever_device_it_names() {
    let export = Export::new();
    export.sql(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, contextId, streamId, correlationId, shortName)
           VALUES (100, 200, 0, 1, 7, 0, 1), (100, 200, 1, 2, 7, 0, 1);
         CREATE TABLE CUPTI_ACTIVITY_KIND_SYNCHRONIZATION
           (start, end, deviceId, contextId, streamId, correlationId, syncType);
         INSERT INTO CUPTI_ACTIVITY_KIND_SYNCHRONIZATION VALUES (30, 31, 0, 2, 7, 4, 2), (30, 31, 5, 9, 7, 4, 2);",
    );
    let capture = read(&export);
    let ordinals: Vec<u32> = capture
        .capture
        .keys(RecordKind::StreamWait)
        .into_iter()
        .map(|key| capture.tables().devices()[key as usize].ordinal)
        .collect();
    assert_eq!((ordinals, capture.waits.len()), (vec![1], 1), "a device without operations has no waits");
}

#[test]
fn calls_inside_ranges_of_the_nccl_domain_communicate() {
    let export = Export::with_nvtx();
    let (tid, other) = (gid(5, 50), gid(5, 51));
    // Correlation 1 is inside, 2 after, 3 on another thread; the range's row comes before its domain's.
    export.sql(&format!(
        "INSERT INTO StringIds VALUES (30, 'ncclish thing');
         INSERT INTO NVTX_EVENTS (start, end, eventType, textId, domainId, globalTid) VALUES (5, 15, 59, 30, 3, {tid});
         INSERT INTO NVTX_EVENTS (start, eventType, text, domainId, globalTid) VALUES (1, 75, 'NCCL', 3, {tid});
         INSERT INTO NVTX_EVENTS (start, end, eventType, text, domainId, globalTid) VALUES (5, 90, 59, 'mine', 0, {other});
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId)
           VALUES (10, 12, {tid}, 1, 2), (16, 17, {tid}, 2, 2), (10, 11, {other}, 3, 2);
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName)
           VALUES (100, 200, 0, 7, 1, {tid}, 1), (200, 250, 0, 7, 2, {tid}, 1), (250, 300, 0, 7, 3, {tid}, 1);",
    ));
    let capture = read(&export);
    let flags: Vec<bool> =
        capture.ops.iter().map(|(_, op)| op.flags & op_flags::COLLECTIVE_CORRELATED != 0).collect();
    assert_eq!(flags, [true, false, false]);
}

#[test]
fn a_domain_with_ncclis_payloads_communicates_without_a_name() {
    let export = Export::with_nvtx();
    let tid = gid(5, 50);
    export.sql(&format!(
        "CREATE TABLE NVTX_PAYLOAD_SCHEMA_ENTRIES (domainId, schemaId, idx, name);
         INSERT INTO NVTX_PAYLOAD_SCHEMA_ENTRIES VALUES (1, 1, 0, 'NCCL communicator ID');
         INSERT INTO NVTX_EVENTS (start, end, eventType, text, domainId, globalTid) VALUES (5, 15, 59, 'x', 1, {tid});
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId) VALUES (10, 12, {tid}, 1, 2);
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName)
           VALUES (100, 200, 0, 7, 1, {tid}, 1);",
    ));
    assert_ne!(only_op(&read(&export)).flags & op_flags::COLLECTIVE_CORRELATED, 0);
}

#[test]
fn ranges_become_operators_steps_and_annotations() {
    let export = Export::with_kernel();
    export.add_nvtx();
    export.sql(
        "INSERT INTO StringIds VALUES (30, 'step 7');
         INSERT INTO NVTX_EVENTS (start, end, eventType, text, textId, globalTid) VALUES
           (1, 9, 59, 'aten::mm, op_id = 12', NULL, 1), (2, 8, 60, NULL, 30, 1), (3, 7, 59, 'load', NULL, 1),
           (4, NULL, 59, 'never popped', NULL, 1), (5, NULL, 34, 'a mark', NULL, 1), (9, 5, 59, 'backward', NULL, 1),
           (6, 7, 59, NULL, 999, 1);",
    );
    let capture = read(&export);
    let spans: Vec<_> = capture
        .spans
        .iter()
        .map(|(_, s)| (capture.tables().string(s.name), s.kind, s.start.0, s.duration_ns))
        .collect();
    assert_eq!(
        spans,
        [
            ("aten::mm", SpanKind::Operator, 1, 8),
            ("step 7", SpanKind::Step, 2, 6),
            ("load", SpanKind::Annotation, 3, 4)
        ]
    );
    assert_eq!(capture.loss(LossCounter::SpanUnmatched), 1);
    assert_eq!(capture.loss(LossCounter::EventTimeInvalid), 1);
    assert_eq!(capture.loss(LossCounter::RowInvalid), 1, "a range whose name is nowhere");
}

#[test]
fn the_profilers_overhead_is_a_span_on_the_thread_it_held_up() {
    let export = Export::with_kernel();
    export.sql(
        "CREATE TABLE PROFILER_OVERHEAD (start, end, globalTid, nameId, overheadType);
         INSERT INTO StringIds VALUES (40, 'CUPTI Buffer flush');
         INSERT INTO PROFILER_OVERHEAD VALUES (1, 5, 1, 40, 3), (6, 7, 1, NULL, 7);",
    );
    let capture = read(&export);
    let names: Vec<_> = capture.spans.iter().map(|(_, s)| capture.tables().string(s.name)).collect();
    assert_eq!(names, ["profiler overhead: CUPTI Buffer flush", "profiler overhead: lazy function loading"]);
}

#[test]
fn devices_are_what_the_process_means_by_its_ordinals() {
    let export = Export::new();
    export.sql(&format!(
        "CREATE TABLE TARGET_INFO_GPU (id, name, uuid);
         INSERT INTO TARGET_INFO_GPU VALUES (0, 'H100', 'GPU-aaaa'), (1, 'A30', 'bbbb');
         CREATE TABLE TARGET_INFO_CUDA_DEVICE (gpuId, cudaId, pid, uuid);
         INSERT INTO TARGET_INFO_CUDA_DEVICE VALUES (1, 0, 5, NULL), (0, 0, 6, 'MIG-cccc');
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName)
           VALUES (100, 200, 0, 7, 1, {}, 1), (150, 250, 0, 7, 1, {}, 1);",
        gid(5, 0),
        gid(6, 0),
    ));
    let capture = read(&export);
    let devices: Vec<_> =
        capture.tables().devices().iter().map(|d| (d.id.as_str(), d.model.as_str(), d.kind)).collect();
    assert_eq!(devices, [("GPU-bbbb", "A30", device_kind::GPU), ("MIG-cccc", "H100", device_kind::GPU)]);
}

#[test]
fn processes_that_share_a_gpu_keep_their_streams_apart() {
    let export = Export::new();
    export.sql(&format!(
        "CREATE TABLE TARGET_INFO_GPU (id, name, uuid);
         INSERT INTO TARGET_INFO_GPU VALUES (0, 'H100', 'GPU-aaaa');
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName)
           VALUES (100, 200, 0, 7, 1, {}, 1), (150, 250, 0, 7, 1, {}, 1);",
        gid(5, 0),
        gid(6, 0),
    ));
    let capture = read(&export);
    assert_eq!(capture.tables().devices().len(), 1);
    assert_eq!(capture.tables().devices()[0].processes.len(), 2);
    let streams: Vec<u64> = capture.ops.iter().map(|(_, op)| op.stream).collect();
    assert_eq!(streams, [7, 7 | 1 << 32]);
}

#[test]
fn ranks_that_each_see_one_of_several_gpus_are_several_devices() {
    let export = Export::new();
    export.sql(&format!(
        "CREATE TABLE TARGET_INFO_GPU (id, name, uuid);
         INSERT INTO TARGET_INFO_GPU VALUES (0, 'H100', 'GPU-aaaa'), (1, 'H100', 'GPU-bbbb');
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName)
           VALUES (100, 200, 0, 7, 1, {}, 1), (150, 250, 0, 7, 1, {}, 1);",
        gid(5, 0),
        gid(6, 0),
    ));
    let capture = read(&export);
    let ids: Vec<_> = capture.tables().devices().iter().map(|d| d.id.as_str()).collect();
    assert_eq!(ids, ["trace-gpu0", "trace-pid6-gpu0"], "no UUID is claimed that may be another GPU's");
}

#[test]
fn names_host_clock_and_rank_come_from_the_session() {
    let export = Export::with_kernel();
    export.sql(&format!(
        "CREATE TABLE PROCESSES (globalPid, pid, name);
         INSERT INTO PROCESSES VALUES ({}, 5, 'python3'), ({}, 9, 'nsys');
         CREATE TABLE ThreadNames (nameId, priority, globalTid);
         INSERT INTO StringIds VALUES (50, 'pt_main');
         INSERT INTO ThreadNames VALUES (50, 20, {});
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId)
           VALUES (10, 12, {}, 1, 2);
         CREATE TABLE TARGET_INFO_SYSTEM_ENV (name, value);
         INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES ('Hostname', 'node7'), ('DeviceEnvironment', 'A=1;RANK=3;WORLD_SIZE=8');
         CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs, systemClockNs);
         INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (1700000000000000000, 5);",
        gid(5, 0),
        gid(9, 0),
        gid(5, 50),
        gid(5, 50),
    ));
    let capture = read(&export);
    let tables = capture.tables();
    let process = &tables.processes()[0];
    assert_eq!((process.pid, process.name.as_str(), process.host.as_str()), (5, "python3", "node7"));
    assert_eq!((process.rank, process.world_size), (Some(3), Some(8)));
    assert_eq!(tables.processes().len(), 1, "helpers without activity are left out");
    assert_eq!(tables.threads()[0].name, "pt_main");
    assert_eq!(only_op(&capture).start, TimeNs(1_700_000_000_000_000_100));
}

#[test]
fn an_export_in_unix_time_is_not_shifted_again() {
    let export = Export::with_kernel();
    export.sql(
        "CREATE TABLE META_DATA_EXPORT (name, value);
         INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_PARAM_TIME_NORMALIZE', 'true');
         CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs);
         INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (1700000000000000000);",
    );
    assert_eq!(only_op(&read(&export)).start, TimeNs(100));
}

#[test]
fn what_the_profiler_says_it_lost_is_counted_for_processes_that_matter() {
    let export = Export::with_kernel();
    export.sql(&format!(
        "CREATE TABLE DIAGNOSTIC_EVENT (timestamp, severity, text, globalPid);
         INSERT INTO DIAGNOSTIC_EVENT VALUES (0, 2, 'Not all CUDA events might have been collected.', NULL),
           (0, 2, 'Not all CUDA events might have been collected.', {}), (0, 1, 'Process was launched', NULL);",
        gid(77, 0)
    ));
    assert_eq!(read(&export).loss(LossCounter::LossWindowReported), 1);
}

#[test]
fn rows_of_wrong_types_and_impossible_times_cost_only_themselves() {
    let export = Export::with_kernel();
    export.sql(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, shortName) VALUES
           ('soon', 5, 0, 7, 0, 1), (1, x'00', 0, 7, 0, 1), (NULL, 5, 0, 7, 0, 1), (1, 5, NULL, 7, 0, 1),
           (1, 5, 0, 7, 1.5, 1), (1, 5, 0, 7, 0, x'41'),
           (9, 5, 0, 7, 0, 1), (0, 0, 0, 7, 0, 1), (1, 9223372036854775807, 0, 7, 0, 1),
           (-9223372036854775808, 9223372036854775807, 0, 7, 0, 1);",
    );
    let capture = read(&export);
    assert_eq!(capture.ops.len(), 1);
    assert_eq!(capture.loss(LossCounter::RowInvalid), 6);
    assert_eq!(capture.loss(LossCounter::EventTimeInvalid), 4);
}

#[test]
fn a_kernel_without_an_end_is_kept_with_its_end_unknown() {
    let export = Export::new();
    export.sql(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, shortName)
           VALUES (5, NULL, 0, 7, 0, 1);",
    );
    let capture = read(&export);
    let op = only_op(&capture);
    assert_eq!((op.duration_ns, op.flags & op_flags::END_UNKNOWN), (0, op_flags::END_UNKNOWN));
    assert_eq!(capture.loss(LossCounter::EventWithoutDuration), 1);
}

#[test]
fn the_oldest_and_smallest_schema_is_enough() {
    let export = Export::empty();
    export.sql(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId);
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (1, 5, 0, 7);",
    );
    let capture = read(&export);
    assert_eq!(only_op(&capture).duration_ns, 4);
    assert_eq!(capture.loss(LossCounter::TableMissing), 2, "no calls, no names");
}

#[test]
fn hostile_schemas_are_not_run() {
    let export = Export::with_kernel();
    // A view where a table belongs, a virtual table, and names that need quoting.
    export.sql(
        "CREATE VIEW NVTX_EVENTS AS WITH RECURSIVE n(start) AS (SELECT 1 UNION ALL SELECT start + 1 FROM n)
           SELECT start, start AS end, 59 AS eventType, 'x' AS text FROM n;
         CREATE TABLE \"a\"\"b; DROP TABLE StringIds\" (\"c\"\"d\");",
    );
    let capture = read(&export);
    assert_eq!((capture.ops.len(), capture.spans.len()), (1, 0));
}

#[test]
fn paths_that_mean_something_in_a_uri_open_the_file_they_name() {
    let export = Export::with_kernel();
    let odd = export.path().with_file_name("a?mode=memory#%41 ü.sqlite");
    std::fs::copy(export.path(), &odd).unwrap();
    assert_eq!(import(&odd).unwrap().ops.len(), 1);
}

#[test]
fn nothing_is_written_beside_the_file() {
    let export = Export::with_kernel();
    // Databases in write-ahead mode make a reader create files, unless it opens them as immutable.
    export.sql("PRAGMA journal_mode = WAL; PRAGMA wal_checkpoint(TRUNCATE);");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.sqlite");
    std::fs::copy(export.path(), &path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(import(&path).unwrap().ops.len(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_journal_beside_the_file_is_a_counted_loss() {
    let export = Export::with_kernel();
    let mut journal = export.path().as_os_str().to_owned();
    journal.push("-journal");
    std::fs::write(&journal, "unfinished").unwrap();
    assert_eq!(read(&export).loss(LossCounter::InputTruncated), 1);
}

#[test]
fn a_database_of_something_else_is_named_by_its_tables() {
    let export = Export::empty();
    export.sql("CREATE TABLE cookies (a); CREATE TABLE history (b);");
    let error = import(export.path()).unwrap_err();
    assert!(matches!(error, ImportError::Malformed { .. }));
    let text = error.to_string();
    assert!(text.contains("cookies, history") && text.contains("CUPTI_ACTIVITY_KIND_"), "{text}");
}

#[test]
fn an_export_without_cuda_says_how_to_get_it() {
    let export = Export::empty();
    export.sql("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value); CREATE TABLE OSRT_API (start);");
    let error = import(export.path()).unwrap_err();
    assert!(matches!(error, ImportError::NoGpuActivity { .. }));
    assert!(error.to_string().contains("nsys profile --trace=cuda"), "{error}");
    let error = import(Export::new().path()).unwrap_err();
    assert!(matches!(error, ImportError::NoGpuActivity { .. }), "tables without rows");
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_a_counted_loss() {
    let export = Export::with_many_kernels(5000);
    let whole = std::fs::read(export.path()).unwrap();
    let complete = import(export.path()).unwrap().ops.len();
    let folder = tempfile::tempdir().unwrap();
    for cut in (0..whole.len()).step_by(whole.len() / 40) {
        let path = folder.path().join(format!("cut{cut}.sqlite"));
        std::fs::write(&path, &whole[..cut.max(16)]).unwrap();
        if let Ok(capture) = import(&path) {
            assert!(
                capture.ops.len() < complete || !capture.losses.is_empty(),
                "cut at {cut}: {}",
                capture.ops.len()
            );
            assert!(capture.loss(LossCounter::InputTruncated) > 0, "cut at {cut}");
        }
    }
}

#[test]
fn damaged_pages_never_panic() {
    let export = Export::with_many_kernels(3000);
    let whole = std::fs::read(export.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.sqlite");
    for round in 0..60usize {
        let mut bytes = whole.clone();
        for k in 0..8 {
            let at = 100 + (round * 7919 + k * 104_729) % (bytes.len() - 100);
            bytes[at] ^= 1 << (round % 8);
        }
        std::fs::write(&path, &bytes).unwrap();
        let _ = import(&path);
    }
}
