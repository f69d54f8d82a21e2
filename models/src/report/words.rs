//! Numbers, as people write them.

/// A number and what it counts, in the singular or the plural.
///
/// ```
/// use tlr_models::report::count;
///
/// assert_eq!(count(1, "epoch"), "1 epoch");
/// assert_eq!(count(3, "epoch"), "3 epochs");
/// assert_eq!(count(0, "batch"), "0 batches");
/// assert_eq!(count(20_000, "test image"), "20,000 test images");
/// ```
pub fn count(number: usize, what: &str) -> String {
    let ending = match what {
        _ if number == 1 => "",
        // A batch, a class; not an epoch.
        _ if what.ends_with("tch") || what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {what}{ending}", grouped(number))
}

/// A number as people write it, but exactly.
///
/// ```
/// use tlr_models::report::number;
///
/// let all = [0.0, 0.01, 1.0, 1e-9, 2.5e7].map(number);
/// assert_eq!(all, ["0", "0.01", "1", "1e-9", "2.5e7"]);
/// ```
pub fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

/// The number, its digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        let all = [0, 7, 999, 1000, 79_510, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "7", "999", "1,000", "79,510", "1,234,567"]);
    }

    #[test]
    fn one_is_singular() {
        let all = [(1, "class"), (2, "class"), (1, "pair"), (0, "pair")].map(|(n, w)| count(n, w));
        assert_eq!(all, ["1 class", "2 classes", "1 pair", "0 pairs"]);
    }
}
