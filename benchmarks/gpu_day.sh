#!/bin/bash
# Ten minutes on a machine with a GPU, the most important first, each part within its own limit, and one table at the end:
#
#   bash benchmarks/gpu_day.sh [FOLDER]      logs and numbers go there, runs/gpu_day if not given
#   TINY=1 bash benchmarks/gpu_day.sh        a tiny network: whether all of it runs to the end, on a CPU too
#
# Beside the profile stands what was predicted, if `make gpu-program` has left it in runs/benchmarks/gpu_program.json.
# PYTHON=.venv/bin/python has JAX for the GPU and, to compare with, PyTorch.

folder=${1:-runs/gpu_day}
python=${PYTHON:-.venv/bin/python}
step="--width=48 --crop 512 1024 --precision=bfloat16 --repeats=10"
test="--width=48 --height=1024 --precision=bfloat16 --images=8 --rows=1"
small=8 large=32
if [ -n "${TINY:-}" ]; then
    step="--small --width=4 --crop 32 64 --precision=bfloat16 --repeats=2"
    test="--small --width=4 --height=32 --precision=bfloat16 --images=3 --rows=1"
    small=1 large=2
fi
mkdir -p "$folder"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$folder/xla} JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES=all

part() { # LIMIT NAME BENCHMARK ARGUMENTS...: a log, and how it ended
    local limit=$1 name=$2 began=$SECONDS
    shift 2
    local left=$((600 - SECONDS))
    if [ "$left" -lt 20 ]; then
        echo "$name: no time left" | tee -a "$folder/parts"
        return
    fi
    timeout "$((limit < left ? limit : left))" "$python" -m "benchmarks.$1" "${@:2}" >"$folder/$name.log" 2>&1
    echo "$name: exit code $?, $((SECONDS - began)) s" | tee -a "$folder/parts"
}

SECONDS=0
rm -f "$folder"/parts "$folder"/*.json
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader 2>/dev/null
part 60 runs train_step --small --width=8 --crop 64 128 --batch=2 --repeats=2 --no-torch --json="$folder/runs.json"
part 240 batch_small train_step $step --batch=$small --no-torch --json="$folder/batch_small.json"
part 90 torch torch_ovenet $step --batch=$small
part 150 batch_large train_step $step --batch=$large --no-torch --json="$folder/batch_large.json"
part 60 profile costs $step --batch=$small --rows=40 --json="$folder/profile.json"
part 60 test inference $test --json="$folder/test.json"
part 60 twice repeatability $step --batch=$small --json="$folder/twice.json"
part 150 torch_compiled torch_ovenet $step --batch=$small --compile

"$python" - "$folder" <<'TABLE' | tee "$folder/table"
import json, sys
from pathlib import Path

folder = Path(sys.argv[1])
print("\nThe step                          [ms]  images/s  memory [GB]  of the matrix rate")
for name in ("batch_small", "batch_large"):
    file = folder / f"{name}.json"
    for row in json.loads(file.read_text())["rows"] if file.exists() else []:
        numbers = f"{row['step [ms]']:10.1f} {row['images/s']:9.2f} {row['memory [GB]']:12.2f} {row['of matrix rate']:18.1%}"
        print(f"{name:28s}{numbers}")
for name in ("torch", "torch_compiled"):
    lines = (folder / f"{name}.log").read_text().splitlines() if (folder / f"{name}.log").exists() else []
    if lines and lines[-1].startswith("{"):
        row = json.loads(lines[-1])
        print(f"{name:28s}{1000 * row['seconds']:10.1f} {'':9s} {row['gigabytes'] or float('nan'):12.2f}")
if (folder / "test.json").exists():
    (row,) = json.loads((folder / "test.json").read_text())["rows"]
    print(f"\nA test of a whole image: {1000 * row['later [s]']:.1f} ms, the first in {row['first [s]']:.0f} s")
if (folder / "twice.json").exists():
    (row,) = json.loads((folder / "twice.json").read_text())["rows"]
    print(f"\nThe step twice: {row['differ']} of {row['parameters']} parameters differ, by at most {row['by at most']:.1e}")
if (folder / "profile.json").exists():
    print("\nWhat it spends its time on        [ms]")
    for row in json.loads((folder / "profile.json").read_text())["rows"]:
        print(f"{row['kind']:14s}{row['part']:16s}{row['pass']:8s}{row['ms']:8.2f}")
predicted = Path("runs/benchmarks/gpu_program.json")
if predicted.exists():
    content = json.loads(predicted.read_text())
    print(f"\nPredicted at the least for {content['images']:g} images of {content['size']}     kernels    [ms]")
    for place, rows in content["tables"]["place in the program"].items():
        kernels, _, _, floor = rows[0]
        print(f"{place:50s}{kernels:10d} {1000 * floor:7.2f}")
TABLE
