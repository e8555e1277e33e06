//! Damaged, cut, absurd and malicious traces: what is left is kept, what is lost is counted, nothing panics.

mod kineto_support;

use std::io::{Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use kineto_support::{Import, document, kernel, launch};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use stallscope_core::ledger::{Leaf, Options, all_ledgers};
use stallscope_core::rows::{ApiCall, GpuOp, HostSpan, LossWindow};
use stallscope_import::kineto::Limits;
use stallscope_import::{Format, ImportError};
use stallscope_schemas::record::op_flags;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("a Vec takes everything");
    encoder.finish().expect("a Vec takes everything")
}

/// A thousand launches and kernels.
fn long_document() -> String {
    let events: Vec<String> = (0..1000u64)
        .flat_map(|i| {
            [
                launch(&format!("{}.5", i * 10), "2.125", i + 1),
                kernel(&format!("{}", i * 10 + 5), "3.75", i + 1),
            ]
        })
        .collect();
    document(&events.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_cut_gzip_stream_gives_what_came_before_the_cut() {
    let packed = gzip(long_document().as_bytes());
    let whole = Import::read("t.json.gz", &packed[..], Format::JsonGz, Limits::default());
    assert_eq!((whole.rows::<GpuOp>().len(), whole.losses()), (1000, vec![]));
    let cut = Import::read("t.json.gz", &packed[..packed.len() / 2], Format::JsonGz, Limits::default());
    let kept = cut.rows::<GpuOp>().len();
    assert!((100..1000).contains(&kept), "{kept}");
    assert!(cut.losses().contains(&("input_truncated", 1)), "{:?}", cut.losses());
    assert_eq!(cut.result.map(|i| i.gpu_ops).ok(), Some(kept as u64));
}

#[test]
fn a_damaged_gzip_stream_gives_what_came_before_the_damage_or_says_that_it_is_damaged() {
    let mut packed = gzip(long_document().as_bytes());
    let middle = packed.len() / 2;
    packed[middle..middle + 64].fill(0xff);
    let import = Import::read("t.json.gz", &packed[..], Format::JsonGz, Limits::default());
    assert!(import.result.is_ok());
    packed[10..].fill(0xff);
    let import = Import::read("t.json.gz", &packed[..], Format::JsonGz, Limits::default());
    assert!(import.error().contains("gzip stream is damaged"), "{}", import.error());
}

#[test]
fn members_of_a_gzip_file_are_one_text() {
    let text = document(&[&kernel("1", "2", 0), &kernel("5", "2", 0)]);
    let mut packed = gzip(&text.as_bytes()[..100]);
    packed.extend(gzip(&text.as_bytes()[100..]));
    let import = Import::read("t.json.gz", &packed[..], Format::JsonGz, Limits::default());
    assert_eq!((import.rows::<GpuOp>().len(), import.losses()), (2, vec![("launch_missing", 2)]));
}

#[test]
fn a_document_cut_at_any_byte_keeps_its_whole_events_and_says_that_it_was_cut() {
    let text = document(&[&kernel("1", "2", 1), &launch("0", "1", 1), &kernel("5", "2", 0)]);
    let ends: Vec<usize> = text.match_indices("}}").map(|(at, _)| at + 2).collect();
    for end in 1..text.len() {
        let import = Import::of(&text[..end]);
        let kernels = usize::from(end >= ends[0]) + usize::from(end >= ends[2]);
        assert_eq!(import.rows::<GpuOp>().len(), kernels, "cut at {end}");
        assert!(import.losses().contains(&("input_truncated", 1)), "cut at {end}: {:?}", import.losses());
    }
}

#[test]
fn every_size_of_the_buffer_gives_the_same_capture() {
    let odd = r#"{ "ph" : "X" , "cat" : "cpu_op" , "name" : "a\"\\\u00e9{[" , "pid" : 1 , "tid" : "w\"x" ,
        "ts" : 1.5e3 , "dur" : NaN , "args" : { "x" : [ [ ] , { "y" : "}]\"" } ] , "Call stack" : "f;g" } }"#;
    let good = odd.replace("NaN", "12.0625");
    let broken = r#"{"ph":"X" "cat":"kernel"}"#;
    let events = [&kernel("1", "2", 1), odd, &good, &launch("0", "1", 1), broken, "17", &kernel("5", "2", 0)];
    let text = format!(
        "\u{feff} {{ \"before\" : [ \"{}\" ], {}, \"distributedInfo\":{{\"rank\":1}}, \"n\" : -1.5e3 , \"baseTimeNanoseconds\" : 1000 }}",
        "x\\\"".repeat(40),
        &document(&events)[1..].trim_end_matches('}'),
    );
    let whole = Import::of(&text);
    assert_eq!((whole.rows::<GpuOp>().len(), whole.rows::<HostSpan>().len()), (2, 1));
    assert_eq!(whole.rows::<GpuOp>()[0].start.0, 2_000);
    assert_eq!(whole.losses(), [("event_malformed", 2), ("event_time_invalid", 1), ("launch_missing", 1)]);
    for buffer in (16..400).chain([511, 512, 513, 1000, 4096]) {
        let import = Import::limited(&text, Limits { buffer, event: 0 });
        assert_eq!(import.bytes, whole.bytes, "buffer of {buffer}");
    }
}

#[test]
fn reads_of_any_length_give_the_same_capture() {
    struct OneByte<'a>(&'a [u8]);
    impl Read for OneByte<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let len = to.len().min(1);
            self.0.read(&mut to[..len])
        }
    }
    let text = document(&[&kernel("1", "2", 1), &launch("0", "1", 1)]);
    let whole = Import::of(&text);
    let slow = Import::read("trace.json", OneByte(text.as_bytes()), Format::Json, Limits::default());
    assert_eq!(slow.bytes, whole.bytes);
}

