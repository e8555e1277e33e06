//! Names in real processes: compiled for the test, looked at while they run or after they are gone.

mod common;

use std::fs;
use std::process::Command;

use common::{Target, compile, is_root, line, names, symbolizer, tool};
use stallscope_symbols::{Limits, Missing, Symbolizer, looks_cut};
use tempfile::TempDir;

/// What the main thread of stack.c looks like, innermost first, up to main.
const FULL: [&str; 4] = ["innermost_inlined", "middle_inlined", "outer_function", "main"];

#[test]
fn inlined_functions_have_names_and_lines() {
    let directory = TempDir::new().unwrap();
    let mut target = Target::start(&mut Command::new(compile(&directory, "job", &["-O2", "-g"])));
    let (stack, thread) = (target.addresses(), target.addresses());
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();

    let frames = symbolizer.user(target.pid(), &stack);
    assert_eq!(names(&frames)[..4], FULL);
    let inlined: Vec<_> = frames.iter().map(|frame| frame.inlined).collect();
    assert_eq!(inlined[..4], [true, true, false, false]);
    for (frame, mark) in frames.iter().zip(["pc", "middle", "outer", "main"]) {
        assert_eq!((frame.file.as_deref(), frame.line), (Some("stack.c"), Some(line(mark))), "{frame}");
    }
    assert_eq!(frames[3].to_string(), format!("stack.c({}): main", line("main")));
    assert_eq!(&*frames[3].module, "job");
    assert!(!looks_cut(&frames), "{frames:#?}");

    let frames = symbolizer.user(target.pid(), &thread);
    assert_eq!(names(&frames)[..4], ["innermost_inlined", "middle_inlined", "outer_function", "thread"]);
    assert!(!looks_cut(&frames), "{frames:#?}");
    assert!(looks_cut(&frames[..4]));
}

#[test]
fn programs_of_every_shape_resolve() {
    let directory = TempDir::new().unwrap();
    let shapes: [(&str, &[&str], &[&str]); 4] = [
        ("plain", &["-O2"], &["outer_function", "main"]),
        ("at-a-fixed-address", &["-O2", "-no-pie"], &["outer_function", "main"]),
        ("static", &["-O2", "-static"], &["outer_function", "main"]),
        ("dynamic-table-only", &["-O2", "-rdynamic", "-s"], &["outer_function", "main"]),
    ];
    for (name, flags, expected) in shapes {
        let mut target = Target::start(&mut Command::new(compile(&directory, name, flags)));
        let stack = target.addresses();
        let mut symbolizer = symbolizer();
        symbolizer.process_seen(target.pid()).unwrap();
        let frames = symbolizer.user(target.pid(), &stack);
        assert_eq!(names(&frames)[..2], *expected, "{name}");
        assert_eq!(frames[0].to_string(), format!("outer_function ({name})"));
        assert!(!looks_cut(&frames), "{name}: {frames:#?}");
    }
}

#[test]
fn cpp_and_rust_names_are_demangled() {
    let directory = TempDir::new().unwrap();
    let program = directory.path().join("cart");
    let source = common::source("template.cc");
    tool("g++", &["-O2", "-o", program.to_str().unwrap(), source.to_str().unwrap()]);
    let mut target = Target::start(&mut Command::new(program));
    let stack = target.addresses();
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    assert_eq!(names(&symbolizer.user(target.pid(), &stack)), ["shop::Cart<int>::put"]);

    let own = std::process::id();
    symbolizer.process_seen(own).unwrap();
    let here = generic_function::<u16> as fn(u16) -> u16;
    let frames = symbolizer.user(own, &[here as usize as u64]);
    assert!(frames[0].name.starts_with("targets::generic_function"), "{frames:#?}");
    assert_eq!(frames[0].file.as_deref(), Some("targets.rs"));
    assert_eq!(here(1), 2);
}

#[inline(never)]
fn generic_function<T: Copy + Into<u16> + From<u8>>(number: T) -> u16 {
    number.into() + T::from(1).into()
}

