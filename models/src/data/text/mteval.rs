//! The words that BLEU is counted over, as the script `mteval-v13a` of the translation contests
//! cuts them. sacrebleu calls it 13a, and takes it by default.

/// The words and marks of a sentence, as sacrebleu's 13a cuts them. Published scores are counted
/// over these.
///
/// Marks of ASCII are words of their own, but for a full stop or a comma between digits, an
/// apostrophe, and a dash that follows no digit. Other marks (`„`, `–`) stay where they are.
///
/// ```
/// use tlr_models::data::text::words_13a;
///
/// let words = words_13a("A dog's toy, 1.5 m long.");
/// assert_eq!(words, ["A", "dog's", "toy", ",", "1.5", "m", "long", "."]);
/// ```
pub fn words_13a(sentence: &str) -> Vec<String> {
    let mut text = sentence.trim_end_matches(is_space).replace("<skipped>", "");
    for (from, to) in
        [("-\n", ""), ("\n", " "), ("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
    {
        text = text.replace(from, to);
    }
    let mut apart = String::from(" ");
    for c in text.chars() {
        if is_mark(c) {
            apart.extend([' ', c, ' ']);
        } else {
            apart.push(c);
        }
    }
    apart.push(' ');
    let stop = |c: char| matches!(c, '.' | ',');
    let digit = |c: char| c.is_ascii_digit();
    let apart = pairs(&apart, |a, b| (!digit(a) && stop(b)).then_some([a, ' ', b, ' ']));
    let apart = pairs(&apart, |a, b| (stop(a) && !digit(b)).then_some([' ', a, ' ', b]));
    let apart = pairs(&apart, |a, b| (digit(a) && b == '-').then_some([a, ' ', b, ' ']));
    apart.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether this is a mark of ASCII that is cut off wherever it stands. `'`, `,`, `-` and `.` are
/// not.
fn is_mark(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

/// Whether Python counts this as white space: it counts four control characters more than Rust.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Replaces the pairs of characters that `change` knows, from the left, none of which overlap: as a
/// regular expression of two characters does.
fn pairs(text: &str, change: impl Fn(char, char) -> Option<[char; 4]>) -> String {
    let mut changed = String::with_capacity(2 * text.len());
    let mut characters = text.chars().peekable();
    while let Some(a) = characters.next() {
        match characters.peek().and_then(|&b| change(a, b)) {
            Some(pair) => {
                changed.extend(pair);
                characters.next();
            }
            None => changed.push(a),
        }
    }
    changed
}