#[test]
fn fields_of_wrong_types_cost_their_event_or_nothing() {
    let import = Import::of(document(&[
        &kernel("1", "2", 0),
        r#"{"ph":5,"cat":"kernel","name":"k","ts":1,"dur":1}"#,
        r#"{"cat":"kernel","name":"k","ts":1,"dur":1}"#,
        r#"{"ph":"X","cat":"kernel","name":"k","ts":[1],"dur":1}"#,
        r#"{"ph":"X","cat":"kernel","name":"k","ts":true,"dur":1}"#,
        r#"{"ph":"X","cat":"kernel","name":"k","dur":1}"#,
        r#"{"ph":"X","cat":"kernel","name":{"a":1},"pid":[],"tid":{},"ts":9,"dur":1,"args":"text"}"#,
        r#"{"ph":"X","cat":"kernel","name":7,"pid":null,"tid":false,"ts":19,"dur":1,"args":[]}"#,
        r#"{"ph":"M","name":"process_name","pid":1,"args":{"name":7}}"#,
        "null",
        "\"text\"",
        "[{}]",
        "{}",
    ]));
    assert_eq!(import.rows::<GpuOp>().len(), 3);
    assert_eq!(import.losses(), [("event_malformed", 6), ("event_time_invalid", 3), ("launch_missing", 3)]);
}

#[test]
fn an_operation_without_duration_is_kept_with_an_unknown_end() {
    let bare = r#"{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":1,"args":{}}"#;
    let null = r#"{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":2,"dur":null}"#;
    let host = r#"{"ph":"X","cat":"cpu_op","name":"o","pid":1,"tid":1,"ts":2}"#;
    let import = Import::of(document(&[bare, null, host]));
    let ops = import.rows::<GpuOp>();
    assert!(ops.iter().all(|op| op.duration_ns == 0 && op.flags == op_flags::END_UNKNOWN), "{ops:?}");
    assert!(import.losses().contains(&("event_without_duration", 3)), "{:?}", import.losses());
}

#[test]
fn undefined_times_are_counted_and_an_undefined_duration_is_an_unknown_end() {
    let bad = ["-1", "1e300", "NaN", "Infinity", "-Infinity", "9223372036854775807", "\"soon\""];
    let mut events = vec![kernel("1", "2", 0)];
    events.extend(bad.iter().map(|time| kernel(time, "1", 0)));
    events.extend(bad.iter().map(|time| kernel("5", time, 0)));
    let import = Import::of(document(&events.iter().map(String::as_str).collect::<Vec<_>>()));
    let ops = import.rows::<GpuOp>();
    assert_eq!(ops.iter().filter(|op| op.flags & op_flags::END_UNKNOWN != 0).count(), bad.len());
    assert_eq!(ops.len(), 1 + bad.len());
    assert_eq!(
        import.losses(),
        [("event_without_duration", 7), ("event_time_invalid", 7), ("launch_missing", 8)]
    );
}

