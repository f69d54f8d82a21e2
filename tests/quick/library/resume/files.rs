//! Files that are not what they should be: each is refused, and the error says what is wrong.

use super::{differences, forged, momentum, refused, run, run_with, saved, setting, Net, Run};
use dfdx::{
    optim::{AdamConfig, Momentum, SgdConfig},
    prelude::*,
};
use proptest::prelude::*;
use tlr::{
    optim::{Accumulate, Adam, Resumable, Sgd},
    Checkpoint, CheckpointError, Difference, Error, Newton, NewtonConfig, PerLayer, Window,
};

#[test]
fn another_configuration_is_named() {
    let (_, checkpoint) = saved();
    assert_eq!(differences(&mut run(1, 5, momentum), &checkpoint), [setting("window", "4", "5")]);

    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .damping(0.5)
        .window(Window::steps(4).unwrap());
    let mut run = run_with(1, config);
    assert_eq!(differences(&mut run, &checkpoint), [setting("rule.damping", "0.33", "0.5")]);

    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(4).unwrap());
    let config = config.climb(0.5).safeguard(tlr::Safeguard::default().cut(0.25));
    run.opt = Newton::new(&run.model, momentum(&run.model), config).unwrap();
    assert_eq!(
        differences(&mut run, &checkpoint),
        [setting("climb", "0.8", "0.5"), setting("safeguard.cut", "0.5", "0.25")]
    );
}

#[test]
fn another_optimizer_is_named() {
    let (_, checkpoint) = saved();
    let nesterov = |model: &Net<f32, Cpu>| {
        let momentum = Some(Momentum::Nesterov(0.8));
        PerLayer::new(model, Sgd::new(model, SgdConfig { lr: 0.1, momentum, weight_decay: None }))
    };
    assert_eq!(
        differences(&mut run(1, 4, nesterov), &checkpoint),
        [
            setting("optimizer.momentum", "0.9", "0.8"),
            setting("optimizer.nesterov", "false", "true"),
        ]
    );

    let adam = |model: &Net<f32, Cpu>| Adam::new(model, AdamConfig::default());
    let found = differences(&mut run(1, 4, adam), &checkpoint);
    assert!(found.contains(&setting("optimizer", "sgd", "adam")), "{found:?}");
    assert!(found.contains(&setting("layers", "hidden, norm, head", "model")), "{found:?}");
    let (velocity, moment) = ("optimizer.velocity.head.bias", "optimizer.moment2.norm.scale");
    assert!(found.contains(&Difference::Extra { tensor: velocity.to_owned() }), "{found:?}");
    assert!(found.contains(&Difference::Missing { tensor: moment.to_owned() }), "{found:?}");
}

#[test]
fn another_element_type_is_named_once() {
    let (_, checkpoint) = saved();
    let double = |model: &Net<f64, Cpu>| {
        let momentum = Some(Momentum::Classic(0.9));
        PerLayer::new(model, Sgd::new(model, SgdConfig { lr: 0.1, momentum, weight_decay: None }))
    };
    assert_eq!(differences(&mut run(1, 4, double), &checkpoint), [setting("dtype", "f32", "f64")]);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let (mut run, checkpoint) = saved();
    // The forger's own hand leaves a file that loads.
    run.opt.resume(&mut run.model, &forged::change(&checkpoint, |_| ())).unwrap();

    let tensor = || "model.hidden.weight".to_owned();
    let other = forged::change(&checkpoint, |parts| {
        parts.remove(&tensor());
    });
    assert_eq!(differences(&mut run, &other), [Difference::Missing { tensor: tensor() }]);

    let other = forged::change(&checkpoint, |parts| {
        let copy = parts[&tensor()].clone();
        parts.insert("model.hidden.extra".to_owned(), copy);
    });
    let extra = Difference::Extra { tensor: "model.hidden.extra".to_owned() };
    assert_eq!(differences(&mut run, &other), [extra]);

    let other = forged::change(&checkpoint, |parts| {
        parts.get_mut(&tensor()).unwrap().1 = vec![3, 8];
    });
    let shape = Difference::Shape { tensor: tensor(), file: vec![3, 8], here: vec![8, 3] };
    assert_eq!(differences(&mut run, &other), [shape]);

    let other = forged::change(&checkpoint, |parts| {
        parts.get_mut(&tensor()).unwrap().0 = safetensors::Dtype::I32;
    });
    let (file, here) = ("I32".to_owned(), "F32".to_owned());
    let dtype = Difference::Dtype { tensor: tensor(), file, here };
    assert_eq!(differences(&mut run, &other), [dtype]);
}

