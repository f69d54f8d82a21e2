//! [`Stored`]: a tensor in the form that a checkpoint stores.

use super::Bf16;
use crate::error::Difference;
use dfdx::shapes::Dtype;
use safetensors::Dtype as StoredDtype;

/// An element type that a checkpoint can store: `f32`, `f64` and, with the feature `f16`, `f16` and
/// `AMP<f16>`.
///
/// The file holds each element bit for bit, in little-endian order.
///
/// # Example
/// A function that saves a trainer of any model whose elements a checkpoint can store.
/// ```
/// use tlr::{optim::Resumable, Element, Error, Newton};
///
/// fn save<Opt: Resumable>(opt: &Newton<Opt>, model: &Opt::Model) -> Result<(), Error>
/// where
///     Opt::Dtype: Element,
/// {
///     opt.save(model, "run.safetensors")
/// }
/// ```
pub trait Element: Dtype + sealed::Sealed {
    #[doc(hidden)]
    const STORED: StoredDtype;
    #[doc(hidden)]
    const NAME: &'static str;
    #[doc(hidden)]
    fn append(self, bytes: &mut Vec<u8>);
    /// Writes the element over as many bytes as it has.
    #[doc(hidden)]
    fn write_to(self, bytes: &mut [u8]);
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    #[cfg(feature = "f16")]
    impl Sealed for half::f16 {}
    #[cfg(feature = "f16")]
    impl Sealed for dfdx::dtypes::AMP<half::f16> {}
}

macro_rules! element {
    ($E:ty, $stored:ident, $name:literal, $to:expr, $from:expr) => {
        impl Element for $E {
            const STORED: StoredDtype = StoredDtype::$stored;
            const NAME: &'static str = $name;

            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&($to)(self).to_le_bytes());
            }

            #[inline(always)]
            fn write_to(self, bytes: &mut [u8]) {
                let own = ($to)(self).to_le_bytes();
                if let Some(bytes) = bytes.first_chunk_mut() {
                    *bytes = own;
                }
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(($from)(bytes.try_into().ok()?))
            }
        }
    };
}

element!(f32, F32, "f32", |v: Self| v, Self::from_le_bytes);
element!(f64, F64, "f64", |v: Self| v, Self::from_le_bytes);
#[cfg(feature = "f16")]
element!(half::f16, F16, "f16", |v: Self| v, Self::from_le_bytes);
#[cfg(feature = "f16")]
element!(dfdx::dtypes::AMP<half::f16>, F16, "AMP<f16>", |v: Self| v.0, |bytes| Self(
    half::f16::from_le_bytes(bytes)
));

/// A tensor in the form that a checkpoint file stores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    pub(crate) fn new<E: Element>(shape: Vec<usize>, values: &[E]) -> Self {
        let mut bytes = Vec::with_capacity(std::mem::size_of_val(values));
        values.iter().for_each(|value| value.append(&mut bytes));
        Self { dtype: E::STORED, shape, bytes }
    }

    pub(crate) fn of_bf16(shape: Vec<usize>, values: &[Bf16]) -> Self {
        let bytes = values.iter().flat_map(|value| value.0.to_le_bytes()).collect();
        Self { dtype: StoredDtype::BF16, shape, bytes }
    }

    pub(crate) fn to_bf16(&self) -> Vec<Bf16> {
        let (values, _) = self.bytes.as_chunks();
        values.iter().map(|bytes| Bf16(u16::from_le_bytes(*bytes))).collect()
    }

    /// The type and the shape of a tensor, without its elements.
    pub(crate) fn outline(dtype: StoredDtype, shape: Vec<usize>) -> Self {
        Self { dtype, shape, bytes: Vec::new() }
    }

    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self { dtype: StoredDtype::U8, shape: vec![bytes.len()], bytes }
    }

    /// In what this tensor of a file differs from that of `here`: in its type, or in its shape.
    pub(crate) fn difference(&self, here: &Self, tensor: String) -> Option<Difference> {
        if self.dtype != here.dtype {
            let [file, here] = [self, here].map(|stored| format!("{:?}", stored.dtype));
            Some(Difference::Dtype { tensor, file, here })
        } else if self.shape != here.shape {
            let [file, here] = [self, here].map(|stored| stored.shape.clone());
            Some(Difference::Shape { tensor, file, here })
        } else {
            None
        }
    }

    /// The elements. `E` must be the type that was stored.
    pub(crate) fn to_vec<E: Element>(&self) -> Vec<E> {
        let mut values = vec![E::default(); self.bytes.len() / std::mem::size_of::<E>()];
        self.copy_into(&mut values);
        values
    }

    /// Copies the elements to `values`, which must have the same length. `E` must be the type that
    /// was stored.
    pub(crate) fn copy_into<E: Element>(&self, values: &mut [E]) {
        let stored = self.bytes.chunks_exact(std::mem::size_of::<E>());
        for (value, bytes) in values.iter_mut().zip(stored) {
            *value = E::from_bytes(bytes).unwrap_or_default();
        }
    }
}
