//! Weights from safetensors files, such as PyTorch's.
//!
//! All of the model has to be in the file and all of the file in the model, each tensor with its shape;
//! otherwise one error names everything that differs, and the model is as it was. What a model's tensor
//! is called in the file is for [`Names`] to say, and what of the file is to be left.
//!
//! Files hold f32 or f64, and the model is f32 or f64, in any combination: narrowing rounds to nearest,
//! and a number that would become infinite is an error. Numbers without tensors, such as a norm's
//! epsilon, are the model's own and stay.

use dfdx::{
    nn::{
        RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut,
        ViewTensorName, ViewTensorRef,
    },
    prelude::{Device, Dtype, HasShape, ReshapeTo, Shape, Tensor},
};
use safetensors::{tensor::TensorView, Dtype as Stored, SafeTensorError, SafeTensors};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    fmt,
    path::{Path, PathBuf},
};

/// Where a tensor of a model is in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Its name there.
    pub name: String,
    /// Where it is one of several that are packed along their first dimension: which, and of how many.
    pub part: Option<(usize, usize)>,
}

impl From<&str> for Source {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), part: None }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            None => f.write_str(&self.name),
            Some((part, of)) => write!(f, "{} (part {} of {of})", self.name, part + 1),
        }
    }
}

/// What a model's tensors are called in a file. By default as in the model, which is right for files
/// whose layers have the names of the model's fields.
///
/// # Example
/// ```
/// use tlr_models::checkpoint::Names;
///
/// let names = Names::torch_transformer().prefix("encoder.", "transformer.encoder.");
/// let source = names.source("encoder.layers.0.self_attn.k_proj.weight");
/// assert_eq!(source.name, "transformer.encoder.layers.0.self_attn.in_proj_weight");
/// assert_eq!(source.part, Some((1, 3)));
/// ```
pub struct Names {
    source: Box<dyn Fn(&str) -> Source + Send + Sync>,
    prefixes: Vec<(String, String)>,
    ignored: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(|name| name.into())
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("prefixes", &self.prefixes).finish_non_exhaustive()
    }
}

impl Names {
    /// The model's tensor `name` is at `source(name)`.
    pub fn new(source: impl Fn(&str) -> Source + Send + Sync + 'static) -> Self {
        Self { source: Box::new(source), prefixes: Vec::new(), ignored: Box::new(|_| false) }
    }

    /// `torch.nn.Transformer`'s names for this crate's layers: an attention's `q_proj`, `k_proj` and
    /// `v_proj` are the parts of its `in_proj_weight` and `in_proj_bias`, and a norm's `gamma` and
    /// `beta` are `weight` and `bias`.
    pub fn torch_transformer() -> Self {
        Self::new(|name| {
            for (part, projection) in ["q_proj.", "k_proj.", "v_proj."].into_iter().enumerate() {
                if let Some((layer, tensor)) = name.split_once(projection) {
                    let name = format!("{layer}in_proj_{tensor}");
                    return Source { name, part: Some((part, 3)) };
                }
            }
            let norm = |ours, theirs| Some(format!("{}{theirs}", name.strip_suffix(ours)?));
            let renamed = norm(".gamma", ".weight").or_else(|| norm(".beta", ".bias"));
            Source { name: renamed.unwrap_or_else(|| name.to_owned()), part: None }
        })
    }

    /// torchvision's names for [`ResNet50`](crate::resnet::ResNet50): a stage's `first` block is its block 0, and
    /// `rest.0` its block 1. Its counters of batches are passed over.
    pub fn torchvision_resnet() -> Self {
        Self::new(|name| {
            let block = |stage: &str, block: &str| {
                if let Some(rest) = block.strip_prefix("first.") {
                    return Some(format!("{stage}.0.{rest}"));
                }
                let (index, rest) = block.strip_prefix("rest.")?.split_once('.')?;
                Some(format!("{stage}.{}.{rest}", index.parse::<usize>().ok()? + 1))
            };
            let renamed = name.split_once('.').and_then(|(stage, rest)| block(stage, rest));
            Source { name: renamed.unwrap_or_else(|| name.to_owned()), part: None }
        })
        .ignoring(|name| name.ends_with(".num_batches_tracked"))
    }