/// Numbers that no training leaves: a rate of 0, a place beyond the window, more steps than can be
/// counted.
#[test]
fn impossible_figures_are_refused() {
    let (mut run, checkpoint) = saved();
    type Edit = fn(&mut serde_json::Value);
    let edits: [(&str, Edit); 9] = [
        ("engine.groups.rate", |p| p["engine"]["groups"][0]["rate"] = 0.0.into()),
        ("engine.groups.rate", |p| {
            p["engine"]["groups"][1]["rate"] = "nan:7ff8000000000000".into()
        }),
        ("engine.groups.previous", |p| {
            p["engine"]["groups"][0]["previous"]["rate"] = (-1.0).into()
        }),
        ("engine.position", |p| p["engine"]["position"] = 20.into()),
        ("engine.position", |p| p["engine"]["phase"] = serde_json::json!({"EndingWindow": null})),
        ("engine.steps", |p| p["engine"]["steps"] = u64::MAX.into()),
        ("engine.watch.cuts", |p| p["engine"]["watch"]["cuts"] = 1.into()), // there was no rollback
        ("optimizer_steps", |p| p["optimizer_steps"]["head"] = u64::MAX.into()),
        ("engine.groups", |p| {
            p["engine"]["groups"].as_array_mut().unwrap().pop();
        }),
    ];
    for (name, edit) in edits {
        let other = forged::edit(&checkpoint, edit);
        let impossible = format!("`progress` holds an impossible `{name}`");
        assert_eq!(refused(&mut run, &other), CheckpointError::Damaged(impossible));
    }
    let other = forged::change(&checkpoint, |parts| {
        parts.insert("progress".to_owned(), (safetensors::Dtype::U8, vec![2], b"{}".to_vec()));
    });
    assert!(matches!(refused(&mut run, &other), CheckpointError::Damaged(_)));
}

/// A count of gathered batches that makes a whole step, and weights that no batches can have, alone
/// and layer by layer. Fails if one of them is replaced by a possible one.
#[test]
fn impossible_gathered_batches_are_refused() {
    let gathering = |model: &Net<f32, Cpu>| -> Accumulate<Sgd<_, f32, Cpu>> {
        Accumulate::new(Sgd::new(model, SgdConfig::default()), 3).unwrap()
    };
    fn check<Opt>(mut run: Run<Opt>, layer: &str)
    where
        Opt: Resumable<Model = Net<f32, Cpu>, Dtype = f32, Device = Cpu>,
    {
        let count = |count: u64, checkpoint: &Checkpoint| {
            let name = format!("{layer}(gathered)");
            forged::edit(checkpoint, |progress| progress["optimizer_steps"][&name] = count.into())
        };
        let path = layer.strip_suffix('.').map_or(String::new(), |layer| format!(".{layer}"));
        let name = format!("optimizer.(gathered weight){path}");
        let weight = |weight: f64, checkpoint: &Checkpoint| {
            forged::change(checkpoint, |parts| {
                parts.get_mut(&name).unwrap().2 = weight.to_le_bytes().to_vec();
            })
        };
        run.steps(0..3);
        let none = run.state();
        run.steps(3..5);
        let two = run.state();
        let counted = format!("optimizer.(gathered){path}");
        for (forged, name, value) in [
            (count(3, &two), &counted, 3.0),
            (count(9, &two), &counted, 9.0),
            (weight(-1.0, &two), &name, -1.0),
            (weight(0.0, &two), &name, 0.0),
            (weight(f64::INFINITY, &two), &name, f64::INFINITY),
            (count(0, &two), &name, 2.0),
            (weight(1.0, &none), &name, 1.0),
            (count(1, &none), &name, 0.0),
        ] {
            match refused(&mut run, &forged) {
                CheckpointError::OutOfRange { name: found, value: of, .. } => {
                    assert_eq!((&found, of), (name, value));
                }
                other => panic!("{other}"),
            }
        }
        let nan = refused(&mut run, &weight(f64::NAN, &two)).to_string();
        assert!(nan.contains("weight)") && nan.contains("is NaN, and has to be finite"), "{nan}");
        // What the forger leaves alone is taken over.
        run.opt.resume(&mut run.model, &count(2, &two)).unwrap();
    }
    check(run(1, 4, gathering), "");
    check(run(1, 4, |model| PerLayer::new(model, gathering(model))), "head.");
    check(run(1, 4, |model| Accumulate::new(gathering(model), 1).unwrap()), "");
}

