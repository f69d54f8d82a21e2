//! What was configured, in lines that can be compared.

use super::Difference;
use std::{collections::BTreeMap, fmt::Debug};

pub(super) type Settings = BTreeMap<String, String>;

/// Every number and word of `value`, by its path below `name`.
pub(super) fn insert(settings: &mut Settings, name: &str, value: &impl Debug) {
    insert_pretty(settings, name, &format!("{value:#?}"));
}

/// The same of a value that is in Rust's pretty form already: one field a line, deeper ones indented.
pub(super) fn insert_pretty(settings: &mut Settings, name: &str, pretty: &str) {
    let mut path: Vec<String> = Vec::new();
    let mut counts = vec![0_usize];
    for line in pretty.lines() {
        let line = line.trim();
        if line.starts_with(['}', ')', ']']) {
            path.pop();
            counts.pop();
            continue;
        }
        let (field, value) = match line.split_once(": ") {
            Some((field, value)) => (field.to_owned(), value),
            // Without a name: the value itself, or one in a list.
            None if path.is_empty() => (name.to_owned(), line),
            None => {
                let count =
                    counts.last_mut().map_or(0, |count| std::mem::replace(count, *count + 1));
                (count.to_string(), line)
            }
        };
        let full: Vec<&str> = path.iter().map(String::as_str).chain([field.as_str()]).collect();
        let full = full.join(".");
        match value.strip_suffix(['{', '(', '[']) {
            Some(kind) => {
                settings.insert(full, kind.trim().to_owned());
                path.push(field);
                counts.push(0);
            }
            None => {
                settings.insert(full, value.trim_end_matches(',').to_owned());
            }
        }
    }
}

/// What `file` and `here` do not agree in.
pub(super) fn differences(file: &Settings, here: &Settings) -> Vec<Difference> {
    let names: std::collections::BTreeSet<_> = file.keys().chain(here.keys()).collect();
    names
        .into_iter()
        .filter(|&name| file.get(name) != here.get(name))
        .map(|name| Difference::Setting {
            name: name.clone(),
            file: file.get(name).cloned(),
            here: here.get(name).cloned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[allow(dead_code)]
    struct Rule {
        damping: f64,
        betas: [f64; 2],
        decay: Option<Decay>,
    }

    #[derive(Debug)]
    #[allow(dead_code)]
    enum Decay {
        L2(f64),
    }

    #[test]
    fn every_number_has_a_path() {
        let mut settings = Settings::new();
        let rule = Rule { damping: 0.33, betas: [0.9, 0.999], decay: Some(Decay::L2(0.1)) };
        insert(&mut settings, "rule", &rule);
        insert(&mut settings, "window", &50);
        insert(&mut settings, "climb", &None::<f64>);
        let expected = [
            ("climb", "None"),
            ("rule", "Rule"),
            ("rule.betas", ""),
            ("rule.betas.0", "0.9"),
            ("rule.betas.1", "0.999"),
            ("rule.damping", "0.33"),
            ("rule.decay", "Some"),
            ("rule.decay.0", "L2"),
            ("rule.decay.0.0", "0.1"),
            ("window", "50"),
        ];
        let found: Vec<_> = settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn settings_that_only_one_side_has_differ_too() {
        let of = |decay| {
            let mut settings = Settings::new();
            insert(&mut settings, "decay", &decay);
            settings
        };
        let differences = differences(&of(Some(0.1)), &of(None));
        assert_eq!(differences.len(), 2, "{differences:?}");
    }
}
