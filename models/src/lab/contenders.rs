//! The list of contenders.

use super::{
    contender::{ours, Method, Pick},
    Category, Contender,
};
use crate::{
    baselines::{
        Adam, AnyPeer, Cocob, DAdaptAdam, DAdaptSgd, Dog, Hypergradient, Mechanic, Momo, MomoAdam,
        NAdamW, Prodigy, RmsProp, ScheduleFreeAdamW, ScheduleFreeSgd, Sgd, Sls, Sps,
    },
    train::{name, Base, Mode, Options, ScheduleKind},
};

/// The optimizers that this library is tried around.
const BASES: [Base; 3] = [Base::Sgd, Base::Momentum, Base::Adam];

/// The other rates that this library is started from.
const STARTS: [f64; 4] = [1e-9, 1e-3, 1e-1, 10.0];

/// The rates of the hand's search around SGD: twenty points, with and without momentum and a
/// cosine.
pub(super) const SGD_RATES: [f64; 5] = [1.0, 0.3, 0.1, 0.03, 0.01];

/// The momentum of the hand's search around SGD, where it has one.
pub(super) const SGD_MOMENTUM: f64 = 0.9;

/// The rates of the hand's search around NAdamW.
pub(super) const NADAMW_RATES: [f64; 6] = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003];

/// All contenders, each once.
///
/// ```
/// use tlr_models::lab::{contenders, Category};
///
/// let all = contenders();
/// let by_hand = |category| all.iter().filter(|one| one.category == category).count();
/// assert_eq!((by_hand(Category::HandSgd), by_hand(Category::HandNAdamW)), (20, 6));
/// assert_eq!(all.iter().filter(|one| one.category.is_by_hand()).count(), 20 + 6);
/// assert!(all.iter().any(|one| one.name == "tlr-sgd" && one.settings == 0 && one.horizon));
/// ```
pub fn contenders() -> Vec<Contender> {
    let mut all = learned();
    all.extend(rate_free());
    all.extend(published());
    all.extend(range_tests());
    all.extend(by_hand());
    all.extend(
        BASES
            .iter()
            .flat_map(|&base| STARTS.map(|rate| Contender::of(Options { rate, ..ours(base) }))),
    );
    all
}

/// This library: three base optimizers, one rate or one a layer, with the number of steps or not.
pub(super) fn learned() -> Vec<Contender> {
    let mut all = Vec::new();
    for schedule in [ScheduleKind::Horizon, ScheduleKind::Constant] {
        for mode in [Mode::Global, Mode::PerLayer] {
            for base in BASES {
                all.push(Contender::of(Options { mode, schedule, ..ours(base) }));
            }
        }
    }
    all
}

pub(super) fn peer(
    name: &str,
    category: Category,
    settings: usize,
    rule: impl Into<AnyPeer>,
) -> Contender {
    let method = Method::Peer { rule: rule.into(), schedule: ScheduleKind::Constant };
    Contender { name: name.to_owned(), category, settings, horizon: false, method }
}

pub(super) fn with(schedule: ScheduleKind, mut contender: Contender) -> Contender {
    if let Method::Peer { schedule: of_peer, .. } = &mut contender.method {
        *of_peer = schedule;
        contender.horizon = true;
    }
    contender
}

/// Peers with the defaults of their packages, which their docs in [`baselines`](crate::baselines)
/// cite. Schedule-free optimizers and MoMo have a rate, which was left at its default. It counts as
/// one setting for schedule-free optimizers, and as none for MoMo, where it is only an upper bound.
/// Mechanic's base has a rate of 1, which it scales. The packages of Prodigy, D-Adaptation and
/// Mechanic advise a schedule, so that they are here with a cosine too.
pub(super) fn rate_free() -> Vec<Contender> {
    let free = |name, rule| peer(name, Category::RateFree, 0, rule);
    let mechanic_adam = || Mechanic::around(Adam { lr: 1.0, decoupled: true, ..Adam::default() });
    let cosine = |contender| with(ScheduleKind::Cosine, contender);
    vec![
        free("dadapt-sgd", AnyPeer::from(DAdaptSgd::default())),
        free("dadapt-adam", DAdaptAdam::default().into()),
        cosine(free("dadapt-adam-cosine", DAdaptAdam::default().into())),
        free("prodigy", Prodigy::default().into()),
        cosine(free("prodigy-cosine", Prodigy::default().into())),
        free("dog", Dog::default().into()),
        free("ldog", Dog::layerwise().into()),
        peer("schedule-free-sgd", Category::RateFree, 1, ScheduleFreeSgd::default()),
        peer("schedule-free-adamw", Category::RateFree, 1, ScheduleFreeAdamW::default()),
        free("cocob", Cocob::default().into()),
        free("mechanic-sgd", Mechanic::around(Sgd { lr: 1.0, ..Sgd::default() }).into()),
        free("mechanic-adamw", mechanic_adam().into()),
        cosine(free("mechanic-adamw-cosine", mechanic_adam().into())),
        free("momo", Momo::default().into()),
        free("momo-adam", MomoAdam::default().into()),
        free("sls", Sls::default().into()),
        free("sps", Sps::default().into()),
    ]
}

