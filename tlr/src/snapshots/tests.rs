//! Tests of snapshots on small models, with results computed by hand.

#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::{engine::WindowProducts, error::DeviceError};
use dfdx::prelude::*;

#[test]
fn spacings_and_norms() {
    assert_eq!(spacing::<f32>(), f64::from(f32::EPSILON));
    assert_eq!(spacing::<f64>(), f64::EPSILON);
    let dev = Cpu::default();
    let model = (dev.tensor([3.0f32, 4.0]), dev.tensor([0.0f32]));
    let mut snapshots = Snapshots::<f32>::new(&model, 1, &|_| Some(0), Layout::default()).unwrap();
    snapshots.take(&model, TensorKind::Weights).unwrap();
    assert_eq!(snapshots.norms(None).unwrap(), [5.0]);
}

/// Checks A, B and W over several windows, for tensors that are copied, tensors that are lent, and
/// tensors that threads share.
#[test]
fn advancing_moves_each_snapshot_one_window_back() {
    const LARGE: usize = (1 << 20) + 1;
    const ALL: usize = 3 + LARGE + 5;
    let dev = Cpu::default();
    let mut model = (dev.zeros::<Rank1<3>>(), dev.zeros::<Rank1<LARGE>>(), dev.zeros::<Rank1<5>>());
    let mut snapshots = Snapshots::<f32>::new(&model, 1, &|_| Some(0), Layout::default()).unwrap();
    snapshots.take(&model, TensorKind::Weights).unwrap();
    for window in 1..6 {
        let of = |window: i32| -> Vec<f32> {
            (0..ALL).map(|index| 100.0 * window as f32 + index as f32).collect()
        };
        if window > 1 {
            let (mut last, mut before) = (Vec::new(), Vec::new());
            for tensor in snapshots.tensors() {
                let OlderSnapshot::Weights(of_before) = &tensor.before else {
                    panic!("no direction")
                };
                last.push(tensor.last.read().unwrap());
                before.push(of_before.read().unwrap());
            }
            assert!(last.concat() == of(window - 1));
            let two_ago = if window > 2 { of(window - 2) } else { vec![0.0; ALL] };
            assert!(before.concat() == two_ago);
        }
        let now = of(window);
        model.0.copy_from(&now[..3]);
        model.1.copy_from(&now[3..3 + LARGE]);
        model.2.copy_from(&now[3 + LARGE..]);
        let dots = snapshots.advance(&model, None).unwrap();
        if window > 2 {
            let sum = 1e4 * ALL as f64;
            assert_eq!(dots, [WindowProducts { across: sum, own: sum }]);
        }
    }
    // If a tensor is not finite, B of all tensors stays as it was.
    let last = |snapshots: &Snapshots<f32>| -> Vec<f32> {
        let tensors = snapshots.tensors().iter();
        tensors.flat_map(|tensor| tensor.last.read().unwrap().to_vec()).collect()
    };
    let good = last(&snapshots);
    for (bad, name) in [(2, "2"), (1, "1")] {
        match bad {
            2 => model.2.copy_from(&[f32::NAN; 5]),
            _ => model.1.copy_from(&[f32::INFINITY; LARGE]),
        }
        let Err(Unmoved::NotFinite(tensor)) = snapshots.advance(&model, None) else {
            panic!("{name}")
        };
        assert_eq!(tensor, name);
        assert!(last(&snapshots) == good);
    }
}

