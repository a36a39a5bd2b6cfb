//! The thread of a shared tier: it connects, and writes what is queued.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Cmd, Value, cmd};

use super::super::entry::NEVER;
use super::super::selection::Selection;
use super::changes::{Change, subscribe};
use super::leases;
use super::link::{Commands, Link};
use super::queue::{NOT_YET, Op, Put, Source};
use super::value::{LABELLED, Times, covers, encode};
use super::wire::{Answer, Node, Trouble, text};
use super::{AFTER_LATE, AFTER_LOST, Inner, MOST_CLEARED, Phase, TOMBSTONE_MS};
use crate::embedding::Key;

/// How often an idle connection is looked at, and the server's clock.
const IDLE: Duration = Duration::from_secs(60);

/// How long nothing is written to a server whose memory is full.
const AFTER_FULL: Duration = Duration::from_secs(1);

/// Keys that one step of a search looks at.
const SCANNED: usize = 1000;

enum Step {
    Connect,
    Write(Vec<(u64, Op)>),
    /// Nothing was to be done for a while.
    Look,
    End,
}

/// Serves a tier until it is closed.
pub(super) fn serve(inner: &Inner) {
    let mut link = None;
    loop {
        let outcome = match (next(inner, link.is_some()), &mut link) {
            (Step::End, _) => break,
            (Step::Connect, _) | (_, None) => connect(inner).map(|connected| link = Some(connected)),
            (Step::Write(batch), Some(link)) => write(inner, link, batch),
            (Step::Look, Some(link)) => read_clock(inner, link),
        };
        let mut state = inner.state();
        state.moved = Instant::now();
        if outcome.is_ok() && link.as_ref().is_some_and(Link::is_used) {
            state.failures = 0;
        }
        drop(state);
        inner.progress.notify_all();
        if let Err(trouble) = outcome {
            link = None;
            inner.failed(&trouble);
        } else if link.as_ref().is_some_and(|link| !link.is_used()) {
            link = None;
        }
    }
    let mut state = inner.state();
    state.ended = true;
    drop(state);
    inner.progress.notify_all();
}

/// What is to be done next, once there is something.
fn next(inner: &Inner, connected: bool) -> Step {
    let mut state = inner.state();
    let idle_since = Instant::now();
    loop {
        let now_ms = inner.clock.steady_ms();
        let suspended = state.suspended_ms.saturating_sub(now_ms);
        let open_for = match state.phase {
            Phase::Open { until_ms } => until_ms.saturating_sub(now_ms),
            _ => 0,
        };
        if let Some(stop) = state.stop {
            let lost = open_for > 0 || suspended > 0 && !state.queue.is_empty();
            if state.queue.is_empty() || lost || Instant::now() >= stop {
                return Step::End;
            }
        }
        let wait = if open_for > 0 {
            Duration::from_millis(open_for)
        } else if state.phase != Phase::Ready || !connected {
            return Step::Connect;
        } else if suspended > 0 {
            Duration::from_millis(suspended)
        } else if !state.queue.is_empty() {
            return Step::Write(state.queue.batch());
        } else if idle_since.elapsed() >= IDLE {
            return Step::Look;
        } else {
            IDLE
        };
        state = inner.wait(&inner.work, state, wait);
    }
}

fn connect(inner: &Inner) -> Result<Link, Trouble> {
    let mut link = inner.servers.connect(Instant::now() + inner.options.connect_timeout)?;
    read_clock(inner, &mut link)?;
    match subscribe(inner) {
        // A user who may not listen hears of nothing.
        Ok(()) | Err(Trouble::Refused(_)) => {}
        Err(trouble) => return Err(trouble),
    }
    inner.works();
    Ok(link)
}

