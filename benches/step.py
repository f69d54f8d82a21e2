#!/usr/bin/env python3
"""A training step beside PyTorch's: plain SGD, same threads, turn by turn.

    cargo bench --bench overhead --no-run
    python3 benches/step.py [--model mlp|wrn16x1] [--threads N] [--rounds N]

The perceptron 784-1000-10 on 128 digits, or WRN-16-1 on 128 images of 32 x 32. Needs `pip install
torch`. Prints a line of a Markdown table: milliseconds of ours and of PyTorch's (medians of the
rounds), and the ratio (median of each round's; below 1, ours is faster).
"""

import argparse
import os
import statistics
import subprocess
import time

import built

# Name, the images of a batch, and steps in a row.
MODELS = {"mlp": ((128, 784), 94), "wrn16x1": ((128, 3, 32, 32), 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)

    # Only here, so that --help needs no PyTorch.
    import networks
    import torch

    torch.set_num_threads(args.threads)
    model = networks.perceptron() if args.model == "mlp" else networks.wide(1)
    shape, steps = MODELS[args.model]
    x = torch.randn(*shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    y = torch.randint(0, 10, (128,))

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(steps):
        step()
    ours, theirs = [], []
    for _ in range(args.rounds):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        theirs.append((time.perf_counter() - start) / steps * 1e3)
        command = [built.newest("overhead"), "--model", args.model, "--alone", "--rounds", "1"]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        line = next(line for line in table.splitlines() if line.startswith("| tlr's Sgd alone"))
        ours.append(float(line.split("|")[2]))
    ratio = statistics.median(our / their for our, their in zip(ours, theirs))
    print("| model | threads | ours, ms | PyTorch, ms | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"| {args.model} | {args.threads} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
