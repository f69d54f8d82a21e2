//! The columns: ways to run a job, and which of them are run by default.

use super::base::Base;

/// The rates to start from.
pub(crate) const STARTS: [f64; 4] = [1e-9, 1e-6, 1e-2, 10.0];

/// The constant rates that a learned one is compared with, from the largest down.
pub(crate) const CONSTANTS: [f64; 11] =
    [1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5];

/// A column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    pub(crate) base: Base,
    /// The rate to start from.
    pub(crate) start: f64,
    /// A rate a layer, or one for the model.
    pub(crate) per_layer: bool,
    /// `step` with the loss, or `update` without.
    pub(crate) told: bool,
    /// Whether the number of steps is told, so that rates fall to 0.
    pub(crate) horizon: bool,
}

impl Way {
    pub(crate) fn layers(self) -> &'static str {
        if self.per_layer {
            "a rate a layer"
        } else {
            "one rate"
        }
    }

    pub(crate) fn call(self) -> &'static str {
        if self.told {
            "step"
        } else {
            "update"
        }
    }

    pub(crate) fn end(self) -> &'static str {
        if self.horizon {
            "a horizon"
        } else {
            "no end told"
        }
    }
}

/// All columns.
pub(crate) fn all(base: Base) -> Vec<Way> {
    let kinds = (0..8).map(|bits| [bits & 1 == 1, bits & 2 == 2, bits & 4 == 4]);
    let of_start = |start| {
        let way = move |[per_layer, told, horizon]: [bool; 3]| Way {
            base,
            start,
            per_layer,
            told,
            horizon,
        };
        kinds.clone().map(way)
    };
    STARTS.into_iter().flat_map(of_start).collect()
}

/// The columns of one base optimizer that are run by default with the `nth` seed, from 0.
///
/// The four optimizers b and the four starts r are numbered in two bits. For each pair of them one
/// of the eight kinds is run: a rate a layer where b₀ + r₀ + n₀ is odd, without the loss where b₁ +
/// r₁ + n₁ is odd, with a horizon where b₀ + r₁ + n₂ is odd. This is an orthogonal array of sixteen
/// columns: each two values of two different factors occur in one of them at least, already with
/// one seed. Eight seeds have all 128.
pub(crate) fn covering(base: Base, nth: u64) -> Vec<Way> {
    let b = Base::ALL.iter().position(|other| *other == base).unwrap_or(0);
    let odd = |bits: usize, bit: usize| (bits >> bit) & 1 == 1;
    let way = |(r, start)| {
        let n = nth as usize;
        let bits = b ^ r ^ n;
        let horizon = odd(b, 0) ^ odd(r, 1) ^ odd(n, 2);
        Way { base, start, per_layer: odd(bits, 0), told: !odd(bits, 1), horizon }
    };
    STARTS.into_iter().enumerate().map(way).collect()
}

#[test]
fn each_two_values_of_two_factors_meet_and_eight_seeds_have_all() {
    let of_seed = |n| Base::ALL.into_iter().flat_map(move |base| covering(base, n));
    let kind = |way: &Way| [way.per_layer, way.told, way.horizon];
    for n in 0..10 {
        let ways: Vec<Way> = of_seed(n).collect();
        assert_eq!(ways.len(), 16);
        let meet = |test: &dyn Fn(&Way) -> bool| ways.iter().any(test);
        for (factor, on) in (0..3).flat_map(|factor| [(factor, false), (factor, true)]) {
            for base in Base::ALL {
                assert!(meet(&|way| way.base == base && kind(way)[factor] == on));
                assert!(STARTS.iter().all(|r| meet(&|way| way.base == base && way.start == *r)));
            }
            for start in STARTS {
                assert!(meet(&|way| way.start == start && kind(way)[factor] == on));
            }
            for (other, too) in (0..factor).flat_map(|other| [(other, false), (other, true)]) {
                assert!(meet(&|way| kind(way)[factor] == on && kind(way)[other] == too));
            }
        }
    }
    let mut ways: Vec<Way> = (0..8).flat_map(of_seed).collect();
    assert_eq!(ways.len(), 128);
    ways.retain(|way| all(way.base).contains(way));
    let twice = |(n, way): (usize, &Way)| ways[..n].contains(way);
    assert!(ways.len() == 128 && !ways.iter().enumerate().any(twice));
}
