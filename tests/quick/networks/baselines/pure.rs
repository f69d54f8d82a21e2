//! What is asked of each rule alone, on slices.

use tlr_models::baselines::*;

/// A gradient, its loss and weights that are not alike in any two elements.
fn slices() -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let weights = vec![vec![0.5, -1.0, 2.0], vec![0.25]];
    let gradients = vec![vec![1.0, -0.5, 0.75], vec![-2.0]];
    (weights, gradients)
}

/// The loss ½·‖w − 1‖² over all weights, with its gradient.
fn bowl(weights: &[Vec<f64>]) -> (f64, Vec<Vec<f64>>) {
    let gradients: Vec<Vec<f64>> =
        weights.iter().map(|tensor| tensor.iter().map(|w| w - 1.0).collect()).collect();
    (0.5 * gradients.iter().flatten().map(|g| g * g).sum::<f64>(), gradients)
}

fn step<R: PeerRule>(
    peer: &mut Peer<R, f64>,
    weights: &mut [Vec<f64>],
    gradients: &[Vec<f64>],
    loss: f64,
) -> Result<(), PeerError> {
    let mut lent: Vec<_> = weights.iter_mut().map(Vec::as_mut_slice).collect();
    let gradients: Vec<_> = gradients.iter().map(Vec::as_slice).collect();
    peer.step_with(&mut lent, &gradients, loss, &mut |ahead| Ok(bowl(ahead).0))
}

// Fails if a rule writes before it has checked, or keeps a start of weights that a failed first
// step has seen.
#[test]
fn a_broken_step_changes_nothing() {
    fn check<R: PeerRule>(rule: R) {
        let mut peer = Peer::new(rule.clone()).unwrap();
        let mut untouched = Peer::new(rule).unwrap();
        let (mut weights, _) = slices();
        for made in 0..4 {
            let before = (peer.saved(), weights.clone());
            let (loss, gradients) = bowl(&weights);
            let broken = |tensor: usize, value: f64| {
                let mut gradients = gradients.clone();
                *gradients[tensor].last_mut().unwrap() = value;
                gradients
            };
            let step_number = made + 1;
            for value in [f64::NAN, f64::INFINITY] {
                let result = step(&mut peer, &mut weights, &broken(1, value), loss);
                let what = "a gradient";
                assert_eq!(result, Err(PeerError::NonFinite { what, step: step_number }));
            }
            let result = step(&mut peer, &mut weights, &gradients, f64::NEG_INFINITY);
            let told = f64::NEG_INFINITY;
            assert_eq!(result, Err(PeerError::NonFiniteLoss { step: step_number, loss: told }));
            let result = step(&mut peer, &mut weights, &gradients[..1], loss);
            let shapes = PeerError::Shapes { what: "gradients", found: 1, expected: 2 };
            assert_eq!(result, Err(shapes));
            let longer = vec![gradients[0].clone(), vec![1.0, 2.0]];
            let result = step(&mut peer, &mut weights, &longer, loss);
            let shapes = PeerError::Shapes { what: "gradients", found: 2, expected: 1 };
            assert_eq!(result, Err(shapes));
            // Finite, and its square is not.
            let mut other = peer.clone();
            let mut moved = weights.clone();
            match step(&mut other, &mut moved, &broken(1, 1e300), loss) {
                Ok(()) => assert!(moved.iter().flatten().all(|w| w.is_finite())),
                Err(PeerError::NonFinite { .. }) => {
                    assert_eq!((other.saved(), &moved), (before.0.clone(), &weights));
                }
                Err(error) => panic!("{error}"),
            }
            // All of it is as before, though the weights of the failed steps were others.
            let mut elsewhere = weights.clone();
            elsewhere[0][0] += 1.0;
            assert!(step(&mut peer, &mut elsewhere, &broken(0, f64::NAN), loss).is_err());
            assert_eq!((peer.saved(), &weights), (before.0, &before.1));

            let mut same = weights.clone();
            step(&mut peer, &mut weights, &gradients, loss).unwrap();
            step(&mut untouched, &mut same, &gradients, loss).unwrap();
            assert_eq!((peer.saved(), &weights), (untouched.saved(), &same));
            assert_eq!(peer.steps(), step_number);
        }
        // A model of other shapes is not the one of the first step.
        let mut other = vec![weights[0].clone()];
        let result = step(&mut peer, &mut other, &[vec![1.0; 3]], 1.0);
        let shapes = PeerError::Shapes { what: "weights", found: 1, expected: 2 };
        assert_eq!(result, Err(shapes));
    }
    each_peer!(check);
}

