//! Sizes, offsets, numbers and functions against NVIDIA's headers, where those are.
//!
//! `STALLSCOPE_CUPTI_HEADERS` names a folder that has, for each version, a folder (`11.8`, `12.4`, …) with the headers of
//! the wheels of CUPTI and of the runtime. They are not ours to distribute; `docs/double.md` says how to fetch them.
//! Together with `records.rs` this proves the stand-in's layouts: that test reads its records by these offsets.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::{Lab, here};
use stallscope_cupti_double::folder::Version;

/// Structures of each version, 11.8 to 13.3, and their sizes.
const STRUCTURES: [(&str, [(&str, usize); 5]); 9] = [
    ("Kernel", [("Kernel8", 200), ("Kernel9", 208), ("Kernel9", 208), ("Kernel10", 216), ("Kernel12", 232)]),
    ("Memcpy", [("Memcpy5", 88), ("Memcpy5", 88), ("Memcpy6", 96), ("Memcpy6", 96), ("Memcpy6", 96)]),
    ("Memset", [("Memset4", 88), ("Memset4", 88), ("Memset4", 88), ("Memset4", 88), ("Memset4", 88)]),
    ("API", [("API", 40), ("API", 40), ("API", 40), ("API", 40), ("API", 40)]),
    ("Context", [("Context", 16), ("Context2", 24), ("Context3", 32), ("Context3", 32), ("Context4", 40)]),
    ("Stream", [("Stream", 24), ("Stream", 24), ("Stream", 24), ("Stream", 24), ("Stream", 24)]),
    (
        "Synchronization",
        [
            ("Synchronization", 40),
            ("Synchronization", 40),
            ("Synchronization2", 56),
            ("Synchronization2", 56),
            ("Synchronization2", 56),
        ],
    ),
    (
        "Overhead",
        [("Overhead", 40), ("Overhead3", 56), ("Overhead3", 56), ("Overhead3", 56), ("Overhead3", 56)],
    ),
    (
        "GraphTrace",
        [
            ("GraphTrace", 48),
            ("GraphTrace2", 56),
            ("GraphTrace2", 56),
            ("GraphTrace2", 56),
            ("GraphTrace2", 56),
        ],
    ),
];

/// Fields and offsets that are the same in every version.
const FIELDS: [(&str, &[(&str, usize)]); 9] = [
    (
        "Kernel",
        &[
            ("registersPerThread", 6),
            ("start", 16),
            ("end", 24),
            ("completed", 32),
            ("deviceId", 40),
            ("contextId", 44),
            ("streamId", 48),
            ("gridX", 52),
            ("blockZ", 72),
            ("correlationId", 92),
            ("gridId", 96),
            ("name", 104),
            ("graphNodeId", 144),
            ("graphId", 156),
        ],
    ),
    (
        "Memcpy",
        &[
            ("copyKind", 4),
            ("srcKind", 5),
            ("dstKind", 6),
            ("flags", 7),
            ("bytes", 8),
            ("start", 16),
            ("end", 24),
            ("deviceId", 32),
            ("contextId", 36),
            ("streamId", 40),
            ("correlationId", 44),
            ("graphNodeId", 64),
            ("graphId", 72),
        ],
    ),
    (
        "Memset",
        &[
            ("value", 4),
            ("bytes", 8),
            ("start", 16),
            ("end", 24),
            ("deviceId", 32),
            ("correlationId", 44),
            ("memoryKind", 50),
            ("graphNodeId", 64),
            ("graphId", 72),
        ],
    ),
    (
        "API",
        &[
            ("cbid", 4),
            ("start", 8),
            ("end", 16),
            ("processId", 24),
            ("threadId", 28),
            ("correlationId", 32),
            ("returnValue", 36),
        ],
    ),
    ("Context", &[("contextId", 4), ("deviceId", 8), ("computeApiKind", 12), ("nullStreamId", 14)]),
    ("Stream", &[("contextId", 4), ("streamId", 8), ("flag", 16), ("correlationId", 20)]),
    (
        "Synchronization",
        &[
            ("type", 4),
            ("start", 8),
            ("end", 16),
            ("correlationId", 24),
            ("contextId", 28),
            ("streamId", 32),
            ("cudaEventId", 36),
        ],
    ),
    ("Overhead", &[("overheadKind", 4), ("objectKind", 8), ("objectId", 12), ("start", 24), ("end", 32)]),
    (
        "GraphTrace",
        &[
            ("correlationId", 4),
            ("start", 8),
            ("end", 16),
            ("deviceId", 24),
            ("graphId", 28),
            ("contextId", 32),
            ("streamId", 36),
        ],
    ),
];

