//! A run's epochs as a CSV file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{folder::write_csv, ReportError};

/// The results of one epoch of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// The number of the epoch, counted as the caller likes.
    pub epoch: usize,
    /// The mean loss over the training set.
    pub train_loss: f64,
    /// The mean loss over the test set.
    pub test_loss: f64,
    /// The part of the test set that is classified correctly, from 0 to 1.
    pub test_accuracy: f64,
    /// The duration in seconds.
    pub seconds: f64,
    /// The learned rate at the end of the epoch, by the name of its layer.
    pub rates: Vec<(String, f64)>,
    /// What the schedule multiplied the rates by in the last step; 1 without a schedule.
    pub schedule: f64,
    /// How often training was rolled back in this epoch.
    pub rollbacks: usize,
}

impl Default for Epoch {
    fn default() -> Self {
        Self {
            epoch: 0,
            train_loss: 0.0,
            test_loss: 0.0,
            test_accuracy: 0.0,
            seconds: 0.0,
            rates: Vec::new(),
            schedule: 1.0,
            rollbacks: 0,
        }
    }
}

impl Epoch {
    pub(super) fn rate(&self, name: &str) -> Option<f64> {
        let found = self.rates.iter().find(|(n, _)| n == name);
        found.map(|&(_, rate)| rate)
    }
}

