//! Whoever is not known yet shares a few tasks, its lanes, in which addresses take turns; whoever is known has a task of
//! its own.
//!
//! A task that can go on waits for all that could before it. With a task for each stranger a flood of them puts hundreds
//! before every step of a client that is served, and of one that is not part of the flood: seen as 5 s for what takes 0.1.
//! With lanes the first waits for one turn of each lane, the second for one turn of each address.
//! Must not know what a connection is.

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::available_parallelism;

use futures_util::stream::{FuturesUnordered, SelectAll, Stream, StreamExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// How many go on in one turn of a lane: each may have a signature to make and one to verify, half a millisecond.
const OF_LANE: usize = 8;
/// How many of them in one turn of an address.
const OF_ADDRESS: usize = 2;

/// A part of a connection's life, with what it owns.
pub(crate) type Part<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// While it is unknown; what is left to do once it is known, if it came so far.
pub(crate) type Unknown = Part<Option<Part<()>>>;

/// One lane for each core, so that handshakes may use all of them; an address keeps to its lane.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// How many may wait here is bounded by whoever lets connections in.
    ways: Vec<UnboundedSender<(IpAddr, Unknown)>>,
    tasks: JoinSet<()>,
    keys: RandomState,
}

impl Lanes {
    /// To be called within a runtime.
    pub(crate) fn new() -> Self {
        Self::with(available_parallelism().map_or(1, NonZero::get))
    }

    fn with(count: usize) -> Self {
        let (ways, ends): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded_channel()).unzip();
        Self { ways, tasks: ends.into_iter().map(lane).collect(), keys: RandomState::new() }
    }

    /// Begins with a connection from this address. Returns at once.
    pub(crate) fn begin(&self, address: IpAddr, unknown: Unknown) {
        let count = self.ways.len() as u64;
        let lane = usize::try_from(self.keys.hash_one(address) % count).unwrap_or(0);
        // A lane ends when its way does.
        let _ = self.ways[lane].send((address, unknown));
    }

    /// Waits for all that were begun. Dropped before, it cuts them.
    pub(crate) async fn end(mut self) {
        self.ways.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The unknown ones of one address.
struct Origin {
    address: IpAddr,
    way: UnboundedReceiver<Unknown>,
    unknown: FuturesUnordered<InTurn>,
    gone_on: GoneOn,
    empty: bool,
}

enum Found {
    /// What is left to do.
    Known(Part<()>),
    /// It has no unknown ones any more.
    Empty(IpAddr),
}

/// How many went on in this turn.
#[derive(Debug, Clone, Default)]
struct GoneOn {
    lane: Arc<AtomicUsize>,
    address: Arc<AtomicUsize>,
}

/// A future that goes on in its address' turn.
struct InTurn {
    unknown: Unknown,
    gone_on: GoneOn,
}

impl GoneOn {
    fn is_over(&self) -> bool {
        let over = |count: &AtomicUsize, most| count.fetch_add(1, Ordering::Relaxed) >= most;
        over(&self.address, OF_ADDRESS) || over(&self.lane, OF_LANE)
    }
}

impl Future for InTurn {
    type Output = Option<Part<()>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.gone_on.is_over() {
            // Two that ask for the next turn end this one: `FuturesUnordered` sees to it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let poll = AssertUnwindSafe(|| self.unknown.as_mut().poll(cx));
        // A fault of one is not the others': it is dropped, as a task of its own would be. The panic's hook has told of it.
        catch_unwind(poll).unwrap_or(Poll::Ready(None))
    }
}

impl Stream for Origin {
    type Item = Found;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Found>> {
        if self.empty {
            return Poll::Ready(None);
        }
        while let Poll::Ready(Some(unknown)) = self.way.poll_recv(cx) {
            let gone_on = self.gone_on.clone();
            self.unknown.push(InTurn { unknown, gone_on });
        }
        self.gone_on.address.store(0, Ordering::Relaxed);
        loop {
            match self.unknown.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(None)) => {}
                Poll::Ready(Some(Some(rest))) => return Poll::Ready(Some(Found::Known(rest))),
                // The task has used up its budget, and was told to come again.
                Poll::Ready(None) if !self.way.is_empty() => return Poll::Pending,
                Poll::Ready(None) => {
                    self.empty = true;
                    return Poll::Ready(Some(Found::Empty(self.address)));
                }
            }
        }
    }
}

async fn lane(way: UnboundedReceiver<(IpAddr, Unknown)>) {
    let gone_on = GoneOn::default();
    let in_this_turn = Arc::clone(&gone_on.lane);
    let mut all = pin!(go_on(way, gone_on));
    poll_fn(|cx| {
        in_this_turn.store(0, Ordering::Relaxed);
        all.as_mut().poll(cx)
    })
    .await;
}

