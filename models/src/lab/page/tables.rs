//! The tables of the page.

use super::words::{percent, regret_of, OURS};
use crate::{
    lab::{measures::spread, Category, Findings, OfTask, Score},
    report::svg::escaped,
};
use std::fmt::Write;

/// A loss in about five characters.
pub(super) fn loss(loss: f64) -> String {
    match loss {
        0.0 => "0".to_owned(),
        loss if loss.is_infinite() => "diverged".to_owned(),
        loss if !(1e-4..100.0).contains(&loss) => format!("{loss:.2e}"),
        loss if loss >= 10.0 => format!("{loss:.2}"),
        loss => format!("{loss:.4}"),
    }
}

fn class(category: Category) -> &'static str {
    match category {
        Category::Learned | Category::Starts | Category::Tried => " class=\"ours\"",
        Category::HandNAdamW | Category::HandSgd => " class=\"hand\"",
        _ => "",
    }
}

pub(super) fn table(
    headings: &[&str],
    rows: impl IntoIterator<Item = (Category, Vec<String>)>,
) -> String {
    let mut text = String::from("<div class=\"wide\">\n<table>\n<tr>");
    headings.iter().for_each(|heading| text += &format!("<th>{}</th>", escaped(heading)));
    text += "</tr>\n";
    for (category, row) in rows {
        let _ = write!(text, "<tr{}>", class(category));
        row.iter().for_each(|cell| text += &format!("<td>{}</td>", escaped(cell)));
        text += "</tr>\n";
    }
    text + "</table>\n</div>\n"
}

