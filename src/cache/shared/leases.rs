//! Which machine computes what: leases that end by the server's clock, whatever becomes of their holder.
//!
//! A lease is a key that is set only if there is none (`SET NX PX`). What it holds is a token: a number that grows with each
//! lease that is taken, and who has taken it. It is renewed and given back only by whoever has the token, and what is computed
//! under it is written only while it is still that one: a machine that was away for longer than its lease overwrites nothing
//! that another one has made meanwhile. Whoever sets or deletes a value takes the lease away from whoever computes one.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::{Cmd, Value, cmd};

use super::link::Commands;
use super::queue::Op;
use super::{Inner, Shared, lock};
use crate::embedding::Key;

/// Of a lease that is still ours.
const RENEW: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";
const GIVE_BACK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const SET: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
    if ARGV[3] == '' then redis.call('SET', KEYS[2], ARGV[2]) else redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end \
    return 1";

const REVOKE_AND_SET: &str = "redis.call('DEL', KEYS[1]) \
    if ARGV[2] == '' then redis.call('SET', KEYS[2], ARGV[1]) else redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end \
    return 1";
const REVOKE_AND_UNLINK: &str = "redis.call('DEL', KEYS[1]) return redis.call('UNLINK', KEYS[2])";

/// A lease that was taken.
pub(super) struct Lease {
    token: Arc<str>,
    /// Whether it is somebody else's by now, or nobody's: what is computed under it is not to be written.
    lost: bool,
}

/// Tells this cache from all others in the world.
pub(super) fn owner() -> String {
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}

/// Sets a value, if the lease on its key is still the one of `token`.
pub(super) fn fenced_set(lease: &str, name: &str, token: &str, value: &[u8], lifetime_ms: Option<u64>) -> Cmd {
    let mut set = cmd("EVAL");
    let lifetime = lifetime_ms.map(|ms| ms.to_string()).unwrap_or_default();
    set.arg(SET).arg(2).arg(lease).arg(name).arg(token).arg(value).arg(lifetime);
    set
}

/// Sets a value that somebody has given, and ends whatever lease there is on its key.
pub(super) fn revoking_set(lease: &str, name: &str, value: &[u8], lifetime_ms: Option<u64>) -> Cmd {
    let mut set = cmd("EVAL");
    let lifetime = lifetime_ms.map(|ms| ms.to_string()).unwrap_or_default();
    set.arg(REVOKE_AND_SET).arg(2).arg(lease).arg(name).arg(value).arg(lifetime);
    set
}

/// The same of a deletion.
pub(super) fn revoking_unlink(lease: &str, name: &str) -> Cmd {
    let mut unlink = cmd("EVAL");
    unlink.arg(REVOKE_AND_UNLINK).arg(2).arg(lease).arg(name);
    unlink
}

impl Shared {
    /// Whether leases are taken here.
    pub fn leases(&self) -> bool {
        self.inner.options.leases
    }

    /// Takes the leases on `keys` that are free, and renews those that are ours; whether each is ours now. `None`: the server
    /// cannot say. Waits for it, for as long as an answer may take.
    pub fn acquire(&self, keys: &[Key], lifetime: Duration) -> Option<Vec<bool>> {
        let inner = &*self.inner;
        if keys.is_empty() || !inner.usable() {
            return keys.is_empty().then(Vec::new);
        }
        let acquired = inner.acquire(keys, lifetime);
        acquired.inspect_err(|trouble| inner.failed(trouble)).ok()
    }

    /// Gives leases back, after everything that was queued before.
    pub fn release(&self, keys: Vec<Key>) {
        self.inner.release(keys);
    }
}

impl Inner {
    pub(super) fn lease_name(&self, key: &Key) -> String {
        format!("{}lease:{{{}}}", self.options.key_prefix, URL_SAFE_NO_PAD.encode(key.as_bytes()))
    }

    /// The token of a lease that this cache took and has not given back, although it may have lost it.
    pub(super) fn token(&self, key: &Key) -> Option<Arc<str>> {
        lock(&self.held).get(key).map(|lease| Arc::clone(&lease.token))
    }

    fn acquire(&self, keys: &[Key], lifetime: Duration) -> Result<Vec<bool>, super::Trouble> {
        let lifetime_ms = lifetime.as_millis().max(1) as u64;
        let held: Vec<Option<Arc<str>>> = {
            let held = lock(&self.held);
            let token = |lease: &Lease| Arc::clone(&lease.token);
            keys.iter().map(|key| held.get(key).filter(|lease| !lease.lost).map(token)).collect()
        };
        let fence = if held.iter().any(Option::is_none) { self.fence()? } else { 0 };
        let token: Arc<str> = format!("{fence}-{}", self.owner).into();
        let mut commands = Commands::default();
        for (key, held) in keys.iter().zip(&held) {
            let name = self.lease_name(key);
            let mut command = match held {
                Some(_) => cmd("EVAL"),
                None => cmd("SET"),
            };
            match held {
                Some(token) => command.arg(RENEW).arg(1).arg(&name).arg(&**token).arg(lifetime_ms),
                None => command.arg(&name).arg(&*token).arg("NX").arg("PX").arg(lifetime_ms),
            };
            commands.push(name.as_bytes(), &command);
        }
        // A server that takes no leases now keeps nobody from computing.
        let granted = self.exchange(&commands, true, |_, answer| !matches!(answer, Ok(Value::Nil | Value::Int(0))))?;
        let mut leases = lock(&self.held);
        for ((key, granted), held) in keys.iter().zip(&granted).zip(held) {
            if *granted {
                leases.insert(*key, Lease { token: held.unwrap_or_else(|| Arc::clone(&token)), lost: false });
            } else if let Some(lease) = leases.get_mut(key) {
                lease.lost = true;
            }
        }
        Ok(granted)
    }

    /// A number that no lease had before.
    fn fence(&self) -> Result<i64, super::Trouble> {
        let name = format!("{}fence", self.options.key_prefix);
        let mut commands = Commands::default();
        commands.push(name.as_bytes(), cmd("INCR").arg(&name));
        let numbers = self.exchange(&commands, 0, |_, answer| match answer {
            Ok(Value::Int(number)) => number,
            _ => 0,
        })?;
        Ok(numbers.first().copied().unwrap_or_default())
    }

    pub(super) fn release(&self, keys: Vec<Key>) {
        let ours: Vec<Key> = {
            let held = lock(&self.held);
            keys.into_iter().filter(|key| held.contains_key(key)).collect()
        };
        if !ours.is_empty() {
            self.queue_one(Op::Release(ours));
        }
    }

    pub(super) fn release_all(&self) {
        let keys = lock(&self.held).keys().copied().collect();
        self.release(keys);
    }

    /// Deletes a lease of this cache, if it is still the one. From now on it is not held.
    pub(super) fn give_back(&self, key: &Key) -> Option<Cmd> {
        let Lease { token, .. } = lock(&self.held).remove(key)?;
        let mut command = cmd("EVAL");
        command.arg(GIVE_BACK).arg(1).arg(self.lease_name(key)).arg(&*token);
        Some(command)
    }
}
