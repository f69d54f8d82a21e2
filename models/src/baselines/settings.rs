//! The settings of a rule as words, by name: a saved state has them.

use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tlr::{optim::Settings, Difference};

/// The settings of a rule. One of several fields is called `name.field`.
pub(super) fn of(rule: &impl Serialize) -> BTreeMap<String, String> {
    let word = |value: &Value| match value {
        Value::String(word) => word.clone(),
        Value::Null => "none".to_owned(),
        value => value.to_string(),
    };
    // The names of an object's fields are words, so this does not fail.
    let all = serde_json::to_value(Settings::default().with("", rule)).unwrap_or_default();
    let fields = all.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), word(value))).collect()
}

/// How the settings of a file differ from those here.
pub(super) fn differences(
    file: &BTreeMap<String, String>,
    here: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let names: BTreeSet<_> = file.keys().chain(here.keys()).collect();
    let differ = names.into_iter().filter(|name| file.get(*name) != here.get(*name));
    differ
        .map(|name| Difference::Setting {
            name: name.clone(),
            file: file.get(name).cloned(),
            here: here.get(name).cloned(),
        })
        .collect()
}
