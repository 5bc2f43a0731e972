//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Slots {
    limit: usize,
    limit_per_address: usize,
    handshakes_per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, Here>,
}

/// What one address has.
#[derive(Debug)]
struct Here {
    connections: usize,
    handshakes: Arc<Semaphore>,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    handshakes: Arc<Semaphore>,
}

impl Slots {
    /// `handshakes_per_address`: how many of the connections from one address may be in their handshake.
    pub(crate) fn new(limit: usize, limit_per_address: usize, handshakes_per_address: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_per_address, handshakes_per_address, taken: Mutex::default() })
    }

    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = counted_as(address);
        let mut taken = self.lock();
        let count = taken.by_address.get(&address).map_or(0, |here| here.connections);
        if taken.all >= self.limit || count >= self.limit_per_address {
            return None;
        }
        taken.all += 1;
        let new = || Here { connections: 0, handshakes: Arc::new(Semaphore::new(self.handshakes_per_address)) };
        let here = taken.by_address.entry(address).or_insert_with(new);
        here.connections += 1;
        Some(Slot { slots: Arc::clone(self), address, handshakes: Arc::clone(&here.handshakes) })
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The handshakes that the connection's address may still begin.
    pub(crate) fn handshakes(&self) -> &Semaphore {
        &self.handshakes
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.all -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            here.connections -= 1;
            if here.connections == 0 {
                taken.by_address.remove(&self.address);
            }
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
        let slots = Slots::new(3, 2, 1);
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
        let slots = Slots::new(10, 1, 1);
        let _one = slots.take("2001:db8::1".parse().expect("v6")).expect("first");
        assert!(slots.take("2001:db8::2".parse().expect("v6")).is_none());
        assert!(slots.take("2001:db8:0:1::2".parse().expect("v6")).is_some());
    }
}
