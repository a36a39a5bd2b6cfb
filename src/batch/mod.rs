//! Which texts run together. Pure: lengths in, batches out.
//!
//! A batch costs rows × longest row, padding included, and beyond about a thousand tokens it also leaves the CPU's
//! caches. So rows are sorted by length and filled up to a token budget, which serves short texts (many rows, to spread
//! the cost of a run) and long ones (few rows) alike. How large that budget best is [`sizing::BatchSizer`] learns.

pub mod optimizer;
pub mod sizing;

/// The limits of one batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Most tokens in a batch, padding included: rows × longest row. A single longer row still forms a batch.
    pub max_tokens: usize,
    /// Most rows in a batch.
    pub max_rows: usize,
}

impl Default for Budget {
    /// 512 tokens: with as many single-threaded runs in flight as there are cores, the fastest budget for both short
    /// texts and code on the machines measured (`benchmark/`, contenders `floor-*`).
    fn default() -> Self {
        Self { max_tokens: 512, max_rows: 64 }
    }
}

impl Budget {
    /// Most rows of a batch whose longest has `longest` tokens, at least 1.
    pub fn rows(&self, longest: usize) -> usize {
        (self.max_tokens / longest.max(1)).min(self.max_rows).max(1)
    }
}

/// The rows of one call, handed out batch by batch: every row once, in batches of like length.
///
/// The longest come first: the largest allocation happens once, at the start, and the last batches to finish are short.
#[derive(Debug)]
pub struct Plan {
    lengths: Vec<usize>,
    order: Vec<usize>,
    taken: usize,
    batches: usize,
}

impl Plan {
    /// Of rows with so many tokens each.
    pub fn new(lengths: Vec<usize>) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
        Self { lengths, order, taken: 0, batches: 0 }
    }

    /// Tokens of the longest row that is left; `None` when all are handed out.
    pub fn longest(&self) -> Option<usize> {
        self.order.get(self.taken).map(|&row| self.lengths[row])
    }

    /// Rows that are left.
    pub fn left(&self) -> usize {
        self.order.len() - self.taken
    }

    /// The next batch, of at most `rows` rows (at least 1): indices into the lengths, longest row first.
    pub fn take(&mut self, rows: usize) -> Vec<usize> {
        let end = (self.taken + rows.max(1)).min(self.order.len());
        let batch = self.order[self.taken..end].to_vec();
        self.taken = end;
        self.batches += 1;
        batch
    }

    /// How many rows the next batch has, `rows` at the most, so that as many workers end at the same time: what is left for their last two
    /// rounds is shared out evenly.
    pub fn even(&self, rows: usize, workers: usize) -> usize {
        let (left, workers) = (self.left(), workers.max(1));
        let least = left.div_ceil(rows.max(1));
        // As many as fill up a round, those that were taken in it so far being part of that.
        let batches = (self.batches + least).next_multiple_of(workers) - self.batches;
        // What fits into one batch costs more as several.
        if least > 1 && batches <= 2 * workers { left.div_ceil(batches) } else { rows }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batches(lengths: &[usize], mut rows: impl FnMut(usize) -> usize) -> Vec<Vec<usize>> {
        let mut plan = Plan::new(lengths.to_vec());
        std::iter::from_fn(|| {
            let rows = rows(plan.longest()?);
            Some(plan.take(rows))
        })
        .collect()
    }

    #[test]
    fn fills_the_budget_with_rows_of_like_length() {
        let budget = Budget { max_tokens: 16, max_rows: 4 };
        assert_eq!(batches(&[2, 8, 8, 3, 2], |longest| budget.rows(longest)), [vec![1, 2], vec![3, 0, 4]]);
    }

    #[test]
    fn the_last_rounds_are_shared_out_evenly() {
        let batches = |left: usize, rows: usize, workers: usize| {
            let mut plan = Plan::new(vec![8; left]);
            let mut sizes = Vec::new();
            while plan.left() > 0 {
                let even = plan.even(rows, workers);
                assert!((1..=rows).contains(&even));
                sizes.push(plan.take(even).len());
            }
            sizes
        };
        assert_eq!(batches(100, 12, 2), [12, 12, 12, 12, 12, 12, 7, 7, 7, 7]);
        assert_eq!(batches(100, 20, 2), [20, 20, 15, 15, 15, 15]);
        assert_eq!(batches(100, 34, 2), [25, 25, 25, 25]);
        assert_eq!(batches(10, 8, 2), [5, 5]);
        assert_eq!(batches(5, 8, 2), [5]);
        assert_eq!(batches(7, 1, 3), [1; 7]);
        assert_eq!(batches(9, 4, 1), [4, 3, 2]);
    }

    proptest! {
        #[test]
        fn every_row_once_within_budget_longest_first(
            lengths in prop::collection::vec(0usize..300, 0..200),
            // Another one for each batch, as when it is learned or memory is short.
            budgets in prop::collection::vec((0usize..2000, 0usize..40), 1..20),
        ) {
            let mut turn = budgets.iter().cycle().map(|&(max_tokens, max_rows)| Budget { max_tokens, max_rows });
            let mut used = Vec::new();
            let batches = batches(&lengths, |longest| {
                used.push(turn.next().unwrap_or_default());
                used[used.len() - 1].rows(longest)
            });
            let mut rows: Vec<usize> = batches.concat();
            let in_order: Vec<usize> = rows.iter().map(|&row| lengths[row]).collect();
            prop_assert!(in_order.is_sorted_by(|a, b| a >= b));
            for (batch, budget) in batches.iter().zip(&used) {
                let longest = lengths[batch[0]];
                prop_assert!(
                    batch.len() == 1 || batch.len() * longest <= budget.max_tokens && batch.len() <= budget.max_rows
                );
            }
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
