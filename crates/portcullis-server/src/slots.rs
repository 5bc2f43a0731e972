//! How many connections there may be, in all and from one address, and who makes room when there are too many.
//!
//! Whoever holds a place without using it gives it up: to a newcomer the one that has been longest in its handshake, of
//! the address that has most there (so that a flood displaces itself), then the peer that has been longest without a
//! request; and that one too when there are too many of its kind, since each keeps its buffers. A connection with a
//! request under way keeps its place.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::turns::Turns;

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Slots {
    limit: usize,
    limit_per_address: usize,
    handshakes_per_address: usize,
    quiet_limit: usize,
    quiet: AtomicUsize,
    given_up: AtomicU64,
    /// Connections that have given up their place and are still there.
    leaving: AtomicUsize,
    left: Notify,
    begun: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By the order in which they came.
    all: BTreeMap<u64, Arc<Place>>,
    by_address: HashMap<IpAddr, Here>,
    next: u64,
}

/// What one address has.
#[derive(Debug)]
struct Here {
    connections: usize,
    /// Of them, those in their handshake.
    beginning: Arc<AtomicUsize>,
    handshakes: Arc<Turns>,
}

/// What a connection does with its place, for whoever looks for one.
#[derive(Debug)]
pub(crate) struct Place {
    /// [`HANDSHAKE`], [`BUSY`], [`GONE`], or since when (in milliseconds of [`Slots::begun`]) no request was under way.
    doing: AtomicU64,
    /// Its address' count of those that do as it does while it is in its handshake.
    beginning: Arc<AtomicUsize>,
    give_up: Notify,
}

/// How many may have given up their place and still have their descriptor.
const LEAVING: usize = 64;

const HANDSHAKE: u64 = u64::MAX;
const BUSY: u64 = u64::MAX - 1;
const GONE: u64 = u64::MAX - 2;

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    address: IpAddr,
    place: Arc<Place>,
    handshakes: Arc<Turns>,
}

/// Says whether a connection uses its place.
#[derive(Debug)]
pub(crate) struct Usage {
    slots: Arc<Slots>,
    place: Arc<Place>,
}

impl Slots {
    /// `handshakes_per_address`: how many of the connections from one address may be in their handshake. Each may be
    /// without a request, unless [`with_quiet_limit`](Self::with_quiet_limit) says otherwise.
    pub(crate) fn new(limit: usize, limit_per_address: usize, handshakes_per_address: usize) -> Arc<Self> {
        Self::with_quiet_limit(limit, limit_per_address, handshakes_per_address, limit)
    }

