//! The GPUs of the made-up machine, and which of them a process sees.
//!
//! libcuda and NVML must agree on them, so both ask here. Identifiers are made from indexes and are the same in every
//! run.

use crate::settings::Settings;

/// A GPU or a MIG instance, as CUDA would enumerate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Index of the GPU on the machine: NVML's index.
    pub gpu: u32,
    /// Which instance of a divided GPU.
    pub instance: Option<u32>,
}

/// Bytes that UUIDs of the double begin with, so that nobody takes them for real ones.
const MARK: [u8; 4] = [0xd0, 0xb1, 0xe5, 0x00];

impl Device {
    /// The UUID's bytes.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&MARK);
        bytes[6] = 0x40;
        bytes[8] = 0x80;
        let gpu = self.gpu.to_be_bytes();
        bytes[12..].copy_from_slice(&gpu);
        if let Some(instance) = self.instance {
            bytes[10..12].copy_from_slice(&[1, u8::try_from(instance).unwrap_or(u8::MAX)]);
        }
        bytes
    }

    /// The UUID as nvidia-smi writes it: `GPU-…` or `MIG-…`.
    #[must_use]
    pub fn uuid_text(&self) -> String {
        let hex: Vec<String> = self.uuid().iter().map(|b| format!("{b:02x}")).collect();
        let kind = if self.instance.is_some() { "MIG" } else { "GPU" };
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().concat();
        format!("{kind}-{}-{}-{}-{}-{}", part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 16))
    }

    /// The PCI address, e.g. `00000000:01:00.0`.
    #[must_use]
    pub fn pci(&self) -> String {
        format!("00000000:{:02X}:00.0", self.gpu + 1)
    }
}

/// How many GPUs the machine has.
#[must_use]
pub fn gpus(settings: &Settings) -> u32 {
    settings.number("gpus", 1)
}

/// Into how many MIG instances a GPU is divided; 0 if it is whole.
#[must_use]
pub fn instances(settings: &Settings, gpu: u32) -> u32 {
    settings.number(&format!("gpu.{gpu}.mig"), 0).min(7)
}

/// What a process with this `CUDA_VISIBLE_DEVICES` sees, in its own order.
///
/// CUDA's rules: entries after one that names nothing are left out; a divided GPU named by its index stands for its
/// first instance; a process sees one MIG instance at most.
#[must_use]
pub fn visible(settings: &Settings, variable: Option<&str>) -> Vec<Device> {
    let all: Vec<Device> = (0..gpus(settings))
        .map(|gpu| Device { gpu, instance: (instances(settings, gpu) > 0).then_some(0) })
        .collect();
    let mut seen: Vec<Device> = match variable {
        None => all,
        Some(list) => {
            let mut seen = Vec::new();
            for entry in list.split(',').map(str::trim) {
                match named(settings, &all, entry) {
                    Some(device) if !seen.contains(&device) => seen.push(device),
                    _ => break,
                }
            }
            seen
        }
    };
    if let Some(at) = seen.iter().position(|d| d.instance.is_some()) {
        seen = vec![seen.swap_remove(at)];
    }
    seen
}

fn named(settings: &Settings, all: &[Device], entry: &str) -> Option<Device> {
    if let Ok(index) = entry.parse::<usize>() {
        return all.get(index).cloned();
    }
    let entry = entry.to_ascii_lowercase();
    let instances_of = |gpu| (0..instances(settings, gpu)).map(move |i| Device { gpu, instance: Some(i) });
    let every = (0..gpus(settings)).flat_map(|gpu| {
        let whole = (instances(settings, gpu) == 0).then_some(Device { gpu, instance: None });
        whole.into_iter().chain(instances_of(gpu))
    });
    let mut fitting =
        every.filter(|d| entry.len() > 4 && d.uuid_text().to_ascii_lowercase().starts_with(&entry));
    fitting.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(settings: &str, variable: Option<&str>) -> Vec<(u32, Option<u32>)> {
        let settings = Settings::parse(&[settings]).unwrap();
        visible(&settings, variable).into_iter().map(|d| (d.gpu, d.instance)).collect()
    }

    #[test]
    fn order_and_end_of_the_list_are_cudas() {
        assert_eq!(seen("gpus=4", None).len(), 4);
        assert_eq!(seen("gpus=4", Some("2,0")), [(2, None), (0, None)]);
        assert_eq!(seen("gpus=4", Some("1,9,0")), [(1, None)]);
        assert_eq!(seen("gpus=4", Some("")), []);
        assert_eq!(seen("gpus=4", Some("-1")), []);
    }

    #[test]
    fn devices_are_found_by_uuid() {
        let second = Device { gpu: 1, instance: None }.uuid_text();
        assert_eq!(second, "GPU-d0b1e500-0000-4000-8000-000000000001");
        assert_eq!(seen("gpus=2", Some(&second)), [(1, None)]);
        let instance = Device { gpu: 1, instance: Some(2) }.uuid_text();
        assert_eq!(seen("gpus=2; gpu.1.mig=3", Some(&instance)), [(1, Some(2))]);
    }

    #[test]
    fn a_process_sees_one_instance_and_nothing_else() {
        assert_eq!(seen("gpus=2; gpu.1.mig=3", Some("1")), [(1, Some(0))]);
        assert_eq!(seen("gpus=2; gpu.1.mig=3", None), [(1, Some(0))]);
    }
}