/// The headers of a version, or nothing where there are none.
fn headers(version: Version) -> Option<PathBuf> {
    let folder = std::env::var_os("STALLSCOPE_CUPTI_HEADERS").map(|f| PathBuf::from(f).join(version.name()));
    if folder.is_none() {
        eprintln!("skipped: STALLSCOPE_CUPTI_HEADERS is not set");
    }
    folder.filter(|f| f.join("cupti_activity.h").exists())
}

/// Words of nvcc's compiler that cuda.h's companions use and that mean nothing here.
const HOST_DEFINES: &str = "#define __device_builtin__\n#define __device_builtin_texture_type__\n\
    #define __device_builtin_surface_type__\n#define __cudart_builtin__\n#define CUDARTAPI\n#define CUDA_CB\n\
    #define __host__\n#define __device__\n#define __align__(n) __attribute__((aligned(n)))\n\
    #define __builtin_align__(n) __attribute__((aligned(n)))\n";

#[test]
fn layouts_are_those_of_the_headers() {
    for (index, version) in Version::ALL.into_iter().enumerate() {
        let Some(headers) = headers(version) else { continue };
        let mut program =
            String::from("#include <stddef.h>\n#include <cuda.h>\n#include <cupti_activity.h>\n");
        for (name, versions) in STRUCTURES {
            let (structure, size) = versions[index];
            writeln!(
                program,
                "_Static_assert(sizeof(CUpti_Activity{structure}) == {size}, \"{structure}\");"
            )
            .unwrap();
            let (_, fields) = FIELDS.iter().find(|(n, _)| *n == name).unwrap();
            for (field, offset) in *fields {
                let place = format!("offsetof(CUpti_Activity{structure}, {field})");
                writeln!(program, "_Static_assert({place} == {offset}, \"{structure}.{field}\");").unwrap();
            }
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("crt")).unwrap();
        fs::write(folder.path().join("crt/host_defines.h"), HOST_DEFINES).unwrap();
        let source = folder.path().join("layout.c");
        fs::write(&source, program).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-fsyntax-only", "-w", "-I"]).arg(folder.path()).arg("-I").arg(headers).arg(source);
        let output = compiler.output().unwrap();
        assert!(output.status.success(), "{}: {}", version.name(), String::from_utf8_lossy(&output.stderr));
    }
}

/// `call(NUMBER, c"NAME"` of a source file.
fn calls(source: &str) -> Vec<(u32, String)> {
    let text = fs::read_to_string(source).unwrap();
    let starts = ["call(", "call_symbol("].into_iter().flat_map(|s| text.split(s).skip(1));
    let numbered = starts.filter_map(|rest| {
        let (number, rest) = rest.trim_start().split_once(',')?;
        let name = rest.trim_start().strip_prefix("c\"")?.split('"').next()?;
        Some((number.parse().ok()?, name.to_owned()))
    });
    numbered.collect()
}

#[test]
fn numbers_of_functions_are_those_of_the_headers() {
    let Some(headers) = headers(Version::V13_3) else { return };
    let api = here().join("cuda/src/api");
    let mut driver: Vec<_> = fs::read_dir(api).unwrap().map(|e| e.unwrap().path()).collect();
    driver.push(here().join("cuda/src/table.rs"));
    let driver = driver.iter().map(|f| (f.clone(), "cupti_driver_cbid.h"));
    let runtime = (here().join("cudart/src/api.rs"), "cupti_runtime_cbid.h");
    let mut seen = 0;
    for (source, header) in driver.chain([runtime]) {
        let header = fs::read_to_string(headers.join(header)).unwrap();
        let known = |name: &str, number: u32| {
            let mut lines = header.lines().filter_map(|l| l.trim().strip_suffix(',')?.split_once('='));
            lines.any(|(key, value)| {
                let key = key.trim().split_once("_CBID_").map_or("", |(_, k)| k);
                let rest = key.strip_prefix(name);
                let versioned =
                    rest.is_some_and(|r| r.is_empty() || (r.starts_with("_v") && name.starts_with("cuda")));
                versioned && value.trim().parse() == Ok(number)
            })
        };
        for (number, name) in calls(source.to_str().unwrap()) {
            assert!(known(&name, number), "{name} is not {number}");
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn folders_have_only_functions_of_their_version() {
    for version in Version::ALL {
        let Some(headers) = headers(version) else { continue };
        let text: String = fs::read_dir(headers)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("cupti_")))
            .map(|p| String::from_utf8_lossy(&fs::read(p).unwrap()).into_owned())
            .collect();
        let lab = Lab::new(version);
        let library = lab.path("lib").join(version.cupti());
        let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output().unwrap();
        let symbols = String::from_utf8_lossy(&output.stdout).into_owned();
        let functions =
            symbols.lines().filter_map(|l| l.rsplit(' ').next()).filter(|n| n.starts_with("cupti"));
        let mut seen = 0;
        for function in functions {
            assert!(text.contains(&format!("{function}(")), "{function} is not in {}", version.name());
            seen += 1;
        }
        assert!(seen > 30, "{seen}");
    }
}
