#!/usr/bin/env python3
"""Several ranks on one machine: what they take to average gradients, a model fitted to that, and
what it says of more ranks.

    cargo bench --features mpi --bench scaling --no-run
    python3 benches/scaling.py [--rounds N] [--most-ranks 4] [--figures FILE]

The model of an average over n ranks, of P numbers of w bytes in buckets of B numbers,
k = ceil(P / B):

    t = a (n - 1) (1 + 2 k)  +  2 (n - 1) / n P w / s  +  d P

a: seconds for each message of a rank, of which it sends one to each other rank in each of the
   1 + 2k exchanges (figures; parts and means of each bucket). Fitted.
d: seconds for each number: to copy it out of and into the gradients and to sum it, and its way
   through this machine's memory. Fitted, with two ranks and 32 bits. A rank sums P / n numbers of
   n ranks, so d does not depend on n. (Buckets above 2^18 are left out: their memory is new each
   time.)
s: bytes a second of a network, --bandwidth. On this machine there is none.

Overlap: within an average, a bucket is summed while the next is on its way. To see what that saves,
16 buckets are averaged at once, and by 16 averages of one bucket each. The second has 15 times more
the figures that ranks compare, which an average of two numbers shows and which are taken off. Both
are told to keep the memory of their messages (glibc): each average would give it back, and new
pages cost more than what is measured.

The model leaves out that parts are on their way while others are summed, that ranks are never
equally fast, and what a network does that is used by others. --latency is the a of a network.
"""

import argparse
import json
import math
import os
import statistics
import subprocess

import built

# Sizes of buckets that the model is fitted to.
FITTED = (1 << 12, 1 << 15, 1 << 18)
# What has glibc keep memory that is free.
KEEP = {
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "67108864",
}


def run(ranks, *flags, env=None):
    """The fastest of three times, for others use the machine."""
    return min((run_once(ranks, *flags, env=env) for _ in range(3)), key=lambda one: one["ms"])


def run_once(ranks, *flags, env=None):
    program = [built.newest("scaling"), *map(str, flags)]
    command = ["mpirun", "--oversubscribe", "-n", str(ranks), *program]
    if os.geteuid() == 0:
        command.insert(1, "--allow-run-as-root")
    env = {**os.environ, **(env or {})}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    return json.loads(out.strip().splitlines()[-1])


def terms(ranks, elements, bucket):
    """What a and d are multiplied by."""
    return (ranks - 1) * (1 + 2 * math.ceil(elements / bucket)), elements


def fitted(rows, times):
    """a and d by least squares of relative errors."""
    scaled = [(x / t, y / t) for (x, y), t in zip(rows, times)]
    xx, yy = sum(x * x for x, _ in scaled), sum(y * y for _, y in scaled)
    xy, x1, y1 = sum(x * y for x, y in scaled), sum(x for x, _ in scaled), sum(y for _, y in scaled)
    determinant = xx * yy - xy * xy
    return (x1 * yy - y1 * xy) / determinant, (y1 * xx - x1 * xy) / determinant


def overlap(counts, rounds):
    """Many buckets at once, and one after the other."""
    kinds = {
        "at_once": ["--elements", 1 << 22],
        "one_at_a_time": ["--one-at-a-time"],
        "figures": ["--elements", 2],
    }
    for ranks in counts[1:]:
        took = {name: math.inf for name in kinds}
        # In turn, so that a busy minute of the machine hits all of them.
        for _ in range(3):
            for name, flags in kinds.items():
                one = run(ranks, *flags, "--rounds", rounds, env=KEEP)
                took[name] = min(took[name], one["ms"])
        yield {"ranks": ranks, **took}


