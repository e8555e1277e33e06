//! Inputs on which fuzzing once found a defect: each must be taken without a panic and with ledgers that close.

use std::path::Path;

use stallscope_tests::fuzzing::TARGETS;

#[test]
fn what_fuzzing_found_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/findings");
    let mut taken = 0;
    for (target, body) in TARGETS {
        let Ok(files) = std::fs::read_dir(folder.join(target)) else { continue };
        for file in files {
            body(&std::fs::read(file.unwrap().path()).unwrap());
            taken += 1;
        }
    }
    assert!(taken > 0, "the folder of findings is gone");
}
