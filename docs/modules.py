#!/usr/bin/env python3
"""The structure of a Rust crate, read from its `use` lines.

    python3 docs/modules.py tlr/src --out docs/modules.svg      draws it
    python3 docs/modules.py tlr/src --check --max-lines 400     fails on circles and on long files

The folder holds a crate's `lib.rs`, or the `main.rs` or `mod.rs` of another tree of modules. What
is drawn is its modules at the top, the parts: a folder of it, or a file beside that one. One part
uses another where a path in its code (of a `use`, or `crate::a::b` within a function) leads
there; a name that is re-exported on the way counts for the file it comes from. What is only for
tests is left out.
"""
import argparse
import collections
import html
import pathlib
import re

COMMENT_OR_STRING = re.compile(
    r"//[^\n]*|/\*(?:/\*.*?\*/|.)*?\*/"  # A comment may hold another.
    r"""|\b[bc]?r(#*)".*?"\1|"(?:\\.|[^"\\])*"|'(?:\\[^\n][^'\n]*|[^\\'\n])'""",
    re.DOTALL,
)
ITEM = r"(?P<attributes>(?:#\[[^\]]*\]\s*)*)(?P<visible>pub\b\s*(?:\([^)]*\)\s*)?)?\b"
MODULE = re.compile(ITEM + r"mod\s+(?P<name>\w+)\s*(?P<end>[;{])")
USE = re.compile(ITEM + r"use\s+(?P<tree>[^;]+);")
PATH = re.compile(r"(?<![\w:])(?<!\(in )\w+(?:::\w+)+")
# `any(test, …)` is there without tests, too.
FOR_TESTS = re.compile(r"\bcfg\((?!any\()[^\]]*(?<!not\()\btest\b")
DEFINITION = r"\b(?:fn|struct|enum|union|trait|type|const|static|macro_rules!)\s+%s\b"

# A path in the code of a module. A `use` gives it a name, that others see, too, if it is visible.
Path = collections.namedtuple("Path", "file module segments name visible")


def blank(code):
    """Spaces in place of code, so that all after it stays where it was."""
    return re.sub(r"[^\n]", " ", code)


def leaves(tree):
    """The paths of a `use`, each with its name: `a::{b, c as d}` is a::b, b and a::c, d."""
    bases, segments = [()], ()
    for token in re.findall(r"[{}]|[^\s{},][^{},]*", tree):
        if token == "{":
            bases.append(segments)
        elif token == "}":
            bases.pop()
        else:
            path, _, name = " ".join(token.split()).partition(" as ")
            segments = bases[-1] + tuple(path.removesuffix("::").split("::"))
            if segments[-1] == "self" and len(segments) > 1:
                segments = segments[:-1]
            if not path.endswith("::"):
                yield segments, name or segments[-1]


def block_end(code, opening):
    """Where the block ends whose brace opens there."""
    depth = 0
    for brace in re.compile("[{}]").finditer(code, opening):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return len(code)


