//! `CUptiResult`: every code is data. None of them is a reason to stop more than what was asked for.

/// What CUPTI's functions return; 0 is success.
pub type CuptiResult = i32;

/// Codes that something depends on.
pub mod code {
    use super::CuptiResult;

    /// It worked.
    pub const SUCCESS: CuptiResult = 0;
    /// An argument makes no sense to this version.
    pub const INVALID_PARAMETER: CuptiResult = 1;
    /// Not now.
    pub const INVALID_OPERATION: CuptiResult = 7;
    /// There is no next record.
    pub const MAX_LIMIT_REACHED: CuptiResult = 12;
    /// There is no driver that CUPTI could work with (yet).
    pub const NOT_INITIALIZED: CuptiResult = 15;
    /// The kind is not of this version; or the next record is not whole.
    pub const INVALID_KIND: CuptiResult = 21;
    /// Somebody else has subscribed.
    pub const MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED: CuptiResult = 39;
    /// Anything; 13.x without a driver says this.
    pub const UNKNOWN: CuptiResult = 999;
}

/// Codes and what the header calls them, after `CUPTI_`. Later versions know more of them.
pub const RESULTS: &[(CuptiResult, &str)] = &[
    (0, "SUCCESS"),
    (1, "ERROR_INVALID_PARAMETER"),
    (2, "ERROR_INVALID_DEVICE"),
    (3, "ERROR_INVALID_CONTEXT"),
    (7, "ERROR_INVALID_OPERATION"),
    (8, "ERROR_OUT_OF_MEMORY"),
    (9, "ERROR_HARDWARE"),
    (10, "ERROR_PARAMETER_SIZE_NOT_SUFFICIENT"),
    (11, "ERROR_API_NOT_IMPLEMENTED"),
    (12, "ERROR_MAX_LIMIT_REACHED"),
    (13, "ERROR_NOT_READY"),
    (14, "ERROR_NOT_COMPATIBLE"),
    (15, "ERROR_NOT_INITIALIZED"),
    (18, "ERROR_QUEUE_EMPTY"),
    (19, "ERROR_INVALID_HANDLE"),
    (20, "ERROR_INVALID_STREAM"),
    (21, "ERROR_INVALID_KIND"),
    (23, "ERROR_DISABLED"),
    (26, "ERROR_HARDWARE_BUSY"),
    (27, "ERROR_NOT_SUPPORTED"),
    (32, "ERROR_CDP_TRACING_NOT_SUPPORTED"),
    (33, "ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED"),
    (34, "ERROR_CUDA_COMPILER_NOT_COMPATIBLE"),
    (35, "ERROR_INSUFFICIENT_PRIVILEGES"),
    (36, "ERROR_OLD_PROFILER_API_INITIALIZED"),
    (38, "ERROR_LEGACY_PROFILER_NOT_SUPPORTED"),
    (39, "ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"),
    (40, "ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES"),
    (41, "ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED"),
    (42, "ERROR_CMP_DEVICE_NOT_SUPPORTED"),
    (43, "ERROR_MIG_DEVICE_NOT_SUPPORTED"),
    (44, "ERROR_SLI_DEVICE_NOT_SUPPORTED"),
    (45, "ERROR_WSL_DEVICE_NOT_SUPPORTED"),
    (46, "ERROR_INVALID_CHIP_NAME"),
    (47, "ERROR_HES_TRACE_NOT_SUPPORTED_ON_MPS"),
    (999, "ERROR_UNKNOWN"),
];

/// What the header calls a code, after `CUPTI_`.
#[must_use]
pub fn result_name(result: CuptiResult) -> Option<&'static str> {
    RESULTS.iter().find(|(code, _)| *code == result).map(|(_, name)| *name)
}
