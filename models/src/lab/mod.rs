//! The laboratory: small tasks, on which `tlr` and the optimizers that it is compared with are
//! trained, and the results.
//!
//! A [`Task`] is a model with its data and budget. A [`Contender`] is an optimizer that trains it:
//! `tlr` with no number given, one of its [peers](crate::baselines), or a point of a search by
//! hand. A [`Cell`] is a task, a contender and a seed. [`run_cells`] trains cells and writes them
//! into a folder of [`Results`]; [`Findings`] sum the results up, by the measures of [`measures`];
//! and [`html`] is a page for people. [`exhibits`] are the paper's figures and tables as lists of
//! cells, and [`paper_html`] is their page.
//!
//! ```no_run
//! use tlr_models::lab::{self, Cell, Findings, Folders, Results, Scale};
//!
//! let (tasks, contenders) = (lab::tasks(), lab::contenders());
//! let ready = tasks[0].open(&Folders::default(), Scale::Small)?.expect("it needs no files");
//! let cells: Vec<_> = contenders
//!     .iter()
//!     .map(|contender| Cell { task: &tasks[0], ready: &*ready, contender, seed: 0 })
//!     .collect();
//! let mut results = Results::open("out/lab".as_ref(), Scale::Small)?;
//! lab::run_cells(&cells, 1, &mut results, &|_, _, _| (), &mut |_| ())?;
//!
//! // What the folder holds, and what it shows.
//! println!("{:?} in {}", results.scale(), results.folder().path().display());
//! println!("{:?}", results.of(&cells[0]).or(results.records().next()));
//! for curve in results.curves() {
//!     println!("{} tests, {} rates", curve.points().len(), curve.rates().len());
//! }
//! let findings = Findings::of(&results);
//! let hand = findings.hand().expect("the search is a competitor");
//! for task in &findings.tasks {
//!     println!("{}: {:?}", task.name, task.score(hand).map(|score| score.loss()));
//! }
//! println!("the area is {}", findings.area(hand, |score| score.steps));
//! std::fs::write("report.html", lab::html(&findings))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod contender;
mod contenders;
mod findings;
pub mod measures;
mod memory;
mod page;
pub mod paper;
mod place;
mod problem;
mod results;
mod run;
mod tasks;

pub use contender::{Category, Contender};
pub use contenders::contenders;
pub use findings::{Competitor, Findings, OfTask, Score};
pub use page::{html, paper_html};
#[cfg(feature = "lab")]
pub use paper::exhibits;
pub use paper::{Exhibit, Part};
pub use place::{Place, TaskDevice};
pub use problem::{Batch, Budget, Folders, Problem, Scale, Tested};
pub use results::{run_cells, Cell, Curve, Record, Results, WatchCells};
pub use run::{train, Point, Trained, WatchSteps, POINTS};
#[cfg(feature = "lab")]
pub use tasks::tasks;
pub use tasks::{Ready, Task};