/// All competitors, those with the least median regret first.
pub(super) fn everyone(findings: &Findings) -> String {
    let all = findings.competitors.iter().enumerate();
    let mut rows: Vec<_> = all
        .filter(|(_, one)| one.category != Category::Starts)
        .filter_map(|(index, one)| {
            let regret = regret_of(findings, index)?;
            let time = findings.step_time(index).map_or("–".into(), |time| format!("{time:.2}"));
            let row = vec![
                one.name.clone(),
                percent(regret.middle),
                percent(regret.worst),
                regret.at.to_owned(),
                format!("{} of {}", regret.no_worse, regret.tasks),
                format!("{:.2}", findings.area(index, |score| score.steps)),
                format!("{:.2}", findings.area(index, |score| score.seconds)),
                one.settings.to_string(),
                if one.horizon { "yes" } else { "no" }.to_owned(),
                time,
            ];
            Some((regret.middle, (one.category, row)))
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let headings = [
        "",
        "median regret",
        "at worst",
        "where",
        "no worse",
        "area, steps",
        "area, seconds",
        "settings",
        "knows the steps",
        "time of a step",
    ];
    table(&headings, rows.into_iter().map(|(_, row)| row))
}

/// Mean ± deviation, and how many diverged.
pub(super) fn losses(all: &[f64]) -> String {
    let lost = all.iter().filter(|loss| !loss.is_finite()).count();
    match spread(all) {
        _ if lost > 0 => format!("diverged, {lost} of {}", all.len()),
        Some((mean, deviation)) if all.len() > 1 => {
            format!("{} ± {}", loss(mean), loss(deviation))
        }
        Some((mean, _)) => loss(mean),
        None => "–".to_owned(),
    }
}

/// All competitors at a task, the least loss first.
pub(super) fn of_task(findings: &Findings, task: &OfTask) -> String {
    let best = findings.hand().and_then(|hand| task.score(hand)).map(Score::loss);
    let mut rows: Vec<_> = findings
        .competitors
        .iter()
        .zip(&task.scores)
        .filter(|(one, _)| one.category != Category::Starts)
        .filter_map(|(one, score)| {
            let score = score.as_ref()?;
            let name = match one.members.len() {
                1 => one.name.clone(),
                _ => format!("{} (best of {}: {})", one.name, score.of, score.member),
            };
            let regret =
                best.map_or(f64::NAN, |best| crate::lab::measures::regret(score.loss(), best));
            let row = vec![
                name,
                losses(&score.losses),
                percent(regret),
                score.accuracy.map_or("–".into(), |part| format!("{:.1} %", 100.0 * part)),
                if score.steps.is_finite() {
                    format!("{:.0}", score.steps)
                } else {
                    "never".into()
                },
                format!("{:.2}", 1e3 * score.step_seconds),
            ];
            Some((score.loss(), (one.category, row)))
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let headings = ["", "final loss", "regret", "accuracy", "steps to target", "ms a step"];
    table(&headings, rows.into_iter().map(|(_, row)| row))
}

/// Ours from the usual starting rate and from the others, task by task.
pub(super) fn starts(findings: &Findings) -> String {
    let bases: Vec<_> = OURS
        .iter()
        .filter_map(|name| {
            let from = format!("{name}-from-");
            let all = findings.competitors.iter().enumerate();
            let starts: Vec<_> = all
                .filter_map(|(index, one)| Some((index, one.name.strip_prefix(&from)?)))
                .collect();
            let usual = findings.named(name)?;
            (!starts.is_empty()).then_some((*name, usual, starts))
        })
        .collect();
    let mut headings = vec![String::new()];
    for (name, _, starts) in &bases {
        // With hyphens at which no browser breaks a line.
        let rates: Vec<_> = starts.iter().map(|(_, rate)| rate.replace('-', "\u{2011}")).collect();
        headings.extend([(*name).to_owned(), format!("from {}", rates.join(", "))]);
    }
    let rows = findings.tasks.iter().map(|task| {
        let mut row = vec![task.name.clone()];
        for (_, usual, starts) in &bases {
            let usual = task.score(*usual).map(Score::loss);
            let others = starts.iter().map(|(index, _)| task.score(*index).map(Score::loss));
            row.push(usual.map_or("–".to_owned(), loss));
            row.push(furthest(usual, others).map_or("–".to_owned(), difference));
        }
        (Category::Published, row)
    });
    let headings: Vec<_> = headings.iter().map(String::as_str).collect();
    table(&headings, rows)
}

/// The largest distance from the first loss, as a part of it. None if one of them is not there.
fn furthest(usual: Option<f64>, others: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let usual = usual?;
    let apart = |other: f64| match other {
        other if other == usual => 0.0,
        other if other.is_finite() && usual.is_finite() => (other - usual).abs() / usual.abs(),
        _ => f64::INFINITY,
    };
    others.map(|other| other.map(apart)).try_fold(0.0, |most, apart| Some(apart?.max(most)))
}

fn difference(part: f64) -> String {
    match part {
        0.0 => "the same".to_owned(),
        part if part.is_finite() => format!("{:.1e} of it", part),
        _ => "diverged".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a run that diverged hides in a mean.
    #[test]
    fn losses_say_what_diverged() {
        assert_eq!(losses(&[0.5, 0.5]), "0.5000 ± 0");
        assert_eq!(losses(&[0.25]), "0.2500");
        assert_eq!(losses(&[0.25, f64::INFINITY]), "diverged, 1 of 2");
        assert_eq!([250.0, 12.0, 1e-5].map(loss), ["2.50e2", "12.00", "1.00e-5"]);
    }

    // Losses are the same to the last digit or not; both diverged is the same too.
    #[test]
    fn how_far_other_starts_end() {
        let told = |usual: f64, others: [f64; 2]| {
            furthest(Some(usual), others.into_iter().map(Some)).map(difference)
        };
        assert_eq!(told(0.5, [0.5, 0.5]).as_deref(), Some("the same"));
        assert_eq!(told(-0.5, [-0.5, -0.4]).as_deref(), Some("2.0e-1 of it"));
        assert_eq!(told(0.5, [f64::INFINITY, 0.5]).as_deref(), Some("diverged"));
        assert_eq!(told(f64::INFINITY, [f64::INFINITY; 2]).as_deref(), Some("the same"));
        assert_eq!(told(f64::INFINITY, [0.5; 2]).as_deref(), Some("diverged"));
        assert_eq!(furthest(Some(1.0), [Some(1.0), None].into_iter()), None);
    }

    #[test]
    fn cells_are_escaped() {
        let text = table(&["a"], [(Category::Learned, vec!["<b>".to_owned()])]);
        assert!(text.contains("<tr class=\"ours\"><td>&lt;b&gt;</td>"));
    }
}
