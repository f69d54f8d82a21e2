//! What was configured, as data that can be compared.

use crate::error::Difference;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers and words by name: what a checkpoint stores of a configuration, and compares with that
/// of the optimizer that it is loaded into.
///
/// # Example
/// ```
/// use tlr::optim::Settings;
///
/// let settings = Settings::new("lion").with("betas", [0.9, 0.99]).with("weight_decay", 0.1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, Value>);

impl Settings {
    /// The settings of an optimizer of this `kind`.
    ///
    /// # Example
    /// ```
    /// let settings = tlr::optim::Settings::new("sign descent");
    /// ```
    pub fn new(kind: &str) -> Self {
        Self::default().with("", kind)
    }

    /// Adds a setting: a number, a word, a list, `None`, or any value that serde can write.
    ///
    /// A value of several fields becomes one setting for each, called `name.field`. A float that is
    /// not finite counts as `None`, for JSON has no word for it: refuse such numbers where your
    /// optimizer is made. In place of a value that serde cannot write, such as a map whose keys are
    /// lists, the reason is stored.
    ///
    /// # Example
    /// ```
    /// let settings = tlr::optim::Settings::new("sgd").with("momentum", 0.9);
    /// ```
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        // `to_value` turns floats that are not finite into null.
        let value = serde_json::to_value(value)
            .unwrap_or_else(|error| Value::String(format!("not written: {error}")));
        self.insert(name.to_owned(), value);
        self
    }

    /// Adds the settings of `inner`, as `name` and `name.…`.
    pub(crate) fn within(mut self, name: &str, inner: Self) -> Self {
        for (field, value) in inner.0 {
            self.0.insert(join(name, &field), value);
        }
        self
    }

    fn insert(&mut self, name: String, value: Value) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    self.insert(join(&name, &field), value);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.into_iter().enumerate() {
                    self.insert(join(&name, &index.to_string()), value);
                }
            }
            value => {
                self.0.insert(name, value);
            }
        }
    }

    /// Each name and its value in words.
    pub(crate) fn words(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.0.iter().map(|(name, value)| (name.clone(), word(value)))
    }

    /// How these settings, which are those of a file, differ from those `here`.
    pub(crate) fn differences(&self, here: &Self) -> Vec<Difference> {
        let names: BTreeSet<_> = self.0.keys().chain(here.0.keys()).collect();
        let (file_off, here_off) = (self.switched_off(here), here.switched_off(self));
        // If a part is off on one side, the settings that it has on the other are not listed.
        let is_told = |name: &str| {
            let parts = file_off.iter().chain(&here_off);
            !parts.clone().any(|part| part == name || is_within(name, part))
        };
        let switched = |part: &String, [file, here]: [&str; 2]| Difference::Setting {
            name: part.clone(),
            file: Some(file.to_owned()),
            here: Some(here.to_owned()),
        };
        let off_in_file = file_off.iter().map(|part| switched(part, ["off", "on"]));
        let off_here = here_off.iter().map(|part| switched(part, ["on", "off"]));
        let single = names
            .into_iter()
            .filter(|name| self.0.get(*name) != here.0.get(*name) && is_told(name))
            .map(|name| Difference::Setting {
                name: name.clone(),
                file: self.0.get(name).map(word),
                here: here.0.get(name).map(word),
            });
        off_in_file.chain(off_here).chain(single).collect()
    }

    /// The parts that are `None` in these settings and have settings of their own in `other`.
    fn switched_off(&self, other: &Self) -> Vec<String> {
        let is_on = |part: &String| other.0.keys().any(|name| is_within(name, part));
        let off = self.0.iter().filter(|(part, value)| value.is_null() && is_on(part));
        off.map(|(part, _)| part.clone()).collect()
    }
}

/// Whether a setting belongs to a part: `safeguard.cut` to `safeguard`.
fn is_within(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'))
}

/// The dotted path of what is called `name` within `outer`.
pub(crate) fn join(outer: &str, name: &str) -> String {
    match (outer, name) {
        ("", name) => name.to_owned(),
        (outer, "") => outer.to_owned(),
        (outer, name) => format!("{outer}.{name}"),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Null => "none".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Rule {
        damping: f64,
        betas: [f64; 2],
        decay: Option<Decay>,
    }

    #[derive(Serialize)]
    enum Decay {
        L2(f64),
    }

    fn rule(damping: f64) -> Rule {
        Rule { damping, betas: [0.9, 0.999], decay: Some(Decay::L2(0.1)) }
    }

    #[test]
    fn every_number_has_a_name() {
        let settings = Settings::default()
            .with("rule", rule(0.33))
            .with("window", 50)
            .with("climb", None::<f64>)
            .within("optimizer", Settings::new("clip").with("max_norm", 1e-9));
        let expected = [
            ("climb", "none"),
            ("optimizer", "clip"),
            ("optimizer.max_norm", "1e-9"),
            ("rule.betas.0", "0.9"),
            ("rule.betas.1", "0.999"),
            ("rule.damping", "0.33"),
            ("rule.decay.L2", "0.1"),
            ("window", "50"),
        ];
        let found: Vec<_> = settings.0.iter().map(|(k, v)| (k.clone(), word(v))).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(found, expected);
    }

    // Fails if a value that cannot be written counts as `None`.
    #[test]
    fn a_value_that_cannot_be_written_is_told() {
        let map = BTreeMap::from([([1, 2], 3)]);
        let found = Settings::default().with("map", map).differences(&Settings::default());
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        let expected = "`map` is not written: key must be a string in the file and missing here";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn settings_that_only_one_side_has_differ_too() {
        let of = |damping| Settings::default().with("rule", rule(damping));
        let file = of(0.33).with("more", true);
        let differences = file.differences(&of(0.5));
        let found: Vec<_> = differences.iter().map(ToString::to_string).collect();
        let expected = [
            "`more` is true in the file and missing here",
            "`rule.damping` is 0.33 in the file and 0.5 here",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_part_that_is_off_on_one_side_is_told_once() {
        let on = Settings::default().with("safeguard", rule(0.33)).with("window", 5);
        let off = Settings::default().with("safeguard", None::<Rule>).with("window", 6);
        let found: Vec<_> = on.differences(&off).iter().map(ToString::to_string).collect();
        let expected =
            ["`safeguard` is on in the file and off here", "`window` is 5 in the file and 6 here"];
        assert_eq!(found, expected);
        let back: Vec<_> = off.differences(&on).iter().map(ToString::to_string).collect();
        assert_eq!(back[0], "`safeguard` is off in the file and on here");
    }
}
