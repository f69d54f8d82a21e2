"""Opens the event file of a run with TensorBoard itself, and compares it with the run's tables.

    pip install tensorboard
    cargo run --example mnist -- --mode per-layer --tensorboard --out out/events
    python3 tests/events.py out/events
"""

import csv
import math
import struct
import sys
from collections import defaultdict
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def single(value):
    """As event files hold numbers."""
    return struct.unpack("f", struct.pack("f", value))[0]


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(out):
    """Of each tag, the values at each step that the tables tell."""
    numbers = defaultdict(lambda: defaultdict(set))
    history, epochs = rows(out / "history.csv"), rows(out / "epochs.csv")
    seen = set()
    for row in history:
        step, layer = int(row["step"]), row["layer"]
        if layer not in seen and not row["outcome"].startswith("ramped"):
            numbers[f"learned_rate/{layer}"][0].add(float(row["from"]))
        seen.add(layer)
        numbers[f"learned_rate/{layer}"][step].add(float(row["to"]))
        if row["un"]:
            uu, un, nn = (float(row[name]) for name in ("uu", "un", "nn"))
            if uu > 0 and nn > 0:
                numbers[f"cosine/{layer}"][step].add(un / math.sqrt(uu) / math.sqrt(nn))
    return numbers, epochs


def main():
    out = Path(sys.argv[1])
    # All of them, and not a sample.
    accumulator = EventAccumulator(str(out), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    read = {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in tags}

    numbers, epochs = expected(out)
    compared = 0
    for tag, steps in numbers.items():
        found = defaultdict(list)
        for step, value in read[tag]:
            found[step].append(value)
        for step, values in steps.items():
            for value in values:
                slack = 1e-6 if tag.startswith("cosine") else 0.0
                near = [
                    v for v in found[step]
                    if math.isclose(v, value, rel_tol=1e-6, abs_tol=slack)
                ]
                assert near, f"{tag} at step {step}: {value} is not among {found[step]}"
                compared += 1
    steps_an_epoch = max(step for step, _ in read["loss/test"]) // len(epochs)
    for tag, column in [("loss/test", "test_loss"), ("accuracy/test", "test_accuracy")]:
        want = [
            ((i + 1) * steps_an_epoch, single(float(row[column]))) for i, row in enumerate(epochs)
        ]
        assert read[tag] == want, f"{tag}: {read[tag]} is not {want}"
        compared += len(want)
    for i, row in enumerate(epochs):
        for column in (name for name in row if name.startswith("rate_") and row[name]):
            tag, step = f"rate/{column.removeprefix('rate_')}", (i + 1) * steps_an_epoch
            value = float(row[column]) * float(row["schedule"])
            found = [v for s, v in read[tag] if s == step]
            near = any(math.isclose(v, value, rel_tol=1e-6) for v in found)
            assert near, f"{tag} at {step}: {found}"
            compared += 1
    assert read["rollbacks"][-1][1] == sum(int(row["rollbacks"]) for row in epochs)
    assert len(read["loss/train"]) >= len(epochs)
    print(f"TensorBoard reads {sum(map(len, read.values()))} numbers by {len(tags)} names;")
    print(f"{compared} of them are in the tables, and are the same")


if __name__ == "__main__":
    main()
