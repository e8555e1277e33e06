//! Every offset and number of this crate against the headers of each version of CUPTI.
//!
//! The headers may not be committed: they are taken from the wheels on PyPI (about 120 MB, kept in the target folder).
//! Needs python3 with pip, a C compiler, and the network, so it runs on request:
//! `cargo test -p stallscope-cupti-abi --test headers -- --ignored --nocapture`.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use fetch::Headers;
use stallscope_cupti_abi::{
    ActivityKind, Call, CallbackData, DRIVER_CALLS, Functions, RECORDS, RESULTS, RUNTIME_CALLS, VERSION_11_8,
    VERSION_12_6, VERSION_14_0, domain, flush, marker_flags, memcpy_flags, object, site, thread_id,
};

/// Wheels of CUPTI and of the runtime, whose cuda.h goes with it; and what `CUPTI_API_VERSION` says there.
const VERSIONS: &[(&str, &str, u32)] = &[
    ("nvidia-cuda-cupti-cu11==11.8.87", "nvidia-cuda-runtime-cu11==11.8.89", VERSION_11_8),
    ("nvidia-cuda-cupti-cu12==12.0.146", "nvidia-cuda-runtime-cu12==12.0.146", 18),
    ("nvidia-cuda-cupti-cu12==12.1.105", "nvidia-cuda-runtime-cu12==12.1.105", 18),
    ("nvidia-cuda-cupti-cu12==12.2.142", "nvidia-cuda-runtime-cu12==12.2.140", 20),
    ("nvidia-cuda-cupti-cu12==12.3.101", "nvidia-cuda-runtime-cu12==12.3.101", 21),
    ("nvidia-cuda-cupti-cu12==12.4.127", "nvidia-cuda-runtime-cu12==12.4.127", 22),
    ("nvidia-cuda-cupti-cu12==12.5.82", "nvidia-cuda-runtime-cu12==12.5.82", 23),
    ("nvidia-cuda-cupti-cu12==12.6.80", "nvidia-cuda-runtime-cu12==12.6.77", VERSION_12_6),
    ("nvidia-cuda-cupti-cu12==12.8.90", "nvidia-cuda-runtime-cu12==12.8.90", 26),
    ("nvidia-cuda-cupti-cu12==12.9.79", "nvidia-cuda-runtime-cu12==12.9.79", 28),
    ("nvidia-cuda-cupti==13.0.85", "nvidia-cuda-runtime==13.0.88", 130_001),
    ("nvidia-cuda-cupti==13.1.115", "nvidia-cuda-runtime==13.1.80", 130_101),
    ("nvidia-cuda-cupti==13.2.86", "nvidia-cuda-runtime==13.2.86", 130_202),
    ("nvidia-cuda-cupti==13.3.75", "nvidia-cuda-runtime==13.3.29", 130_301),
    ("nvidia-cuda-cupti==13.4.92", "nvidia-cuda-runtime==13.4.92", 130_401),
    ("nvidia-cuda-cupti==13.5.25", "nvidia-cuda-runtime==13.5.37", 130_500),
];