// Fails if a part of a state is left out of what is saved.
#[test]
fn a_restored_peer_goes_on_to_the_same_bits() {
    fn check<R: PeerRule>(rule: R) {
        let mut peer = Peer::new(rule.clone()).unwrap();
        let (mut weights, _) = slices();
        for saved_after in [0, 1, 5] {
            while peer.steps() < saved_after {
                let (loss, gradients) = bowl(&weights);
                step(&mut peer, &mut weights, &gradients, loss).unwrap();
            }
            // By way of text, as serde has it.
            let text = serde_json::to_string(&peer.saved()).unwrap();
            let mut restored = Peer::new(rule.clone()).unwrap();
            restored.restore(serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(restored, peer);
            let (mut ours, mut theirs) = (weights.clone(), weights.clone());
            let mut original = peer.clone();
            for _ in 0..3 {
                let (loss, gradients) = bowl(&ours);
                step(&mut original, &mut ours, &gradients, loss).unwrap();
                step(&mut restored, &mut theirs, &gradients, loss).unwrap();
            }
            let bits = |weights: &[Vec<f64>]| -> Vec<u64> {
                weights.iter().flatten().map(|w| w.to_bits()).collect()
            };
            assert_eq!(bits(&ours), bits(&theirs));
        }
    }
    each_peer!(check);
}

/// The places of all lists in a state, the outer ones first.
fn lists(value: &serde_json::Value, place: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(list) => {
            found.push(place.clone());
            let inner = list.iter().enumerate();
            inner.for_each(|(at, value)| lists(value, format!("{place}/{at}"), found));
        }
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| lists(value, format!("{place}/{name}"), found));
        }
        _ => (),
    }
}

/// A peer that has made three steps.
fn stepped<R: PeerRule>(rule: &R) -> Peer<R, f64> {
    let mut peer = Peer::new(rule.clone()).unwrap();
    let (mut weights, _) = slices();
    for _ in 0..3 {
        let (loss, gradients) = bowl(&weights);
        step(&mut peer, &mut weights, &gradients, loss).unwrap();
    }
    peer
}

// Fails if a buffer may be shorter or longer than the weights, or if more steps were made than can
// be counted on from.
#[test]
fn a_state_that_cannot_have_been_is_refused() {
    fn check<R: PeerRule>(rule: R) {
        let saved = serde_json::to_value(stepped(&rule).saved()).unwrap();
        let refused = |edit: &dyn Fn(&mut serde_json::Value)| {
            let mut changed = saved.clone();
            edit(&mut changed);
            let mut other = Peer::<R, f64>::new(rule.clone()).unwrap();
            other.restore(serde_json::from_value(changed).unwrap()).unwrap_err()
        };
        let mut places = Vec::new();
        lists(&saved["state"], "/state".to_owned(), &mut places);
        for place in places {
            let list = |value: &mut serde_json::Value| -> Vec<serde_json::Value> {
                value.pointer(&place).unwrap().as_array().unwrap().clone()
            };
            let empty = list(&mut saved.clone()).is_empty();
            // One more, one less: another tensor or element, or another part.
            let more = refused(&|saved| {
                let mut longer = list(saved);
                longer.push(longer.last().cloned().unwrap_or_else(|| serde_json::json!([])));
                *saved.pointer_mut(&place).unwrap() = longer.into();
            });
            assert!(matches!(more, PeerError::Shapes { .. }), "{} {place}: {more}", R::NAME);
            if !empty {
                let none = || serde_json::json!([]);
                let less = refused(&|saved| *saved.pointer_mut(&place).unwrap() = none());
                assert!(matches!(less, PeerError::Shapes { .. }), "{} {place}: {less}", R::NAME);
            }
        }
        for steps in [0, (1u64 << 53) + 1, u64::MAX] {
            let error = refused(&|saved| saved["steps"] = steps.into());
            assert!(matches!(error, PeerError::OutOfRange { .. }), "{steps}: {error}");
        }
        let error = refused(&|saved| saved["state"] = serde_json::Value::Null);
        assert!(matches!(error, PeerError::OutOfRange { .. }), "{error}");
    }
    each_peer!(check);
}

