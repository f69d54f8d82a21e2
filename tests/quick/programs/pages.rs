//! The README and the pages of docs/: links that lead somewhere, and a guide that is complete.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The Markdown files below a folder.
fn pages_below(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages_below(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let files = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/CHANGELOG.md"];
    let mut pages: Vec<_> = files.iter().map(|file| root().join(file)).collect();
    for folder in ["docs", "results", "benches"] {
        pages_below(&root().join(folder), &mut pages);
    }
    pages
}

/// What the links and pictures of a page lead to.
fn links(text: &str) -> Vec<String> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES);
    let links = events.filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some(dest_url.into_string())
        }
        _ => None,
    });
    links.collect()
}

/// The names by which a page's headings can be linked to, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut anchors, mut heading) = (BTreeSet::new(), None);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match (event, &mut heading) {
            (Event::Start(Tag::Heading { .. }), _) => heading = Some(String::new()),
            (Event::Text(words) | Event::Code(words), Some(heading)) => heading.push_str(&words),
            (Event::End(TagEnd::Heading(_)), Some(words)) => {
                let words = words.to_lowercase().replace(' ', "-");
                let kept = |letter: &char| letter.is_alphanumeric() || "-_".contains(*letter);
                anchors.insert(words.chars().filter(kept).collect());
                heading = None;
            }
            _ => {}
        }
    }
    anchors
}

/// What is wrong with a link of the page at `page`.
fn fault(page: &Path, link: &str) -> Option<String> {
    if link.contains("://") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => page.to_owned(),
        file => page.parent().unwrap().join(file),
    };
    if !target.exists() {
        return Some(format!("{}: {link} leads to no file", page.display()));
    }
    let is_there =
        anchor.is_empty() || anchors(&fs::read_to_string(target).unwrap()).contains(anchor);
    (!is_there).then(|| format!("{}: {link} leads to no heading", page.display()))
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let links = links(&fs::read_to_string(&page).unwrap());
        seen += links.len();
        faults.extend(links.iter().filter_map(|link| fault(&page, link)));
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 50, "only {seen} links");
}

#[test]
fn broken_links_are_found() {
    let readme = root().join("README.md");
    let broken = |link| fault(&readme, link).is_some();
    assert!(broken("docs/nothing.md") && broken("#nothing") && broken("docs/start.md#nothing"));
    assert!(!broken("docs/start.md#which-rate") && !broken("#use-it"));
}

/// Each page is in the table of contents, and its code is run by the doctests.
#[test]
fn every_page_of_the_guide_is_named_and_run() {
    let folder = root().join("docs/guide");
    let contents = links(&fs::read_to_string(folder.join("README.md")).unwrap());
    let run = fs::read_to_string(root().join("tests/support/pages.rs")).unwrap();
    let mut pages = Vec::new();
    pages_below(&folder, &mut pages);
    assert!(pages.len() > 10);
    for page in pages {
        let name = page.file_name().unwrap().to_str().unwrap();
        if name != "README.md" {
            assert!(contents.iter().any(|link| link == name), "the guide does not name {name}");
            assert!(run.contains(&format!("docs/guide/{name}\")")), "no doctest runs {name}");
        }
    }
}

/// The names in an enum of the library's source.
fn variants(file: &str, name: &str) -> Vec<String> {
    let source = fs::read_to_string(root().join("tlr/src").join(file)).unwrap();
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = lines.map(|line| line.chars().take_while(|letter| letter.is_alphanumeric()));
    let names = names.map(Iterator::collect::<String>);
    names.filter(|name| name.starts_with(|letter: char| letter.is_uppercase())).collect()
}

/// Whoever meets an error or an outcome finds a row for it.
#[test]
fn every_error_and_outcome_has_its_row() {
    let page = |name: &str| fs::read_to_string(root().join("docs/guide").join(name)).unwrap();
    let (wrong, history) = (page("what-can-go-wrong.md"), page("history.md"));
    let ranks = page("more-than-one-machine.md");
    for (file, of, page, least) in [
        ("error/mod.rs", "Error", &wrong, 19),
        ("error/mod.rs", "Cause", &wrong, 7),
        ("error/checkpoint.rs", "CheckpointError", &wrong, 5),
        ("error/parallel.rs", "ParallelError", &ranks, 10),
        ("engine/event.rs", "Step", &wrong, 6),
        ("engine/history.rs", "Outcome", &history, 10),
        ("engine/history.rs", "KeptBecause", &history, 5),
    ] {
        let names = variants(file, of);
        assert!(names.len() >= least, "{of}: {names:?}");
        for name in names {
            let cell = match of {
                "KeptBecause" => format!("| `Kept({name})`"),
                _ => format!("| `{name}"),
            };
            let has_row = page.contains(&cell) || page.contains(&format!("`Error::{name} "));
            assert!(has_row, "no row for {of}::{name}");
        }
    }
}
