//! Which texts run together. Pure: lengths in, batches out.
//!
//! A batch costs rows × longest row, padding included, and beyond about a thousand tokens it also leaves the CPU's
//! caches. So rows are sorted by length and filled up to a token budget, which serves short texts (many rows, to spread
//! the cost of a run) and long ones (few rows) alike.

mod belief;
pub mod optimizer;

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

/// Groups rows by length: every row is in exactly one batch.
///
/// Each batch lists indices into `lengths`, longest row first, and the batches come longest first too: the largest
/// allocation happens once, at the start, and the last batches to finish are the short ones.
pub fn plan(lengths: &[usize], budget: Budget) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut rows_left = 0;
    for row in order {
        if rows_left == 0 {
            let longest = lengths[row].max(1);
            rows_left = (budget.max_tokens / longest).min(budget.max_rows).max(1);
            batches.push(Vec::new());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(row);
        }
        rows_left -= 1;
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fills_the_budget_with_rows_of_like_length() {
        let plan = plan(&[2, 8, 8, 3, 2], Budget { max_tokens: 16, max_rows: 4 });
        assert_eq!(plan, [vec![1, 2], vec![3, 0, 4]]);
    }

    proptest! {
        #[test]
        fn every_row_once_within_budget_longest_first(
            lengths in prop::collection::vec(0usize..300, 0..200),
            max_tokens in 0usize..2000,
            max_rows in 0usize..40,
        ) {
            let batches = plan(&lengths, Budget { max_tokens, max_rows });
            let mut rows: Vec<usize> = batches.concat();
            let in_order: Vec<usize> = rows.iter().map(|&row| lengths[row]).collect();
            prop_assert!(in_order.is_sorted_by(|a, b| a >= b));
            for batch in &batches {
                let longest = lengths[batch[0]];
                prop_assert!(batch.len() == 1 || batch.len() * longest <= max_tokens && batch.len() <= max_rows);
            }
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
