//! Order of use, limits, lifetimes and copies of the memory tier.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cache::entry::{Draft, Precision};
use crate::embedding::{Key, Space};

const AT: u64 = 1_700_000_000_000;

fn key(n: u8) -> Key {
    Space::builder().finish().key().field("n", [n]).finish()
}

fn place(n: u8, content: u8) -> Place {
    Probe::from((key(n), Some([content; 32]))).place()
}

fn entry(values: usize, content: u8, ttl_ms: u64, created_ms: u64) -> Arc<Entry> {
    let vector = vec![f32::from(content); values];
    let ttl = Some(Duration::from_millis(ttl_ms));
    let draft = Draft { vector: Some(&vector), ttl, ..Draft::default() };
    Arc::new(draft.entry(&Space::builder().finish(), Some([content; 32]), Precision::F32, created_ms, None))
}

/// The same in the plainest words: a list, the most recently used first.
struct Naive {
    list: Vec<(u8, Arc<Entry>)>,
    max_entries: usize,
    max_bytes: usize,
}

impl Naive {
    fn take(&mut self, n: u8) -> Option<Arc<Entry>> {
        let at = self.list.iter().position(|(name, _)| *name == n)?;
        Some(self.list.remove(at).1)
    }

    fn get(&mut self, n: u8, content: u8, now: u64) -> Found {
        match self.take(n) {
            None => Found::Absent,
            Some(entry) if now >= entry.expires_ms => Found::Expired,
            Some(entry) if entry.content != Some([content; 32]) => Found::Changed,
            Some(entry) => {
                self.list.insert(0, (n, Arc::clone(&entry)));
                Found::Hit(entry)
            }
        }
    }

    fn insert(&mut self, n: u8, entry: Arc<Entry>) {
        self.take(n);
        if cost(&entry) <= self.max_bytes {
            self.list.insert(0, (n, entry));
        }
        while self.list.len() > self.max_entries || self.bytes() > self.max_bytes {
            self.list.pop();
        }
    }

