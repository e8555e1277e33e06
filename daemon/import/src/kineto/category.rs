//! What an event's category says that it is, from 2021 to now.

/// What an event describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    /// A kernel on a device.
    Kernel,
    /// A copy on a device.
    Memcpy,
    /// A fill on a device.
    Memset,
    /// A host call into CUDA or HIP.
    Api,
    /// A framework operator.
    Operator,
    /// A Python function.
    Python,
    /// A range that the user or the framework marked on the host.
    Annotation,
    /// The same, projected onto the device.
    DeviceAnnotation,
    /// A synchronisation as the driver recorded it.
    Sync,
    /// Time that the profiler itself took.
    Overhead,
    /// The event has no category: its process and thread must tell.
    Absent,
    /// Known and of no use: the profiler's own bookkeeping.
    Ignored,
    /// Unknown.
    Other,
}

/// Names in lower case.
const NAMES: &[(&str, Category)] = &[
    ("kernel", Category::Kernel),
    ("concurrent_kernel", Category::Kernel),
    ("gpu_memcpy", Category::Memcpy),
    ("memcpy", Category::Memcpy),
    ("gpu_memset", Category::Memset),
    ("memset", Category::Memset),
    ("runtime", Category::Api),
    ("driver", Category::Api),
    ("cpu_op", Category::Operator),
    ("operator", Category::Operator),
    ("python_function", Category::Python),
    ("user_annotation", Category::Annotation),
    ("gpu_user_annotation", Category::DeviceAnnotation),
    ("cuda_sync", Category::Sync),
    ("overhead", Category::Overhead),
    ("trace", Category::Ignored),
    ("cuda_event", Category::Ignored),
    ("", Category::Absent),
];

impl Category {
    /// Whether such an event may be an operation of a device: without a category it may be anything.
    pub(super) fn may_occupy_a_device(self) -> bool {
        matches!(self, Self::Kernel | Self::Memcpy | Self::Memset | Self::Absent)
    }

    /// The meaning of a raw category.
    pub(super) fn of(name: &[u8]) -> Self {
        // What the profilers of today write; the rest takes the slow way.
        match name {
            b"python_function" => return Self::Python,
            b"cpu_op" | b"Operator" => return Self::Operator,
            b"cuda_runtime" | b"cuda_driver" | b"Runtime" => return Self::Api,
            b"kernel" | b"Kernel" => return Self::Kernel,
            _ => {}
        }
        if let Some((_, category)) =
            NAMES.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
        {
            return *category;
        }
        // cuda_runtime, hip_runtime, hip_driver, and whichever vendor comes next.
        let lower = name.to_ascii_lowercase();
        if lower.ends_with(b"_runtime") || lower.ends_with(b"_driver") { Self::Api } else { Self::Other }
    }
}

#[cfg(test)]
mod tests {
    use super::Category;

    #[test]
    fn old_and_new_names_mean_the_same() {
        for (name, category) in [
            ("Kernel", Category::Kernel),
            ("kernel", Category::Kernel),
            ("KERNEL", Category::Kernel),
            ("Memcpy", Category::Memcpy),
            ("gpu_memcpy", Category::Memcpy),
            ("Memset", Category::Memset),
            ("gpu_memset", Category::Memset),
            ("Runtime", Category::Api),
            ("cuda_runtime", Category::Api),
            ("cuda_driver", Category::Api),
            ("hip_runtime", Category::Api),
            ("Operator", Category::Operator),
            ("cpu_op", Category::Operator),
            ("user_annotation", Category::Annotation),
            ("gpu_user_annotation", Category::DeviceAnnotation),
            ("cuda_sync", Category::Sync),
            ("Trace", Category::Ignored),
            ("", Category::Absent),
            ("fwdbwd", Category::Other),
        ] {
            assert_eq!(Category::of(name.as_bytes()), category, "{name}");
        }
    }
}
