//! Who may be connected: so many, and when all places are taken, whoever just waits goes for the next one.
//!
//! A client that connects and says nothing, or keeps its connection for later, must not keep a probe out.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The places of one server.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    count: u32,
    next: AtomicU64,
    taken: Mutex<BTreeMap<u64, Arc<Taken>>>,
}

#[derive(Debug, Default)]
struct Taken {
    busy: AtomicBool,
    leave: CancellationToken,
}

/// A place, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    taken: Arc<Taken>,
    _permit: OwnedSemaphorePermit,
}

/// A request is being answered, until this is dropped.
pub(super) struct Busy(Arc<Taken>);

impl Places {
    pub(super) fn new(count: u32) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count as usize));
        Arc::new(Self { free, count, next: AtomicU64::new(0), taken: Mutex::default() })
    }

    /// A place; the longest connected of those who just wait makes room if need be.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Place> {
        if self.free.available_permits() == 0 {
            self.make_room();
        }
        let permit = self.free.clone().acquire_owned().await.ok()?;
        let (id, taken) = (self.next.fetch_add(1, Relaxed), Arc::<Taken>::default());
        self.lock().insert(id, taken.clone());
        Some(Place { places: self.clone(), id, taken, _permit: permit })
    }

    fn make_room(&self) {
        let taken = self.lock();
        if let Some(waits) = taken.values().find(|t| !t.busy.load(Relaxed) && !t.leave.is_cancelled()) {
            waits.leave.cancel();
        }
    }

    /// When nobody is connected any more.
    pub(super) async fn all_free(&self) {
        let _ = self.free.acquire_many(self.count).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Taken>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// To be held while a request is answered.
    pub(super) fn busy(&self) -> Busy {
        self.taken.busy.store(true, Relaxed);
        Busy(self.taken.clone())
    }

    /// Somebody needs the place more.
    pub(super) async fn wanted(&self) {
        self.taken.leave.cancelled().await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_just_waits_makes_room() {
        let places = Places::new(2);
        let (first, second) = (places.take().await.unwrap(), places.take().await.unwrap());
        let answering = first.busy();
        let mut third = Box::pin(places.take());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(first.wanted().now_or_never().is_none(), "it is being answered");
        assert!(second.wanted().now_or_never().is_some());
        drop(second);
        let third = third.await.unwrap();
        drop((answering, first, third));
        places.all_free().await;
    }
}
