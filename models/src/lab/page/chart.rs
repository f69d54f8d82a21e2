//! The page's pictures, as narrow as a phone.

use super::words::percent;
use crate::{
    lab::Findings,
    report::{
        color::{Color, AXIS, BLACK, BLUE, GREEN, GRID, ORANGE, PURPLE, SKY, VERMILION, WHITE},
        figure::{drawable, last_epoch, Figure, Line, Panel},
        svg::{stroke, Stroke, Svg, END, LABEL, MIDDLE},
    },
};

const WIDTH: f64 = 440.0;
/// How a competitor is drawn: the colour, and dashes for readers who see no colours.
const LOOKS: [(Color, &str); 8] = [
    (BLUE, ""),
    (VERMILION, ""),
    (GREEN, ""),
    (BLACK, "6 3"),
    (AXIS, "6 3"),
    (PURPLE, "2 2"),
    (SKY, "2 2"),
    (ORANGE, "2 2"),
];

/// A competitor's name and its points.
pub(super) type Named = (String, Vec<(f64, f64)>);

/// Losses or rates over the steps. Numbers that cannot be drawn, such as infinity, are left out.
pub(super) fn over_steps(quantity: &'static str, of: Vec<Named>) -> String {
    let lines = lines(of.into_iter().map(|(name, points)| (name, drawable(&points))));
    figure("step", (0.0, last_step(&lines)), Panel::new((quantity, lines)))
}

/// Accuracies in per cent over the steps.
pub(super) fn percentages(quantity: &'static str, of: Vec<Named>) -> String {
    let lines = lines(of.into_iter());
    let range = (0.0, last_step(&lines));
    figure("step", range, Panel { log: false, ..Panel::new((quantity, lines)) })
}

fn last_step(lines: &[Line]) -> f64 {
    last_epoch(lines.iter().flat_map(|line| &line.points).map(|point| point.0))
}

/// Shares, from 0 to 1, over multiples of the least number of steps.
pub(super) fn shares(quantity: &'static str, range: (f64, f64), of: Vec<Named>) -> String {
    figure("τ", range, Panel { log: false, ..Panel::new((quantity, lines(of.into_iter()))) })
}

fn lines(of: impl Iterator<Item = Named>) -> Vec<Line> {
    // Lines that have to share a colour differ in their dashes.
    let more = LOOKS.iter().map(|(color, _)| (*color, "8 3 2 3"));
    of.zip(LOOKS.into_iter().chain(more).cycle())
        .map(|((name, points), (color, dashes))| {
            let stroke = Stroke { color, width: 2.0, opacity: 1.0, dashes };
            Line { name, points, stroke, dots: false }
        })
        .collect()
}

fn figure(along: &'static str, range: (f64, f64), panel: Panel) -> String {
    let (title, rollbacks) = (String::new(), Vec::new());
    Figure { title, width: WIDTH, along, range, panels: vec![panel], rollbacks }.svg()
}

/// The regrets at the edges of the picture.
const EDGES: (f64, f64) = (-0.5, 1.0);

/// A row for each task, with a dot at each competitor's regret.
pub(super) fn dots(findings: &Findings, shown: &[usize]) -> String {
    let (left, right, top, row) = (134.0, WIDTH - 30.0, 24.0, 24.0);
    let bottom = top + row * findings.tasks.len() as f64;
    let mut svg = Svg::new();
    let at = |regret: f64| left + (regret - EDGES.0) / (EDGES.1 - EDGES.0) * (right - left);
    for percent in [-50, -25, 0, 25, 50, 75, 100] {
        let x = at(f64::from(percent) / 100.0);
        let color = if percent == 0 { AXIS } else { GRID };
        svg.line([[x, top], [x, bottom]], stroke(color, 1.0));
        match percent {
            0 => svg.text([x, 12.0], "0", MIDDLE),
            _ if percent % 50 == 0 => svg.text([x, 12.0], &format!("{percent:+} %"), MIDDLE),
            _ => {}
        }
    }
    let competitors = || {
        let looks = LOOKS.iter().cycle().map(|look| look.0);
        let shown = shown.iter().zip(looks);
        shown.filter_map(|(&one, color)| Some((one, &findings.competitors.get(one)?.name, color)))
    };
    for (index, task) in findings.tasks.iter().enumerate() {
        let y = top + row * (index as f64 + 0.5);
        svg.text([left - 8.0, y], &task.name, END);
        for (place, (one, name, color)) in competitors().enumerate() {
            let regrets = findings.regrets(one);
            let Some(regret) = regrets.get(index).copied().flatten() else { continue };
            let inside = (EDGES.0..=EDGES.1).contains(&regret);
            let x = at(regret.clamp(EDGES.0, EDGES.1));
            let y = y + 2.0 * (place as f64 - 0.5 * (shown.len() as f64 - 1.0));
            let fill = if inside { color } else { WHITE };
            svg.disc([x, y], 4.0, [fill, color], &format!("{name}: {}", percent(regret)));
        }
    }
    let mut y = bottom + 22.0;
    for (_, name, color) in competitors() {
        svg.disc([left, y], 4.0, [color, color], "");
        svg.text([left + 12.0, y], name, LABEL);
        y += 20.0;
    }
    svg.finish(WIDTH, y)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::report::probe::{polylines, texts};

    // Fails if a number leaves the picture, if an infinite loss is drawn, or if a name is not
    // escaped.
    #[test]
    fn lines_stay_inside() {
        let svg = over_steps(
            "loss",
            vec![
                ("a <b>".into(), vec![(0.0, 10.0), (5.0, 0.1), (10.0, f64::INFINITY)]),
                ("one".into(), vec![(3.0, 1.0)]),
                ("none".into(), Vec::new()),
            ],
        );
        let texts = texts(&svg);
        assert!(["a <b>", "one", "none", "step", "loss"]
            .iter()
            .all(|t| texts.contains(&(*t).into())));
        let line = &polylines(&svg, "#0072B2")[1];
        assert_eq!(line.len(), 2);
        assert!(line.iter().all(|(x, y)| (0.0..=WIDTH).contains(x) && (0.0..400.0).contains(y)));
        let none = over_steps("rate", Vec::new());
        for svg in
            [svg, none, percentages("accuracy", Vec::new()), shares("part", (1.0, 4.0), Vec::new())]
        {
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
            assert!(roxmltree::Document::parse(&svg).is_ok());
        }
    }
}