#[test]
fn where_an_operation_may_have_been_left_out_nobody_calls_the_time_idle() {
    let broken = r#"{"ph":"X","cat":"kernel","name":"k","ts":1100,"dur":,"pid":0,"tid":7}"#;
    let timeless =
        r#"{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":"soon","dur":1,"args":{"device":0}}"#;
    for lost in [broken, timeless] {
        let import = Import::of(document(&[&kernel("0", "1000", 0), lost, &kernel("2000", "1000", 0)]));
        let windows = import.rows::<LossWindow>();
        assert_eq!(windows.len(), 1, "{lost}");
        assert_eq!((windows[0].start.0, windows[0].duration_ns), (1_000_000, 1_000_000));
        let ledger = &all_ledgers(&import.capture, Options::default()).unwrap()[0];
        assert_eq!((ledger.sums.get(Leaf::Unknown), ledger.sums.get(Leaf::Idle)), (1_000_000, 0));
    }
    // A broken host event between two operations that touch hides nothing.
    let host = r#"{"ph":"X","cat":"cpu_op","name":"o","pid":1,"tid":1,"ts":"soon","dur":1}"#;
    let import = Import::of(document(&[&kernel("0", "1000", 0), host, &kernel("2000", "1000", 0)]));
    assert!(import.rows::<LossWindow>().is_empty());
}

#[test]
fn two_calls_with_one_correlation_are_counted() {
    let import = Import::of(document(&[&launch("1", "1", 5), &launch("10", "1", 5), &kernel("20", "1", 5)]));
    assert!(import.losses().contains(&("correlation_duplicate", 1)), "{:?}", import.losses());
    assert_eq!((import.rows::<GpuOp>().len(), import.rows::<ApiCall>().len()), (1, 1));
}

#[test]
fn a_trace_of_the_host_alone_says_what_was_missing() {
    let operator = r#"{"ph":"X","cat":"cpu_op","name":"o","pid":1,"tid":1,"ts":2,"dur":1}"#;
    let events = vec![operator; 12_345];
    let import = Import::of(document(&events));
    assert!(matches!(import.result, Err(ImportError::NoGpuActivity { .. })));
    assert!(import.error().contains("12,345 host events: was the trace taken with ProfilerActivity.CUDA?"));
}

