//! A run's decisions on its rates as a CSV file.

use super::{folder::write_csv, ReportError};
use std::path::Path;
use tlr::Adaptation;

/// Writes one line a decision on a rate to the file `path`, below a line of headings.
///
/// The columns are `step`, `epoch` (in fractions, of `batches_per_epoch` steps), `layer`, `from`,
/// `to`, the dot products `uu`, `un`, `nn` (empty if there are none) and `outcome`. Numbers are
/// written with as many digits as it takes to read them back exactly. An existing file is replaced,
/// as a whole or not at all.
///
/// # Errors
/// [`ReportError::Io`] when the file cannot be written.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{optim::Sgd, Newton, NewtonConfig};
///
/// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let sgd = Sgd::new(&model, SgdConfig::default());
/// let opt = Newton::new(&model, sgd, NewtonConfig::default())?;
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("history.csv");
/// tlr_models::report::write_history_csv(&path, opt.history(), 100)?;
/// assert!(std::fs::read_to_string(&path)?.starts_with("step,epoch,layer,from,to"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_history_csv(
    path: &Path,
    history: &[Adaptation],
    batches_per_epoch: usize,
) -> Result<(), ReportError> {
    let headings = ["step", "epoch", "layer", "from", "to", "uu", "un", "nn", "outcome"];
    let mut rows = vec![headings.map(str::to_owned)];
    for decision in history {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:e}"));
        let products = decision.products;
        rows.push([
            decision.step.to_string(),
            (decision.step as f64 / batches_per_epoch as f64).to_string(),
            decision.layer.to_string(),
            format!("{:e}", decision.from),
            format!("{:e}", decision.to),
            number(products.map(|products| products.uu)),
            number(products.map(|products| products.un)),
            number(products.map(|products| products.nn)),
            decision.outcome.to_string(),
        ]);
    }
    write_csv(path, &rows)
}

/// Rates in a line: `1.2e-3` for one, `hidden 1.2e-3, head 4.0e-2` for up to four, and the least
/// and the greatest of more.
///
/// ```
/// use tlr_models::report::rates;
///
/// assert_eq!(rates(&[("model", 0.00123)]), "1.2e-3");
/// assert_eq!(rates(&[("hidden", 0.00123), ("head", 0.04)]), "hidden 1.2e-3, head 4.0e-2");
/// let many: Vec<_> = (1..=9).map(|layer| (layer.to_string(), f64::from(layer))).collect();
/// assert_eq!(rates(&many), "1.0e0 to 9.0e0");
/// ```
pub fn rates<S: AsRef<str>>(rates: &[(S, f64)]) -> String {
    match rates {
        [(_, rate)] => format!("{rate:.1e}"),
        rates if rates.len() > MOST_RATES => {
            let (least, greatest) = extent(rates.iter().map(|(_, rate)| *rate));
            format!("{least:.1e} to {greatest:.1e}")
        }
        rates => rates
            .iter()
            .map(|(name, rate)| format!("{} {rate:.1e}", name.as_ref()))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// If there are more rates than this, only the least and the greatest are given.
pub(super) const MOST_RATES: usize = 4;

/// The least and the greatest.
pub(super) fn extent(rates: impl Iterator<Item = f64>) -> (f64, f64) {
    rates.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), rate| {
        (least.min(rate), greatest.max(rate))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tlr::{engine::DirectionProducts, Cause, Outcome};

    #[test]
    fn each_decision_is_a_line_that_reads_back() {
        let decision = |step, products, outcome| {
            Adaptation::new(step, "head", 0.1, 0.30000000000000004, products, outcome)
        };
        let products = DirectionProducts { uu: 4.0, un: -1.0 / 3.0, nn: 1e-300 };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.csv");
        let history = [
            decision(30, Some(products), Outcome::Capped),
            decision(45, None, Outcome::RolledBack(Cause::LossExploded)),
        ];
        write_history_csv(&path, &history, 60).unwrap();

        let mut reader = csv::Reader::from_path(&path).unwrap();
        let lines: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(&lines[0][1], "0.5");
        assert_eq!(lines[0][4].parse(), Ok(0.30000000000000004));
        assert_eq!(lines[0][6].parse(), Ok(-1.0 / 3.0));
        assert_eq!(lines[0][7].parse(), Ok(1e-300));
        assert_eq!(&lines[0][8], "capped");
        assert_eq!((&lines[1][2], &lines[1][5]), ("head", ""));
        assert_eq!(&lines[1][8], "rolled back: the loss exploded");
    }
}