    /// A name that begins with `model` begins with `file` in the file. Of several prefixes that fit, the
    /// first that was told counts. Applied after what else changes the name.
    #[must_use]
    pub fn prefix(mut self, model: &str, file: &str) -> Self {
        self.prefixes.push((model.to_owned(), file.to_owned()));
        self
    }

    /// Tensors of the file that the model does without, by their name there: counters, tables that the
    /// model computes. A call replaces the one before.
    #[must_use]
    pub fn ignoring(mut self, ignored: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.ignored = Box::new(ignored);
        self
    }

    /// Where the model's tensor `name` is.
    pub fn source(&self, name: &str) -> Source {
        let source = (self.source)(name);
        let renamed = self.prefixes.iter().find_map(|(model, file)| {
            Some(format!("{file}{}", source.name.strip_prefix(model.as_str())?))
        });
        Source { name: renamed.unwrap_or(source.name), part: source.part }
    }
}

/// One thing in which model and file differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The model's tensor `name` is not in the file.
    Missing {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
    },
    /// The file holds what is no tensor of the model.
    Extra {
        /// In the file.
        source: Source,
    },
    /// A tensor has another shape in the file.
    Shape {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
        /// What would fit.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
    /// A tensor does not hold f32 or f64.
    Dtype {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
        /// What it holds.
        found: String,
    },
    /// A tensor holds a number too large for the model's dtype.
    Range {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, source } => write!(f, "no {source} for {name}"),
            Self::Extra { source } => write!(f, "{source} is not in the model"),
            Self::Shape { name, source, expected, found } => {
                write!(f, "{source} has shape {found:?}, and {name} needs {expected:?}")
            }
            Self::Dtype { name, source, found } => {
                write!(f, "{source} holds {found}, and {name} needs F32 or F64")
            }
            Self::Range { name, source } => {
                write!(f, "{source} holds a number that {name} would make infinite")
            }
        }
    }
}

/// Why a checkpoint was not loaded. The model is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// These are not safetensors.
    #[error("no safetensors: {0}")]
    Format(#[from] SafeTensorError),
    /// Model and file differ: everything in which they do.
    #[error("the model differs from the file: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Mismatch(Vec<Difference>),
    /// Of the device, such as no memory left.
    #[error("device: {0}")]
    Device(String),
}

/// Fills `model` with the weights in a safetensors file.
///
/// Tensors keep their identity: an optimizer made for the model goes on with it.
///
/// # Errors
/// See [`CheckpointError`]; the model is then as it was.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use safetensors::{serialize_to_file, tensor::TensorView, Dtype};
/// use tlr_models::checkpoint::{self, Names};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("linear.safetensors");
/// let [weight, bias] = [&[1f32, 2.0][..], &[3.0]]
///     .map(|values| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
/// let weight = TensorView::new(Dtype::F32, vec![1, 2], &weight)?;
/// let bias = TensorView::new(Dtype::F32, vec![1], &bias)?;
/// serialize_to_file([("fc.weight", weight), ("fc.bias", bias)], None, &path)?;
///
/// let mut model = modules::Linear::<2, 1, f64, Cpu>::build(&Cpu::default());
/// checkpoint::load(&mut model, &path, &Names::default().prefix("", "fc."))?;
/// assert_eq!(model.weight.array(), [[1.0, 2.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load<M, E, D>(
    model: &mut M,
    path: impl AsRef<Path>,
    names: &Names,
) -> Result<(), CheckpointError>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    let path = path.as_ref();
    let read = |source| CheckpointError::Read { path: path.to_owned(), source };
    load_bytes(model, &std::fs::read(path).map_err(read)?, names)
}

