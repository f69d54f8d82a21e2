//! [`Findings`]: what the runs of the laboratory show.

use super::{
    contenders,
    measures::{median, profile_area, regret, spread, time_to},
    Category, Curve, Record, Scale, POINTS,
};
use std::collections::BTreeSet;

/// The point of a curve at nine tenths of the budget, where the best by hand sets the target.
const TARGET_AT: usize = POINTS * 9 / 10;

/// The contender whose time for a step the others' times are compared with.
const PLAIN: &str = "sgd-constant-0.1";

/// What the runs in a folder show.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The scale at which the runs were made.
    pub scale: Scale,
    /// The competitors, in the order of the list of contenders.
    pub competitors: Vec<Competitor>,
    /// The tasks that were learned, in the order of their list. Those without a run of the hand's
    /// search are left out.
    pub tasks: Vec<OfTask>,
}

/// One contender, or several of which the best counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Competitor {
    /// The name in tables.
    pub name: String,
    /// The category in which it is compared. The best point of the search is in that of SGD by
    /// hand.
    pub category: Category,
    /// The contenders of which the best counts.
    pub members: Vec<String>,
    /// How many settings have to be chosen.
    pub settings: usize,
    /// Whether it gets the number of steps.
    pub horizon: bool,
}

/// The results at one task.
#[derive(Clone, Debug)]
pub struct OfTask {
    /// The task's name.
    pub name: String,
    /// What the task is, in a sentence.
    pub about: String,
    /// The data, in words.
    pub data: String,
    /// The seeds that were run with the most contenders. Others are left out, so that means are of
    /// the same seeds.
    pub seeds: Vec<u64>,
    /// The loss that the best run of the search by hand has at nine tenths of the budget.
    pub target: f64,
    /// The score of each competitor, in order; none if it was not run.
    pub scores: Vec<Option<Score>>,
}

/// The result of a competitor at a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The contender; of several, the one with the least mean loss.
    pub member: String,
    /// How many contenders were run, of which it is the best.
    pub of: usize,
    /// The final loss of each seed; infinite if the run diverged.
    pub losses: Vec<f64>,
    /// The mean accuracy, if the task has right and wrong answers and no run diverged.
    pub accuracy: Option<f64>,
    /// Steps to the target, the middle one of the seeds; infinite if it is not reached.
    pub steps: f64,
    /// The seconds to the target, the middle one of the seeds; infinite if it is not reached.
    pub seconds: f64,
    /// The seconds of a step, searches for a rate included.
    pub step_seconds: f64,
    /// The curve of the seed with the lowest number, as (step, loss), to be drawn.
    pub curve: Vec<(f64, f64)>,
}

impl Score {
    /// The mean loss.
    ///
    /// Example: [the laboratory](super).
    pub fn loss(&self) -> f64 {
        spread(&self.losses).map_or(f64::INFINITY, |(mean, _)| mean)
    }
}

impl OfTask {
    /// The score of a competitor.
    ///
    /// Example: [the laboratory](super).
    pub fn score(&self, competitor: usize) -> Option<&Score> {
        self.scores.get(competitor)?.as_ref()
    }
}

impl Findings {
    /// What `results` show.
    ///
    /// Example: [`html`](super::html).
    #[cfg(feature = "lab")]
    pub fn of(results: &super::Results) -> Self {
        let (records, curves): (Vec<_>, Vec<_>) =
            (results.records().collect(), results.curves().collect());
        let tasks = super::tasks();
        let tasks: Vec<_> = tasks.iter().map(|task| (task.name, task.about)).collect();
        Self::new(results.scale(), &records, &curves, &tasks)
    }

    /// `tasks` are the names of the tasks, and what they are.
    fn new(scale: Scale, records: &[&Record], curves: &[&Curve], tasks: &[(&str, &str)]) -> Self {
        let competitors: Vec<_> = competitors()
            .into_iter()
            .filter(|one| records.iter().any(|record| one.members.contains(&record.contender)))
            .collect();
        let hand = hand(&competitors);
        let of_task = |name: &str, about: &str| {
            let data = &records.iter().rev().find(|record| record.task == name)?.data;
            let runs = TaskRuns::new(records, curves, name, data);
            let best = runs.score(competitors.get(hand?)?, f64::INFINITY)?;
            let target = runs.target(&best.member)?;
            Some(OfTask {
                name: name.to_owned(),
                about: about.to_owned(),
                data: data.clone(),
                seeds: runs.seeds.iter().copied().collect(),
                target,
                scores: competitors.iter().map(|one| runs.score(one, target)).collect(),
            })
        };
        let tasks = tasks.iter().filter_map(|(name, about)| of_task(name, about)).collect();
        Self { scale, tasks, competitors }
    }

