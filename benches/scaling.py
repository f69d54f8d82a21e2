#!/usr/bin/env python3
"""Several ranks on one machine: what they take to average gradients, a model fitted to that, and what it
says of more ranks.

    cargo bench --features mpi --bench scaling --no-run
    python3 benches/scaling.py [--rounds N] [--most-ranks 4]

The model of an average over n ranks, of P numbers of w bytes in buckets of B numbers, k = ceil(P / B):

    t = a (n - 1) (1 + 2 k)  +  b 2 (n - 1) / n P w  +  c P

a: seconds for each message of a rank, of which it sends one to each other rank in each of the 1 + 2k
   exchanges (figures; parts and means of each bucket).
b: seconds for each byte that a rank sends and receives.
c: seconds for each number, to copy it out of and into the gradients and to sum it. A rank sums P / n numbers
   of n ranks, so this does not depend on n.

It leaves out that parts are on their way while others are summed, that ranks are never equally fast, and
what a network does that is used by others. a and b are of this machine's shared memory. For a network, give
--latency (microseconds) and --bandwidth (GB/s); c stays as it was fitted.
"""

import argparse
import json
import math
import os
import subprocess

import built


def run(ranks, *flags):
    command = ["mpirun", "--oversubscribe", "-n", str(ranks), built.newest("scaling"), *map(str, flags)]
    if os.geteuid() == 0:
        command.insert(1, "--allow-run-as-root")
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def terms(ranks, elements, bucket, width=4):
    """What a, b and c are multiplied by."""
    exchanges = 1 + 2 * math.ceil(elements / bucket)
    return [(ranks - 1) * exchanges, 2 * (ranks - 1) / ranks * elements * width, elements]


def solve(rows, times):
    """Least squares of relative errors, none of the three below 0."""
    kept = [0, 1, 2]
    while True:
        scaled = [[row[i] / t for i in kept] for row, t in zip(rows, times)]
        n = len(kept)
        matrix = [[sum(s[i] * s[j] for s in scaled) for j in range(n)] + [sum(s[i] for s in scaled)] for i in range(n)]
        for i in range(n):
            pivot = matrix[i][i]
            matrix[i] = [x / pivot for x in matrix[i]]
            for j in range(n):
                if j != i:
                    factor = matrix[j][i]
                    matrix[j] = [x - factor * y for x, y in zip(matrix[j], matrix[i])]
        found = {kept[i]: matrix[i][n] for i in range(n)}
        negative = [i for i in kept if found[i] < 0]
        if not negative:
            return [found.get(i, 0.0) for i in range(3)]
        kept = [i for i in kept if i not in negative]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--most-ranks", type=int, default=4)
    parser.add_argument("--latency", type=float, help="of a network, in microseconds")
    parser.add_argument("--bandwidth", type=float, help="of a network, in GB/s")
    args = parser.parse_args()
    counts = [n for n in (2, 4) if n <= args.most_ranks]

    print("| ranks | numbers | bucket | average, ms | MB sent | messages | waited | model, ms |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    found, rows, times = [], [], []
    for ranks in counts:
        for elements in (800_000, 4_000_000, 25_000_000):
            for bucket in (1 << 15, 1 << 18, 1 << 21):
                one = run(ranks, "--elements", elements, "--bucket", bucket, "--rounds", args.rounds)
                found.append(one)
                if ranks == counts[0]:
                    rows.append(terms(ranks, one["elements"], bucket))
                    times.append(one["ms"] / 1e3)
    fitted = solve(rows, times)
    for one in found:
        model = sum(x * y for x, y in zip(fitted, terms(one["ranks"], one["elements"], one["bucket"])))
        print(
            f"| {one['ranks']} | {one['elements']} | {one['bucket']} | {one['ms']:.2f} | {one['bytes'] / 1e6:.2f} "
            f"| {one['messages']:.0f} | {100 * one['waited_ms'] / one['ms']:.0f} % | {model * 1e3:.2f} |"
        )
    a, b, c = fitted
    print(f"\na = {a * 1e6:.2f} us, b = {b * 1e9:.3f} ns a byte ({1e-9 / b if b else math.inf:.2f} GB/s), c = {c * 1e9:.2f} ns")

    print("\n| ranks | examples a rank | step, ms | examples a second | efficiency |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    alone = None
    for examples in (128, 512):
        for ranks in [1] + counts:
            one = run(ranks, "--examples", examples, "--rounds", args.rounds)
            speed = ranks * examples / one["ms"] * 1e3
            alone = speed if ranks == 1 else alone
            cores = min(ranks, os.cpu_count())
            print(f"| {ranks} | {examples} | {one['ms']:.2f} | {speed:.0f} | {100 * speed / alone / cores:.0f} % |")

    if args.latency:
        a = args.latency * 1e-6
    if args.bandwidth:
        b = 1e-9 / args.bandwidth
    compute = run(1, "--examples", 512, "--rounds", args.rounds)["ms"] / 1e3
    print(f"\nOn paper, 795,010 numbers, {compute * 1e3:.1f} ms to compute 512 examples, a = {a * 1e6:.1f} us, b = {1e-9 / b:.2f} GB/s:\n")
    print("| ranks | bucket | average, ms | efficiency |")
    print("| ---: | ---: | ---: | ---: |")
    for ranks in (2, 4, 16, 64, 256, 1000):
        best = min((1 << power for power in range(12, 22)), key=lambda bucket: cost(a, b, c, ranks, bucket))
        average = cost(a, b, c, ranks, best)
        print(f"| {ranks} | {best} | {average * 1e3:.2f} | {100 * compute / (compute + average):.0f} % |")


def cost(a, b, c, ranks, bucket):
    return sum(x * y for x, y in zip((a, b, c), terms(ranks, 795_010, bucket)))


if __name__ == "__main__":
    main()
