//! The laboratory trains: every figure and table, at the scale that only shows that all of it
//! works.
#![allow(missing_docs, clippy::unwrap_used)]

use tlr_models::lab::{
    contenders, exhibits, paper::Panel, paper_html, run_cells, tasks, Cell, Exhibit, Folders,
    Ready, Results, Scale, Task,
};

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
        for panel in &exhibit.panels {
            assert!(!panel.series().is_empty());
            for series in panel.series() {
                let told = text.iter().any(|text| text.starts_with(&series.label));
                assert!(told, "{}: {}", exhibit.title, series.label);
            }
        }
    }
    let charts = exhibits.iter().flat_map(|exhibit| &exhibit.panels).map(|panel| match panel {
        Panel::Curves { charts, .. } => charts.len(),
        Panel::Grid { .. } => 0,
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
            assert!(same.clone().all(|other| other == one), "{}", one.name);
        }
    }
}

// Fails if a run is made twice, if it depends on what ran beside it, if the curve is not that
// of the record, or if a run that diverges is run again.
#[test]
fn what_is_done_is_not_done_again() {
    let (tasks, all) = (tasks(), contenders());
    let task = tasks.iter().find(|task| task.name == "heavy-tails").unwrap();
    let ready = task.open(&Folders::default(), Scale::Smoke).unwrap().unwrap();
    let named = |name: &str| all.iter().find(|one| one.name == name).unwrap();
    let names = ["tlr-momentum", "dog", "sls", "range-test-valley", "sgd-constant-1"];
    let cells: Vec<_> = names
        .iter()
        .map(|name| Cell { task, ready: &*ready, contender: named(name), seed: 1 })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let run = |cells: &[Cell<'_>], jobs| {
        let mut results = Results::open(folder.path(), Scale::Smoke).unwrap();
        let mut count = 0;
        assert_eq!(
            run_cells(cells, jobs, &mut results, &|_, _, _| (), &mut |_| count += 1).unwrap(),
            0
        );
        count
    };
    assert_eq!((run(&cells[..2], 1), run(&cells, 2), run(&cells, 2)), (2, 3, 0));

    let results = Results::open(folder.path(), Scale::Smoke).unwrap();
    assert_eq!((results.records().count(), results.curves().count()), (5, 5));
    for cell in &cells {
        let record = results.of(cell).unwrap();
        let alone = ready.train(cell.contender, 1, &|_, _| ()).unwrap();
        assert_eq!(record.loss, alone.last().map(|tested| tested.loss), "{cell:?}");
        let curve = results.curves().find(|curve| curve.contender == record.contender).unwrap();
        let points = curve.points();
        assert_eq!(points.len(), alone.points.len());
        let (told, made) = (points[1].loss.unwrap(), alone.points[1].loss.unwrap());
        assert!((told / made - 1.0).abs() < 1e-6);
    }
    let tested = results.of(&cells[3]).unwrap();
    assert!(tested.searched > 5 && tested.steps == ready.budget().steps());
    assert_eq!(results.of(&Cell { seed: 2, ..cells[0] }), None);
    drop(results);
    let others = Results::open(folder.path(), Scale::Small).unwrap();
    assert_eq!((others.records().count(), others.of(&cells[0])), (0, None));
}

// Fails if divergence is taken for a failure, or its loss for a number.
#[test]
fn divergence_is_a_result() {
    let (tasks, all) = (tasks(), contenders());
    let task = tasks.iter().find(|task| task.name == "heavy-tails").unwrap();
    let ready = task.open(&Folders::default(), Scale::Smoke).unwrap().unwrap();
    let contender = all.iter().find(|one| one.name == "momentum-constant-1").unwrap();
    let cells = [Cell { task, ready: &*ready, contender, seed: 0 }];
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::open(folder.path(), Scale::Smoke).unwrap();
    run_cells(&cells, 1, &mut results, &|_, _, _| (), &mut |_| ()).unwrap();
    let record = results.of(&cells[0]).unwrap();
    assert!(record.loss.is_none() || record.loss.is_some_and(|loss| loss > 1e3), "{record:?}");
}

// Fails if a task learns other things on a GPU, if its results there count as the CPU's, or if
// what only the CPU can do is begun there.
#[cfg(feature = "cuda")]
#[test]
#[ignore = "gpu"]
fn gpu_tasks_learn_what_the_cpu_learns() {
    use tlr_models::{lab::Place, train::TrainError};
    let (tasks, contenders) = (tasks(), contenders());
    let contender = |name: &str| contenders.iter().find(|one| one.name == name).unwrap();
    let open = |name: &str, place| {
        let task = tasks.iter().find(|task| task.name == name).unwrap();
        task.open_at(&Folders::default(), Scale::Smoke, place).unwrap()
    };
    for name in ["mnist-mlp", "copying"] {
        let [cpu, gpu] = [Place::Cpu, Place::Gpu].map(|place| open(name, place).unwrap());
        assert_eq!(gpu.data(), cpu.data() + ", on a GPU");
        let learns = contender("tlr-momentum");
        assert!(learns.on_gpu());
        let [cpu, by_gpu] = [&cpu, &gpu].map(|ready| ready.train(learns, 1, &|_, _| ()).unwrap());
        assert_eq!((by_gpu.steps, by_gpu.memory), (cpu.steps, cpu.memory));
        for (ours, theirs) in by_gpu.points.iter().zip(&cpu.points) {
            let (ours, theirs) = (ours.loss.unwrap(), theirs.loss.unwrap());
            assert!((ours - theirs).abs() < 1e-3 * theirs, "{name}: {ours} for {theirs}");
        }
        let peer = contender("dog");
        assert!(!peer.on_gpu());
        let refused = gpu.train(peer, 1, &|_, _| ());
        assert!(matches!(refused, Err(TrainError::PeersOnCpu)), "{refused:?}");
    }
    assert!(open("heavy-tails", Place::Gpu).is_none());
}
