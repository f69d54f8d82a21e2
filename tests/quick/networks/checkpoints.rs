//! PyTorch's checkpoints of the paper's models, in files that the tests write.

use dfdx::prelude::*;
use safetensors::{tensor::TensorView, Dtype as Stored};
use std::collections::{BTreeMap, HashMap};
use support::values::values;
use tlr_models::{
    resnet::ResNet50,
    weights::{self, Names, WeightsDifference, WeightsError},
};

type Model = ResNet50<10, f32, Cpu>;

/// Every tensor of torchvision's `resnet50(num_classes=10).state_dict()`, in its order.
fn torchvision_names() -> Vec<(String, Vec<usize>)> {
    let mut names = Vec::new();
    let mut add = |name: String, shape: &[usize]| names.push((name, shape.to_vec()));
    macro_rules! norm {
        ($name:expr, $channels:expr) => {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                add(format!("{}.{part}", $name), &[$channels]);
            }
            add(format!("{}.num_batches_tracked", $name), &[]);
        };
    }
    add("conv1.weight".into(), &[64, 3, 7, 7]);
    norm!("bn1", 64);
    let mut channels = 64;
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let (mid, out) = (64 << stage, 256 << stage);
        for block in 0..blocks {
            let at = format!("layer{}.{block}", stage + 1);
            add(format!("{at}.conv1.weight"), &[mid, channels, 1, 1]);
            norm!(format!("{at}.bn1"), mid);
            add(format!("{at}.conv2.weight"), &[mid, mid, 3, 3]);
            norm!(format!("{at}.bn2"), mid);
            add(format!("{at}.conv3.weight"), &[out, mid, 1, 1]);
            norm!(format!("{at}.bn3"), out);
            if block == 0 {
                add(format!("{at}.downsample.0.weight"), &[out, channels, 1, 1]);
                norm!(format!("{at}.downsample.1"), out);
            }
            channels = out;
        }
    }
    add("fc.weight".into(), &[10, 2048]);
    add("fc.bias".into(), &[10]);
    names
}

/// A file in which tensor number k is filled with k, but for what `change` makes of the entries.
fn file(change: impl FnOnce(&mut BTreeMap<String, (Stored, Vec<usize>, Vec<u8>)>)) -> Vec<u8> {
    let mut entries = BTreeMap::new();
    for (k, (name, shape)) in torchvision_names().into_iter().enumerate() {
        let len = shape.iter().product();
        let entry = if name.ends_with("num_batches_tracked") {
            (Stored::I64, shape, 7_i64.to_le_bytes().to_vec())
        } else {
            (Stored::F32, shape, (k as f32).to_le_bytes().repeat(len))
        };
        entries.insert(name, entry);
    }
    change(&mut entries);
    let views = entries.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

// Fails if a block, a norm's part or the path beside is taken for another.
#[test]
fn torchvision_resnet_50() {
    let names = torchvision_names();
    assert_eq!(names.len(), 320); // as torchvision counts
    let mut model = Model::build(&Cpu::default());
    weights::load_bytes(&mut model, &file(|_| ()), &Names::torchvision_resnet()).unwrap();

    let number: HashMap<_, _> =
        names.iter().enumerate().map(|(k, (name, _))| (name.as_str(), k as f32)).collect();
    let first = |tensor: Vec<f32>| tensor[0];
    assert_eq!(first(model.conv1.weight.as_vec()), number["conv1.weight"]);
    assert_eq!(first(model.bn1.running_var.as_vec()), number["bn1.running_var"]);
    let block = &model.layer3.first;
    assert_eq!(first(block.conv2.weight.as_vec()), number["layer3.0.conv2.weight"]);
    assert_eq!(first(block.downsample.0.weight.as_vec()), number["layer3.0.downsample.0.weight"]);
    assert_eq!(first(block.downsample.1.bias.as_vec()), number["layer3.0.downsample.1.bias"]);
    let block = &model.layer3.rest.modules[4];
    assert_eq!(first(block.bn3.running_mean.as_vec()), number["layer3.5.bn3.running_mean"]);
    assert_eq!(first(model.fc.bias.as_vec()), number["fc.bias"]);

    // All of them, each where it is in torchvision's order: ours is the same.
    let mut distinct = values(&model);
    distinct.dedup();
    let tensors = names.iter().enumerate().filter(|(_, (_, shape))| !shape.is_empty());
    assert_eq!(distinct, tensors.map(|(k, _)| k as f64).collect::<Vec<_>>());
}

#[test]
fn what_differs_is_named_and_nothing_changed() {
    let mut model = Model::build(&Cpu::default());
    let before = values(&model);
    let bytes = file(|entries| {
        entries.remove("layer4.2.conv1.weight");
        entries.insert("layer5.weight".into(), (Stored::F32, vec![1], vec![0; 4]));
        entries.insert("fc.bias".into(), (Stored::F32, vec![1000], vec![0; 4000]));
    });
    let error = weights::load_bytes(&mut model, &bytes, &Names::torchvision_resnet()).unwrap_err();
    let text = error.to_string();
    for name in ["layer4.2.conv1.weight", "layer5.weight", "fc.bias"] {
        assert!(text.contains(name), "{text}");
    }
    let WeightsError::Mismatch(differences) = error else { unreachable!("{text}") };
    assert_eq!(differences.len(), 3);
    assert!(differences.iter().any(|d| matches!(d, WeightsDifference::Missing { .. })));
    assert_eq!(values(&model), before);
}