    /// The same; of the connections, so many may be without a request.
    pub(crate) fn with_quiet_limit(
        limit: usize,
        limit_per_address: usize,
        handshakes_per_address: usize,
        quiet_limit: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            limit,
            limit_per_address,
            handshakes_per_address,
            quiet_limit,
            quiet: AtomicUsize::new(0),
            given_up: AtomicU64::new(0),
            leaving: AtomicUsize::new(0),
            left: Notify::new(),
            begun: Instant::now(),
            taken: Mutex::default(),
        })
    }

    /// A place, if need be that of another.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = counted_as(address);
        let mut taken = self.lock();
        if taken.by_address.get(&address).is_some_and(|here| here.connections >= self.limit_per_address) {
            return None;
        }
        if taken.all.len() >= self.limit {
            let number = taken.handshaking().or_else(|| taken.longest_quiet())?;
            self.end(&mut taken, number);
        }
        let number = taken.next;
        taken.next += 1;
        let new = || Here {
            connections: 0,
            beginning: Arc::default(),
            handshakes: Arc::new(Turns::new(self.handshakes_per_address)),
        };
        let here = taken.by_address.entry(address).or_insert_with(new);
        here.connections += 1;
        let (beginning, handshakes) = (Arc::clone(&here.beginning), Arc::clone(&here.handshakes));
        beginning.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(Place { doing: AtomicU64::new(HANDSHAKE), beginning, give_up: Notify::new() });
        taken.all.insert(number, Arc::clone(&place));
        Some(Slot { slots: Arc::clone(self), number, address, place, handshakes })
    }

    /// Done when few are left that have given up their place: before, a newcomer would be one too many.
    pub(crate) async fn room(&self) {
        while self.leaving.load(Ordering::Relaxed) >= LEAVING {
            self.left.notified().await;
        }
    }

    /// How many had to give up their place.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Its task is told, and its place is free at once.
    fn end(&self, taken: &mut Taken, number: u64) {
        let Some(place) = taken.all.remove(&number) else { return };
        self.leave(&place);
        self.given_up.fetch_add(1, Ordering::Relaxed);
        self.leaving.fetch_add(1, Ordering::Relaxed);
        place.give_up.notify_one();
    }

    fn leave(&self, place: &Place) {
        let did = place.doing.swap(GONE, Ordering::Relaxed);
        place.did(did);
        if is_quiet(did) {
            self.quiet.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The one that came first, of the address that has most.
    fn handshaking(&self) -> Option<u64> {
        let most = self.by_address.values().map(|here| here.beginning.load(Ordering::Relaxed)).max()?;
        let is_one = |place: &Place| {
            let of_most = place.beginning.load(Ordering::Relaxed) >= most;
            of_most && place.doing.load(Ordering::Relaxed) == HANDSHAKE
        };
        self.all.iter().find(|(_, place)| is_one(place)).map(|(number, _)| *number)
    }

    fn longest_quiet(&self) -> Option<u64> {
        let since = |place: &Place| place.doing.load(Ordering::Relaxed);
        let quiet =
            self.all.iter().map(|(number, place)| (since(place), *number)).filter(|(since, _)| is_quiet(*since));
        quiet.min().map(|(_, number)| number)
    }
}

impl Slot {
    /// The handshakes that the connection's address may still begin.
    pub(crate) fn handshakes(&self) -> &Turns {
        &self.handshakes
    }

    /// Whose it is: the address that the limits count it for.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// For whoever waits for the place to be wanted.
    pub(crate) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }

    /// For the connection, once its handshake is done.
    pub(crate) fn usage(&self) -> Usage {
        let usage = Usage { slots: Arc::clone(&self.slots), place: Arc::clone(&self.place) };
        usage.quiet();
        usage
    }
}

impl Place {
    /// Done when it must be given up.
    pub(crate) async fn given_up(&self) {
        self.give_up.notified().await;
    }