    /// The best of the whole search by hand, as a competitor.
    ///
    /// # Example
    /// ```
    /// use tlr_models::lab::{Findings, Results, Scale};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let findings = Findings::of(&Results::open(dir.path(), Scale::Smoke)?);
    /// // Nothing has been run yet.
    /// assert_eq!((findings.hand(), findings.named("by hand")), (None, None));
    /// assert!(findings.regrets(0).is_empty() && findings.step_time(0).is_none());
    /// assert!(findings.times(0, |score| score.steps).is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hand(&self) -> Option<usize> {
        hand(&self.competitors)
    }

    /// The competitor of this name.
    ///
    /// Example: [`hand`](Self::hand).
    pub fn named(&self, name: &str) -> Option<usize> {
        self.competitors.iter().position(|one| one.name == name)
    }

    /// How much worse a competitor is at each task than the best of the search by hand, as a part
    /// of the best's loss. None if the competitor was not run.
    ///
    /// Example: [`hand`](Self::hand).
    pub fn regrets(&self, competitor: usize) -> Vec<Option<f64>> {
        let of_task = |task: &OfTask| {
            let best = task.score(self.hand()?)?.loss();
            Some(regret(task.score(competitor)?.loss(), best))
        };
        self.tasks.iter().map(of_task).collect()
    }

    /// For each task, the competitor's time to the target and the best time of all: in steps, or in
    /// seconds. A task at which the competitor was not run is left out.
    ///
    /// Example: [`hand`](Self::hand).
    pub fn times(&self, competitor: usize, time: impl Fn(&Score) -> f64) -> Vec<(f64, f64)> {
        let of_task = |task: &OfTask| {
            let best = task.scores.iter().flatten().map(&time).fold(f64::INFINITY, f64::min);
            Some((time(task.score(competitor)?), best))
        };
        self.tasks.iter().filter_map(of_task).collect()
    }

    /// The area below the profile of times to the target, from 0 to 1.
    ///
    /// Example: [the laboratory](super).
    pub fn area(&self, competitor: usize, time: impl Fn(&Score) -> f64) -> f64 {
        profile_area(&self.times(competitor, time))
    }

    /// How long a step takes, as a multiple of a step of the peers' plain SGD: the median over
    /// tasks.
    ///
    /// Example: [`hand`](Self::hand).
    pub fn step_time(&self, competitor: usize) -> Option<f64> {
        let plain = self.named(PLAIN_NAME)?;
        let of_task = |task: &OfTask| {
            let (own, plain) = (task.score(competitor)?, task.score(plain)?);
            Some(own.step_seconds / plain.step_seconds)
        };
        median(&self.tasks.iter().filter_map(of_task).collect::<Vec<_>>())
    }
}

/// The name of plain SGD where it is a competitor of its own.
const PLAIN_NAME: &str = "sgd 0.1";

/// The name of the best of all points of the search.
const HAND: &str = "by hand";

fn hand(competitors: &[Competitor]) -> Option<usize> {
    competitors.iter().position(|one| one.name == HAND)
}

/// All competitors: contenders one by one, but the points of the search together.
fn competitors() -> Vec<Competitor> {
    let all = contenders();
    let best_of = |name: &str, category: Category, of: &dyn Fn(Category) -> bool| {
        let members: Vec<_> = all.iter().filter(|one| of(one.category)).collect();
        Competitor {
            name: name.to_owned(),
            category,
            settings: members.iter().map(|one| one.settings).max().unwrap_or(0),
            horizon: true,
            members: members.iter().map(|one| one.name.clone()).collect(),
        }
    };
    let alone = all.iter().filter(|one| !one.category.is_by_hand()).map(|one| Competitor {
        name: one.name.clone(),
        category: one.category,
        members: vec![one.name.clone()],
        settings: one.settings,
        horizon: one.horizon,
    });
    let mut competitors: Vec<_> = alone.collect();
    competitors.push(Competitor {
        name: PLAIN_NAME.to_owned(),
        category: Category::Published,
        members: vec![PLAIN.to_owned()],
        settings: 1,
        horizon: false,
    });
    let nadamw = |category| category == Category::HandNAdamW;
    let sgd = |category| category == Category::HandSgd;
    competitors.push(best_of("nadamw + cosine, by hand", Category::HandNAdamW, &nadamw));
    competitors.push(best_of("sgd, by hand", Category::HandSgd, &sgd));
    competitors.push(best_of(HAND, Category::HandSgd, &Category::is_by_hand));
    competitors
}