#[test]
#[ignore = "fetches wheels from PyPI"]
fn offsets_and_numbers_are_those_of_every_versions_headers() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (cupti, runtime, api_version) in VERSIONS {
        let headers = fetch::headers(cupti, runtime);
        let before = wrong.len();
        check(&headers, *api_version, &mut wrong, &mut seen);
        for line in &mut wrong[before..] {
            line.insert_str(0, &format!("{cupti}: "));
        }
        println!("{cupti}: {} wrong", wrong.len() - before);
    }
    for name in DRIVER_CALLS.iter().chain(RUNTIME_CALLS).map(|call| call.name.to_owned()) {
        if !seen.contains(&name) {
            wrong.push(format!("no version has a call {name}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(headers: &Headers, api_version: u32, wrong: &mut Vec<String>, seen: &mut BTreeSet<String>) {
    let activity = headers.read("cupti_activity.h");
    let callbacks = headers.read("cupti_callbacks.h");
    layouts(headers, &activity, wrong);

    for (calls, header, prefix) in [
        (DRIVER_CALLS, "cupti_driver_cbid.h", "CUPTI_DRIVER_TRACE_CBID_"),
        (RUNTIME_CALLS, "cupti_runtime_cbid.h", "CUPTI_RUNTIME_TRACE_CBID_"),
    ] {
        check_calls(calls, &numbers(&headers.read(header), prefix), wrong, seen);
    }

    let mut equal = |what: &str, found: Option<&u64>, expected: u64, needed: bool| match found {
        Some(found) if *found == expected => {}
        None if !needed => {}
        found => wrong.push(format!("{what} is {found:?}, not {expected}")),
    };
    let kinds = numbers(&activity, "CUPTI_ACTIVITY_KIND_");
    for kind in ActivityKind::ALL {
        equal(kind.header_name(), kinds.get(kind.header_name()), kind.id().into(), true);
    }
    let results = numbers(&headers.read("cupti_result.h"), "CUPTI_");
    for (code, name) in RESULTS {
        let new = name.starts_with("ERROR_") && *code >= 38 && *code < 999;
        equal(name, results.get(*name), u64::try_from(*code).expect("codes are positive"), !new);
    }
    let flags = numbers(&activity, "CUPTI_ACTIVITY_FLAG_");
    for (name, expected) in [
        ("FLUSH_FORCED", flush::FORCED.into()),
        ("MARKER_INSTANTANEOUS", marker_flags::INSTANTANEOUS.into()),
        ("MARKER_START", marker_flags::START.into()),
        ("MARKER_END", marker_flags::END.into()),
        ("MEMCPY_ASYNC", memcpy_flags::ASYNC.into()),
    ] {
        equal(name, flags.get(name), expected, true);
    }
    let others = [
        ("CUPTI_ACTIVITY_OBJECT_", "THREAD", u64::from(object::THREAD), &activity),
        ("CUPTI_ACTIVITY_THREAD_ID_TYPE_", "SYSTEM", thread_id::SYSTEM.into(), &activity),
        ("CUPTI_CB_DOMAIN_", "DRIVER_API", domain::DRIVER_API.into(), &callbacks),
        ("CUPTI_CB_DOMAIN_", "RUNTIME_API", domain::RUNTIME_API.into(), &callbacks),
        ("CUPTI_API_", "ENTER", site::ENTER.into(), &callbacks),
        ("CUPTI_API_", "EXIT", site::EXIT.into(), &callbacks),
    ];
    for (prefix, name, expected, text) in others {
        equal(name, numbers(text, prefix).get(name), expected, true);
    }
    let version = headers.read("cupti_version.h");
    let version =
        version.lines().find_map(|line| line.strip_prefix("#define CUPTI_API_VERSION")).expect("a version");
    let version = version.trim().parse().expect("a number");
    equal("CUPTI_API_VERSION", Some(&version), api_version.into(), true);
    assert!(version < u64::from(VERSION_14_0));
    for name in Functions::REQUIRED {
        let declared = [&activity, &callbacks, &headers.read("cupti_version.h")]
            .iter()
            .any(|text| text.contains(&format!("{name}(")));
        if !declared {
            wrong.push(format!("{name} is not declared"));
        }
    }
}

/// A version may lack a call; it may not have another number for it, or another call with its number.
fn check_calls(
    calls: &[Call],
    found: &BTreeMap<String, u64>,
    wrong: &mut Vec<String>,
    seen: &mut BTreeSet<String>,
) {
    for call in calls {
        match found.get(call.name) {
            Some(id) if *id == u64::from(call.id) => {
                seen.insert(call.name.to_owned());
            }
            Some(id) => wrong.push(format!("{} is call {id}", call.name)),
            // SIZE is one more than the last.
            None => {
                let other = |(name, id): &(&String, &u64)| {
                    **id == u64::from(call.id) && *name != "SIZE" && !is_former_name(name, call)
                };
                if let Some((name, _)) = found.iter().find(other) {
                    wrong.push(format!("call {} is {name}, not {}", call.id, call.name));
                }
            }
        }
    }
}

/// What a call was called in an earlier version: 13.0 gave the newest form of some the plain name, and some had a number for
/// a name at first.
fn is_former_name(name: &str, call: &Call) -> bool {
    name.replacen("_v2_", "_", 1) == call.name || name.starts_with(&format!("cuda{}_", call.id))
}

/// Compiles a program that prints the offsets, and compares.
fn layouts(headers: &Headers, activity: &str, wrong: &mut Vec<String>) {
    let mut program =
        String::from("#include <stddef.h>\n#include <stdio.h>\n#include <cupti.h>\nint main(void) {\n");
    let mut print = |kind: &str, structure: &str, field: &str| {
        let (at, size) =
            (format!("offsetof({structure}, {field})"), format!("sizeof((({structure} *)0)->{field})"));
        writeln!(program, "printf(\"{kind} {field} %zu %zu\\n\", {at}, {size});").expect("memory");
    };
    for record in RECORDS {
        let structure = newest(activity, record.header_name);
        for field in record.fields {
            print(record.header_name, &structure, field.name);
        }
    }
    let callback = callback_data();
    for (field, _) in &callback {
        print("callback", "CUpti_CallbackData", field);
    }
    program.push_str("return 0; }\n");

    let found = headers.run(&program);
    let mut expected = String::new();
    for record in RECORDS {
        for field in record.fields {
            writeln!(expected, "{} {} {} {}", record.header_name, field.name, field.offset, field.size)
                .expect("memory");
        }
    }
    for (field, (offset, size)) in &callback {
        writeln!(expected, "callback {field} {offset} {size}").expect("memory");
    }
    for (expected, found) in expected.lines().zip(found.lines()) {
        if expected != found {
            wrong.push(format!("expected {expected}, found {found}"));
        }
    }
    assert_eq!(expected.lines().count(), found.lines().count());
}

fn callback_data() -> Vec<(&'static str, (usize, usize))> {
    macro_rules! field {
        ($name:literal, $field:ident, $size:literal) => {
            ($name, (std::mem::offset_of!(CallbackData, $field), $size))
        };
    }
    vec![
        field!("callbackSite", site, 4),
        field!("functionName", function_name, 8),
        field!("functionParams", function_params, 8),
        field!("functionReturnValue", function_result, 8),
        field!("symbolName", symbol_name, 8),
        field!("context", context, 8),
        field!("contextUid", context_id, 4),
        field!("correlationData", correlation_data, 8),
        field!("correlationId", correlation, 4),
    ]
}

/// The record that this version writes: the structure of that name with the highest number.
fn newest(activity: &str, name: &str) -> String {
    let prefix = format!("}} CUpti_Activity{name}");
    let version = |line: &str| {
        let digits = line.trim().strip_prefix(&prefix)?.strip_suffix(';')?;
        if digits.is_empty() { Some(1) } else { digits.parse::<u32>().ok() }
    };
    match activity.lines().filter_map(version).max().expect("a structure") {
        1 => format!("CUpti_Activity{name}"),
        version => format!("CUpti_Activity{name}{version}"),
    }
}

/// The enumerators that begin with `prefix`, with their numbers: `NAME = 3` and `NAME = 1 << 2`.
fn numbers(header: &str, prefix: &str) -> BTreeMap<String, u64> {
    let parse = |line: &str| {
        let (name, value) = line.trim().strip_prefix(prefix)?.split_once('=')?;
        let value = value.split([',', '/']).next()?.trim();
        let value = match value.split_once("<<") {
            Some((left, right)) => left.trim().parse::<u64>().ok()? << right.trim().parse::<u32>().ok()?,
            None => value.parse().ok()?,
        };
        Some((name.trim().to_owned(), value))
    };
    header.lines().filter_map(parse).collect()
}

fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
