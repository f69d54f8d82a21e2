//! Pictures in SVG, as narrow as a phone.

use super::words::{escaped, percent};
use crate::lab::Findings;
use std::fmt::Write;

/// Okabe and Ito's colours, which colour-blind readers tell apart, without yellow.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#000000", "#888888", "#cc79a7", "#56b4e9", "#e69f00"];

/// Each line's dashes, for those who see no colours.
const DASHES: [&str; 8] = ["", "", "", "6 3", "6 3", "2 2", "2 2", "2 2"];

const WIDTH: f64 = 360.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 10.0;
const ROW: f64 = 15.0;

/// A picture's opening tag, with the size of its letters.
fn opened(height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#333\">\n"
    )
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// Lines that have to share a colour differ in this.
fn dashes(index: usize) -> &'static str {
    if index < COLOURS.len() {
        DASHES[index % DASHES.len()]
    } else {
        "8 3 2 3"
    }
}

/// A line of a chart.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over one axis.
pub(super) struct Chart {
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    /// Whether the upright axis is logarithmic.
    pub(super) log: bool,
    pub(super) lines: Vec<Line>,
}

impl Chart {
    /// The picture, with a legend below. What cannot be drawn, such as an infinite loss, is left
    /// out.
    pub(super) fn svg(&self) -> String {
        let height = |y: f64| if self.log { y.log10() } else { y };
        let drawable = |line: &Line| -> Vec<(f64, f64)> {
            let points = line.points.iter().map(|&(x, y)| (x, height(y)));
            points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
        };
        let lines: Vec<_> = self.lines.iter().map(drawable).collect();
        let all = || lines.iter().flatten();
        let (x0, x1) = range(all().map(|point| point.0));
        // An axis that begins close to 0 begins there.
        let x0 = if x0 > 0.0 && x0 < 0.1 * x1 { 0.0 } else { x0 };
        let (y0, y1) = range(all().map(|point| point.1));
        let (top, bottom) = (8.0, 200.0);
        let legend = bottom + 36.0;
        let mut svg = opened(legend + ROW * self.lines.len() as f64 + 4.0);
        let at_x = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| bottom - (y - y0) / (y1 - y0) * (bottom - top);
        for x in quarters(x0, x1) {
            let (x, number, below) = (at_x(x).min(WIDTH - 14.0), short(x), bottom + 14.0);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{number}</text>"
            );
        }
        for (y, number) in self.heights(y0, y1) {
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" \
                 text-anchor=\"end\">{number}</text>",
                at_y(y),
                WIDTH - RIGHT,
                LEFT - 4.0,
                at_y(y) + 4.0,
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(10 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            0.5 * (LEFT + WIDTH - RIGHT),
            bottom + 28.0,
            escaped(self.x),
            0.5 * (top + bottom),
            escaped(self.y),
        );
        for (index, (line, points)) in self.lines.iter().zip(&lines).enumerate() {
            let path: Vec<_> =
                points.iter().map(|(x, y)| format!("{:.1} {:.1}", at_x(*x), at_y(*y))).collect();
            let style = format!(
                "stroke=\"{}\" stroke-width=\"1.6\" stroke-dasharray=\"{}\" fill=\"none\"",
                colour(index),
                dashes(index)
            );
            if !path.is_empty() {
                let _ = writeln!(svg, "<path d=\"M{}\" {style}/>", path.join("L"));
            }
            let y = legend + ROW * (index as f64 + 0.7);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {0:.1}h24\" {style}/><text x=\"{1}\" y=\"{2:.1}\">{3}</text>",
                y - 4.0,
                LEFT + 30.0,
                y,
                escaped(&line.name),
            );
        }
        svg + "</svg>\n"
    }

    /// The heights that are marked, and the number at each: of a logarithmic axis the powers of
    /// ten, at most six of them, where there are two.
    fn heights(&self, y0: f64, y1: f64) -> Vec<(f64, String)> {
        let (first, last) = (y0.ceil() as i32, y1.floor() as i32);
        if !self.log {
            return quarters(y0, y1).map(|y| (y, short(y))).collect();
        }
        if last <= first {
            return quarters(y0, y1).map(|y| (y, short(10.0_f64.powf(y)))).collect();
        }
        let step = ((last - first) / 6 + 1) as usize;
        let powers = (first..=last).step_by(step);
        powers.map(|power| (f64::from(power), power_of_ten(power))).collect()
    }
}

/// Five numbers at equal distances.
fn quarters(from: f64, to: f64) -> impl Iterator<Item = f64> {
    (0..=4).map(move |n| from + f64::from(n) / 4.0 * (to - from))
}

/// As people write it.
fn power_of_ten(power: i32) -> String {
    match power {
        -2..=2 => format!("{}", 10.0_f64.powi(power)),
        _ => format!("1e{power}"),
    }
}

