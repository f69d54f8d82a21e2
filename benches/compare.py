#!/usr/bin/env python3
"""The layers of benches/layers.rs beside PyTorch's: same shapes, one thread, turn by turn.

    cargo bench --bench layers --no-run
    python3 benches/compare.py [--rounds N] [NAME...]

Needs `pip install torch`. Prints a Markdown table: milliseconds of ours and of PyTorch's (medians
of the rounds), and the ratio (median of each round's ratio; below 1, ours is faster), for the
forward pass, and for forward and backward. Each round's time is the median of its samples or, with
`--fastest`, the least: on a machine that is busy otherwise, the median tells what else ran. In both
the layer trains, its input wants a gradient except where it is an image (the stems), and gradients
are made anew each time rather than added to.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import built
import torch
from torch import nn

PASSES = ("forward", "forward_backward")


def conv(inputs, outputs, kernel, stride=1, padding=0):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


class Block(nn.Module):
    """A Wide-ResNet block: x + conv(relu(norm(conv(relu(norm(x)))))."""

    def __init__(self, channels):
        super().__init__()
        self.path = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv(channels, channels, 3, padding=1),
        )

    def forward(self, x):
        return x + self.path(x)


class Attention(nn.Module):
    """Attention of sentences to themselves."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class CrossEntropy(nn.Module):
    """The mean loss of one label a row."""

    def forward(self, x):
        return nn.functional.cross_entropy(x, TOKENS)


class DecoderLayer(nn.Module):
    """With a memory, and a causal mask."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(128, 4, 256, batch_first=True)
        self.memory = torch.randn(32, 20, 128, requires_grad=True)
        self.mask = nn.Transformer.generate_square_subsequent_mask(20)

    def forward(self, x):
        self.memory.grad = None
        return self.layer(x, self.memory, tgt_mask=self.mask, tgt_is_causal=True)


TOKENS = torch.tensor([index * 619 % 2000 for index in range(640)])

# Each layer of benches/layers.rs, and the shape of its input, or the input where it is not of
# numbers.
LAYERS = {
    "conv_stem_3_16": (lambda: conv(3, 16, 3, 1, 1), (32, 3, 32, 32)),
    "conv_16_16": (lambda: conv(16, 16, 3, 1, 1), (32, 16, 32, 32)),
    "conv_32_32": (lambda: conv(32, 32, 3, 1, 1), (32, 32, 16, 16)),
    "conv_64_64": (lambda: conv(64, 64, 3, 1, 1), (32, 64, 8, 8)),
    "conv_32_32_stride_2": (lambda: conv(32, 32, 3, 2, 1), (32, 32, 32, 32)),
    "conv_1x1_stride_2": (lambda: conv(16, 32, 1, 2), (32, 16, 32, 32)),
    "conv_512_512": (lambda: conv(512, 512, 3, 1, 1), (4, 512, 7, 7)),
    "conv_1x1_256_64": (lambda: conv(256, 64, 1), (4, 256, 56, 56)),
    "conv_stem_7x7": (lambda: conv(3, 64, 7, 2, 3), (4, 3, 224, 224)),
    "batch_norm_16": (lambda: nn.BatchNorm2d(16), (32, 16, 32, 32)),
    "batch_norm_relu_16": (
        lambda: nn.Sequential(nn.BatchNorm2d(16), nn.ReLU()),
        (32, 16, 32, 32),
    ),
    "batch_norm_64": (lambda: nn.BatchNorm2d(64), (32, 64, 8, 8)),
    "relu": (nn.ReLU, (32, 16, 32, 32)),
    "max_pool_3_2": (lambda: nn.MaxPool2d(3, 2, 1), (32, 16, 32, 32)),
    "avg_pool_2": (lambda: nn.AvgPool2d(2), (32, 16, 32, 32)),
    "block_16": (lambda: Block(16), (32, 16, 32, 32)),
    "block_32": (lambda: Block(32), (32, 32, 16, 16)),
    "block_64": (lambda: Block(64), (32, 64, 8, 8)),
    "linear_784_1000": (lambda: nn.Linear(784, 1000), (128, 784)),
    "layer_norm_128": (lambda: nn.LayerNorm(128), (640, 128)),
    "embedding_2000": (lambda: nn.Embedding(2000, 128), TOKENS.reshape(32, 20)),
    "cross_entropy_2000": (CrossEntropy, (640, 2000)),
    "attention_128": (Attention, (32, 20, 128)),
    "encoder_layer_128": (
        lambda: nn.TransformerEncoderLayer(128, 4, 256, batch_first=True),
        (32, 20, 128),
    ),
    "decoder_layer_128": (DecoderLayer, (32, 20, 128)),
}


def ours(bench, name, seconds, fastest):
    """Milliseconds of both passes, by criterion."""
    home = built.ROOT / "target" / "criterion"
    command = [bench, "--bench", "--noplot", "--sample-size", "50", "--warm-up-time", "0.1"]
    command += ["--measurement-time", str(seconds), f"^{name}/"]
    environment = {**os.environ, "CRITERION_HOME": str(home)}
    subprocess.run(command, cwd=built.ROOT, env=environment, check=True, capture_output=True)
    for one in PASSES:
        read = lambda file: json.loads((home / name / one / "new" / file).read_text())
        if fastest:
            sample = read("sample.json")
            yield min(t / n for t, n in zip(sample["times"], sample["iters"])) / 1e6
        else:
            yield read("estimates.json")["median"]["point_estimate"] / 1e6


def theirs(layer, x, upstream, seconds, fastest):
    """Milliseconds of both passes, by PyTorch."""

    def forward():
        return layer(x)

    def forward_backward():
        layer(x).backward(upstream)
        x.grad = None
        layer.zero_grad(set_to_none=True)

    for work in (forward, forward_backward):
        times = []
        start = time.perf_counter()
        while time.perf_counter() < start + 0.1:
            work()
        start = time.perf_counter()
        while time.perf_counter() < start + seconds or len(times) < 10:
            before = time.perf_counter()
            work()
            times.append(time.perf_counter() - before)
        yield (min(times) if fastest else statistics.median(times)) * 1e3


def compare(bench, name, rounds, *how):
    """For both passes: ours, PyTorch's and the ratio."""
    make, shape = LAYERS[name]
    torch.manual_seed(1)
    layer = make().train()
    x = shape
    if not torch.is_tensor(x):
        x = torch.randn(shape, requires_grad="stem" not in name)
    upstream = torch.ones_like(layer(x))
    measured = []
    for _ in range(rounds):
        turns = zip(ours(bench, name, *how), theirs(layer, x, upstream, *how))
        measured.append([(a, b, a / b) for a, b in turns])
    for of_pass in zip(*measured):
        yield [statistics.median(values) for values in zip(*of_pass)]


def machine():
    """The processor's name and number of cores."""
    name = platform.processor()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="layers; by default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each pass and round")
    parser.add_argument("--fastest", action="store_true", help="the least disturbed sample")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in LAYERS]
    if unknown:
        parser.error(f"no such layer: {', '.join(unknown)}; there are {', '.join(LAYERS)}")
    torch.set_num_threads(1)
    bench = built.newest("layers")
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    print(f"{datetime.date.today()}, {machine()}, PyTorch {torch.__version__}, {rust},")
    of = "the fastest" if options.fastest else "the median"
    print(f"one thread, medians of {options.rounds} rounds, each {of} of its samples.\n")
    print("| layer | forward, ms | PyTorch | ratio | forward+backward, ms | PyTorch | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.names or LAYERS:
        passes = compare(bench, name, options.rounds, options.seconds, options.fastest)
        cells = [f"{a:.3f} | {b:.3f} | {ratio:.2f}" for a, b, ratio in passes]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