    fn bytes(&self) -> usize {
        self.list.iter().map(|(_, entry)| cost(entry)).sum()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Get(u8, u8),
    GetSome(Vec<(u8, u8)>),
    Insert(u8, usize, u8, u64),
    Remove(u8),
    Sweep,
    RemoveAll(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..24, 0u8..2).prop_map(|(n, content)| Step::Get(n, content)),
        2 => prop::collection::vec((0u8..24, 0u8..2), 0..6).prop_map(Step::GetSome),
        8 => (0u8..24, 1usize..300, 0u8..2, 1u64..1000).prop_map(|(n, v, c, ttl)| Step::Insert(n, v, c, ttl)),
        2 => (0u8..24).prop_map(Step::Remove),
        1 => Just(Step::Sweep),
        1 => (0u8..2).prop_map(Step::RemoveAll),
        2 => (0u64..200).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn it_is_a_list(
        steps in prop::collection::vec(step(), 1..200),
        max_entries in 1usize..20,
        max_bytes in 1_000usize..8_000,
    ) {
        let memory = Memory::new(max_entries, max_bytes);
        let mut naive = Naive { list: Vec::new(), max_entries, max_bytes };
        let mut elapsed = 0;
        for step in steps {
            let now = Now { wall_ms: AT + elapsed, steady_ms: elapsed, epoch: 0, verified: true };
            match step {
                Step::Get(n, content) => {
                    let found = memory.get(&(key(n), Some([content; 32])).into(), now);
                    prop_assert_eq!(found, naive.get(n, content, now.wall_ms));
                }
                Step::GetSome(asked) => {
                    let probe = |(n, content): &(u8, u8)| Probe::from((key(*n), Some([*content; 32])));
                    let probes: Vec<Probe> = asked.iter().map(probe).collect();
                    let mut found = Vec::new();
                    memory.get_some(&probes, now, &mut found);
                    let expected = asked.iter().map(|(n, content)| naive.get(*n, *content, now.wall_ms));
                    prop_assert_eq!(found, expected.collect::<Vec<_>>());
                }
                Step::Insert(n, values, content, ttl) => {
                    let entry = entry(values, content, ttl, now.wall_ms);
                    memory.insert(place(n, content), &entry, now);
                    naive.insert(n, entry);
                }
                Step::Remove(n) => {
                    let was_answer = naive.take(n).map(|entry| now.wall_ms < entry.expires_ms);
                    let removed = memory.remove(place(n, 0).name, now);
                    let (live, expired) = (was_answer == Some(true), was_answer == Some(false));
                    prop_assert_eq!(removed, Removed { live: live.into(), expired: expired.into() });
                }
                Step::Sweep => {
                    let before = naive.list.len();
                    naive.list.retain(|(_, entry)| now.wall_ms < entry.expires_ms);
                    prop_assert_eq!(memory.sweep(now), before - naive.list.len());
                }
                Step::RemoveAll(content) => {
                    let before = naive.list.len();
                    naive.list.retain(|(_, entry)| entry.content != Some([content; 32]));
                    let removed = memory.remove_all(now, |entry| entry.content == Some([content; 32]));
                    prop_assert_eq!(removed.live + removed.expired, before - naive.list.len());
                }
                Step::Wait(ms) => elapsed += ms,
            }
            prop_assert_eq!(memory.len(), naive.list.len());
            prop_assert_eq!(memory.bytes(), naive.bytes());
            let now = Now { wall_ms: AT + elapsed, steady_ms: elapsed, epoch: 0, verified: true };
            for n in 0..24 {
                let kept = naive.list.iter().find(|(name, _)| *name == n).map(|(_, entry)| entry);
                let kept = kept.filter(|entry| now.wall_ms < entry.expires_ms);
                let found = memory.peek(&key(n).into(), now);
                prop_assert_eq!(found.as_ref(), kept);
            }
        }
    }
}

#[test]
fn a_clock_that_is_set_makes_nothing_younger() {
    let memory = Memory::new(10, 1 << 20);
    memory.insert(place(1, 0), &entry(1, 0, 1000, AT), Now { wall_ms: AT, steady_ms: 5, epoch: 0, verified: true });
    let at = |wall_ms, steady_ms| {
        memory.peek(&key(1).into(), Now { wall_ms, steady_ms, epoch: 0, verified: true }).is_some()
    };
    assert!(at(AT, 1004));
    assert!(!at(AT, 1005), "the wall clock stood still, the entry did not");
    assert!(at(AT - 30_000, 500) && !at(AT - 100_000, 500));
    assert!(!at(AT + 1000, 5), "asleep for a second");
}

#[test]
fn a_copy_that_is_not_believed_keeps_its_place_in_the_order_of_use() {
    let memory = Memory::new(3, 1 << 20);
    let now = Now { wall_ms: AT, steady_ms: 0, epoch: 0, verified: true };
    for n in 0..3 {
        memory.insert(place(n, 0), &entry(1, 0, 1000, AT), now);
    }
    let doubtful = Now { verified: false, ..now };
    for n in [0, 1] {
        assert!(matches!(memory.get(&Probe::from((key(n), Some([0; 32]))), doubtful), Found::Stale(_)));
    }
    assert_eq!(memory.get(&Probe::from((key(2), Some([9; 32]))), doubtful), Found::Absent, "of another content");
    for n in 3..5 {
        memory.insert(place(n, 0), &entry(1, 0, 1000, AT), now);
    }
    let left: Vec<u8> = (0..5).filter(|n| memory.peek(&key(*n).into(), now).is_some()).collect();
    assert_eq!(left, [2, 3, 4], "the two that were looked up first have gone");
}

#[test]
fn what_was_read_before_a_change_is_not_brought_in_after_it() {
    let memory = Memory::new(10, 1 << 20);
    let now = Now { wall_ms: AT, steady_ms: 0, epoch: 0, verified: true };
    let (old, new) = (entry(1, 0, 1000, AT), entry(1, 1, 1000, AT));
    for change in [0, 1, 2] {
        let version = memory.version(place(1, 0).name);
        match change {
            0 => drop(memory.insert(place(1, 1), &new, now)),
            1 => _ = memory.remove(place(1, 0).name, now),
            _ => _ = memory.remove_all(now, |_| true),
        }
        memory.promote(place(1, 0), &old, now, version);
        assert_ne!(memory.peek(&key(1).into(), now).as_deref(), Some(&*old));
    }
    memory.promote(place(1, 0), &old, now, memory.version(place(1, 0).name));
    assert_eq!(memory.peek(&key(1).into(), now).as_deref(), Some(&*old));
}

#[test]
fn threads_leave_the_limits_and_the_sums_right() {
    let memory = Memory::new(100, 1 << 20);
    let now = Now { wall_ms: AT, steady_ms: 0, epoch: 0, verified: true };
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let memory = &memory;
            scope.spawn(move || {
                for i in 0..5000u32 {
                    let n = (i.wrapping_mul(2_654_435_761) >> 24) as u8;
                    match i % 4 {
                        0 => drop(memory.insert(place(n, thread), &entry(usize::from(n) + 1, thread, 1000, AT), now)),
                        1 if i % 64 == 1 => _ = memory.remove(place(n, 0).name, now),
                        _ => drop(memory.get(&key(n).into(), now)),
                    }
                }
            });
        }
    });
    let kept = memory.of_space(Space::builder().finish().id(), now);
    assert_eq!(memory.len(), kept.len());
    assert_eq!(memory.bytes(), kept.iter().map(|(_, entry)| cost(entry)).sum::<usize>());
    assert!(memory.len() <= 100);
    assert_eq!(memory.remove_all(now, |_| true).live, kept.len());
    assert_eq!((memory.len(), memory.bytes()), (0, 0));
}