#[test]
fn a_stripped_function_has_one_identity() {
    let directory = TempDir::new().unwrap();
    let mut target = Target::start(&mut Command::new(compile(&directory, "job", &["-O2", "-s"])));
    let (stack, thread) = (target.addresses(), target.addresses());
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    let frames = symbolizer.user(target.pid(), &stack);
    let others = symbolizer.user(target.pid(), &[stack[0] + 1]);
    assert!(frames[0].name.ends_with(" in job") && frames[0].name.starts_with("0x"), "{frames:#?}");
    assert_eq!(frames[0].missing, Some(Missing::Symbol));
    assert_eq!(frames[0].name, others[0].name, "two addresses of one function");
    assert_eq!(frames[0].name, symbolizer.user(target.pid(), &thread)[0].name);
    assert_ne!(frames[0].name, frames[1].name);
}

#[test]
fn threads_begin_in_a_c_library_without_symbols_too() {
    let directory = TempDir::new().unwrap();
    let program = compile(&directory, "job", &["-O2"]);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let Some(libc) =
        maps.lines().find_map(|line| line.ends_with("/libc.so.6").then(|| line.rsplit(' ').next()))
    else {
        eprintln!("skipped: this is not glibc");
        return;
    };
    // Another build id, so that no debug file of the host is its.
    let mut bytes = fs::read(libc.unwrap()).unwrap();
    let note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let at = bytes.windows(note.len()).position(|window| window == note).unwrap() + note.len();
    bytes[at] ^= 0xff;
    let copy = directory.path().join("libc.so.6");
    fs::write(&copy, bytes).unwrap();
    tool("strip", &[copy.to_str().unwrap()]);
    let mut target = Target::start(Command::new(program).env("LD_LIBRARY_PATH", directory.path()));
    let (stack, thread) = (target.addresses(), target.addresses());
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    for stack in [stack, thread] {
        let frames = symbolizer.user(target.pid(), &stack);
        assert!(!looks_cut(&frames), "{frames:#?}");
        assert_eq!(frames.last().unwrap().to_string(), "[thread start] (libc.so.6)");
        assert!(looks_cut(&frames[..frames.len() - 1]));
    }
}

#[test]
fn a_deleted_and_a_replaced_file_are_still_the_mapped_one() {
    let directory = TempDir::new().unwrap();
    let program = compile(&directory, "job", &["-O2", "-g"]);
    let mut target = Target::start(&mut Command::new(&program));
    let stack = target.addresses();
    fs::remove_file(&program).unwrap();
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    assert_eq!(names(&symbolizer.user(target.pid(), &stack))[..4], FULL);

    let program = compile(&directory, "job", &["-O2", "-g"]);
    let mut target = Target::start(&mut Command::new(&program));
    let stack = target.addresses();
    let other = compile(
        &directory,
        "other",
        &["-O0", "-Dmain=other_main", "-Douter_function=wrong", "-shared", "-fPIC"],
    );
    fs::rename(other, &program).unwrap();
    symbolizer.process_seen(target.pid()).unwrap();
    assert_eq!(names(&symbolizer.user(target.pid(), &stack))[..4], FULL);
}

#[test]
fn a_process_that_is_gone_resolves_until_it_is_forgotten() {
    let directory = TempDir::new().unwrap();
    let program = compile(&directory, "job", &["-O2", "-g"]);
    let mut target = Target::start(Command::new(&program).arg("jit"));
    let (stack, _, jit) = (target.addresses(), target.addresses(), target.addresses());
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    let _ = symbolizer.user(target.pid(), &jit);
    target.end();
    fs::remove_file(&program).unwrap();
    symbolizer.process_gone(target.pid());

    assert_eq!(names(&symbolizer.user(target.pid(), &stack))[..4], FULL);
    assert_eq!(names(&symbolizer.user(target.pid(), &jit)), ["py::written_code:/app/x.py"]);
    assert_eq!(symbolizer.footprint().gone_processes, 1);
    symbolizer.forget(target.pid());
    let frames = symbolizer.user(target.pid(), &stack);
    assert_eq!(frames[0].missing, Some(Missing::Process));
    assert_eq!(symbolizer.footprint(), Default::default(), "nothing of it is held");
    fs::remove_file(format!("/tmp/perf-{}.map", target.pid())).unwrap();
}

