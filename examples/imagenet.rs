//! Trains ResNet-50 on a folder of pictures with a learning rate that learns itself.
//!
//! ```text
//! # Draws a small folder; after a minute it gets 47 % of its four classes right.
//! cargo run --release --features pictures --example imagenet
//! cargo run --release --features pictures --example imagenet -- --data DIR --side 224 \
//!   --epochs 80 --batch-size 96
//! ```
//!
//! `DIR` is laid out as ImageNet is, `train/<class>/` and `val/<class>/` with pictures in them or
//! in folders below, or as Tiny ImageNet is. All pictures are read once before training starts.

mod common;

use clap::Parser;
use common::{
    device::{on_device, Place},
    numbers::whole,
    warn, Job, Training,
};
use std::{
    error::Error,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tlr_models::{
    data::folder::{self, Folder, Loader, Preparation},
    resnet::ResNet50,
    train::{AnyRanks, Decoded, Share},
};

/// Pictures the program draws if there are no others, and their classes.
const DRAWN: (usize, usize, usize) = (384, 96, 4);

/// Broken pictures that are named one by one.
const NAMED: usize = 10;

/// What to try first.
const EXAMPLES: &str = "\
Examples:
  Pictures that the program draws itself:
    imagenet
  A folder with train/CLASS/ and val/CLASS/ in it:
    imagenet --data DIR --side 224 --batch-size 96 --epochs 80";

/// Train ResNet-50 on a folder of pictures, with a learning rate that learns itself.
#[derive(Parser)]
#[command(name = "imagenet", after_help = EXAMPLES)]
struct Args {
    /// Folder of pictures; without it, one is drawn into --out
    #[arg(long, value_name = "DIR", env = "TLR_IMAGENET", help_heading = "Data")]
    data: Option<PathBuf>,
    /// Pixels that pictures are cut to, in height and width
    #[arg(long, value_name = "N", help_heading = "Data", value_parser = whole::<u32>(1))]
    #[arg(default_value = "32")]
    side: u32,
    /// Threads that decode pictures [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Data", value_parser = whole::<usize>(1))]
    decoders: Option<usize>,
    /// Leave out pictures that cannot be read, instead of ending with the list of them
    #[arg(long, help_heading = "Data")]
    skip_broken: bool,
    #[command(flatten)]
    training: Training,
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
        None => ("Drawn pictures".to_owned(), job.first_one_first(|| draw(training, job.ranks()))?),
    };
    let folder = open(&dir, args.skip_broken, job)?;
    let mut loader = Loader::default();
    let decoders = args.decoders.map(|asked| job.capped(asked, "--decoders"));
    loader.threads = decoders.and_then(NonZeroUsize::new).unwrap_or(loader.threads);
    let preparation = Preparation::square(args.side);
    let source = Decoded::new(&folder, preparation, loader, training.batch_size, training.seed)?;
    let source = source.drop_last().share(Share::of_rank(job.ranks()));
    let name = format!("{name}, ResNet-50");
    // As many logits as needed, within what is compiled in. The larger model compiles for as long
    // as all else, and without --release it would take hours to run.
    on_device!(job.place(), D, E => match folder.train.classes().len() {
        ..=10 => job.train::<ResNet50<10, E, D>>(&name, "ResNet-50", &source),
        #[cfg(not(debug_assertions))]
        _ => job.train::<ResNet50<1000, E, D>>(&name, "ResNet-50", &source),
        #[cfg(debug_assertions)]
        classes => Err(format!("{classes} classes; built without --release it takes 10").into()),
    })
}

/// The folder's pictures, all of which can be read. Says what else there is.
fn open(dir: &Path, skip_broken: bool, job: &Job<'_>) -> Result<Folder, Box<dyn Error>> {
    let folder = Folder::open(dir)?;
    let others = &folder.passed_over;
    if !others.is_empty() {
        let files = match others.len() {
            1 => "1 file that is no picture".to_owned(),
            number => format!("{number} files that are no pictures"),
        };
        job.note(format_args!("passed over {files}: {others}"));
    }
    let all = folder.train.len() + folder.val.len();
    let bar = job.progress_bar();
    bar.set_length(all as u64);
    bar.set_message("reading all pictures once");
    let (folder, broken) = folder.without_broken(|| bar.inc(1))?;
    bar.finish_and_clear();
    if broken.is_empty() {
        return Ok(folder);
    }
    for error in broken.iter().take(NAMED) {
        warn(format_args!("{error}"));
    }
    if broken.len() > NAMED {
        warn(format_args!("and {} more", broken.len() - NAMED));
    }
    let broken = broken.len();
    if !skip_broken {
        let what = format!("{broken} of {all} pictures cannot be read");
        return Err(format!("{what}: repair or remove them, or pass --skip-broken").into());
    }
    warn(format_args!("left out {broken} of {all} pictures that cannot be read"));
    Ok(folder)
}

/// Draws a folder of pictures, and says where it is. Others, of an earlier run, are not among them.
fn draw(args: &Training, ranks: &AnyRanks) -> Result<PathBuf, Box<dyn Error>> {
    let (train, val, classes) = (args.limited(DRAWN.0), args.limited(DRAWN.1), DRAWN.2);
    let dir = args.out.join(format!("pictures/{train}-{val}-seed-{}", args.seed));
    if ranks.is_first() {
        folder::write_drawn(&dir, args.seed, train, val, classes, 72)?;
    }
    Ok(dir)
}