#[test]
fn documents_without_a_single_event_say_what_they_are() {
    for (text, says) in [
        ("[]", "list of events is empty"),
        (r#"{"traceEvents":[]}"#, "list of events is empty"),
        (
            r#"{"rocprofiler":{"x":[1]},"n":1}"#,
            "no \"traceEvents\", which every Kineto or Chrome trace has (its keys: rocprofiler, n)",
        ),
        ("{}", "no \"traceEvents\""),
        (r#"{"traceEvents":7}"#, "no \"traceEvents\""),
        ("", "at byte 0 of its text there should be an object or an array"),
        ("   \n", "an object or an array"),
        ("hello", "at byte 0 of its text there should be an object or an array"),
        (r#"{"a":1 "b":2}"#, ""),
        (r#"{"a" 1}"#, "at byte 5 of its text there should be a colon"),
        (r#"{"traceEvents":[{"ph":"X","#, "more text (it ends in the middle)"),
    ] {
        let import = Import::of(text);
        assert!(import.error().contains(says), "{text}: {}", import.error());
    }
}

#[test]
fn nesting_without_end_needs_no_stack() {
    let deep = "[".repeat(1_000_000);
    for text in [
        deep.clone(),
        format!("{{\"a\":{deep}"),
        format!("[{{\"ph\":\"X\",\"args\":{deep}"),
        format!("[{}", "{\"a\":".repeat(1_000_000)),
    ] {
        let import = Import::of(&text);
        assert!(matches!(import.result, Err(ImportError::Malformed { .. })), "{}", import.error());
    }
    let balanced = format!("{deep}{}", "]".repeat(1_000_000));
    let import = Import::of(document(&[
        &balanced,
        &format!("{{\"ph\":\"i\",\"args\":{{\"a\":{balanced}}}}}"),
        &kernel("1", "2", 0),
    ]));
    assert_eq!(import.rows::<GpuOp>().len(), 1);
}

#[test]
fn an_event_beyond_the_limit_is_skipped_and_the_next_one_read() {
    // Streamed: the giant exists nowhere as a whole.
    let head = format!("[{},{{\"ph\":\"X\",\"name\":\"", kernel("1", "2", 0));
    let tail = format!("\"}},{}]", kernel("9", "2", 0));
    let giant = std::io::repeat(b'x').take(40 << 20);
    let text = head.as_bytes().chain(giant).chain(tail.as_bytes());
    let import = Import::read("t.json", text, Format::Json, Limits::default());
    assert_eq!(import.rows::<GpuOp>().len(), 2);
    assert_eq!(import.losses(), [("event_too_large", 1), ("launch_missing", 2)]);

    let many = format!("{{\"ph\":\"X\",\"args\":{{\"a\":[{}1]}}}}", "[\"}\\\"\"],".repeat(1000));
    let import =
        Import::limited(document(&[&many, &kernel("9", "2", 0)]), Limits { buffer: 64, event: 1000 });
    assert_eq!((import.rows::<GpuOp>().len(), import.losses()[0]), (1, ("event_too_large", 1)));
}

#[test]
fn a_broken_event_costs_only_itself() {
    let next = kernel("9", "2", 0);
    for broken in [
        r#"{"ph":"X","ts":12 34}"#,
        r#"{"ph":"X","ts":}"#,
        r#"{"ph":"X",,"ts":1}"#,
        r#"{"ph" "X"}"#,
        r#"{ph:"X"}"#,
        r#"{"ph":"X","args":{"a":1}"#,
        r#"{"ph":"X","args":{"External id":1},"name":k}x"#,
        r#"{"ph":"X"}}"#,
    ] {
        for events in [vec![broken, &next], vec![&next, broken, &next]] {
            let text = format!("{},\"baseTimeNanoseconds\":1000}}", document(&events).trim_end_matches('}'));
            let import = Import::of(&text);
            assert_eq!(import.rows::<GpuOp>().len(), events.len() - 1, "{broken}");
            assert_eq!(import.rows::<GpuOp>()[0].start.0, 10_000, "{broken}: the base time was read");
        }
    }
    let last =
        Import::of(format!("{{\"traceEvents\":[{next},{{\"ph\":\"X\" 1}}],\"baseTimeNanoseconds\":1000}}"));
    assert_eq!(last.rows::<GpuOp>()[0].start.0, 10_000);
    assert_eq!(last.losses(), [("event_malformed", 1), ("launch_missing", 1)]);
}

#[test]
fn threads_without_end_are_bounded_and_counted() {
    let events: Vec<String> = (0..70_000)
        .map(|tid| format!(r#"{{"ph":"X","cat":"cpu_op","name":"o","pid":1,"tid":"w{tid}","ts":2,"dur":1}}"#))
        .chain([kernel("1", "2", 0)])
        .collect();
    let import = Import::of(document(&events.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(import.rows::<GpuOp>().len(), 1);
    assert!(
        import.losses().iter().any(|&(name, count)| name == "table_full" && count >= 4000),
        "{:?}",
        import.losses()
    );
}

fn token() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"ph\":\"X\"",
        "\"ph\":\"B\"",
        "\"ph\":\"E\"",
        "\"ph\":\"M\"",
        "\"ts\":",
        "\"dur\":",
        "\"cat\":\"kernel\"",
        "\"cat\":\"cpu_op\"",
        "\"cat\":\"cuda_runtime\"",
        "\"name\":\"k\"",
        "\"args\":{",
        "\"correlation\":1",
        "\"traceEvents\":[",
        "NaN",
        "-1",
        "1.5",
        "1e9",
        "null",
        "\"pid\":",
        "\"tid\":\"x\"",
        "{\"ph\":\"X\",",
        "\"baseTimeNanoseconds\":",
        "\\u12",
        " ",
        "\n",
        "\u{feff}",
    ];
    prop_oneof![
        proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        "[ -~]{0,4}",
        Just(kernel("1", "2", 3))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), form in 0usize..3) {
        let mut text = [&b""[..], b"[", b"{\"traceEvents\":["][form].to_vec();
        text.extend(&bytes);
        Import::limited(&text, Limits { buffer: 64, event: 256 });
        Import::read("t.json.gz", &text[..], Format::JsonGz, Limits::default());
    }

    #[test]
    fn arbitrary_tokens_never_panic(tokens in proptest::collection::vec(token(), 0..60), form in 0usize..3) {
        let text = format!("{}{}", ["", "[", "{\"traceEvents\":["][form], tokens.concat());
        let whole = Import::of(&text);
        let pieces = Import::limited(&text, Limits { buffer: 32, event: 0 });
        assert_eq!(whole.bytes, pieces.bytes);
        Import::limited(&text, Limits { buffer: 32, event: 64 });
    }

    #[test]
    fn a_flipped_byte_of_a_compressed_trace_never_panics(at in 0usize..2000, to in any::<u8>()) {
        let mut packed = gzip(document(&[&kernel("1", "2", 1), &launch("0", "1", 1)]).as_bytes());
        let len = packed.len();
        packed[at % len] = to;
        Import::read("t.json.gz", &packed[..], Format::JsonGz, Limits::default());
    }
}
