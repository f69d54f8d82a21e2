//! Runs compared in one picture: their losses and learning rates, epoch by epoch.

use super::{
    axis::extent,
    color::Color,
    figure::{drawable, last_epoch, steps, Figure, Line, Panel},
    svg::stroke,
};

/// Several training runs, to be drawn as panels over the same epochs: the training loss if there is
/// one, the loss and the learning rate, with a line a run in each.
///
/// A run has the same colour in all panels. The colours follow the order of the runs, from dark
/// blue over purple to orange, so give them in an order that means something, such as that of their
/// starting rates.
///
/// All panels have logarithmic axes, so points whose value is not a positive finite number are left
/// out, and so are points whose epoch is negative, not finite or beyond a thousand million. Points
/// may come in any order. Runs without learning rates get no panel for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// What stands above the panels; empty for nothing.
    pub title: String,
    /// The runs. One without any point is not in the legend, but the colours of the others stay as
    /// they would be with it.
    pub runs: Vec<Compared>,
}

/// One of the runs of a [`Comparison`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// The name in the legend.
    pub name: String,
    /// The loss over the training set: pairs of epoch (with fractions) and loss. May be empty.
    pub train_loss: Vec<(f64, f64)>,
    /// The loss, usually over the test set: pairs of epoch (with fractions) and loss. With a
    /// training loss above it, it is called validation loss.
    pub loss: Vec<(f64, f64)>,
    /// Pairs of epoch (with fractions) and learning rate, drawn as steps: a rate holds until the
    /// next point, and the last one up to the run's last epoch.
    pub rate: Vec<(f64, f64)>,
}

impl Comparison {
    /// The runs as the text of an SVG file of 900x640 pixels (400 in height for one panel, 880 for
    /// three), and 22 more in height for each row of the legend beyond the fourth. The legend has
    /// at most six rows, which hold twelve runs or more, and says how many it leaves out.
    ///
    /// ```
    /// use tlr_models::report::{Compared, Comparison};
    ///
    /// let run = |rate: f64| Compared {
    ///     name: format!("{rate:.0e}"),
    ///     train_loss: vec![],
    ///     loss: vec![(0.0, 2.3), (1.0, 0.6), (2.0, 0.3)],
    ///     rate: vec![(0.0, rate), (0.5, 1e-2)],
    /// };
    /// let comparison = Comparison {
    ///     title: "Starting rates".into(),
    ///     runs: [1e-4, 1e-3, 1e-2].map(run).into(),
    /// };
    /// assert!(comparison.to_svg().starts_with("<svg"));
    /// ```
    pub fn to_svg(&self) -> String {
        self.figure().svg()
    }

    fn figure(&self) -> Figure {
        let mut lines = [const { Vec::new() }; 3];
        let mut end = 0.0_f64;
        let last = self.runs.len().saturating_sub(1).max(1) as f64;
        for (i, run) in self.runs.iter().enumerate() {
            let [train, loss, rate] =
                [&run.train_loss, &run.loss, &run.rate].map(|all| drawable(all));
            let epochs = [&train, &loss, &rate].into_iter().flatten().map(|point| point.0);
            let Some((_, until)) = extent(epochs) else { continue };
            end = end.max(until);
            let (few, fewer) = (train.len() <= 20, loss.len() <= 20);
            let all = [(train, few), (loss, fewer), (steps(&rate, until), false)];
            for (of_all, (points, dots)) in lines.iter_mut().zip(all) {
                let stroke = stroke(Color::between(&RAMP, i as f64 / last), 2.0);
                of_all.push(Line { name: run.name.clone(), points, stroke, dots });
            }
        }
        let any = |lines: &[Line]| lines.iter().any(|line| !line.points.is_empty());
        let [trained, losses, rates] = lines;
        let loss = if any(&trained) { "validation loss" } else { "loss" };
        let all = [("training loss", trained), (loss, losses), ("learning rate", rates)];
        let shown = all.into_iter().filter(|(name, lines)| *name == loss || any(lines));
        let mut panels: Vec<_> = shown.map(Panel::new).collect();
        panels.iter_mut().skip(1).for_each(|panel| panel.named = false);
        let end = last_epoch([end].into_iter());
        Figure { title: self.title.clone(), panels, ..Figure::of_epochs(end) }
    }
}

