//! What the handles of data types, reductions and communicators stand for.
//!
//! NCCL's and oneCCL's are small numbers. Those of MPICH and its relatives are integers that hold a type's size. Open MPI's are the
//! addresses of objects that the library exports, and small numbers in Fortran.

/// What the symbols of Open MPI's predefined objects begin with.
pub(crate) const PREFIX: &str = "ompi_mpi_";

/// A data type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataType {
    pub(crate) name: &'static str,
    /// 0 where it is not known.
    pub(crate) bytes: u64,
}

/// Which kind of MPI a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MpiHandles {
    /// Open MPI, called from C: the name of the symbol at the handle, where there is one.
    Address(Option<&'static str>),
    /// Integers.
    Integer,
}

/// The symbol's name as a constant, if it is that of a predefined object.
pub(crate) fn find(symbol: &[u8]) -> Option<&'static str> {
    let name = std::str::from_utf8(symbol).ok()?.strip_prefix(PREFIX)?;
    TYPES
        .iter()
        .map(|t| t.0)
        .chain(OPERATIONS.iter().map(|o| o.0))
        .chain(COMMUNICATORS.iter().map(|c| c.0))
        .find(|&known| known == name)
}

/// Open MPI's name, the standard's, bytes, Open MPI's number in Fortran (0 for none), MPICH's handle (0 for none).
#[rustfmt::skip]
const TYPES: &[(&str, &str, u64, u32, u32)] = &[
    ("byte", "MPI_BYTE", 1, 1, 0x4c00_010d),
    ("packed", "MPI_PACKED", 1, 2, 0x4c00_010f),
    ("character", "MPI_CHARACTER", 1, 5, 0x4c00_011a),
    ("logical", "MPI_LOGICAL", 4, 6, 0x4c00_041d),
    ("integer", "MPI_INTEGER", 4, 7, 0x4c00_041b),
    ("integer1", "MPI_INTEGER1", 1, 8, 0x4c00_012d),
    ("integer2", "MPI_INTEGER2", 2, 9, 0x4c00_022f),
    ("integer4", "MPI_INTEGER4", 4, 10, 0x4c00_0430),
    ("integer8", "MPI_INTEGER8", 8, 11, 0x4c00_0831),
    ("integer16", "MPI_INTEGER16", 16, 12, 0),
    ("real", "MPI_REAL", 4, 13, 0x4c00_041c),
    ("real4", "MPI_REAL4", 4, 14, 0x4c00_0427),
    ("real8", "MPI_REAL8", 8, 15, 0x4c00_0829),
    ("real16", "MPI_REAL16", 16, 16, 0x4c00_102b),
    ("dblprec", "MPI_DOUBLE_PRECISION", 8, 17, 0x4c00_081f),
    ("cplex", "MPI_COMPLEX", 8, 18, 0x4c00_081e),
    ("complex8", "MPI_COMPLEX8", 8, 19, 0x4c00_0828),
    ("complex16", "MPI_COMPLEX16", 16, 20, 0x4c00_102a),
    ("complex32", "MPI_COMPLEX32", 32, 21, 0x4c00_202c),
    ("dblcplex", "MPI_DOUBLE_COMPLEX", 16, 22, 0x4c00_1022),
    ("2real", "MPI_2REAL", 8, 23, 0x4c00_0821),
    ("2dblprec", "MPI_2DOUBLE_PRECISION", 16, 24, 0x4c00_1023),
    ("2integer", "MPI_2INTEGER", 8, 25, 0x4c00_0820),
    ("char", "MPI_CHAR", 1, 34, 0x4c00_0101),
    ("signed_char", "MPI_SIGNED_CHAR", 1, 36, 0x4c00_0118),
    ("unsigned_char", "MPI_UNSIGNED_CHAR", 1, 35, 0x4c00_0102),
    ("wchar", "MPI_WCHAR", 4, 33, 0x4c00_040e),
    ("short", "MPI_SHORT", 2, 37, 0x4c00_0203),
    ("unsigned_short", "MPI_UNSIGNED_SHORT", 2, 38, 0x4c00_0204),
    ("int", "MPI_INT", 4, 39, 0x4c00_0405),
    ("unsigned", "MPI_UNSIGNED", 4, 40, 0x4c00_0406),
    ("long", "MPI_LONG", 8, 41, 0x4c00_0807),
    ("unsigned_long", "MPI_UNSIGNED_LONG", 8, 42, 0x4c00_0808),
    ("long_long_int", "MPI_LONG_LONG", 8, 43, 0x4c00_0809),
    ("unsigned_long_long", "MPI_UNSIGNED_LONG_LONG", 8, 44, 0x4c00_0819),
    ("float", "MPI_FLOAT", 4, 45, 0x4c00_040a),
    ("double", "MPI_DOUBLE", 8, 46, 0x4c00_080b),
    ("long_double", "MPI_LONG_DOUBLE", 16, 47, 0x4c00_100c),
    ("float_int", "MPI_FLOAT_INT", 8, 48, 0x8c00_0000),
    ("double_int", "MPI_DOUBLE_INT", 12, 49, 0x8c00_0001),
    ("long_int", "MPI_LONG_INT", 12, 51, 0x8c00_0002),
    ("short_int", "MPI_SHORT_INT", 6, 53, 0x8c00_0003),
    ("2int", "MPI_2INT", 8, 52, 0x4c00_0816),
    ("longdbl_int", "MPI_LONG_DOUBLE_INT", 20, 50, 0x8c00_0004),
    ("int8_t", "MPI_INT8_T", 1, 58, 0x4c00_0137),
    ("int16_t", "MPI_INT16_T", 2, 60, 0x4c00_0238),
    ("int32_t", "MPI_INT32_T", 4, 62, 0x4c00_0439),
    ("int64_t", "MPI_INT64_T", 8, 64, 0x4c00_083a),
    ("uint8_t", "MPI_UINT8_T", 1, 59, 0x4c00_013b),
    ("uint16_t", "MPI_UINT16_T", 2, 61, 0x4c00_023c),
    ("uint32_t", "MPI_UINT32_T", 4, 63, 0x4c00_043d),
    ("uint64_t", "MPI_UINT64_T", 8, 65, 0x4c00_083e),
    ("aint", "MPI_AINT", 8, 66, 0x4c00_0843),
    ("offset", "MPI_OFFSET", 8, 67, 0x4c00_0844),
    ("count", "MPI_COUNT", 8, 72, 0x4c00_0845),
    ("c_bool", "MPI_C_BOOL", 1, 0, 0x4c00_013f),
    ("c_float_complex", "MPI_C_FLOAT_COMPLEX", 8, 69, 0x4c00_0840),
    ("c_double_complex", "MPI_C_DOUBLE_COMPLEX", 16, 70, 0x4c00_1041),
    ("c_long_double_complex", "MPI_C_LONG_DOUBLE_COMPLEX", 32, 71, 0x4c00_2042),
    ("cxx_bool", "MPI_CXX_BOOL", 1, 54, 0x4c00_0133),
    ("cxx_cplex", "MPI_CXX_FLOAT_COMPLEX", 8, 55, 0x4c00_0834),
    ("cxx_dblcplex", "MPI_CXX_DOUBLE_COMPLEX", 16, 56, 0x4c00_1035),
    ("cxx_ldblcplex", "MPI_CXX_LONG_DOUBLE_COMPLEX", 32, 57, 0x4c00_2036),
];

