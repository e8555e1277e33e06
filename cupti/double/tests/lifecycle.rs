//! Subscribers, callbacks, flushing, attributes, detaching and attaching again; what versions lack.

mod common;

use std::ffi::CString;
use std::process::Command;

use common::Lab;
use stallscope_cupti_double::folder::Version;
use stallscope_cupti_double::truth::Line;

#[test]
fn cupti_can_be_used_and_finalized_again_and_again() {
    for version in [Version::V11_8, Version::V12_8, Version::V13_0, Version::V13_3] {
        let outcome = Lab::new(version).run("lifecycle.c", &[version.cupti()], "");
        assert_eq!(outcome.lines("flush_before_register"), ["7"]);
        assert_eq!(outcome.lines("subscribe"), ["0"; 3], "finalizing frees the subscriber");
        assert_eq!(outcome.lines("second"), ["39"; 3]);
        assert_eq!(outcome.lines("kernels"), ["10"; 3]);
        assert_eq!(outcome.lines("callbacks"), ["10 10"; 3]);
        assert_eq!(outcome.lines("finalize"), ["0"; 3]);
        assert_eq!(outcome.lines("callbacks_after"), ["11 11"; 3], "none after finalizing at the exit");
        assert_eq!(outcome.lines("running_by_default"), ["0"]);
        assert_eq!(outcome.lines("running_by_force"), ["1 1"]);
        assert_eq!(
            outcome.lines("running_later"),
            ["1"],
            "what was returned unfinished is not returned again"
        );
        assert_eq!(outcome.lines("attribute"), ["256"]);
        assert_eq!(outcome.lines("pool"), ["10 2"], "two kernels too many are not timed");
        assert_eq!(outcome.lines("other_clock"), ["1"]);
        assert_eq!(outcome.lines("other_clock_record"), ["1"]);
        assert_eq!(outcome.lines("too_many_records").len(), 0);
        assert_eq!(outcome.lines("wrong_callback").len() + outcome.lines("wrong_exit").len(), 0);
        let places = outcome.truth.iter().filter_map(|l| match l {
            Line::Cupti(c) if c.call == "cuptiFinalize" => Some(c.detail.as_str()),
            _ => None,
        });
        let at_exit = "at the exit of a call, 0 records lost";
        let expected = [at_exit, at_exit, at_exit, "outside calls, 1 records lost"];
        assert_eq!(places.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn versions_lack_the_functions_that_they_lack() {
    let since = [
        ("cuptiActivityEnable", Version::V11_8),
        ("cuptiGetGraphExecId", Version::V12_4),
        ("cuptiActivityEnableDriverApi", Version::V12_8),
        ("cuptiSubscribe_v2", Version::V13_0),
        ("cuptiActivityEnable_v2", Version::V13_3),
        ("cuptiActivityEnableDriverApi_v2", Version::V13_3),
    ];
    for version in Version::ALL {
        let lab = Lab::new(version);
        let library = lab.path("lib").join(version.cupti());
        let program = "import ctypes, sys; library = ctypes.CDLL(sys.argv[1]); \
                       print(*(int(hasattr(library, name)) for name in sys.argv[2:]))";
        let names = since.iter().map(|(name, _)| CString::new(*name).unwrap().into_string().unwrap());
        let output =
            Command::new("python3").args(["-c", program]).arg(&library).args(names).output().unwrap();
        let expected: Vec<&str> = since
            .iter()
            .map(|(_, first)| {
                let age = |v: Version| Version::ALL.iter().position(|o| *o == v);
                if age(*first) <= age(version) { "1" } else { "0" }
            })
            .collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected.join(" "), "{}", version.name());
    }
}

#[test]
fn libraries_know_their_names() {
    for version in Version::ALL {
        let lab = Lab::new(version);
        for name in ["libcuda.so.1", "libnccl.so.2", "libnvidia-ml.so.1", version.cupti()] {
            let output = Command::new("readelf").arg("-d").arg(lab.path("lib").join(name)).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains(&format!("soname: [{name}]")), "{text}");
        }
    }
}
