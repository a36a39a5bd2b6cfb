//! What other machines have changed: each tells all others which keys it has set or deleted, and what it has cleared, once the
//! server knows of it (`PUBLISH`). Whoever has a copy lets go of it. What a key has only one value for is not told.
//!
//! Whoever was cut off has missed something: then every copy, in memory and in a file, is compared with the server once.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Cmd, Value, cmd};

use super::super::selection::Selection;
use super::link::{Commands, Link};
use super::wire::{Message, Trouble, text};
use super::{Inner, MOST_CLEARED, Phase};
use crate::embedding::Key;

/// How often the thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// How long a connection may be silent before it is asked whether it is still one.
const SILENCE: Duration = Duration::from_secs(15);

/// How soon it is tried again to listen.
const AGAIN: Duration = Duration::from_millis(250);

/// Keys that wait until somebody looks: beyond, all that is in memory is compared, instead.
const MOST: usize = 250_000;

/// What another machine has done.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cache) enum Change {
    /// Set or deleted these. What a key has stood for up to the time beside it is no answer any more.
    Keys(Vec<(Key, u64)>),
    /// Deleted all that this covers of what there was at that time.
    Cleared(Selection, u64),
    /// Something; nobody knows what. `lost`: the server has lost what it had, or it may have.
    Unknown { lost: bool },
}

impl Change {
    /// The same by another clock.
    pub(super) fn at(self, clock: impl Fn(u64) -> u64) -> Self {
        match self {
            Self::Keys(keys) => Self::Keys(keys.into_iter().map(|(key, ms)| (key, clock(ms))).collect()),
            Self::Cleared(selection, ms) => Self::Cleared(selection, clock(ms)),
            unknown => unknown,
        }
    }
}

/// What was heard and is not yet taken notice of.
#[derive(Default)]
pub(super) struct Inbox {
    changes: Vec<Change>,
    keys: usize,
}

impl Inbox {
    fn push(&mut self, change: Change) {
        self.keys += match &change {
            Change::Keys(keys) => keys.len(),
            _ => 1,
        };
        if matches!(change, Change::Unknown { .. }) || self.keys > MOST {
            // Comparing finds what was set or deleted, and not what was cleared.
            self.changes.retain(|change| matches!(change, Change::Cleared(..)));
            self.changes.drain(..self.changes.len().saturating_sub(MOST_CLEARED));
            self.keys = self.changes.len() + 1;
            if let Change::Keys(_) = change {
                self.changes.push(Change::Unknown { lost: false });
                return;
            }
        }
        self.changes.push(change);
    }

    pub fn take(&mut self) -> Vec<Change> {
        std::mem::take(self).changes
    }
}

/// The message about a change: who says so, and what.
fn encode(owner: &str, change: &Change) -> Vec<u8> {
    let mut message = owner.as_bytes().to_vec();
    match change {
        Change::Keys(keys) => {
            message.push(b'k');
            for (key, at_ms) in keys {
                message.extend_from_slice(key.as_bytes());
                message.extend_from_slice(&at_ms.to_le_bytes());
            }
        }
        Change::Cleared(selection, at_ms) => {
            message.push(b'c');
            message.extend_from_slice(&at_ms.to_le_bytes());
            message.extend_from_slice(&selection.to_bytes());
        }
        Change::Unknown { .. } => message.push(b'?'),
    }
    message
}

/// What a message says, unless it is our own. One that cannot be read is from another release.
pub(super) fn decode(owner: &str, message: &[u8]) -> Option<Change> {
    let Some((who, [kind, rest @ ..])) = message.split_at_checked(owner.len()) else {
        return Some(Change::Unknown { lost: false });
    };
    if who == owner.as_bytes() {
        return None;
    }
    let change = match kind {
        b'k' => rest.chunks(40).map(key_and_time).collect::<Option<_>>().map(Change::Keys),
        b'c' => rest.split_first_chunk().and_then(|(at_ms, selection)| {
            Some(Change::Cleared(Selection::from_bytes(selection)?, u64::from_le_bytes(*at_ms)))
        }),
        _ => None,
    };
    Some(change.unwrap_or(Change::Unknown { lost: false }))
}

