#!/usr/bin/env python3
"""How long `cargo check` takes for a model of many layers; dependencies are warm.

The model derives `TensorCollection` and `TrainableLr`, and is trained with a rate a layer.

    python3 benches/compile_time.py [--layers 25,50,100,200] [--rounds 3]

Prints a Markdown table: seconds, the least of the rounds.
"""

import argparse
import os
import pathlib
import subprocess
import tempfile
import time

from built import ROOT

MANIFEST = """
[package]
name = "many-layers"
version = "0.0.0"
edition = "2021"
[dependencies]
dfdx = "=0.13.0"
tlr = {{ path = "{root}/tlr" }}
[workspace]
"""


def source(layers):
    """A struct of so many layers, and a step with a rate each."""
    fields = "\n".join(f"    layer{index}: modules::Linear<4, 4, E, D>," for index in range(layers))
    lines = (f"    let x = model.layer{index}.forward(x).tanh();" for index in range(layers))
    forward = "\n".join(lines)
    return f"""
use dfdx::{{nn::modules, optim::SgdConfig, prelude::*}};
use tlr::{{optim::Sgd, Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr}};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {{
{fields}
}}

fn main() {{
    let dev = Cpu::default();
    let mut model = Model::<f32, Cpu>::build(&dev);
    let sgd = Sgd::new(&model, SgdConfig::default());
    let mut opt = Newton::new(&model, PerLayer::new(&model, sgd), NewtonConfig::default()).unwrap();
    let x: Tensor<Rank2<2, 4>, f32, _> = dev.sample_normal();
    let x = x.trace(model.alloc_grads());
{forward}
    let loss = x.square().mean();
    let value = loss.array();
    opt.step(&mut model, &loss.backward(), value).unwrap();
}}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="1,25,50,100,200")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("| layers | cargo check, s |")
    print("| ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        project = pathlib.Path(folder)
        (project / "src").mkdir()
        (project / "Cargo.toml").write_text(MANIFEST.format(root=ROOT))
        (project / "Cargo.lock").write_bytes((ROOT / "Cargo.lock").read_bytes())
        target = str(ROOT / "target/compile-time")
        environment = dict(os.environ, CARGO_INCREMENTAL="0", CARGO_TARGET_DIR=target)
        main_rs = project / "src/main.rs"

        def check(layers):
            main_rs.write_text(source(layers))
            start = time.perf_counter()
            subprocess.run(["cargo", "check", "--quiet"], cwd=project, env=environment, check=True)
            return time.perf_counter() - start

        check(1)
        for layers in map(int, args.layers.split(",")):
            seconds = min(check(layers) for _ in range(args.rounds))
            print(f"| {layers} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
