#!/usr/bin/env python3
"""Makes the pictures beside this file, and what Pillow decodes them to.

    pip install pillow          # what is here was made by 13.0.0
    apt install libjpeg-turbo-progs   # for cjpeg, which knows more kinds of JPEG
    python3 models/tests/pictures/make.py

Each picture is 37 x 37, so that no block of samples ends where the picture does. Those whose names
begin with `even` are 40 x 40, so that a block is cut between two samples. `NAME.rgb` holds
the pixels of `Image.open(NAME).convert("RGB")`, row by row. Pictures of rare kinds, which are
refused, have none.
"""

import io
import math
import pathlib
import struct
import subprocess
import zlib

from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
SIDE = 37
EVEN = 40


def pixel(x, y):
    """Red grows to the right, green downwards, blue in waves; a disc in other colours."""
    red, green = 255 * x // (SIDE - 1), 255 * y // (SIDE - 1)
    if (x - 22) ** 2 + (y - 14) ** 2 < 70:
        return 230 - red // 3, 40 + green // 4, 60
    return red, green, int(128 + 100 * math.sin((x + 2 * y) / 6))


def base():
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.putdata([pixel(x, y) for y in range(SIDE) for x in range(SIDE)])
    return picture


def chequered():
    """Red and blue, in squares of three pixels: colours change at the edges as anywhere."""
    picture = Image.new("RGB", (EVEN, EVEN))
    colours = [(0, 0, 255), (255, 0, 0)]
    picture.putdata([colours[(x // 3 + y // 3) % 2] for y in range(EVEN) for x in range(EVEN)])
    return picture


def cjpeg(name, *flags):
    out = io.BytesIO()
    (chequered() if name.startswith("even") else base()).save(out, "PPM")
    command = ["cjpeg", "-quality", "90", *flags]
    jpeg = subprocess.run(command, input=out.getvalue(), capture_output=True, check=True).stdout
    (HERE / name).write_bytes(jpeg)


def scans(name, script, *flags):
    """Of several scans, as the lines of `script` say."""
    path = HERE / "scans.txt"
    path.write_text(script)
    cjpeg(name, "-scans", str(path), *flags)
    path.unlink()


def ycck(name, **flags):
    """Photoshop's kind: brightness and colour differences of what is no ink, and black.

    Pillow writes four channels as CMYK, and a mark that says so; the mark is changed.
    """
    picture = base()
    inverted = [ImageOps.invert(channel) for channel in picture.convert("YCbCr").split()]
    black = picture.convert("L").point(lambda value: value // 4)
    out = io.BytesIO()
    Image.merge("CMYK", [*inverted, black]).save(out, "JPEG", quality=92, **flags)
    jpeg = bytearray(out.getvalue())
    mark = jpeg.index(b"Adobe") + 11
    assert jpeg[mark] == 0
    jpeg[mark] = 2
    (HERE / name).write_bytes(jpeg)


def jpegs():
    for name, sampling in [
        ("444", "1x1"),
        ("422", "2x1"),
        ("440", "1x2"),
        ("420", "2x2"),
        ("411", "4x1"),
        ("410", "4x2"),
        ("mixed", "2x2,2x1,1x2"),
    ]:
        cjpeg(f"{name}.jpg", "-sample", sampling)
        cjpeg(f"{name}-progressive.jpg", "-progressive", "-sample", sampling)
        cjpeg(f"even-{name}.jpg", "-sample", sampling)
    cjpeg("restart.jpg", "-restart", "1B", "-sample", "2x2")
    cjpeg("restart-progressive.jpg", "-restart", "2B", "-progressive", "-sample", "2x2")
    cjpeg("rgb.jpg", "-rgb", "-sample", "1x1")
    cjpeg("grey.jpg", "-grayscale")
    cjpeg("grey-in-twos.jpg", "-grayscale", "-sample", "2x2")
    scans("three-scans.jpg", "0;\n1;\n2;\n", "-sample", "1x1")
    coarse = "".join(f"{colour}: 0-0, 0, 0;\n" for colour in range(3))
    fine = "".join(f"{colour}: 1-63, 0, 0;\n" for colour in range(3))
    scans("three-scans-progressive.jpg", coarse + fine, "-sample", "2x2")
    colours = [*ImageOps.invert(base()).split(), Image.new("L", (SIDE, SIDE), 40)]
    cmyk = Image.merge("CMYK", colours)
    cmyk.save(HERE / "cmyk.jpg", quality=92)
    ycck("ycck.jpg")
    ycck("ycck-420.jpg", subsampling=2)
    ycck("ycck-progressive.jpg", progressive=True)


def refused():
    cjpeg("refused-odd.jpg", "-sample", "1x1,2x2,1x1")
    cjpeg("refused-thirds.jpg", "-sample", "3x1,1x1,1x1")
    cjpeg("refused-arithmetic.jpg", "-arithmetic")
    scans("refused-three-scans.jpg", "0;\n1;\n2;\n", "-sample", "2x2")


def behind_the_end():
    """Pictures with more behind their end marker."""
    whole = (HERE / "420.jpg").read_bytes()
    other = (HERE / "422.jpg").read_bytes()
    (HERE / "and-a-film.jpg").write_bytes(whole + b"\0\0\0\x18ftypmp42 \xff\xda\0\x08 no end")
    (HERE / "and-a-picture.jpg").write_bytes(whole + other)
    # With a small picture in front, as cameras do it.
    small = b"Exif\0\0" + other
    segment = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    (HERE / "small-one-first.jpg").write_bytes(whole[:2] + segment + whole[2:])


def png_16(name, kind, picture):
    """Of 16 bits, which Pillow does not write. The low ones are waves."""
    values = picture.tobytes()
    across = len(values) // SIDE
    rows = [values[at : at + across] for at in range(0, len(values), across)]
    data = b"".join(
        b"\0" + b"".join(bytes([high, (at * 37) % 256]) for at, high in enumerate(row))
        for row in rows
    )
    png = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, kind, 0, 0, 0)
    for name_of, body in [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]:
        png += struct.pack(">I", len(body)) + name_of + body
        png += struct.pack(">I", zlib.crc32(name_of + body))
    (HERE / name).write_bytes(png)


def png_damaged():
    """What Pillow reads all the same, for the pixels are whole; and what it does not."""
    out = io.BytesIO()
    base().save(out, "PNG")
    whole = out.getvalue()
    header, pixels, end = 8 + 25, whole.index(b"IDAT"), whole.index(b"IEND") - 4
    length = int.from_bytes(whole[pixels - 4 : pixels], "big")

    def changed(name, at):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        (HERE / name).write_bytes(damaged)

    (HERE / "no-end.png").write_bytes(whole[:end])
    (HERE / "half-an-end.png").write_bytes(whole[: end + 6])
    (HERE / "cut-in-a-checksum.png").write_bytes(whole[: end - 2])
    (HERE / "and-more.png").write_bytes(whole + whole[:100])
    changed("wrong-checksum-of-pixels.png", pixels + 4 + length)
    changed("wrong-checksum-of-end.png", len(whole) - 1)
    changed("refused-checksum-of-header.png", header - 1)
    changed("refused-pixels.png", pixels + 4 + length // 2)
    for name in ["refused-checksum-of-header.png", "refused-pixels.png"]:
        try:
            Image.open(HERE / name).load()
        except OSError:
            continue
        raise AssertionError(f"Pillow reads {name}")


def others():
    picture = base()
    grey = picture.convert("L")
    clear = picture.copy()
    clear.putalpha(grey)
    few = picture.quantize(32)
    few.save(HERE / "palette.png")
    few.save(HERE / "palette-clear.png", transparency=3)
    picture.quantize(4).save(HERE / "palette-2-bit.png", bits=2)
    grey.save(HERE / "grey.png")
    grey.convert("1").save(HERE / "bilevel.png")
    clear.save(HERE / "alpha.png")
    clear.convert("LA").save(HERE / "grey-alpha.png")
    png_16("rgb-16.png", 2, picture)
    png_16("grey-16.png", 0, grey)
    picture.save(HERE / "lossy.webp", quality=90)
    clear.save(HERE / "lossless.webp", lossless=True, exact=True)
    picture.save(HERE / "rgb.bmp")
    few.save(HERE / "palette.bmp")
    picture.save(HERE / "rgb.ppm")
    grey.save(HERE / "grey.pgm")


def main():
    for old in HERE.iterdir():
        if old.suffix != ".py":
            old.unlink()
    jpegs()
    refused()
    behind_the_end()
    others()
    png_damaged()
    for path in sorted(HERE.iterdir()):
        if path.suffix != ".py" and not path.name.startswith("refused"):
            picture = Image.open(path)
            # Pillow cuts 16 bits of grey off above 255, where the upper eight are what is seen.
            grey_16 = picture.mode == "I;16"
            pixels = (base().convert("L") if grey_16 else picture).convert("RGB").tobytes()
            (HERE / f"{path.name}.rgb").write_bytes(pixels)


if __name__ == "__main__":
    main()
