//! run.json: what a run writes of itself, and what --config and `compare` read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, error::Error, fs, path::Path};

/// Settings that choose the examples that a run is trained and tested on.
pub(crate) const OF_EXAMPLES: [&str; 5] = ["data", "classes", "limit", "seed", "side"];

/// Settings that choose the tokens of sentences.
pub(crate) const OF_TOKENS: [&str; 2] = ["tokens", "vocabulary"];

/// How a run stands, and all that was chosen for it.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunJson {
    /// `running`, `finished`, or why the run ended before.
    pub(crate) ended: String,
    /// The example's name.
    pub(crate) program: String,
    /// The example's version.
    pub(crate) version: String,
    /// All settings, by the names of their flags.
    pub(crate) settings: Map<String, Value>,
    /// What the program calls the data.
    pub(crate) data: String,
    /// What identifies the data.
    pub(crate) fingerprint: String,
    pub(crate) optimizer: String,
    pub(crate) mode: String,
    pub(crate) rule: String,
    pub(crate) schedule: String,
    /// The starting rate that was given, also where another one is looked for.
    pub(crate) rate: f64,
    pub(crate) batch_size: usize,
    pub(crate) seed: u64,
    /// How many epochs have passed. What follows is of the last one; a loss that is not finite is
    /// none.
    pub(crate) epochs: usize,
    pub(crate) train_loss: Option<f64>,
    pub(crate) test_loss: Option<f64>,
    pub(crate) test_accuracy: Option<f64>,
    /// The learned rate of each group.
    pub(crate) rates: BTreeMap<String, f64>,
    /// What the schedule multiplies the rates by.
    pub(crate) schedule_at_end: Option<f64>,
    /// How many windows have been undone in the whole run.
    pub(crate) rollbacks: usize,
    /// The time of all epochs.
    pub(crate) seconds: f64,
    /// What only some programs know, or only the end of a run: such as `bleu`.
    #[serde(flatten)]
    pub(crate) figures: Map<String, Value>,
}

impl RunJson {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn Error| format!("cannot read {}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| match error.is_data() {
            true => format!(
                "{}: it is no run.json, or another version's: train the run again by this version",
                failed(&error)
            ),
            false => failed(&error),
        })
    }
}
