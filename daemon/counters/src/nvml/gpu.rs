//! What is asked of a GPU and of a MIG instance.

use super::api::{Api, Field, FieldOf, Handle};
use super::code::Code;
use crate::names;
use crate::sample::{Gather, GpuIdentity, GpuProcess, Mig, Of, Why};

/// Instances that a GPU can be divided into; today's have seven.
const INSTANCES: u32 = 64;

/// NVML_NVLINK_MAX_LINKS of the latest version.
const LINKS: u64 = 36;

/// Numbers of fields (NVML_FI_DEV_…).
mod field {
    /// Bytes that the GPU sent on PCIe.
    pub(super) const PCIE_SENT: u32 = 197;
    /// Bytes that the GPU received on PCIe.
    pub(super) const PCIE_RECEIVED: u32 = 198;
    /// Links that the GPU has.
    pub(super) const NVLINKS: u32 = 91;
    /// Data sent on a link, KiB; up to NVLink 4.
    pub(super) const SENT_KIB: u32 = 138;
    /// Data received on a link, KiB; up to NVLink 4.
    pub(super) const RECEIVED_KIB: u32 = 139;
    /// Bytes sent on a link; from NVLink 5 on.
    pub(super) const SENT: u32 = 202;
    /// Bytes received on a link; from NVLink 5 on.
    pub(super) const RECEIVED: u32 = 204;
    /// Packets sent again on a link.
    pub(super) const REPLAYS: u32 = 161;
    /// Times that a link had to be trained again.
    pub(super) const RECOVERIES: u32 = 162;
    /// Packets with a wrong checksum on a link.
    pub(super) const CRC_ERRORS: u32 = 163;
}

/// What is asked of each link: the count from the newest links, the count from older ones in KiB.
const LINK_TRAFFIC: [(&str, u32, u32); 2] = [
    (names::LINK_SENT, field::SENT, field::SENT_KIB),
    (names::LINK_RECEIVED, field::RECEIVED, field::RECEIVED_KIB),
];

/// … and its errors since the driver was loaded.
const LINK_ERRORS: [(&str, u32); 3] = [
    (names::LINK_REPLAYS, field::REPLAYS),
    (names::LINK_RECOVERIES, field::RECOVERIES),
    (names::LINK_CRC_ERRORS, field::CRC_ERRORS),
];

/// A GPU.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) handle: Handle,
    pub(super) identity: GpuIdentity,
    pub(super) instances: Vec<Instance>,
}

/// A part of a divided GPU.
#[derive(Debug)]
pub(super) struct Instance {
    handle: Handle,
    pub(super) identity: GpuIdentity,
}

impl Instance {
    /// Whether these numbers mean it.
    pub(super) fn is(&self, gpu_instance: u32, compute_instance: u32) -> bool {
        let mig = self.identity.mig.as_ref();
        mig.is_some_and(|mig| {
            mig.gpu_instance == Some(gpu_instance) && mig.compute_instance == Some(compute_instance)
        })
    }
}