/// From the least to the largest, and a little where they are one.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match low < high {
        true => (low, high),
        false if low.is_finite() => (low - 0.5, low + 0.5),
        false => (0.0, 1.0),
    }
}

/// A number in a few characters.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.0e}"),
    }
}

/// The regrets at the edges of the picture.
const EDGES: (f64, f64) = (-0.5, 1.0);

/// A row for each task, with a dot at each competitor's regret.
pub(super) fn dots(findings: &Findings, shown: &[usize]) -> String {
    let (left, top, step) = (104.0, 20.0, 19.0);
    let bottom = top + step * findings.tasks.len() as f64;
    let legend = bottom + 12.0;
    let mut svg = opened(legend + ROW * shown.len() as f64 + 4.0);
    let width = WIDTH - left - RIGHT;
    let at = |regret: f64| left + (regret - EDGES.0) / (EDGES.1 - EDGES.0) * width;
    for mark in [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0] {
        let (x, dark) = (at(mark), if mark == 0.0 { "#555" } else { "#ddd" });
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"{dark}\"/><text x=\"{:.1}\" y=\"12\" \
             text-anchor=\"middle\" font-size=\"9\">{}</text>",
            x.clamp(left + 8.0, WIDTH - 18.0),
            if mark == 0.0 { "0".to_owned() } else { format!("{:+.0} %", 100.0 * mark) },
        );
    }
    for (row, task) in findings.tasks.iter().enumerate() {
        let y = top + step * (row as f64 + 0.5);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 4.0,
            escaped(&task.name)
        );
        for (index, &competitor) in shown.iter().enumerate() {
            let regrets = findings.regrets(competitor);
            let Some(regret) = regrets.get(row).copied().flatten() else { continue };
            let inside = (EDGES.0..=EDGES.1).contains(&regret);
            let fill = if inside { colour(index) } else { "#fff" };
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.4\" fill=\"{fill}\" stroke=\"{}\" \
                 fill-opacity=\".8\"><title>{}: {}</title></circle>",
                at(regret.clamp(EDGES.0, EDGES.1)),
                y + 1.5 * (index as f64 - 0.5 * (shown.len() as f64 - 1.0)),
                colour(index),
                escaped(&findings.competitors[competitor].name),
                percent(regret),
            );
        }
    }
    for (index, &competitor) in shown.iter().enumerate() {
        let y = legend + ROW * (index as f64 + 0.7);
        let _ = writeln!(
            svg,
            "<circle cx=\"{0}\" cy=\"{1:.1}\" r=\"3.4\" fill=\"{2}\"/><text x=\"{3}\" \
             y=\"{y:.1}\">{4}</text>",
            left,
            y - 4.0,
            colour(index),
            left + 10.0,
            escaped(&findings.competitors[competitor].name),
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Fails if a number leaves the picture, if an infinite loss is drawn, or if a name is not
    // escaped.
    #[test]
    fn lines_stay_inside() {
        let line =
            |name: &str, points: &[(f64, f64)]| Line { name: name.into(), points: points.into() };
        let lines = vec![
            line("a <b>", &[(0.0, 10.0), (5.0, 0.1), (10.0, f64::INFINITY)]),
            line("one", &[(3.0, 1.0)]),
            line("none", &[]),
        ];
        let svg = Chart { x: "step", y: "loss", log: true, lines }.svg();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let paths = document.descendants().filter_map(|node| node.attribute("d"));
        let first = paths.clone().find(|d| d.contains('L')).unwrap();
        assert_eq!(first, "M58.0 8.0L350.0 200.0");
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("inf") && !svg.contains("NaN"));
        let empty = Chart { x: "τ", y: "part", log: false, lines: Vec::new() }.svg();
        assert!(!empty.contains("NaN") && roxmltree::Document::parse(&empty).is_ok());
    }

    // Fails if a logarithmic axis is marked at numbers that nobody counts by, or not at all.
    #[test]
    fn logarithms_are_marked_at_powers() {
        let chart = Chart { x: "step", y: "rate", log: true, lines: Vec::new() };
        let told = |y0: f64, y1: f64| -> Vec<String> {
            chart.heights(y0, y1).into_iter().map(|(_, number)| number).collect()
        };
        assert_eq!(told(-9.0, -0.6), ["1e-9", "1e-7", "1e-5", "1e-3", "0.1"]);
        assert_eq!(told(-2.2, 0.5), ["0.01", "0.1", "1"]);
        assert_eq!(told(0.0, 0.4).len(), 5);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 400.0, 2.5, 0.0123, 1e-5].map(short),
            ["0", "400", "2.50", "0.0123", "1e-5"]
        );
    }
}
