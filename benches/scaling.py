#!/usr/bin/env python3
"""Several ranks on one machine: what they take to average gradients, a model fitted to that, and
what it says of more ranks.

    cargo bench --features mpi --bench scaling --no-run
    python3 benches/scaling.py [--rounds N] [--most-ranks 4] [--figures FILE]

The model of an average over n ranks, of P numbers of w bytes in buckets of B numbers,
k = ceil(P / B):

    t = a (n - 1) (1 + 2 k)  +  b 2 (n - 1) / n P w  +  c P

a: seconds for each message of a rank, of which it sends one to each other rank in each of the
   1 + 2k exchanges (figures; parts and means of each bucket).
b: seconds for each byte that a rank sends and receives.
c: seconds for each number, to copy it out of and into the gradients and to sum it. A rank sums
   P / n numbers of n ranks, so this does not depend on n.

It leaves out that parts are on their way while others are summed, that ranks are never equally
fast, and what a network does that is used by others. a and b are of this machine's shared memory.
For a network, give --latency (microseconds) and --bandwidth (GB/s); c stays as it was fitted.
"""

import argparse
import json
import math
import os
import statistics
import subprocess

import built


def run(ranks, *flags):
    program = [built.newest("scaling"), *map(str, flags)]
    command = ["mpirun", "--oversubscribe", "-n", str(ranks), *program]
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
        matrix = [
            [sum(s[i] * s[j] for s in scaled) for j in range(n)] + [sum(s[i] for s in scaled)]
            for i in range(n)
        ]
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


def measure(counts, rounds, keep):
    """Averages and steps of so many ranks."""
    found = {"averages": [], "steps": []}
    for examples in (128, 512):
        for ranks in counts:
            one = run(ranks, "--examples", examples, "--rounds", rounds)
            found["steps"].append({**one, "examples": examples})
    for ranks in counts[1:]:
        for elements in (800_000, 4_000_000):
            for bucket in (1 << 14, 1 << 17, 1 << 20):
                for width in (4, 2):
                    flags = ["--elements", elements, "--bucket", bucket, "--rounds", rounds]
                    one = run(ranks, *flags, *(["--bf16"] if width == 2 else []))
                    found["averages"].append({**one, "width": width})
                    keep(found)
    return found


def modelled(fitted, one):
    found = terms(one["ranks"], one["elements"], one["bucket"], one["width"])
    return sum(x * y for x, y in zip(fitted, found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--most-ranks", type=int, default=4)
    parser.add_argument("--figures", help="a file to keep what was measured in, or to take it from")
    parser.add_argument("--latency", type=float, help="of a network, in microseconds")
    parser.add_argument("--bandwidth", type=float, help="of a network, in GB/s")
    args = parser.parse_args()
    counts = [n for n in (1, 2, 4) if n <= args.most_ranks]
    if args.figures and os.path.exists(args.figures):
        measured = json.load(open(args.figures))
    else:
        keep = lambda found: args.figures and json.dump(found, open(args.figures, "w"))
        measured = measure(counts, args.rounds, keep)

    # Of two ranks: on more of them than cores, one waits for another's core.
    fit = [one for one in measured["averages"] if one["ranks"] == 2]
    rows = [terms(one["ranks"], one["elements"], one["bucket"], one["width"]) for one in fit]
    fitted = solve(rows, [one["ms"] / 1e3 for one in fit])
    print("| ranks | numbers | bits | bucket | ms | MB sent | messages | waited | model, ms |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for one in measured["averages"]:
        print(
            f"| {one['ranks']} | {one['elements']:,} | {8 * one['width']} | {one['bucket']:,} "
            f"| {one['ms']:.2f} | {one['bytes'] / 1e6:.2f} | {one['messages']:.0f} "
            f"| {100 * one['waited_ms'] / one['ms']:.0f} % | {modelled(fitted, one) * 1e3:.2f} |"
        )
    off = [abs(modelled(fitted, one) * 1e3 / one["ms"] - 1) for one in fit]
    a, b, c = fitted
    print(
        f"\nFitted to two ranks: a = {a * 1e6:.1f} us, b = {b * 1e9:.3f} ns a byte, "
        f"c = {c * 1e9:.2f} ns; off by {100 * statistics.median(off):.0f} % (median)"
    )

    print("\n| ranks | examples a rank | step, ms | examples a second | efficiency |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    alone = {one["examples"]: one["ms"] for one in measured["steps"] if one["ranks"] == 1}
    for one in measured["steps"]:
        ranks, examples, ms = one["ranks"], one["examples"], one["ms"]
        # As a part of what so many cores could do.
        ideal = alone[examples] * max(1, ranks / os.cpu_count())
        speed = ranks * examples / ms * 1e3
        print(f"| {ranks} | {examples} | {ms:.2f} | {speed:,.0f} | {100 * ideal / ms:.0f} % |")

    if args.latency:
        a = args.latency * 1e-6
    if args.bandwidth:
        b = 1e-9 / args.bandwidth
    compute = alone[512] / 1e3
    print(
        f"\nOn paper, 795,010 numbers, {compute * 1e3:.1f} ms to compute 512 examples, "
        f"a = {a * 1e6:.1f} us, b = {b * 1e9:.3f} ns:\n"
    )
    print("| ranks | best bucket | average, ms | efficiency |")
    print("| ---: | ---: | ---: | ---: |")
    for ranks in (2, 4, 16, 64, 256, 1000):
        buckets = [1 << power for power in range(12, 21)]
        best = min(buckets, key=lambda bucket: cost(a, b, c, ranks, bucket))
        average = cost(a, b, c, ranks, best)
        part = 100 * compute / (compute + average)
        print(f"| {ranks} | {best:,} | {average * 1e3:.2f} | {part:.0f} % |")


def cost(a, b, c, ranks, bucket):
    return sum(x * y for x, y in zip((a, b, c), terms(ranks, 795_010, bucket)))


if __name__ == "__main__":
    main()