#[test]
fn another_version_is_refused() {
    let (_, checkpoint) = saved();
    let (parts, mut words) = forged::parts(&checkpoint);
    words.insert("version".to_owned(), "12".to_owned());
    let problem = problem(&forged::file(&parts, words));
    assert_eq!(problem, CheckpointError::Version { found: "12".to_owned(), known: 11 });
    assert!(problem.to_string().contains("version 12"), "{problem}");
}

fn problem(bytes: &[u8]) -> CheckpointError {
    match Checkpoint::from_bytes(bytes) {
        Err(Error::Checkpoint { path: None, problem }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let bytes = saved().1.to_bytes().unwrap();
    for length in 0..bytes.len() {
        let problem = problem(&bytes[..length]);
        assert!(matches!(problem, CheckpointError::NotACheckpoint(_)), "{length}: {problem}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    problem(&longer);
}

/// Any bit of the file.
#[test]
fn a_flipped_bit_is_noticed() {
    let (_, checkpoint) = saved();
    let mut bytes = checkpoint.to_bytes().unwrap();
    for index in 0..bytes.len() {
        for bit in 0..8 {
            bytes[index] ^= 1 << bit;
            let parsed = Checkpoint::from_bytes(&bytes);
            assert!(parsed.is_err(), "bit {bit} of byte {index}");
            bytes[index] ^= 1 << bit;
        }
    }
    assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint);
}

#[test]
fn files_of_other_kinds_are_refused() {
    for bytes in [&b""[..], b"{}", b"PK\x03\x04", &[0xff; 64]] {
        assert!(matches!(problem(bytes), CheckpointError::NotACheckpoint(_)));
    }
    let foreign = safetensors::serialize::<&str, safetensors::tensor::TensorView<'_>, _>([], None);
    let problem = problem(&foreign.unwrap());
    assert!(problem.to_string().contains("something else"), "{problem}");
}

proptest! {
    /// Whatever the bytes, and whatever JSON is in place of the progress, there is an error or a
    /// checkpoint, and no more than that.
    #[test]
    fn no_bytes_break_the_loader(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in "\\{[\"a-z_:,{}\\[\\]0-9 ]{0,60}\\}",
        progress in "[{}\\[\\]\":,a-z0-9.e-]{0,80}",
    ) {
        let _ = Checkpoint::from_bytes(&bytes);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&bytes);
        let _ = Checkpoint::from_bytes(&file);

        let (mut run, checkpoint) = saved();
        let other = forged::change(&checkpoint, |parts| {
            let bytes = progress.clone().into_bytes();
            parts.insert("progress".to_owned(), (safetensors::Dtype::U8, vec![bytes.len()], bytes));
        });
        refused(&mut run, &other);
    }
}
