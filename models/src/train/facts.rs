//! [`Facts`]: what identifies a run, in the words of its user.

use super::Options;
use crate::{data::Fingerprint, report::number};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};

/// How many differences are named; more are only counted.
const NAMED: usize = 5;

/// Names and values, in order: settings by their flags, or the data.
///
/// ```
/// use tlr_models::train::Facts;
///
/// let saved = Facts::default().with("--side", 32).with("--vocabulary", 2000);
/// let here = Facts::default().with("--side", 32).with("--vocabulary", 3000);
/// let changes = saved.changes(&here).unwrap();
/// assert_eq!(changes.to_string(), "--vocabulary was 2000, is 3000");
/// assert_eq!((&*changes.all()[0].name, changes.all().len()), ("--vocabulary", 1));
/// assert_eq!(saved.changes(&saved), None);
///
/// let all = here.with_flag("--flip", true).and(&saved);
/// assert_eq!((all.get("--vocabulary"), all.all().len()), (Some("3000"), 3));
/// assert_eq!(all.fingerprint().len(), 16);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts(Vec<(String, String)>);

impl Facts {
    /// Adds a fact, unless there is one of this name.
    ///
    /// Example: [`Facts`].
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        if self.get(name).is_none() {
            self.0.push((name.to_owned(), value.to_string()));
        }
        self
    }

    /// Adds a flag that is there or not.
    ///
    /// Example: [`Facts`].
    pub fn with_flag(self, name: &str, given: bool) -> Self {
        self.with(name, if given { GIVEN } else { NOT_GIVEN })
    }

    /// Adds those facts of `others` whose names are not there yet.
    ///
    /// Example: [`Facts`].
    pub fn and(self, others: &Self) -> Self {
        others.0.iter().fold(self, |facts, (name, value)| facts.with(name, value))
    }

    /// All facts but the one of this name.
    pub(super) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(other, _)| other != name).cloned().collect())
    }

    /// The value of this name.
    ///
    /// Example: [`Facts`].
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Names and values.
    ///
    /// Example: [`Facts`].
    pub fn all(&self) -> &[(String, String)] {
        &self.0
    }

    /// How `now` differs from these facts; none if it does not.
    ///
    /// Example: [`Facts`].
    pub fn changes(&self, now: &Self) -> Option<Changes> {
        let new = now.0.iter().filter(|(name, _)| self.get(name).is_none());
        let names = self.0.iter().chain(new).map(|(name, _)| name);
        let value = |facts: &Self, name: &str| facts.get(name).unwrap_or(NOT_GIVEN).to_owned();
        let changes = names.map(|name| Change {
            name: name.clone(),
            then: value(self, name),
            now: value(now, name),
        });
        let mut changes: Vec<_> = changes.filter(|change| change.then != change.now).collect();
        // Whether the number of epochs is a fact depends on the schedule, which says it all.
        let by_schedule = changes.iter().any(|change| change.name == SCHEDULE);
        let one_lacks = [self, now].iter().any(|facts| facts.get(EPOCHS).is_none());
        changes.retain(|change| !(by_schedule && one_lacks && change.name == EPOCHS));
        (!changes.is_empty()).then_some(Changes(changes))
    }

    /// A fingerprint of all facts, in 16 hexadecimal digits.
    ///
    /// Example: [`Facts`].
    pub fn fingerprint(&self) -> String {
        let mut hash = Fingerprint::default();
        self.0.iter().flat_map(|(name, value)| [name, value]).for_each(|part| {
            hash.add(part.as_bytes());
        });
        hash.to_string()
    }
}

/// A fact that is another one now. In words: `--side was 32, is 64`. Fingerprints are not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Its value before; `not given` if there was none.
    pub then: String,
    /// Its value now; `not given` if there is none.
    pub now: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (size(&self.then), size(&self.now)) {
            (Some(then), Some(now)) if then == now => {
                write!(f, "{} has other contents: {now} as before, but not the same", self.name)
            }
            (Some(then), Some(now)) => write!(f, "{} was {then}, is {now}", self.name),
            _ => write!(f, "{} was {}, is {}", self.name, self.then, self.now),
        }
    }
}

/// What stands before a fingerprint, if the value of a fact ends in one: `400 images`.
fn size(value: &str) -> Option<&str> {
    let (size, print) = value.rsplit_once(", ")?;
    (print.len() == 16 && print.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(size)
}

/// The facts, at least one, that differ from those saved. In words, the first five are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// All of them.
    ///
    /// Example: [`Facts`].
    pub fn all(&self) -> &[Change] {
        &self.0
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}{change}", if index > 0 { "; " } else { "" })?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

const SCHEDULE: &str = "--schedule";
const EPOCHS: &str = "--epochs";
const GIVEN: &str = "given";
const NOT_GIVEN: &str = "not given";

/// The facts as a command line, without flags that were not given.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.0.iter().filter(|(_, value)| value != NOT_GIVEN);
        for (index, (name, value)) in given.enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{name}")?;
            if value != GIVEN {
                write!(f, " {value}")?;
            }
        }
        Ok(())
    }
}

