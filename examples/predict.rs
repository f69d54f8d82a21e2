//! Says which digits there are in pictures, by weights that the example `mnist` has left.
//!
//! ```text
//! cargo run --release --example mnist
//! cargo run --release --example predict                    # some digits that the program draws
//! cargo run --release --example predict -- DIR/t10k-images-idx3-ubyte
//! cargo run --release --features pictures --example predict -- digit.png
//! ```

#[path = "common/numbers.rs"]
mod numbers;

use clap::{CommandFactory, FromArgMatches, Parser};
use dfdx::{nn::BuildModule, prelude::Cpu};
use numbers::whole;
use std::{
    error::Error,
    fmt::Display,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};
use tlr_models::{
    data::{digits, idx, Images, NoScaling, Scaling},
    train::{Net, Network},
    weights::{self, Names, WeightsError},
};

/// What every PNG file begins with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The pixels of a picture, in height and width.
const SIDE: usize = 28;

/// What to try first.
const EXAMPLES: &str = "\
Examples:
  Digits that the program draws itself:
    predict
  MNIST's digits to test on:
    predict DIR/t10k-images-idx3-ubyte --count 20
  A photograph, dark on light, by other weights:
    predict digit.png --invert --weights out/first/best.safetensors";

/// Say which digit a picture shows, and how sure that is, by weights that `mnist` has left.
#[derive(Parser)]
#[command(name = "predict", version, after_help = EXAMPLES)]
struct Args {
    /// Pictures: IDX files as MNIST's, plain or gzipped, or PNG files (built with `--features
    /// pictures`), light on dark as in MNIST; without any, digits are drawn
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Weights of mnist's network
    #[arg(long, value_name = "FILE", default_value = "out/mnist/best.safetensors")]
    weights: PathBuf,
    /// How many pictures of an IDX file are looked at, or drawn
    #[arg(long, value_name = "N", default_value = "10", value_parser = whole::<usize>(1))]
    count: usize,
    /// Turn dark into light: the pictures are dark on light
    #[arg(long)]
    invert: bool,
}

fn main() -> ExitCode {
    let matches = numbers::with_signs(Args::command()).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let device = Cpu::seed_from_u64(0);
    let (model, scaling) = load(&device, &args.weights)?;
    let mut out = io::stdout().lock();
    for (name, pixels) in pictures(args)? {
        let scaled = |&pixel: &u8| scaling.of(0, if args.invert { 255 - pixel } else { pixel });
        let pixels: Option<Vec<f32>> = pixels.iter().map(scaled).collect();
        let pixels = pixels.ok_or("the file has no scaling of grey pixels")?;
        let logits = model.logits(&device, (&pixels, [1, 1, SIDE, SIDE]))?.as_vec();
        let (class, probability) = likeliest(&logits);
        match writeln!(out, "{name}: {class}, {:.2}%", 100.0 * probability) {
            // A reader that has closed stdout has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            said => said?,
        }
    }
    Ok(())
}

/// The trained network, and what it takes for the pixels of a picture.
fn load(device: &Cpu, path: &Path) -> Result<(Net, Scaling), Box<dyn Error>> {
    let failed = |why: &dyn Display| format!("{}: {why}", path.display());
    let bytes = fs::read(path).map_err(|error| {
        format!("{}; `cargo run --release --example mnist` makes such a file", failed(&error))
    })?;
    let mut model = Net::build(device);
    weights::load_bytes(&mut model, &bytes, &Names::default()).map_err(|why| match why {
        WeightsError::Mismatch(_) if tlr::Checkpoint::from_bytes(&bytes).is_ok() => {
            failed(&"a checkpoint; the weights are in best.safetensors, in the run's --out")
        }
        WeightsError::Mismatch(_) => failed(&format!(
            "these weights are of another model, and not of mnist's network: {why}"
        )),
        why => failed(&why),
    })?;
    let scaling = weights::note(&bytes, "scaling").map_err(|why| failed(&why))?;
    let scaling = scaling.ok_or_else(|| failed(&"it does not say how pixels are scaled"))?;
    let scaling: Scaling = scaling.parse().map_err(|why: NoScaling| failed(&why))?;
    Ok((model, scaling))
}

/// Names and pixels.
type Pictures = Vec<(String, Vec<u8>)>;

/// Names of pictures, and their grey pixels row by row.
fn pictures(args: &Args) -> Result<Pictures, Box<dyn Error>> {
    let first = |images: &Images, name: &dyn Fn(usize) -> String| -> Pictures {
        let count = args.count.min(images.len());
        (0..count).filter_map(|i| Some((name(i), images.pixels_of(i)?.to_vec()))).collect()
    };
    if args.files.is_empty() {
        let drawn = digits::draw(0, 1, args.count)?.test;
        let name = |i| format!("a drawn {}", drawn.label(i).unwrap_or_default());
        return Ok(first(&drawn, &name));
    }
    let mut pictures = Vec::new();
    for file in &args.files {
        let name = file.display();
        let bytes = fs::read(file).map_err(|error| format!("{name}: {error}"))?;
        if bytes.starts_with(PNG) {
            pictures.push((name.to_string(), png(&bytes).map_err(|why| format!("{name}: {why}"))?));
            continue;
        }
        let images = idx::read_images(file)?;
        let shape = [1, images.rows, images.columns];
        if shape != [1, SIDE, SIDE] {
            let size = format!("{} by {} pixels", images.rows, images.columns);
            return Err(format!("{name}: pictures of {size}; the network takes 28 by 28").into());
        }
        let images = Images::new(images.pixels, vec![0; images.count], shape, 1)?;
        pictures.extend(first(&images, &|i| format!("{name}, picture {}", i + 1)));
    }
    Ok(pictures)
}

/// Converts a picture to grey and scales it to 28×28, as MNIST's images are.
#[cfg(feature = "pictures")]
fn png(bytes: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let picture = image::load_from_memory_with_format(bytes, image::ImageFormat::Png)?;
    let side = SIDE as u32;
    let small = picture.resize_exact(side, side, image::imageops::FilterType::Triangle);
    Ok(small.into_luma8().into_raw())
}

#[cfg(not(feature = "pictures"))]
fn png(_: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    Err("this program cannot read PNG; \
         `cargo run --release --features pictures --example predict` can"
        .into())
}

/// The class with the largest logit, and its probability.
fn likeliest(logits: &[f32]) -> (usize, f64) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let class = logits.iter().position(|logit| *logit == largest).unwrap_or(0);
    // The largest, so that no exponential overflows.
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    (class, 1.0 / sum)
}
