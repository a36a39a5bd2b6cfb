//! One call on its way: what it finds in the cache, what it computes, and what others compute for it.

use std::sync::Arc;
use std::time::Instant;

use super::answer::{Answer, Distinct};
use super::batches::Busy;
use super::contents::{Contents, Names};
use super::leases::{Leases, TextLeaders, Watch};
use super::model_cache::{Kept, Known, ModelCache, TextLeader, TextWaiter};
use super::stage_metrics::{Stage, StageMetrics};
use super::{CallOptions, OnError};
use crate::cache::Joined;
use crate::cancel::Cancel;
use crate::embedding::Key;
use crate::error::Result;
use crate::host::threads::blocking_unless;

/// Keys that are looked up in memory in less time than it takes to ask another thread.
const FEW: usize = 64;

/// One call on its way.
pub(super) struct Call<'a> {
    pub contents: Arc<Contents>,
    pub names: Names,
    pub distinct: &'a Distinct,
    pub cancel: Cancel,
    pub options: &'a CallOptions,
    /// The key of each slot; empty without a cache.
    pub keys: Vec<Key>,
    pub model_cache: Option<Arc<ModelCache>>,
    pub stage_metrics: &'a Arc<StageMetrics>,
    pub busy: Busy,
}

impl Call<'_> {
    /// Answers what is known of the slots `open`. Tells which of the others this call computes, and which another one
    /// has under way.
    pub async fn recall(
        &self,
        open: Vec<usize>,
        answer: &mut Answer<'_>,
    ) -> Result<(TextLeaders, Vec<(usize, TextWaiter)>)> {
        let (mut leaders, mut waits) = (TextLeaders::new(), Vec::new());
        let Some(model_cache) = &self.model_cache else {
            return Ok((open.into_iter().map(|slot| (slot, None)).collect(), waits));
        };
        let started = Instant::now();
        let keys: Vec<Key> = open.iter().map(|&slot| self.keys[slot]).collect();
        let (reader, cancel, stage_metrics) =
            (Arc::clone(model_cache), self.cancel.clone(), Arc::clone(self.stage_metrics));
        let brief = model_cache.is_memory() && keys.len() <= FEW;
        let found = blocking_unless(brief, move || {
            let started = Instant::now();
            let found = reader.recall(&keys, &cancel)?;
            stage_metrics.done(Stage::Lookup, started, keys.len());
            Ok(found)
        });
        let found = self.cancel.or_else(found).await???;
        let ms = started.elapsed().as_secs_f64() * 1e3 / open.len() as f64;
        for (slot, known) in open.into_iter().zip(found) {
            if let Some(known) = known {
                answer.commit(slot, &known, ms, true);
                continue;
            }
            match model_cache.join(self.keys[slot]) {
                (Joined::Lead(leader), Some(known)) => {
                    answer.commit(slot, &known, ms, true);
                    leader.finish(Ok(Arc::new(known)));
                }
                (Joined::Lead(leader), None) => drop(leaders.insert(slot, Some(leader))),
                (Joined::Wait(wait), _) => waits.push((slot, wait)),
            }
        }
        answer.report();
        Ok((leaders, waits))
    }

    /// Takes leases on the texts of `leaders`, and answers those that have been computed meanwhile. What it gives is this
    /// process's to compute; another one has what stays in `leaders`.
    pub async fn lease(
        &self,
        leaders: &mut TextLeaders,
        leases: &mut Leases,
        watch: &mut Watch,
        answer: &mut Answer<'_>,
    ) -> Result<TextLeaders> {
        let left = self.cancel.or_else(leases.take(self.wanted(leaders))).await??;
        let theirs: TextLeaders = left.into_iter().filter_map(|slot| leaders.remove_entry(&slot)).collect();
        let mut mine = std::mem::replace(leaders, theirs);
        // Whoever had a lease may have given it back, its work done, since the cache was asked.
        if !mine.is_empty() {
            let came = self.cancel.or_else(watch.come(&self.wanted(&mine), &self.cancel)).await??;
            leases.release(came.iter().map(|(slot, _)| *slot));
            self.finish(came, &mut mine, watch, answer);
        }
        Ok(mine)
    }

    /// Waits for what other processes compute, until all of it has come, or some of it falls to this one.
    pub async fn watch(
        &self,
        theirs: &mut TextLeaders,
        leases: &mut Leases,
        watch: &mut Watch,
        answer: &mut Answer<'_>,
    ) -> Result<TextLeaders> {
        while !theirs.is_empty() {
            let came = self.cancel.or_else(watch.look(&self.wanted(theirs), &self.cancel)).await??;
            self.finish(came, theirs, watch, answer);
            if watch.gives_up() {
                return Ok(std::mem::take(theirs));
            }
            if watch.asks() {
                let mine = self.lease(theirs, leases, watch, answer).await?;
                if !mine.is_empty() {
                    return Ok(mine);
                }
            }
        }
        Ok(TextLeaders::new())
    }

    pub fn wanted(&self, leaders: &TextLeaders) -> Vec<(usize, Key)> {
        leaders.keys().map(|&slot| (slot, self.keys[slot])).collect()
    }

    /// Answers what another process has computed.
    pub fn finish(&self, came: Vec<(usize, Known)>, leaders: &mut TextLeaders, watch: &Watch, answer: &mut Answer<'_>) {
        for (slot, known) in came {
            answer.commit(slot, &known, watch.waited_ms(), true);
            let leader = leaders.remove(&slot).flatten();
            leader.into_iter().for_each(|leader| leader.finish(Ok(Arc::new(known.clone()))));
        }
        answer.report();
    }

    /// Remembers a batch, then tells those who wait for it: from then on, others find it in the cache.
    pub async fn commit(&self, batch: Vec<(usize, Option<TextLeader>, Arc<Known>)>) {
        let Some(model_cache) = &self.model_cache else { return };
        let started = Instant::now();
        let kept = batch.iter().map(|(slot, _, known)| {
            let name = self.names.name(self.distinct.first[*slot], &self.contents);
            Kept { key: self.keys[*slot], known: Arc::clone(known), name }
        });
        model_cache.commit(kept.collect()).await;
        self.stage_metrics.done(Stage::Commit, started, batch.len());
        for (_, leader, known) in batch {
            leader.into_iter().for_each(|leader| leader.finish(Ok(Arc::clone(&known))));
        }
    }

    /// Remembers a batch and gives the leases on its `slots` back, in this order: whoever takes one over finds what it was for.
    pub async fn keep(
        &self,
        batch: Vec<(usize, Option<TextLeader>, Arc<Known>)>,
        slots: &[usize],
        leases: &mut Option<&mut Leases>,
    ) -> Result<()> {
        self.cancel.or_else(self.commit(batch)).await?;
        leases.iter_mut().for_each(|leases| leases.release(slots.iter().copied()));
        Ok(())
    }

    /// Answers what other calls compute. Tells which slots they have left open because they were stopped.
    pub async fn wait(&self, waits: Vec<(usize, TextWaiter)>, answer: &mut Answer<'_>) -> Result<Vec<usize>> {
        let mut open = Vec::new();
        for (slot, wait) in waits {
            let started = Instant::now();
            match self.cancel.or_else(wait.wait()).await? {
                Some(Ok(known)) => {
                    answer.commit(slot, &known, started.elapsed().as_secs_f64() * 1e3, true);
                    answer.report();
                }
                Some(Err(error)) if self.options.on_error == OnError::Throw => {
                    return Err(error.at(self.distinct.first[slot]));
                }
                Some(Err(error)) => answer.fail(slot, &error),
                None => open.push(slot),
            }
        }
        Ok(open)
    }
}
