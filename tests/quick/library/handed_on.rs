//! What an optimizer that wraps another one hands on to it: all that it has no code for.

use dfdx::{
    optim::{Optimizer, OptimizerUpdateError},
    prelude::*,
};
use std::{cell::RefCell, marker::PhantomData, rc::Rc};
use support::values::gradients;
use tlr::{
    optim::{
        forward, Accumulate, Clip, CompleteGradients, FailedUpdate, Groups, Shards, StepFigures,
    },
    parallel::{Alone, Ranks},
    DataParallel, Error, Family, Newton, NewtonConfig, PerLayer, TunableOptimizer,
};

type Model = <Linear<1, 1> as BuildOnDevice<Cpu, f64>>::Built;
type Updated = Result<(), OptimizerUpdateError<CpuError>>;

/// An optimizer that notes which of its methods are called, and answers unlike the defaults.
#[derive(Clone)]
struct Spy<M> {
    called: Rc<RefCell<Vec<&'static str>>>,
    model: PhantomData<fn(&M)>,
}

impl<M> Spy<M> {
    fn new() -> Self {
        Self { called: Rc::default(), model: PhantomData }
    }

    fn note(&self, method: &'static str) {
        self.called.borrow_mut().push(method);
    }
}

impl<M> Optimizer<M, Cpu, f64> for Spy<M> {
    fn update(&mut self, _: &mut M, _: &Gradients<f64, Cpu>) -> Updated {
        Ok(())
    }
}

#[warn(clippy::missing_trait_methods)]
impl<M: TensorCollection<f64, Cpu> + Clone> TunableOptimizer for Spy<M> {
    type Model = M;
    type Dtype = f64;
    type Device = Cpu;

    fn rate(&self, _group: usize) -> f64 {
        self.note("rate");
        0.5
    }

    fn set_rate(&mut self, _group: usize, _rate: f64) {
        self.note("set_rate");
    }

    fn reset(&mut self, _model: &M) {
        self.note("reset");
    }

    fn momentum(&self) -> f64 {
        self.note("momentum");
        0.25
    }

    fn validate(&self) -> Result<(), Error> {
        self.note("validate");
        Ok(())
    }

    fn follows_attributes(&self) -> bool {
        self.note("follows_attributes");
        true
    }

    fn only_gathers(&self) -> bool {
        self.note("only_gathers");
        true
    }

    fn drop_gathered(&mut self, _model: &mut M) {
        self.note("drop_gathered");
    }

    fn begin_trial(&mut self, _model: &mut M) -> bool {
        self.note("begin_trial");
        true
    }

    fn end_trial(&mut self, _model: &mut M, _made: bool) {
        self.note("end_trial");
    }

    fn complete_gradients(
        &self,
        _model: &M,
        gradients: &Gradients<f64, Cpu>,
    ) -> CompleteGradients<Self> {
        self.note("complete_gradients");
        Ok(Some(gradients.clone()))
    }

    fn failed_update(&self) -> FailedUpdate {
        self.note("failed_update");
        FailedUpdate::Undone
    }

    fn update_owned(&mut self, _: &mut M, _: &mut Gradients<f64, Cpu>) -> Updated {
        self.note("update_owned");
        Ok(())
    }

    fn averages_over_ranks(&self) -> bool {
        self.note("averages_over_ranks");
        true
    }

    fn average_over_ranks(
        &mut self,
        _model: &M,
        _gradients: Result<&mut Gradients<f64, Cpu>, Error>,
        _figures: &mut StepFigures,
    ) -> Result<(), Error> {
        self.note("average_over_ranks");
        Ok(())
    }

    fn end_averaging(&mut self) {
        self.note("end_averaging");
    }

    fn shards(&self) -> Option<&dyn Shards> {
        self.note("shards");
        None
    }

    fn groups(&self, _model: &M) -> Groups {
        self.note("groups");
        Groups::one()
    }
}

impl<M: TensorCollection<f64, Cpu> + Clone> Family for Spy<M> {
    type For<L: TensorCollection<f64, Cpu> + Clone> = Spy<L>;

