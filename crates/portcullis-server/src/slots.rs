//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Slots {
    limit: usize,
    limit_per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    pub(crate) fn new(limit: usize, limit_per_address: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_per_address, taken: Mutex::default() })
    }

    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = counted_as(address);
        let mut taken = self.lock();
        let here = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.limit || here >= self.limit_per_address {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, here + 1);
        Some(Slot { slots: Arc::clone(self), address })
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.all -= 1;
        let here = taken.by_address.get(&self.address).copied().unwrap_or(0);
        if here <= 1 {
            taken.by_address.remove(&self.address);
        } else {
            taken.by_address.insert(self.address, here - 1);
        }
    }
}

/// A host has a whole IPv6 /64 to itself: its addresses there count as one.
fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_and_giving_back() {
        let slots = Slots::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = slots.take(a).expect("first");
        let _second = slots.take(a).expect("second");
        assert!(slots.take(a).is_none(), "two from one address");
        let _third = slots.take(b).expect("another address");
        assert!(slots.take([10, 0, 0, 3].into()).is_none(), "three in all");
        drop(first);
        assert!(slots.take(a).is_some());
    }

    #[test]
    fn a_whole_v6_network_is_one_address() {
        let slots = Slots::new(10, 1);
        let _one = slots.take("2001:db8::1".parse().expect("v6")).expect("first");
        assert!(slots.take("2001:db8::2".parse().expect("v6")).is_none());
        assert!(slots.take("2001:db8:0:1::2".parse().expect("v6")).is_some());
    }
}