#[test]
fn only_so_many_processes_that_are_gone_are_remembered() {
    let mut symbolizer = Symbolizer::new(Limits { gone_processes: 2, ..Limits::default() });
    let mut pids = Vec::new();
    for _ in 0..4 {
        let target = Target::start(Command::new("cat").arg("-"));
        symbolizer.process_seen(target.pid()).unwrap();
        pids.push(target.pid());
        drop(target);
        symbolizer.process_gone(*pids.last().unwrap());
    }
    assert_eq!(symbolizer.footprint().gone_processes, 2);
    assert_eq!(symbolizer.user(pids[1], &[1])[0].missing, Some(Missing::Process));
    assert_eq!(symbolizer.user(pids[2], &[1])[0].missing, Some(Missing::Mapping));
}

#[test]
fn a_library_loaded_later_is_found() {
    let directory = TempDir::new().unwrap();
    let library = directory.path().join("liblater.so");
    let code = directory.path().join("later.c");
    fs::write(&code, "int loaded_later(void) { return 7; }\n").unwrap();
    tool("gcc", &["-shared", "-fPIC", "-o", library.to_str().unwrap(), code.to_str().unwrap()]);
    let mut target = Target::start(&mut Command::new(compile(&directory, "job", &["-O2"])));
    let (stack, _) = (target.addresses(), target.addresses());
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    let _ = symbolizer.user(target.pid(), &stack);
    target.tell(library.to_str().unwrap());
    let address = target.addresses();
    let frames = symbolizer.user(target.pid(), &address);
    assert_eq!(frames[0].to_string(), "loaded_later (liblater.so)");

    // Within the pause nothing is read again.
    let mut patient = Symbolizer::new(Limits { reread_pause: std::time::Duration::MAX, ..Limits::default() });
    patient.process_seen(target.pid()).unwrap();
    assert_eq!(patient.user(target.pid(), &[16])[0].missing, Some(Missing::Mapping));
}

#[test]
fn another_program_in_the_same_process_is_noticed() {
    let directory = TempDir::new().unwrap();
    let program = compile(&directory, "job", &["-O2"]);
    let mut target = Target::start(Command::new("sh").args([
        "-c",
        "echo; read line; exec \"$0\"",
        program.to_str().unwrap(),
    ]));
    assert!(target.addresses().is_empty());
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    target.tell("");
    let stack = target.addresses();
    symbolizer.process_changed(target.pid()).unwrap();
    assert_eq!(names(&symbolizer.user(target.pid(), &stack))[..2], ["outer_function", "main"]);
}

#[test]
fn targets_in_namespaces_of_their_own_resolve() {
    if !is_root() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let program = compile(&directory, "job", &["-O2", "-g"]);
    // /tmp is the target's own: its program and its perf map are nowhere else, and its pid there is 1.
    let script = "exec 3<\"$0\"; mount -t tmpfs none /tmp && cat <&3 >/tmp/hidden && chmod +x /tmp/hidden && exec 3<&- \
                  && exec /tmp/hidden jit";
    let mut target = Target::start(Command::new("unshare").args([
        "-m",
        "-p",
        "-f",
        "sh",
        "-c",
        script,
        program.to_str().unwrap(),
    ]));
    let (stack, _, jit) = (target.addresses(), target.addresses(), target.addresses());
    let unshare = target.pid();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let pid = children.trim().parse().unwrap();
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(pid).unwrap();
    let frames = symbolizer.user(pid, &stack);
    assert_eq!(names(&frames)[..4], FULL);
    assert_eq!(&*frames[2].module, "hidden");
    let frames = symbolizer.user(pid, &jit);
    assert_eq!(frames[0].to_string(), "py::written_code:/app/x.py [jit]");
    assert!(!std::path::Path::new("/tmp/perf-1.map").exists());
}