impl Gpu {
    pub(super) fn find(api: &Api, index: u32) -> Result<Self, Code> {
        let handle = api.by_index(index)?;
        let identity = GpuIdentity {
            uuid: api.uuid(handle)?.into(),
            name: api.name(handle).unwrap_or_default(),
            index,
            mig: None,
        };
        let most = api.instances_max(handle).unwrap_or(0).min(INSTANCES);
        let instances = (0..most).filter_map(|number| instance(api, handle, &identity, number)).collect();
        Ok(Self { handle, identity, instances })
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = &GpuIdentity> {
        std::iter::once(&self.identity).chain(self.instances.iter().map(|i| &i.identity))
    }

    fn of(&self) -> Of {
        Of::Gpu(self.identity.uuid.clone())
    }

    /// Adds all but the traffic on PCIe.
    pub(super) fn sample(&self, api: &Api, gather: &mut Gather<'_>) {
        let (of, handle) = (self.of(), self.handle);
        let utilisation = api.utilisation(handle);
        gather.answer(&of, names::GPU_UTILISATION, utilisation.map(|u| u.gpu));
        gather.answer(&of, names::MEMORY_UTILISATION, utilisation.map(|u| u.memory));
        gather.answer(&of, names::SM_CLOCK, api.clock_mhz(handle, 1));
        gather.answer(&of, names::MEMORY_CLOCK, api.clock_mhz(handle, 2));
        gather.answer(&of, names::THROTTLE_REASONS, api.throttle_reasons(handle));
        gather.answer(&of, names::POWER, api.power_mw(handle));
        gather.answer(&of, names::TEMPERATURE, temperature(api, handle));
        memory(api, handle, &of, gather);
        gather.answer(&of, names::ECC_CORRECTED, api.ecc_errors(handle, 0, 0));
        gather.answer(&of, names::ECC_UNCORRECTED, api.ecc_errors(handle, 1, 0));
        gather.answer(&of, names::PCIE_REPLAYS, api.pcie_replays(handle));
        gather.answer(&of, names::PCIE_GENERATION, api.pcie_generation(handle));
        gather.answer(&of, names::PCIE_GENERATION_MAX, api.pcie_generation_max(handle));
        gather.answer(&of, names::PCIE_WIDTH, api.pcie_width(handle));
        gather.answer(&of, names::PCIE_WIDTH_MAX, api.pcie_width_max(handle));
        self.links(api, &of, gather);
        if self.instances.is_empty() {
            processes(api, handle, &self.identity, gather);
        }
        for instance in &self.instances {
            memory(api, instance.handle, &Of::Gpu(instance.identity.uuid.clone()), gather);
            processes(api, instance.handle, &instance.identity, gather);
        }
    }

    /// Adds the bytes on PCIe, where the GPU counts them in more than 32 bits; returns whether it does.
    ///
    /// 32 bits wrap in 70 ms at the full rate of 16 lanes of the fifth generation, so growth from sample to sample would
    /// mean nothing. The type that NVML gives the value does not tell: a value that needs more bits does.
    pub(super) fn pcie_totals(&self, api: &Api, known_wide: bool, gather: &mut Gather<'_>) -> bool {
        let totals = api.fields(self.handle, &[(field::PCIE_SENT, 0), (field::PCIE_RECEIVED, 0)]);
        let wide = |total: &Result<Field, Why>| {
            total.is_ok_and(|total| total.bits == 64 && total.value > u64::from(u32::MAX))
        };
        if !known_wide && !totals.iter().any(wide) {
            return false;
        }
        let of = self.of();
        for (name, total) in [names::PCIE_SENT, names::PCIE_RECEIVED].into_iter().zip(totals) {
            match total {
                Ok(total) => gather.growth(&of, name, total.value, 1),
                Err(why) => gather.absent(&of, name, why),
            }
        }
        true
    }

    /// Adds the rates on PCIe that NVML measures while we wait.
    pub(super) fn pcie_rates(&self, api: &Api, gather: &mut Gather<'_>) {
        let of = self.of();
        gather.answer(&of, names::PCIE_SENT_RATE, api.pcie_rate(self.handle, 0));
        gather.answer(&of, names::PCIE_RECEIVED_RATE, api.pcie_rate(self.handle, 1));
    }

    fn links(&self, api: &Api, of: &Of, gather: &mut Gather<'_>) {
        let count = api.fields(self.handle, &[(field::NVLINKS, 0)]).pop().unwrap_or(Err(Why::Unclear));
        gather.answer(of, names::NVLINKS, count.map(|count| count.value));
        let count = u32::try_from(count.map_or(0, |count| count.value.min(LINKS))).unwrap_or(0);
        let asked: Vec<FieldOf> = (0..count).flat_map(fields_of_link).collect();
        let mut answers = api.fields(self.handle, &asked).into_iter();
        for link in 0..count {
            gather.answer(of, names::nvlink(link, names::LINK_ACTIVE), api.nvlink_active(self.handle, link));
            for (what, ..) in LINK_TRAFFIC {
                let name = names::nvlink(link, what);
                match (answers.next(), answers.next()) {
                    (Some(Ok(bytes)), _) => gather.growth(of, name, bytes.value, 1),
                    (_, Some(Ok(kib))) => gather.growth(of, name, kib.value, 1 << 10),
                    (_, Some(Err(why))) => gather.absent(of, name, why),
                    (_, None) => {}
                }
            }
            for ((what, _), answer) in LINK_ERRORS.into_iter().zip(answers.by_ref()) {
                gather.answer(of, names::nvlink(link, what), answer.map(|count| count.value));
            }
        }
    }
}

/// The fields of a link, in the order in which [`Gpu::links`] takes the answers.
fn fields_of_link(link: u32) -> impl Iterator<Item = FieldOf> {
    let traffic = LINK_TRAFFIC.into_iter().flat_map(|(_, bytes, kib)| [bytes, kib]);
    traffic.chain(LINK_ERRORS.into_iter().map(|(_, field)| field)).map(move |field| (field, link))
}

fn instance(api: &Api, gpu: Handle, parent: &GpuIdentity, number: u32) -> Option<Instance> {
    let handle = api.instance(gpu, number).ok()?;
    let mig = Mig {
        parent: parent.uuid.clone(),
        gpu_instance: api.gpu_instance(handle).ok(),
        compute_instance: api.compute_instance(handle).ok(),
    };
    let identity = GpuIdentity {
        uuid: api.uuid(handle).ok()?.into(),
        name: api.name(handle).unwrap_or_default(),
        index: parent.index,
        mig: Some(mig),
    };
    Some(Instance { handle, identity })
}

/// Degrees Celsius. The older function is asked first: every driver has it.
fn temperature(api: &Api, handle: Handle) -> Result<u64, Why> {
    match api.temperature_c(handle, 0) {
        Ok(celsius) => Ok(celsius.into()),
        Err(Code::FUNCTION_NOT_FOUND) => {
            u64::try_from(api.temperature_now_c(handle)?).map_err(|_| Why::Unclear)
        }
        Err(code) => Err(code.into()),
    }
}

/// Memory in use. Drivers before 510 cannot leave out what they keep for themselves, which is another value.
fn memory(api: &Api, handle: Handle, of: &Of, gather: &mut Gather<'_>) {
    match api.memory_used(handle) {
        Ok(used) => gather.value(of, names::MEMORY_USED, used),
        Err(code) => {
            gather.absent(of, names::MEMORY_USED, code);
            gather.answer(of, names::MEMORY_USED_AND_RESERVED, api.memory(handle).map(|memory| memory.used));
        }
    }
}

fn processes(api: &Api, handle: Handle, identity: &GpuIdentity, gather: &mut Gather<'_>) {
    let gpu = &identity.uuid;
    match api.processes(handle) {
        Ok(processes) => gather.sample.processes.extend(processes.into_iter().map(|p| GpuProcess {
            gpu: gpu.clone(),
            pid: p.pid,
            memory_bytes: p.memory_bytes,
        })),
        Err(why) => gather.absent(&Of::Gpu(gpu.clone()), names::PROCESSES, why),
    }
}
