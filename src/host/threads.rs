//! Threads. A container or a user may be allowed few of them: where one cannot be started, that is an error which names
//! the limit, and nothing panics.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
#[cfg(not(feature = "interleave"))]
use tokio::sync::oneshot;

use super::{Cgroup, available_cores};
use crate::error::{Error, Result};
use crate::sync::{self, JoinHandle};

/// Threads beside those that compute: for files, for clocks, and for work that waits.
const BESIDE: usize = 6;

/// Of threads that only wait.
const STACK: usize = 64 << 10;

/// How long work may wait for a thread before it is asked whether there can be one.
const LONGEST_START: Duration = Duration::from_millis(500);

/// Bytes of text that take less than a millisecond, whatever is made of them. To have another thread do that takes several times
/// as long as it does for most: that thread wakes up, and then the one that waits.
pub const BRIEF_BYTES: usize = 1 << 13;

/// Starts a thread.
///
/// # Errors
/// [`Error::Threads`] where it cannot be had.
pub fn start<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    sync::spawn(name, work).map_err(|cause| too_few(&cause))
}

/// Runs `work`, whose parallel iterators share the threads that compute. They are started with the first such work.
///
/// # Errors
/// [`Error::Threads`] where they cannot be had.
pub fn in_parallel<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    // Not rayon's own pool, which panics for ever once it could not be started.
    static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
    let pool = {
        let mut started = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        match &*started {
            Some(pool) => Arc::clone(pool),
            None => {
                let builder = ThreadPoolBuilder::new().thread_name(|index| format!("embedcore-compute-{index}"));
                let pool = builder.num_threads(available_cores()).build();
                Arc::clone(started.insert(Arc::new(pool.map_err(|cause| too_few(&io::Error::other(cause)))?)))
            }
        }
    };
    Ok(pool.install(work))
}

/// Runs `work` on a thread that may block.
///
/// # Errors
/// [`Error::Threads`] where none can be had, [`Error::Internal`] where `work` panics.
#[cfg(not(feature = "interleave"))]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, done) = oneshot::channel();
    // Whoever asked may have gone.
    begin_blocking(move |thread| drop(sender.send(thread.map(|()| work()))));
    done.await.map_err(|_| panicked())?
}

/// The same for the checker of orders, which has no runtime.
///
/// # Errors
/// None.
#[cfg(feature = "interleave")]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    sync::elsewhere().await;
    Ok(work())
}

/// [`blocking`] but for work that is `brief`, which is done here and now.
///
/// # Errors
/// See there.
pub async fn blocking_unless<T: Send + 'static>(brief: bool, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if brief { catch_unwind(AssertUnwindSafe(work)).map_err(|_| panicked()) } else { blocking(work).await }
}

fn panicked() -> Error {
    Error::Internal("work in the background panicked".to_owned())
}

/// Runs `work` on a thread that may block, without waiting for it; with [`Error::Threads`] on another one, where none can be
/// had. Inside the runtime only.
pub fn begin_blocking(work: impl FnOnce(Result<()>) + Send + 'static) {
    let (number, watch) = {
        let mut waiting = waiting();
        waiting.last += 1;
        let number = waiting.last;
        waiting.works.insert(number, (Instant::now(), Box::new(work)));
        (number, !std::mem::replace(&mut waiting.watched, true))
    };
    let begin = move || {
        let begun = waiting().works.remove(&number);
        if let Some((_, work)) = begun {
            work(Ok(()));
        }
    };
    if !spawn(begin) {
        let refused = waiting().works.remove(&number);
        if let Some((_, work)) = refused {
            work(Err(probe(1).err().unwrap_or_else(|| too_few(&io::Error::from(io::ErrorKind::WouldBlock)))));
        }
    }
    if watch {
        tokio::spawn(watch_over(Watch));
    }
}

/// Hands work to the runtime; whether that has a thread at all, for it panics where it can have none.
fn spawn(work: impl FnOnce() + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| drop(tokio::task::spawn_blocking(work)))).is_ok()
}

/// What is done once there is a thread, or told that there will be none.
type Work = Box<dyn FnOnce(Result<()>) + Send>;

/// Work that has no thread yet, and since when. The runtime lets it wait for one that may never come.
struct Waiting {
    works: BTreeMap<u64, (Instant, Work)>,
    last: u64,
    watched: bool,
}