/// Learns what time it is at the server: entries are dated by its clock, which all machines have in common.
fn read_clock(inner: &Inner, link: &mut Link) -> Result<(), Trouble> {
    let node = inner.options.target.node();
    let answer = link.ask(&node, &cmd("TIME"), deadline(inner))?;
    let numbers = match &answer {
        Ok(Value::Array(parts)) => parts.iter().map(|part| text(part).parse::<u64>().ok()).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let server_ms = match (numbers.as_deref(), &answer) {
        (Some([seconds, micros]), _) => seconds.saturating_mul(1000).saturating_add(micros / 1000),
        (_, Err(refusal)) => return Err(Trouble::Refused(refusal.reason())),
        _ => return Err(Trouble::Refused("it does not say what time it is".to_owned())),
    };
    let ahead_ms = server_ms as i64 - inner.clock.steady_ms() as i64;
    inner.ahead_ms.store(ahead_ms, Ordering::Release);
    Ok(())
}

fn deadline(inner: &Inner) -> Instant {
    Instant::now() + inner.options.command_timeout
}

fn write(inner: &Inner, link: &mut Link, batch: Vec<(u64, Op)>) -> Result<(), Trouble> {
    let Some(up_to) = batch.last().map(|(number, _)| *number) else { return Ok(()) };
    if let [(_, Op::Clear(selection, told))] = &batch[..] {
        let Some(count) = clear(inner, link, selection)? else { return Ok(()) };
        told.store(count, Ordering::Release);
        let at_ms = inner.times().server_ms;
        note_cleared(inner, link, selection, at_ms)?;
        announce(inner, link, &Change::Cleared((**selection).clone(), at_ms))?;
        inner.state().queue.wrote(up_to, Vec::new());
        return Ok(());
    }
    let (mut commands, times, mut about) = (Commands::default(), inner.times(), Vec::new());
    for (_, op) in &batch {
        match op {
            Op::Put(put) => {
                let name = inner.name(&put.key);
                commands.push(name.as_bytes(), &set(inner, &name, put, times));
                about.push((Some(op), put.key));
            }
            Op::Delete(key, _, at_ms) => {
                let name = inner.name(key);
                // Before it is gone, so that nobody finds neither.
                if let Some(at_ms) = at_ms {
                    let tombstone = inner.tombstone_name(key);
                    let mut set = cmd("SET");
                    set.arg(&tombstone).arg(times.there(*at_ms)).arg("PX").arg(TOMBSTONE_MS);
                    commands.push(tombstone.as_bytes(), &set);
                    about.push((None, *key));
                }
                if inner.options.leases {
                    commands.push(name.as_bytes(), &leases::revoking_unlink(&inner.lease_name(key), &name));
                } else {
                    commands.push(name.as_bytes(), cmd("UNLINK").arg(&name));
                }
                about.push((Some(op), *key));
            }
            Op::Release(keys) => {
                for key in keys {
                    if let Some(command) = inner.give_back(key) {
                        commands.push(inner.lease_name(key).as_bytes(), &command);
                        about.push((Some(op), *key));
                    }
                }
            }
            Op::Clear(..) => {}
        }
    }
    let mut after = After { times, ..After::default() };
    let started = Instant::now();
    if !about.is_empty() {
        link.run(&commands, deadline(inner), |at, answer| after.note(about[at], answer))?;
        inner.took(started);
    }
    let After { written, dropped, again, full, refused, changed, superseded, .. } = after;
    if !changed.is_empty() {
        announce(inner, link, &Change::Keys(changed))?;
    }
    let now_ms = inner.clock.steady_ms();
    let mut state = inner.state();
    match refused {
        // It is the server of the wrong role, or will take them later: what it did take, it takes again.
        Some(reason) => {
            let pause = AFTER_LOST.saturating_mul(1 << state.refusals.min(7)).min(AFTER_LATE);
            state.refusals = state.refusals.saturating_add(1);
            state.suspended_ms = now_ms + pause.as_millis() as u64;
            drop(state);
            inner.links().clear();
            link.close();
            inner.refuses(reason);
        }
        None => {
            state.queue.wrote(up_to, again);
            if !superseded.is_empty() {
                inner.hear(Change::Keys(superseded));
            }
            state.refusals = 0;
            if full {
                state.suspended_ms = now_ms + AFTER_FULL.as_millis() as u64;
            }
            drop(state);
            inner.counters.written.add(written);
            inner.counters.dropped.add(dropped);
            inner.counters.errors.add(dropped);
            if full {
                inner.refuses("its memory is full, and it evicts nothing (maxmemory-policy noeviction)".to_owned());
            } else if written > 0 {
                inner.takes();
            }
        }
    }
    Ok(())
}

/// Tells all other machines. One that does not take messages keeps nobody from writing.
fn announce(inner: &Inner, link: &mut Link, change: &Change) -> Result<(), Trouble> {
    link.ask(&inner.options.target.node(), &inner.announcement(change), deadline(inner)).map(drop)
}

/// Leaves word of it for those who do not hear of it now. One that may not be left keeps nobody from clearing.
fn note_cleared(inner: &Inner, link: &mut Link, selection: &Selection, at_ms: u64) -> Result<(), Trouble> {
    let name = inner.cleared_name();
    let said = [&at_ms.to_le_bytes()[..], &selection.to_bytes()].concat();
    let mut commands = Commands::default();
    commands.push(name.as_bytes(), cmd("RPUSH").arg(&name).arg(said));
    commands.push(name.as_bytes(), cmd("LTRIM").arg(&name).arg(-(MOST_CLEARED as i64)).arg(-1));
    commands.push(name.as_bytes(), cmd("PEXPIRE").arg(&name).arg(TOMBSTONE_MS));
    link.run(&commands, deadline(inner), |_, _| {})
}

/// What follows from the answers to a batch.
#[derive(Default)]
struct After {
    written: usize,
    dropped: usize,
    /// Keys whose older value must not stay.
    again: Vec<Key>,
    full: bool,
    /// Why it takes no changes.
    refused: Option<String>,
    /// Keys of which others may have another value, and up to which time of the server that is an old one.
    changed: Vec<(Key, u64)>,
    /// The same of keys of which others have a newer one.
    superseded: Vec<(Key, u64)>,
    times: Times,
}

impl After {
    /// `None`: the answer to a tombstone, without which a deletion is one all the same.
    fn note(&mut self, (op, key): (Option<&Op>, Key), answer: Answer) {
        let Some(op) = op else { return };
        match (op, answer) {
            (Op::Put(put), Ok(Value::Okay | Value::Int(1))) => {
                self.written += 1;
                // One of the same moment may be this one.
                let before_ms = self.times.there(put.entry.created_ms).saturating_sub(1);
                self.changed.extend(put.replaces().then_some((key, before_ms)));
            }
            // Another machine has the lease by now, or has had it: what it has made is to be the answer here, too.
            (Op::Put(put), Ok(Value::Int(0))) if put.token.is_some() => {
                self.dropped += 1;
                self.superseded.push((key, self.times.there(put.entry.created_ms)));
            }
            // No answer to what was asked.
            (Op::Put(_), Ok(_)) => self.dropped += 1,
            (Op::Put(put), Err(refusal)) if refusal.code == "OOM" => {
                self.dropped += 1;
                self.full = true;
                self.again.extend(put.replaces().then_some(key));
            }
            (Op::Delete(_, told, _), Ok(Value::Int(count))) => {
                told.compare_exchange(NOT_YET, count as usize, Ordering::AcqRel, Ordering::Acquire).ok();
                self.changed.push((key, self.times.server_ms));
            }
            // A lease ends by itself.
            (Op::Release(_), _) | (_, Ok(_)) => {}
            (_, Err(refusal)) => drop(self.refused.get_or_insert_with(|| refusal.reason())),
        }
    }
}

/// The command that sets an entry.
fn set(inner: &Inner, name: &str, put: &Put, times: Times) -> Cmd {
    let Put { key, entry, source, token } = put;
    let own_ms = (entry.expires_ms < NEVER).then(|| entry.expires_ms.saturating_sub(times.wall_ms));
    let most_ms = inner.options.ttl.map(|ttl| (ttl.as_millis() as u64).max(1));
    let lifetime_ms = own_ms.into_iter().chain(most_ms).min();
    // What expired while it waited must not be kept, and what was there before neither.
    if lifetime_ms == Some(0) {
        let mut unlink = cmd("UNLINK");
        unlink.arg(name);
        return unlink;
    }
    let value = encode(key, entry, times);
    if let Some(token) = token {
        return leases::fenced_set(&inner.lease_name(key), name, token, &value, lifetime_ms);
    }
    if inner.options.leases && *source == Source::Set {
        return leases::revoking_set(&inner.lease_name(key), name, &value, lifetime_ms);
    }
    let mut set = cmd("SET");
    set.arg(name).arg(value);
    if let Some(ms) = lifetime_ms {
        set.arg("PX").arg(ms);
    }
    set
}

/// Deletes what a selection covers of what is ours: how many there were. `None`: it was interrupted.
fn clear(inner: &Inner, link: &mut Link, selection: &Selection) -> Result<Option<usize>, Trouble> {
    let pattern = format!("{}{{*", escape(&inner.options.key_prefix));
    let mut count = 0;
    for node in link.nodes() {
        let mut cursor = "0".to_owned();
        loop {
            let (next, names) = scan(inner, link, &node, &cursor, &pattern)?;
            count += unlink(inner, link, selection, &names)?;
            cursor = next;
            let mut state = inner.state();
            state.moved = Instant::now();
            if state.stop.is_some_and(|stop| Instant::now() >= stop) {
                return Ok(None);
            }
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(Some(count))
}

fn scan(
    inner: &Inner,
    link: &mut Link,
    node: &Node,
    cursor: &str,
    pattern: &str,
) -> Result<(String, Vec<Vec<u8>>), Trouble> {
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCANNED);
    let answer = link.ask(node, &scan, deadline(inner))?.map_err(|refusal| Trouble::Refused(refusal.reason()))?;
    let Value::Array(parts) = answer else { return Err(Trouble::Lost("its search gave no list".to_owned())) };
    let [cursor, Value::Array(names)] = &parts[..] else {
        return Err(Trouble::Lost("its search gave no list".to_owned()));
    };
    let name = |name: &Value| match name {
        Value::BulkString(bytes) => Some(bytes.clone()),
        _ => None,
    };
    Ok((text(cursor), names.iter().filter_map(name).collect()))
}

/// Deletes those of `names` whose values a selection covers.
fn unlink(inner: &Inner, link: &mut Link, selection: &Selection, names: &[Vec<u8>]) -> Result<usize, Trouble> {
    let times = inner.times();
    let mut start = Commands::default();
    for name in names {
        start.push(name, cmd("GETRANGE").arg(name).arg(0).arg(LABELLED - 1));
    }
    let (mut covered, mut longer) = (Vec::new(), Vec::new());
    link.run(&start, deadline(inner), |at, answer| {
        let Ok(Value::BulkString(start)) = answer else { return };
        match covers(selection, &start, times) {
            Some(true) => covered.push(at),
            Some(false) => {}
            None => longer.push(at),
        }
    })?;
    for at in longer {
        let mut whole = Commands::default();
        whole.push(&names[at], cmd("GET").arg(&names[at]));
        link.run(&whole, deadline(inner), |_, answer| {
            if let Ok(Value::BulkString(value)) = answer
                && covers(selection, &value, times) == Some(true)
            {
                covered.push(at);
            }
        })?;
    }
    let mut commands = Commands::default();
    covered.iter().for_each(|&at| commands.push(&names[at], cmd("UNLINK").arg(&names[at])));
    let (mut count, mut refused) = (0, None);
    link.run(&commands, deadline(inner), |_, answer| match answer {
        Ok(Value::Int(deleted)) => count += deleted as usize,
        Ok(_) => {}
        Err(refusal) => refused = Some(refusal.reason()),
    })?;
    refused.map_or(Ok(count), |reason| Err(Trouble::Refused(reason)))
}

/// A text as a pattern that fits nothing else.
fn escape(text: &str) -> String {
    let special = |character| matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
    text.chars().flat_map(|character| special(character).then_some('\\').into_iter().chain([character])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_pattern_of_itself_alone() {
        assert_eq!(escape("embedcore:"), "embedcore:");
        assert_eq!(escape("a*[b]?\\"), "a\\*\\[b\\]\\?\\\\");
    }
}
