//! Locks, conditions, atomics, channels and the time: those of `std`, and those of `tokio` for what waits without a thread. With the
//! feature `interleave`, those of the checker that tries the orders in which threads may run (`tests/model/`), and faults can be
//! planted that it has to find.

#[cfg(not(feature = "interleave"))]
mod real {
    pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic, mpsc};
    pub use std::thread::JoinHandle;
    pub use std::time::Instant;

    pub use tokio::time::{sleep, timeout};

    use std::io;

    use super::Fault;

    /// Starts a thread.
    pub fn spawn<T: Send + 'static>(
        name: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        std::thread::Builder::new().name(name).spawn(work)
    }

    /// No fault is planted but in a model.
    pub const fn planted(_: Fault) -> bool {
        false
    }
}

#[cfg(feature = "interleave")]
mod model {
    use std::io;
    use std::ops::{Add, Deref, DerefMut};
    use std::pin::pin;
    use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
    use std::task::Poll;
    use std::time::Duration;

    use shuttle::future::yield_now;
    use shuttle::sync as checked;
    pub use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};
    pub use shuttle::thread::JoinHandle;

    use super::Fault;

    /// Starts a thread.
    pub fn spawn<T: Send + 'static>(
        name: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        shuttle::thread::Builder::new().name(name).spawn(work)
    }

    /// A moment of a clock that goes on only where somebody waits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Instant(Duration);

    static NOW: std::sync::Mutex<Duration> = std::sync::Mutex::new(Duration::ZERO);

    /// How far the clock goes on where somebody waits: many others may run meanwhile.
    const STEP: Duration = Duration::from_millis(1);

    fn pass(most: Duration) {
        *NOW.lock().unwrap_or_else(PoisonError::into_inner) += most.min(STEP);
        shuttle::thread::yield_now();
    }

    impl Instant {
        /// Now.
        pub fn now() -> Self {
            Self(*NOW.lock().unwrap_or_else(PoisonError::into_inner))
        }

        /// How long ago it was.
        pub fn elapsed(&self) -> Duration {
            Self::now().0.saturating_sub(self.0)
        }

        /// From another moment to this one.
        pub fn saturating_duration_since(&self, before: Self) -> Duration {
            self.0.saturating_sub(before.0)
        }

        /// The same, if it is later.
        pub fn checked_duration_since(&self, before: Self) -> Option<Duration> {
            self.0.checked_sub(before.0)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, more: Duration) -> Self {
            Self(self.0 + more)
        }
    }

    /// Waits for a while, as [`Condvar::wait_timeout`] does: it ends at any time.
    pub async fn sleep(most: Duration) {
        pass(most);
        yield_now().await;
    }

    /// What `work` gives, unless it takes longer.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub async fn timeout<T>(most: Duration, work: impl Future<Output = T>) -> Result<T, TimedOut> {
        let mut work = pin!(work);
        let until = Instant::now() + most;
        loop {
            let given = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
            match given {
                Poll::Ready(given) => return Ok(given),
                Poll::Pending if Instant::now() >= until => return Err(TimedOut),
                Poll::Pending => sleep(STEP).await,
            }
        }
    }

    /// Lets others run: what is done elsewhere otherwise is done here, a moment later.
    pub async fn elsewhere() {
        yield_now().await;
    }

    /// A lock.
    #[derive(Default)]
    pub struct Mutex<T>(checked::Mutex<T>);

    /// What it guards, until this is dropped.
    pub struct MutexGuard<'a, T> {
        guard: checked::MutexGuard<'a, T>,
        mutex: &'a checked::Mutex<T>,
    }

    impl<T> Mutex<T> {
        /// A lock that nobody holds.
        pub const fn new(value: T) -> Self {
            Self(checked::Mutex::new(value))
        }

        /// Waits for the lock.
        ///
        /// # Errors
        /// As those of `std`.
        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            let held = |guard| MutexGuard { guard, mutex: &self.0 };
            self.0.lock().map(held).map_err(|error| PoisonError::new(held(error.into_inner())))
        }

        /// Takes the lock, if nobody holds it.
        ///
        /// # Errors
        /// As those of `std`.
        pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            let held = |guard| MutexGuard { guard, mutex: &self.0 };
            self.0.try_lock().map(held).map_err(|error| match error {
                TryLockError::WouldBlock => TryLockError::WouldBlock,
                TryLockError::Poisoned(error) => TryLockError::Poisoned(PoisonError::new(held(error.into_inner()))),
            })
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    /// Waiting without a limit ends when somebody tells; with one, at any time: whoever relies on it alone is too slow, and
    /// not wrong.
    #[derive(Default)]
    pub struct Condvar(checked::Condvar);

    /// Whether the time was over.
    pub struct TimedOut;

    impl TimedOut {
        /// It was.
        pub fn timed_out(&self) -> bool {
            true
        }
    }

    impl Condvar {
        /// One that nobody waits for.
        pub fn new() -> Self {
            Self::default()
        }

        /// Waits until somebody tells.
        ///
        /// # Errors
        /// As those of `std`.
        pub fn wait<'a, T>(&self, held: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            let MutexGuard { guard, mutex } = held;
            let again = |guard| MutexGuard { guard, mutex };
            self.0.wait(guard).map(again).map_err(|error| PoisonError::new(again(error.into_inner())))
        }

        /// Waits for a while.
        ///
        /// # Errors
        /// As those of `std`.
        pub fn wait_timeout<'a, T>(
            &self,
            held: MutexGuard<'a, T>,
            most: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, TimedOut)> {
            let MutexGuard { guard, mutex } = held;
            drop(guard);
            pass(most);
            let again = |guard| (MutexGuard { guard, mutex }, TimedOut);
            mutex.lock().map(again).map_err(|error| PoisonError::new(again(error.into_inner())))
        }

        /// Tells one of those who wait.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// Tells all of them.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// Channels.
    pub mod mpsc {
        use std::time::Duration;

        pub use shuttle::sync::mpsc::{RecvTimeoutError, SyncSender};
        use shuttle::sync::mpsc::{TryRecvError, sync_channel as channel};

        /// Whoever receives.
        pub struct Receiver<T>(shuttle::sync::mpsc::Receiver<T>);

        /// A channel with room for so many.
        pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
            let (sender, receiver) = channel(bound);
            (sender, Receiver(receiver))
        }

        impl<T> Receiver<T> {
            /// What was sent, after waiting for a while.
            ///
            /// # Errors
            /// Where nothing was, or nobody is left who could.
            pub fn recv_timeout(&self, most: Duration) -> Result<T, RecvTimeoutError> {
                super::pass(most);
                self.0.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            }
        }
    }

    static PLANTED: std::sync::Mutex<Option<Fault>> = std::sync::Mutex::new(None);

    /// Plants a fault, or takes it out again.
    pub fn plant(fault: Option<Fault>) {
        *PLANTED.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Whether this fault is planted.
    pub fn planted(fault: Fault) -> bool {
        *PLANTED.lock().unwrap_or_else(PoisonError::into_inner) == Some(fault)
    }
}

#[cfg(feature = "interleave")]
pub use model::*;
#[cfg(not(feature = "interleave"))]
pub use real::*;

/// Faults that a model has to find: each is what somebody might write by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A flight is looked for and begun in two steps.
    JoinInTwoSteps,
    /// Work is queued without telling those who wait for it.
    NobodyIsTold,
    /// A hook that comes too late is left in the map.
    LateHookIsLost,
    /// The sum of all permits is read and written in two steps.
    PermitInTwoSteps,
    /// What was queued while a batch was written counts as written.
    WrittenAllOfTheQueue,
    /// A lease is given to whoever asks.
    LeaseForAll,
    /// The thread ends although something waits to be written.
    EndBeforeWritten,
    /// Leases are not renewed.
    LeaseRunsOut,
}
