//! Models that are more than a chain of dfdx's layers. Each takes a batch of plain rows.

use crate::scenarios::job::{part, Rows};
use dfdx::{nn::modules, prelude::*};
use tlr::{TensorCollection, TrainableLr};

/// Implements `Module` for rows of `IN` numbers on any tape.
macro_rules! module {
    (
        $Model:ident, $in:literal -> $out:literal,
        |$model:ident, $x:ident, $tape:ident| $body:expr
    ) => {
        impl<T: Tape<f32, Cpu>> Module<Rows<$in, T>> for $Model<f32, Cpu> {
            type Output = Rows<$out, T>;
            type Error = CpuError;

            fn try_forward(&self, x: Rows<$in, T>) -> Result<Self::Output, CpuError> {
                let ($x, $tape) = x.split_tape();
                let $model = self;
                Ok($body)
            }
        }
    };
}

/// A line, and a layer that has no part in it.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(crate) struct Idle<E: Dtype, D: Device<E>> {
    pub(crate) used: modules::Linear<8, 1, E, D>,
    pub(crate) idle: modules::Linear<4, 4, E, D>,
}
module!(Idle, 8 -> 1, |model, x, tape| model.used.forward(x.put_tape(tape)));

/// The sum of two lines. The last input multiplies the second.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(crate) struct Late<E: Dtype, D: Device<E>> {
    early: modules::Linear<8, 1, E, D>,
    late: modules::Linear<8, 1, E, D>,
}
module!(Late, 17 -> 1, |model, x, tape| {
    let early = model.early.forward(part::<17, 8>(&x, 0).put_tape(tape));
    let late = model.late.forward(part::<17, 8>(&x, 8).retaped::<T>());
    early + late * part::<17, 1>(&x, 16)
});

/// One head over four tokens of eight numbers, their mean, and four logits.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(crate) struct Attention<E: Dtype, D: Device<E>> {
    attention: modules::MultiHeadAttention<8, 1, 8, 8, E, D>,
    head: modules::Linear<8, 4, E, D>,
}
module!(Attention, 32 -> 4, |model, x, tape| {
    let shape = (x.shape().0, Const::<4>, Const::<8>);
    let tokens = x.put_tape(tape).reshape_like(&shape);
    model.head.forward(model.attention.forward(tokens).mean::<(usize, Const<8>), Axis<1>>())
});

/// A recurrent network over six numbers.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(crate) struct Recurrent<E: Dtype, D: Device<E>> {
    seen: modules::Linear<1, 8, E, D>,
    kept: modules::UnbiasedLinear<8, 8, E, D>,
    head: modules::Linear<8, 1, E, D>,
}
module!(Recurrent, 6 -> 1, |model, x, tape| {
    let mut state = model.seen.forward(part::<6, 1>(&x, 0).put_tape(tape)).tanh();
    for n in 1..6 {
        let seen = model.seen.forward(part::<6, 1>(&x, n).retaped::<T>());
        state = (model.kept.forward(state) + seen).tanh();
    }
    model.head.forward(state)
});

/// A table of sixteen words, and a line over what it holds for one.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(crate) struct Words<E: Dtype, D: Device<E>> {
    table: modules::Embedding<16, 4, E, D>,
    head: modules::Linear<4, 1, E, D>,
}
module!(Words, 1 -> 1, |model, x, tape| {
    let words: Vec<usize> = x.as_vec().into_iter().map(|word| word as usize).collect();
    let words = x.device().tensor_from_vec(words, (x.shape().0,));
    model.head.forward(model.table.forward(words.put_tape(tape)))
});
