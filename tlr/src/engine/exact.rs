//! f64 in JSON, to the bit. JSON has no numbers that are not finite, so these are words: "inf",
//! "-inf", and the bits of a NaN.

use serde::{de, Deserialize, Deserializer, Serialize, Serializer};

const NAN: &str = "nan:";

pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() || !serializer.is_human_readable() {
        serializer.serialize_f64(*value)
    } else if value.is_nan() {
        serializer.serialize_str(&format!("{NAN}{:016x}", value.to_bits()))
    } else {
        serializer.serialize_str(&value.to_string())
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number<'a> {
        Finite(f64),
        #[serde(borrow)]
        Word(std::borrow::Cow<'a, str>),
    }
    if !deserializer.is_human_readable() {
        return f64::deserialize(deserializer);
    }
    match Number::deserialize(deserializer)? {
        Number::Finite(value) => Ok(value),
        Number::Word(word) => not_finite(&word)
            .ok_or_else(|| de::Error::custom(format!("`{word}` is no number of a checkpoint"))),
    }
}

fn not_finite(word: &str) -> Option<f64> {
    let value = match word.strip_prefix(NAN) {
        Some(bits) => {
            f64::from_bits(u64::from_str_radix(bits, 16).ok().filter(|_| bits.len() == 16)?)
        }
        None => word.parse().ok().filter(|value: &f64| value.is_infinite())?,
    };
    (!value.is_finite()).then_some(value)
}

#[derive(Serialize, Deserialize)]
struct Exact(#[serde(with = "self")] f64);

/// The same format for a number that may be missing.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Exact, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Exact).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Exact>::deserialize(deserializer)?.map(|Exact(value)| value))
    }
}

/// The same format for several numbers.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, Exact, Serializer};

    pub(crate) fn serialize<S: Serializer>(values: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().copied().map(Exact))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Exact>::deserialize(from)?.into_iter().map(|Exact(value)| value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn every_kind_of_number_comes_back_to_the_bit() {
        let awkward = [0.1 + 0.2, -0.0, f64::MIN_POSITIVE / 3.0, f64::MAX, 1e23, f64::INFINITY];
        for value in awkward.into_iter().chain([f64::NEG_INFINITY, f64::NAN, -f64::NAN]) {
            let json = serde_json::to_string(&Exact(value)).unwrap();
            let Exact(back) = serde_json::from_str(&json).unwrap();
            assert_eq!(back.to_bits(), value.to_bits(), "{json}");
        }
        #[derive(Serialize, Deserialize)]
        struct List(#[serde(with = "list")] Vec<f64>);
        let json = serde_json::to_string(&List(awkward.to_vec())).unwrap();
        let List(back) = serde_json::from_str(&json).unwrap();
        assert_eq!(back.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), awkward.map(f64::to_bits));
        // Words that are never written. `nan:` with the bits of 1 would be a NaN that is finite.
        for word in ["0.5", "nan", "nan:3ff0000000000000", "nan:+ff8000000000000", "nan:7ff8", ""] {
            assert!(serde_json::from_str::<Exact>(&format!("\"{word}\"")).is_err(), "{word}");
        }
    }
}
