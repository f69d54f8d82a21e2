//! The findings as one page of HTML: no network, no script, pictures inside, and it fits a phone.

mod chart;
mod paper;
mod runs;
mod tables;
mod verdicts;
mod words;

pub use paper::paper_html;

use super::{
    contenders::{by_hand, NADAMW_RATES, SGD_MOMENTUM, SGD_RATES},
    Category, Findings, OfTask,
};
use crate::report::{count, svg::escaped};
use std::fmt::Write;
use words::{listed, percent, regret_of, OURS};

/// The page, as HTML.
///
/// ```no_run
/// use tlr_models::lab::{html, Findings, Results, Scale};
///
/// let results = Results::open("results/lab".as_ref(), Scale::Small)?;
/// std::fs::write("report.html", html(&Findings::of(&results)))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn html(findings: &Findings) -> String {
    let mut page = head("A learned rate beside its peers and a search by hand");
    summary(&mut page, findings);
    page += "<h2>Everyone</h2>\n";
    page += EVERYONE;
    page += &tables::everyone(findings);
    page += "<h2>How far from the best by hand</h2>\n";
    page += &figure(
        chart::dots(findings, &shown(findings)),
        "Each task's final loss, as a part above (right) or below (left) that of the best by hand. \
         What is beyond the edge stands at the edge, hollow.",
    );
    page += "<h2>How fast the target is reached</h2>\n";
    page += PROFILE;
    page += &profiles(findings);
    page += "<h2>Task by task</h2>\n<p>Losses are means ± standard deviations over seeds.</p>\n";
    for task in &findings.tasks {
        of_task(&mut page, findings, task);
    }
    page += "<h2>Other starting rates</h2>\n";
    page += "<p>The rate that an optimizer is made with should not matter: the first steps look \
             for a better one. Mean final losses from the usual rate, and how far from that the \
             loss is from the other rates, at most.</p>\n";
    page += &tables::starts(findings);
    page += &notes();
    page += "</main>\n</body>\n</html>\n";
    page
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; line-height: 1.25; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff;
  white-space: normal; min-width: 7rem; }