async fn go_on(mut way: UnboundedReceiver<(IpAddr, Unknown)>, gone_on: GoneOn) {
    let mut ways: HashMap<IpAddr, UnboundedSender<Unknown>> = HashMap::new();
    let (mut addresses, mut known) = (SelectAll::new(), JoinSet::new());
    let mut open = true;
    loop {
        tokio::select! {
            next = way.recv(), if open => match next {
                Some((address, unknown)) => {
                    let way = ways.entry(address).or_insert_with(|| {
                        let (way, its_end) = unbounded_channel();
                        let gone_on = GoneOn { lane: Arc::clone(&gone_on.lane), address: Arc::default() };
                        let unknown = FuturesUnordered::new();
                        addresses.push(Origin { address, way: its_end, unknown, gone_on, empty: false });
                        way
                    });
                    // It ends only with what is said below.
                    let _ = way.send(unknown);
                }
                None => open = false,
            },
            Some(found) = addresses.next() => match found {
                Found::Known(rest) => {
                    known.spawn(rest);
                }
                Found::Empty(address) => {
                    ways.remove(&address);
                }
            },
            Some(_) = known.join_next() => {}
            else => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};
    use std::task::Waker;

    use super::*;

    fn host(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// All that wait, and how often they went on.
    #[derive(Default)]
    struct Strangers {
        waiting: Mutex<Vec<Waker>>,
        turns: AtomicUsize,
    }

    impl Strangers {
        fn one(self: &Arc<Self>) -> Unknown {
            let this = Arc::clone(self);
            Box::pin(poll_fn(move |cx| {
                this.turns.fetch_add(1, Ordering::Relaxed);
                this.lock().push(cx.waker().clone());
                Poll::Pending
            }))
        }

        fn wake_all(&self) {
            let waiting = std::mem::take(&mut *self.lock());
            waiting.into_iter().for_each(Waker::wake);
        }

        fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Behind all that can go on now.
    async fn again() {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    async fn counts(done: Arc<AtomicUsize>) {
        again().await;
        done.fetch_add(1, Ordering::Relaxed);
    }

    /// Counted once it is known.
    fn becomes_known(done: &Arc<AtomicUsize>) -> Unknown {
        let done = Arc::clone(done);
        Box::pin(async move {
            again().await;
            let known: Part<()> = Box::pin(counts(done));
            Some(known)
        })
    }

    /// Counted, and known to nobody.
    fn stays_unknown(done: &Arc<AtomicUsize>) -> Unknown {
        let done = Arc::clone(done);
        Box::pin(async move {
            counts(done).await;
            None
        })
    }

    /// More than a task may take in one turn, from many addresses.
    #[tokio::test]
    async fn all_come_to_their_end_known_or_not() {
        let (lanes, done) = (Lanes::with(2), Arc::new(AtomicUsize::new(0)));
        for number in 0..3000_u16 {
            let address = host(u8::try_from(number % 131).expect("small"));
            let begun = if number % 2 == 0 { becomes_known(&done) } else { stays_unknown(&done) };
            lanes.begin(address, begun);
        }
        lanes.end().await;
        assert_eq!(done.load(Ordering::Relaxed), 3000);
    }

    fn panics() -> Unknown {
        Box::pin(async {
            again().await;
            panic!("said to show that it is told")
        })
    }

    #[tokio::test]
    async fn one_that_panics_takes_nobody_with_it() {
        let (lanes, done) = (Lanes::with(1), Arc::new(AtomicUsize::new(0)));
        for number in 0..10_u8 {
            let begun = if number == 5 { panics() } else { stays_unknown(&done) };
            lanes.begin(host(number % 3), begun);
        }
        lanes.end().await;
        assert_eq!(done.load(Ordering::Relaxed), 9);
    }

    /// Each of them is ready again after each step of the one that is counted for.
    async fn flood(lanes: &Lanes, strangers: &Arc<Strangers>, addresses: u8) {
        for number in 0..1000_u16 {
            lanes.begin(host(u8::try_from(number % u16::from(addresses)).expect("small")), strangers.one());
        }
        while strangers.turns.load(Ordering::Relaxed) < 1000 {
            again().await;
        }
    }

    /// One turn of each lane comes before each of its steps, and no more.
    #[tokio::test]
    async fn a_known_one_waits_for_one_turn_of_each_lane() {
        let (lanes, strangers) = (Lanes::with(2), Arc::new(Strangers::default()));
        flood(&lanes, &strangers, 200).await;
        let known = Arc::clone(&strangers);
        let waited_for = tokio::spawn(async move {
            let before = known.turns.load(Ordering::Relaxed);
            for _ in 0..100 {
                known.wake_all();
                again().await;
            }
            known.turns.load(Ordering::Relaxed) - before
        });
        let waited_for = waited_for.await.expect("it counts");
        assert!((100..=100 * 2 * OF_LANE).contains(&waited_for), "{waited_for}");
        drop(lanes);
    }

    /// One turn of each of the flood's addresses comes before each of its steps, and no more.
    #[tokio::test]
    async fn an_unknown_one_waits_for_one_turn_of_each_address() {
        let (lanes, strangers) = (Lanes::with(1), Arc::new(Strangers::default()));
        flood(&lanes, &strangers, 10).await;
        let (unknown, counted) = (Arc::clone(&strangers), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&counted);
        let honest: Unknown = Box::pin(async move {
            let before = unknown.turns.load(Ordering::Relaxed);
            for _ in 0..100 {
                unknown.wake_all();
                again().await;
            }
            count.store(unknown.turns.load(Ordering::Relaxed) - before, Ordering::Relaxed);
            None
        });
        lanes.begin(host(99), honest);
        while counted.load(Ordering::Relaxed) == 0 {
            again().await;
        }
        // Once more for the order in which a turn that is over leaves those that wait.
        let most = 100 * 2 * 10 * OF_ADDRESS;
        assert!(counted.load(Ordering::Relaxed) <= most, "{counted:?} of {most}");
        drop(lanes);
    }
}