    fn for_layer<L: TensorCollection<f64, Cpu> + Clone>(&self, _layer: &L) -> Spy<L> {
        Spy { called: Rc::clone(&self.called), model: PhantomData }
    }
}

/// Optimizers that have no code of their own but for `update`.
enum Either {
    First(Spy<Model>),
    Second { other: Spy<Model> },
}

impl Optimizer<Model, Cpu, f64> for Either {
    fn update(&mut self, _: &mut Model, _: &Gradients<f64, Cpu>) -> Updated {
        Ok(())
    }
}

#[warn(clippy::missing_trait_methods)]
impl TunableOptimizer for Either {
    type Model = Model;
    type Dtype = f64;
    type Device = Cpu;

    forward! { Self::First(first) => first, Self::Second { other } => other; }
}

/// The methods of `opt` that hand nothing on to `spy`.
fn not_handed_on<Opt>(spy: &Spy<Model>, model: &Model, mut opt: Opt) -> Vec<&'static str>
where
    Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>,
{
    let mut model = model.clone(); // the same tensors
    let own = &mut gradients(&model, &[3.0, 4.0]);
    let mut missing = Vec::new();
    let mut called = |method| {
        if !spy.called.take().contains(&method) {
            missing.push(method);
        }
    };
    spy.called.take();
    opt.rate(0);
    called("rate");
    opt.set_rate(0, 0.5);
    called("set_rate");
    opt.reset(&model);
    called("reset");
    opt.momentum();
    called("momentum");
    opt.validate().unwrap();
    called("validate");
    opt.follows_attributes();
    called("follows_attributes");
    opt.only_gathers();
    called("only_gathers");
    opt.drop_gathered(&mut model);
    called("drop_gathered");
    opt.begin_trial(&mut model);
    called("begin_trial");
    opt.end_trial(&mut model, true);
    called("end_trial");
    opt.complete_gradients(&model, own).unwrap();
    called("complete_gradients");
    opt.failed_update();
    called("failed_update");
    opt.update_owned(&mut model, own).unwrap();
    called("update_owned");
    opt.averages_over_ranks();
    called("averages_over_ranks");
    opt.end_averaging();
    called("end_averaging");
    opt.shards();
    called("shards");
    opt.groups(&model);
    called("groups");
    // Only a trainer has what this method takes.
    let mut trainer = Newton::new(&model, opt, NewtonConfig::default()).unwrap();
    trainer.step(&mut model, own, 1.0).unwrap();
    called("average_over_ranks");
    missing
}

// Fails if `forward!` loses a method, or a wrapper falls back on a default of the trait.
#[test]
fn all_but_what_a_wrapper_does_itself() {
    let model = Cpu::default().build_module::<Linear<1, 1>, f64>();
    let spy = Spy::new();
    let nothing: [&str; 0] = [];
    assert_eq!(not_handed_on(&spy, &model, Either::First(spy.clone())), nothing);
    assert_eq!(not_handed_on(&spy, &model, Either::Second { other: spy.clone() }), nothing);

    let clip = Clip::by_norm(spy.clone(), 1.0).unwrap();
    assert_eq!(not_handed_on(&spy, &model, clip), ["complete_gradients"]);

    // It gathers one batch a step, so that each is handed on.
    let accumulate = Accumulate::new(spy.clone(), 1).unwrap();
    assert_eq!(not_handed_on(&spy, &model, accumulate), ["complete_gradients"]);

    let alone = DataParallel::new(spy.clone(), Ranks::new(Alone));
    let own = ["averages_over_ranks", "end_averaging", "shards", "average_over_ranks"];
    assert_eq!(not_handed_on(&spy, &model, alone), own);

    // The rates are its own, and it knows whether its layers gather and how they are grouped.
    let layers = PerLayer::new(&model, spy.clone());
    let own = ["rate", "set_rate", "reset", "only_gathers", "groups"];
    assert_eq!(not_handed_on(&spy, &model, layers), own);
}
