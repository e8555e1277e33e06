//! Which GPUs a process has in hand, without asking a driver.

use crate::environment::Environment;

/// GPUs of a process. Open device nodes are an upper bound: CUDA opens the nodes of all visible GPUs, whichever it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus {
    /// Minor numbers of open `/dev/nvidiaN`, ascending.
    pub nvidia: Vec<u32>,
    /// `/dev/kfd` is open: an AMD GPU computes for it.
    pub kfd: bool,
    /// `/dev/nvidia-uvm` is open: it computes. Those that only watch or draw leave it closed.
    pub uvm: bool,
    /// The variable that limits the GPUs it sees, and its value: `("CUDA_VISIBLE_DEVICES", "0,1")`.
    pub visible: Option<(&'static str, String)>,
}

/// Variables that limit GPUs, the strictest first: the last belongs to the container, the others to the process.
const VISIBLE: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];

impl Gpus {
    /// Adds what an open descriptor points at.
    pub(crate) fn add(&mut self, target: &str) {
        let Some(node) = target.strip_prefix("/dev/") else { return };
        match node {
            "kfd" => self.kfd = true,
            "nvidia-uvm" => self.uvm = true,
            _ => {
                if let Some(Ok(minor)) = node.strip_prefix("nvidia").map(str::parse)
                    && let Err(at) = self.nvidia.binary_search(&minor)
                {
                    self.nvidia.insert(at, minor);
                }
            }
        }
    }

    pub(crate) fn limit(&mut self, environment: &Environment) {
        self.visible =
            VISIBLE.into_iter().find_map(|name| environment.get(name).map(|value| (name, value.to_owned())));
    }

    /// Whether the process computes on a GPU.
    #[must_use]
    pub fn compute(&self) -> bool {
        self.uvm || self.kfd
    }
}

#[cfg(test)]
mod tests {
    use super::Gpus;

    #[test]
    fn device_nodes_are_told_from_their_like() {
        let mut gpus = Gpus::default();
        for target in [
            "/dev/nvidia10",
            "/dev/nvidia2",
            "/dev/nvidia2",
            "/dev/nvidiactl",
            "/dev/nvidia-caps/nvidia-cap1",
        ] {
            gpus.add(target);
        }
        gpus.add("/tmp/dev/nvidia7");
        assert_eq!(gpus.nvidia, [2, 10]);
        assert!(!gpus.compute());
        gpus.add("/dev/nvidia-uvm");
        assert!(gpus.compute());
    }
}