#[test]
fn written_code_without_a_perf_map_says_so() {
    let directory = TempDir::new().unwrap();
    let mut target = Target::start(Command::new(compile(&directory, "job", &["-O2"])).arg("jit"));
    let (_, _, jit) = (target.addresses(), target.addresses(), target.addresses());
    let map = format!("/tmp/perf-{}.map", target.pid());
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();

    // A pipe under its name must not hold anyone up.
    fs::remove_file(&map).unwrap();
    tool("mkfifo", &[&map]);
    let frames = symbolizer.user(target.pid(), &jit);
    assert_eq!((frames[0].to_string().as_str(), frames[0].missing), ("[jit]", Some(Missing::Jit)));

    // One of another user is not believed.
    fs::remove_file(&map).unwrap();
    fs::write(&map, format!("{:x} 40 not_ours\n", jit[0])).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&map, Some(12345), None).unwrap();
        assert_eq!(symbolizer.user(target.pid(), &jit)[0].missing, Some(Missing::Jit));
        std::os::unix::fs::chown(&map, Some(0), None).unwrap();
    }
    assert_eq!(names(&symbolizer.user(target.pid(), &jit)), ["not_ours"]);
    fs::remove_file(&map).unwrap();
}

#[test]
fn the_vdso_has_names() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let Some(mapping) = maps.lines().find(|line| line.ends_with("[vdso]")) else {
        eprintln!("skipped: no vdso");
        return;
    };
    let (start, rest) = mapping.split_once('-').unwrap();
    let (start, end) = (u64::from_str_radix(start, 16).unwrap(), rest.split_once(' ').unwrap().0);
    let length = u64::from_str_radix(end, 16).unwrap() - start;
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    let memory = fs::File::open("/proc/self/mem").unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start).unwrap();
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("vdso.so");
    fs::write(&copy, bytes).unwrap();
    let listed = Command::new("nm").arg("-D").arg(&copy).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let symbol =
        listed.lines().find(|line| line.ends_with(" clock_gettime") || line.contains("__vdso_clock_gettime"));
    let offset = u64::from_str_radix(symbol.unwrap().split_once(' ').unwrap().0, 16).unwrap();

    let own = std::process::id();
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(own).unwrap();
    let frames = symbolizer.user(own, &[start + offset + 1]);
    assert!(frames[0].name.ends_with("clock_gettime"), "{frames:#?}");
    assert!(frames[0].to_string().ends_with(" [vdso]"), "{frames:#?}");
    assert_eq!(symbolizer.user(own, &[0xffff_ffff_ff60_0400])[0].to_string(), "[vsyscall]");
}

#[test]
fn separate_debug_files_are_found_and_must_match() {
    let directory = TempDir::new().unwrap();
    for compression in ["none", "zlib", "zstd"] {
        let program = compile(&directory, "job", &["-O2", "-g"]);
        let (program, debug) = (program.to_str().unwrap(), directory.path().join(".debug/job.debug"));
        fs::create_dir_all(debug.parent().unwrap()).unwrap();
        let debug = debug.to_str().unwrap();
        tool(
            "objcopy",
            &["--only-keep-debug", &format!("--compress-debug-sections={compression}"), program, debug],
        );
        tool("objcopy", &["--strip-all", &format!("--add-gnu-debuglink={debug}"), program]);
        let mut target = Target::start(&mut Command::new(program));
        let stack = target.addresses();
        let mut symbolizer = symbolizer();
        symbolizer.process_seen(target.pid()).unwrap();
        let frames = symbolizer.user(target.pid(), &stack);
        assert_eq!(names(&frames)[..4], FULL, "{compression}");
        assert_eq!(frames[3].line, Some(line("main")), "{compression}");
    }

    let stripped = compile(&directory, "job", &["-O2", "-g"]);
    let other = compile(
        &directory,
        ".debug/job.debug",
        &["-O3", "-g", "-DOTHER", "-Wl,--build-id=0x1234567812345678"],
    );
    tool(
        "objcopy",
        &["--strip-all", &format!("--add-gnu-debuglink={}", other.display()), stripped.to_str().unwrap()],
    );
    let mut target = Target::start(&mut Command::new(&stripped));
    let stack = target.addresses();
    let mut symbolizer = symbolizer();
    symbolizer.process_seen(target.pid()).unwrap();
    assert_eq!(symbolizer.user(target.pid(), &stack)[0].missing, Some(Missing::Symbol), "another build");
    // A pipe in its place must not hold anyone up.
    fs::remove_file(&other).unwrap();
    tool("mkfifo", &[other.to_str().unwrap()]);
    symbolizer.forget(target.pid());
    symbolizer.process_seen(target.pid()).unwrap();
    assert_eq!(symbolizer.user(target.pid(), &stack)[0].missing, Some(Missing::Symbol));
}

