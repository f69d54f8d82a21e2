//! A small language pair that the crate makes itself, where no corpus is at hand.
//!
//! The source is German as in subordinate clauses, the target English. The words translate one by
//! one or nearly so, but the order does not: the verb, last in German, comes after the subject in
//! English, the time goes from after the subject to the end, and articles and adjectives depend on
//! a noun further on. To translate, a model has to look ahead and back.

use std::collections::HashSet;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{ParallelText, TextError, Translation};
use crate::data::random::{generator, Purpose};

/// The most sentences of all parts together. This is a small part of all possible sentences, so
/// that new ones are found soon.
pub const LIMIT: usize = 200_000;

/// Makes `train`, `val` and `test` pairs. All sentences differ, so that none to test on was trained
/// on. They depend on the seed and the three numbers only.
///
/// # Errors
/// [`TextError::Zero`] when a number is zero, [`TextError::TooMany`] when they exceed [`LIMIT`]
/// together.
///
/// ```
/// let data = tlr_models::data::text::toy::draw(1, 1000, 100, 100)?;
/// println!("{} = {}", data.train.source()[0], data.train.target()[0]);
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
pub fn draw(seed: u64, train: usize, val: usize, test: usize) -> Result<Translation, TextError> {
    let asked = train.saturating_add(val).saturating_add(test);
    if asked > LIMIT {
        return Err(TextError::TooMany { asked, limit: LIMIT });
    }
    let mut seen = HashSet::new();
    let mut half = |number: u64, count: usize| {
        let (mut sources, mut targets) = (Vec::new(), Vec::new());
        let mut rng = generator(Purpose::Sentence, seed, number, 0);
        while sources.len() < count {
            let (source, target) = sentence(&mut rng);
            if seen.insert(source.clone()) {
                sources.push(source);
                targets.push(target);
            }
        }
        ParallelText::new(sources, targets)
    };
    // The test half first: asking for more to train on leaves it as it is.
    let (test, val) = (half(2, test)?, half(1, val)?);
    Ok(Translation { train: half(0, train)?, val, test })
}

/// A gender, as a position in the tables of articles.
#[derive(Clone, Copy)]
enum Gender {
    Masculine,
    Feminine,
    Neuter,
}
use Gender::{Feminine, Masculine, Neuter};

type Noun = (&'static str, Gender, &'static str);
type Words = (&'static str, &'static str);

const CONJUNCTIONS: [Words; 4] =
    [("weil", "because"), ("wenn", "when"), ("obwohl", "although"), ("dass", "that")];

/// Nouns that can act, and be acted upon.
const LIVING: [Noun; 9] = [
    ("Hund", Masculine, "dog"),
    ("Mann", Masculine, "man"),
    ("Vogel", Masculine, "bird"),
    ("Frau", Feminine, "woman"),
    ("Katze", Feminine, "cat"),
    ("Kuh", Feminine, "cow"),
    ("Kind", Neuter, "child"),
    ("Pferd", Neuter, "horse"),
    ("Schaf", Neuter, "sheep"),
];

const THINGS: [Noun; 9] = [
    ("Ball", Masculine, "ball"),
    ("Apfel", Masculine, "apple"),
    ("Stuhl", Masculine, "chair"),
    ("Blume", Feminine, "flower"),
    ("Tasche", Feminine, "bag"),
    ("Lampe", Feminine, "lamp"),
    ("Buch", Neuter, "book"),
    ("Brot", Neuter, "bread"),
    ("Bild", Neuter, "picture"),
];

/// Without their ending.
const ADJECTIVES: [Words; 10] = [
    ("klein", "small"),
    ("groß", "big"),
    ("rot", "red"),
    ("grün", "green"),
    ("alt", "old"),
    ("neu", "new"),
    ("schön", "beautiful"),
    ("weiß", "white"),
    ("schwarz", "black"),
    ("still", "quiet"),
];

