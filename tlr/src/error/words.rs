//! Words of error messages.

/// A number as people write it: 1e-30 rather than thirty digits.
pub(super) fn shown(value: f64) -> String {
    if value == 0.0 || !value.is_finite() || (1e-4..1e7).contains(&value.abs()) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

/// The ending of a noun that `count` stands before.
pub(super) fn plural(count: usize) -> &'static str {
    match count {
        1 => "",
        _ => "s",
    }
}

/// What may be wrong with an infinite loss, and is easily overlooked.
pub(super) fn overflow(may_be: bool) -> &'static str {
    match may_be {
        true => {
            "; in half precision a mean is infinite if its sum is above 65504: take it over one \
             axis after the other, or in f32"
        }
        false => "",
    }
}

pub(super) fn hint(advice: &str) -> String {
    if advice.is_empty() {
        String::new()
    } else {
        format!(": {advice}")
    }
}