    /// It does something else now than this.
    fn did(&self, before: u64) {
        if before == HANDSHAKE {
            self.beginning.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Usage {
    /// A request is under way.
    pub(crate) fn busy(&self) {
        if self.set(BUSY).is_some_and(is_quiet) {
            self.slots.quiet.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// None is.
    pub(crate) fn quiet(&self) {
        let since = u64::try_from(self.slots.begun.elapsed().as_millis()).unwrap_or(0);
        if self.set(since).is_none_or(is_quiet) {
            return;
        }
        if self.slots.quiet.fetch_add(1, Ordering::Relaxed) >= self.slots.quiet_limit {
            let mut taken = self.slots.lock();
            if let Some(number) = taken.longest_quiet() {
                self.slots.end(&mut taken, number);
            }
        }
    }

    /// What it was before; `None` once its place is another's.
    fn set(&self, doing: u64) -> Option<u64> {
        let unless_gone = |now| (now != GONE).then_some(doing);
        let before = self.place.doing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, unless_gone).ok();
        self.place.did(before?);
        before
    }
}

fn is_quiet(doing: u64) -> bool {
    doing < GONE
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if taken.all.remove(&self.number).is_some() {
            self.slots.leave(&self.place);
        } else {
            self.slots.leaving.fetch_sub(1, Ordering::Relaxed);
            self.slots.left.notify_one();
        }
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

    fn host(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn taken(slots: &Arc<Slots>, address: IpAddr) -> Slot {
        slots.take(address).expect("a place")
    }

    async fn must_go(slot: &Slot) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, slot.place().given_up()).await.is_ok()
    }

    #[test]
    fn both_limits_and_giving_back() {
        let slots = Slots::new(3, 2, 1);
        let first = taken(&slots, host(1));
        let second = taken(&slots, host(1));
        assert!(slots.take(host(1)).is_none(), "two from one address");
        let third = taken(&slots, host(2));
        for slot in [&first, &second, &third] {
            slot.usage().busy();
        }
        assert!(slots.take(host(3)).is_none(), "three in all");
        drop(first);
        let _fourth = taken(&slots, host(1));
        assert_eq!((slots.count(), slots.given_up()), (3, 0));
    }

    /// Who stalls goes before who idles, the longest first; who works stays.
    #[tokio::test]
    async fn who_makes_room() {
        let slots = Slots::new(4, 4, 1);
        let [busy, quiet, stalled, later] = [1, 2, 3, 4].map(|last| taken(&slots, host(last)));
        busy.usage().busy();
        quiet.usage().quiet();
        let mut working = Vec::new();
        for (old, kept) in [(&stalled, &later), (&later, &quiet), (&quiet, &busy)] {
            let new = taken(&slots, host(5));
            new.usage().busy();
            assert!(must_go(old).await && !must_go(kept).await);
            assert_eq!(slots.count(), 4);
            working.push(new);
        }
        assert!(slots.take(host(6)).is_none(), "all are busy");
        // Given up is given back: dropping it later frees nothing twice.
        drop((stalled, later, quiet));
        assert_eq!((slots.count(), slots.given_up()), (4, 3));
        drop(busy);
        let _free = taken(&slots, host(6));
    }

    /// At the limit all may stay; past it the one goes that has waited longest, and who works is not counted.
    #[tokio::test]
    async fn so_many_may_be_quiet() {
        let slots = Slots::with_quiet_limit(10, 10, 1, 2);
        let places = [1, 2, 3, 4].map(|last| taken(&slots, host(last)));
        let usages = places.each_ref().map(Slot::usage);
        // Two are gone already: each was quiet when its handshake was done.
        assert_eq!(slots.given_up(), 2);
        assert!(must_go(&places[0]).await && must_go(&places[1]).await);
        assert!(!must_go(&places[2]).await && !must_go(&places[3]).await);
        usages[2].busy();
        let fifth = taken(&slots, host(5)).usage();
        assert_eq!(slots.given_up(), 2, "two are quiet, one works");
        usages[2].quiet();
        usages[2].quiet();
        assert_eq!(slots.given_up(), 2, "whose slot is dropped is not quiet");
        // Whoever gave up can change nothing any more.
        usages[0].busy();
        usages[0].quiet();
        assert_eq!((slots.count(), slots.given_up()), (2, 2));
        drop(fifth);
    }

    /// However long an honest handshake takes, newcomers of a flood take the flood's places.
    #[tokio::test]
    async fn a_flood_displaces_itself() {
        let slots = Slots::new(6, 4, 4);
        let served = taken(&slots, host(9));
        served.usage().busy();
        let honest = taken(&slots, host(1));
        let mut flood: Vec<Slot> = (0..4).map(|_| taken(&slots, host(2))).collect();
        // Others of its kind, from an address that has room: still the first of those that are most goes.
        let newcomer = taken(&slots, host(3));
        assert!(must_go(&flood[0]).await && !must_go(&honest).await);
        // Where all have as many, the one that came first.
        flood.truncate(2);
        let _fills = taken(&slots, host(4));
        let _fills = (taken(&slots, host(5)), slots.count());
        let _last = taken(&slots, host(6));
        assert!(must_go(&honest).await && !must_go(&newcomer).await && !must_go(&served).await);
    }

    /// At the limit newcomers wait; one that has left makes room.
    #[tokio::test]
    async fn whoever_gave_up_its_place_is_soon_gone() {
        let is_room = async |slots: &Slots| tokio::time::timeout(std::time::Duration::ZERO, slots.room()).await.is_ok();
        let slots = Slots::new(1, 1000, 1000);
        let mut given_up: Vec<Slot> = (0..LEAVING).map(|_| taken(&slots, host(1))).collect();
        assert!(is_room(&slots).await);
        let _last = taken(&slots, host(1));
        assert!(!is_room(&slots).await);
        given_up.pop();
        assert!(is_room(&slots).await);
    }

    #[test]
    fn a_whole_v6_network_is_one_address() {
        let slots = Slots::new(10, 1, 1);
        let v6 = |text: &str| text.parse::<IpAddr>().expect("v6");
        let _one = taken(&slots, v6("2001:db8::1"));
        assert!(slots.take(v6("2001:db8::2")).is_none());
        let _other = taken(&slots, v6("2001:db8:0:1::2"));
    }
}
