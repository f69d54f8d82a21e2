//! What the tensors of a model are called in a file.

use std::fmt;

/// Where a tensor of a model is in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The tensor's name in the file.
    pub name: String,
    /// The place of this tensor among those packed into one along their first dimension, and how
    /// many they are. `None` if it is not packed.
    pub part: Option<(usize, usize)>,
}

impl From<&str> for Location {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), part: None }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            None => f.write_str(&self.name),
            Some((part, of)) => write!(f, "{} (part {} of {of})", self.name, part + 1),
        }
    }
}

/// What a model's tensors are called in a file. By default as in the model, which is right for
/// files whose layers have the names of the model's fields.
///
/// # Example
/// ```
/// use tlr_models::weights::Names;
///
/// let names = Names::torch_transformer().prefix("encoder.", "transformer.encoder.");
/// let location = names.location("encoder.layers.0.self_attn.k_proj.weight");
/// assert_eq!(location.name, "transformer.encoder.layers.0.self_attn.in_proj_weight");
/// assert_eq!(location.part, Some((1, 3)));
/// ```
pub struct Names {
    location: Box<dyn Fn(&str) -> Location + Send + Sync>,
    prefixes: Vec<(String, String)>,
    left_out: Vec<String>,
    ignored: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(|name| name.into())
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("prefixes", &self.prefixes)
            .field("left_out", &self.left_out)
            .finish_non_exhaustive()
    }
}

impl Names {
    /// The model's tensor `name` is at `location(name)`.
    ///
    /// Example: [`Names`].
    pub fn new(location: impl Fn(&str) -> Location + Send + Sync + 'static) -> Self {
        Self {
            location: Box::new(location),
            prefixes: Vec::new(),
            left_out: Vec::new(),
            ignored: Box::new(|_| false),
        }
    }

    /// `torch.nn.Transformer`'s names for this crate's layers: an attention's `q_proj`, `k_proj`
    /// and `v_proj` are the parts of its `in_proj_weight` and `in_proj_bias`, and a norm's `gamma`
    /// and `beta` are `weight` and `bias`.
    ///
    /// Example: [`Names`].
    pub fn torch_transformer() -> Self {
        Self::new(|name| {
            for (part, projection) in ["q_proj.", "k_proj.", "v_proj."].into_iter().enumerate() {
                if let Some((layer, tensor)) = name.split_once(projection) {
                    let name = format!("{layer}in_proj_{tensor}");
                    return Location { name, part: Some((part, 3)) };
                }
            }
            let norm = |ours, theirs| Some(format!("{}{theirs}", name.strip_suffix(ours)?));
            let renamed = norm(".gamma", ".weight").or_else(|| norm(".beta", ".bias"));
            Location { name: renamed.unwrap_or_else(|| name.to_owned()), part: None }
        })
    }

    /// torchvision's names for [`ResNet50`](crate::resnet::ResNet50): a stage's `first` block is
    /// its block 0, and `rest.0` its block 1. Its counters of batches are passed over.
    ///
    /// # Example
    /// ```
    /// use tlr_models::weights::Names;
    ///
    /// let names = Names::torchvision_resnet();
    /// assert_eq!(names.location("layer1.first.conv1.weight").name, "layer1.0.conv1.weight");
    /// ```
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
            Location { name: renamed.unwrap_or_else(|| name.to_owned()), part: None }
        })
        .ignoring(|name| name.ends_with(".num_batches_tracked"))
    }

    /// A name that begins with `model` in the model begins with `file` in the file. Of several
    /// prefixes that fit, the first that was given counts. Prefixes are applied after all other
    /// changes of a name.
    ///
    /// Example: [`Names`].
    #[must_use]
    pub fn prefix(mut self, model: &str, file: &str) -> Self {
        self.prefixes.push((model.to_owned(), file.to_owned()));
        self
    }

    /// The model's `part`, a layer or a tensor by its name in the model, keeps the weights that it
    /// has. The file's tensors for the part are passed over, whatever their shape. This is for a
    /// head of another number of classes. May be called several times.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use safetensors::{serialize, tensor::TensorView, Dtype};
    /// use tlr_models::weights::{self, Names};
    ///
    /// type Layer<const I: usize, const O: usize> = modules::Linear<I, O, f32, Cpu>;
    /// type Net<const CLASSES: usize> = (Layer<2, 1>, Layer<1, CLASSES>);
    ///
    /// // Three classes in the file, five in the model.
    /// let zeros = [0; 12];
    /// let [body, one, head, three] = [&[1, 2][..], &[1], &[3, 1], &[3]].map(|shape| {
    ///     let bytes = &zeros[..4 * shape.iter().product::<usize>()];
    ///     TensorView::new(Dtype::F32, shape.to_vec(), bytes)
    /// });
    /// let tensors =
    ///     [("0.weight", body?), ("0.bias", one?), ("1.weight", head?), ("1.bias", three?)];
    /// let file = serialize(tensors, None)?;
    ///
    /// let mut model: Net<5> = BuildModule::build(&Cpu::default());
    /// let before = model.1.weight.array();
    /// weights::load_bytes(&mut model, &file, &Names::default().leave_out("1"))?;
    /// assert_eq!(model.0.weight.array(), [[0.0, 0.0]]);
    /// assert_eq!(model.1.weight.array(), before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn leave_out(mut self, part: &str) -> Self {
        // As a walk has it: a tensor that is a field by itself adds no name to that of the field.
        self.left_out.push(part.trim_end_matches('.').to_owned());
        self
    }

    /// Tensors of the file that the model does without, by their name in the file: counters, say,
    /// or tables that the model computes. A second call replaces the first.
    ///
    /// # Example
    /// ```
    /// use tlr_models::weights::Names;
    ///
    /// let names = Names::default().ignoring(|name| name.ends_with(".position_ids"));
    /// assert_eq!(names.location("head.weight").name, "head.weight"); // other names stay
    /// ```
    #[must_use]
    pub fn ignoring(mut self, ignored: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.ignored = Box::new(ignored);
        self
    }

    /// Where the model's tensor `name` is.
    ///
    /// Example: [`Names`].
    pub fn location(&self, name: &str) -> Location {
        let location = (self.location)(name);
        let renamed = self.prefixes.iter().find_map(|(model, file)| {
            Some(format!("{file}{}", location.name.strip_prefix(model.as_str())?))
        });
        Location { name: renamed.unwrap_or(location.name), part: location.part }
    }

    /// Whether the file's tensor `name` is passed over.
    pub(super) fn is_ignored(&self, name: &str) -> bool {
        (self.ignored)(name)
    }

    /// The parts that keep their weights.
    pub(super) fn left_out(&self) -> &[String] {
        &self.left_out
    }
}