/// As [`load`], from memory.
///
/// # Errors
/// As [`load`].
pub fn load_bytes<M, E, D>(
    model: &mut M,
    bytes: &[u8],
    names: &Names,
) -> Result<(), CheckpointError>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    let file = SafeTensors::deserialize(bytes)?;
    let mut plan = Plan {
        stored: file.iter().collect(),
        names,
        used: BTreeSet::new(),
        values: VecDeque::new(),
        differences: Vec::new(),
    };
    let view = (&*model, String::new());
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: view, f: &mut plan });
    plan.find_extra();
    if !plan.differences.is_empty() {
        return Err(CheckpointError::Mismatch(plan.differences));
    }
    // What can fail comes first, and changes no value.
    M::iter_tensors(&mut RecursiveWalker { m: &mut *model, f: &mut MakeContiguous })
        .map_err(|error: D::Err| CheckpointError::Device(format!("{error:?}")))?;
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut Fill(plan.values) });
    Ok(())
}

/// What each tensor of the model is to be filled with, in order.
struct Plan<'a, E> {
    stored: BTreeMap<&'a str, TensorView<'a>>,
    names: &'a Names,
    used: BTreeSet<Source>,
    values: VecDeque<Vec<E>>,
    differences: Vec<Difference>,
}

impl<E: Dtype> Plan<'_, E> {
    fn values(&self, name: &str, source: &Source, shape: &[usize]) -> Result<Vec<E>, Difference> {
        let (name, source) = (name.to_owned(), source.clone());
        let there = source.part.is_none_or(|(part, of)| part < of);
        let Some(stored) = self.stored.get(source.name.as_str()).filter(|_| there) else {
            return Err(Difference::Missing { name, source });
        };
        let mut expected = shape.to_vec();
        if let (Some((_, of)), Some(first)) = (source.part, expected.first_mut()) {
            *first = first.saturating_mul(of);
        }
        if stored.shape() != expected {
            let found = stored.shape().to_vec();
            return Err(Difference::Shape { name, source, expected, found });
        }
        let all: Vec<f64> = match stored.dtype() {
            Stored::F32 => numbers(stored.data(), f32::from_le_bytes).map(f64::from).collect(),
            Stored::F64 => numbers(stored.data(), f64::from_le_bytes).collect(),
            found => return Err(Difference::Dtype { name, source, found: format!("{found:?}") }),
        };
        let len = shape.iter().product();
        let part = source.part.map_or(0, |(part, _)| part);
        let converted = |value: f64| {
            let converted = E::from_f64(value)?;
            let finite = converted.to_f64().is_some_and(f64::is_finite);
            (finite || !value.is_finite()).then_some(converted)
        };
        all.into_iter()
            .skip(part * len)
            .take(len)
            .map(converted)
            .collect::<Option<Vec<E>>>()
            .ok_or(Difference::Range { name, source })
    }

    /// What no tensor of the model asked for.
    fn find_extra(&mut self) {
        for name in self.stored.keys().filter(|name| !(self.names.ignored)(name)) {
            let parts = self.used.iter().filter(|source| source.name == *name);
            let asked: Vec<_> = parts.map(|source| source.part).collect();
            let extra: Vec<_> = match asked.first() {
                None => vec![None],
                Some(Some((_, of))) => {
                    let parts = (0..*of).map(|part| Some((part, *of)));
                    parts.filter(|part| !asked.contains(part)).collect()
                }
                Some(None) => Vec::new(),
            };
            self.differences.extend(extra.into_iter().map(|part| {
                let source = Source { name: (*name).to_owned(), part };
                Difference::Extra { source }
            }));
        }
    }
}

fn numbers<'a, const N: usize, V>(
    bytes: &'a [u8],
    number: impl Fn([u8; N]) -> V + 'a,
) -> impl Iterator<Item = V> + 'a {
    bytes.chunks_exact(N).filter_map(move |bytes| Some(number(bytes.try_into().ok()?)))
}

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Plan<'_, E> {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        (tensor, name): (&Tensor<S, E, D>, String),
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        // A bare tensor has no name of its own below that of its field.
        let name = name.trim_end_matches('.');
        let source = self.names.source(name);
        let shape: Vec<usize> = tensor.shape().concrete().into();
        match self.values(name, &source, &shape) {
            Ok(values) => self.values.push_back(values),
            Err(difference) => self.differences.push(difference),
        }
        self.used.insert(source);
        Ok(None)
    }
}

