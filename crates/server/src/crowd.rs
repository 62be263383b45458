//! Who is connected: how many at once, how many from one address, and who has to go when room is short.
//!
//! Whoever has not yet sent a whole head goes first, the one who has waited longest before all others; then whoever is
//! between two requests. Whoever is being answered stays. So ten thousand who send nothing cannot keep out one who does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How many of one address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PerAddress {
    /// At once.
    pub(crate) most: usize,
    /// Of them without a whole head.
    pub(crate) waiting: usize,
}

/// The connections of one kind of listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Crowd {
    room: Arc<Semaphore>,
    /// When this is cancelled, everybody has to go.
    closed: CancellationToken,
    per_address: PerAddress,
    members: Arc<Mutex<Members>>,
}

/// Whoever may have to go, by how long he has been so; addresses are counted for all.
#[derive(Default)]
struct Members {
    next: u64,
    waiting: BTreeMap<u64, CancellationToken>,
    idle: BTreeMap<u64, CancellationToken>,
    addresses: HashMap<IpAddr, OfAddress>,
}

#[derive(Default)]
struct OfAddress {
    connections: usize,
    waiting: BTreeSet<u64>,
}

/// One of the connections; it is over when this is dropped.
pub(crate) struct Place {
    crowd: Crowd,
    address: Option<IpAddr>,
    /// Where it stands in the order of those who may have to go.
    standing: Mutex<Standing>,
    let_go: CancellationToken,
    permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    Waiting(u64),
    Idle(u64),
    Busy,
}

impl Crowd {
    pub(crate) fn new(most: usize, per_address: PerAddress, closed: CancellationToken) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), closed, per_address, members: Arc::default() }
    }

    /// Lets a connection in, for which somebody else may have to go; `None` when its address has too many already. A
    /// proxy on this machine speaks for many, and the socket for this machine.
    pub(crate) async fn enter(&self, address: Option<IpAddr>) -> Option<Place> {
        let address = address.map(|address| address.to_canonical()).filter(|address| !address.is_loopback());
        let mut place = self.count(address)?;
        place.permit = Some(self.room().await);
        place.waits();
        Some(place)
    }

    fn count(&self, address: Option<IpAddr>) -> Option<Place> {
        if let Some(address) = address {
            let mut members = self.members();
            let of_address = members.addresses.entry(address).or_default();
            if of_address.connections >= self.per_address.most {
                return None;
            }
            of_address.connections += 1;
        }
        let (standing, let_go) = (Mutex::new(Standing::Busy), self.closed.child_token());
        Some(Place { crowd: self.clone(), address, standing, let_go, permit: None })
    }

    /// Room for one more: what is free, else what somebody has to leave.
    async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
                return permit;
            }
            self.let_one_go();
            let waiting = Arc::clone(&self.room).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(ALL_ARE_BUSY, waiting).await {
                return permit;
            }
        }
    }

    /// Asks the one who has waited longest to go.
    fn let_one_go(&self) {
        let mut members = self.members();
        let first = members.waiting.pop_first().or_else(|| members.idle.pop_first());
        first.inspect(|(_, one)| one.cancel());
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes a connection out of the order.
    fn leave(&mut self, standing: Standing, address: Option<IpAddr>) {
        match standing {
            Standing::Idle(number) => {
                self.idle.remove(&number);
            }
            Standing::Waiting(number) => {
                self.waiting.remove(&number);
                if let Some(of_address) = address.and_then(|address| self.addresses.get_mut(&address)) {
                    of_address.waiting.remove(&number);
                }
            }
            Standing::Busy => {}
        }
    }
}

impl Place {
    /// Ready when this connection has to go.
    pub(crate) fn has_to_go(&self) -> CancellationToken {
        self.let_go.clone()
    }

    /// A request is being answered: the connection stays.
    pub(crate) fn is_busy(&self) {
        self.stand(|_| Standing::Busy);
    }

    /// The connection is between two requests.
    pub(crate) fn is_idle(&self) {
        self.stand(|members| {
            let number = members.number();
            members.idle.insert(number, self.let_go.clone());
            Standing::Idle(number)
        });
    }