fn key_and_time(bytes: &[u8]) -> Option<(Key, u64)> {
    let (key, at_ms) = bytes.split_first_chunk::<32>()?;
    Some((Key::from(*key), u64::from_le_bytes(at_ms.try_into().ok()?)))
}

impl Inner {
    /// The command that tells all others.
    pub(super) fn announcement(&self, change: &Change) -> Cmd {
        let mut publish = cmd("PUBLISH");
        publish.arg(self.channel()).arg(encode(&self.owner, change));
        publish
    }

    fn channel(&self) -> String {
        format!("{}changes", self.options.key_prefix)
    }

    /// Has whoever looks next take notice of a change.
    pub(super) fn hear(&self, change: Change) {
        let mut inbox = super::lock(&self.inbox);
        inbox.push(change);
        self.heard.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        let state = self.state();
        state.ended || state.stop.is_some()
    }
}

/// Begins to listen, before anything is asked: what is changed after an answer is heard of.
pub(super) fn subscribe(inner: &Inner) -> Result<(), Trouble> {
    if inner.listening.load(Ordering::Acquire) {
        return Ok(());
    }
    let mut link = inner.servers.link();
    let wire = link.wire(&inner.options.target.node(), Instant::now() + inner.options.connect_timeout)?;
    let deadline = Instant::now() + inner.options.command_timeout;
    let run = match wire.ask(cmd("INFO").arg("server"), deadline)? {
        Ok(said) => text(&said).lines().find_map(|line| Some(line.strip_prefix("run_id:")?.trim().to_owned())),
        Err(_) => None,
    };
    wire.send(&cmd("SUBSCRIBE").arg(inner.channel()).get_packed_command(), deadline)?;
    loop {
        match wire.listen(deadline)? {
            Some(Message::Subscribed) => break,
            Some(_) => {}
            None => return Err(Trouble::Late),
        }
    }
    for change in cleared(inner)? {
        inner.hear(change);
    }
    // Whoever has listened before has missed something since, and so has who went on without the server.
    let before = super::lock(&inner.run).replace(run.clone());
    if before.is_some() || inner.failing.load(Ordering::Acquire) {
        let same = run.is_some() && before.is_some_and(|before| before == run);
        inner.hear(Change::Unknown { lost: !same });
    }
    inner.listened.store(true, Ordering::Release);
    inner.listening.store(true, Ordering::Release);
    *super::lock(&inner.ear) = Some(link);
    inner.progress.notify_all();
    Ok(())
}

/// What was cleared while nobody here heard of it, as far as the server remembers. On a connection of its own: one that listens may
/// ask for nothing.
fn cleared(inner: &Inner) -> Result<Vec<Change>, Trouble> {
    let name = inner.cleared_name();
    let deadline = Instant::now() + inner.options.command_timeout;
    let mut commands = Commands::default();
    commands.push(name.as_bytes(), cmd("LRANGE").arg(&name).arg(0).arg(-1));
    let since_ms = inner.heard_ms.load(Ordering::Acquire);
    let mut changes = Vec::new();
    let read = |said: &Value| {
        let Value::BulkString(said) = said else { return None };
        let (at_ms, selection) = said.split_first_chunk()?;
        Some(Change::Cleared(Selection::from_bytes(selection)?, u64::from_le_bytes(*at_ms)))
    };
    inner.servers.link().run(&commands, deadline, |_, answer| {
        if let Ok(Value::Array(all)) = answer {
            changes.extend(all.iter().filter_map(read));
        }
    })?;
    changes.retain(|change| matches!(change, Change::Cleared(_, at_ms) if *at_ms >= since_ms));
    Ok(changes)
}

