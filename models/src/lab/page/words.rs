//! Words of the pages: names, scales, lists, shares in percent, and phrases on regrets.

use crate::lab::{measures::median, Findings, Scale};

/// This library's contenders with one rate that get the number of steps: the default.
pub(super) const OURS: [&str; 3] = ["tlr-sgd", "tlr-momentum", "tlr-adam"];

/// What a scale is, in a few words.
pub(super) fn scale(scale: Scale) -> &'static str {
    match scale {
        Scale::Smoke => "smoke, which says nothing but that the program works",
        Scale::Small => "small, with less data and smaller networks than in publications",
        Scale::Paper => "as in publications",
    }
}

/// Numbers with commas between them, and `and` before the last one.
pub(super) fn listed(numbers: &[f64]) -> String {
    let mut words: Vec<_> = numbers.iter().map(f64::to_string).collect();
    let last = words.pop().unwrap_or_default();
    match words.is_empty() {
        true => last,
        false => format!("{} and {last}", words.join(", ")),
    }
}

/// A share in percent, with its sign.
pub(super) fn percent(share: f64) -> String {
    match share {
        share if !share.is_finite() => "diverged".to_owned(),
        // Without a sign: neither is won by so little.
        share if share.abs() < 5e-4 => "0.0 %".to_owned(),
        share if share > 9.995 => format!("×{:.0}", 1.0 + share),
        share => format!("{:+.1} %", 100.0 * share),
    }
}

/// The middle and the worst of a competitor's regrets, and where it is worst.
pub(super) struct Regret<'a> {
    pub(super) middle: f64,
    pub(super) worst: f64,
    pub(super) at: &'a str,
    /// At how many tasks the regret is not above 0.
    pub(super) no_worse: usize,
    pub(super) tasks: usize,
}

pub(super) fn regret_of(findings: &Findings, competitor: usize) -> Option<Regret<'_>> {
    let regrets = findings.regrets(competitor);
    let named: Vec<_> =
        regrets.iter().zip(&findings.tasks).filter_map(|(r, task)| Some(((*r)?, task))).collect();
    let (worst, task) = named.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(Regret {
        middle: median(&named.iter().map(|(regret, _)| *regret).collect::<Vec<_>>())?,
        worst: *worst,
        at: &task.name,
        no_worse: named.iter().filter(|(regret, _)| *regret <= 0.0).count(),
        tasks: named.len(),
    })
}