    /// Nothing has come yet; of one address only so many stand so.
    fn waits(&self) {
        let most = self.crowd.per_address.waiting;
        self.stand(|members| {
            let number = members.number();
            members.waiting.insert(number, self.let_go.clone());
            let of_address = self.address.and_then(|address| members.addresses.get_mut(&address));
            let oldest = of_address.and_then(|of_address| {
                of_address.waiting.insert(number);
                of_address.waiting.first().copied().filter(|_| of_address.waiting.len() > most)
            });
            oldest.and_then(|oldest| members.waiting.get(&oldest)).inspect(|oldest| oldest.cancel());
            Standing::Waiting(number)
        });
    }

    fn stand(&self, new: impl FnOnce(&mut Members) -> Standing) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut members = self.crowd.members();
        members.leave(*standing, self.address);
        *standing = new(&mut members);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let standing = *self.standing.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut members = self.crowd.members();
        members.leave(standing, self.address);
        let Some(address) = self.address else { return };
        if let Some(of_address) = members.addresses.get_mut(&address) {
            of_address.connections -= 1;
            if of_address.connections == 0 {
                members.addresses.remove(&address);
            }
        }
    }
}

/// While everybody is being answered nobody has to go; it is looked again who has become idle meanwhile.
const ALL_ARE_BUSY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(most: usize) -> Crowd {
        Crowd::new(most, PerAddress { most: 4, waiting: 2 }, CancellationToken::new())
    }

    async fn enter(crowd: &Crowd, address: &str) -> Option<Place> {
        crowd.enter(Some(address.parse().unwrap())).await
    }

    #[tokio::test]
    async fn addresses_have_so_many_connections() {
        let crowd = crowd(100);
        let mut busy = Vec::new();
        for _ in 0..4 {
            let place = enter(&crowd, "192.0.2.1").await.unwrap();
            place.is_busy();
            busy.push(place);
        }
        assert!(enter(&crowd, "192.0.2.1").await.is_none());
        assert!(enter(&crowd, "::ffff:192.0.2.1").await.is_none());
        assert!(enter(&crowd, "192.0.2.2").await.is_some());
        busy.pop();
        assert!(enter(&crowd, "192.0.2.1").await.is_some());
        for _ in 0..5 {
            busy.push(enter(&crowd, "127.0.0.1").await.unwrap());
        }
        drop(busy);
        let members = crowd.members();
        assert!(members.addresses.is_empty() && members.waiting.is_empty() && members.idle.is_empty());
    }

    #[tokio::test]
    async fn who_waits_longest_of_an_address_goes_first() {
        let crowd = crowd(100);
        let first = enter(&crowd, "192.0.2.1").await.unwrap();
        let second = enter(&crowd, "192.0.2.1").await.unwrap();
        assert!(!first.has_to_go().is_cancelled());
        let third = enter(&crowd, "192.0.2.1").await.unwrap();
        let gone = [&first, &second, &third].map(|place| place.has_to_go().is_cancelled());
        assert_eq!(gone, [true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_room_is_short_who_sends_nothing_goes_before_who_is_idle_and_nobody_who_is_answered() {
        let crowd = crowd(4);
        let mut places = Vec::new();
        for number in 1..=4 {
            places.push(enter(&crowd, &format!("192.0.2.{number}")).await);
        }
        places[0].as_ref().inspect(|place| place.is_busy());
        places[3].as_ref().inspect(|place| place.is_idle());
        // Each new one is answered; who goes for it gives up its place when it is told to.
        for expected in [1, 2, 3] {
            let entering = enter(&crowd, "198.51.100.1");
            let told = places[expected].as_ref().unwrap().has_to_go();
            let leaving = async {
                told.cancelled().await;
                drop(places[expected].take());
            };
            let (new, ()) = tokio::join!(entering, leaving);
            new.as_ref().unwrap().is_busy();
            places.push(new);
        }
        let none = tokio::time::timeout(Duration::from_secs(5), enter(&crowd, "198.51.100.2")).await;
        assert!(none.is_err(), "somebody who is answered had to go");
    }
}