/// Present and participle in both languages.
const VERBS: [(Words, Words); 8] = [
    (("sieht", "sees"), ("gesehen", "seen")),
    (("kauft", "buys"), ("gekauft", "bought")),
    (("findet", "finds"), ("gefunden", "found")),
    (("malt", "paints"), ("gemalt", "painted")),
    (("trägt", "carries"), ("getragen", "carried")),
    (("sucht", "seeks"), ("gesucht", "sought")),
    (("holt", "fetches"), ("geholt", "fetched")),
    (("zeichnet", "draws"), ("gezeichnet", "drawn")),
];

const PLACES: [Words; 6] = [
    ("im Garten", "in the garden"),
    ("im Wald", "in the forest"),
    ("am See", "at the lake"),
    ("auf der Straße", "on the street"),
    ("in der Stadt", "in the town"),
    ("hinter dem Haus", "behind the house"),
];

const TIMES: [Words; 5] = [
    ("heute", "today"),
    ("jeden Tag", "every day"),
    ("am Abend", "in the evening"),
    ("im Winter", "in winter"),
    ("manchmal", "sometimes"),
];

fn sentence(rng: &mut ChaCha8Rng) -> (String, String) {
    let (mut source, mut target) = clause(rng);
    if rng.gen_ratio(1, 3) {
        let (second_source, second_target) = clause(rng);
        source = format!("{source} und {second_source}");
        target = format!("{target} and {second_target}");
    }
    (format!("{source} ."), format!("{target} ."))
}

/// A German clause (conjunction, subject, time, object, place, verb), and its English translation.
fn clause(rng: &mut ChaCha8Rng) -> (String, String) {
    let conjunction = pick(&CONJUNCTIONS, rng);
    let subject = noun_phrase(pick(&LIVING, rng), ["der", "die", "das"], ["e", "e", "e"], rng);
    let object = if rng.gen_ratio(1, 3) { pick(&LIVING, rng) } else { pick(&THINGS, rng) };
    let object = noun_phrase(object, ["den", "die", "das"], ["en", "e", "e"], rng);
    let maybe = |words: &[Words], rng: &mut ChaCha8Rng| {
        if rng.gen_ratio(1, 2) {
            pick(words, rng)
        } else {
            ("", "")
        }
    };
    let (time, place) = (maybe(&TIMES, rng), maybe(&PLACES, rng));
    let (present, participle) = pick(&VERBS, rng);
    let (verb, english_verb) = if rng.gen_ratio(1, 3) {
        (format!("{} hat", participle.0), format!("has {}", participle.1))
    } else {
        (present.0.to_owned(), present.1.to_owned())
    };
    let source = [conjunction.0, &subject.0, time.0, &object.0, place.0, &verb];
    let target = [conjunction.1, &subject.1, &english_verb, &object.1, place.1, time.1];
    (join(&source), join(&target))
}

/// An article, an adjective half of the time, and the noun; articles and endings by gender.
fn noun_phrase(
    (noun, gender, english): Noun,
    articles: [&str; 3],
    endings: [&str; 3],
    rng: &mut ChaCha8Rng,
) -> (String, String) {
    let article = articles[gender as usize];
    if rng.gen_ratio(1, 2) {
        let (adjective, english_adjective) = pick(&ADJECTIVES, rng);
        let ending = endings[gender as usize];
        (
            format!("{article} {adjective}{ending} {noun}"),
            format!("the {english_adjective} {english}"),
        )
    } else {
        (format!("{article} {noun}"), format!("the {english}"))
    }
}

/// An entry of a table; no table is empty.
fn pick<T: Copy>(from: &[T], rng: &mut ChaCha8Rng) -> T {
    // As u32: the draw must not depend on the width of usize.
    from[rng.gen_range(0..from.len() as u32) as usize]
}

