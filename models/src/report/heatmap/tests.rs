//! What stands in the SVG of a heat map.
#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::{
    super::{
        color::{Color, BLACK},
        probe::texts,
    },
    scale::*,
    *,
};

fn cell(value: f64, text: &str) -> Option<HeatCell> {
    Some(HeatCell { value, text: text.into() })
}

fn map(panels: Vec<Vec<Option<HeatCell>>>) -> HeatMap {
    let names = ["first", "second", "third"].map(String::from);
    HeatMap {
        title: "Errors & <more>".into(),
        x_label: "starting rate".into(),
        y_label: "batch size".into(),
        columns: ["1e-4", "1e-3", "1e-2"].map(String::from).into(),
        rows: ["32", "256"].map(String::from).into(),
        panels: panels
            .into_iter()
            .zip(names)
            .map(|(cells, name)| HeatPanel { name, cells })
            .collect(),
    }
}

fn run() -> HeatMap {
    let first = [1.5, 2.0, 3.0, 4.0, 10.0, 90.0].map(|v| cell(v, &format!("v{v}"))).to_vec();
    map(vec![first, vec![cell(1.5, "low"), None, cell(f64::NAN, "bad"), cell(90.0, "high")]])
}

/// The colours of the rectangles that are as high as a cell.
fn cells(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let is_cell = |n: &Node<'_, '_>| n.attribute("height") == Some("38.0");
    let rects = document.descendants().filter(|n| n.has_tag_name("rect"));
    rects.filter(is_cell).map(|n| n.attribute("fill").unwrap().to_owned()).collect()
}

fn ink_of(svg: &str, text: &str) -> String {
    let document = Document::parse(svg).unwrap();
    let node = document
        .descendants()
        .find(|n| n.has_tag_name("text") && n.text().is_some_and(|found| found.trim() == text));
    node.unwrap().attribute("fill").unwrap().to_owned()
}

// Fails when a label is not drawn, or more often than its panel asks for.
#[test]
fn every_label_is_there() {
    let texts = texts(&run().to_svg());
    let count = |text: &str| texts.iter().filter(|t| *t == text).count();
    for text in ["Errors & <more>", "starting rate", "batch size", "first", "second", "v90"] {
        assert_eq!(count(text), 1, "{text} in {texts:?}");
    }
    for text in ["1e-4", "1e-3", "1e-2", "32", "256"] {
        assert_eq!(count(text), 2, "{text} in {texts:?}");
    }
    // The ends of the scale and their geometric mean.
    for text in ["1.5", "12", "90"] {
        assert_eq!(count(text), 1, "{text} in {texts:?}");
    }
}

// Fails when cells are drawn twice or dropped, also if the vector is
// too short, or when its surplus is drawn.
#[test]
fn there_is_a_rectangle_a_cell() {
    let mut map = run();
    assert_eq!(cells(&map.to_svg()).len(), 12);
    map.panels[1].cells = vec![cell(1.0, "all"); 50];
    assert_eq!(cells(&map.to_svg()).len(), 12);
}

// Fails when the panels have scales of their own, or the scale is upside down.
#[test]
fn panels_share_a_scale_from_pale_to_dark_red() {
    let svg = run().to_svg();
    let colors = cells(&svg);
    assert_eq!((&colors[0], &colors[5]), (&"#E6F4F9".to_owned(), &"#670016".to_owned()));
    assert_eq!((&colors[6], &colors[9]), (&colors[0], &colors[5]));
}

// Fails when the scale is linear: the geometric mean is the middle colour.
#[test]
fn the_scale_is_logarithmic() {
    let scale = Scale::new([0.01, 100.0].into_iter()).unwrap();
    assert_eq!(scale.color(1.0), Some(Color::between(&RAMP, 0.5)));
    assert_eq!(scale.labels(), ["0.010", "1.0", "100"]);
}

// Fails when zero is taken for a missing value, sets the scale, or becomes NaN on it.
#[test]
fn values_that_are_not_positive_have_the_lowest_colour() {
    let scale = Scale::new([0.0, -3.0, 1.0, 2.0].into_iter()).unwrap();
    assert_eq!(scale.color(0.0), Some(RAMP[0]));
    assert_eq!(scale.color(-3.0), Some(RAMP[0]));
    assert_eq!(scale.color(1.0), Some(RAMP[0]));
    assert_eq!(scale.color(2.0), Some(RAMP[5]));
    let none = Scale::new([0.0, -1.0].into_iter()).unwrap();
    assert_eq!((none.color(-1.0), none.labels().len()), (Some(RAMP[0]), 1));
}

// Fails when equal values divide by an empty span.
#[test]
fn equal_values_have_one_colour_and_one_label() {
    let map = map(vec![vec![cell(7.0, "a"); 6]]);
    let svg = map.to_svg();
    assert_eq!(cells(&svg), vec!["#E6F4F9"; 6]);
    assert_eq!(texts(&svg).iter().filter(|text| *text == "7.00").count(), 1);
}