/// Open MPI's name, the standard's, Open MPI's number in Fortran, MPICH's handle.
const OPERATIONS: &[(&str, &str, u32, u32)] = &[
    ("op_max", "max", 1, 0x5800_0001),
    ("op_min", "min", 2, 0x5800_0002),
    ("op_sum", "sum", 3, 0x5800_0003),
    ("op_prod", "prod", 4, 0x5800_0004),
    ("op_land", "land", 5, 0x5800_0005),
    ("op_band", "band", 6, 0x5800_0006),
    ("op_lor", "lor", 7, 0x5800_0007),
    ("op_bor", "bor", 8, 0x5800_0008),
    ("op_lxor", "lxor", 9, 0x5800_0009),
    ("op_bxor", "bxor", 10, 0x5800_000a),
    ("op_minloc", "minloc", 12, 0x5800_000b),
    ("op_maxloc", "maxloc", 11, 0x5800_000c),
    ("op_replace", "replace", 13, 0x5800_000d),
    ("op_no_op", "no-op", 14, 0x5800_000e),
];

/// As above.
const COMMUNICATORS: &[(&str, &str, u32, u32)] =
    &[("comm_world", WORLD, 0, 0x4400_0000), ("comm_self", SELF, 1, 0x4400_0001)];

/// The communicator of all ranks.
pub(crate) const WORLD: &str = "MPI_COMM_WORLD";
/// The communicator of one.
pub(crate) const SELF: &str = "MPI_COMM_SELF";

