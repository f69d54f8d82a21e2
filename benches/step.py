#!/usr/bin/env python3
"""A training step of the perceptron 784-1000-10 on 128 digits beside PyTorch's: plain SGD, same threads, turn by turn.

    cargo bench --bench overhead --no-run
    python3 benches/step.py [--threads N] [--rounds N]

Needs `pip install torch`. Prints a line of a Markdown table: milliseconds of ours and of PyTorch's (medians of the rounds), and the
ratio (median of each round's; below 1, ours is faster).
"""

import argparse
import os
import statistics
import subprocess
import time

import built

STEPS = 94


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)

    import torch

    torch.set_num_threads(args.threads)
    model = torch.nn.Sequential(torch.nn.Linear(784, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, y = torch.randn(128, 784), torch.randint(0, 10, (128,))

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(STEPS):
        step()
    ours, theirs = [], []
    for _ in range(args.rounds):
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        theirs.append((time.perf_counter() - start) / STEPS * 1e3)
        command = [built.newest("overhead"), "--alone", "--rounds", "1"]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        line = next(line for line in table.splitlines() if line.startswith("| tlr's Sgd alone"))
        ours.append(float(line.split("|")[2]))
    ratio = statistics.median(our / their for our, their in zip(ours, theirs))
    print("| threads | ours, ms | PyTorch, ms | ratio |")
    print("| ---: | ---: | ---: | ---: |")
    print(f"| {args.threads} | {statistics.median(ours):.2f} | {statistics.median(theirs):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
