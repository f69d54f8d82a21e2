//! Ticks, numbers and legends of a figure.
#![allow(clippy::unwrap_used)]
use super::{
    super::{
        color::TEXT,
        legend::{Sample, ROWS},
    },
    *,
};

#[test]
fn axes_are_labelled_with_what_they_span() {
    let labels = |low: f64, high: f64| -> Vec<String> {
        let axis = Axis::logarithmic(low.log10(), high.log10());
        axis.labelled.into_iter().map(|tick| tick.1).collect()
    };
    assert_eq!(labels(0.5e-6, 2e-3), ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³"]);
    assert_eq!(labels(1.5e-12, 1.5), ["10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰"]);
    assert_eq!(labels(0.04, 1.5), ["0.05", "0.1", "0.2", "0.5", "1"]);
    assert_eq!(labels(4e-6, 6e-5), ["5×10⁻⁶", "10⁻⁵", "2×10⁻⁵", "5×10⁻⁵"]);
    assert_eq!(labels(0.41, 0.49), ["0.42", "0.44", "0.46", "0.48"]);
    assert_eq!(labels(0.97e-6, 1.35e-6), ["1.0×10⁻⁶", "1.1×10⁻⁶", "1.2×10⁻⁶", "1.3×10⁻⁶"]);
    let epochs = |end| Axis::linear(0.0, end, 10.0).labelled.into_iter().map(|tick| tick.1);
    assert_eq!(epochs(3.0).collect::<Vec<_>>(), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]);
    assert_eq!(epochs(10.0).next_back().unwrap(), "10");
    assert_eq!(epochs(95.0).next_back().unwrap(), "90");
}

#[test]
fn names_are_cut_to_what_a_line_of_xml_holds() {
    assert_eq!(legible("a\u{1}b\nc\u{ffff}", 10), "abc");
    assert_eq!(legible("abcdé", 5), "abcdé");
    assert_eq!(legible("abcdéf", 5), "abcd…");
}

fn entries(count: usize, length: usize) -> Vec<Entry> {
    let text = "x".repeat(length);
    vec![Entry { text, sample: Sample::Line(stroke(TEXT, 2.5)) }; count]
}

// Fails with fewer rows, or with rows that are filled less.
#[test]
fn a_legend_holds_twelve_of_the_longest_names() {
    let legend = Legend::new(entries(12, 32), 776.0);
    assert_eq!((legend.0.len(), legend.rows()), (12, ROWS));
    assert!(legend.0.iter().all(|(entry, ..)| matches!(entry.sample, Sample::Line(_))));
}

// Fails when entries vanish uncounted, or the marker of rollbacks does.
#[test]
fn a_legend_counts_what_it_leaves_out() {
    let mut all = entries(40, 32);
    all.push(Entry { text: "rollback (1)".into(), sample: Sample::Triangle(ROLLBACK) });
    let legend = Legend::new(all, 776.0);
    let texts: Vec<&str> = legend.0.iter().map(|(entry, ..)| entry.text.as_str()).collect();
    let lines = texts.iter().filter(|text| text.starts_with('x')).count();
    assert!(lines >= 10 && legend.rows() == ROWS, "{texts:?}");
    assert_eq!(texts[lines..], ["rollback (1)", &format!("… and {} more", 40 - lines)]);
}
