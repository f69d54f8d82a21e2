//! Trains ResNet-50 on a folder of pictures with a learning rate that learns itself.
//!
//! ```text
//! cargo run --release --features pictures --example imagenet   # draws a small folder; after a minute 47 % of its four classes
//! cargo run --release --features pictures --example imagenet -- --data DIR --side 224 --epochs 80 --batch-size 96
//! ```
//!
//! `DIR` is laid out as ImageNet is, `train/<class>/` and `val/<class>/` with pictures in them or in
//! folders below, or as Tiny ImageNet is. All pictures are read once before training starts.

mod common;

use clap::Parser;
use common::{follow::progress_bar, warn, Job, Training};
use dfdx::prelude::Cpu;
use std::{
    error::Error,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tlr_models::{
    data::folder::{self, Folder, Loader, Preparation},
    resnet::ResNet50,
    train::Decoded,
};

/// Pictures the program draws where there are no others, and their classes.
const DRAWN: (usize, usize, usize) = (384, 96, 4);

/// Broken pictures that are named one by one.
const NAMED: usize = 10;

/// Train ResNet-50 on a folder of pictures, from any learning rate.
#[derive(Parser)]
#[command(name = "imagenet", allow_negative_numbers = true)]
struct Args {
    #[command(flatten)]
    training: Training,
    /// Pixels that pictures are cut to, in height and width
    #[arg(long, default_value_t = 32)]
    side: u32,
    /// Threads that decode pictures [default: one a core]
    #[arg(long, value_name = "N")]
    decoders: Option<NonZeroUsize>,
    /// Leave out pictures that cannot be read, instead of ending with the list of them
    #[arg(long)]
    skip_broken: bool,
    /// Folder of pictures; without it, one is drawn into --out
    #[arg(long, value_name = "DIR", env = "TLR_IMAGENET")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let defaults =
        [("out", "out/imagenet"), ("rate", "3e-2"), ("epochs", "8"), ("batch_size", "16")];
    common::run(&defaults, |args: &Args| &args.training, run)
}

fn run(args: &Args, job: &Job<'_>) -> Result<ExitCode, Box<dyn Error>> {
    let training = &args.training;
    if training.limit.is_some() && args.data.is_some() {
        return Err("--limit is for drawn pictures: leave some out of the folder instead".into());
    }
    let (name, dir) = match &args.data {
        Some(dir) => (dir.display().to_string(), dir.clone()),
        None => ("Drawn pictures".to_owned(), draw(training)?),
    };
    let folder = open(&dir, args.skip_broken)?;
    let mut loader = Loader::default();
    loader.threads = args.decoders.unwrap_or(loader.threads);
    let preparation = Preparation::square(args.side);
    let source = Decoded::new(&folder, preparation, loader, training.batch_size, training.seed)?;
    let source = source.drop_last();
    let name = format!("{name}, ResNet-50");
    // As many logits as needed, within what is compiled in.
    match folder.train.classes().len() {
        ..=10 => job.train::<ResNet50<10, f32, Cpu>>(&name, &source),
        _ => job.train::<ResNet50<1000, f32, Cpu>>(&name, &source),
    }
}

/// The folder's pictures, all of which can be read. Says what else there is.
fn open(dir: &Path, skip_broken: bool) -> Result<Folder, Box<dyn Error>> {
    let folder = Folder::open(dir)?;
    let others = &folder.passed_over;
    if !others.is_empty() {
        let count = others.len();
        warn(format_args!("passed over {count} files that are no pictures: {others}"));
    }
    let all = folder.train.len() + folder.val.len();
    let bar = progress_bar();
    bar.set_length(all as u64);
    bar.set_message("reading all pictures once");
    let (folder, broken) = folder.without_broken(|| bar.inc(1))?;
    bar.finish_and_clear();
    for error in broken.iter().take(NAMED) {
        warn(format_args!("{error}"));
    }
    if broken.len() > NAMED {
        warn(format_args!("and {} more", broken.len() - NAMED));
    }
    let broken = broken.len();
    if broken == 0 {
        return Ok(folder);
    }
    if !skip_broken {
        let what = format!("{broken} of {all} pictures cannot be read");
        return Err(format!("{what}: repair or remove them, or pass --skip-broken").into());
    }
    warn(format_args!("left out {broken} of {all} pictures that cannot be read"));
    Ok(folder)
}

/// Draws a folder of pictures, and says where it is.
fn draw(args: &Training) -> Result<PathBuf, Box<dyn Error>> {
    let dir = args.out.join("pictures");
    let (train, val, classes) = DRAWN;
    folder::write_drawn(&dir, args.seed, args.limited(train), args.limited(val), classes, 72)?;
    Ok(dir)
}