/// All displacements are powers of two, so bfloat16 keeps them exactly. Fails if the direction is
/// that of another window, if weights that are not finite move a snapshot, or if a step back goes
/// the wrong way.
#[test]
fn a_direction_in_place_of_the_snapshot_before() {
    let dev = Cpu::default();
    let mut model = (dev.zeros::<Rank1<3>>(), dev.zeros::<Rank1<40>>());
    let layout = Layout { directions: true, ..Layout::default() };
    let mut snapshots = Snapshots::<f32>::new(&model, 1, &|_| Some(0), layout).unwrap();
    assert!(snapshots.tensors.iter().all(|t| matches!(t.before, OlderSnapshot::Direction(_))));
    snapshots.take(&model, TensorKind::Weights).unwrap();
    let last = |snapshots: &Snapshots<f32>| -> Vec<f32> {
        snapshots.tensors.iter().flat_map(|t| t.last.read().unwrap().to_vec()).collect()
    };
    for (weight, own, across) in [(4.0, 16.0, 0.0), (6.0, 4.0, 8.0), (5.0, 1.0, -2.0)] {
        model.0.copy_from(&[weight; 3]);
        model.1.copy_from(&[weight; 40]);
        let dots = snapshots.advance(&model, None).unwrap();
        assert_eq!(dots, [WindowProducts { across: 43.0 * across, own: 43.0 * own }]);
        assert_eq!(last(&snapshots), [weight; 43]);
    }
    model.1.copy_from(&[f32::NAN; 40]);
    let Err(Unmoved::NotFinite(tensor)) = snapshots.advance(&model, None) else { panic!("finite") };
    assert_eq!((&*tensor, last(&snapshots)), ("1", vec![5.0; 43]));
    snapshots.go_back(&mut model, Target::BeforeLast, None).unwrap();
    assert_eq!(last(&snapshots), [6.0; 43]);
    assert_eq!(model.0.array(), [6.0; 3]);
}

/// The first of two ranks, while the other one fails or has the same sums as this one.
struct OfTwo {
    fails: bool,
}

impl crate::optim::Shards for OfTwo {
    fn place(&self) -> (usize, usize) {
        (0, 2)
    }

    fn exchange_numbers(&self, own: Result<Vec<f64>, Error>) -> Result<Vec<Vec<f64>>, Error> {
        match self.fails {
            true => Err(Error::Device(DeviceError::new("the other rank's"))),
            false => Ok(vec![own.clone().unwrap(), own.unwrap()]),
        }
    }
}

/// A model, and the first of two ranks' half of its snapshots.
fn halved(directions: bool) -> (Tensor<Rank1<80>, f32, Cpu>, Snapshots<f32>) {
    let model = Cpu::default().zeros::<Rank1<80>>();
    let layout = Layout { directions, place: Some((0, 2)), ..Layout::default() };
    let mut snapshots = Snapshots::new(&model, 1, &|_| Some(0), layout).unwrap();
    snapshots.take(&model, TensorKind::Weights).unwrap();
    (model, snapshots)
}

/// A rank fails while a window ends. Fails if B is replaced before the sums of all ranks are there:
/// a rollback would then lead to the weights that were to be undone.
#[test]
fn a_window_that_another_rank_cannot_end_leaves_the_snapshot() {
    for directions in [false, true] {
        let (mut model, mut snapshots) = halved(directions);
        let last = |snapshots: &Snapshots<f32>| snapshots.tensors[0].last.read().unwrap().to_vec();
        for (weight, fails) in [(2.0, false), (6.0, true), (7.0, false)] {
            let before = last(&snapshots);
            model.copy_from(&[weight; 80]);
            let ended = snapshots.advance(&model, Some(&OfTwo { fails }));
            assert_eq!(ended.is_err(), fails);
            let expected = if fails { before } else { vec![weight; 40] };
            assert_eq!(last(&snapshots), expected, "{directions}");
        }
    }
}

/// A rank fails on the way back to A. Fails if B is A then: a second way back would lead too far.
#[test]
fn a_way_back_that_another_rank_cannot_go_leaves_the_snapshots() {
    for directions in [false, true] {
        let (mut model, mut snapshots) = halved(directions);
        model.copy_from(&[2.0; 80]);
        snapshots.advance(&model, Some(&OfTwo { fails: false })).unwrap();
        model.copy_from(&[5.0; 80]);
        for (fails, expected) in [(true, 5.0), (false, 0.0)] {
            let shards = OfTwo { fails };
            let back = snapshots.go_back(&mut model, Target::BeforeLast, Some(&shards));
            assert_eq!(back.is_err(), fails);
            assert_eq!(model.array(), [expected; 80], "{directions}");
        }
    }
}