/// Below this an integer handle is Open MPI's number; MPICH's have a kind in the top byte.
const SMALL: u32 = 0x0010_0000;

/// Whether an integer handle is one of Open MPI's numbers.
pub(crate) fn is_number(handle: u64) -> bool {
    low(handle) < SMALL
}

/// The low half, in which an integer argument is.
fn low(handle: u64) -> u32 {
    u32::try_from(handle & u64::from(u32::MAX)).unwrap_or(0)
}

/// What an MPI data type is.
pub(crate) fn mpi_type(handles: MpiHandles, handle: u64) -> DataType {
    let integer = low(handle);
    let found = TYPES.iter().find(|(symbol, _, _, number, mpich)| match handles {
        MpiHandles::Address(name) => name == Some(*symbol),
        MpiHandles::Integer => {
            (integer != 0 && integer == *number) || (integer == *mpich && integer >= SMALL)
        }
    });
    if let Some(&(_, name, bytes, ..)) = found {
        return DataType { name, bytes };
    }
    // MPICH: a predefined type that this table does not name has its size in the second byte.
    if handles == MpiHandles::Integer && integer >> 24 == 0x4c {
        return DataType { name: "", bytes: u64::from(integer >> 8 & 0xff) };
    }
    DataType::default()
}

/// The name of an MPI reduction; empty for one that the program made.
pub(crate) fn mpi_operation(handles: MpiHandles, handle: u64) -> &'static str {
    let integer = low(handle);
    let found = OPERATIONS.iter().find(|(symbol, _, number, mpich)| match handles {
        MpiHandles::Address(name) => name == Some(*symbol),
        MpiHandles::Integer => integer == *number || integer == *mpich,
    });
    found.map_or("", |(_, name, ..)| name)
}

/// The name of a predefined MPI communicator.
pub(crate) fn mpi_communicator(handles: MpiHandles, handle: u64) -> Option<&'static str> {
    let integer = low(handle);
    let found = COMMUNICATORS.iter().find(|(symbol, _, number, mpich)| match handles {
        MpiHandles::Address(name) => name == Some(*symbol),
        MpiHandles::Integer => integer == *number || integer == *mpich,
    });
    found.map(|(_, name, ..)| *name)
}

/// What an NCCL or RCCL data type is.
pub(crate) fn nccl_type(number: u64) -> DataType {
    const NCCL: [(&str, u64); 12] = [
        ("int8", 1),
        ("uint8", 1),
        ("int32", 4),
        ("uint32", 4),
        ("int64", 8),
        ("uint64", 8),
        ("float16", 2),
        ("float32", 4),
        ("float64", 8),
        ("bfloat16", 2),
        ("float8e4m3", 1),
        ("float8e5m2", 1),
    ];
    let found = usize::try_from(number).ok().and_then(|n| NCCL.get(n));
    found.map_or(DataType::default(), |&(name, bytes)| DataType { name, bytes })
}

/// The name of an NCCL or RCCL reduction; empty for one that the program made.
pub(crate) fn nccl_operation(number: u64) -> &'static str {
    let found = usize::try_from(number).ok().and_then(|n| ["sum", "prod", "max", "min", "avg"].get(n));
    found.copied().unwrap_or("")
}

