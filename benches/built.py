"""Where cargo has left the benches."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def newest(name):
    """The newest build of a bench."""
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "deps"
    built = [path for path in folder.glob(f"{name}-*") if path.suffix in ("", ".exe")]
    if not built:
        sys.exit(f"first: cargo bench --bench {name} --no-run")
    return max(built, key=lambda path: path.stat().st_mtime)