/// The places of all numbers in a state that are by themselves, and not elements of a buffer.
fn numbers(value: &serde_json::Value, place: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Number(_) => found.push(place),
        serde_json::Value::Array(list) => {
            let inner = list.iter().enumerate().filter(|(_, value)| !value.is_number());
            inner.for_each(|(at, value)| numbers(value, format!("{place}/{at}"), found));
        }
        serde_json::Value::Object(fields) => {
            let inner = fields.iter();
            inner.for_each(|(name, value)| numbers(value, format!("{place}/{name}"), found));
        }
        _ => (),
    }
}

// Fails if a count is taken over that a step would count on from beyond what a `u64` holds, or a
// rate that no step can have left.
#[test]
fn numbers_that_no_step_has_left_are_refused() {
    fn check<R: PeerRule>(rule: R) {
        let peer = stepped(&rule);
        let saved = serde_json::to_value(peer.saved()).unwrap();
        let bytes = postcard::to_stdvec(&peer.saved()).unwrap();
        let restored =
            |saved: Saved<R::State<f64>>| Peer::new(rule.clone()).unwrap().restore(saved);
        let put = |place: &str, number: serde_json::Value| {
            let mut changed = saved.clone();
            *changed.pointer_mut(place).unwrap() = number;
            restored(serde_json::from_value(changed).unwrap())
        };
        let refused =
            |made: Result<(), PeerError>| matches!(made, Err(PeerError::OutOfRange { .. }));
        let mut places = Vec::new();
        numbers(&saved["state"], "/state".to_owned(), &mut places);
        for place in places {
            let number = saved.pointer(&place).unwrap();
            if number.is_u64() {
                assert!(refused(put(&place, u64::MAX.into())), "{} {place}", R::NAME);
                assert!(refused(put(&place, 4.into())), "{} {place}: 3 steps", R::NAME);
                continue;
            }
            let signed = ["/numerator", "/lower_bound", "/loss", "/averages/product"];
            if !signed.iter().any(|name| place.ends_with(name)) {
                assert!(refused(put(&place, (-1.0).into())), "{} {place}: -1", R::NAME);
            }
            // JSON has no word for NaN. The number's bytes are looked for, if they are there once.
            let number = number.as_f64().unwrap().to_le_bytes();
            let mut found = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&number));
            if let (Some(at), None) = (found.next(), found.next()) {
                let mut bytes = bytes.clone();
                bytes[at..at + 8].copy_from_slice(&f64::NAN.to_le_bytes());
                let made = restored(postcard::from_bytes(&bytes).unwrap());
                assert!(refused(made), "{} {place}: NaN", R::NAME);
            }
        }
    }
    each_peer!(check);
}

