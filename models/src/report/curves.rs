//! The curves of one run: its losses above, its learning rates below.

use super::{
    color::{Color, BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION},
    figure::{drawable, is_epoch, last_epoch, steps, Figure, Line, Panel},
    svg::{stroke, Stroke},
};

/// The curves of a training run, to be drawn as two panels over the same epochs: the loss above and
/// the learning rates below.
///
/// Both panels have logarithmic axes, so points whose value is not a positive finite number are
/// left out, and so are points and rollbacks whose epoch is negative, not finite or beyond a
/// thousand million. Points may come in any order. A run without learning rates gets the upper
/// panel only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// What stands above the panels; empty for nothing.
    pub title: String,
    /// The training loss: pairs of epoch (with fractions) and loss.
    pub train_loss: Vec<(f64, f64)>,
    /// The test loss: pairs of epoch and loss.
    pub test_loss: Vec<(f64, f64)>,
    /// The learning rates in force, drawn as steps: a rate holds until the next point.
    pub rates: Vec<Rate>,
    /// The epochs (with fractions) at which training was rolled back.
    pub rollbacks: Vec<f64>,
}

/// The course of one learning rate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate {
    /// The name in the legend, usually that of the layer.
    pub name: String,
    /// Pairs of epoch (with fractions) and learning rate.
    pub points: Vec<(f64, f64)>,
}

impl Curves {
    /// The curves as the text of an SVG file of 900x640 pixels (900x400 without learning rates),
    /// and 22 more in height for each row of a legend beyond the fourth. A legend has at most six
    /// rows and says how many rates it leaves out.
    ///
    /// ```
    /// use tlr_models::report::{Curves, Rate};
    ///
    /// let curves = Curves {
    ///     title: "A short run".into(),
    ///     train_loss: vec![(0.0, 2.3), (0.5, 0.6), (1.0, 0.3)],
    ///     test_loss: vec![(1.0, 0.35)],
    ///     rates: vec![Rate { name: "fc1".into(), points: vec![(0.0, 1e-3), (0.5, 2e-3)] }],
    ///     rollbacks: vec![0.7],
    /// };
    /// assert!(curves.to_svg().starts_with("<svg"));
    /// ```
    pub fn to_svg(&self) -> String {
        let rollbacks: Vec<f64> = self.rollbacks.iter().copied().filter(is_epoch).collect();
        let line = |name: &str, points: &[(f64, f64)], color| Line {
            name: name.into(),
            points: drawable(points),
            stroke: stroke(color, 2.0),
            dots: false,
        };
        let mut train = line("train", &self.train_loss, BLUE);
        if train.points.len() > 100 {
            // The losses of all batches are a cloud, which should not hide the test loss.
            train.stroke = Stroke { opacity: 0.75, ..stroke(BLUE, 1.0) };
        }
        let mut test = line("test", &self.test_loss, VERMILION);
        test.dots = test.points.len() <= 60;
        let rates = self.rates.iter().zip(RATE_COLORS.iter().cycle());
        let mut rates: Vec<Line> =
            rates.map(|(rate, &color)| line(&rate.name, &rate.points, color)).collect();
        let epochs = [&train, &test].into_iter().chain(&rates).flat_map(|line| &line.points);
        let end = last_epoch(epochs.map(|point| point.0).chain(rollbacks.iter().copied()));
        rates.iter_mut().for_each(|rate| rate.points = steps(&rate.points, end));
        let mut panels = [("loss", vec![train, test]), ("learning rate", rates)].map(Panel::new);
        panels.iter_mut().for_each(|panel| panel.lines.retain(|line| !line.points.is_empty()));
        let panels = panels.into_iter().enumerate();
        let panels = panels.filter(|(i, panel)| *i == 0 || !panel.lines.is_empty());
        let panels = panels.map(|(_, panel)| panel).collect();
        Figure { title: self.title.clone(), panels, rollbacks, ..Figure::of_epochs(end) }.svg()
    }
}