/// The colours of Matplotlib's "plasma", which is perceptually uniform for colour-blind readers
/// too, without those too light for lines on white.
const RAMP: [Color; 8] = [
    Color(13, 8, 135),
    Color(70, 3, 159),
    Color(114, 1, 168),
    Color(156, 23, 158),
    Color(189, 55, 134),
    Color(216, 87, 107),
    Color(237, 121, 83),
    Color(251, 159, 58),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use roxmltree::Document;

    use super::{
        super::{
            color::WHITE,
            probe::{polylines, texts},
        },
        *,
    };

    fn runs(count: usize) -> Comparison {
        let run = |i| Compared {
            name: format!("start {i}"),
            train_loss: Vec::new(),
            loss: (0..10).map(|e| (f64::from(e), 1.0 / f64::from(e + 1))).collect(),
            rate: vec![(0.0, 1e-3 * (i + 1) as f64), (4.0, 1e-2)],
        };
        Comparison { title: "A <sweep>".into(), runs: (0..count).map(run).collect() }
    }

    /// The lines with more corners than those in the legend.
    fn long_lines(svg: &str, color: &str) -> usize {
        polylines(svg, color).iter().filter(|line| line.len() > 2).count()
    }

    // Fails when a panel loses its name or a run is not in the legend, or in that of both panels.
    #[test]
    fn ten_runs_are_named_once() {
        let texts = texts(&runs(10).to_svg());
        let count = |text: &str| texts.iter().filter(|t| *t == text).count();
        for i in 0..10 {
            assert_eq!(count(&format!("start {i}")), 1);
        }
        for text in ["A <sweep>", "loss", "learning rate", "epoch"] {
            assert_eq!(count(text), 1, "{text}");
        }
    }

    // Fails when runs are left out of the legend in silence.
    #[test]
    fn what_the_legend_leaves_out_is_counted() {
        let texts = texts(&runs(200).to_svg());
        let named = texts.iter().filter(|text| text.starts_with("start")).count();
        assert!((10..200).contains(&named));
        assert!(texts.contains(&format!("… and {} more", 200 - named)));
    }

    // Fails when each panel counts colours by itself, for example from the second run on, because
    // the first has no loss here.
    #[test]
    fn a_run_has_the_same_colour_in_both_panels() {
        let mut comparison = runs(3);
        comparison.runs[0].loss.clear();
        let svg = comparison.to_svg();
        let lines = ["#0D0887", "#FB9F3A"].map(|color| long_lines(&svg, color));
        assert_eq!(lines, [1, 2]);
    }

    // Fails when the colours are drawn from too short a list, or too light.
    #[test]
    fn colours_differ_and_stand_out_from_white() {
        let figure = runs(12).figure();
        let colors: Vec<Color> =
            figure.panels[0].lines.iter().map(|line| line.stroke.color).collect();
        for (i, color) in colors.iter().enumerate() {
            assert!(!colors[..i].contains(color));
            assert!(color.contrast(WHITE) > 2.0);
        }
    }

    // Fails when the rate of a run that ended early goes on to the end of all.
    #[test]
    fn a_rate_ends_with_its_run() {
        let mut comparison = runs(2);
        comparison.runs[0].loss.truncate(6);
        let rates = &comparison.figure().panels[1].lines;
        let ends = [0, 1].map(|i| rates[i].points.last().unwrap().0);
        assert_eq!(ends, [5.0, 9.0]);
    }

    // Fails when the training loss has no panel of its own, or is drawn beneath.
    #[test]
    fn a_training_loss_is_drawn_above() {
        let mut comparison = runs(2);
        let losses = &mut comparison.runs;
        losses[1].train_loss = vec![(0.0, 3.0), (1.0, 2.0), (2.0, 1.0)];
        let figure = comparison.figure();
        let quantities: Vec<&str> = figure.panels.iter().map(|panel| panel.quantity).collect();
        assert_eq!(quantities, ["training loss", "validation loss", "learning rate"]);
        let color = |panel: usize| figure.panels[panel].lines[1].stroke.color;
        assert_eq!(color(0), color(1));
        assert!(figure.panels[0].named && !figure.panels[1].named);
        assert!(comparison.to_svg().contains("height=\"880\""));
    }

    // Fails when no run, or none with a rate, is an error or an empty panel.
    #[test]
    fn nothing_to_compare_says_so() {
        let empty = texts(&Comparison::default().to_svg());
        assert!(empty.contains(&"no data".to_owned()));
        assert!(!empty.contains(&"learning rate".to_owned()));
    }

    fn points() -> impl Strategy<Value = Vec<(f64, f64)>> {
        prop::collection::vec((prop_oneof![0.0..20.0, any::<f64>()], any::<f64>()), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(100)
        })]

        // Fails when a name is not escaped or a number leaves the axes.
        #[test]
        fn any_runs_give_well_formed_xml(
            title in any::<String>(),
            runs in prop::collection::vec((any::<String>(), points(), points(), points()), 0..20),
        ) {
            let runs = runs
                .into_iter()
                .map(|(name, train_loss, loss, rate)| Compared { name, train_loss, loss, rate })
                .collect();
            let svg = Comparison { title, runs }.to_svg();
            prop_assert!(Document::parse(&svg).is_ok());
        }
    }
}
