//! What the tests read from an SVG: its texts and its lines.

#![allow(clippy::unwrap_used)]

use roxmltree::Document;

pub(crate) fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|n| n.has_tag_name("text"));
    texts.filter_map(|n| n.text()).map(|t| t.trim().to_owned()).collect()
}

pub(crate) fn polylines(svg: &str, color: &str) -> Vec<Vec<(f64, f64)>> {
    let document = Document::parse(svg).unwrap();
    let number = |text: &str| text.parse().unwrap();
    document
        .descendants()
        .filter(|n| n.has_tag_name("polyline") && n.attribute("stroke") == Some(color))
        .map(|n| {
            let points = n.attribute("points").unwrap().split_whitespace();
            let pair = |p: &str| p.split_once(',').map(|(x, y)| (number(x), number(y)));
            points.filter_map(pair).collect()
        })
        .collect()
}
