use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, Copy, TensorCollection, TrainableLr)]
union Model {
    one: f32,
    other: u32,
}

fn main() {}
