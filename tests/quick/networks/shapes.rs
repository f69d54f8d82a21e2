//! Drawn shapes: how often each is drawn, and how much their means tell.

use tlr_models::data::shapes::draw;

#[test]
fn the_classes_are_equally_frequent() {
    for classes in [10, 20] {
        let train = draw(5, 1000, 1, classes).unwrap().train;
        assert_eq!(train.classes(), classes);
        for class in 0..classes as u8 {
            let count = (0..1000).filter(|&i| train.label(i).unwrap() == class).count() * classes;
            assert!((600..1400).contains(&count), "{class}: {count}");
        }
    }
}

/// The mean of a class is a linear classifier: it must do little better than chance.
#[test]
fn means_hardly_tell_the_classes_apart() {
    let data = draw(8, 2000, 400, 10).unwrap();
    let size = data.train.size();
    let mut means = vec![(0_usize, vec![0.0_f32; size]); 10];
    for i in 0..data.train.len() {
        let (count, mean) = &mut means[usize::from(data.train.label(i).unwrap())];
        *count += 1;
        mean.iter_mut()
            .zip(data.train.pixels_of(i).unwrap())
            .for_each(|(m, &x)| *m += f32::from(x));
    }
    let distance = |i: usize, (count, mean): &(usize, Vec<f32>)| -> f32 {
        let pairs = mean.iter().zip(data.test.pixels_of(i).unwrap());
        pairs.map(|(m, &x)| (m / *count as f32 - f32::from(x)).powi(2)).sum()
    };
    let right = (0..data.test.len())
        .filter(|&i| {
            let best =
                (0..10).min_by(|&a, &b| distance(i, &means[a]).total_cmp(&distance(i, &means[b])));
            best == Some(usize::from(data.test.label(i).unwrap()))
        })
        .count();
    assert!(right < 120, "{right} of 400");
}
