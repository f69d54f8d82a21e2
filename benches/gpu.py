#!/usr/bin/env python3
"""Training steps on a GPU beside PyTorch's: plain SGD, the same batches, turn by turn.

    python3 benches/gpu.py PROGRAM [--rounds N] [--device cuda|cpu] [--batch N]
        [--only NAME...] [--no-targets]

PROGRAM is models/examples/gpu_step, built with `--features cuda,f16`; benches/gpu.sh builds it and
calls this. Needs PyTorch on the same GPU. Prints a Markdown table: milliseconds of ours and of
PyTorch's (medians of the rounds), the ratio (median of each round's; below 1, ours is faster), the
memory of each, and the target. PyTorch computes in f32 without TF32, as cuBLAS does for ours, and
in f16 by autocast, where ours has all of its weights in f16. The last lines are of our steps alone:
with a learned rate and without; and with the loss read in each step, as training does, and unread.
Ends with 1 if a target is missed.

`--device cpu --batch 2 --steps 1` tries the script itself, with tests/gpu-on-host on our side.
"""

import argparse
import statistics
import subprocess
import sys
import time

import torch
from networks import conv, perceptron, wide
from torch import nn
from torch.nn import functional

WORDS, LENGTH = 2_000, 20


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.path = nn.Sequential(
            conv(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            conv(width, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            conv(width, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.short = nn.Identity()
        if (inputs, stride) != (outputs, 1):
            self.short = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return functional.relu(self.path(x) + self.short(x))


def resnet50():
    layers, inputs = [], 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = 4 * width
    stem = [conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)]
    return nn.Sequential(*stem, *layers, *end)


class Translator(nn.Module):
    """Seq2Seq of tlr_models: 512 features, 8 heads, three layers on either side."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(WORDS, 512), nn.Embedding(WORDS, 512)
        self.net = nn.Transformer(512, 8, 3, 3, 512, batch_first=True)
        self.generator = nn.Linear(512, WORDS)
        self.register_buffer("places", torch.randn(LENGTH, 512))

    def forward(self, ids):
        source, target = ids
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, device=source.device)
        embedded = [
            table(words) * 512**0.5 + self.places
            for table, words in ((self.source, source), (self.target, target))
        ]
        return self.generator(self.net(*embedded, tgt_mask=mask, tgt_is_causal=True)).flatten(0, 1)


def images(side):
    return lambda batch: torch.randn(batch, 3, side, side)


def sentences(batch):
    return torch.randint(2, WORDS, (2, batch, LENGTH))


# Name, network, its input, classes, the usual batch, steps of a turn.
NETS = {
    "perceptron": (perceptron, lambda batch: torch.randn(batch, 784), 10, 128, 200),
    "wrn-16-1": (lambda: wide(1), images(32), 10, 128, 20),
    "wrn-16-4": (lambda: wide(4), images(32), 10, 128, 10),
    "resnet-50": (resnet50, images(224), 1000, 32, 5),
    "transformer": (Translator, sentences, WORDS, 128, 10),
}

# The comparisons: our network, PyTorch's, the type, PyTorch's way, and the largest ratio.
GRAPH = "graph"
JOBS = [
    ("perceptron", "perceptron", "f32", "eager", 0.6),
    ("perceptron", "perceptron", "f32", GRAPH, 1.0),
    ("wrn-16-1", "wrn-16-1", "f32", "eager", 1.0),
    ("wrn-16-4", "wrn-16-4", "f32", "eager", 1.1),
    ("resnet-50", "resnet-50", "f32", "eager", 1.1),
    ("transformer", "transformer", "f32", "eager", 1.1),
    ("wrn-16-4", "wrn-16-4", "f16", "eager", 1.1),
    ("resnet-50", "resnet-50", "f16", "eager", 1.1),
]
# Memory: at most this many times PyTorch's. Newton: at most this part of a step more.
MEMORY, NEWTON = 1.2, 1.02


class Ours:
    """Our program, which takes some steps for each line that it is sent."""

    def __init__(self, program, name, batch, steps, dtype, *more):
        arguments = [program, name, str(batch), str(steps), dtype, *more]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self):
        """Milliseconds of a step, and bytes that are free on the GPU."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 2:
            raise RuntimeError(f"{' '.join(self.process.args)} ended with {self.process.wait()}")
        return float(answer[0]), int(answer[1])

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    """PyTorch's step on one batch. The perceptron's loss is read after each step, as ours is."""

    def __init__(self, device, name, batch, steps, dtype, graph):
        build, inputs, classes, _, _ = NETS[name]
        self.cuda, self.steps, self.reads = device == "cuda", steps, name == "perceptron"
        self.model, self.x = build().to(device), inputs(batch).to(device)
        rows = batch * LENGTH if name == "transformer" else batch
        self.y = torch.randint(0, classes, (rows,), device=device)
        self.half = dtype == "f16"
        self.scaler = torch.amp.GradScaler(device, enabled=self.half)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.step = self.eager
        if graph:
            self.capture()

    def eager(self):
        self.optimizer.zero_grad()
        kind = "cuda" if self.cuda else "cpu"
        with torch.autocast(kind, dtype=torch.float16, enabled=self.half):
            loss = functional.cross_entropy(self.model(self.x), self.y)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def capture(self):
        """The same step as one CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.eager()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.eager()

        def replay():
            graph.replay()
            return loss

        self.step = replay

    def turn(self):
        self.wait()
        start = time.perf_counter()
        for _ in range(self.steps):
            loss = self.step()
            if self.reads:
                loss.item()
        self.wait()
        return (time.perf_counter() - start) / self.steps * 1e3

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()


def free(device):
    if device == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return 0


def turns(args, ours, theirs, dtype, way, memory):
    """Medians of our and their milliseconds, of the ratio, and each one's bytes."""
    _, _, _, batch, steps = NETS[theirs]
    batch, steps = args.batch or batch, min(steps, args.steps or steps)
    before = free(args.device)
    own = Ours(args.program, ours, batch, steps, dtype)
    try:
        # The first turn compiles kernels and finds memory; all of theirs comes after it.
        own_bytes = before - own.turn()[1]
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        other = Theirs(args.device, theirs, batch, steps, dtype, way == GRAPH)
        other.turn()
        pairs = []
        for _ in range(args.rounds):
            pairs.append((own.turn()[0], other.turn()))
        their_bytes = torch.cuda.max_memory_reserved() if args.device == "cuda" else 0
    finally:
        own.end()
    del other
    milliseconds = [statistics.median(column) for column in zip(*pairs)]
    ratio = statistics.median(a / b for a, b in pairs)
    return *milliseconds, ratio, own_bytes - memory, their_bytes


def beside(args, net, *ours):
    """Medians of the milliseconds of two of our steps of a network, and of the ratio of the first
    to the second. Each is a name, and what else the program is told."""
    _, _, _, batch, steps = NETS[net]
    batch, steps = args.batch or batch, min(steps, args.steps or steps)
    both = [Ours(args.program, name, batch, steps, "f32", *more) for name, *more in ours]
    try:
        for own in both:
            own.turn()
        pairs = [[own.turn()[0] for own in both] for _ in range(2 * args.rounds)]
    finally:
        for own in both:
            own.end()
    medians = [statistics.median(column) for column in zip(*pairs)]
    return *medians, statistics.median(a / b for a, b in pairs)


def megabytes(count):
    return f"{count / 1e6:.0f}" if count > 0 else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=NETS, default=list(NETS))
    parser.add_argument("--no-targets", action="store_true", help="show times, and judge none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="of a turn, at most")
    parser.add_argument("--batch", type=int, help="in place of the usual ones")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU: nothing is compared")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    gpu = torch.cuda.get_device_name() if args.device == "cuda" else "no GPU"
    print(f"PyTorch {torch.__version__}, {gpu}\n")
    print("| step | ours, ms | PyTorch, ms | ratio | target | ours, MB | PyTorch, MB | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    # What a process takes for its context alone.
    memory = 0
    if args.device == "cuda":
        before = free("cuda")
        tiny = Ours(args.program, "perceptron", 1, 1, "f32")
        memory = before - tiny.turn()[1]
        tiny.end()
    missed = []
    for ours, theirs, dtype, way, target in JOBS:
        if theirs not in args.only or way == GRAPH and args.device != "cuda":
            continue
        name = f"{ours}, {dtype}, {way}"
        try:
            found = turns(args, ours, theirs, dtype, way, memory)
            own, other, ratio, own_bytes, their_bytes = found
        except (RuntimeError, BrokenPipeError) as error:
            missed.append(name)
            print(f"| {name} | failed: {str(error).splitlines()[0]} | | | {target} | | | missed |")
            continue
        # Of a small network, the context and the libraries' workspaces are most.
        small = their_bytes < 1 << 28
        fits = small or own_bytes <= MEMORY * their_bytes
        judged = "met" if ratio <= target and fits else "missed"
        if args.no_targets:
            target = judged = ""
        elif judged == "missed":
            missed.append(name)
        print(
            f"| {name} | {own:.3f} | {other:.3f} | {ratio:.2f} | {target} "
            f"| {megabytes(own_bytes)} | {megabytes(their_bytes)} | {judged} |",
            flush=True,
        )
    if "perceptron" in args.only:
        learned, plain, ratio = beside(args, "perceptron", ["perceptron-newton"], ["perceptron"])
        met = ratio <= NEWTON
        if not met:
            missed.append("perceptron with a learned rate")
        print(
            f"| perceptron, a learned rate beside none | {learned:.3f} | {plain:.3f} | {ratio:.3f} "
            f"| {NEWTON} | | | {'met' if met else 'missed'} |"
        )
    # What a loss that is read a step late could save at most: the same with and without cuDNN, so
    # it is measured where there are targets.
    nets = [] if args.no_targets else [net for net in args.only if net != "perceptron"]
    for net in nets:
        read, unread, ratio = beside(args, net, [net, "read"], [net])
        name = f"{net}, the loss read beside not"
        print(f"| {name} | {read:.3f} | {unread:.3f} | {ratio:.3f} | | | | |")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
