#!/usr/bin/env python3
"""Finds lines that are too wide and files that are too long.

    python3 docs/lines.py

No line of code, comment or prose has more than 100 columns. In Markdown, tables may, and lines that
are wide because of an address. A Rust file has at most 400 lines, a file of tests 500. Only files
that git knows are read, and none of what programs have written (results/, golden figures).
"""
import pathlib
import re
import subprocess

COLUMNS, LINES, LINES_OF_TESTS = 100, 400, 500
KINDS = {".rs", ".md", ".toml", ".py", ".cu", ".sh"}
# Written by programs: tables of results.
LEFT_OUT = re.compile(r"^results/.*/")
TESTS = re.compile(r"(^|/)tests(/|\.rs$)")
ADDRESS = re.compile(r"\S{60,}|\]\(\S+\)|https?://\S+")


def files():
    """The files that git knows, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    )
    for name in sorted(set(listed.stdout.splitlines())):
        path = pathlib.Path(name)
        scripts = path.parent.name == ".ci"
        if (path.suffix in KINDS or scripts) and path.is_file() and not LEFT_OUT.match(name):
            yield path


def too_wide(path, lines):
    """The numbers of the lines that are too wide."""
    for number, line in enumerate(lines, 1):
        if len(line) <= COLUMNS:
            continue
        text = line.strip().removeprefix("//!").removeprefix("///").strip()
        if text.startswith("|") and (path.suffix == ".md" or path.suffix == ".rs"):
            continue
        if path.suffix == ".md" and ADDRESS.search(line):
            continue
        yield number


def main():
    wrong, count = [], 0
    for path in files():
        lines = path.read_text(encoding="utf-8").splitlines()
        count += 1
        for number in too_wide(path, lines):
            wrong.append(f"{path}:{number}: more than {COLUMNS} columns")
        most = LINES_OF_TESTS if TESTS.search(str(path)) else LINES
        if path.suffix == ".rs" and len(lines) > most:
            wrong.append(f"{path}: {len(lines)} lines, more than {most}")
    fine = f"{count} files: no line of more than {COLUMNS} columns, no file that is too long"
    print("\n".join(wrong) or fine)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
