//! Handwritten-looking digits that the crate draws itself.
//!
//! Every image starts from one of a few pen paths a digit, which is bent, slanted, turned,
//! stretched and moved at random and then drawn with a round pen of random width and darkness on
//! noisy paper. The result needs no files, is a little harder than MNIST for a linear model and
//! about as hard for a network with a hidden layer.

mod glyphs;
mod hand;

pub use glyphs::CLASSES;
pub use hand::SIDE;

use super::{DataError, Dataset, Images};
use glyphs::GLYPHS;
use hand::{draw_segment, expose, Hand};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws `train` images to train on and `test` images to test on, 28x28 pixels each, of digits
/// chosen evenly at random.
///
/// An image depends only on `seed`, on the half it belongs to and on its place there: asking for
/// more images adds to the end and changes nothing before it. Only the basic operations of `f32`
/// are used, for which every platform gives the same bits.
///
/// # Errors
/// [`DataError::Zero`] when `train` or `test` is zero.
///
/// ```
/// use tlr_models::data::digits;
///
/// let data = digits::draw(1, 30, 10)?;
/// assert_eq!((data.train.len(), data.test.len()), (30, 10));
/// assert_eq!(data.test, digits::draw(1, 5, 10)?.test);
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn draw(seed: u64, train: usize, test: usize) -> Result<Dataset, DataError> {
    Dataset::new(draw_split(seed, Split::Train, train)?, draw_split(seed, Split::Test, test)?)
}

#[derive(Clone, Copy)]
enum Split {
    Train = 0,
    Test = 1,
}

fn draw_split(seed: u64, split: Split, count: usize) -> Result<Images, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..count as u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2 * index + split as u64);
        let label = rng.gen_range(0..CLASSES as u8);
        pixels.extend(draw_digit(usize::from(label), &mut rng));
        labels.push(label);
    }
    Images::new(pixels, labels, [1, SIDE, SIDE], CLASSES)
}

fn draw_digit(digit: usize, rng: &mut ChaCha8Rng) -> [u8; SIDE * SIDE] {
    let glyph = GLYPHS[digit][rng.gen_range(0..GLYPHS[digit].len() as u32) as usize];
    let hand = Hand::new(rng);
    let mut canvas = [0.0; SIDE * SIDE];
    for stroke in glyph {
        let path = hand.bend(stroke, rng);
        for ends in path.windows(2) {
            draw_segment(&mut canvas, ends[0], ends[1]);
        }
    }
    expose(&canvas, rng)
}

#[cfg(test)]
mod tests;