impl Options {
    /// The options by the flags of the examples. The number of epochs is among them only if the
    /// schedule depends on it: a run may have more epochs than it was started with.
    ///
    /// # Example
    /// ```
    /// use tlr_models::train::Options;
    ///
    /// assert_eq!(Options::default().facts().get("--batch-size"), Some("128"));
    /// ```
    pub fn facts(&self) -> Facts {
        let Self { optimizer, mode, rule, rate, ramp, batch_size, window_fraction, .. } = self;
        let Self { damping, meta_rate, weight_decay, schedule, safeguard, sketch, .. } = self;
        let Self { bf16_directions, epochs, seed, .. } = self;
        let facts = Facts::default()
            .with("--optimizer", super::name(optimizer))
            .with("--mode", super::name(mode))
            .with("--rule", super::name(rule))
            .with("--rate", number(*rate))
            .with_flag("--no-ramp", !ramp)
            .with("--batch-size", batch_size)
            .with("--window-fraction", number(*window_fraction))
            .with("--damping", number(*damping))
            .with("--meta-rate", number(*meta_rate))
            .with("--weight-decay", number(*weight_decay))
            .with(SCHEDULE, super::name(schedule))
            .with_flag("--no-safeguard", !safeguard)
            .with("--sketch", sketch.map_or(NOT_GIVEN.to_owned(), |bins| bins.to_string()))
            .with_flag("--bf16-directions", *bf16_directions)
            .with("--seed", seed);
        if schedule.depends_on_epochs() {
            facts.with(EPOCHS, epochs)
        } else {
            facts
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::train::{Base, Mode, Rule, ScheduleKind};

    #[test]
    fn changes_are_named_by_their_flags() {
        let options = Options::default();
        let here =
            Options { optimizer: Base::Adam, ramp: false, sketch: Some(64), rate: 1e-9, ..options };
        let changes = options.facts().changes(&here.facts()).unwrap().to_string();
        let expected = "--optimizer was sgd, is adam; --rate was 1e-6, is 1e-9; \
                        --no-ramp was not given, is given; --sketch was not given, is 64";
        assert_eq!(changes, expected);
        let data = Facts::default().with("--side", 8);
        let changes = Facts::default().changes(&data).unwrap();
        assert_eq!(changes.to_string(), "--side was not given, is 8");
    }

    // Fails if an option is left out of the comparison.
    #[test]
    fn every_option_counts() {
        let options = Options::default();
        let others = [
            Options { optimizer: Base::Momentum, ..options },
            Options { mode: Mode::PerLayer, ..options },
            Options { rule: Rule::Paper, ..options },
            Options { rate: 1e-7, ..options },
            Options { ramp: false, ..options },
            Options { batch_size: 1, ..options },
            Options { window_fraction: 0.3, ..options },
            Options { damping: 0.3, ..options },
            Options { meta_rate: 0.3, ..options },
            Options { weight_decay: 0.3, ..options },
            Options { schedule: ScheduleKind::WarmUp, ..options },
            Options { safeguard: false, ..options },
            Options { sketch: Some(64), ..options },
            Options { bf16_directions: true, ..options },
            Options { seed: 1, ..options },
        ];
        for other in others {
            let changes = options.facts().changes(&other.facts()).unwrap();
            assert_eq!(changes.all().len(), 1, "{changes}");
            assert_ne!(options.facts().fingerprint(), other.facts().fingerprint());
        }
        let more = |schedule| {
            let of = |epochs| Options { schedule, epochs, ..options }.facts();
            of(1).changes(&of(2))
        };
        assert_eq!(more(ScheduleKind::Constant), None);
        assert_eq!(more(ScheduleKind::Cosine).unwrap().to_string(), "--epochs was 1, is 2");
    }

    #[test]
    fn a_command_line_has_what_was_given() {
        let line = Options { ramp: false, ..Options::default() }.facts().to_string();
        assert!(line.starts_with("--optimizer sgd --mode global "), "{line}");
        assert!(line.contains(" --rate 1e-6 --no-ramp --batch-size 128 "), "{line}");
        assert!(line.ends_with(" --schedule constant --seed 0"), "{line}");
    }

    // Fails if data of the same size is told by two hashes alone.
    #[test]
    fn other_contents_are_told_in_words() {
        let data = |count: usize, hash| {
            Facts::default().with("the training set", format!("{count} images, {hash}"))
        };
        let (one, two) = ("2ee294298d629536", "8239c912b5ce2172");
        let told = |now: &Facts| data(400, one).changes(now).unwrap().to_string();
        let same = "the training set has other contents: 400 images as before, but not the same";
        assert_eq!(told(&data(400, two)), same);
        let more = "the training set was 400 images, is 500 images";
        assert_eq!(told(&data(500, two)), more);
    }

    // Fails if a user who gave --epochs is told that it was not given.
    #[test]
    fn epochs_that_count_no_longer_follow_from_the_schedule() {
        let horizon = Options { schedule: ScheduleKind::Horizon, ..Options::default() };
        let changes = horizon.facts().changes(&Options::default().facts()).unwrap();
        assert_eq!(changes.to_string(), "--schedule was horizon, is constant");
    }

    #[test]
    fn many_changes_are_counted() {
        let facts = |value: usize| {
            (0..9).fold(Facts::default(), |facts, i| facts.with(&format!("class {i}"), value + i))
        };
        let changes = facts(0).changes(&facts(1)).unwrap();
        assert_eq!(changes.all().len(), 9);
        let changes = changes.to_string();
        assert!(changes.starts_with("class 0 was 0, is 1; ") && changes.ends_with("; and 4 more"));
        assert_ne!(facts(0).fingerprint(), facts(1).fingerprint());
        assert_eq!(facts(0).fingerprint().len(), 16);
    }
}
