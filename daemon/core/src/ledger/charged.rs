//! What the waits of all devices are charged to, side by side: there are as many as communication kernels.

use stallscope_schemas::units::DeviceId;

use crate::collectives::OperationId;

/// Position in the list of those who are to blame.
pub(super) type Key = u32;

/// What a wait is charged to, by key, in the order of the keys; sums to the wait.
pub(super) type Parts = Vec<(Key, u64)>;

/// Adds time to a key.
pub(super) fn add(parts: &mut Parts, key: Key, ns: u64) {
    if ns == 0 {
        return;
    }
    match parts.binary_search_by_key(&key, |(key, _)| *key) {
        Ok(at) => {
            if let Some((_, sum)) = parts.get_mut(at) {
                *sum = sum.saturating_add(ns);
            }
        }
        Err(at) => parts.insert(at, (key, ns)),
    }
}

/// A device's wait in one operation, exposed or not.
#[derive(Clone, Copy, Debug)]
struct Wait {
    device: DeviceId,
    /// How much work of its own the device had got on with while it waited, which the late one still has to do, ns.
    lead_ns: u64,
    /// Where its parts begin; they end where those of the next wait begin.
    from: usize,
}

/// The waits of all operations, in the order in which they were charged.
#[derive(Debug, Default)]
pub(super) struct Charged {
    /// By operation: its first wait, and how many there are.
    by_operation: Vec<(usize, u32)>,
    waits: Vec<Wait>,
    keys: Vec<Key>,
    ns: Vec<u64>,
}

impl Charged {
    /// For so many operations.
    pub(super) fn new(operations: usize) -> Self {
        Self { by_operation: vec![(0, 0); operations], ..Self::default() }
    }

    /// Adds a wait. Those of one operation are added one after the other.
    pub(super) fn push(&mut self, operation: OperationId, device: DeviceId, parts: &Parts, lead_ns: u64) {
        let Some((first, count)) = self.by_operation.get_mut(operation as usize) else { return };
        if *count == 0 {
            *first = self.waits.len();
        }
        *count += 1;
        self.waits.push(Wait { device, lead_ns, from: self.keys.len() });
        self.keys.extend(parts.iter().map(|(key, _)| *key));
        self.ns.extend(parts.iter().map(|(_, ns)| *ns));
    }

    fn find(&self, operation: OperationId, device: DeviceId) -> Option<usize> {
        let &(first, count) = self.by_operation.get(operation as usize)?;
        let waits = self.waits.get(first..first.checked_add(count as usize)?)?;
        waits.iter().position(|wait| wait.device == device).map(|at| first + at)
    }

    /// What a device's wait is charged to; nothing where it was the last to come.
    pub(super) fn parts(&self, operation: OperationId, device: DeviceId) -> (&[Key], &[u64]) {
        let of = || {
            let at = self.find(operation, device)?;
            let from = self.waits.get(at)?.from;
            let to = self.waits.get(at + 1).map_or(self.keys.len(), |next| next.from);
            Some((self.keys.get(from..to)?, self.ns.get(from..to)?))
        };
        of().unwrap_or_default()
    }

    /// How much work of its own a device had got on with in an operation; none where it was the last to come.
    pub(super) fn lead_ns(&self, operation: OperationId, device: DeviceId) -> u64 {
        self.find(operation, device).and_then(|at| self.waits.get(at)).map_or(0, |wait| wait.lead_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::{Charged, DeviceId, add};

    #[test]
    fn each_wait_has_its_own_parts() {
        let mut charged = Charged::new(3);
        charged.push(2, DeviceId(0), &vec![(4, 10), (9, 20)], 7);
        charged.push(2, DeviceId(5), &vec![(1, 30)], 0);
        charged.push(0, DeviceId(0), &vec![(4, 40)], 8);
        assert_eq!(charged.parts(2, DeviceId(0)), (&[4, 9][..], &[10, 20][..]));
        assert_eq!(charged.parts(2, DeviceId(5)), (&[1][..], &[30][..]));
        assert_eq!(charged.parts(0, DeviceId(0)), (&[4][..], &[40][..]));
        assert_eq!((charged.lead_ns(2, DeviceId(0)), charged.lead_ns(0, DeviceId(0))), (7, 8));
        for nothing in
            [charged.parts(1, DeviceId(0)), charged.parts(0, DeviceId(5)), charged.parts(3, DeviceId(0))]
        {
            assert_eq!(nothing, (&[][..], &[][..]));
        }
    }

    #[test]
    fn parts_stay_in_the_order_of_their_keys() {
        let mut parts = Vec::new();
        for (key, ns) in [(5, 1), (2, 10), (9, 100), (5, 1_000), (3, 0)] {
            add(&mut parts, key, ns);
        }
        assert_eq!(parts, [(2, 10), (5, 1_001), (9, 100)]);
    }
}
