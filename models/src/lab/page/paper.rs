//! The paper's evidence as one page.

use super::{
    chart, figure, head,
    runs::Runs,
    tables::{losses, table},
    verdicts::verdicts,
};
use crate::{
    lab::{
        paper::{Exhibit, Panel, Quantity, Series},
        Category, Record, Results,
    },
    report::{count, svg::escaped},
};
use std::{collections::BTreeSet, fmt::Write};

/// The page of these exhibits, as far as their runs are done.
///
/// ```no_run
/// use tlr_models::lab::{exhibits, paper_html, Results, Scale};
///
/// let results = Results::open("results/paper".as_ref(), Scale::Small)?;
/// std::fs::write("report.html", paper_html(&exhibits(Scale::Small), &results))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn paper_html(exhibits: &[Exhibit], results: &Results) -> String {
    let runs = Runs::of(results);
    let shown: Vec<_> = exhibits.iter().filter(|exhibit| runs.has_some(exhibit)).collect();
    let mut page = head("The paper's figures and tables, made anew");
    let scale = super::words::scale(results.scale());
    let seconds: f64 = runs.records.iter().map(|record| record.seconds).sum();
    let _ = writeln!(
        page,
        "<p>G. Retsinas, G. Sfikas, P. P. Filntisis and P. Maragos, <em>Newton-based \
         Trainable Learning Rate</em>, ICASSP 2023. Scale: {scale}. {}, {:.0} minutes of one \
         processor. Seeds: {}.</p>\n<p><em>tlr</em> is this library, and is given no number. \
         <em>The paper's rule as printed</em> is the same idea without what the library has \
         added.</p>",
        count(runs.records.len(), "run"),
        seconds / 60.0,
        words(&runs.records.iter().map(|record| record.seed).collect()),
    );
    let (compared, varied, unfinished) = verdicts(&shown, &runs);
    page += "<h2>Where it wins, and where it loses</h2>\n";
    page += &bullets(&compared);
    page += "<h2>How much settings and parts of it matter</h2>\n";
    page += &bullets(&varied);
    page += &bullets(&unfinished);
    for exhibit in shown {
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n<p>{}</p>",
            escaped(exhibit.title),
            escaped(exhibit.about)
        );
        for task in &exhibit.tasks {
            let data = runs.data(task).unwrap_or("no run yet");
            let name = escaped(task.name);
            let _ = writeln!(
                page,
                "<p class=\"quiet\"><code>{name}</code>: {}. {}.</p>",
                escaped(task.about),
                escaped(data)
            );
        }
        let (done, all) = runs.done(exhibit);
        if done < all {
            let _ = writeln!(
                page,
                "<p><b>{done} of {all} runs are done.</b> Means are over those that are.</p>"
            );
        }
        for panel in &exhibit.panels {
            page += &shown_panel(panel, exhibit, &runs);
        }
    }
    page += NOTES;
    page + "</main>\n</body>\n</html>\n"
}

const NOTES: &str = "<h2>How this was made</h2>\n<ul>\n\
    <li>Everyone begins at the same weights and sees the same batches. Weight decay is 0. Pixels \
    are scaled to mean 0 and deviation 1; pictures in folders as is usual for ImageNet.</li>\n\
    <li>A run is tested 20 times, on examples that it is not trained on. Tests are not timed. The \
    training loss is the mean over the batches between two tests. Rates are read 200 times.</li>\n\
    <li>Times are those of one processor on this thread. Peers (Adam, RMSprop, SLS, SPS and those \
    of the last table) copy the weights out and in and compute in double precision: their steps \
    take more time than they need. Other work on the machine slows all of them down.</li>\n\
    <li>Memory is what an optimizer keeps beside the weights, counted from its buffers at the end: \
    snapshots, moments, averages. Gradients and the weights are not counted.</li>\n\
    <li><em>Settings</em> are the numbers that have to be chosen; a published default \
    counts.</li>\n\
    <li>A window between two decisions has at least 20 steps, also with the paper's rule.</li>\n\
    <li>Curves are of the least seed.</li>\n</ul>\n";

fn words(numbers: &BTreeSet<u64>) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn bullets(sentences: &[String]) -> String {
    let items: String = sentences.iter().map(|one| format!("<li>{one}</li>\n")).collect();
    if items.is_empty() {
        items
    } else {
        format!("<ul>\n{items}</ul>\n")
    }
}

