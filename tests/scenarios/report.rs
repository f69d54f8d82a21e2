//! What is told of the cells.

use super::{base::Base, expected::Expected, table::Cell};
#[cfg(test)]
use super::{
    table::{Constants, Run},
    ways::Way,
};
use std::fmt::Write;

/// Other processors round otherwise, and a cell at the limit may fall on the other side: so many
/// more cells of an entry may fail, and this part of all that are in none.
const SPARE: usize = 2;
const SPARE_PART: usize = 100;

/// Fails if a cell is not finite or has a failed step, or if more cells have too high an error than
/// are expected to.
pub(crate) fn judge(cells: &[Cell], expected: &[Expected], seeds: u64) -> Result<(), String> {
    let entry_of = |cell: &Cell| expected.iter().find(|entry| entry.covers(cell));
    let broken: Vec<&Cell> = cells.iter().filter(|cell| cell.is_broken()).collect();
    let failed = || cells.iter().filter(|cell| !cell.faults().is_empty());
    let mut unexpected: Vec<&Cell> = failed().filter(|cell| entry_of(cell).is_none()).collect();
    let few = unexpected.len() <= cells.len() / SPARE_PART;
    let mut report = String::new();
    if few {
        unexpected.clear();
    }
    for entry in expected {
        let of_entry: Vec<&Cell> = failed().filter(|cell| entry.covers(cell)).collect();
        if of_entry.len() > entry.allowed(seeds) + SPARE {
            let _ = writeln!(report, "{} cells fail of {entry:?}", of_entry.len());
            unexpected.extend(of_entry);
        }
    }
    unexpected.extend(broken);
    if unexpected.is_empty() {
        return Ok(());
    }
    unexpected.sort_by_key(|cell| cells.iter().position(|other| std::ptr::eq(other, *cell)));
    unexpected.dedup_by(|a, b| std::ptr::eq(*a, *b));
    for rows in unexpected.chunk_by(|a, b| a.row == b.row) {
        table(&mut report, rows, cells);
    }
    let (worse, all) = (unexpected.len(), cells.len());
    let _ = writeln!(report, "{worse} of {all} cells fail that are not expected to");
    Err(report)
}

/// The failed cells of a row.
fn table(report: &mut String, failed: &[&Cell], all: &[Cell]) {
    let row = failed[0].row;
    let run = all.iter().filter(|cell| cell.row == row);
    let _ = writeln!(report, "\n{row}: {} of {} cells failed", failed.len(), run.clone().count());
    for base in Base::ALL {
        let of_base = run.clone().filter(|cell| cell.way.base == base);
        let mut best: Vec<(f64, f64)> = of_base.map(|cell| cell.constants.best()).collect();
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

/// Writes all cells as CSV, if a path is given.
pub(crate) fn write_if_asked(cells: &[Cell]) {
    let Ok(path) = std::env::var("TLR_SCENARIOS_REPORT") else { return };
    let mut file = csv::Writer::from_path(path).unwrap();
    let header = "row,batch,seed,base,start,layers,call,end,error,best_error,best_rate,good_from,\
                  good_to,ratio,rates,started,started_at,level_off,failed_steps,first_failure,\
                  faults";
    file.write_record(header.split(',')).unwrap();
    for cell in cells {
        let Cell { row, batch, seed, way, run, constants } = cell;
        let (best, good) = (constants.best(), constants.good());
        file.write_record([
            (*row).to_owned(),
            batch.to_string(),
            seed.to_string(),
            way.base.name().to_owned(),
            format!("{:e}", way.start),
            way.layers().to_owned(),
            way.call().to_owned(),
            way.end().to_owned(),
            format!("{:.6e}", run.error),
            format!("{:.6e}", best.0),
            format!("{:e}", best.1),
            format!("{:e}", good.0),
            format!("{:e}", good.1),
            format!("{:.4}", cell.ratio()),
            rates(&run.rates),
            rates(&run.started),
            run.started_at.to_string(),
            cell.level_off().map_or(String::new(), |off| format!("{off:.2}")),
            run.failed_steps.to_string(),
            run.first_failure.clone().unwrap_or_default(),
            cell.faults().join("; "),
        ])
        .unwrap();
    }
    file.flush().unwrap();
}

// Fails if a count is not looked at, if a spare cell is too many, or if an entry excuses weights
// that are not finite or a step that fails.
#[test]
fn the_list_of_expected_failures_is_kept() {
    let way = Way { base: Base::Adam, start: 10.0, per_layer: true, told: false, horizon: true };
    let cell = |error: f64| Cell {
        row: "row",
        batch: 16,
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
        constants: Constants(vec![(0.1, 0.01)]),
    };
    let entry = |row, base| Expected { row, base, of_three: 1, of_ten: 2, reason: "none" };
    let (listed, other) = ([entry("row", Base::Adam)], [entry("row", Base::Sgd)]);
    let bad = |count| vec![cell(0.2); count];
    assert_eq!(judge(&[cell(0.1)], &[], 3), Ok(()));
    assert_eq!(judge(&bad(1 + SPARE), &listed, 3), Ok(()));
    assert_eq!(judge(&bad(2 + SPARE), &listed, 10), Ok(()));
    let worse = judge(&bad(2 + SPARE), &listed, 3).unwrap_err();
    assert!(worse.contains("4 cells fail of Expected { row: \"row\""), "{worse}");
    assert!(judge(&bad(3 + SPARE), &listed, 10).is_err());
    // In no entry: one of a hundred.
    let hundred = |bad| [vec![cell(0.1); 100 - bad], vec![cell(f64::NAN); bad]].concat();
    assert_eq!(judge(&hundred(1), &other, 3), Ok(()));
    assert!(judge(&hundred(2), &other, 3).is_err());
    // A row at a seed at which no constant learns says nothing of the error.
    assert_eq!(
        judge(&[Cell { constants: Constants(vec![(0.95, 0.01)]), ..cell(5.0) }], &[], 3),
        Ok(())
    );
    let failing = Run { failed_steps: 1, ..cell(0.1).run };
    let broken = [Run { finite: false, ..cell(0.1).run }, failing];
    for run in broken {
        let cells = vec![Cell { run, ..cell(0.1) }, cell(0.1)];
        assert!(judge(&cells, &listed, 3).is_err());
    }
}

// Fails if a constant that is as good as the best does not count, or one that is not.
#[test]
fn the_level_is_compared_with_all_good_constants() {
    let constants =
        Constants(vec![(f64::NAN, 10.0), (0.3, 1.0), (0.2, 0.1), (0.205, 0.01), (0.4, 1e-3)]);
    assert_eq!(constants.best(), (0.2, 0.1));
    assert_eq!(constants.good(), (0.01, 0.1));
    let way = Way { base: Base::Sgd, start: 1.0, per_layer: true, told: true, horizon: false };
    let off = |started: Vec<f64>| {
        let run = Run {
            error: 0.1,
            finite: true,
            failed_steps: 0,
            first_failure: None,
            rates: Vec::new(),
            started,
            started_at: 0,
        };
        let constants = constants.clone();
        Cell { row: "row", batch: 16, seed: 1, way, run, constants }.level_off()
    };
    assert_eq!(off(Vec::new()), None);
    assert_eq!(off(vec![0.05]), Some(1.0));
    assert_eq!(off(vec![0.4, 0.05]), Some(4.0));
    assert_eq!(off(vec![0.4, 0.001]), Some(10.0));
}
