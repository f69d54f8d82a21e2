#!/usr/bin/env python3
"""The update at a window's end beside the same in PyTorch: same size, same threads, turn by turn.

In PyTorch it is a direct transcription of the paper's algorithm.

    cargo bench --bench window --no-run
    python3 benches/window.py [--elements N] [--threads N] [--rounds N]

Needs `pip install torch`. Prints a line of a Markdown table: milliseconds of ours and of PyTorch's
(medians of the rounds), and how many times as long PyTorch takes (median of each round's ratio).
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import built


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=25_000_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)

    import torch

    torch.set_num_threads(args.threads)
    weight = torch.rand(args.elements)
    snapshot, direction = weight.clone(), torch.rand(args.elements)
    rate = 0.1

    def update():
        nonlocal direction
        now = (snapshot - weight) / rate
        across = torch.sum(direction * now).item()
        own = torch.sum(direction * direction).item()
        direction = now
        snapshot.copy_(weight)
        return across, own

    update()
    ours, theirs = [], []
    for _ in range(args.rounds):
        start = time.perf_counter()
        for _ in range(5):
            update()
        theirs.append((time.perf_counter() - start) / 5 * 1e3)
        command = [built.newest("window"), "--elements", str(args.elements)]
        command += ["--rounds", "5", "--json"]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        lines = ran.stdout.splitlines()
        ours.append(next(line["ms"] for line in map(json.loads, lines) if line["dtype"] == "f32"))
    ratio = statistics.median(their / our for our, their in zip(ours, theirs))
    print("| parameters | threads | ours, ms | PyTorch, ms | times |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"| {args.elements} | {args.threads} | {ours:.1f} | {theirs:.1f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