/// All that a window's end leaves as it was if it fails: B, and the sketches.
fn kept(snapshots: &Snapshots<f32>) -> Vec<Vec<f64>> {
    let last = snapshots.tensors.iter().map(|tensor| tensor.last.read().unwrap().to_vec());
    let last = last.map(|last| last.into_iter().map(f64::from).collect());
    let sketches = snapshots.sketches().into_iter().flat_map(Sketches::state);
    last.chain(sketches.cloned()).collect()
}

/// Two windows have ended, and the weights have moved on since.
fn in_the_third_window(layout: Layout) -> (Snapshots<f32>, Module) {
    let mut model = Cpu::default().build_module::<(Linear<2, 16>, BatchNorm1D<16>), f32>();
    let mut snapshots = Snapshots::<f32>::new(&model, 1, &|_| Some(0), layout).unwrap();
    for kind in [TensorKind::Weights, TensorKind::Buffers] {
        snapshots.take(&model, kind).unwrap();
    }
    for window in [1.0_f32, 4.0, 9.0] {
        tensors::write(&mut model, |_, len| {
            Some((0..len).map(|index| window + index as f32).collect())
        });
        if window < 9.0 {
            snapshots.advance(&model, Some(&OfTwo { fails: false })).unwrap();
        }
    }
    (snapshots, model)
}

type Module = <(Linear<2, 16>, BatchNorm1D<16>) as BuildOnDevice<Cpu, f32>>::Built;

/// The window's end fails at each place where it can fail on the host: each weight that is not
/// finite, and another rank. Fails if B is replaced before all of that is known, or if anything but
/// A and the product with it is not the same when the end is tried again.
#[test]
fn a_window_that_cannot_end_leaves_all_but_a() {
    let sharded = Layout { place: Some((0, 2)), ..Layout::default() };
    for layout in [
        Layout::default(),
        Layout { directions: true, ..Layout::default() },
        sharded,
        Layout { directions: true, ..sharded },
        Layout { bins: Some(64), ..Layout::default() },
    ] {
        let (mut unharmed, good) = in_the_third_window(layout);
        let trained: Vec<_> = tensors::list(&good).iter().map(|info| info.trainable).collect();
        let weights = (0..trained.len()).filter(|place| trained[*place]).map(Some);
        let dots = unharmed.advance(&good, Some(&OfTwo { fails: false })).unwrap();
        // A place in the walk, or the other rank.
        for place in weights.chain(layout.place.map(|_| None)) {
            let (mut snapshots, mut model) = in_the_third_window(layout);
            let before = kept(&snapshots);
            let mut walked = 0..;
            tensors::write(&mut model, |_, len| {
                (walked.next() == place).then(|| vec![f32::NAN; len].into())
            });
            let ended = snapshots.advance(&model, Some(&OfTwo { fails: place.is_none() }));
            assert!(ended.is_err());
            assert_eq!(kept(&snapshots), before, "{layout:?}, {place:?}");

            let (_, good) = in_the_third_window(layout);
            let again = snapshots.advance(&good, Some(&OfTwo { fails: false })).unwrap();
            assert_eq!(again[0].own, dots[0].own, "{layout:?}, {place:?}");
            assert_eq!(kept(&snapshots), kept(&unharmed), "{layout:?}, {place:?}");
            for (last, _) in kept(&snapshots).iter().zip(&trained).filter(|(_, trained)| !**trained)
            {
                assert_eq!(last[..2], [9.0, 10.0], "a buffer as it was at the window's end");
            }
        }
    }
}