fn shown_panel(panel: &Panel, exhibit: &Exhibit, runs: &Runs<'_>) -> String {
    match panel {
        Panel::Curves { caption, charts, series } => {
            let mut text = format!("<h3>{}</h3>\n<div class=\"charts\">\n", escaped(caption));
            for &quantity in charts {
                text += &drawn(quantity, series, exhibit, runs);
            }
            text + "</div>\n" + &ends(series, exhibit, runs)
        }
        Panel::Grid { caption, columns, rows } => {
            let cell = |cell: &Series| {
                runs.best(cell, exhibit).map_or("–".to_owned(), |best| losses(&best.losses()))
            };
            let mut headings = vec![""];
            headings.extend(columns.iter().map(String::as_str));
            let rows = rows.iter().map(|(label, cells)| {
                let mut row = vec![label.clone()];
                row.extend(cells.iter().map(cell));
                let category = cells.first().and_then(Series::category);
                (category.unwrap_or(Category::Published), row)
            });
            format!("<p>{}</p>\n", escaped(caption)) + &table(&headings, rows)
        }
    }
}

/// A chart of one quantity.
fn drawn(quantity: Quantity, series: &[Series], exhibit: &Exhibit, runs: &Runs<'_>) -> String {
    let lines = series.iter().filter_map(|one| {
        let best = runs.best(one, exhibit)?;
        let curve = runs.curve(best.records.iter().min_by_key(|record| record.seed)?)?;
        let points = curve.points();
        let of = |value: &dyn Fn(&crate::lab::Point) -> Option<f64>| -> Vec<(f64, f64)> {
            points.iter().filter_map(|point| Some((point.step as f64, value(point)?))).collect()
        };
        let points = match quantity {
            Quantity::Rate => curve.rates(),
            Quantity::Training => of(&|point| point.train),
            Quantity::Testing => of(&|point| point.loss),
            Quantity::Accuracy => of(&|point| point.accuracy.map(|part| 100.0 * part)),
        };
        (!points.is_empty()).then(|| (one.label.clone(), points))
    });
    let (y, caption) = match quantity {
        Quantity::Rate => ("rate", "The rate."),
        Quantity::Training => ("training loss", "The training loss."),
        Quantity::Testing => ("test loss", "The test loss."),
        Quantity::Accuracy => ("accuracy, %", "The accuracy in tests."),
    };
    let svg = match quantity {
        Quantity::Accuracy => chart::percentages(y, lines.collect()),
        _ => chart::over_steps(y, lines.collect()),
    };
    figure(svg, caption)
}

/// How the runs of each series ended, the least loss first.
fn ends(series: &[Series], exhibit: &Exhibit, runs: &Runs<'_>) -> String {
    let mut rows: Vec<_> = series
        .iter()
        .filter_map(|one| {
            let best = runs.best(one, exhibit)?;
            let name = match (one.of.len(), best.records.first()) {
                (2.., Some(record)) => format!("{}: {}", one.label, record.contender),
                _ => one.label.clone(),
            };
            let steps = |record: &Record| (record.steps + record.searched).max(1) as f64;
            let number = |value: Option<f64>, show: &dyn Fn(f64) -> String| {
                value.map_or("–".to_owned(), show)
            };
            let time = best.mean(|record| Some(1e3 * record.seconds / steps(record)));
            let memory = best.mean(|record| record.memory.map(|bytes| bytes as f64));
            let accuracy = best.mean(|record| record.accuracy);
            let row = vec![
                name,
                losses(&best.losses()),
                number(accuracy, &|part| format!("{:.1} %", 100.0 * part)),
                best.settings.to_string(),
                number(best.mean(|record| Some(record.seconds)), &|time| format!("{time:.1}")),
                number(time, &|time| format!("{time:.2}")),
                number(memory, &|bytes| format!("{:.2}", bytes / 1e6)),
            ];
            Some((best.loss(), (one.category().unwrap_or(Category::Published), row)))
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let headings =
        ["", "final test loss", "accuracy", "settings", "seconds", "ms a step", "memory, MB"];
    table(&headings, rows.into_iter().map(|(_, row)| row))
}
