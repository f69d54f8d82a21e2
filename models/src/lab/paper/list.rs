//! The list of exhibits.

use super::{Exhibit, Panel, Part, Quantity, Series};
use crate::{
    baselines::{Adam, AnyPeer, RmsProp, Sls, Sps},
    lab::{
        contender::ours,
        contenders::{self, by_hand, peer, published, range_tests, rate_free},
        tasks::paper::{CIFAR, MNIST, PICTURES, TRANSLATION},
        Category, Contender, Scale, Task,
    },
    train::{Base, Mode, Options, Rule, ScheduleKind},
};
use Quantity::{Accuracy, Rate, Testing, Training};

/// All figures and tables at a scale.
///
/// ```
/// use tlr_models::lab::{exhibits, Part, Scale};
///
/// let all = exhibits(Scale::Paper);
/// let table = all.iter().find(|one| one.part == Part::Table1).expect("it is in the list");
/// // Thirteen methods from three starting rates; each learns the task in four batch sizes.
/// assert_eq!((table.contenders().len(), table.tasks.len()), (13 * 3, 4));
/// let panel = &table.panels[0];
/// assert!(!panel.caption().is_empty());
/// assert!(panel.series().iter().all(|one| one.category().is_some()));
/// ```
pub fn exhibits(scale: Scale) -> Vec<Exhibit> {
    vec![
        fig1(),
        fig2(),
        table1_mnist(),
        table1_cifar(scale),
        fig3(),
        fig4(),
        fig5(),
        ablations("What the library has beside the paper's rule, on MNIST", of_mnist()),
        ablations("What the library has beside the paper's rule, on CIFAR", of_cifar()),
        peers(),
    ]
}

const fn of_mnist() -> Task {
    let [_, batches_of_128, _, _] = MNIST;
    batches_of_128
}

const fn of_cifar() -> Task {
    let [_, batches_of_128, _, _] = CIFAR;
    batches_of_128
}

/// The paper's rule as it is printed: without a safeguard, a ramp or a horizon.
fn printed(rate: f64) -> Options {
    Options { rule: Rule::Paper, rate, safeguard: false, ..Options::default() }
}

/// The optimizer alone at a rate.
fn constant(optimizer: Base, rate: f64) -> Options {
    Options { rule: Rule::Constant, rate, optimizer, ..Options::default() }
}

fn ten_to_minus(powers: std::ops::RangeInclusive<i32>) -> impl Iterator<Item = f64> {
    powers.map(|power| format!("1e-{power}").parse().unwrap_or(f64::NAN))
}

/// The values of p and of γ.
const FRACTIONS: [f64; 5] = [0.1, 0.2, 1.0 / 3.0, 0.5, 1.0];
const DAMPINGS: [f64; 5] = [0.1, 0.2, 0.33, 0.5, 1.0];

fn fig1() -> Exhibit {
    let rows = |whose: &str, base: Options| {
        let over_p = FRACTIONS.map(|window_fraction| {
            let options = Options { window_fraction, damping: 0.2, ..base };
            Series::new(format!("p = {window_fraction:.2}"), Contender::of(options))
        });
        let over_damping = DAMPINGS.map(|damping| {
            let options = Options { window_fraction: 1.0 / 3.0, damping, ..base };
            Series::new(format!("γ = {damping}"), Contender::of(options))
        });
        [
            ("p, the part of an epoch between two decisions, at γ = 0.2", over_p),
            ("γ, the damping of a decision, at p = 0.33", over_damping),
        ]
        .map(|(over, series)| Panel::Curves {
            caption: format!("{whose}: over {over}."),
            charts: vec![Rate],
            series: series.into(),
        })
    };
    let mut panels = Vec::from(rows("The paper's rule as printed, from 1e-3", printed(1e-3)));
    panels.extend(rows("This library", ours(Base::Sgd)));
    Exhibit {
        part: Part::Fig1,
        title: "Figure 1: rates over p and over γ",
        about: "The paper's rates rise first and sink then, as with a warm-up \
                and a decay. It does not name the starting rate; here it is 1e-3. This library \
                looks for its start by itself.",
        tasks: vec![of_mnist()],
        panels,
    }
}

fn fig2() -> Exhibit {
    let panel = |caption: &str, options: &dyn Fn(f64) -> Options| Panel::Curves {
        caption: caption.to_owned(),
        charts: vec![Training, Rate],
        series: ten_to_minus(1..=9)
            .map(|rate| Series::new(format!("from {rate:e}"), Contender::of(options(rate))))
            .collect(),
    };
    Exhibit {
        part: Part::Fig2,
        title: "Figure 2: nine starting rates",
        about: "The rate that training begins with should not matter. With p = 0.2 and γ = 0.33, \
                the paper's defaults.",
        tasks: vec![of_mnist()],
        panels: vec![
            panel("The paper's rule as printed.", &printed),
            panel("The paper's rule with this library's safeguard.", &|rate| Options {
                safeguard: true,
                ..printed(rate)
            }),
            panel(
                "This library, which looks for its start: one line hides the others where they \
                 are the same.",
                &|rate| Options { rate, ..ours(Base::Sgd) },
            ),
        ],
    }
}

