//! Drawn digits: legible, balanced, the same for a seed, and different from one another.
#![allow(clippy::unwrap_used)]
use sha2::{Digest, Sha256};

use super::{hand::*, *};

fn pixels(images: &Images) -> Vec<u8> {
    (0..images.len()).flat_map(|i| images.pixels_of(i).unwrap().to_vec()).collect()
}

#[test]
fn every_glyph_can_be_drawn() {
    for variants in GLYPHS {
        assert!(variants.len() >= 2);
        for stroke in variants.iter().flat_map(|glyph| glyph.iter()) {
            assert!(stroke.len() >= 2);
            assert!(stroke.iter().flatten().all(|c| (0.0..=1.0).contains(c)));
        }
    }
}

#[test]
fn a_curve_passes_through_its_points() {
    let points = [[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]];
    for span in 0..2 {
        assert_eq!(catmull_rom(&points, span, 0.0), points[span]);
        assert_eq!(catmull_rom(&points, span, 1.0), points[span + 1]);
    }
    let line = [[0.0, 0.0], [2.0, 4.0]];
    assert_eq!(catmull_rom(&line, 0, 0.5), [1.0, 2.0]);
}

#[test]
fn a_segment_is_as_wide_as_the_pen_and_no_wider() {
    let mut canvas = [0.0; SIDE * SIDE];
    let [a, b] = [[8.5, 10.5], [20.5, 10.5]].map(|at| Dot { at, radius: 1.25 });
    draw_segment(&mut canvas, a, b);
    let column: Vec<f32> = (8..14).map(|row| canvas[row * SIDE + 14]).collect();
    assert_eq!(column, [0.0, 0.75, 1.0, 0.75, 0.0, 0.0]);
    let row: Vec<f32> = (5..9).map(|column| canvas[10 * SIDE + column]).collect();
    assert_eq!(row, [0.0, 0.0, 0.75, 1.0]);
}

#[test]
fn a_segment_off_the_sheet_draws_nothing() {
    for at in [[-40.0, 10.0], [10.0, -40.0], [90.0, 10.0], [10.0, 90.0]] {
        let mut canvas = [0.0; SIDE * SIDE];
        let dot = Dot { at, radius: 2.0 };
        draw_segment(&mut canvas, dot, dot);
        assert!(canvas.iter().all(|&v| v == 0.0));
    }
}

#[test]
fn an_image_depends_on_seed_half_and_place_only() {
    let short = draw(3, 20, 5).unwrap();
    let long = draw(3, 40, 30).unwrap();
    assert_eq!(short.train, long.train.clone().take(20).unwrap());
    assert_eq!(short.test, long.test.clone().take(5).unwrap());
    assert_ne!(short.train, long.test.take(20).unwrap());
    assert_ne!(short.train, draw(4, 20, 5).unwrap().train);
}

/// Holds on every platform and in every profile.
#[test]
fn the_pixels_are_pinned() {
    let data = draw(42, 200, 100).unwrap();
    let sum =
        Sha256::new().chain_update(pixels(&data.train)).chain_update(pixels(&data.test)).finalize();
    let start: String = sum.iter().take(8).map(|b| format!("{b:02x}")).collect();
    assert_eq!(start, "41b114b7061e2f61");
}

#[test]
fn the_digits_are_equally_frequent() {
    let train = draw(5, 2000, 1).unwrap().train;
    for digit in 0..10 {
        let count = (0..2000).filter(|&i| train.label(i).unwrap() == digit).count();
        assert!((140..260).contains(&count), "{digit}: {count}");
    }
}

#[test]
fn every_image_shows_a_digit_that_is_mostly_on_the_sheet() {
    let train = draw(6, 1000, 1).unwrap().train;
    let mut on_border = 0;
    for i in 0..train.len() {
        let image = train.pixels_of(i).unwrap();
        let ink = image.iter().filter(|&&x| x > 100).count();
        assert!((20..300).contains(&ink), "{i}: {ink}");
        let border = |p: usize| [p % SIDE, p / SIDE].iter().any(|c| [0, SIDE - 1].contains(c));
        let cut = (0..image.len()).any(|p| border(p) && image[p] > 150);
        on_border += usize::from(cut);
    }
    assert!(on_border < 100, "{on_border}");
}

/// The mean of a class is a linear classifier. That it fails often where
/// the nearest neighbour rarely does is what a network can gain.
#[test]
fn classes_overlap_for_a_linear_model_but_not_for_a_neighbour() {
    let data = draw(8, 3000, 200).unwrap();
    let floats = |images: &Images, i: usize| -> Vec<f32> {
        images.pixels_of(i).unwrap().iter().map(|&x| f32::from(x)).collect()
    };
    let examples: Vec<_> = (0..data.train.len()).map(|i| floats(&data.train, i)).collect();
    let mut means = vec![(0, vec![0.0_f32; SIDE * SIDE]); CLASSES];
    for (i, example) in examples.iter().enumerate() {
        let (count, mean) = &mut means[usize::from(data.train.label(i).unwrap())];
        *count += 1;
        mean.iter_mut().zip(example).for_each(|(m, x)| *m += x);
    }
    for (count, mean) in &mut means {
        mean.iter_mut().for_each(|m| *m /= *count as f32);
    }
    let distance =
        |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum() };
    let nearest = |x: &[f32], of: &mut dyn Iterator<Item = &Vec<f32>>| {
        of.map(|y| distance(x, y))
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(i, _)| i)
            .unwrap()
    };
    let (mut by_mean, mut by_neighbour) = (0, 0);
    for i in 0..data.test.len() {
        let x = floats(&data.test, i);
        let label = data.test.label(i).unwrap();
        let mean = nearest(&x, &mut means.iter().map(|m| &m.1));
        by_mean += usize::from(mean == usize::from(label));
        let neighbour = nearest(&x, &mut examples.iter());
        by_neighbour += usize::from(data.train.label(neighbour).unwrap() == label);
    }
    assert!((100..160).contains(&by_mean), "{by_mean} of 200");
    assert!(by_neighbour >= 165, "{by_neighbour} of 200");
}

#[test]
fn empty_sets_are_refused() {
    for (train, test) in [(0, 1), (1, 0)] {
        assert!(matches!(draw(1, train, test), Err(DataError::Zero { .. })));
    }
}