/// A task's runs for the seeds that the most contenders share.
struct TaskRuns<'a> {
    records: Vec<&'a Record>,
    curves: Vec<&'a Curve>,
    seeds: BTreeSet<u64>,
}

impl<'a> TaskRuns<'a> {
    fn new(records: &[&'a Record], curves: &[&'a Curve], task: &str, data: &str) -> Self {
        let mut records: Vec<_> = records.to_vec();
        records.retain(|record| record.task == task && record.data == data);
        let mut curves: Vec<_> = curves.to_vec();
        curves.retain(|curve| curve.task == task && curve.data == data);
        let all: BTreeSet<u64> = records.iter().map(|record| record.seed).collect();
        let contenders = |seed: &u64| -> BTreeSet<&str> {
            let of_seed = records.iter().filter(|record| record.seed == *seed);
            of_seed.map(|record| record.contender.as_str()).collect()
        };
        let most = all.iter().rev().map(contenders).max_by_key(BTreeSet::len).unwrap_or_default();
        let seeds: BTreeSet<u64> =
            all.iter().copied().filter(|seed| contenders(seed) == most).collect();
        records.retain(|record| seeds.contains(&record.seed));
        Self { records, curves, seeds }
    }

    fn of(&self, member: &str) -> Vec<&'a Record> {
        self.records.iter().filter(|record| record.contender == member).copied().collect()
    }

    fn curve(&self, member: &str, seed: u64) -> Option<&'a Curve> {
        let is_it = |curve: &&&Curve| curve.contender == member && curve.seed == seed;
        self.curves.iter().find(is_it).copied()
    }

    /// The mean loss of a contender's runs at nine tenths of the budget.
    fn target(&self, member: &str) -> Option<f64> {
        let at = |seed: &u64| self.curve(member, *seed)?.points().get(TARGET_AT)?.loss;
        spread(&self.seeds.iter().filter_map(at).collect::<Vec<_>>()).map(|(mean, _)| mean)
    }

    fn score(&self, competitor: &Competitor, target: f64) -> Option<Score> {
        let loss = |member: &String| {
            let losses: Vec<_> =
                self.of(member).iter().map(|record| record.loss.unwrap_or(f64::INFINITY)).collect();
            spread(&losses).map(|(mean, _)| mean)
        };
        let losses = competitor.members.iter().filter_map(|member| Some((loss(member)?, member)));
        let losses: Vec<_> = losses.collect();
        let (_, member) = losses.iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
        let records = self.of(member);
        let made: usize = records.iter().map(|record| record.steps + record.searched).sum();
        let accuracies: Vec<f64> = records.iter().filter_map(|record| record.accuracy).collect();
        let whole = accuracies.len() == records.len();
        Some(Score {
            member: (*member).clone(),
            of: losses.len(),
            losses: records.iter().map(|record| record.loss.unwrap_or(f64::INFINITY)).collect(),
            accuracy: spread(&accuracies).map(|(mean, _)| mean).filter(|_| whole),
            steps: self.time(member, target, |point| point.step as f64),
            seconds: self.time(member, target, |point| point.seconds),
            step_seconds: records.iter().map(|r| r.seconds).sum::<f64>() / made.max(1) as f64,
            curve: self.drawn(member),
        })
    }

    fn time(&self, member: &str, target: f64, time: fn(&super::Point) -> f64) -> f64 {
        let times = self.seeds.iter().map(|seed| {
            let points = self.curve(member, *seed).map(Curve::points).unwrap_or_default();
            let points =
                points.iter().map(|point| (time(point), point.loss.unwrap_or(f64::INFINITY)));
            time_to(target, &points.collect::<Vec<_>>())
        });
        median(&times.collect::<Vec<_>>()).unwrap_or(f64::INFINITY)
    }

    fn drawn(&self, member: &str) -> Vec<(f64, f64)> {
        let first = self.seeds.first().and_then(|seed| self.curve(member, *seed));
        let points = first.map(Curve::points).unwrap_or_default();
        points.iter().filter_map(|point| Some((point.step as f64, point.loss?))).collect()
    }
}

#[cfg(test)]
mod tests;
