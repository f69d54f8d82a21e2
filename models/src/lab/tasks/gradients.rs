//! A walk over a model's trained tensors and their gradients.

use dfdx::{
    prelude::{Cpu, CpuError, Dtype},
    tensor::Gradients,
};
use tlr::{
    __private::{Model, Names, Seen},
    optim::Buffer,
};

/// What is done with a tensor and its gradient.
type Each<'a, E> = dyn FnMut(&Seen<'_, E, Cpu>, &mut Buffer<E, Cpu>) + 'a;

/// Calls `each` with each trained tensor and its gradient, in the order in which dfdx walks them.
pub(super) fn each_gradient<E: Dtype>(
    model: &dyn Model<E, Cpu>,
    gradients: &mut Gradients<E, Cpu>,
    each: &mut Each<'_, E>,
) -> Result<(), CpuError>
where
    Cpu: tlr::Backend<E>,
{
    let mut walked = Ok(());
    model.look(Names::Untold, &mut |seen| {
        if seen.is_buffer {
            return;
        }
        match seen.gradient(gradients) {
            Ok(gradient) => each(&seen, gradient),
            Err(error) => walked = Err(error),
        }
    });
    walked
}
