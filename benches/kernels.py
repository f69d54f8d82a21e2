"""Compiles all CUDA kernels by NVRTC, without a GPU, and says how they would fill one.

    pip install nvidia-cuda-nvrtc
    python3 benches/kernels.py                 # a line for each compute capability
    python3 benches/kernels.py --arch 90 --all # a line for each kernel

A block keeps registers and shared memory of its multiprocessor until it ends. The occupancy is the
share of the multiprocessor's threads that blocks of this kernel can keep busy at one time. The exit
status is 1 if a kernel does not compile, if one spills registers, or if an occupancy is below 0.5.
"""

import argparse
import ctypes
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The Rust files that put a source together from those beside them.
SOURCES = ["tlr/src/snapshots/gpu.rs", "models/src/layers/cuda/launch.rs"]
LEAST = 0.5
# Of a multiprocessor (CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability"): the largest number of threads and of blocks, and the bytes of shared memory.
LIMITS = {
    75: (1024, 16, 64 << 10),
    80: (2048, 32, 164 << 10),
    86: (1536, 16, 100 << 10),
    89: (1536, 24, 100 << 10),
    90: (2048, 32, 228 << 10),
    100: (2048, 32, 228 << 10),
    120: (1536, 24, 100 << 10),
}
REGISTERS = 65_536
# Registers are handed out to a warp in this unit, and from 8.0 on each block takes this much shared
# memory for the system.
REGISTER_UNIT = 256
SYSTEM_MEMORY = 1024
KERNEL = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?"
    r"Used (\d+) registers([^\n]*)", re.DOTALL)


def source(path):
    """The source, and the threads of a block."""
    rust = (ROOT / path).read_text()
    parts = re.search(r"const SOURCE: &str = concat!\((.*?)\);", rust, re.DOTALL)[1]
    files = [(ROOT / path).parent / name for name in re.findall(r'include_str!\("(.*?)"\)', parts)]
    text = "".join(file.read_text() for file in files)
    return text, int(re.search(r"THREADS = (\d+);", text)[1])


def library():
    """NVRTC, from its wheel, or else the system's."""
    folders = [pathlib.Path(folder) / "nvidia" for folder in sys.path if folder]
    found = [file for folder in folders for file in sorted(folder.glob("**/libnvrtc.so.*"))]
    try:
        return ctypes.CDLL(str(found[0]) if found else "libnvrtc.so")
    except OSError:
        sys.exit("NVRTC is not here: pip install nvidia-cuda-nvrtc")


def compiled(nvrtc, text, arch):
    """What NVRTC says of a source, and whether it took it."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture=sm_{arch}".encode(), b"--ptxas-options=-v"]
    options = (ctypes.c_char_p * len(options))(*options)
    status = nvrtc.nvrtcCompileProgram(program, len(options), options)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode(), status == 0


def occupancy(arch, threads, registers, shared):
    """The share of a multiprocessor's threads that such blocks keep busy."""
    most_threads, most_blocks, memory = LIMITS[arch]
    of_warp = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
    shared += SYSTEM_MEMORY if arch >= 80 else 0
    blocks = min(most_blocks, most_threads // threads, REGISTERS // (of_warp * (threads // 32)),
                 memory // shared if shared else most_blocks)
    return blocks * threads / most_threads


def kernels(nvrtc, path, arch):
    """Each kernel's name, registers, shared memory, spilled bytes and occupancy."""
    text, threads = source(path)
    log, taken = compiled(nvrtc, text, arch)
    if not taken:
        sys.exit(f"{path} does not compile for compute capability {arch / 10}:\n{log}")
    for name, _, spilled, registers, rest in KERNEL.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        shared = int(shared[1]) if shared else 0
        filled = occupancy(arch, threads, int(registers), shared)
        yield name, int(registers), shared, int(spilled), filled


def main():
    """Prints the table; whether all kernels are as they should be."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    choices = sorted(LIMITS)
    parser.add_argument("--arch", type=int, nargs="+", choices=choices, default=[75, 90, 120])
    parser.add_argument("--all", action="store_true", help="a line for each kernel")
    options = parser.parse_args()
    nvrtc = library()
    good = True
    print("| capability | kernel | registers | shared bytes | spilled bytes | occupancy |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for arch in options.arch:
        for path in SOURCES:
            found = list(kernels(nvrtc, path, arch))
            good &= bool(found)
            good &= all(spilled == 0 and filled >= LEAST for *_, spilled, filled in found)
            if not options.all:
                worst = [max(kernel[of] for kernel in found) for of in (1, 2, 3)]
                name = f"{len(found)} of {path.split('/')[0]}, at worst"
                found = [(name, *worst, min(kernel[4] for kernel in found))]
            for name, registers, shared, spilled, filled in found:
                print(f"| {arch / 10} | {name} | {registers} | {shared} | {spilled} "
                      f"| {filled:.2f} |")
    return good


if __name__ == "__main__":
    sys.exit(not main())