fn join(parts: &[&str]) -> String {
    let filled: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    filled.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_sentences_differ() {
        let data = draw(1, 3000, 300, 300).unwrap();
        assert_eq!([data.train.len(), data.val.len(), data.test.len()], [3000, 300, 300]);
        let all: HashSet<&String> =
            [&data.train, &data.val, &data.test].iter().flat_map(|text| text.source()).collect();
        assert_eq!(all.len(), 3600);
    }

    #[test]
    fn sentences_depend_on_the_seed() {
        assert_eq!(draw(1, 50, 5, 5).unwrap(), draw(1, 50, 5, 5).unwrap());
        assert_ne!(draw(1, 50, 5, 5).unwrap().train, draw(2, 50, 5, 5).unwrap().train);
        assert_eq!(draw(1, 50, 5, 5).unwrap().test, draw(1, 90, 5, 5).unwrap().test);
    }

    /// Guards the figures made with this language, and shows what it looks like.
    #[test]
    fn the_sentences_are_pinned() {
        let train = draw(42, 2, 1, 1).unwrap().train;
        assert_eq!(
            train.source(),
            [
                "wenn die Katze das weiße Buch gesucht hat .",
                "obwohl der Vogel manchmal das grüne Buch holt und weil der rote Vogel jeden Tag \
                 die Lampe im Wald malt .",
            ]
        );
        assert_eq!(
            train.target(),
            [
                "when the cat has sought the white book .",
                "although the bird fetches the green book sometimes and because the red bird \
                 paints the lamp in the forest every day .",
            ]
        );
    }

    /// Translates by the dictionary and the rules, from the German words alone.
    #[test]
    fn the_translation_follows_from_the_source() {
        let data = draw(3, 2000, 1, 1).unwrap();
        for (source, target) in data.train.source().iter().zip(data.train.target()) {
            let source = source.strip_suffix(" .").unwrap();
            let clauses: Vec<String> = source.split(" und ").map(translate).collect();
            assert_eq!(format!("{} .", clauses.join(" and ")), *target, "{source}");
        }
    }

    fn translate(clause: &str) -> String {
        let words: Vec<&str> = clause.split(' ').collect();
        let conjunction = CONJUNCTIONS.iter().find(|pair| pair.0 == words[0]).unwrap().1;
        let mut rest = &words[1..];
        let verb = match rest {
            [before @ .., participle, "hat"] => {
                rest = before;
                format!("has {}", VERBS.iter().find(|v| v.1 .0 == *participle).unwrap().1 .1)
            }
            [before @ .., present] => {
                rest = before;
                VERBS.iter().find(|v| v.0 .0 == *present).unwrap().0 .1.to_owned()
            }
            [] => unreachable!(),
        };
        let subject = take_noun(&mut rest, ["der", "die", "das"]);
        let time = take_phrase(&mut rest, &TIMES);
        let object = take_noun(&mut rest, ["den", "die", "das"]);
        let place = take_phrase(&mut rest, &PLACES);
        assert!(rest.is_empty(), "{clause}");
        join(&[conjunction, &subject, &verb, &object, place, time])
    }

    fn take_noun(rest: &mut &[&str], articles: [&str; 3]) -> String {
        let at = rest.iter().position(|word| word.chars().next().unwrap().is_uppercase()).unwrap();
        let (phrase, after) = rest.split_at(at + 1);
        *rest = after;
        let (noun, gender, english) =
            *LIVING.iter().chain(&THINGS).find(|noun| noun.0 == phrase[at]).unwrap();
        assert_eq!(phrase[0], articles[gender as usize]);
        match phrase {
            [_, adjective, _] => {
                let ending = if phrase[0] == "den" { "en" } else { "e" };
                let stem = adjective.strip_suffix(ending).unwrap();
                let adjective = ADJECTIVES.iter().find(|pair| pair.0 == stem).unwrap().1;
                format!("the {adjective} {english}")
            }
            [_, _] => format!("the {english}"),
            _ => unreachable!("{noun}"),
        }
    }

    fn take_phrase(rest: &mut &[&str], table: &[Words]) -> &'static str {
        for (german, english) in table {
            let words: Vec<&str> = german.split(' ').collect();
            if let Some(after) = rest.strip_prefix(&words[..]) {
                *rest = after;
                return english;
            }
        }
        ""
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for (train, val, test) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert!(matches!(draw(1, train, val, test), Err(TextError::Zero { .. })));
        }
        let error = draw(1, LIMIT, 1, 1).unwrap_err();
        assert!(matches!(error, TextError::TooMany { asked: 200_002, .. }), "{error}");
        assert!(matches!(draw(1, usize::MAX, 1, 1), Err(TextError::TooMany { .. })));
    }
}