const RATE_COLORS: [Color; 6] = [GREEN, PURPLE, ORANGE, SKY, BLUE, BLACK];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use roxmltree::Document;

    use super::{
        super::probe::{polylines, texts},
        *,
    };

    fn run() -> Curves {
        let line =
            |scale: f64| (0..50).map(move |i| (f64::from(i) / 5.0, scale / f64::from(i + 1)));
        Curves {
            title: "A <run> & more".into(),
            train_loss: line(2.0).collect(),
            test_loss: vec![(0.0, 2.0), (5.0, 0.2), (10.0, 0.1)],
            rates: ["first", "second"]
                .map(|name| Rate { name: name.into(), points: line(1e-3).collect() })
                .to_vec(),
            rollbacks: vec![0.5, 3.25, 9.0],
        }
    }

    /// The filled triangles in the colour of rollbacks.
    fn triangles(svg: &str) -> usize {
        let document = Document::parse(svg).unwrap();
        document
            .descendants()
            .filter(|n| n.has_tag_name("polygon") && n.attribute("fill") == Some("#444444"))
            .count()
    }

    #[test]
    fn the_svg_has_every_label_and_one_marker_a_rollback() {
        let svg = run().to_svg();
        let texts = texts(&svg);
        for text in [
            "A <run> & more",
            "train",
            "test",
            "first",
            "second",
            "loss",
            "learning rate",
            "epoch",
            "rollback (3)",
            "10⁻⁴",
        ] {
            assert!(texts.iter().any(|t| t == text), "{text} not in {texts:?}");
        }
        assert_eq!(texts.iter().filter(|t| *t == "10").count(), 1);
        // One more in the legend.
        assert_eq!(triangles(&svg), 3 + 1);
        let document = Document::parse(&svg).unwrap();
        assert_eq!(document.root_element().attribute("width"), Some("900"));
        assert_eq!(document.root_element().attribute("viewBox"), Some("0 0 900 640"));
    }

    #[test]
    fn a_run_without_rollbacks_has_no_markers() {
        let curves = Curves { rollbacks: Vec::new(), ..run() };
        assert_eq!(triangles(&curves.to_svg()), 0);
    }

    #[test]
    fn a_run_without_rates_has_one_panel_with_the_markers() {
        let curves = Curves { rates: Vec::new(), ..run() };
        let svg = curves.to_svg();
        assert!(!texts(&svg).contains(&"learning rate".to_owned()));
        assert!(texts(&svg).contains(&"epoch".to_owned()));
        assert_eq!(triangles(&svg), 3 + 1);
    }

    // Fails when rates are left out of the legend in silence, as they once were.
    #[test]
    fn rates_that_the_legend_leaves_out_are_counted() {
        let rate = |i| Rate { name: format!("layer {i}"), points: vec![(0.0, 1e-3)] };
        let texts = texts(&Curves { rates: (0..90).map(rate).collect(), ..run() }.to_svg());
        let named = texts.iter().filter(|text| text.starts_with("layer")).count();
        assert!(texts.contains(&format!("… and {} more", 90 - named)), "{texts:?}");
        assert!(texts.contains(&"rollback (3)".to_owned()));
    }

    #[test]
    fn an_empty_run_says_so() {
        assert!(texts(&Curves::default().to_svg()).contains(&"no data".to_owned()));
    }

    #[test]
    fn rates_are_steps_that_reach_the_end() {
        let curves = Curves {
            test_loss: vec![(0.0, 1.0), (4.0, 0.5)],
            rates: vec![Rate { name: "all".into(), points: vec![(2.0, 1e-2), (0.0, 1e-3)] }],
            ..Curves::default()
        };
        let svg = curves.to_svg();
        let green = polylines(&svg, "#009E73");
        let steps = green.iter().find(|line| line.len() == 4).unwrap();
        let [a, b, c, d] = steps[..] else { unreachable!() };
        assert_eq!((a.1, c.1), (b.1, d.1));
        assert_eq!(b.0, c.0);
        assert!(a.1 > c.1, "larger rates are higher up");
        let spans = |line: &Vec<(f64, f64)>| line[0].0 == a.0 && line[1].0 == d.0;
        assert!(polylines(&svg, "#D55E00").iter().any(spans), "as far as the loss");
        assert_eq!(d.0, 900.0 - 22.0);
        assert!((b.0 - (a.0 + d.0) / 2.0).abs() <= 0.1);
    }

    #[test]
    fn points_that_no_logarithmic_axis_holds_are_left_out() {
        let bad = [0.0, -1.0, f64::NAN, f64::INFINITY].map(|loss| (1.0, loss));
        let bad_epochs = [-1.0, f64::NAN, f64::INFINITY, 1e300].map(|epoch| (epoch, 1.0));
        let mut curves = run();
        curves.train_loss.extend(bad.into_iter().chain(bad_epochs));
        curves.rollbacks.extend([f64::NAN, -1.0]);
        assert_eq!(curves.to_svg(), run().to_svg());
    }

    #[test]
    fn a_run_of_hardly_any_epochs_is_drawn_over_a_whole_one() {
        let curves = Curves { test_loss: vec![(5e-324, 0.5)], ..Curves::default() };
        assert!(texts(&curves.to_svg()).contains(&"1.0".to_owned()));
    }

    #[test]
    fn titles_are_made_legible() {
        let curves = Curves { title: "\0\u{1b}[1m".into(), ..run() };
        assert!(texts(&curves.to_svg()).contains(&"[1m".to_owned()));
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![0.0..20.0, Just(1.0), Just(1.0 + 1e-15), Just(5e-324), any::<f64>()]
    }

    fn points() -> impl Strategy<Value = Vec<(f64, f64)>> {
        prop::collection::vec((number(), number()), 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(300)
        })]

        #[test]
        fn any_run_gives_well_formed_xml(
            // No text has an n. So `NaN` or `inf` in the SVG can only come from a number.
            title in "[^Nn]*",
            train_loss in points(),
            test_loss in points(),
            rates in prop::collection::vec(("[^Nn]*", points()), 0..20),
            rollbacks in prop::collection::vec(number(), 0..8),
        ) {
            let rates = rates
                .into_iter()
                .map(|(name, points)| Rate { name, points })
                .collect();
            let marked = rollbacks.iter().filter(|r| is_epoch(r)).count();
            let curves = Curves { title, train_loss, test_loss, rates, rollbacks };
            let svg = curves.to_svg();
            prop_assert!(Document::parse(&svg).is_ok());
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"));
            prop_assert!(marked <= triangles(&svg));
        }
    }
}