/// A method's options from a starting rate.
type AtRate = Box<dyn Fn(f64) -> Options>;

/// A table over three starting rates, with these values of η for each of the two first-order rules.
fn against_hypergradients(additive: &[f64], multiplicative: &[f64]) -> Panel {
    let mut methods: Vec<(String, AtRate)> = vec![
        ("this library".to_owned(), Box::new(|rate| Options { rate, ..ours(Base::Sgd) })),
        ("the paper's rule as printed".to_owned(), Box::new(printed)),
    ];
    for (rule, name, etas) in [
        (Rule::Additive, "additive", additive),
        (Rule::Multiplicative, "multiplicative", multiplicative),
    ] {
        for &meta_rate in etas {
            let options = move |rate| Options { rule, rate, meta_rate, ..printed(rate) };
            methods.push((format!("{name}, η = {meta_rate:e}"), Box::new(options)));
        }
    }
    methods.push(("a constant rate".to_owned(), Box::new(|rate| constant(Base::Sgd, rate))));
    let rates: Vec<f64> = ten_to_minus(1..=3).collect();
    let rows = methods.into_iter().map(|(name, options)| {
        let cell = |&rate: &f64| Series::new(name.clone(), Contender::of(options(rate)));
        let cells = rates.iter().map(cell).collect();
        (name, cells)
    });
    Panel::Grid {
        caption: "Final test loss from each starting rate, mean ± deviation over batch sizes and \
                  seeds. The rules of first order decide as often as the learned rate and on the \
                  same averages of gradients, as in the paper, and have no safeguard."
            .to_owned(),
        columns: rates.iter().map(|rate| format!("from {rate:e}")).collect(),
        rows: rows.collect(),
    }
}

fn table1_mnist() -> Exhibit {
    let etas: Vec<f64> = ten_to_minus(1..=5).collect();
    Exhibit {
        part: Part::Table1,
        title: "Table 1, on MNIST: learned rates and hypergradients",
        about: "The paper shows the best two η of five for either rule; here are all.",
        tasks: MNIST.into(),
        panels: vec![against_hypergradients(&etas, &etas)],
    }
}

fn table1_cifar(scale: Scale) -> Exhibit {
    let batches = scale.pick(1, 2, CIFAR.len());
    Exhibit {
        part: Part::Table1,
        title: "Table 1, on CIFAR with a wide residual network",
        about: "The paper's table, with the η that it shows. The paper's WRN-16-4 on CIFAR-100 \
                over batches of 64, 128, 256 and 512 needs a GPU: below full scale the network and \
                the images are smaller, and batches are of 64 and 128.",
        tasks: CIFAR.into_iter().take(batches).collect(),
        panels: vec![against_hypergradients(&[1e-1, 1e-2], &[1e-4, 1e-5])],
    }
}

/// A peer at its published rate.
fn plainly(label: &str, name: &str, rule: impl Into<AnyPeer>) -> Series {
    Series::new(label, peer(name, Category::Published, 1, rule))
}

/// The paper's optimizers for images: the learned rate of both kinds, and what it is compared with.
fn of_images(line_search: bool) -> Vec<Series> {
    let multistep = Options { schedule: ScheduleKind::MultiStep, ..constant(Base::Sgd, 0.1) };
    let mut all = vec![
        Series::new("tlr around SGD", Contender::of(ours(Base::Sgd))),
        Series::new("the paper's rule, from 0.1", Contender::of(printed(0.1))),
        Series::new("SGD, multistep, from 0.1", Contender::of(multistep)),
        plainly("Adam", "adam", Adam::default()),
        Series::new("SPS", peer("sps", Category::RateFree, 0, Sps::default())),
    ];
    if line_search {
        all.push(Series::new("SLS", peer("sls", Category::RateFree, 0, Sls::default())));
        all.push(plainly("RMSprop", "rmsprop", RmsProp::default()));
        all.push(Series::new("tlr around momentum", Contender::of(ours(Base::Momentum))));
    }
    all
}

fn fig3() -> Exhibit {
    Exhibit {
        part: Part::Fig3,
        title: "Figure 3: optimizers on CIFAR with a wide residual network",
        about:
            "Batches of 128. The multistep schedule takes a tenth of the rate after half of the \
                run and again after three quarters. RMSprop and momentum are not in the paper's \
                figure.",
        tasks: vec![of_cifar()],
        panels: vec![Panel::Curves {
            caption: "Nothing had to be chosen for tlr, SLS and SPS.".to_owned(),
            charts: vec![Training, Testing, Accuracy],
            series: of_images(true),
        }],
    }
}

