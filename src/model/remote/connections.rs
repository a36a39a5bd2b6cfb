//! Requests on their way: as many at a time as there are threads that wait for answers, and whoever is stopped need not wait
//! for a thread that cannot be.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::host::threads;
use crate::model::http::{Ask, Http, Secret, Trouble};

/// Requests after which connections are made anew: the client remembers each that it ever made.
const RENEWED_AFTER: usize = 1000;

/// A request that can be made again.
#[derive(Clone)]
pub(super) struct Question {
    pub method: &'static str,
    pub url: Arc<str>,
    pub body: Option<Arc<[u8]>>,
    /// Most bytes of the answer.
    pub most: u64,
}

/// What comes of it: the answer, `None` where that is too long.
type Outcome = Result<Option<Vec<u8>>, Trouble>;

/// The connections to one server. Dropped, they end when they have nothing to wait for.
pub(super) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    secrets: Vec<(String, Secret)>,
    /// Requests at a time.
    most: usize,
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Pending {
    question: Question,
    cancel: Cancel,
    outcome: mpsc::Sender<Outcome>,
}

impl Connections {
    /// At most `most` requests at a time, each with all of `secrets`. Costs nothing yet.
    pub fn new(http: Http, secrets: Vec<(String, Secret)>, most: usize) -> Self {
        Self { shared: Arc::new(Shared { http, secrets, most, queue: Mutex::default(), ready: Condvar::new() }) }
    }

    /// What the server answers. Blocks, but no longer than until the work shall stop.
    pub fn ask(&self, question: &Question, cancel: &Cancel) -> Outcome {
        let (outcome, came) = mpsc::channel();
        let stopped = outcome.clone();
        let _hook = cancel.on_cancel(move |reason| drop(stopped.send(Err(Trouble::Final(reason.clone())))));
        self.shared.push(Pending { question: question.clone(), cancel: cancel.clone(), outcome })?;
        // The hook has a sender, too, so that this never ends without an outcome.
        came.recv().unwrap_or_else(|_| Err(Trouble::Network("nobody asks the server any more".to_owned())))
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request, for a thread that is there or for a new one.
    fn push(self: &Arc<Self>, pending: Pending) -> Result<()> {
        let mut queue = self.lock();
        queue.waiting.push_back(pending);
        if queue.waiting.len() > queue.idle && queue.threads < self.most {
            let shared = Arc::clone(self);
            match threads::start("embedcore-remote".to_owned(), move || shared.serve()) {
                Ok(_) => queue.threads += 1,
                // Slower with fewer, but not at all without any.
                Err(_) if queue.threads > 0 => {}
                Err(error) => {
                    queue.waiting.pop_back();
                    return Err(error);
                }
            }
        }
        self.ready.notify_one();
        Ok(())
    }

    fn next(&self) -> Option<Pending> {
        let mut queue = self.lock();
        loop {
            if let Some(pending) = queue.waiting.pop_front() {
                return Some(pending);
            }
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn serve(&self) {
        let mut http = self.http.another();
        let mut asked = 0;
        while let Some(Pending { question, cancel, outcome }) = self.next() {
            if cancel.check().is_err() {
                continue;
            }
            let hook = cancel.on_cancel({
                let http = http.clone();
                move |_| http.stop()
            });
            let answer = catch_unwind(AssertUnwindSafe(|| self.exchange(&http, &question, &cancel)));
            drop(hook);
            asked += 1;
            if cancel.check().is_err() || answer.is_err() || asked >= RENEWED_AFTER {
                (http, asked) = (self.http.another(), 0);
            }
            let panicked = || Err(Trouble::Network("its answer made the client fail".to_owned()));
            // Nobody listens any more where the call was stopped.
            drop(outcome.send(answer.unwrap_or_else(|_| panicked())));
        }
    }

    fn exchange(&self, http: &Http, question: &Question, cancel: &Cancel) -> Outcome {
        let json: &[(&str, &str)] = &[("content-type", "application/json"), ("accept", "application/json")];
        let ask = Ask {
            method: question.method,
            url: &question.url,
            headers: if question.body.is_some() { json } else { &json[1..] },
            secrets: &self.secrets,
            body: question.body.as_deref(),
            ends: |_| false,
        };
        http.ask(&ask, cancel)?.read(question.most)
    }
}
