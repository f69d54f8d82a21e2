//! Where the ramp ends, the base optimizer's velocity is cleared if steps follow the gradients.

use super::{bowl, Paper, Run};
use tlr::engine::*;

fn heavy_ball(signs: bool) -> Run {
    let host = Paper { momentum: 0.9, signs, ..Paper::new(vec![vec![3.0]], bowl(1.0)) };
    Run::new(NewtonConfig::default(), 1e-6, host)
}

fn clears(run: &Run) -> usize {
    run.host.log.iter().filter(|line| *line == "clear").count()
}

// Once, in the step that ends the ramp, and from there the weights roll on from rest: the next step
// is that of plain descent. Fails if it is not cleared, or cleared earlier, when the weights would
// lose what the ramp has gained.
#[test]
fn steps_that_follow_gradients_begin_from_rest() {
    let mut run = heavy_ball(false);
    run.ramp();
    assert_eq!(run.host.log.last().unwrap(), "clear");
    assert_eq!((clears(&run), run.host.velocity[0][0]), (1, 0.0));
    assert!(!run.engine.state().is_within_step());
    let (w, rate) = (run.host.w[0][0], run.rates()[0]);
    run.step(None);
    assert_eq!(run.host.w[0][0], w - rate * w);
    (0..500).for_each(|_| drop(run.step(None)));
    assert_eq!(clears(&run), 1);
    assert!(run.host.w[0][0].abs() < 1e-6);
}

#[test]
fn normalized_steps_keep_their_averages() {
    let mut run = heavy_ball(true);
    run.ramp();
    assert_eq!(clears(&run), 0);
    assert!(run.host.velocity[0][0].abs() > 1.0);
}

// The weights were updated, the rates are found, and the next step begins a window. Fails if the
// step is not counted, or if the ramp goes on.
#[test]
fn a_velocity_that_cannot_be_cleared_stays() {
    let mut run = heavy_ball(false);
    let steps = heavy_ball(false).ramp() as u64;
    run.host.fails_to_clear = true;
    (1..steps).for_each(|_| drop(run.step(None)));
    let failed = drive(&mut run.engine, &mut run.host, None, false);
    assert_eq!(failed, Err(StepError::Host { error: (), step_made: true }));
    assert_eq!((run.engine.steps(), run.engine.lacks_snapshot()), (steps, true));
    assert!(!run.engine.state().is_within_step());
    let mut other = heavy_ball(false);
    other.ramp();
    assert_eq!((run.rates(), run.engine.history()), (other.rates(), other.engine.history()));
    assert_eq!(run.step(None), Step::Made);
    assert_eq!(clears(&run), 1);
}

// The engine waits for nothing else, and what it waits for can be saved and read.
#[test]
fn a_saved_ramp_waits_for_the_cleared_optimizer() {
    let mut run = heavy_ball(false);
    let steps = heavy_ball(false).ramp();
    (1..steps).for_each(|_| drop(run.step(None)));
    let mut event = Event::Batch { loss: None, only_gathers: false };
    let waiting = loop {
        event = match run.engine.tell(event).unwrap() {
            Request::MeasureSlopes(since) => Event::Slopes(run.host.slopes(since).unwrap()),
            Request::Update => {
                run.host.update(run.engine.effective_rates()).unwrap();
                Event::Updated
            }
            other => break other,
        };
    };
    assert_eq!(waiting, Request::ClearOptimizer);
    let error = run.engine.tell(Event::Updated).unwrap_err();
    assert!(error.to_string().contains("waits for a cleared optimizer"), "{error}");
    let saved = serde_json::to_string(run.engine.state()).unwrap();
    let mut other = heavy_ball(false);
    other.engine.resume(serde_json::from_str(&saved).unwrap()).unwrap();
    for engine in [&mut run.engine, &mut other.engine] {
        let Request::Done(Step::Ramped { decisions }) =
            engine.tell(Event::OptimizerCleared).unwrap()
        else {
            panic!()
        };
        assert_eq!((decisions.len(), decisions[0].outcome), (1, Outcome::Ramped));
        assert_eq!(engine.history().last(), decisions.last());
    }
    assert_eq!(run.engine.state(), other.engine.state());
}