/// What a oneCCL data type is: the C functions have NCCL's numbers, those of C++ their own.
pub(crate) fn oneccl_type(c: bool, number: u64) -> DataType {
    const CPP: [(&str, u64); 12] = [
        ("int8", 1),
        ("uint8", 1),
        ("int16", 2),
        ("uint16", 2),
        ("int32", 4),
        ("uint32", 4),
        ("int64", 8),
        ("uint64", 8),
        ("float16", 2),
        ("float32", 4),
        ("float64", 8),
        ("bfloat16", 2),
    ];
    if c {
        return nccl_type(number);
    }
    let found = usize::try_from(number).ok().and_then(|n| CPP.get(n));
    found.map_or(DataType::default(), |&(name, bytes)| DataType { name, bytes })
}

/// The name of a oneCCL reduction. What 4 is in C++ depends on the version: it has no name.
pub(crate) fn oneccl_operation(c: bool, number: u64) -> &'static str {
    if c {
        return nccl_operation(number);
    }
    let found = usize::try_from(number).ok().and_then(|n| ["sum", "prod", "min", "max"].get(n));
    found.copied().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::{
        MpiHandles, find, mpi_communicator, mpi_operation, mpi_type, nccl_operation, nccl_type,
        oneccl_operation, oneccl_type,
    };

    #[test]
    fn handles_of_open_mpi_are_addresses_in_c_and_numbers_in_fortran() {
        let double = find(b"ompi_mpi_double");
        assert_eq!(double, Some("double"));
        assert_eq!(mpi_type(MpiHandles::Address(double), 0x7f12_3456).bytes, 8);
        assert_eq!(mpi_operation(MpiHandles::Address(find(b"ompi_mpi_op_sum")), 1), "sum");
        assert_eq!(
            mpi_communicator(MpiHandles::Address(find(b"ompi_mpi_comm_world")), 1),
            Some("MPI_COMM_WORLD")
        );
        // An address without a symbol is a type that the program made.
        assert_eq!(mpi_type(MpiHandles::Address(None), 17).bytes, 0);
        assert_eq!(mpi_type(MpiHandles::Integer, 17).name, "MPI_DOUBLE_PRECISION");
        assert_eq!(mpi_communicator(MpiHandles::Integer, 0), Some("MPI_COMM_WORLD"));
        assert_eq!(find(b"ompi_mpi_double_addr"), None);
        assert_eq!(find(b"ompi_mpi_\xff"), None);
    }

    #[test]
    fn handles_of_mpich_hold_the_size_and_junk_above_the_integer_is_no_part_of_them() {
        let float = 0x4c00_040a;
        assert_eq!(mpi_type(MpiHandles::Integer, float).name, "MPI_FLOAT");
        assert_eq!(mpi_type(MpiHandles::Integer, float | 0xdead << 32).bytes, 4);
        // Negative as an integer.
        assert_eq!(mpi_type(MpiHandles::Integer, 0xffff_ffff_8c00_0001).name, "MPI_DOUBLE_INT");
        assert_eq!(mpi_type(MpiHandles::Integer, 0x4c00_10ff).bytes, 16);
        assert_eq!(mpi_type(MpiHandles::Integer, 0xcc00_0000), super::DataType::default());
        assert_eq!(mpi_operation(MpiHandles::Integer, 0x5800_0003), "sum");
        assert_eq!(mpi_communicator(MpiHandles::Integer, 0x4400_0000), Some("MPI_COMM_WORLD"));
        assert_eq!(mpi_communicator(MpiHandles::Integer, 0x8400_0002), None);
    }

    #[test]
    fn numbers_of_nccl() {
        assert_eq!((nccl_type(9).name, nccl_type(9).bytes), ("bfloat16", 2));
        assert_eq!(nccl_type(12).bytes, 0);
        assert_eq!((nccl_operation(4), nccl_operation(5)), ("avg", ""));
    }

    #[test]
    fn numbers_of_oneccl_are_not_the_same_in_c_and_in_cpp() {
        assert_eq!([true, false].map(|c| oneccl_type(c, 7).name), ["float32", "uint64"]);
        assert_eq!([true, false].map(|c| oneccl_type(c, 12).bytes), [0, 0]);
        assert_eq!([true, false].map(|c| oneccl_operation(c, 2)), ["max", "min"]);
        assert_eq!([true, false].map(|c| oneccl_operation(c, 4)), ["avg", ""]);
    }
}