fn waiting() -> MutexGuard<'static, Waiting> {
    static WAITING: Mutex<Waiting> = Mutex::new(Waiting { works: BTreeMap::new(), last: 0, watched: false });
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody watches, until this is dropped.
struct Watch;

impl Drop for Watch {
    fn drop(&mut self) {
        waiting().watched = false;
    }
}

/// Ends the waiting of work for which there is no thread, as long as any waits.
async fn watch_over(watch: Watch) {
    loop {
        tokio::time::sleep(LONGEST_START).await;
        let overdue = {
            let mut waiting = waiting();
            let Some((began, _)) = waiting.works.values().next() else {
                // Told before anybody can begin to wait.
                waiting.watched = false;
                std::mem::forget(watch);
                return;
            };
            began.elapsed() >= LONGEST_START
        };
        if !overdue {
            continue;
        }
        match probe(1) {
            // The runtime looks for one with new work only.
            Ok(()) => drop(spawn(|| {})),
            Err(error) => {
                let refused = std::mem::take(&mut waiting().works);
                refused.into_values().for_each(|(_, work)| work(Err(error.clone())));
            }
        }
    }
}

/// Whether as many threads can be started as this library needs at least.
///
/// # Errors
/// [`Error::Threads`].
pub fn enough() -> Result<()> {
    probe(3 * available_cores() + BESIDE)
}

/// Whether `count` threads can be started, and live at the same time.
fn probe(count: usize) -> Result<()> {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let started: io::Result<Vec<_>> = (0..count)
        .map(|_| {
            let gate = Arc::clone(&gate);
            thread::Builder::new().stack_size(STACK).spawn(move || drop(gate.read()))
        })
        .collect();
    drop(closed);
    // Waited for, so that their places are free again.
    started.map_err(|cause| too_few(&cause))?.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

fn too_few(cause: &io::Error) -> Error {
    let limit = |name: &str, most: Option<u64>| most.map(|most| format!("{name} {most}"));
    let limits = [
        limit("the container (pids.max, --pids-limit)", Cgroup::of_this_process().processes()),
        limit("the user (ulimit -u)", user_limit()),
    ];
    Error::Threads { limits: limits.into_iter().flatten().collect(), reason: cause.to_string() }
}

/// How many processes and threads the user may have at a time.
#[cfg(unix)]
fn user_limit() -> Option<u64> {
    #[allow(unsafe_code)]
    // SAFETY: the call writes nothing but this one.
    let (failed, limit) = unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        (libc::getrlimit(libc::RLIMIT_NPROC, &mut limit), limit)
    };
    (failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(not(unix))]
fn user_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_where_it_may_block_and_a_panic_is_an_error() {
        assert_eq!(blocking(|| 5).await, Ok(5));
        assert_eq!(blocking(|| thread::sleep(LONGEST_START * 2)).await, Ok(()));
        assert!(matches!(blocking(|| assert_eq!(1, 2)).await, Err(Error::Internal(_))));
        let here = || thread::current().id();
        assert_eq!(blocking_unless(true, here).await, Ok(here()));
        assert_ne!(blocking_unless(false, here).await, Ok(here()));
        assert!(matches!(blocking_unless(true, || assert_eq!(1, 2)).await, Err(Error::Internal(_))));
    }

    #[test]
    fn what_is_parallel_shares_its_threads() {
        use rayon::prelude::*;
        let names = in_parallel(|| {
            (0..64).into_par_iter().map(|_| thread::current().name().map(str::to_owned)).collect::<Vec<_>>()
        });
        assert!(names.unwrap().iter().flatten().all(|name| name.starts_with("embedcore-compute-")));
    }

    #[test]
    fn more_threads_than_there_can_be_are_an_error_that_names_the_limit() {
        assert_eq!(enough(), Ok(()));
        let error = too_few(&io::Error::from(io::ErrorKind::WouldBlock));
        assert_eq!(error.code(), "BACKEND_UNAVAILABLE");
        let Error::Threads { limits, .. } = &error else { panic!("{error:?}") };
        assert!(limits.iter().all(|limit| error.to_string().contains(limit)), "{error}");
    }
}