/// Peers at the rate that they are published with: the defaults of PyTorch, the paper's multistep
/// SGD, and hypergradient descent from the authors' 1e-3 with their 1e-3 for η, or with 0.02 where
/// it multiplies.
pub(super) fn published() -> Vec<Contender> {
    let published = |name, settings, rule| peer(name, Category::Published, settings, rule);
    vec![
        with(ScheduleKind::MultiStep, published("sgd-multistep", 2, Sgd::default().into())),
        published("adam", 1, AnyPeer::from(Adam::default())),
        published("rmsprop", 1, RmsProp::default().into()),
        published("hypergradient", 2, Hypergradient::additive(1e-3, 1e-3).into()),
        published("hypergradient-times", 2, Hypergradient::multiplicative(1e-3, 0.02).into()),
    ]
}

/// SGD with momentum 0.9 and a cosine, at the rate that fastai would suggest.
pub(super) fn range_tests() -> Vec<Contender> {
    let base = Sgd { momentum: 0.9, ..Sgd::default() };
    [("range-test-valley", Pick::Valley), ("range-test-steep", Pick::Steep)]
        .map(|(name, pick)| Contender {
            name: name.to_owned(),
            category: Category::RangeTest,
            settings: 2,
            horizon: true,
            method: Method::RangeTest { pick, base: base.clone() },
        })
        .into()
}

/// The search by hand: 20 points of rate, schedule and momentum around SGD, and 6 rates of NAdamW
/// with a cosine.
pub(super) fn by_hand() -> Vec<Contender> {
    let mut all = Vec::new();
    for lr in NADAMW_RATES {
        let name = format!("nadamw-cosine-{lr}");
        let rule = NAdamW { lr, ..NAdamW::default() };
        all.push(with(ScheduleKind::Cosine, peer(&name, Category::HandNAdamW, 2, rule)));
    }
    for (words, momentum) in [("momentum", SGD_MOMENTUM), ("sgd", 0.0)] {
        for schedule in [ScheduleKind::Cosine, ScheduleKind::Constant] {
            for lr in SGD_RATES {
                let rule = Sgd { lr, momentum, ..Sgd::default() };
                let name = format!("{words}-{}-{lr}", name(&schedule));
                let contender = peer(&name, Category::HandSgd, 3, rule);
                all.push(match schedule {
                    ScheduleKind::Cosine => with(schedule, contender),
                    _ => contender,
                });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    // Fails if two rows of a table have one name, or if a contender of ours is given a number.
    #[test]
    fn each_has_a_name_of_its_own() {
        let all = contenders();
        let names: HashSet<_> = all.iter().map(|one| &one.name).collect();
        assert_eq!(names.len(), all.len());
        let ours = all.iter().filter(|one| one.category == Category::Learned);
        assert!(ours.clone().count() == 12 && ours.clone().all(|one| one.settings == 0));
        assert!(all.iter().filter(|one| one.category.is_by_hand()).all(|one| one.settings >= 2));
        let starts = |base| all.iter().filter(move |one| one.name.starts_with(base));
        for base in ["tlr-sgd-from-", "tlr-momentum-from-", "tlr-adam-from-"] {
            assert_eq!(starts(base).filter(|one| one.category == Category::Starts).count(), 4);
        }
    }

    // Fails if a schedule is forgotten: without its cosine an optimizer would seem worse than it
    // is.
    #[test]
    fn names_tell_schedules() {
        for one in contenders() {
            if let Method::Peer { schedule, .. } = one.method {
                let told = match schedule {
                    ScheduleKind::Cosine => one.name.contains("cosine"),
                    ScheduleKind::MultiStep => one.name.contains("multistep"),
                    _ => !one.horizon,
                };
                assert!(told, "{}", one.name);
            }
        }
    }
}
