//! [`Compression`]: how gradients are written into messages.

use crate::tensors::{wide, Bf16, Element};
use std::mem::size_of;

/// The format in which gradients travel between ranks. They are summed in f64 all the same.
///
/// Example: [`DataParallel::compression`](crate::DataParallel::compression).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// As their own type, bit for bit.
    #[default]
    None,
    /// As bfloat16, in 16 bits: 8 bits of precision over the whole range of f32.
    Bf16,
    /// As f16, in 16 bits: 11 bits of precision, but nothing above 65504, which becomes infinite,
    /// and little below 6e-8, which becomes 0.
    #[cfg(feature = "f16")]
    F16,
}

impl Compression {
    /// The bytes of an element.
    pub(super) fn width<E>(self) -> usize {
        match self {
            Self::None => size_of::<E>(),
            _ => 2,
        }
    }

    /// Encodes `values` into the `bytes` of a message.
    pub(super) fn encode<E: Element>(self, values: &[E], bytes: &mut [u8]) {
        let places = bytes.chunks_exact_mut(self.width::<E>()).zip(values);
        match self {
            Self::None => places.for_each(|(place, value)| value.write_to(place)),
            Self::Bf16 => places.for_each(|(place, value)| {
                place.copy_from_slice(&to_bf16(wide(*value)).to_le_bytes());
            }),
            #[cfg(feature = "f16")]
            Self::F16 => places.for_each(|(place, value)| {
                let value = half::f16::from_f64(wide(*value));
                place.copy_from_slice(&value.to_le_bytes());
            }),
        }
    }

    /// Calls `look` with each element of a message, as f64.
    pub(super) fn each<E: Element>(self, bytes: &[u8], mut look: impl FnMut(usize, f64)) {
        let elements = bytes.chunks_exact(self.width::<E>()).enumerate();
        match self {
            Self::None => elements.for_each(|(index, bytes)| {
                look(index, E::from_bytes(bytes).map_or(f64::NAN, wide));
            }),
            Self::Bf16 => elements.for_each(|(index, bytes)| look(index, from_bf16(bytes))),
            #[cfg(feature = "f16")]
            Self::F16 => elements.for_each(|(index, bytes)| {
                let bits = bytes.try_into().map_or(0, u16::from_le_bytes);
                look(index, half::f16::from_bits(bits).to_f64());
            }),
        }
    }

    /// Reads the elements of a message.
    pub(super) fn decode<E: Element>(self, bytes: &[u8], values: &mut [E]) {
        match self {
            Self::None => {
                for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(size_of::<E>())) {
                    *value = E::from_bytes(bytes).unwrap_or_default();
                }
            }
            _ => {
                let mut values = values.iter_mut();
                self.each::<E>(bytes, |_, read| {
                    if let (Some(value), Some(read)) = (values.next(), E::from_f64(read)) {
                        *value = read;
                    }
                });
            }
        }
    }
}

/// A NaN is written as one that is still NaN after rounding.
fn to_bf16(value: f64) -> u16 {
    match value.is_nan() {
        true => 0x7fc0,
        false => Bf16::nearest(value).0,
    }
}

fn from_bf16(bytes: &[u8]) -> f64 {
    Bf16(bytes.try_into().map_or(0, u16::from_le_bytes)).to_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(compression: Compression, values: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; compression.width::<f32>() * values.len()];
        compression.encode(values, &mut bytes);
        let mut read = vec![0.0; values.len()];
        compression.decode(&bytes, &mut read);
        let mut each = Vec::new();
        compression.each::<f32>(&bytes, |_, value| each.push(value as f32));
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&each), bits(&read));
        read
    }

    #[test]
    fn uncompressed_every_bit_arrives() {
        let values = [0.0, -0.0, 1.0 + f32::EPSILON, f32::MIN_POSITIVE, f32::INFINITY, -1e30];
        let read = there_and_back(Compression::None, &values);
        assert!(read.iter().zip(values).all(|(read, value)| read.to_bits() == value.to_bits()));
        assert!(there_and_back(Compression::None, &[f32::NAN])[0].is_nan());
    }

    /// Fails if NaN is rounded like a number: f32's largest NaN would become −0.
    #[test]
    fn bf16_keeps_range_and_nan() {
        let read = there_and_back(Compression::Bf16, &[1e30, -3.0, 1.0 + 1e-4, f32::INFINITY]);
        assert!((read[0] / 1e30 - 1.0).abs() < 4e-3);
        assert_eq!(&read[1..], [-3.0, 1.0, f32::INFINITY]);
        let nan = f32::from_bits(0x7fff_ffff);
        assert!(there_and_back(Compression::Bf16, &[nan])[0].is_nan());
    }

    #[cfg(feature = "f16")]
    #[test]
    fn f16_has_more_bits_and_less_range() {
        let read = there_and_back(Compression::F16, &[1.0 + 1.0 / 1024.0, 1e5, f32::NAN]);
        assert_eq!(read[..2], [1.0 + 1.0 / 1024.0, f32::INFINITY]);
        assert!(read[2].is_nan());
    }
}