tr.ours td { background: #eef5fb; } tr.hand td { background: #f4f4f0; }
figure { margin: 1rem 0; } figcaption { font-size: .875rem; color: #555; max-width: 36rem; }
svg { width: 100%; max-width: 34rem; height: auto; display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 0; }
details { border-top: 1px solid #ddd; padding: .5rem 0; } summary { cursor: pointer; }
.quiet { color: #555; font-size: .875rem; }
</style>
"#;

/// The page up to its heading, which is its title too.
fn head(title: &str) -> String {
    format!("{HEAD}<title>tlr: {title}</title>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n")
}

const EVERYONE: &str =
    "<p><em>Settings</em> are the numbers that have to be chosen; a published default counts. The \
    time of a step is a multiple of plain SGD's, as the peers' host computes it.</p>\n";

const PROFILE: &str =
    "<p>The target of a task is the loss that the best by hand has at nine tenths \
    of its budget. A curve shows on how many tasks each reaches it in at most τ times the steps of \
    the fastest one.</p>\n";

fn notes() -> String {
    format!(
        "<h2>How this was made</h2>\n<ul>\n\
         <li>The points of the search by hand: NAdamW with a cosine at {}; SGD at {}, with and \
         without momentum {SGD_MOMENTUM}, constant or with a cosine. The best is chosen by the \
         very losses that are compared, which flatters it.</li>\n{NOTES}",
        listed(&NADAMW_RATES),
        listed(&SGD_RATES)
    )
}

const NOTES: &str = "\
    <li>Everyone begins at the same weights and sees the same batches. Peers have the defaults of \
    their packages. What averages weights is tested at the average.</li>\n\
    <li>A run is tested 20 times, on examples that it is not trained on. Tests are not timed. A \
    range test counts into steps and time.</li>\n\
    <li>Peers copy the weights out and in, and compute in double precision: their time a step is \
    more than they need. Compare steps rather than seconds.</li>\n\
    <li>The two tasks of the paper on hypergradients, and the one in half precision, have its \
    weight decay of 1e-4, as a part of the loss that is trained on. The others have none. Folders \
    of pictures and ResNet-50 are in the paper's evidence.</li>\n</ul>\n";

fn figure(svg: String, caption: &str) -> String {
    format!("<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>\n")
}

/// The competitors of a category, those with the largest areas first.
fn by_area(findings: &Findings, category: Category) -> Vec<usize> {
    let all = findings.competitors.iter().enumerate();
    let mut of_category: Vec<_> = all
        .filter(|(_, one)| one.category == category)
        .map(|(index, _)| (findings.area(index, |score| score.steps), index))
        .collect();
    of_category.sort_by(|a, b| b.0.total_cmp(&a.0));
    of_category.into_iter().map(|(_, index)| index).collect()
}

/// The competitors in the figures: ours, the search by hand, and the best three that find their own
/// rate.
fn shown(findings: &Findings) -> Vec<usize> {
    let hand = ["nadamw + cosine, by hand", "sgd, by hand"];
    let mut shown: Vec<_> =
        OURS.iter().chain(&hand).filter_map(|name| findings.named(name)).collect();
    shown.extend(by_area(findings, Category::RateFree).into_iter().take(3));
    shown
}

fn summary(page: &mut String, findings: &Findings) {
    let seeds = findings.tasks.iter().map(|task| task.seeds.len());
    let (least, most) = (seeds.clone().min().unwrap_or(0), seeds.max().unwrap_or(0));
    let seeds = match least == most {
        true => count(most, "seed"),
        false => format!("{least} to {}", count(most, "seed")),
    };
    let scale = words::scale(findings.scale);
    // Other starting rates are the same competitor again.
    let competitors = findings.competitors.iter().filter(|one| one.category != Category::Starts);
    let _ = writeln!(
        page,
        "<p>{}, {}, {seeds} a task; scale: {scale}. This library is given \
         no number: only how many steps there are, and how many in an epoch.</p>\n\
         <p><em>Regret</em> is how much worse the final loss is than that of the best of {} points \
         tried by hand on the same task, as a part of it; below 0 is better than by hand. The \
         <em>area</em>, from 0 to 1, says on how many tasks a target is reached, and how \
         soon.</p>\n<ul>",
        count(findings.tasks.len(), "task"),
        count(competitors.count(), "competitor"),
        by_hand().len(),
    );
    let hand = "nadamw + cosine, by hand";
    for name in OURS.iter().chain(&[hand]) {
        let Some((index, regret)) =
            findings.named(name).and_then(|index| Some((index, regret_of(findings, index)?)))
        else {
            continue;
        };
        let _ = writeln!(
            page,
            "<li><b>{}</b>: median regret {}, {} at worst ({}). No worse than \
             the best by hand at {} of {} tasks. Area of the profile {:.2}.</li>",
            escaped(name),
            percent(regret.middle),
            percent(regret.worst),
            escaped(regret.at),
            regret.no_worse,
            regret.tasks,
            findings.area(index, |score| score.steps),
        );
    }
    *page += "</ul>\n";
    *page += &wins_and_losses(findings);
    if let Some(&best) = by_area(findings, Category::RateFree).first()
        && let (Some(one), Some(regret)) =
            (findings.competitors.get(best), regret_of(findings, best))
    {
        let _ = writeln!(
            page,
            "<p>Of the others that find their own rate, <b>{}</b> has the largest area, \
                 {:.2}; its median regret is {}, and {} at worst ({}).</p>",
            escaped(&one.name),
            findings.area(best, |score| score.steps),
            percent(regret.middle),
            percent(regret.worst),
            escaped(regret.at),
        );
    }
    *page += &aim(findings, hand);
}

/// What was to be reached, and whether it is.
fn aim(findings: &Findings, hand: &str) -> String {
    let area = |index| findings.area(index, |score| score.steps);
    let free = by_area(findings, Category::RateFree);
    let rivals = free.into_iter().chain(findings.named(hand)).map(area);
    let largest = rivals.fold(0.0, f64::max);
    let reaches = |name: &&&str| {
        findings.named(name).is_some_and(|index| {
            let regret = regret_of(findings, index);
            let near = regret.is_some_and(|regret| regret.middle <= 0.0 && regret.worst <= 0.03);
            near && area(index) >= largest
        })
    };
    let reached: Vec<_> = OURS.iter().filter(reaches).copied().collect();
    let reached = match &*reached {
        [] => "Not one of the three reaches all of it yet".to_owned(),
        names => format!("Reached by {}", names.join(", ")),
    };
    format!(
        "<p>The aim is a median regret of at most 0, 3 % at worst, and an area at least that of \
         NAdamW with a cosine and of all that find their own rate. <b>{reached}.</b></p>\n"
    )
}

/// The tasks at which ours are furthest before, and furthest behind, the search by hand.
fn wins_and_losses(findings: &Findings) -> String {
    let ours: Vec<_> = OURS.iter().filter_map(|name| findings.named(name)).collect();
    let mut best: Vec<(f64, &str)> = Vec::new();
    for (place, task) in findings.tasks.iter().enumerate() {
        let regrets = ours.iter().filter_map(|&one| findings.regrets(one).get(place).copied()?);
        if let Some(least) = regrets.reduce(f64::min) {
            best.push((least, &task.name));
        }
    }
    best.sort_by(|a, b| a.0.total_cmp(&b.0));
    let list = |of: &[(f64, &str)]| {
        let named =
            of.iter().map(|(regret, name)| format!("{} {}", escaped(name), percent(*regret)));
        named.collect::<Vec<_>>().join(", ")
    };
    let wins = best.partition_point(|(regret, _)| *regret <= 0.0);
    let (won, lost) = best.split_at(wins);
    let none = |text: String| if text.is_empty() { "nowhere".to_owned() } else { text };
    format!(
        "<p>The best of the three beats the best by hand at {} of {} tasks: {}. It is behind at: \
         {}.</p>\n",
        won.len(),
        best.len(),
        none(list(won)),
        none(list(lost))
    )
}

fn profiles(findings: &Findings) -> String {
    let lines = shown(findings).into_iter().filter_map(|index| {
        let times = findings.times(index, |score| score.steps);
        let taus = (0..=120).map(|n| 1.0 + f64::from(n) / 40.0);
        let points = taus.map(|tau| (tau, super::measures::profile(&times, tau))).collect();
        Some((findings.competitors.get(index)?.name.clone(), points))
    });
    let svg = chart::shares("part of the tasks", (1.0, 4.0), lines.collect());
    figure(svg, "Steps to the target. Further up and further left is better.")
}

fn of_task(page: &mut String, findings: &Findings, task: &OfTask) {
    let loss = |name: &str| {
        let score = findings.named(name).and_then(|index| task.score(index));
        score.map_or("–".to_owned(), |score| tables::loss(score.loss()))
    };
    let hand = findings.hand().and_then(|hand| task.score(hand));
    let (best, member) = hand.map_or((f64::NAN, "–"), |score| (score.loss(), &score.member));
    let ours: Vec<_> = OURS.iter().map(|name| format!("{name} {}", loss(name))).collect();
    let _ = writeln!(
        page,
        "<details><summary><b>{}</b>: {}; by hand {} ({})</summary>\n<p>{}. <span class=\"quiet\">\
         {}; target {}; seeds {:?}</span></p>",
        escaped(&task.name),
        escaped(&ours.join(", ")),
        tables::loss(best),
        escaped(member),
        escaped(&task.about),
        escaped(&task.data),
        tables::loss(task.target),
        task.seeds,
    );
    let lines = shown(findings).into_iter().filter_map(|index| {
        let score = task.score(index)?;
        Some((findings.competitors.get(index)?.name.clone(), score.curve.clone()))
    });
    let svg = chart::over_steps("loss", lines.collect());
    *page += &figure(svg, "Loss on examples that are not trained on; one seed.");
    *page += &tables::of_task(findings, task);
    *page += "</details>\n";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lab::Scale;

    #[test]
    fn shares_are_told_with_their_sign() {
        let told = [0.031, -0.2, 12.0, f64::INFINITY].map(percent);
        assert_eq!(told, ["+3.1 %", "-20.0 %", "×13", "diverged"]);
    }

    // Fails if a page without runs is an error, if it asks the network for anything, or if a tag
    // is left open.
    #[test]
    fn an_empty_page_is_a_page() {
        let findings = Findings { scale: Scale::Smoke, competitors: Vec::new(), tasks: Vec::new() };
        let page = html(&findings);
        assert!(page.ends_with("</html>\n") && page.contains("0 tasks"));
        let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!page.contains("http") && !page.contains("<script"));
        let body = page.split_once("<body>").unwrap().1.split_once("</html>").unwrap().0;
        roxmltree::Document::parse(&format!("<body>{body}")).unwrap();
    }
}