/// All names of learning rates, in the order of their first appearance.
fn rate_names(epochs: &[Epoch]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in epochs.iter().flat_map(|epoch| &epoch.rates) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// Writes one line an epoch to the file `path`, below a line of headings.
///
/// The columns are `epoch`, `train_loss`, `test_loss`, `test_accuracy`,
/// `seconds`, `rollbacks`, `schedule` and one `rate_<name>` for each learning rate of any
/// epoch, empty if an epoch has none of that name. Numbers are written with
/// as many digits as it takes to read them back exactly. An existing file is
/// replaced, as a whole or not at all.
///
/// # Errors
/// [`ReportError::Io`] when the file cannot be written.
///
/// # Example
/// ```
/// use tlr_models::report::{read_epochs_csv, write_epochs_csv, Epoch};
///
/// let path = std::env::temp_dir().join("tlr-doc-epochs.csv");
/// let epochs = [Epoch { epoch: 1, test_loss: 0.25, ..Epoch::default() }];
/// write_epochs_csv(&path, &epochs)?;
/// assert_eq!(read_epochs_csv(&path)?, epochs);
/// # Ok::<(), tlr_models::report::ReportError>(())
/// ```
pub fn write_epochs_csv(path: &Path, epochs: &[Epoch]) -> Result<(), ReportError> {
    let names = rate_names(epochs);

    let fixed =
        ["epoch", "train_loss", "test_loss", "test_accuracy", "seconds", "rollbacks", "schedule"];
    let headings = fixed.iter().map(|heading| heading.to_string());
    let rates = names.iter().map(|name| format!("rate_{name}"));
    let mut rows = vec![headings.chain(rates).collect::<Vec<_>>()];

    for epoch in epochs {
        let fixed = [
            epoch.epoch.to_string(),
            epoch.train_loss.to_string(),
            epoch.test_loss.to_string(),
            epoch.test_accuracy.to_string(),
            epoch.seconds.to_string(),
            epoch.rollbacks.to_string(),
            epoch.schedule.to_string(),
        ];
        let rates =
            names.iter().map(|name| epoch.rate(name).map_or(String::new(), |r| format!("{r:e}")));
        rows.push(fixed.into_iter().chain(rates).collect());
    }
    write_csv(path, &rows)
}

/// Reads what [`write_epochs_csv`] wrote. If there is no column `schedule`, there was none.
///
/// # Errors
/// [`ReportError::Read`] when the file cannot be read, and [`ReportError::Column`] when a column is
/// missing or holds something else than numbers.
///
/// Example: [`write_epochs_csv`].
pub fn read_epochs_csv(path: &Path) -> Result<Vec<Epoch>, ReportError> {
    let failed = |source| ReportError::Read { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let headings = reader.headers().map_err(failed)?.clone();
    let mut epochs = Vec::new();
    for (row, cells) in reader.records().enumerate() {
        let cells = cells.map_err(failed)?;
        let line = row + 2;
        let no_number = |column: &str| ReportError::Column {
            path: path.to_owned(),
            line,
            column: column.to_owned(),
        };
        let cell = |column: &str| {
            let place = headings.iter().position(|heading| heading == column);
            place.and_then(|place| cells.get(place)).ok_or_else(|| no_number(column))
        };
        let number = |column: &str| cell(column)?.parse::<f64>().map_err(|_| no_number(column));
        let schedule = match headings.iter().any(|heading| heading == "schedule") {
            true => number("schedule")?,
            false => 1.0,
        };
        let count = |column: &str| cell(column)?.parse::<usize>().map_err(|_| no_number(column));
        let mut rates = Vec::new();
        for (heading, cell) in headings.iter().zip(&cells) {
            if let (Some(name), false) = (heading.strip_prefix("rate_"), cell.is_empty()) {
                let rate = cell.parse().map_err(|_| no_number(heading))?;
                rates.push((name.to_owned(), rate));
            }
        }
        epochs.push(Epoch {
            epoch: count("epoch")?,
            train_loss: number("train_loss")?,
            test_loss: number("test_loss")?,
            test_accuracy: number("test_accuracy")?,
            seconds: number("seconds")?,
            rates,
            schedule,
            rollbacks: count("rollbacks")?,
        });
    }
    Ok(epochs)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(in crate::report) fn epochs() -> Vec<Epoch> {
        let rates = |rates: &[(&str, f64)]| rates.iter().map(|&(n, r)| (n.to_owned(), r)).collect();
        vec![
            Epoch {
                epoch: 9,
                train_loss: 0.1,
                test_loss: 1.0 / 3.0,
                test_accuracy: 0.98765,
                seconds: 2.5,
                rates: rates(&[("fc1", 1.234e-3)]),
                schedule: 0.75,
                rollbacks: 0,
            },
            Epoch {
                epoch: 10,
                train_loss: 2e-6,
                test_loss: f64::NAN,
                test_accuracy: 1.0,
                seconds: 3.0,
                rates: rates(&[("a, long name", 1e-30), ("fc1", 0.5)]),
                schedule: 6.4e-4,
                rollbacks: 12,
            },
        ]
    }

    #[test]
    fn the_csv_reads_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epochs.csv");
        write_epochs_csv(&path, &epochs()).unwrap();

        let mut reader = csv::Reader::from_path(&path).unwrap();
        let headings: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
        assert_eq!(
            headings,
            [
                "epoch",
                "train_loss",
                "test_loss",
                "test_accuracy",
                "seconds",
                "rollbacks",
                "schedule",
                "rate_fc1",
                "rate_a, long name"
            ]
        );
        let lines: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(&lines[0][0], "9");
        assert_eq!(lines[0][2].parse::<f64>().unwrap(), 1.0 / 3.0);
        assert_eq!(&lines[0][5], "0");
        assert_eq!(&lines[0][6], "0.75");
        assert_eq!(lines[0][7].parse::<f64>().unwrap(), 1.234e-3);
        assert_eq!(&lines[0][8], "");
        assert_eq!(lines[1][1].parse::<f64>().unwrap(), 2e-6);
        assert!(lines[1][2].parse::<f64>().unwrap().is_nan());
        assert_eq!(&lines[1][4], "3");
        assert_eq!(lines[1][7].parse::<f64>().unwrap(), 0.5);
        assert_eq!(lines[1][8].parse::<f64>().unwrap(), 1e-30);
    }

    #[test]
    fn the_csv_reads_back_as_epochs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epochs.csv");
        write_epochs_csv(&path, &epochs()).unwrap();
        // Compared by their text: one loss is NaN, which equals nothing.
        let text = |epochs: &[Epoch]| format!("{epochs:?}");
        let mut read = read_epochs_csv(&path).unwrap();
        read[1].rates.reverse();
        assert_eq!(text(&read), text(&epochs()));

        let intact = std::fs::read_to_string(&path).unwrap();
        // A file of an earlier version, which had no schedule.
        std::fs::write(&path, intact.replacen("schedule", "another", 1)).unwrap();
        assert!(read_epochs_csv(&path).unwrap().iter().all(|epoch| epoch.schedule == 1.0));
        for (from, to, fault) in [
            ("seconds", "minutes", "seconds"),
            ("2.5", "a while", "seconds"),
            ("5e-1", "half", "rate_fc1"),
        ] {
            std::fs::write(&path, intact.replacen(from, to, 1)).unwrap();
            let error = read_epochs_csv(&path).unwrap_err();
            assert!(
                matches!(&error, ReportError::Column { column, .. } if column == fault),
                "{from}: {error}"
            );
        }
        let error = read_epochs_csv(&dir.path().join("no.csv")).unwrap_err();
        assert!(matches!(error, ReportError::Read { .. }) && error.to_string().contains("no.csv"));
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_epochs_csv(&dir.path().join("no/where.csv"), &epochs()).unwrap_err();
        assert!(matches!(error, ReportError::Io { .. }));
        assert!(error.to_string().contains("where.csv"), "{error}");
    }
}