def measure(counts, rounds, keep):
    """Averages and steps of so many ranks."""
    found = {"averages": [], "steps": [], "overlap": list(overlap(counts, rounds))}
    for examples in (128, 512):
        for ranks in counts:
            one = run(ranks, "--examples", examples, "--rounds", rounds)
            found["steps"].append({**one, "examples": examples})
    for ranks in counts[1:]:
        for elements in (800_000, 4_000_000):
            for bucket in FITTED + (1 << 21,) if ranks == 2 else (1 << 18, 1 << 21):
                for width in (4, 2) if ranks == 2 and bucket == 1 << 18 else (4,):
                    flags = ["--elements", elements, "--bucket", bucket, "--rounds", rounds]
                    one = run(ranks, *flags, *(["--bf16"] if width == 2 else []))
                    found["averages"].append({**one, "width": width})
                    keep(found)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--most-ranks", type=int, default=4)
    parser.add_argument("--figures", help="a file to keep what was measured in, or to take it from")
    parser.add_argument("--latency", type=float, default=10, help="of a message, microseconds")
    parser.add_argument("--bandwidth", type=float, default=1.25, help="of a network, GB/s")
    args = parser.parse_args()
    counts = [n for n in (1, 2, 4) if n <= args.most_ranks]
    if args.figures and os.path.exists(args.figures):
        measured = json.load(open(args.figures))
    else:
        keep = lambda found: args.figures and json.dump(found, open(args.figures, "w"))
        measured = measure(counts, args.rounds, keep)

    # Of two ranks: on more of them than cores, one waits for another's core.
    pairs = [one for one in measured["averages"] if (one["ranks"], one["width"]) == (2, 4)]
    fit = [one for one in pairs if one["bucket"] in FITTED]
    rows = [terms(one["ranks"], one["elements"], one["bucket"]) for one in fit]
    a, d = fitted(rows, [one["ms"] / 1e3 for one in fit])
    print("| ranks | numbers | bits | bucket | ms | MB sent | messages | model, ms |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    off = []
    for one in measured["averages"]:
        x, y = terms(one["ranks"], one["elements"], one["bucket"])
        model = (a * x + d * y) * 1e3
        if one in fit:
            off.append(abs(model / one["ms"] - 1))
        print(
            f"| {one['ranks']} | {one['elements']:,} | {8 * one['width']} | {one['bucket']:,} "
            f"| {one['ms']:.2f} | {one['bytes'] / 1e6:.2f} | {one['messages']:.0f} "
            f"| {f'{model:.2f}' if one in fit else ''} |"
        )
    print(
        f"\nFitted to two ranks, 32 bits: a = {a * 1e6:.1f} us, d = {d * 1e9:.2f} ns; "
        f"off by {100 * statistics.median(off):.0f} % (median), {100 * max(off):.0f} % at most"
    )

    print("\n| ranks | 16 buckets at once, ms | one at a time, ms | saved |")
    print("| ---: | ---: | ---: | ---: |")
    for one in measured.get("overlap", []):
        alone = one["one_at_a_time"] - 15 * one["figures"]
        saved = 100 * (1 - one["at_once"] / alone)
        print(f"| {one['ranks']} | {one['at_once']:.2f} | {alone:.2f} | {saved:.0f} % |")

    print("\n| ranks | examples a rank | step, ms | examples a second | efficiency |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    alone = {one["examples"]: one["ms"] for one in measured["steps"] if one["ranks"] == 1}
    for one in measured["steps"]:
        ranks, examples, ms = one["ranks"], one["examples"], one["ms"]
        # As a part of what so many cores could do.
        ideal = alone[examples] * max(1, ranks / os.cpu_count())
        speed = ranks * examples / ms * 1e3
        print(f"| {ranks} | {examples} | {ms:.2f} | {speed:,.0f} | {100 * ideal / ms:.0f} % |")

    latency, speed = args.latency * 1e-6, args.bandwidth * 1e9
    compute = alone[512] / 1e3
    print(
        f"\nOn paper, 795,010 numbers, {compute * 1e3:.1f} ms to compute 512 examples, "
        f"{args.latency:.0f} us a message, {args.bandwidth:.2f} GB/s:\n"
    )
    print("| ranks | best bucket | average, ms | efficiency |")
    print("| ---: | ---: | ---: | ---: |")
    for ranks in (2, 4, 16, 64, 256, 1000):

        def cost(bucket):
            x, y = terms(ranks, 795_010, bucket)
            return latency * x + 2 * (ranks - 1) / ranks * y * 4 / speed + d * y

        best = min((1 << power for power in range(12, 21)), key=cost)
        part = 100 * compute / (compute + cost(best))
        print(f"| {ranks} | {best:,} | {cost(best) * 1e3:.2f} | {part:.0f} % |")


if __name__ == "__main__":
    main()
