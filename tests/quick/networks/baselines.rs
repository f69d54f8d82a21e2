//! The peers against their own packages, step by step, and what is asked of each: save and resume
//! to the bit, broken steps that change nothing, any dfdx model.
//!
//! `tests/golden/peers.json` is by `tests/golden/peers.py`. Ten more cases live outside the
//! repository.

/// Calls a generic function with each peer, all settings in use.
macro_rules! each_peer {
    ($check:ident) => {{
        use tlr_models::baselines::*;
        let decay = 1e-2;
        $check(Sgd { momentum: 0.9, nesterov: true, weight_decay: decay, ..Default::default() });
        $check(Adam { weight_decay: decay, ..Default::default() });
        $check(NAdamW { weight_decay: decay, ..Default::default() });
        $check(RmsProp { momentum: 0.5, weight_decay: decay, ..Default::default() });
        $check(Sps::default());
        $check(Sls::default());
        $check(Hypergradient::additive(1e-2, 1e-3));
        $check(Hypergradient::multiplicative(1e-2, 0.1));
        $check(DAdaptSgd { momentum: 0.5, weight_decay: decay, ..Default::default() });
        $check(DAdaptAdam { weight_decay: decay, ..Default::default() });
        $check(Prodigy { weight_decay: decay, ..Default::default() });
        $check(Dog::default());
        $check(Dog { weight_decay: decay, ..Dog::layerwise() });
        $check(ScheduleFreeSgd { lr: 0.1, warmup_steps: 4, ..Default::default() });
        $check(ScheduleFreeAdamW { weight_decay: decay, ..Default::default() });
        $check(Cocob::default());
        $check(Mechanic::around(Sgd { lr: 0.01, momentum: 0.9, ..Default::default() }));
        $check(Mechanic { store_delta: true, ..Mechanic::around(Adam::default()) });
        $check(Momo { weight_decay: decay, ..Default::default() });
        $check(MomoAdam { estimate_bound: true, ..Default::default() });
    }};
}

mod golden;
mod model;
mod pure;
mod training;
