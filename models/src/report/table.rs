//! The table of epochs that is shown on the terminal.

use super::{
    history::{extent, rates, MOST_RATES},
    words::count,
    Epoch,
};

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
/// assert_eq!(table.narrow(&epoch).lines().count(), 2);
/// let epoch = Epoch { schedule: 0.9, ..epoch };
/// let scheduled = EpochTable::scheduled(&epoch);
/// assert!(scheduled.heading().ends_with("learned rate  x schedule  rollbacks"));
/// ```
#[derive(Clone, Debug)]
pub struct EpochTable {
    rates: Vec<String>,
    headings: Vec<String>,
    scheduled: bool,
}

impl EpochTable {
    /// A table with a column for each rate of this epoch.
    ///
    /// Example: [`EpochTable`].
    pub fn of(epoch: &Epoch) -> Self {
        Self::new(epoch, false)
    }

    /// A table with a column for the schedule as well.
    ///
    /// Example: [`EpochTable`].
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
            // If no schedule multiplies it, the learned rate is the rate in force as well.
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
    ///
    /// Example: [`EpochTable`].
    pub fn heading(&self) -> String {
        self.line(&self.headings)
    }

    /// An epoch's line. A rate that it does not have is shown as `-`.
    ///
    /// Example: [`EpochTable`].
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

    /// The row in two short lines, for terminals that have no room for it.
    ///
    /// Example: [`EpochTable`].
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
    use crate::report::epochs::tests::epochs;

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
