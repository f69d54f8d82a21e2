"""A training step beside PyTorch's or burn's: plain SGD, same threads, turn by turn.

    cargo bench --bench overhead --no-run
    python3 benches/step.py [--peer torch|burn] [--model mlp|wrn16x1] [--threads N] [--rounds N]

The perceptron 784-1000-10 on 128 digits, or WRN-16-1 on 128 images of 32 x 32. PyTorch needs `pip
install torch`, and burn (benches/burn) minutes to be built. Prints a line of a Markdown table:
milliseconds of ours and of the peer's (medians of the rounds), and the ratio (median of each
round's; below 1, ours is faster).
"""

import argparse
import os
import statistics
import subprocess
import time

import built

# Name, the images of a batch, and steps in a row.
MODELS = {"mlp": ((128, 784), 94), "wrn16x1": ((128, 3, 32, 32), 4)}


def output(command):
    """The lines that a program prints."""
    program = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return program.stdout.splitlines()


def pytorch(args):
    """What times a round of PyTorch's, in milliseconds a step."""
    # Only here, so that neither --help nor burn needs PyTorch.
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

    def measure():
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - start) / steps * 1e3

    # The first is for memory and caches.
    measure()
    return measure


def burn(args):
    """What times a round of burn's, in milliseconds a step."""
    manifest = built.ROOT / "benches" / "burn" / "Cargo.toml"
    cargo = ["cargo", "run", "--release", "--locked", "--quiet", "--manifest-path", manifest, "--"]
    given = ["--model", args.model, "--threads", args.threads, "--steps", MODELS[args.model][1]]
    command = cargo + [str(option) for option in given]

    def measure():
        line = next(line for line in output(command) if line.startswith("measured: "))
        return float(line.split()[1])

    return measure


PEERS = {"torch": ("PyTorch", pytorch), "burn": ("burn", burn)}


def ours(args):
    """Milliseconds a step of a round of ours."""
    command = [built.newest("overhead"), "--model", args.model, "--alone", "--rounds", "1"]
    line = next(line for line in output(command) if line.startswith("| tlr's Sgd alone"))
    return float(line.split("|")[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=PEERS, default="torch")
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)

    name, peer = PEERS[args.peer]
    measure = peer(args)
    rounds = [(measure(), ours(args)) for _ in range(args.rounds)]
    ratio = statistics.median(own / their for their, own in rounds)
    their, own = map(statistics.median, zip(*rounds))
    print(f"| model | threads | ours, ms | {name}, ms | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| {args.model} | {args.threads} | {own:.2f} | {their:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