#[test]
fn a_state_of_other_settings_is_refused() {
    let saved = Peer::<_, f64>::new(Adam::default()).unwrap().saved();
    let mut other = Peer::new(Adam { eps: 1e-7, ..Adam::default() }).unwrap();
    let before = other.clone();
    let error = other.restore(saved).unwrap_err();
    let told =
        "the saved state is of adam with other settings: `eps` is 1e-8 in the file and 1e-7 \
                here";
    assert!(matches!(error, PeerError::OtherSettings { rule: "adam", .. }));
    assert_eq!((error.to_string(), &other), (told.to_owned(), &before));
    let saved = Peer::<_, f64>::new(Sps::default()).unwrap().saved();
    let most = Sps { bound: SpsBound::Most(2.0), ..Sps::default() };
    let mut other = Peer::<_, f64>::new(most.clone()).unwrap();
    let error = other.restore(saved).unwrap_err();
    assert!(error.to_string().contains("`bound.Most` is missing in the file and 2.0 here"));
    assert_eq!(other, Peer::new(most).unwrap());
}

#[test]
fn a_gradient_of_zero_moves_nothing_at_first() {
    fn check<R: PeerRule>(rule: R) {
        let mut peer = Peer::new(rule).unwrap();
        let (mut weights, mut gradients) = slices();
        gradients.iter_mut().flatten().for_each(|g| *g = 0.0);
        for _ in 0..3 {
            step(&mut peer, &mut weights, &gradients, 1.0).unwrap();
        }
        assert!(weights.iter().flatten().all(|w| w.is_finite()));
        assert!(peer.rates().iter().all(|rate| rate.is_finite()));
        // And it still learns.
        let before = weights.clone();
        for _ in 0..30 {
            let (loss, gradients) = bowl(&weights);
            step(&mut peer, &mut weights, &gradients, loss).unwrap();
        }
        assert_ne!(weights, before);
    }
    each_peer!(check);
}

#[test]
fn rules_say_what_they_lack() {
    let (mut weights, gradients) = slices();
    let mut lent: Vec<_> = weights.iter_mut().map(Vec::as_mut_slice).collect();
    let gradients: Vec<_> = gradients.iter().map(Vec::as_slice).collect();
    let mut sps = Peer::new(Sps::default()).unwrap();
    let error = sps.step(&mut lent, &gradients, None).unwrap_err();
    assert_eq!(error, PeerError::NoLoss { rule: "sps" });
    assert_eq!(sps, Peer::new(Sps::default()).unwrap());
    let mut sls = Peer::new(Sls::default()).unwrap();
    let error = sls.step(&mut lent, &gradients, Some(1.0)).unwrap_err();
    assert_eq!(error, PeerError::NoTrials { rule: "sls" });
    let failing = &mut |_: &[Vec<f64>]| Err(PeerError::Trial("no memory".into()));
    let error = sls.step_with(&mut lent, &gradients, 1.0, failing).unwrap_err();
    assert!(matches!(error, PeerError::Trial(why) if why.to_string() == "no memory"));
    assert_eq!(sls, Peer::new(Sls::default()).unwrap());
}

#[test]
fn a_line_search_that_finds_nothing_makes_a_tiny_step() {
    let mut weights = [vec![1.0]];
    let mut peer = Peer::new(Sls::default()).unwrap();
    let mut lent: Vec<_> = weights.iter_mut().map(Vec::as_mut_slice).collect();
    let mut trials = 0;
    let rising = &mut |_: &[Vec<f64>]| {
        trials += 1;
        Ok(if trials % 2 == 0 { 2.0 } else { f64::NAN })
    };
    peer.step_with(&mut lent, &[&[1.0]], 1.0, rising).unwrap();
    assert_eq!((weights[0][0], trials), (1.0 - 1e-6, 100));
}