/// Listens until the tier is closed.
pub(super) fn listen(inner: &Inner) {
    while !inner.is_over() {
        let ear = super::lock(&inner.ear).take();
        let Some(link) = ear else {
            let mut state = inner.state();
            let ready = state.phase == Phase::Ready && state.stop.is_none();
            if ready && inner.listened.load(Ordering::Acquire) {
                drop(state);
                // What it is about, whoever asks finds out.
                drop(subscribe(inner));
                state = inner.state();
            }
            if state.stop.is_none() {
                drop(inner.wait(&inner.progress, state, AGAIN));
            }
            continue;
        };
        drop(follow(inner, link));
        // What came last may have been lost for as long as the silence was not noticed.
        let heard_ms = inner.times().server_ms.saturating_sub(2 * SILENCE.as_millis() as u64);
        inner.heard_ms.fetch_max(heard_ms, Ordering::AcqRel);
        inner.listening.store(false, Ordering::Release);
    }
}

/// Hears of changes for as long as there is a connection.
fn follow(inner: &Inner, mut link: Link) -> Result<(), Trouble> {
    let wire = link.wire(&inner.options.target.node(), Instant::now())?;
    let answer = inner.options.command_timeout;
    // Until when something must be heard, and whether it was asked for that.
    let (mut until, mut asked) = (Instant::now() + SILENCE, false);
    loop {
        match wire.listen(Instant::now() + LOOK)? {
            Some(Message::Said(message)) => {
                if let Some(change) = decode(&inner.owner, &message) {
                    inner.hear(change);
                }
            }
            Some(_) => {}
            None if inner.is_over() => return Ok(()),
            None if Instant::now() < until => continue,
            None if asked => return Err(Trouble::Late),
            None => {
                wire.send(&cmd("PING").get_packed_command(), Instant::now() + answer)?;
                (until, asked) = (Instant::now() + answer, true);
                continue;
            }
        }
        (until, asked) = (Instant::now() + SILENCE, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::Space;

    #[test]
    fn what_is_told_is_understood_by_all_others() {
        let space = Space::builder().field("n", "1").finish();
        let keys = (0..3u8).map(|n| (space.key().field("k", [n]).finish(), u64::MAX - u64::from(n))).collect();
        let selection = Selection::default().of(space.id()).kind("api").tags(["t", "ä"]);
        let (one, other) = ("a".repeat(32), "b".repeat(32));
        for change in [Change::Keys(keys), Change::Cleared(selection, 7), Change::Cleared(Selection::default(), 0)] {
            let message = encode(&one, &change);
            assert_eq!(decode(&other, &message), Some(change));
            assert_eq!(decode(&one, &message), None);
        }
        for odd in [&b""[..], b"x", "b".repeat(33).as_bytes(), "b".repeat(70).as_bytes()] {
            assert_eq!(decode(&one, odd), Some(Change::Unknown { lost: false }));
        }
    }

    #[test]
    fn more_than_anybody_looks_at_is_something_unknown() {
        let key: Key = Space::builder().finish().key().finish();
        let mut inbox = Inbox::default();
        inbox.push(Change::Keys(vec![(key, 1); 2]));
        assert_eq!(inbox.take(), [Change::Keys(vec![(key, 1); 2])]);
        inbox.push(Change::Keys(vec![(key, 1); MOST]));
        inbox.push(Change::Keys(vec![(key, 1)]));
        assert_eq!(inbox.take(), [Change::Unknown { lost: false }]);
        assert_eq!(inbox.take(), []);
    }

    #[test]
    fn what_was_cleared_is_known_whatever_else_is_not() {
        let key: Key = Space::builder().finish().key().finish();
        let cleared = |at_ms| Change::Cleared(Selection::default(), at_ms);
        let mut inbox = Inbox::default();
        inbox.push(cleared(1));
        inbox.push(Change::Unknown { lost: true });
        assert_eq!(inbox.take(), [cleared(1), Change::Unknown { lost: true }]);
        inbox.push(Change::Keys(vec![(key, 1)]));
        inbox.push(cleared(2));
        inbox.push(Change::Keys(vec![(key, 1); MOST]));
        assert_eq!(inbox.take(), [cleared(2), Change::Unknown { lost: false }]);
        for at_ms in 0..MOST as u64 + 2 {
            inbox.push(cleared(at_ms));
        }
        assert_eq!(inbox.take().last(), Some(&cleared(MOST as u64 + 1)));
    }
}
