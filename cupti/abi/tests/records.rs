//! Records are read by the prefix, from any bytes.

use std::ffi::{CStr, CString, c_void};

use stallscope_cupti_abi::{
    ActivityKind, DRIVER_CALLS, Functions, Kernel, RECORDS, code, driver_call, kind_of, result_name,
};

#[test]
fn a_kernel_is_read_from_its_prefix_at_any_alignment() {
    let mut bytes = [0_u8; 161];
    let record = &mut bytes[1..];
    record[..4].copy_from_slice(&ActivityKind::Kernel.id().to_ne_bytes());
    record[16..24].copy_from_slice(&11_u64.to_ne_bytes());
    record[24..32].copy_from_slice(&22_u64.to_ne_bytes());
    record[92..96].copy_from_slice(&33_u32.to_ne_bytes());
    record[104..112].copy_from_slice(&44_u64.to_ne_bytes());
    record[156..160].copy_from_slice(&55_u32.to_ne_bytes());
    assert_eq!(kind_of(record), Some(10));
    let kernel = Kernel::read(record).expect("the prefix is there");
    assert_eq!(
        (kernel.start, kernel.end, kernel.correlation, kernel.name, kernel.graph),
        (11, 22, 33, 44, 55)
    );
}

#[test]
fn a_record_that_is_cut_short_is_none() {
    assert_eq!(Kernel::PREFIX_BYTES, 160);
    assert!(Kernel::read(&[0; 160]).is_some());
    for bytes in 0..160 {
        assert!(Kernel::read(&vec![0; bytes]).is_none());
    }
    assert_eq!(kind_of(&[1, 2, 3]), None);
}

#[test]
fn fields_of_a_record_do_not_overlap() {
    for record in RECORDS {
        let mut fields: Vec<_> = record.fields.iter().map(|field| (field.offset, field.size)).collect();
        fields.sort_unstable();
        for pair in fields.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{}: {pair:?}", record.header_name);
        }
    }
}

#[test]
fn calls_are_found_by_number() {
    assert!(DRIVER_CALLS.is_sorted_by_key(|call| call.id));
    assert_eq!(driver_call(307).expect("a launch").name, "cuLaunchKernel");
    assert_eq!(driver_call(120), None, "queries are not recorded");
    assert_eq!(driver_call(u32::MAX), None);
}

#[test]
fn codes_have_the_names_of_the_header() {
    assert_eq!(
        result_name(code::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED),
        Some("ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED")
    );
    assert_eq!(result_name(-5), None);
}

#[test]
fn a_missing_function_is_named_unless_it_is_optional() {
    extern "C" fn function() {}
    let address = function as *mut c_void;
    let load = |missing: &str| {
        let missing = CString::new(missing).expect("a name");
        // SAFETY: nothing is called.
        unsafe {
            Functions::load(
                |name: &CStr| if name == missing.as_c_str() { std::ptr::null_mut() } else { address },
            )
        }
    };
    for name in Functions::REQUIRED {
        assert_eq!(load(name).err(), Some(*name));
    }
    assert!(load("cuptiActivityEnableDriverApi").expect("optional").enable_driver_api.is_none());
    assert!(load("").expect("all").enable_driver_api.is_some());
}