#[test]
fn settings_out_of_range_are_refused() {
    fn check<R: PeerRule>(rule: R, expected: &str) {
        match Peer::<R, f64>::new(rule) {
            Err(PeerError::OutOfRange { what, .. }) => assert_eq!(what, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let nan = f64::NAN;
    check(Sgd { lr: 0.0, ..Default::default() }, "sgd: lr");
    check(Sgd { momentum: 1.0, ..Default::default() }, "sgd: momentum");
    check(Adam { eps: 0.0, ..Default::default() }, "adam: eps");
    check(Adam { betas: [0.9, 1.0], ..Default::default() }, "adam: beta2");
    check(NAdamW { momentum_decay: -1.0, ..Default::default() }, "nadamw: momentum_decay");
    check(RmsProp { alpha: nan, ..Default::default() }, "rmsprop: alpha");
    check(Sps { c: 0.0, ..Default::default() }, "sps: c");
    check(Sps { bound: SpsBound::Most(0.0), ..Default::default() }, "sps: bound");
    let bound = SpsBound::Smooth { growth: 0.9, batches: 1, first: 1.0 };
    check(Sps { bound, ..Default::default() }, "sps: growth");
    let bound = SpsBound::Smooth { growth: 1.0, batches: 0, first: 1.0 };
    check(Sps { bound, ..Default::default() }, "sps: batches");
    check(Sls { cut: 1.0, ..Default::default() }, "sls: cut");
    check(Sls { batches: 0, ..Default::default() }, "sls: batches");
    check(Hypergradient::additive(0.0, 1.0), "hypergradient: rate");
    check(Hypergradient::additive(1.0, 0.0), "meta_lr");
    check(DAdaptSgd { d0: 0.0, ..Default::default() }, "d-adaptation: d0");
    check(DAdaptAdam { growth: Some(1.0), ..Default::default() }, "d-adaptation: growth");
    check(Prodigy { beta3: Some(1.0), ..Default::default() }, "prodigy: beta3");
    check(Prodigy { growth: Some(nan), ..Default::default() }, "prodigy: growth");
    check(Dog { reps_rel: 0.0, ..Default::default() }, "dog: reps_rel");
    check(Dog { averaging: Some(-1.0), ..Default::default() }, "dog: averaging");
    check(ScheduleFreeSgd { momentum: 0.0, ..Default::default() }, "schedule-free: momentum");
    check(ScheduleFreeAdamW { betas: [0.0, 0.9], ..Default::default() }, "schedule-free: beta1");
    check(Cocob { eps: 0.0, ..Default::default() }, "cocob: eps");
    check(Mechanic { betas: vec![], ..Mechanic::around(Sgd::default()) }, "mechanic: betas");
    check(Mechanic::around(Sgd { lr: nan, ..Default::default() }), "sgd: lr");
    check(Momo { lower_bound: nan, ..Default::default() }, "momo: lower_bound");
    check(MomoAdam { lr: -1.0, ..Default::default() }, "momo-adam: lr");
    let few = RangeTest { steps: 5, ..Default::default() };
    let error = few.run(|_| Ok::<_, PeerError>(1.0)).unwrap_err();
    assert!(matches!(error, PeerError::OutOfRange { what: "range test: steps", .. }));
}

#[test]
fn an_estimate_grows_no_faster_than_it_may() {
    fn check<R: PeerRule>(rule: R, most: f64) {
        let mut peer = Peer::new(rule).unwrap();
        let (mut weights, _) = slices();
        let mut before: Option<f64> = None;
        for _ in 0..30 {
            let (loss, gradients) = bowl(&weights);
            step(&mut peer, &mut weights, &gradients, loss).unwrap();
            let rate = peer.rates()[0];
            // Prodigy's first estimate is free, as in the package.
            if let Some(before) = before.filter(|&before| before > 1e-6) {
                assert!(rate <= before * most * (1.0 + 1e-12), "{before} {rate}");
            }
            before = Some(rate);
        }
        assert!(before.is_some_and(|rate| rate > 1e-6));
    }
    let growth = Some(1.3);
    check(DAdaptSgd { growth, ..Default::default() }, 1.3);
    check(DAdaptAdam { growth, ..Default::default() }, 1.3);
    check(Prodigy { growth, ..Default::default() }, 1.3);
}