#[test]
fn limits_cost_names_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let mut target = Target::start(&mut Command::new(compile(&directory, "job", &["-O2", "-g"])));
    let (stack, pid) = (target.addresses(), target.pid());
    let look = |limits| {
        let mut symbolizer = Symbolizer::new(limits);
        symbolizer.process_seen(pid).unwrap();
        let frames = symbolizer.user(pid, &stack);
        (frames, symbolizer)
    };
    let (frames, symbolizer) = look(Limits { open_files: 0, ..Limits::default() });
    assert_eq!(frames[0].missing, Some(Missing::FileUnavailable));
    assert!(frames[0].name.ends_with(" in job"));
    assert_eq!(symbolizer.footprint().open_files, 0);
    let (frames, _) = look(Limits { debug_bytes: 100, ..Limits::default() });
    assert_eq!(names(&frames)[..2], ["outer_function", "main"], "names without lines");
    let (frames, _) = look(Limits { symbol_bytes: 10, debug_bytes: 100, ..Limits::default() });
    assert_eq!(frames[0].missing, Some(Missing::Symbol));
    let (_, all) = look(Limits::default());
    let (_, mut symbolizer) = look(Limits { image_bytes: 1, ..Limits::default() });
    let (kept, whole) = (symbolizer.footprint().image_bytes, all.footprint().image_bytes);
    assert!(0 < kept && kept < whole, "all but the last are dropped after use: {kept} of {whole}");
    assert_eq!(names(&symbolizer.user(pid, &stack))[..4], FULL);
    let (_, mut symbolizer) = look(Limits { cached_addresses: 1, ..Limits::default() });
    assert_eq!(symbolizer.footprint().cached_addresses, 0);
    assert_eq!(names(&symbolizer.user(pid, &stack))[..4], FULL);
    symbolizer.trim();
    assert_eq!(symbolizer.footprint().image_bytes, 0);
}

#[test]
fn files_are_shared_between_processes() {
    let directory = TempDir::new().unwrap();
    let program = compile(&directory, "job", &["-O2"]);
    let mut symbolizer = symbolizer();
    let mut first = Target::start(&mut Command::new(&program));
    first.addresses();
    symbolizer.process_seen(first.pid()).unwrap();
    let held = symbolizer.footprint();
    let mut second = Target::start(&mut Command::new(&program));
    let stack = second.addresses();
    symbolizer.process_seen(second.pid()).unwrap();
    assert!(held.files > 1);
    assert_eq!(symbolizer.footprint().open_files, held.open_files);
    symbolizer.forget(first.pid());
    assert_eq!(symbolizer.footprint().files, held.files);
    assert_eq!(names(&symbolizer.user(second.pid(), &stack))[..2], ["outer_function", "main"]);
}

#[test]
fn a_process_that_is_not_there_is_an_error() {
    let mut symbolizer = symbolizer();
    let error = symbolizer.process_seen(u32::MAX).unwrap_err();
    assert_eq!(error.to_string(), format!("process {} is gone", u32::MAX));
    symbolizer.process_gone(u32::MAX);
    symbolizer.forget(u32::MAX);
    assert_eq!(symbolizer.user(u32::MAX, &[0, 0])[1].missing, Some(Missing::Process));
    assert!(symbolizer.user(1, &[]).is_empty());
}

#[test]
fn kernel_addresses_have_the_kernels_names() {
    let text = fs::read_to_string("/proc/kallsyms").unwrap();
    let listed = text.lines().find(|line| line.ends_with(" ksys_read")).map(|line| &line[..16]);
    let address = listed.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    let mut symbolizer = symbolizer();
    let frames = symbolizer.kernel(&[address, address + 1]);
    if address == 0 {
        assert_eq!(frames[0].missing, Some(Missing::KernelHidden));
    } else {
        assert_eq!(frames[0].to_string(), "ksys_read [kernel]");
        assert_eq!(frames[1], frames[0], "a return address belongs to the call in front of it");
    }
}
