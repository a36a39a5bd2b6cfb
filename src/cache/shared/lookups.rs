//! Lookups: what the server has for keys.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Value, cmd};

use super::link::{Commands, Link};
use super::queue::{Hidden, Known};
use super::value::{Read, decode};
use super::wire::{self, EXACT, Trouble};
use super::{Inner, Phase, lock};
use crate::cache::disk::{Asked, OnDisk};
use crate::cache::entry::Entry;
use crate::cache::memory::Now;
use crate::cache::report::SharedState;

/// Keys of one round trip: a megabyte or so of what comes back.
const WINDOW: usize = 512;

/// Connections that are kept for lookups.
const LINKS: usize = 4;

/// How long an event loop waits for an answer itself: for one that is under way already.
const BRIEF: Duration = Duration::from_millis(1);

/// Round trips of which is known how long they took.
const LATENCIES: usize = 128;

impl Inner {
    /// What is known without the server, and what is left to be asked.
    fn glance(&self, asked: &[Asked], now: Now) -> (Vec<OnDisk>, Vec<usize>, Hidden) {
        let state = self.state();
        let mut open = Vec::with_capacity(asked.len());
        let known = |(at, (key, content)): (usize, &Asked)| match state.queue.known(key) {
            Known::Entry(entry) => judge(entry, content.as_ref(), now.wall_ms),
            Known::Deleted => OnDisk::Absent,
            Known::Nothing => {
                open.push(at);
                OnDisk::Unread
            }
        };
        let found = asked.iter().enumerate().map(known).collect();
        (found, open, state.queue.hidden.clone())
    }

    /// What there is for keys, and how many of them the server was not asked, or in vain.
    pub(super) fn get(&self, asked: &[Asked], now: Now) -> (Vec<OnDisk>, usize) {
        let (mut found, open, hidden) = self.glance(asked, now);
        if open.is_empty() {
            return (found, 0);
        }
        if !self.usable() {
            return (found, open.len());
        }
        for (nth, window) in open.chunks(WINDOW).enumerate() {
            let wanted: Vec<&Asked> = window.iter().map(|&at| &asked[at]).collect();
            match self.fetch(&wanted, &hidden) {
                Ok(answers) => window.iter().zip(answers).for_each(|(&at, answer)| found[at] = answer),
                Err(trouble) => {
                    self.failed(&trouble);
                    return (found, open.len() - nth * WINDOW);
                }
            }
        }
        (found, 0)
    }

    /// [`Inner::get`], on a connection that is there already, of one server. `None`: no answer soon.
    pub(super) fn get_now(&self, asked: &[Asked], now: Now) -> Option<(Vec<OnDisk>, usize)> {
        let (mut found, open, hidden) = self.glance(asked, now);
        let state = self.state_now.load(Ordering::Acquire);
        if open.is_empty() || state == SharedState::Open as u8 {
            return Some((found, open.len()));
        }
        if !EXACT || state != SharedState::Ready as u8 || self.servers.target.cluster || open.len() > 1 {
            return None;
        }
        let mut link = self.links().pop()?;
        let wanted: Vec<&Asked> = open.iter().map(|&at| &asked[at]).collect();
        let (commands, mut read) = (self.lookups(&wanted), self.reading(&wanted, &hidden));
        let started = Instant::now();
        // What is late is asked anew, on another connection, by somebody who can wait.
        link.run(&commands, started + BRIEF, |at, answer| found[open[at]] = read(at, answer)).ok()?;
        self.answered(started, link);
        Some((found, 0))
    }

    /// Whether the server can be asked. Waits until that is known, for as long as an answer may take since it was begun to
    /// connect: then nobody waits again.
    pub(super) fn usable(&self) -> bool {
        let mut state = self.state();
        while state.phase == Phase::Connecting && !state.ended {
            let left = self.options.command_timeout.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                drop(state);
                self.failed(&Trouble::Late);
                return false;
            }
            state = self.wait(&self.progress, state, left);
        }
        state.phase == Phase::Ready && !state.ended
    }

    /// What the server has for keys.
    fn fetch(&self, asked: &[&Asked], hidden: &Hidden) -> Result<Vec<OnDisk>, Trouble> {
        self.exchange(&self.lookups(asked), OnDisk::Unread, self.reading(asked, hidden))
    }

    fn lookups(&self, asked: &[&Asked]) -> Commands {
        let mut commands = Commands::default();
        for (key, _) in asked {
            let name = self.name(key);
            commands.push(name.as_bytes(), cmd("GET").arg(&name));
        }
        commands
    }

    /// What the answers to lookups mean.
    fn reading<'a>(
        &'a self,
        asked: &'a [&Asked],
        hidden: &'a Hidden,
    ) -> impl FnMut(usize, wire::Answer) -> OnDisk + 'a {
        let times = self.times();
        let steady_ms = self.clock.steady_ms();
        move |at, answer| {
            let (key, content) = asked[at];
            let value = match answer {
                Ok(Value::BulkString(value)) => value,
                Ok(Value::Nil) => return OnDisk::Absent,
                // A key of ours with another type is another program's.
                Ok(_) => return OnDisk::Damaged,
                Err(refusal) if refusal.code == "WRONGTYPE" => return OnDisk::Damaged,
                // It does not say what it has.
                Err(_) => {
                    self.counters.errors.add(1);
                    return OnDisk::Unread;
                }
            };
            match decode(key, &value, times) {
                Read::Expired => OnDisk::Expired,
                Read::Damaged => OnDisk::Damaged,
                Read::Entry(entry) => {
                    let age_ms = times.wall_ms.saturating_sub(entry.created_ms);
                    if hidden.covers(&entry, steady_ms.saturating_sub(age_ms)) {
                        return OnDisk::Absent;
                    }
                    judge(Arc::new(entry), content.as_ref(), times.wall_ms)
                }
            }
        }
    }

    /// Sends commands from this thread, and gives what `read` makes of their answers. A connection that the server has closed
    /// while it was idle says nothing about the server.
    pub(super) fn exchange<T: Clone>(
        &self,
        commands: &Commands,
        none: T,
        mut read: impl FnMut(usize, wire::Answer) -> T,
    ) -> Result<Vec<T>, Trouble> {
        let started = Instant::now();
        let deadline = started + self.options.command_timeout;
        let mut answers = vec![none; commands.len()];
        let mut link = self.links().pop().unwrap_or_else(|| self.servers.link());
        loop {
            let used = link.is_used();
            match link.run(commands, deadline, |at, answer| answers[at] = read(at, answer)) {
                Ok(()) => break,
                Err(Trouble::Lost(_)) if used => self.links().clear(),
                Err(trouble) => return Err(trouble),
            }
        }
        self.answered(started, link);
        Ok(answers)
    }

    /// The server has answered on a connection, which is kept.
    fn answered(&self, started: Instant, link: Link) {
        self.took(started);
        let mut links = self.links();
        if links.len() < LINKS {
            links.push(link);
        }
    }

    pub(super) fn took(&self, started: Instant) {
        let (at, latencies) = &mut *lock(&self.counters.latencies);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        match latencies.get_mut(*at) {
            Some(oldest) => *oldest = ms,
            None => latencies.push(ms),
        }
        *at = (*at + 1) % LATENCIES;
    }
}

fn judge(entry: Arc<Entry>, content: Option<&[u8; 32]>, wall_ms: u64) -> OnDisk {
    if !entry.live(wall_ms) {
        OnDisk::Expired
    } else if !entry.matches(content) {
        OnDisk::Changed
    } else {
        OnDisk::Hit(entry)
    }
}
