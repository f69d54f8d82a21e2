#!/usr/bin/env bash
# All that is measured and tested on a GPU, in one run:
#
#     benches/gpu.sh build [DIR]     # on any machine that builds with CUDA; default target/gpu
#     benches/gpu.sh run [DIR]       # on the machine with the GPU, from what lies in DIR
#
# `build` needs the CUDA toolkit, and Rust. `run` needs neither, and no network: Python with PyTorch
# for CUDA, whose wheels also bring the libraries, and the NVIDIA driver. DIR and this folder are
# what has to be carried there. `run` ends within six minutes: what it has no time left for counts
# as missed. It prints a table at its end, and ends with 1 if a test fails or a target is missed.
# TLR_DATA and TLR_CIFAR name the folders of the real MNIST and CIFAR-10; without them the examples
# draw their own.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-}
dir=${2:-target/gpu}

built() { # what cargo is to build; prints the path of each program
  cargo "$@" --release --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    path = json.loads(line).get("executable")
    if path: print(path)'
}

build() {
  export CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=symbols
  rm -rf "$dir"
  mkdir -p "$dir/tests"
  # Each in an assignment: what fails in the head of a loop does not end a script.
  local program programs
  # Half precision is on for all, so that dfdx is built once.
  programs=$(built build -p tlr-examples --example mnist --example cifar --features cuda,tlr/f16)
  cp $programs "$dir/"
  programs=$(built build -p tlr-models --no-default-features --example gpu_step \
    --example gpu_window --features cuda,f16)
  cp $programs "$dir/"
  # Once more with cuDNN.
  programs=$(built build -p tlr-models --no-default-features --example gpu_step \
    --features cudnn,f16)
  cp "$programs" "$dir/gpu_step-cudnn"
  programs=$(built test --no-run -p tlr --lib --test gpu --test cuda_types --features cuda,f16)
  for program in $programs; do
    cp "$program" "$dir/tests/$(basename "${program%-*}")"
  done
  programs=$(built test --no-run -p tlr-models --no-default-features --lib --test gpu \
    --features cuda,f16)
  for program in $programs; do
    cp "$program" "$dir/tests/models-$(basename "${program%-*}")"
  done
  programs=$(built test --no-run -p tlr-models --no-default-features --lib --features cudnn,f16)
  cp "$programs" "$dir/tests/models-cudnn"
  # NVRTC reads dfdx's headers from here while a program runs.
  if [ -d "${CUDA_PATH:-/usr/local/cuda}/include" ]; then
    readlink -f "${CUDA_PATH:-/usr/local/cuda}/include" >"$dir/include-path"
    mkdir "$dir/include"
    cp "$(cat "$dir/include-path")"/{cuda_fp16.h,cuda_fp16.hpp,*.cuh} "$dir/include/" 2>/dev/null ||
      true
  fi
  du -sh "$dir"
}

table=()
missed=0
# Seconds after which `run` stops what it does, and prints the table.
deadline=345
# A step of the run: its name, the seconds that it may take, and its command.
step() {
  local name=$1 limit=$2 start=$SECONDS result=ok left
  shift 2
  left=$((deadline - SECONDS))
  if ((left <= 0)); then
    table+=("| $name | no time left | |")
    missed=1
    return
  fi
  printf '\n== %s\n' "$name"
  timeout "$((limit < left ? limit : left))" "$@" || {
    result="failed ($?)"
    missed=1
  }
  table+=("| $name | $result | $((SECONDS - start)) |")
}

# A test that finds no GPU passes, and so does a program without such tests.
tests() {
  "$@" --ignored --nocapture gpu 2>&1 | tee "$dir/log"
  ! grep -q 'there is no GPU' "$dir/log" && grep -q 'ok\. [1-9][0-9]* passed' "$dir/log"
}

# Whether the accuracy in the last line's JSON is enough.
learns() {
  local least=$1 out=$2
  shift 2
  # A run that was stopped may still be writing to its own folder.
  "$@" --json --out "$dir/$out" | tee "$dir/log"
  tail -n 1 "$dir/log" | sed -n 's/.*"test_accuracy":\([0-9.]*\).*/\1/p' |
    awk -v least="$least" '{ seen = 1; low = $1 < least } END { exit !seen || low }'
}

# The window's update has to have these parts of a copy's bandwidth: of one tensor, and of 161.
window() {
  "$dir/gpu_window" | tee "$dir/log"
  sed -n 's/.*share \([0-9.]*\).*/\1/p' "$dir/log" |
    awk 'NR == 1 { low = $1 < 0.85 } NR == 2 { low = low || $1 < 0.5 } END { exit NR != 2 || low }'
}

sanitized() {
  compute-sanitizer --tool "$1" --error-exitcode 9 "$dir/tests/gpu" --ignored --nocapture \
    gpu_resumes
}

run() {
  local baked program
  # PyTorch's wheels bring the libraries.
  if ! ldconfig -p 2>/dev/null | grep -q libcublas.so; then
    LD_LIBRARY_PATH=$(python3 -c 'import glob, os, nvidia
paths = [path for base in nvidia.__path__ for path in glob.glob(os.path.join(base, "*", "lib"))]
print(":".join(paths))' 2>/dev/null || true):${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH
  fi
  if [ -e "$dir/include-path" ]; then
    baked=$(cat "$dir/include-path")
    if [ ! -e "$baked" ]; then
      mkdir -p "$baked"
      cp "$dir"/include/* "$baked/"
    fi
  fi
  export dir
  export -f tests learns window sanitized
  for program in "$dir"/tests/*; do
    step "tests of $(basename "$program")" 100 bash -c 'set -o pipefail; tests "$@"' _ "$program"
  done
  step "a window's update" 30 bash -c 'set -o pipefail; window'
  # Convolutions have to meet their targets with cuDNN. Without it their times are shown.
  step "steps beside PyTorch's" 100 python3 benches/gpu.py "$dir/gpu_step-cudnn" --rounds 5
  step "convolutions without cuDNN" 60 python3 benches/gpu.py "$dir/gpu_step" --rounds 3 \
    --only wrn-16-1 wrn-16-4 resnet-50 --no-targets
  step "MNIST to 97.5 %" 60 bash -c 'set -o pipefail; learns "$@"' _ \
    0.975 out-f32 "$dir/mnist" --device cuda --epochs 3
  step "MNIST in f16 to 97.5 %" 60 bash -c 'set -o pipefail; learns "$@"' _ \
    0.975 out-f16 "$dir/mnist" --device cuda --precision f16 --epochs 3
  step "CIFAR, WRN-16-4" 90 bash -c 'set -o pipefail; learns "$@"' _ \
    0.5 out-cifar "$dir/cifar" --device cuda --depth 16 --width 4 --batch-size 128 --epochs 3
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
      step "compute-sanitizer, $tool" 60 bash -c 'sanitized "$1"' _ "$tool"
    done
  else
    table+=("| compute-sanitizer | is not there | |")
  fi
  printf '\n| step | result | seconds |\n| --- | --- | ---: |\n'
  printf '%s\n' "${table[@]}"
  return "$missed"
}

case $what in
build) build ;;
run) run ;;
*)
  sed -n '2,13s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
