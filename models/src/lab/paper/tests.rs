//! Every figure and table, at the scale that only shows that all of it works.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::lab::{paper_html, run_cells, Cell, Folders, Ready, Results, Scale};

/// Makes all runs of these exhibits, and answers how many had to be made.
fn made(exhibits: &[Exhibit], results: &mut Results, folders: &Folders) -> usize {
    let mut made = 0;
    for exhibit in exhibits {
        let ready = |task: &Task| task.open(folders, results.scale()).unwrap().unwrap();
        let open: Vec<(&Task, Box<dyn Ready>)> =
            exhibit.tasks.iter().map(|task| (task, ready(task))).collect();
        let contenders = exhibit.contenders();
        let cells: Vec<_> = open
            .iter()
            .flat_map(|(task, ready)| {
                let ready = &**ready;
                contenders.iter().map(move |contender| Cell { task, ready, contender, seed: 0 })
            })
            .collect();
        assert_eq!(run_cells(&cells, 2, results, &|_, _, _| (), &mut |_| made += 1).unwrap(), 0);
    }
    made
}

// Fails if a run of the paper's evidence fails, if one is made twice, or if a figure is not in the
// page, without one of its lines, or no valid picture.
#[test]
fn all_is_made_and_shown() {
    let exhibits = exhibits(Scale::Smoke);
    let folder = tempfile::tempdir().unwrap();
    let folders = Folders::default().scratch(folder.path());
    let mut results = Results::open(folder.path(), Scale::Smoke).unwrap();
    assert!(made(&exhibits, &mut results, &folders) > 300);
    assert_eq!(made(&exhibits, &mut results, &folders), 0);

    let page = paper_html(&exhibits, &results);
    let body = page.split_once("<body>").unwrap().1.split_once("</html>").unwrap().0;
    let body = format!("<body>{body}");
    let document = roxmltree::Document::parse(&body).unwrap();
    // A namespace is no address.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!page.contains("http") && !page.contains("<script") && !page.contains("NaN"));
    let text: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
    for exhibit in &exhibits {
        assert!(text.contains(&exhibit.title), "{}", exhibit.title);
        for view in &exhibit.views {
            assert!(!view.series().is_empty());
            for series in view.series() {
                let told = text.iter().any(|text| text.starts_with(&series.label));
                assert!(told, "{}: {}", exhibit.title, series.label);
            }
        }
    }
    let charts = exhibits.iter().flat_map(|exhibit| &exhibit.views).map(|view| match view {
        View::Curves { charts, .. } => charts.len(),
        View::Grid { .. } => 0,
    });
    assert_eq!(
        document.descendants().filter(|node| node.has_tag_name("svg")).count(),
        charts.sum::<usize>()
    );
}

// Fails if two runs of different settings share a name, so that one passes for the other.
#[test]
fn names_tell_settings() {
    for scale in [Scale::Smoke, Scale::Paper] {
        let all = exhibits(scale);
        let contenders: Vec<_> = all.iter().flat_map(Exhibit::contenders).collect();
        for one in &contenders {
            let same = contenders.iter().filter(|other| other.name == one.name);
            assert!(same.clone().all(|other| other.method == one.method), "{}", one.name);
        }
    }
}
