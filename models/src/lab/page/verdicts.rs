//! The first sentences of the paper's page: where the library wins, where it loses, and what else
//! varies.

use super::{runs::Runs, tables::loss, words::percent};
use crate::{
    lab::{
        measures::{regret, spread},
        paper::{Exhibit, Panel, Series},
        Category,
    },
    report::svg::escaped,
};

/// A sentence on each panel: first the panels with this library beside others, then those with its
/// variants only, and those whose runs are not all done.
pub(super) fn verdicts(
    exhibits: &[&Exhibit],
    runs: &Runs<'_>,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut compared, mut varied, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
    for exhibit in exhibits {
        let title = exhibit.title.split(':').next().unwrap_or(exhibit.title);
        let (done, all) = runs.done(exhibit);
        if done < all {
            let title = escaped(title);
            unfinished.push(format!("<b>{title}</b>: {done} of {all} runs are done."));
            continue;
        }
        for panel in &exhibit.panels {
            let methods = methods(panel, exhibit, runs);
            let ours = least(methods.iter().filter(|one| one.is_ours()));
            let other = best_of_the_others(&methods);
            let (Some(best), Some(worst)) =
                (least(methods.iter()), methods.iter().max_by(|a, b| a.loss.total_cmp(&b.loss)))
            else {
                continue;
            };
            match (ours, other) {
                (Some(ours), Some(other)) => compared.push(beside(title, ours, other)),
                _ => varied.push(format!(
                    "<b>{}</b>: {} Final test losses go from {} ({}) to {} ({}).",
                    escaped(title),
                    escaped(panel.caption()),
                    loss(best.loss),
                    escaped(best.label),
                    loss(worst.loss),
                    escaped(worst.label)
                )),
            }
        }
    }
    (compared, varied, unfinished)
}

fn beside(title: &str, ours: &Method<'_>, other: &Method<'_>) -> String {
    let by = regret(ours.loss, other.loss);
    let (title, own, best) = (escaped(title), escaped(ours.label), escaped(other.label));
    let has = "has a final test loss of";
    let said = match (ours.loss.is_finite(), other.loss.is_finite()) {
        (true, true) => format!(
            "{own} {has} {}, and the best of the others, {best}, has {}. It <b>{}</b> by {}.",
            loss(ours.loss),
            loss(other.loss),
            if by <= 0.0 { "wins" } else { "loses" },
            percent(by.abs()).trim_start_matches('+')
        ),
        (true, false) => {
            format!("{own} {has} {}, and all others diverged. It <b>wins</b>.", loss(ours.loss))
        }
        (false, true) => format!(
            "{own} diverged, and the best of the others, {best}, {has} {}. It <b>loses</b>.",
            loss(other.loss)
        ),
        (false, false) => format!("{own} diverged, and so did all others."),
    };
    format!("<b>{title}</b>: {said}")
}

/// A line of a figure or a row of a table, with its mean loss.
struct Method<'a> {
    label: &'a str,
    category: Option<Category>,
    loss: f64,
}

impl Method<'_> {
    fn is_ours(&self) -> bool {
        matches!(self.category, Some(Category::Learned | Category::Starts))
    }
}

/// The best method that is not this library's, the paper's rule included. None if there are only
/// variants of the learned rate.
fn best_of_the_others<'a, 'b>(methods: &'a [Method<'b>]) -> Option<&'a Method<'b>> {
    let others = || methods.iter().filter(|one| !one.is_ours());
    others().any(|one| one.category != Some(Category::Tried)).then(|| least(others()))?
}

fn least<'a, 'b>(methods: impl Iterator<Item = &'a Method<'b>>) -> Option<&'a Method<'b>>
where
    'b: 'a,
{
    methods.min_by(|a, b| a.loss.total_cmp(&b.loss))
}

fn methods<'a>(panel: &'a Panel, exhibit: &Exhibit, runs: &Runs<'_>) -> Vec<Method<'a>> {
    let of = |label: &'a str, cells: &[Series]| {
        let losses: Option<Vec<_>> =
            cells.iter().map(|cell| Some(runs.best(cell, exhibit)?.loss())).collect();
        let category = cells.first().and_then(Series::category);
        Some(Method { label, category, loss: spread(&losses?)?.0 })
    };
    match panel {
        Panel::Curves { series, .. } => {
            series.iter().filter_map(|one| of(&one.label, std::slice::from_ref(one))).collect()
        }
        Panel::Grid { rows, .. } => {
            rows.iter().filter_map(|(label, cells)| of(label, cells)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a run that diverged wins or loses "by diverged".
    #[test]
    fn runs_that_diverged_are_told_as_that() {
        let told = |ours, other| {
            let method = |label, loss| Method { label, category: None, loss };
            beside("1", &method("tlr", ours), &method("adam", other))
        };
        let inf = f64::INFINITY;
        assert!(told(1.0, 2.0).ends_with("adam, has 2.0000. It <b>wins</b> by 50.0 %."));
        assert!(told(3.0, 2.0).ends_with("It <b>loses</b> by 50.0 %."));
        let only_ours = "<b>1</b>: tlr has a final test loss of 1.0000, and all others diverged. \
                         It <b>wins</b>.";
        assert_eq!(told(1.0, inf), only_ours);
        let only_theirs = "<b>1</b>: tlr diverged, and the best of the others, adam, has a final \
                           test loss of 2.0000. It <b>loses</b>.";
        assert_eq!(told(inf, 2.0), only_theirs);
        assert_eq!(told(inf, inf), "<b>1</b>: tlr diverged, and so did all others.");
    }

    // Fails if a loss to the paper's rule is not told, or if variants count as others.
    #[test]
    fn the_papers_rule_is_one_of_the_others() {
        let method = |label, category, loss| Method { label, category: Some(category), loss };
        let ours = || method("tlr", Category::Learned, 1.0);
        let rule = || method("the paper's rule", Category::Tried, 0.9);
        let other = |methods: &[Method<'_>]| Some(best_of_the_others(methods)?.label.to_owned());
        let adam = || method("adam", Category::Published, 1.1);
        assert_eq!(other(&[ours(), rule(), adam()]), Some("the paper's rule".to_owned()));
        assert_eq!(other(&[ours(), adam()]), Some("adam".to_owned()));
        assert_eq!(other(&[ours(), rule()]), None);
    }
}