/// A broadcast tensor has not the memory to be filled.
struct MakeContiguous;

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for MakeContiguous {
    type Viewer = ViewTensorMut;
    type Err = D::Err;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        tensor: &mut Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, D::Err> {
        // Keeps its identity if it is already.
        *tensor = tensor.clone().try_contiguous()?;
        Ok(None)
    }
}

struct Fill<E>(VecDeque<Vec<E>>);

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Fill<E> {
    type Viewer = ViewTensorMut;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        tensor: &mut Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        if let Some(values) = self.0.pop_front() {
            D::copy_from(tensor, &values);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
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

    fn mismatch(result: Result<(), CheckpointError>) -> Vec<Difference> {
        match result {
            Err(CheckpointError::Mismatch(differences)) => differences,
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

    // The gradient of a tensor that was exchanged for another would be none of the optimizer's.
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

    // All of it in one error, and nothing done.
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
            Difference::Shape {
                name: "0.weight".into(),
                source: "0.weight".into(),
                expected: vec![3, 2],
                found: vec![2, 3],
            },
            Difference::Dtype {
                name: "0.bias".into(),
                source: "0.bias".into(),
                found: "I64".into(),
            },
            Difference::Missing { name: "1.weight".into(), source: "1.weight".into() },
            Difference::Range { name: "1.bias".into(), source: "1.bias".into() },
            Difference::Extra { source: "other".into() },
        ];
        assert_eq!(found, expected);
        assert_eq!(model.0.weight.array(), before.0.weight.array());
        assert_eq!(model.1.bias.array(), before.1.bias.array());
    }

    // q, k and v by their order. Fails if one is taken for another.
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
        let names =
            Names::new(|name| Source { name: format!("packed_{name}"), part: Some((1, 3)) });
        let found = mismatch(load_bytes(&mut model, &file(&entries), &names));
        assert_eq!(found.len(), 4);
        let part = Source { name: "packed_bias".into(), part: Some((0, 3)) };
        assert_eq!(found[0], Difference::Extra { source: part });
    }

    // The fourth of three. Fails by filling a tensor with too little.
    #[test]
    fn a_part_that_cannot_be_is_missing() {
        let entries = [f32s("packed", &[9, 2], 0.0), f32s("bias", &[3], 0.0)];
        let names = Names::new(|name| match name {
            "weight" => Source { name: "packed".into(), part: Some((3, 3)) },
            other => other.into(),
        });
        let found = mismatch(load_bytes(&mut small::<f64>(), &file(&entries), &names));
        assert!(matches!(found[0], Difference::Missing { .. }));
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
        let wanted =
            |d: &Difference| matches!(d, Difference::Shape { expected, .. } if *expected == [6, 2]);
        assert!(found.iter().all(wanted));
    }

    #[test]
    fn names_of_a_transformer() {
        let names = Names::torch_transformer().prefix("encoder.", "tr.encoder.");
        let source = |name| names.source(name).to_string();
        assert_eq!(
            source("encoder.layers.1.self_attn.v_proj.bias"),
            "tr.encoder.layers.1.self_attn.in_proj_bias (part 3 of 3)"
        );
        assert_eq!(source("encoder.norm.gamma"), "tr.encoder.norm.weight");
        assert_eq!(source("decoder.layers.0.norm3.beta"), "decoder.layers.0.norm3.bias");
        assert_eq!(source("generator.bias"), "generator.bias");
    }

    // What is trained after loading is what was loaded: the names reach all of a layer's tensors.
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
        assert!(matches!(result, Err(CheckpointError::Read { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        // Cut or changed anywhere: an error or a load, and never a panic.
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
}
