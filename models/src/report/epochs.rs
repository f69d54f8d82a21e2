use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    folder::write_csv,
    history::{extent, rates, MOST_RATES},
    words::count,
    ReportError,
};

/// What one epoch of training came to.
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
    /// What the schedule multiplied them by in the last step; 1 without one.
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
    fn rate(&self, name: &str) -> Option<f64> {
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
/// epoch, empty where an epoch has none of that name. Numbers are written with
/// as many digits as it takes to read them back exactly. An existing file is
/// replaced, as a whole or not at all.
///
/// # Errors
///
/// [`ReportError::Io`] when the file cannot be written.
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

/// Reads what [`write_epochs_csv`] wrote. Where there is no column `schedule`, there was none.
///
/// # Errors
///
/// [`ReportError::Read`] when the file cannot be read, and [`ReportError::Column`] when a column is
/// missing or holds something else than numbers.
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

/// A table of epochs for the terminal, a line at a time: epoch, losses, accuracy in percent, the
/// learned rates, what a schedule multiplied them by, and rollbacks.
///
/// Columns are aligned to the right and two spaces apart. Of more than four learning rates the
/// least and the greatest are shown.
///
/// ```
/// use tlr_models::report::{Epoch, EpochTable};
///
/// let epoch = Epoch {
///     epoch: 1,
///     train_loss: 0.34567,
///     test_loss: 0.298,
///     test_accuracy: 0.9132,
///     rates: vec![("fc1".into(), 1.234e-3)],
///     ..Epoch::default()
/// };
/// let table = EpochTable::of(&epoch);
/// assert_eq!(table.heading(), "epoch  train loss  test loss  accuracy %     rate  rollbacks");
/// assert_eq!(table.row(&epoch), "    1      0.3457     0.2980       91.32   1.2e-3          0");
/// let epoch = Epoch { schedule: 0.9, ..epoch };
/// assert!(EpochTable::scheduled(&epoch).heading().ends_with("learned rate  x schedule  rollbacks"));
/// ```
#[derive(Clone, Debug)]
pub struct EpochTable {
    rates: Vec<String>,
    headings: Vec<String>,
    scheduled: bool,
}

impl EpochTable {
    /// With a column for each rate of this epoch.
    pub fn of(epoch: &Epoch) -> Self {
        Self::new(epoch, false)
    }

    /// With a column for the schedule as well.
    pub fn scheduled(epoch: &Epoch) -> Self {
        Self::new(epoch, true)
    }

    fn new(epoch: &Epoch, scheduled: bool) -> Self {
        let rates: Vec<String> = epoch.rates.iter().map(|(name, _)| name.clone()).collect();
        let mut headings =
            ["epoch", "train loss", "test loss", "accuracy %"].map(String::from).to_vec();
        if rates.len() > MOST_RATES {
            headings.extend(["least rate", "greatest rate"].map(String::from));
        } else if rates.len() == 1 {
            // Where nothing is multiplied, it is the rate in force as well.
            headings.push(if scheduled { "learned rate" } else { "rate" }.into());
        } else {
            headings.extend(rates.iter().map(|name| format!("rate {name}")));
        }
        if scheduled {
            headings.push("x schedule".into());
        }
        headings.push("rollbacks".into());
        Self { rates, headings, scheduled }
    }

    /// What stands in the columns.
    pub fn heading(&self) -> String {
        self.line(&self.headings)
    }

    /// An epoch's line. A rate that it does not have is shown as `-`.
    pub fn row(&self, epoch: &Epoch) -> String {
        let mut cells = vec![
            epoch.epoch.to_string(),
            loss(epoch.train_loss),
            loss(epoch.test_loss),
            format!("{:.2}", 100.0 * epoch.test_accuracy),
        ];
        if self.rates.len() > MOST_RATES {
            let (least, greatest) = extent(epoch.rates.iter().map(|(_, rate)| *rate));
            cells.extend([format!("{least:.1e}"), format!("{greatest:.1e}")]);
        } else {
            let rate = |rate: f64| format!("{rate:.1e}");
            let rates = self.rates.iter().map(|name| epoch.rate(name));
            cells.extend(rates.map(|found| found.map_or("-".into(), rate)));
        }
        if self.scheduled {
            cells.push(share(epoch.schedule));
        }
        cells.push(epoch.rollbacks.to_string());
        self.line(&cells)
    }

    /// The same in two short lines, for where a row has no room.
    pub fn narrow(&self, epoch: &Epoch) -> String {
        let schedule =
            if self.scheduled { format!(" x {}", share(epoch.schedule)) } else { String::new() };
        let rollbacks = match epoch.rollbacks {
            0 => String::new(),
            rollbacks => format!("  {}", count(rollbacks, "rollback")),
        };
        format!(
            "epoch {}  train {}  test {}\n  {:.2} %  rate {}{schedule}{rollbacks}",
            epoch.epoch,
            loss(epoch.train_loss),
            loss(epoch.test_loss),
            100.0 * epoch.test_accuracy,
            rates(&epoch.rates),
        )
    }

    fn line(&self, cells: &[String]) -> String {
        let cells = cells.iter().zip(&self.headings).map(|(cell, heading)| {
            // Only a rate with a short name can be longer than what stands above it.
            let width = heading
                .chars()
                .count()
                .max("1.0e-30".len() * usize::from(heading.starts_with("rate")));
            format!("{cell:>width$}")
        });
        cells.collect::<Vec<_>>().join("  ")
    }
}

/// A part of the learned rate.
fn share(value: f64) -> String {
    if value == 0.0 || value >= 0.01 {
        format!("{value:.3}")
    } else {
        format!("{value:.1e}")
    }
}

fn loss(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e4).contains(&magnitude) {
        format!("{value:.4}")
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn epochs() -> Vec<Epoch> {
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
        // By their text: one loss is NaN, which equals nothing.
        let text = |epochs: &[Epoch]| format!("{epochs:?}");
        let mut read = read_epochs_csv(&path).unwrap();
        read[1].rates.reverse();
        assert_eq!(text(&read), text(&epochs()));

        let intact = std::fs::read_to_string(&path).unwrap();
        // Of a version that did not tell.
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

    #[test]
    fn the_table_is_aligned() {
        let [first, mut second] = <[Epoch; 2]>::try_from(epochs()).unwrap();
        let table = EpochTable::scheduled(&second);
        let lines = [table.heading(), table.row(&first), table.row(&second)].join("\n");
        let expected = "\
epoch  train loss  test loss  accuracy %  rate a, long name  rate fc1  x schedule  rollbacks
    9      0.1000     0.3333       98.77                  -    1.2e-3       0.750          0
   10    2.000e-6        NaN      100.00            1.0e-30    5.0e-1      6.4e-4         12";
        assert_eq!(lines, expected);
        let expected = "\
epoch 9  train 0.1000  test 0.3333
  98.77 %  rate 1.2e-3 x 0.750";
        assert_eq!(table.narrow(&first), expected);
        let expected = "\
epoch 10  train 2.000e-6  test NaN
  100.00 %  rate a, long name 1.0e-30, fc1 5.0e-1 x 6.4e-4  12 rollbacks";
        assert_eq!(table.narrow(&second), expected);
        second.rates = (1..=5).map(|i| (i.to_string(), f64::from(i * i % 5 + 1))).collect();
        let table = EpochTable::of(&second);
        let expected = "\
epoch  train loss  test loss  accuracy %  least rate  greatest rate  rollbacks
   10    2.000e-6        NaN      100.00       1.0e0          5.0e0         12";
        assert_eq!([table.heading(), table.row(&second)].join("\n"), expected);
    }
}
