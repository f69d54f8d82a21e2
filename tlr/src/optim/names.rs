//! Which names the buffers of an optimizer may have.

/// Whether the names differ, are not empty and have no dot: in a checkpoint a buffer is called
/// `name.path`. Evaluated when the program is compiled.
pub(super) const fn are_distinct_words(names: &[&str]) -> bool {
    let mut index = 0;
    while index < names.len() {
        let name = names[index].as_bytes();
        let mut at = 0;
        while at < name.len() {
            if name[at] == b'.' {
                return false;
            }
            at += 1;
        }
        let mut other = index + 1;
        while other < names.len() {
            if are_equal(name, names[other].as_bytes()) {
                return false;
            }
            other += 1;
        }
        if name.is_empty() {
            return false;
        }
        index += 1;
    }
    true
}

const fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

#[cfg(test)]
mod tests {
    use super::are_distinct_words;

    // Fails for each name that a checkpoint could not tell from another.
    #[test]
    fn names_of_buffers() {
        assert!(are_distinct_words(&[]) && are_distinct_words(&["m", "mm", "exp_avg"]));
        for bad in [&["m", "v", "m"][..], &["exp.avg"], &["m", ""], &["v", "m", "m"]] {
            assert!(!are_distinct_words(bad), "{bad:?}");
        }
    }
}