fn fig4() -> Exhibit {
    Exhibit {
        part: Part::Fig4,
        title: "Figure 4: pictures in folders with ResNet-50",
        about: "At full scale it is ImageNet at 224 by 224 pixels, in batches of 96, for 80 \
                epochs. As in the paper, SLS is left out. Below full scale it shows that the code \
                runs, and little else: few runs of ResNet-50 learn much from a hundred pictures.",
        tasks: vec![PICTURES],
        panels: vec![Panel::Curves {
            caption: "The same optimizers as in figure 3.".to_owned(),
            charts: vec![Training, Testing, Accuracy],
            series: of_images(false),
        }],
    }
}

fn fig5() -> Exhibit {
    let around = |base, name: &str, rates: [f64; 4], start| {
        let by_hand = rates.map(|rate| Contender::of(constant(base, rate)));
        let paper = Options { optimizer: base, ..printed(start) };
        Panel::Curves {
            caption: format!("{name}: the best of four has the least loss, which flatters it."),
            charts: vec![Training, Testing],
            series: vec![
                Series { label: format!("{name}, best of 4"), of: by_hand.into() },
                Series::new(format!("tlr around {name}"), Contender::of(ours(base))),
                Series::new(format!("the paper's rule around {name}"), Contender::of(paper)),
            ],
        }
    };
    Exhibit {
        part: Part::Fig5,
        title: "Figure 5: a transformer with SGD and Adam",
        about: "Each optimizer at the best of four rates, and with a learned rate. The paper's \
                rule begins at 0.1 around SGD and at 1e-4 around Adam; this library at 1e-6, which \
                does not matter.",
        tasks: vec![TRANSLATION],
        panels: vec![
            around(Base::Sgd, "SGD", [1.0, 0.3, 0.1, 0.03], 0.1),
            around(Base::Adam, "Adam", [1e-2, 3e-3, 1e-3, 3e-4], 1e-4),
        ],
    }
}

fn ablations(title: &'static str, task: Task) -> Exhibit {
    let ours = ours(Base::Sgd);
    let variants = [
        ("this library", ours),
        ("a rate a layer", Options { mode: Mode::PerLayer, ..ours }),
        ("no horizon", Options { schedule: ScheduleKind::Constant, ..ours }),
        ("no safeguard", Options { safeguard: false, ..ours }),
        ("no ramp", Options { ramp: false, ..ours }),
        ("no ramp, no safeguard", Options { ramp: false, safeguard: false, ..ours }),
        ("the paper's rule as printed", printed(ours.rate)),
        ("the paper's rule, safeguard", Options { safeguard: true, ..printed(ours.rate) }),
        (
            "the paper's rule, safeguard, a rate a layer",
            Options { safeguard: true, mode: Mode::PerLayer, ..printed(ours.rate) },
        ),
    ];
    let rates = [1e-6, 1e-3, 1e-1, 10.0];
    let rows = variants.into_iter().map(|(name, options)| {
        let cell = |rate| Series::new(name, Contender::of(Options { rate, ..options }));
        (name.to_owned(), rates.map(cell).into())
    });
    Exhibit {
        part: Part::Ablations,
        title,
        about: "The ramp looks for a rate before training; the safeguard undoes windows that go \
                wrong; the horizon lets the rate sink to 0 at the end; the aligned rule of this \
                library takes each Newton step from the rate that was in force.",
        tasks: vec![task],
        panels: vec![Panel::Grid {
            caption: "Final test loss from each starting rate, mean ± deviation over seeds."
                .to_owned(),
            columns: rates.iter().map(|rate| format!("from {rate:e}")).collect(),
            rows: rows.collect(),
        }],
    }
}

fn peers() -> Exhibit {
    let of_category = |label: &str, category| Series {
        label: label.to_owned(),
        of: by_hand().into_iter().filter(|one| one.category == category).collect(),
    };
    let alone = |one: Contender| Series::new(one.name.clone(), one);
    let mut series: Vec<Series> = contenders::learned().into_iter().map(alone).collect();
    series.extend(rate_free().into_iter().map(alone));
    series.extend(published().into_iter().map(alone));
    series.extend(range_tests().into_iter().map(alone));
    series.push(of_category("NAdamW + cosine, best of 6", Category::HandNAdamW));
    series.push(of_category("SGD, best of 20", Category::HandSgd));
    Exhibit {
        part: Part::Peers,
        title: "Optimizers of today, and a search by hand",
        about: "All contenders of the laboratory on one task more. `reproduce run` has them on \
                sixteen others, with profiles and regrets.",
        tasks: vec![of_mnist()],
        panels: vec![Panel::Curves {
            caption: "The least final test loss first.".to_owned(),
            charts: Vec::new(),
            series,
        }],
    }
}
