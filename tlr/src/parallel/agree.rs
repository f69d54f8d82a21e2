//! Compares facts over all ranks, and finds the rank that differs.

use super::{Communicator, Ranks};
use crate::{
    digest::Digest,
    error::{Error, ParallelError},
};

impl<C: Communicator> Ranks<C> {
    /// Succeeds if all ranks name the same facts: options, or what identifies their data. Otherwise
    /// each rank gets the first fact in which they differ, as [`ParallelError::Differs`].
    ///
    /// # Errors
    /// [`Error::Parallel`].
    ///
    /// # Example
    /// ```
    /// use tlr::parallel::{Alone, Ranks};
    ///
    /// let ranks = Ranks::new(Alone);
    /// ranks.agree(&[("--batch-size", "128"), ("the training set", "5f1c")])?;
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn agree<T: AsRef<str>>(&self, facts: &[(T, T)]) -> Result<(), Error> {
        let all = self.all_gather(&digest(facts).to_le_bytes())?;
        match odd_one_out(&all) {
            Some((odd, other)) => Err(self.name_difference(facts, odd, other)?),
            None => Ok(()),
        }
    }

    /// The error that names the fact in which two ranks differ. All ranks have to call it.
    pub(super) fn name_difference<T: AsRef<str>>(
        &self,
        facts: &[(T, T)],
        odd: usize,
        other: usize,
    ) -> Result<Error, Error> {
        let words: Vec<_> =
            facts.iter().map(|(name, fact)| (name.as_ref(), fact.as_ref())).collect();
        let all = self.all_gather(&serde_json::to_vec(&words).unwrap_or_default())?;
        let of = |rank: usize| -> Vec<(String, String)> {
            all.get(rank).and_then(|said| serde_json::from_slice(said).ok()).unwrap_or_default()
        };
        let (here, there) = (of(odd), of(other));
        let value = |facts: &[(String, String)], name: &str| {
            let found = facts.iter().find(|(other, _)| other == name);
            found.map_or_else(|| "missing".to_owned(), |(_, fact)| fact.clone())
        };
        let mut names = here.iter().chain(&there).map(|(name, _)| name);
        let name = names.find(|name| value(&here, name) != value(&there, name));
        // They may be the same facts in another order.
        let what = name.cloned().unwrap_or_else(|| "order of facts".to_owned());
        let (here, there) = (value(&here, &what), value(&there, &what));
        Ok(self.error(odd, ParallelError::Differs { what, here, other, there }))
    }
}

/// The first rank in the minority, and one rank of the majority. In a tie, the value of the lower
/// rank is the majority's.
pub(super) fn odd_one_out<T: PartialEq>(values: &[T]) -> Option<(usize, usize)> {
    let first = values.first()?;
    if values.iter().all(|value| value == first) {
        return None;
    }
    let count = |value: &T| values.iter().filter(|other| *other == value).count();
    // `max_by_key` returns the last maximum; reversed, that is the lowest rank.
    let (other, most) = values.iter().enumerate().rev().max_by_key(|(_, value)| count(value))?;
    let odd = values.iter().position(|value| value != most)?;
    Some((odd, other))
}

/// A digest of facts.
pub(super) fn digest<T: AsRef<str>>(facts: &[(T, T)]) -> u64 {
    let mut digest = Digest::default();
    for (name, fact) in facts {
        digest.add(name.as_ref().as_bytes());
        digest.add(fact.as_ref().as_bytes());
    }
    digest.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the first rank is always taken for right, or the last.
    #[test]
    fn the_odd_one_differs_from_most() {
        assert_eq!(odd_one_out(&[1, 1, 1]), None);
        assert_eq!(odd_one_out(&[1, 2]), Some((1, 0)));
        assert_eq!(odd_one_out(&[2, 1, 1]), Some((0, 1)));
        assert_eq!(odd_one_out(&[1, 1, 2, 1]), Some((2, 0)));
        assert_eq!(odd_one_out(&[1, 2, 3]), Some((1, 0)));
        assert_eq!(odd_one_out::<u8>(&[]), None);
    }

    #[test]
    fn facts_are_not_joined() {
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
    }
}