class Crate:
    """The files of a crate, and the names that each uses of another."""

    def __init__(self, root):
        self.root = root
        self.files = {}  # The file of each module; the crate's own module is ().
        self.home = {}  # The module of each file.
        self.code = {}  # The code of each file, without comments and strings.
        self.lines = {}  # The number of lines of each file, without its tests.
        self.paths = []
        places = [root / name for name in ("lib.rs", "main.rs", "mod.rs")]
        self.top = next((place for place in places if place.is_file()), places[0])
        self.read_file(self.top, (), root)
        self.imports = collections.defaultdict(list)
        for path in self.paths:
            self.imports[path.module, path.name].append(path.segments)
        self.names = collections.defaultdict(set)  # Of two files: what one uses of the other.
        self.parts = collections.Counter()  # Of two parts: how many names one uses of the other.
        for path in self.paths:
            self.add(path)
        for (user, used), names in self.names.items():
            user, used = self.part(user), self.part(used)
            if user != used and self.top.name not in (user, used):
                self.parts[user, used] += len(names)

    def part(self, file):
        """The name of a file's part: its folder below the root, or the file itself."""
        name = file.relative_to(self.root).parts[0]
        folder = name.removesuffix(".rs") + "/"
        return folder if (self.root / folder).is_dir() else name

    def read_file(self, file, module, folder):
        text = file.read_text(encoding="utf-8")
        self.code[file] = COMMENT_OR_STRING.sub(lambda found: blank(found[0]), text)
        self.lines[file] = len(text.splitlines())
        self.home[file] = module
        self.read_module(file, self.code[file], text, module, folder)

    def read_module(self, file, code, text, module, folder):
        """Reads a module, a file or a block within one, and its children, which lie in `folder`."""
        self.files[module] = file
        end = 0
        for child in MODULE.finditer(code):
            if child.start() < end:
                continue  # Part of a block that is done.
            start, name = child.start(), child["name"]
            tests = FOR_TESTS.search(child["attributes"])
            if child["end"] == "{":
                end = block_end(code, child.end() - 1)
                if tests:
                    self.lines[file] -= code.count("\n", start, end) + 1
                else:
                    block = " " * child.end() + code[child.end():end]
                    self.read_module(file, block, text, module + (name,), folder / name)
                code = code[:start] + blank(code[start:end]) + code[end:]
            elif not tests:
                elsewhere = re.search(r'#\[path\s*=\s*"(.*?)"', text[start:child.end()])
                places = [folder / f"{name}.rs", folder / name / "mod.rs"]
                for place in [file.parent / elsewhere[1]] if elsewhere else places:
                    if place.is_file():
                        self.read_file(place, module + (name,), folder / name)
        for use in USE.finditer(code):
            if not FOR_TESTS.search(use["attributes"]):
                for segments, name in leaves(use["tree"]):
                    self.paths.append(Path(file, module, segments, name, bool(use["visible"])))
        for path in PATH.findall(USE.sub(" ", code)):
            segments = tuple(path.split("::"))
            self.paths.append(Path(file, module, segments, None, False))

    def resolve(self, module, segments, seen=frozenset()):
        """The file that `segments` lead to from `module`; None if that is in another crate."""
        for at, name in enumerate(segments):
            if name in ("crate", "$crate"):
                module = ()
            elif name == "super":
                module = module[:-1]
            elif module + (name,) in self.files:
                module += (name,)
            elif (module, name) in seen:
                return None
            elif name not in ("self", "*"):
                file = self.files[module]
                found = [path + segments[at + 1:] for path in self.imports[module, name]]
                if not found and not re.search(DEFINITION % name, self.code[file]):
                    found = [path[:-1] + segments[at:] for path in self.imports[module, "*"]]
                found = [self.resolve(module, path, seen | {(module, name)}) for path in found]
                here = at > 0 and not self.imports[module, name]
                return next(filter(None, found), file if here else None)
        return self.files[module]

    def add(self, path):
        """Counts a path as use of the file it leads to, unless it re-exports a child's name."""
        first = path.segments[0]
        if path.name is None and first not in ("crate", "super", "self"):
            if path.module + (first,) not in self.files:
                return  # `Type::function`: the `use` of the type has counted.
        target, home = self.resolve(path.module, path.segments), self.home[path.file]
        reexport = path.visible and target and self.home[target][:len(home)] == home
        if target not in (None, path.file) and not reexport:
            self.names[path.file, target].add(path.segments[-1])


def circles(edges):
    """The largest sets of things that all lead to one another, given pairs of user and used."""
    reached = {user: {b for a, b in edges if a == user} for user, _ in edges}
    for middle in reached:
        for others in reached.values():
            if middle in others:
                others |= reached[middle]
    members = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in reached}
    return sorted(sorted(circle) for circle in members if len(circle) > 1)


