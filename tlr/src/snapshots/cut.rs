//! Which elements of each tensor a rank keeps, if the snapshots are shared out: the weights of all
//! trainable tensors, one after the other, are cut into as many parts of equal length as there are
//! ranks.

use std::ops::Range;

/// Cuts a walk over tensors into parts.
pub(super) struct Cut {
    part: Range<usize>,
    /// How many elements the walk has passed.
    passed: usize,
}

impl Cut {
    /// The part of a rank, if `all` elements are shared out over so many ranks.
    pub(super) fn new(all: usize, (rank, ranks): (usize, usize)) -> Self {
        let bound = |rank: usize| (all as u128 * rank as u128 / ranks.max(1) as u128) as usize;
        Self { part: bound(rank)..bound(rank + 1), passed: 0 }
    }

    /// The elements of the next tensor that lie in the part.
    pub(super) fn next(&mut self, len: usize) -> Range<usize> {
        let within = |bound: usize| bound.saturating_sub(self.passed).min(len);
        let part = within(self.part.start)..within(self.part.end);
        self.passed += len;
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: eleven elements in tensors of 3, 0, 7 and 1, over four ranks. Fails if an element
    /// is kept twice or by nobody, or if a rank has more than its share.
    #[test]
    fn parts_of_tensors() {
        let parts = |place| {
            let mut cut = Cut::new(11, place);
            [3, 0, 7, 1].map(|len| cut.next(len))
        };
        assert_eq!(parts((0, 4)), [0..2, 0..0, 0..0, 0..0]);
        assert_eq!(parts((1, 4)), [2..3, 0..0, 0..2, 0..0]);
        assert_eq!(parts((2, 4)), [3..3, 0..0, 2..5, 0..0]);
        assert_eq!(parts((3, 4)), [3..3, 0..0, 5..7, 0..1]);
        assert_eq!(parts((0, 1)), [0..3, 0..0, 0..7, 0..1]);
        let huge = Cut::new(usize::MAX, (2, 3));
        assert_eq!(huge.part.end, usize::MAX);
    }
}
