"""The benchmarks of the network run where only jax, flax, optax and what these bring are installed."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.table import Table

NETWORK = "--network=hrnet --small --width=2 --classes=3"
BENCHMARKS = {
    "train_step": f"{NETWORK} --crop 32 32 --batch=1 --repeats=1 --no-torch",
    "costs": f"{NETWORK} --crop 32 32 --batch=1 --repeats=1 --rows=1000",
    "inference": f"{NETWORK} --height=32 --images=2 --rows=1",
    "sampling": "--classes=3 --size 8 16 --batch=1",
    "attention": "--sizes 32x48 --repeats=1",
}
RUN = """
import json, runpy, sys
import flax.nnx, optax  # which import absl themselves

BLOCKED = {"absl", "array_record", "clu", "cv2", "grain", "matplotlib", "ml_collections", "orbax", "tensorflow",
           "tensorflow_datasets", "tqdm"}

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not installed")

for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
    del sys.modules[name]
sys.meta_path.insert(0, Nothing())
for benchmark, arguments in json.loads(sys.argv[1]).items():
    sys.argv = [benchmark, *arguments]
    runpy.run_module(f"benchmarks.{benchmark}", run_name="__main__")
import benchmarks.scaling  # the same step once more
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What all of them write, by benchmark; run in a process that finds none of the other modules."""
    folder = tmp_path_factory.mktemp("benchmarks")
    commands = {
        name: [*arguments.split(), f"--json={folder}/{name}"] for name, arguments in BENCHMARKS.items()
    }
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", RUN, json.dumps(commands)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {name: json.loads((folder / name).read_text())["rows"] for name in BENCHMARKS}


def test_train_step(rows):
    (row,) = rows["train_step"]
    assert row["step"] == "ours" and row["precision"] == "float32"
    assert row["images/s"] == pytest.approx(1000 / row["step [ms]"])
    assert row["memory [GB]"] > 1e-3 and 0 < row["of matrix rate"] < 1


def test_costs_are_of_the_step_and_add_up(rows):
    assert sum(row["share"] for row in rows["costs"]) == pytest.approx(1)
    found = {key: {row[key] for row in rows["costs"]} for key in ("kind", "part", "pass")}
    assert {"convolution", "product", "arithmetic"} <= found["kind"]
    assert {"stage1", "stage4", "head", "loss", "optimizer"} <= found["part"]
    assert {"forward", "backward"} <= found["pass"]


def test_inference(rows):
    (row,) = rows["inference"]
    assert (row["protocol"], row["runs"], row["shapes"]) == ("scale 1", 1, 1)


def test_sampling_compares_equals(rows):
    assert {row["classes"] for row in rows["sampling"]} == {3}
    assert max(row["difference"] for row in rows["sampling"]) < 1e-5


def test_attention_in_turns_takes_less_memory(rows):
    memory = {row["block"]: row["memory [MB]"] for row in rows["attention"]}
    assert memory.keys() == {"Base-OC, all at once", "Base-OC", "ISA"}
    assert memory["Base-OC"] < memory["Base-OC, all at once"]


def test_a_table_is_shown_and_kept_row_by_row(tmp_path, capsys):
    file = tmp_path / "made/numbers.json"
    table = Table({"name": "8s", "time [ms]": "11.1f", "share": "8.1%"}, file, device="cpu")
    table.row("ours", 12.34, 0.5)
    table.row("other", None, 0.25)
    assert capsys.readouterr().out.splitlines() == [
        "name      time [ms]   share",
        "ours           12.3   50.0%",
        "other                 25.0%",
    ]
    kept = json.loads(file.read_text())
    assert kept["device"] == "cpu"
    assert kept["rows"] == [
        {"name": "ours", "time [ms]": 12.34, "share": 0.5},
        {"name": "other", "time [ms]": None, "share": 0.25},
    ]
