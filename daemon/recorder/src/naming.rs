//! Names from the running processes.

use stallscope_ebpf::event::StackFrames;
use stallscope_schemas::record::ObjectKind;
use stallscope_schemas::wire;

use crate::assemble::{NamedCall, NamedObject, NamedStack, Naming};

/// Looks names up in processes, files and tables.
#[derive(Debug, Default)]
pub(crate) struct Names {}

impl Names {
    pub(crate) fn new() -> Self {
        Self::default()
    }
}

impl Naming for Names {
    fn process_seen(&mut self, _pid: u32) {}

    fn process_changed(&mut self, _pid: u32) {}

    fn process_gone(&mut self, _pid: u32) {}

    fn stack(&mut self, _pid: u32, user: Option<&StackFrames>, kernel: Option<&StackFrames>) -> NamedStack {
        let addresses = user.iter().flat_map(|s| s.native.iter().rev()).chain(kernel.iter().flat_map(|s| s.native.iter().rev()));
        NamedStack { frames: addresses.map(|a| format!("{a:#x}")).collect(), unnamed: 0, cut: false }
    }

    fn object(&mut self, object: &wire::Object) -> NamedObject {
        NamedObject { kind: ObjectKind::from_id(object.kind.into()).unwrap_or(ObjectKind::None), text: String::new(), peer_pid: None }
    }

    /// `/sys/dev/block/254:0` is a link to a folder of the device's name.
    fn device(&mut self, number: u32) -> String {
        let (major, minor) = (number >> 20, number & 0xf_ffff);
        let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
        let name = link.ok().and_then(|l| Some(l.file_name()?.to_string_lossy().into_owned()));
        name.unwrap_or_else(|| format!("{major}:{minor}"))
    }

    fn call(&mut self, _pid: u32, _call: &wire::Call) -> Option<NamedCall> {
        None
    }
}