def check(crate, max_lines):
    """What is wrong with the crate, a line each."""
    files = [tuple(str(file.relative_to(crate.root)) for file in pair) for pair in crate.names]
    for kind, edges in (("modules", crate.parts), ("files", files)):
        for circle in circles(edges):
            yield f"{crate.root}: a circle of {len(circle)} {kind}: {', '.join(circle)}"
    for file in sorted(crate.root.rglob("*.rs")):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > max_lines:
            yield f"{file}: {lines} lines, more than {max_lines}"


# The drawing: the parts lie on levels, and arrows go from level to level, through gaps between the
# boxes. A node is a part or a gap; arrows to one part share their gaps once they meet.

WIDTH, MARGIN, GAP, STUB, LINE, TOP = 1000, 16, 16, 11, 16, 70
STYLE = """
text { font: 12px Helvetica, Arial, "DejaVu Sans", sans-serif; fill: #1f2933 }
.title { font-weight: bold; font-size: 13px }
.number { text-anchor: end; fill: #616e7c }
.box { fill: #f5f7fa; stroke: #7b8794 }
.arrow { fill: none; stroke: #52606d }
.circle { stroke: #d1242f }
.arrow:hover { stroke: #0b69c7; stroke-width: 5px }
"""


class Box:
    """A part, and its files in columns; one that is a single file is nothing but a title."""

    def __init__(self, crate, part):
        files = sorted(file for file in crate.code if crate.part(file) == part)
        self.lines = sum(crate.lines[file] for file in files)
        # A part may have a file beside its folder, of the same name.
        names = [str(file.relative_to(crate.root)).removeprefix(part) for file in files]
        self.files = [(name, crate.lines[file])
                      for name, file in zip(names, files) if part.endswith("/")]
        columns = -(-len(self.files) // 12) or 1
        self.rows = -(-len(self.files) // columns)
        longest = max((len(f"{name}{lines}") for name, lines in self.files), default=0)
        self.column = max(longest * 6.9, len(f"{part}{self.lines:,}") * 8.4) + 30
        self.width, self.height = self.column * columns, 26 + self.rows * LINE


def levels(boxes, uses, red, limit):
    """The level of each part: above all that it uses, no level being wider than the limit.

    Within a circle, the parts that use more than they are used stand above the others."""
    surplus = collections.Counter()
    for user, used in red:
        surplus.update({user: uses[user, used], used: -uses[user, used]})
    below = {part: set() for part in boxes}
    for pair in uses:
        upper, lower = sorted(pair, key=lambda a: (-surplus[a], a)) if pair in red else pair
        below[upper].add(lower)
    level, filled = {}, collections.Counter()
    while len(level) < len(boxes):
        lowest = {part: max((level[other] + 1 for other in below[part]), default=0)
                  for part in boxes if part not in level and below[part] <= level.keys()}
        part = min(lowest, key=lowest.get)
        level[part] = lowest[part]
        while filled[level[part]] and filled[level[part]] + boxes[part].width > limit:
            level[part] += 1
        filled[level[part]] += boxes[part].width + GAP
    return level


def side_by_side(wanted, widths):
    """The centres nearest to the wanted ones at which things of these widths do not overlap."""
    offsets, right = [], MARGIN
    for width in widths:
        offsets.append(right + width / 2)
        right += width + GAP
    groups = []  # Things that touch move together: the sum of their moves, and their number.
    for move in (x - offset for x, offset in zip(wanted, offsets)):
        groups.append((move, 1))
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            groups[-2:] = [tuple(map(sum, zip(*groups[-2:])))]
    spare = max(WIDTH - MARGIN - (right - GAP), 0)
    moves = [min(max(total / count, 0), spare) for total, count in groups for _ in range(count)]
    return [offset + move for offset, move in zip(offsets, moves)]


class Drawing:
    """The drawing of a crate, as SVG."""

    def __init__(self, crate):
        self.crate = crate
        parts = sorted({crate.part(file) for file in crate.code} - {crate.top.name})
        self.boxes = {part: Box(crate, part) for part in parts}
        self.red = {pair for circle in circles(crate.parts) for pair in crate.parts
                    if set(pair) <= set(circle)}
        for limit in range(WIDTH - 50, 0, -50):
            self.level = levels(self.boxes, crate.parts, self.red, limit)
            self.find_ways()
            if max(sum(self.width(node) + GAP for node in row) for row in self.rows) < WIDTH:
                break
        self.find_places()
        self.find_ports()

    def width(self, node):
        return self.boxes[node].width if node in self.boxes else 0

    def find_ways(self):
        """The nodes of each arrow's way, and its hops: upper node, lower node, whether it is up."""
        self.ways, hops = {}, {}
        for user, used in sorted(self.crate.parts):
            start, end = self.level[user], self.level[used]
            up, red = end > start, (user, used) in self.red
            between = range(start, end, 1 if up else -1)[1:]
            gaps = [(level, used, up, red) for level in between]
            self.level.update((gap, gap[0]) for gap in gaps)
            way = [user, *gaps, used]
            self.ways[user, used] = [(b, a, up) if up else (a, b, up) for a, b in zip(way, way[1:])]
            hops.update(dict.fromkeys(self.ways[user, used]))
        self.hops = list(hops)
        self.rows = [[] for _ in range(max(self.level.values()) + 1)]
        for node, level in self.level.items():
            self.rows[level].append(node)

    def find_places(self):
        """Orders each row by where its arrows lead, so that they are short and seldom cross."""
        near = collections.defaultdict(lambda: ([], []))
        for upper, lower, _ in self.hops:
            near[upper][0].append(lower)
            near[lower][1].append(upper)

        def mean(node, sides):
            places = [self.x[other] for side in sides for other in near[node][side]]
            return sum(places) / len(places) if places else self.x[node]

        self.x, shortest = dict.fromkeys(self.level, WIDTH / 2), float("inf")
        for sweep in range(200):
            sides = [sweep % 2] if sweep < 100 else [0, 1]
            for row in self.rows if sweep % 2 == 0 else self.rows[::-1]:
                wanted = {node: mean(node, sides) for node in row}
                if sweep < 100:
                    row.sort(key=wanted.get)
                widths = [self.width(node) for node in row]
                self.x.update(zip(row, side_by_side([wanted[node] for node in row], widths)))
            length = sum(abs(self.x[upper] - self.x[lower]) for upper, lower, _ in self.hops)
            if length < shortest:
                shortest, best = length, ([list(row) for row in self.rows], dict(self.x))
            if sweep >= 99:
                self.rows, self.x = best

    def find_ports(self):
        """Where each hop ends at its boxes: side by side, in the order of where they lead."""
        ends = collections.defaultdict(list)
        for hop in self.hops:
            upper, lower, up = hop
            ends[upper, "below"].append((self.x[lower], up, hop))
            ends[lower, "above"].append((self.x[upper], up, hop))
        self.port = {}
        for (node, _), hops in ends.items():
            step = min(18, max(self.width(node) - 14, 0) / len(hops))
            for at, (_, _, hop) in enumerate(sorted(hops, key=lambda end: end[:2])):
                self.port[node, hop] = self.x[node] + (at - (len(hops) - 1) / 2) * step
        self.edges, y = {}, TOP  # The upper and the lower edge of each level.
        for level in reversed(range(len(self.rows))):
            row = self.rows[level]
            height = max(self.boxes[node].height for node in row if node in self.boxes) + 2 * STUB
            self.edges[level] = y, y + height
            y += height + min(24 + 2 * sum(hop[0] in row for hop in self.hops), 90)

    def edge(self, part, lower):
        """The height of a box's upper or lower edge."""
        half = self.boxes[part].height / 2
        return sum(self.edges[self.level[part]]) / 2 + (half if lower else -half)

    def arrow(self, user, used):
        way = self.ways[user, used]
        up = way[0][2]
        path = f"M{self.port[user, way[0]]:.1f} {self.edge(user, not up):.0f}"
        for hop in way:
            start, end = hop[:2][::-1] if up else hop[:2]
            x1, x2 = self.port[start, hop], self.port[end, hop]
            y1, y2 = self.edges[self.level[start]][not up], self.edges[self.level[end]][up]
            middle = (y1 + y2) / 2
            path += f"V{y1:.0f}C{x1:.1f} {middle:.0f} {x2:.1f} {middle:.0f} {x2:.1f} {y2:.0f}"
        path += f"V{self.edge(used, up):.0f}"
        names = self.crate.parts[user, used]
        kind = "circle" if (user, used) in self.red else "plain"
        return (f'<path class="arrow {kind}" stroke-width="{min(0.8 + names * 0.12, 3.5):.2f}" '
                f'd="{path}" marker-end="url(#{kind})">'
                f"<title>{user} uses {used}: {names} names</title></path>")

    def box(self, part):
        box, x, y = self.boxes[part], self.x[part] - self.width(part) / 2, self.edge(part, False)
        yield (f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" '
               f'height="{box.height}" rx="5"/>')
        yield text(x + 9, y + 17.5, part, "title")
        yield text(x + box.width - 9, y + 17.5, f"{box.lines:,}", "number")
        for at, (name, lines) in enumerate(box.files):
            left, base = x + box.column * (at // box.rows), y + 36 + LINE * (at % box.rows)
            yield text(left + 9, base, name)
            yield text(left + box.column - 9, base, lines, "number")

    def svg(self):
        sides = [self.x[node] + side * self.width(node) / 2 for node in self.x for side in (-1, 1)]
        width, height = max(max(sides) - min(sides) + 2 * MARGIN, 720), self.edges[0][1] + MARGIN
        left = (max(sides) + min(sides) - width) / 2
        yield (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
               f'viewBox="{left:.0f} 0 {width:.0f} {height:.0f}">\n<style>{STYLE}</style>')
        for kind, colour in (("plain", "#52606d"), ("circle", "#d1242f")):
            yield (f'<marker id="{kind}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="9" '
                   'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
                   f'<path d="M0 0.5L8 4L0 7.5z" fill="{colour}"/></marker>')
        yield f'<rect x="{left:.0f}" width="100%" height="100%" fill="white"/>'
        lines = sum(box.lines for box in self.boxes.values())
        yield text(left + MARGIN, 26, f"{self.crate.root}: {len(self.boxes)} modules, "
                   f"{len(self.crate.code) - 1} files, {lines:,} lines without tests", "title")
        yield text(left + MARGIN, 46, "An arrow leads from the module that uses to the one that is "
                   "used, the wider the more names. Red: part of a circle.")
        for pair in sorted(self.ways, key=lambda pair: (pair in self.red, pair)):
            yield self.arrow(*pair)
        for part in self.boxes:
            yield from self.box(part)
        yield "</svg>\n"


def text(x, y, content, kind="file"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(str(content))}</text>'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path, help="the folder of the crate's lib.rs")
    parser.add_argument("--out", type=pathlib.Path, help="the SVG file to draw")
    parser.add_argument("--check", action="store_true", help="fail on circles and on long files")
    parser.add_argument("--max-lines", type=int, default=400, help="how long a file may be")
    options = parser.parse_args()
    crate = Crate(options.source)
    if options.out:
        options.out.write_text("\n".join(Drawing(crate).svg()), encoding="utf-8")
    if options.check:
        wrong = list(check(crate, options.max_lines))
        fine = f"{crate.root}: {len(crate.code)} files, no circle, none longer than"
        print("\n".join(wrong) or f"{fine} {options.max_lines} lines")
        return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
