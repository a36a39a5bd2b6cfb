//! Commits: what is set, in memory at once and in the tiers below soon.

use std::sync::Arc;

use super::entry::{Draft, Entry};
use super::key_hash::Probe;
use super::shared::Source;
use super::{EmbeddingCache, lock, memory};
use crate::embedding::Space;
use crate::error::{Error, Result};

/// What a call has for one space.
struct Written<'a> {
    space: &'a Space,
    /// Of its vectors, where there are any.
    length: Option<usize>,
    entries: usize,
}

impl EmbeddingCache {
    /// Sets an entry. It is an answer at once; it is on disk some ten milliseconds later. May wait for the disk: see
    /// [`EmbeddingCache::await_room`].
    pub fn commit<'a>(&self, space: &Space, probe: impl Into<Probe<'a>>, draft: &Draft<'a>) -> Result<()> {
        self.commit_many(space, [(probe, *draft)])
    }

    /// [`EmbeddingCache::commit_at_once`] for those who can wait: until more can be set.
    pub fn commit_many<'a, P: Into<Probe<'a>>>(
        &self,
        space: &Space,
        drafts: impl IntoIterator<Item = (P, Draft<'a>)>,
    ) -> Result<()> {
        self.commit_at_once(space, drafts)?;
        self.await_room();
        Ok(())
    }

    /// Sets entries, all or, when one of them is refused, none. Where a probe says which content, a lookup with another
    /// one is a miss. Waits for the disk only where the first vector of a space is set and there is a file that may have some:
    /// milliseconds, a tenth of a second at most.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for values that are not finite, of another length than the space's, or too large;
    /// [`Error::CacheClosed`].
    pub fn commit_at_once<'a, P: Into<Probe<'a>>>(
        &self,
        space: &Space,
        drafts: impl IntoIterator<Item = (P, Draft<'a>)>,
    ) -> Result<()> {
        self.commit_in_spaces(drafts.into_iter().map(|(probe, draft)| (space, probe.into(), draft)))
    }

    /// [`EmbeddingCache::commit_at_once`] for entries of several spaces: all of them or, when one is refused, none.
    ///
    /// # Errors
    /// See there.
    pub fn commit_in_spaces<'s, 'a>(
        &self,
        drafts: impl IntoIterator<Item = (&'s Space, Probe<'a>, Draft<'a>)>,
    ) -> Result<()> {
        if self.is_closed() {
            return Err(Error::CacheClosed);
        }
        let now = self.now();
        let (mut entries, mut replaces, mut ages) = (Vec::new(), Vec::new(), Vec::new());
        // What is refused leaves no trace: nothing is changed before all of it was looked at.
        let mut spaces: Vec<Written> = Vec::new();
        let drafts = drafts.into_iter();
        let many = drafts.size_hint().0 > 1;
        for (at, (space, probe, draft)) in drafts.enumerate() {
            draft.check().map_err(|error| error.in_entry(at, many))?;
            // There are few: usually one.
            let known = spaces.iter().position(|written| written.space.id() == space.id());
            let known = known.unwrap_or_else(|| {
                spaces.push(Written { space, length: None, entries: 0 });
                spaces.len() - 1
            });
            let written = &mut spaces[known];
            written.entries += 1;
            if let Some(vector) = draft.vector {
                same_length(vector.len(), *written.length.get_or_insert(vector.len()))?;
            }
            // Nobody but the tiers below asks for these.
            let (key, hash) = self.may_wait().then(|| (probe.key(), probe.content_hash())).unzip();
            let entry = draft.entry(space, hash.flatten(), self.options.precision, now.wall_ms, self.options.ttl);
            if !self.may_wait() && !self.memory.fits(&entry) {
                return Err(too_large(&entry, self.memory.max_bytes()).in_entry(at, many));
            }
            entries.push((probe.place(), key, Arc::new(entry)));
            replaces.push(!probe.is_fixed());
            ages.push(draft.age);
        }
        for Written { space, length, .. } in &spaces {
            if let Some(length) = *length {
                same_length(length, self.dimensions(space, length, now))?;
            }
        }
        let count = || spaces.iter().for_each(|written| self.counters.set(written.space.modality(), written.entries));
        if !self.may_wait() {
            for (place, _, entry) in &entries {
                self.displaced(&self.memory.insert(*place, entry, now));
            }
            spaces.iter().for_each(|written| self.index(written.space, &entries));
            count();
            return Ok(());
        }
        let changing = lock(&self.changing);
        // From below: a lookup that reads there meanwhile must not bring the old value back into memory.
        if let Some(shared) = &self.shared {
            self.remember(entries.iter().filter_map(|(place, key, _)| Some(((*key)?, place.name))));
            let sources = replaces.into_iter().zip(&ages).map(|(replaces, age)| match age {
                _ if !replaces => Source::Fixed,
                None => Source::Set,
                Some(_) => Source::Computed,
            });
            let entries = entries.iter().zip(sources);
            shared.put(entries.filter_map(|((_, key, entry), source)| Some(((*key)?, Arc::clone(entry), source))));
        }
        if let Some(disk) = &self.disk {
            let ages = ages.into_iter().map(Option::unwrap_or_default);
            let ages = ages.map(|age| age.as_millis().try_into().unwrap_or(u64::MAX));
            disk.put(
                entries.iter().zip(ages).filter_map(|((_, key, entry), age)| Some(((*key)?, Arc::clone(entry), age))),
            );
        }
        let displaced: Vec<_> =
            entries.iter().map(|(place, _, entry)| self.memory.insert(*place, entry, now)).collect();
        spaces.iter().for_each(|written| self.index(written.space, &entries));
        drop(changing);
        displaced.iter().for_each(|displaced| self.displaced(displaced));
        count();
        Ok(())
    }
}

fn same_length(length: usize, known: usize) -> Result<()> {
    if length == known {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "The embedding has {length} values, those in this namespace have {known}: use a namespace of its own for each \
         model, or clear this one"
    )))
}

fn too_large(entry: &Entry, limit: usize) -> Error {
    let bytes = memory::cost(entry);
    Error::InvalidArgument(format!(
        "The entry takes {bytes} bytes, more than the limit of {limit} bytes for all entries: raise maxMemoryMB"
    ))
}