// Fails when labels of close values are rounded until they are the same.
#[test]
fn labels_of_close_values_differ() {
    let scale = Scale::new([97.1, 97.9].into_iter()).unwrap();
    assert_eq!(scale.labels(), ["97.1", "97.5", "97.9"]);
}

// Fails when text keeps one colour, or the threshold is badly chosen.
#[test]
fn text_is_readable_on_every_colour() {
    let svg = run().to_svg();
    assert_eq!(ink_of(&svg, "low"), "#000000");
    assert_eq!(ink_of(&svg, "high"), "#FFFFFF");
    for step in 0..=100 {
        let color = Color::between(&RAMP, f64::from(step) / 100.0);
        assert!(color.contrast(ink(color)) >= 4.5, "{color:?}");
    }
}

// Fails when a ramp goes back to lighter colours, which grey printers and
// colour-blind readers take for lower values.
#[test]
fn higher_values_are_darker() {
    let light = |step| Color::between(&RAMP, f64::from(step) / 50.0).contrast(BLACK);
    assert!((1..=50).all(|step| light(step) < light(step - 1)));
}

// Fails when a missing cell is coloured as a good one or loses its dash.
#[test]
fn missing_and_bad_cells_are_hatched_with_a_dash() {
    let svg = run().to_svg();
    let colors = cells(&svg);
    for i in [7, 8, 10, 11] {
        assert_eq!(colors[i], "#F4F4F4");
    }
    let texts = texts(&svg);
    assert_eq!(texts.iter().filter(|text| *text == "–").count(), 4);
    assert!(!texts.contains(&"bad".to_owned()));
    assert!(svg.contains("#D8D8D8"));
}

// Fails when nothing to draw is an error, divides by zero or says nothing.
#[test]
fn an_empty_map_says_so() {
    let no_rows = HeatMap { rows: Vec::new(), ..run() };
    let no_panels = HeatMap { panels: Vec::new(), ..run() };
    for map in [HeatMap::default(), no_rows, no_panels] {
        let svg = map.to_svg();
        assert!(texts(&svg).contains(&"no data".to_owned()));
        assert!(cells(&svg).is_empty());
    }
    let all_missing = texts(&map(vec![Vec::new()]).to_svg());
    assert_eq!(all_missing.iter().filter(|text| *text == "–").count(), 6);
}

// Fails when the size does not follow the cells, or labels are cut off.
#[test]
fn everything_is_within_the_size() {
    let many = |count: usize, text: &str| vec![text.to_owned(); count];
    for (columns, rows, panels) in [(1, 1, 1), (8, 4, 2), (3, 2, 3), (12, 1, 2), (1, 20, 5)] {
        let map = HeatMap {
            title: "x".repeat(80),
            columns: many(columns, "a long label"),
            rows: many(rows, "a label of a row"),
            panels: vec![HeatPanel { name: "n".repeat(60), cells: Vec::new() }; panels],
            ..run()
        };
        let svg = map.to_svg();
        let document = Document::parse(&svg).unwrap();
        let size: Vec<f64> = document.root_element().attribute("viewBox").unwrap()[4..]
            .split(' ')
            .map(|length| length.parse().unwrap())
            .collect();
        let number = |n: &Node<'_, '_>, name| -> f64 {
            n.attribute(name).map_or(0.0, |value| value.parse().unwrap())
        };
        for node in document.descendants().filter(|n| n.has_tag_name("rect")) {
            assert!(number(&node, "x") + number(&node, "width") <= size[0]);
            assert!(number(&node, "y") + number(&node, "height") <= size[1]);
        }
        for node in document.descendants().filter(|n| n.has_tag_name("text")) {
            let (x, y) = (number(&node, "x"), number(&node, "y"));
            let wide = 6.5 * node.text().unwrap().trim().chars().count() as f64;
            let (before, after) = match node.attribute("text-anchor") {
                Some("end") => (wide, 0.0),
                Some("middle") => (wide / 2.0, wide / 2.0),
                _ => (0.0, wide),
            };
            let (along, room) = match node.attribute("transform") {
                Some(_) => (y, size[1]),
                None => (x, size[0]),
            };
            assert!(along >= before && along + after <= room, "{:?}", node.text());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(100)
    })]

    // Fails when a text is not escaped or a number overflows the scale.
    #[test]
    fn any_map_gives_well_formed_xml(
        title in any::<String>(),
        columns in prop::collection::vec(any::<String>(), 0..5),
        rows in prop::collection::vec(any::<String>(), 0..4),
        values in prop::collection::vec(prop::option::of((any::<f64>(), any::<String>())), 0..24),
    ) {
        let cells = values
            .into_iter()
            .map(|cell| cell.map(|(value, text)| HeatCell { value, text }))
            .collect();
        let panels = vec![HeatPanel { name: title.clone(), cells }; 3];
        let [x_label, y_label] = [title.clone(), title.clone()];
        let map = HeatMap { x_label, y_label, title, columns, rows, panels };
        prop_assert!(Document::parse(&map.to_svg()).is_ok());
    }
}
