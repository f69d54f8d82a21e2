//! What stands in the bar of a run.
#![allow(missing_docs)]

#[allow(dead_code)]
#[path = "../common/shown.rs"]
mod shown;

#[allow(dead_code)]
fn warn(_: std::fmt::Arguments<'_>) {}

// A terminal of 40 columns has room for 22. Fails if a rate is shown without its exponent.
#[test]
fn a_rate_is_shown_whole_or_not_at_all() {
    let said = |room| shown::message(2.38829, &[("model", 0.67)], room);
    assert_eq!(said(None), "loss 2.3883  rate 6.7e-1");
    assert_eq!(said(Some(24)), "loss 2.3883  rate 6.7e-1");
    assert_eq!(said(Some(23)), "loss 2.3883");
    assert_eq!(said(Some(22)), "loss 2.3883");
}
