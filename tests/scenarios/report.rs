//! What is told of the cells.

use super::{base::Base, expected::Expected, table::Cell};
#[cfg(test)]
use super::{table::Run, ways::Way};
use std::fmt::Write;

/// Fails if a cell does that is not expected to, or if none of an entry's cells does.
pub(crate) fn judge(cells: &[Cell], expected: &[Expected]) -> Result<(), String> {
    let entry_of = |cell: &Cell| expected.iter().find(|e| e.covers(cell.row, cell.seed, cell.way));
    let failed = |cell: &&Cell| !cell.faults().is_empty();
    let unexpected: Vec<&Cell> =
        cells.iter().filter(failed).filter(|cell| entry_of(cell).is_none()).collect();
    let mut report = String::new();
    for rows in unexpected.chunk_by(|a, b| a.row == b.row) {
        table(&mut report, rows, cells);
    }
    let mut passing = 0;
    for entry in expected {
        let mut covered = cells.iter().filter(|c| entry.covers(c.row, c.seed, c.way)).peekable();
        if covered.peek().is_some() && covered.all(|cell| cell.faults().is_empty()) {
            passing += 1;
            let _ = writeln!(report, "passes, so take it off the list: {entry:?}");
        }
    }
    if unexpected.is_empty() && passing == 0 {
        return Ok(());
    }
    let _ = writeln!(
        report,
        "{} of {} cells failed; {passing} of {} entries of the list of expected failures pass",
        unexpected.len(),
        cells.len(),
        expected.len()
    );
    Err(report)
}

/// The failed cells of a row.
fn table(report: &mut String, failed: &[&Cell], all: &[Cell]) {
    let row = failed[0].row;
    let run = all.iter().filter(|cell| cell.row == row);
    let _ = writeln!(report, "\n{row}: {} of {} cells failed", failed.len(), run.clone().count());
    for base in Base::ALL {
        let of_base = run.clone().filter(|cell| cell.way.base == base);
        let mut best: Vec<(f64, f64)> = of_base.map(|cell| cell.best).collect();
        best.dedup();
        let best: Vec<String> =
            best.iter().map(|(error, rate)| format!("{error:.3} at {rate:.0e}")).collect();
        let _ = writeln!(report, "  best constants around {}: {}", base.name(), best.join(", "));
    }
    let _ = writeln!(
        report,
        "  {:8} {:>7} {:14} {:6} {:11} {:>4} {:>9} {:>9}  rates at the end, and what is wrong",
        "around", "from", "", "", "", "seed", "error", "ratio"
    );
    for cell in failed {
        let Cell { seed, way, run, .. } = cell;
        let faults = cell.faults().join(", ");
        let failures = match &run.first_failure {
            Some(first) => format!(" ({} of them, the first at {first})", run.failed_steps),
            None => String::new(),
        };
        let _ = writeln!(
            report,
            "  {:8} {:7.0e} {:14} {:6} {:11} {seed:4} {:9.3e} {:>9}  {}: {faults}{failures}",
            way.base.name(),
            way.start,
            way.layers(),
            way.call(),
            way.end(),
            run.error,
            ratio(cell.ratio()),
            rates(&run.rates),
        );
    }
}

fn ratio(ratio: f64) -> String {
    if ratio < 1e5 {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.0e}")
    }
}

fn rates(rates: &[f64]) -> String {
    let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.1e}")).collect();
    rates.join(" ")
}

/// Writes all cells as CSV.
pub(crate) fn write(path: &str, cells: &[Cell]) {
    let mut file = csv::Writer::from_path(path).unwrap();
    let header = "row,seed,base,start,layers,call,end,error,best_error,best_rate,ratio,rates,\
                  started,started_at,failed_steps,first_failure,faults";
    file.write_record(header.split(',')).unwrap();
    for cell in cells {
        let Cell { row, seed, way, run, best } = cell;
        file.write_record([
            (*row).to_owned(),
            seed.to_string(),
            way.base.name().to_owned(),
            format!("{:e}", way.start),
            way.layers().to_owned(),
            way.call().to_owned(),
            way.end().to_owned(),
            format!("{:.6e}", run.error),
            format!("{:.6e}", best.0),
            format!("{:e}", best.1),
            format!("{:.4}", cell.ratio()),
            rates(&run.rates),
            rates(&run.started),
            run.started_at.to_string(),
            run.failed_steps.to_string(),
            run.first_failure.clone().unwrap_or_default(),
            cell.faults().join("; "),
        ])
        .unwrap();
    }
    file.flush().unwrap();
}

// A listed cell that fails is no failure; one that passes, and one that fails and is not listed,
// are.
#[test]
fn the_list_of_expected_failures_is_kept() {
    let way = Way { base: Base::Adam, start: 10.0, per_layer: true, told: false, horizon: true };
    let cell = |error: f64| Cell {
        row: "row",
        seed: 1,
        way,
        run: Run {
            error,
            finite: true,
            failed_steps: 0,
            first_failure: None,
            rates: vec![0.1, 0.2],
            started: Vec::new(),
            started_at: 0,
        },
        best: (0.1, 0.01),
    };
    let entry = |row, start| Expected {
        row,
        base: Some(Base::Adam),
        start,
        per_layer: None,
        told: None,
        horizon: None,
        seed: None,
        reason: "none",
    };
    let (listed, other) = ([entry("row", Some(10.0))], [entry("row", Some(1e-2))]);
    assert_eq!(judge(&[cell(0.1)], &[]), Ok(()));
    assert_eq!(judge(&[cell(0.2)], &listed), Ok(()));
    assert_eq!(judge(&[cell(0.1), cell(0.2)], &listed), Ok(()));
    assert_eq!(judge(&[cell(0.1)], &other), Ok(()));
    assert!(judge(&[cell(0.2)], &[]).is_err());
    assert!(judge(&[cell(0.2)], &other).is_err());
    let passing = judge(&[cell(0.1)], &listed).unwrap_err();
    assert!(passing.contains("take it off the list"), "{passing}");
    assert!(judge(&[cell(f64::NAN)], &[]).is_err());
}
