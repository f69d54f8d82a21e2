//! Files of weights, whole and damaged, and every way in which one can differ from a model.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::layers::{EncoderLayer, MultiHeadAttention};
use dfdx::{nn::modules::Linear, prelude::*};
use proptest::prelude::{any, prop_assert, proptest, ProptestConfig};

type Entry = (&'static str, Stored, Vec<usize>, Vec<u8>);

fn f32s(name: &'static str, shape: &[usize], first: f32) -> Entry {
    let len: usize = shape.iter().product();
    let bytes = (0..len).flat_map(|i| (first + i as f32).to_le_bytes()).collect();
    (name, Stored::F32, shape.to_vec(), bytes)
}

fn f64s(name: &'static str, shape: &[usize], first: f64) -> Entry {
    let len: usize = shape.iter().product();
    let bytes = (0..len).flat_map(|i| (first + i as f64).to_le_bytes()).collect();
    (name, Stored::F64, shape.to_vec(), bytes)
}

fn file(entries: &[Entry]) -> Vec<u8> {
    let views = entries.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

type Small<E> = Linear<2, 3, E, Cpu>;

fn small<E>() -> Small<E>
where
    E: Dtype + num_traits::Float + rand_distr::uniform::SampleUniform,
    Cpu: Device<E>,
{
    BuildModule::build(&Cpu::default())
}

fn mismatch(result: Result<(), WeightsError>) -> Vec<WeightsDifference> {
    match result {
        Err(WeightsError::Mismatch(differences)) => differences,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn either_dtype_to_either() {
    for entries in [
        [f32s("weight", &[3, 2], 1.0), f64s("bias", &[3], 0.5)],
        [f64s("weight", &[3, 2], 1.0), f32s("bias", &[3], 0.5)],
    ] {
        let (mut single, mut double) = (small::<f32>(), small::<f64>());
        load_bytes(&mut single, &file(&entries), &Names::default()).unwrap();
        load_bytes(&mut double, &file(&entries), &Names::default()).unwrap();
        assert_eq!(single.weight.array(), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        assert_eq!(double.weight.array(), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        assert_eq!(double.bias.array(), [0.5, 1.5, 2.5]);
    }
}

// Numbers that f16 and bf16 both hold exactly.
#[test]
fn halves_are_widened() {
    let values = [1.0, -0.5, 65_280.0, 3.0517578125e-5, 0.0, -0.0];
    let f16s = values.map(|value| f16::from_f64(value).to_le_bytes()).concat();
    let bf16s = values.map(|value| bf16::from_f64(value).to_le_bytes()).concat();
    for (dtype, bytes) in [(Stored::F16, f16s), (Stored::BF16, bf16s)] {
        let entries = [("weight", dtype, vec![3, 2], bytes), f32s("bias", &[3], 0.5)];
        let (mut single, mut double) = (small::<f32>(), small::<f64>());
        load_bytes(&mut single, &file(&entries), &Names::default()).unwrap();
        load_bytes(&mut double, &file(&entries), &Names::default()).unwrap();
        assert_eq!(double.weight.as_vec(), values);
        let bits = |value: f64| (value as f32).to_bits();
        let found: Vec<u32> = single.weight.as_vec().iter().map(|value| value.to_bits()).collect();
        assert_eq!(found, values.map(bits), "{dtype:?}");
    }
}

// The head of a model for three classes, where the model has two. Fails if the part's own weights
// are touched, if another part by a name that begins alike is left out, or if its tensors are still
// asked for.
#[test]
fn a_part_that_is_left_out_keeps_its_weights() {
    type Net = (Linear<2, 3, f64, Cpu>, Linear<3, 2, f64, Cpu>);
    let mut model: Net = BuildModule::build(&Cpu::default());
    let before = model.1.clone();
    let of_file = [
        f32s("0.weight", &[3, 2], 1.0),
        f32s("0.bias", &[3], 0.5),
        f32s("head.weight", &[3, 3], 9.0),
        f32s("head.bias", &[3], 9.0),
    ];
    let names = || Names::default().prefix("1.", "head.");
    let found = mismatch(load_bytes(&mut model, &file(&of_file), &names()));
    assert!(matches!(
        found[..],
        [WeightsDifference::Shape { .. }, WeightsDifference::Shape { .. }]
    ));

    load_bytes(&mut model, &file(&of_file), &names().leave_out("1")).unwrap();
    assert_eq!(model.0.weight.array(), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    assert_eq!(model.1.weight.array(), before.weight.array());
    assert_eq!(model.1.bias.array(), before.bias.array());

    // A file with one tensor of the part, and a file without the part.
    load_bytes(&mut model, &file(&of_file[..2]), &names().leave_out("1")).unwrap();
    let half = [&of_file[..2], &[f32s("head.weight", &[2, 3], 7.0)]].concat();
    load_bytes(&mut model, &file(&half), &names().leave_out("1.bias")).unwrap();
    assert_eq!(model.1.weight.array(), [[7.0, 8.0, 9.0], [10.0, 11.0, 12.0]]);
    assert_eq!(model.1.bias.array(), before.bias.array());
}

#[test]
fn a_part_that_is_not_there_cannot_be_left_out() {
    let entries = [f32s("weight", &[3, 2], 1.0), f32s("bias", &[3], 0.5)];
    let names = Names::default().leave_out("bias.").leave_out("w").leave_out("weight.x");
    let found = mismatch(load_bytes(&mut small::<f32>(), &file(&entries), &names));
    let none = |part: &str| WeightsDifference::NoPart { part: part.to_owned() };
    assert_eq!(found, [none("w"), none("weight.x")]);
    assert_eq!(found[0].to_string(), "the model has no w to leave out");
}

// The keys of an attention. The file has its queries, keys and values in one tensor.
#[test]
fn a_part_of_what_is_packed_can_be_left_out() {
    let mut model = MultiHeadAttention::<2, 1, f64, Cpu>::build(&Cpu::default());
    let before = model.k_proj.weight.array();
    let entries = [
        f32s("in_proj_weight", &[6, 2], 0.0),
        f32s("in_proj_bias", &[6], 100.0),
        f32s("out_proj.weight", &[2, 2], 200.0),
        f32s("out_proj.bias", &[2], 300.0),
    ];
    let names = Names::torch_transformer().leave_out("k_proj");
    load_bytes(&mut model, &file(&entries), &names).unwrap();
    assert_eq!(model.q_proj.weight.array(), [[0.0, 1.0], [2.0, 3.0]]);
    assert_eq!(model.k_proj.weight.array(), before);
    assert_eq!(model.v_proj.weight.array(), [[8.0, 9.0], [10.0, 11.0]]);
}

// An optimizer would not know the gradient of a tensor that was exchanged for another one.
#[test]
fn tensors_stay_who_they_are() {
    let mut model = small::<f64>();
    let before = model.weight.clone();
    let entries = [f32s("weight", &[3, 2], 1.0), f32s("bias", &[3], 0.5)];
    load_bytes(&mut model, &file(&entries), &Names::default()).unwrap();
    let g = model.weight.leaky_trace().sum().backward();
    assert_eq!(g.get(&before).as_vec(), [1.0; 6]);
    assert_ne!(before.array(), model.weight.array());
}

#[test]
fn a_broadcast_tensor_is_filled() {
    let mut model = small::<f64>();
    model.bias = Cpu::default().tensor(0.25).broadcast();
    let entries = [f32s("weight", &[3, 2], 1.0), f32s("bias", &[3], 0.5)];
    load_bytes(&mut model, &file(&entries), &Names::default()).unwrap();
    assert_eq!(model.bias.array(), [0.5, 1.5, 2.5]);
}

// One error names all differences, and nothing is changed.
#[test]
fn everything_that_differs_is_named() {
    let mut model = (small::<f32>(), small::<f32>());
    let before = model.clone();
    let huge = ("1.bias", Stored::F64, vec![3], [1e300f64; 3].map(f64::to_le_bytes).concat());
    let entries = [
        f32s("0.weight", &[2, 3], 1.0),
        ("0.bias", Stored::I64, vec![3], vec![0; 24]),
        huge,
        f32s("other", &[1], 1.0),
        f32s("counter", &[1], 1.0),
    ];
    let names = Names::default().ignoring(|name| name == "counter");
    let found = mismatch(load_bytes(&mut model, &file(&entries), &names));
    let expected = [
        WeightsDifference::Shape {
            name: "0.weight".into(),
            location: "0.weight".into(),
            expected: vec![3, 2],
            found: vec![2, 3],
        },
        WeightsDifference::Dtype {
            name: "0.bias".into(),
            location: "0.bias".into(),
            found: "I64".into(),
        },
        WeightsDifference::Missing { name: "1.weight".into(), location: "1.weight".into() },
        WeightsDifference::Range { name: "1.bias".into(), location: "1.bias".into() },
        WeightsDifference::Extra { location: "other".into() },
    ];
    assert_eq!(found, expected);
    assert_eq!(model.0.weight.array(), before.0.weight.array());
    assert_eq!(model.1.bias.array(), before.1.bias.array());
}

// q, k and v are told apart by their order. Fails if one is taken for another.
#[test]
fn packed_projections() {
    let dev = Cpu::default();
    let mut model = MultiHeadAttention::<2, 1, f64, Cpu>::build(&dev);
    let entries = [
        f32s("in_proj_weight", &[6, 2], 0.0),
        f32s("in_proj_bias", &[6], 100.0),
        f32s("out_proj.weight", &[2, 2], 200.0),
        f32s("out_proj.bias", &[2], 300.0),
    ];
    load_bytes(&mut model, &file(&entries), &Names::torch_transformer()).unwrap();
    assert_eq!(model.q_proj.weight.array(), [[0.0, 1.0], [2.0, 3.0]]);
    assert_eq!(model.k_proj.weight.array(), [[4.0, 5.0], [6.0, 7.0]]);
    assert_eq!(model.v_proj.weight.array(), [[8.0, 9.0], [10.0, 11.0]]);
    assert_eq!(model.k_proj.bias.array(), [102.0, 103.0]);
    assert_eq!(model.out_proj.weight.array(), [[200.0, 201.0], [202.0, 203.0]]);
}

// A model with queries only leaves two thirds of what is packed.
#[test]
fn parts_that_nobody_asks_for_are_extra() {
    let mut model = small::<f64>();
    let entries = [f32s("packed_weight", &[9, 2], 0.0), f32s("packed_bias", &[9], 0.0)];
    let names = Names::new(|name| Location { name: format!("packed_{name}"), part: Some((1, 3)) });
    let found = mismatch(load_bytes(&mut model, &file(&entries), &names));
    assert_eq!(found.len(), 4);
    let part = Location { name: "packed_bias".into(), part: Some((0, 3)) };
    assert_eq!(found[0], WeightsDifference::Extra { location: part });
}

// Two numbers without dimensions, packed into a vector. Fails if the loader looks for them in a
// single number, which has no second part.
#[test]
fn packed_numbers() {
    let dev = Cpu::default();
    let mut model: (Tensor<Rank0, f64, Cpu>, Tensor<Rank0, f64, Cpu>) = (dev.zeros(), dev.zeros());
    let names = || {
        Names::new(|name| Location {
            name: "packed".into(),
            part: Some((usize::from(name.starts_with('1')), 2)),
        })
    };
    load_bytes(&mut model, &file(&[f32s("packed", &[2], 3.0)]), &names()).unwrap();
    assert_eq!((model.0.array(), model.1.array()), (3.0, 4.0));
    let found = mismatch(load_bytes(&mut model, &file(&[f32s("packed", &[], 3.0)]), &names()));
    assert!(matches!(found[0], WeightsDifference::Shape { .. }));
}

// The fourth of three parts. Fails if a tensor is filled with too few numbers.
#[test]
fn a_part_that_cannot_be_is_missing() {
    let entries = [f32s("packed", &[9, 2], 0.0), f32s("bias", &[3], 0.0)];
    let names = Names::new(|name| match name {
        "weight" => Location { name: "packed".into(), part: Some((3, 3)) },
        other => other.into(),
    });
    let found = mismatch(load_bytes(&mut small::<f64>(), &file(&entries), &names));
    assert!(matches!(found[0], WeightsDifference::Missing { .. }));
}

#[test]
fn a_packed_tensor_of_another_shape() {
    let mut model = MultiHeadAttention::<2, 1, f64, Cpu>::build(&Cpu::default());
    let entries = [
        f32s("in_proj_weight", &[4, 2], 0.0),
        f32s("in_proj_bias", &[6], 100.0),
        f32s("out_proj.weight", &[2, 2], 200.0),
        f32s("out_proj.bias", &[2], 300.0),
    ];
    let found = mismatch(load_bytes(&mut model, &file(&entries), &Names::torch_transformer()));
    assert_eq!(found.len(), 3);
    let wanted = |d: &WeightsDifference| {
        matches!(
            d, WeightsDifference::Shape { expected, .. } if *expected == [6, 2]
        )
    };
    assert!(found.iter().all(wanted));
}

#[test]
fn names_of_a_transformer() {
    let names = Names::torch_transformer().prefix("encoder.", "tr.encoder.");
    let location = |name| names.location(name).to_string();
    assert_eq!(
        location("encoder.layers.1.self_attn.v_proj.bias"),
        "tr.encoder.layers.1.self_attn.in_proj_bias (part 3 of 3)"
    );
    assert_eq!(location("encoder.norm.gamma"), "tr.encoder.norm.weight");
    assert_eq!(location("decoder.layers.0.norm3.beta"), "decoder.layers.0.norm3.bias");
    assert_eq!(location("generator.bias"), "generator.bias");
}

// The tensors that are trained after loading are those that were loaded: the names reach all of a
// layer's tensors.
#[test]
fn a_layer_with_all_its_tensors() {
    let mut model = EncoderLayer::<2, 1, 3, f64, Cpu>::build(&Cpu::default());
    let entries = [
        f32s("self_attn.in_proj_weight", &[6, 2], 0.0),
        f32s("self_attn.in_proj_bias", &[6], 0.0),
        f32s("self_attn.out_proj.weight", &[2, 2], 0.0),
        f32s("self_attn.out_proj.bias", &[2], 0.0),
        f32s("linear1.weight", &[3, 2], 0.0),
        f32s("linear1.bias", &[3], 0.0),
        f32s("linear2.weight", &[2, 3], 0.0),
        f32s("linear2.bias", &[2], 0.0),
        f32s("norm1.weight", &[2], 7.0),
        f32s("norm1.bias", &[2], 8.0),
        f32s("norm2.weight", &[2], 9.0),
        f32s("norm2.bias", &[2], 10.0),
    ];
    load_bytes(&mut model, &file(&entries), &Names::torch_transformer()).unwrap();
    assert_eq!(model.norm2.gamma.array(), [9.0, 10.0]);
    assert_eq!(model.norm1.beta.array(), [8.0, 9.0]);
}

#[test]
fn a_file_that_is_not_there() {
    let result = load(&mut small::<f32>(), "no/such/file", &Names::default());
    assert!(matches!(result, Err(WeightsError::Read { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    // A file that is cut or changed anywhere gives an error or is loaded, and never causes a panic.
    #[test]
    fn broken_files_are_errors(cut in 0usize..1000, at in 0usize..1000, byte in any::<u8>()) {
        let mut bytes =
            file(&[f32s("weight", &[3, 2], 1.0), f32s("bias", &[3], 0.5)]);
        let full = bytes.len();
        if let Some(old) = bytes.get_mut(at) {
            *old = byte;
        }
        bytes.truncate(cut);
        let result = load_bytes(&mut small::<f32>(), &bytes, &Names::default());
        prop_assert!(cut >= full || result.is_err());
    }
}
