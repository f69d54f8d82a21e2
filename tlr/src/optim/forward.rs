//! [`forward!`](super::forward): an optimizer that wraps another one hands on what it does not do
//! itself.

/// Writes the methods of [`TunableOptimizer`](super::TunableOptimizer) that an optimizer hands on
/// to the one that it wraps: all of them, but for those after `but`.
///
/// It stands within the `impl`. Its first line finds the wrapped optimizer, as in a `match`: one
/// arm for a struct, and for an enum one arm a variant. The methods after `but` are written by hand
/// beside it. The compiler refuses a method that is written by hand and not named after `but`. A
/// method that is named there and not written has the trait's default. Clippy finds that if
/// `#[warn(clippy::missing_trait_methods)]` stands above the `impl`.
///
/// An optimizer that changes gradients, or does anything else at an update, writes `update_owned`
/// itself. A trainer calls it in place of `update` wherever it has a copy of the gradients.
///
/// # Example
/// An optimizer that counts its updates.
/// ```
/// use dfdx::{optim::{Optimizer, OptimizerUpdateError, SgdConfig}, prelude::*};
/// use tlr::{optim::{forward, Sgd}, Newton, NewtonConfig, TunableOptimizer};
///
/// struct Counted<Opt> {
///     within: Opt,
///     updates: usize,
/// }
///
/// impl<Opt: TunableOptimizer> TunableOptimizer for Counted<Opt> {
///     type Model = Opt::Model;
///     type Dtype = Opt::Dtype;
///     type Device = Opt::Device;
///
///     forward! {
///         Self { within, .. } => within;
///         but update_owned;
///     }
///
///     fn update_owned(
///         &mut self,
///         model: &mut Opt::Model,
///         gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
///     ) -> Result<(), OptimizerUpdateError<<Opt::Device as HasErr>::Err>> {
///         self.updates += 1;
///         self.within.update_owned(model, gradients)
///     }
/// }
///
/// impl<Opt: TunableOptimizer> Optimizer<Opt::Model, Opt::Device, Opt::Dtype> for Counted<Opt> {
///     fn update(
///         &mut self,
///         model: &mut Opt::Model,
///         gradients: &Gradients<Opt::Dtype, Opt::Device>,
///     ) -> Result<(), OptimizerUpdateError<<Opt::Device as HasErr>::Err>> {
///         self.updates += 1;
///         self.within.update(model, gradients)
///     }
/// }
///
/// let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([3.0]);
/// let sgd = Sgd::new(&w, SgdConfig { lr: 1e-3, ..Default::default() });
/// let counted = Counted { within: sgd, updates: 0 };
/// let mut opt = Newton::new(&w, counted, NewtonConfig::default().ramp(false))?;
/// let loss = w.leaky_trace().square().sum();
/// let value = loss.array();
/// opt.step(&mut w, &loss.backward(), value)?;
/// assert_eq!((opt.rates(), opt.optimizer().updates), (vec![("model", 1e-3)], 1));
/// # Ok::<(), tlr::Error>(())
/// ```
#[doc(hidden)] // here: it is documented as `tlr::optim::forward`
#[macro_export]
macro_rules! __forward {
    ($($pattern:pat => $inner:ident),+; $(but $($own:ident),+;)?) => {
        $crate::__forward! {
            @each [$($pattern => $inner),+] [$($($own)+)?]
            rate(&self, group: usize) -> f64;
            set_rate(&mut self, group: usize, rate: f64);
            reset(&mut self, model: &Self::Model);
            momentum(&self) -> f64;
            validate(&self) -> Result<(), $crate::Error>;
            follows_attributes(&self) -> bool;
            only_gathers(&self) -> bool;
            drop_gathered(&mut self, model: &mut Self::Model);
            begin_trial(&mut self, model: &mut Self::Model) -> bool;
            end_trial(&mut self, model: &mut Self::Model, made: bool);
            complete_gradients(
                &self,
                model: &Self::Model,
                gradients: &$crate::__private::dfdx::prelude::Gradients<Self::Dtype, Self::Device>
            ) -> $crate::optim::CompleteGradients<Self>;
            failed_update(&self) -> $crate::optim::FailedUpdate;
            update_owned(
                &mut self,
                model: &mut Self::Model,
                gradients: &mut $crate::__private::dfdx::prelude::Gradients<
                    Self::Dtype,
                    Self::Device
                >
            ) -> Result<(), $crate::__private::dfdx::optim::OptimizerUpdateError<
                <Self::Device as $crate::__private::dfdx::prelude::HasErr>::Err
            >>;
            averages_over_ranks(&self) -> bool;
            average_over_ranks(
                &mut self,
                model: &Self::Model,
                gradients: Result<
                    &mut $crate::__private::dfdx::prelude::Gradients<Self::Dtype, Self::Device>,
                    $crate::Error
                >,
                figures: &mut $crate::optim::StepFigures
            ) -> Result<(), $crate::Error>;
            end_averaging(&mut self);
            shards(&self) -> Option<&dyn $crate::optim::Shards>;
            groups(&self, model: &Self::Model) -> $crate::optim::Groups;
        }
    };
    (@each $arms:tt $own:tt $($method:ident $parameters:tt $(-> $out:ty)?;)+) => {
        $($crate::__forward! { @unless $own $method $parameters [$($out)?] $arms })+
    };

    // A method is not written here if it is among those after `but`.
    (@unless [rate $($own:ident)*] rate $($rest:tt)+) => {};
    (@unless [set_rate $($own:ident)*] set_rate $($rest:tt)+) => {};
    (@unless [reset $($own:ident)*] reset $($rest:tt)+) => {};
    (@unless [momentum $($own:ident)*] momentum $($rest:tt)+) => {};
    (@unless [validate $($own:ident)*] validate $($rest:tt)+) => {};
    (@unless [follows_attributes $($own:ident)*] follows_attributes $($rest:tt)+) => {};
    (@unless [only_gathers $($own:ident)*] only_gathers $($rest:tt)+) => {};
    (@unless [drop_gathered $($own:ident)*] drop_gathered $($rest:tt)+) => {};
    (@unless [begin_trial $($own:ident)*] begin_trial $($rest:tt)+) => {};
    (@unless [end_trial $($own:ident)*] end_trial $($rest:tt)+) => {};
    (@unless [complete_gradients $($own:ident)*] complete_gradients $($rest:tt)+) => {};
    (@unless [failed_update $($own:ident)*] failed_update $($rest:tt)+) => {};
    (@unless [update_owned $($own:ident)*] update_owned $($rest:tt)+) => {};
    (@unless [averages_over_ranks $($own:ident)*] averages_over_ranks $($rest:tt)+) => {};
    (@unless [average_over_ranks $($own:ident)*] average_over_ranks $($rest:tt)+) => {};
    (@unless [end_averaging $($own:ident)*] end_averaging $($rest:tt)+) => {};
    (@unless [shards $($own:ident)*] shards $($rest:tt)+) => {};
    (@unless [groups $($own:ident)*] groups $($rest:tt)+) => {};
    (@unless [$other:ident $($own:ident)*] $($rest:tt)+) => {
        $crate::__forward! { @unless [$($own)*] $($rest)+ }
    };
    (
        @unless [] $method:ident(&mut $self:ident $(, $name:ident: $type:ty)*) [$($out:ty)?]
        $arms:tt
    ) => {
        fn $method(&mut $self $(, $name: $type)*) $(-> $out)? {
            $crate::__forward! { @match $self $method ($($name),*) $arms }
        }
    };
    (
        @unless [] $method:ident(&$self:ident $(, $name:ident: $type:ty)*) [$($out:ty)?]
        $arms:tt
    ) => {
        fn $method(&$self $(, $name: $type)*) $(-> $out)? {
            $crate::__forward! { @match $self $method ($($name),*) $arms }
        }
    };
    (@match $self:ident $method:ident $arguments:tt [$($pattern:pat => $inner:ident),+]) => {
        match $self {
            $($pattern => $inner.$method $arguments,)+
        }
    };
}
