"""The benchmarks of the network run where only jax, flax, optax and what these bring are installed."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

from benchmarks import costs
from benchmarks.table import Table

NETWORK = "--network=hrnet --small --width=2 --classes=3"
STEP = f"{NETWORK} --crop 32 32 --batch=1 --repeats=1"
BENCHMARKS = {
    "scaling": f"{STEP} --devices 1 2",  # the first, since it sets the number of devices
    "train_step": f"{STEP} --no-torch",
    "costs": f"{STEP} --rows=1000",
    "repeatability": STEP,
    "inference": f"{NETWORK} --height=32 --images=2 --rows=1",
    "sampling": "--classes=3 --size 8 16 --batch=1",
    "attention": "--sizes 32x48 --repeats=1",
    "checkpointing": f"{STEP} --saves=1",  # the last, since it finds the other modules again
}
RUN = """
import json, runpy, sys
import flax.nnx, optax  # which import absl themselves

BLOCKED = {"absl", "array_record", "clu", "cv2", "grain", "matplotlib", "ml_collections", "orbax", "tensorflow",
           "tensorflow_datasets", "tqdm"}

sys.modules |= dict.fromkeys(BLOCKED)  # None: not to be found
for benchmark, arguments in json.loads(sys.argv[1]).items():
    if benchmark == "checkpointing":
        for name in BLOCKED:
            del sys.modules[name]
    sys.argv = [benchmark, *arguments]
    runpy.run_module(f"benchmarks.{benchmark}", run_name="__main__")
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What all of them write, by benchmark; run in a process that finds none of the other modules, but for Orbax."""
    folder = tmp_path_factory.mktemp("benchmarks")
    commands = {name: [*arguments.split(), f"--json={folder}/{name}"] for name, arguments in BENCHMARKS.items()}
    commands["checkpointing"].append(f"--folder={folder}")
    command = [sys.executable, "-c", RUN, json.dumps(commands)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {name: json.loads((folder / name).read_text())["rows"] for name in BENCHMARKS}


def test_train_step(rows):
    (row,) = rows["train_step"]
    assert row["step"] == "ours" and row["precision"] == "float32"
    assert row["images/s"] == pytest.approx(1000 / row["step [ms]"])
    assert row["memory [GB]"] > 1e-3 and 0 < row["of matrix rate"] < 1


def test_scaling(rows):
    assert [row["devices"] for row in rows["scaling"]] == [1, 2]
    first, second = (row["images/s"] / row["devices"] for row in rows["scaling"])
    assert rows["scaling"][1]["efficiency"] == pytest.approx(second / first)


def test_checkpointing(rows):
    (row,) = rows["checkpointing"]
    seconds = row["blocked [s]"] + row["slowed [s]"]
    assert row["overhead"] == pytest.approx(seconds / row["step [ms]"])  # one in 1,000 steps


def test_costs_are_found_in_every_part_of_the_step(rows):
    found = {key: {row[key] for row in rows["costs"]} for key in ("kind", "part", "pass")}
    assert {"convolution", "product", "arithmetic"} <= found["kind"]
    assert {"stage1", "stage4", "head", "loss", "optimizer"} <= found["part"]
    assert {"forward", "backward"} <= found["pass"]


def test_a_cpu_gives_the_same_bits_twice(rows):
    (row,) = rows["repeatability"]
    assert row["parameters"] > 100 and row["differ"] == row["by at most"] == 0


PROGRAM = """
ENTRY %main.1 (a: f32[2,3], b: f32[3,3]) -> (f32[2,3], s32[]) {
  %a = f32[2,3]{1,0} parameter(0)
  %transpose_copy_fusion.7 = f32[3,2]{1,0} fusion(%a), kind=kLoop, calls=%fused_computation.3
  %convolution.2 = f32[3,3]{1,0} convolution(%a, %transpose_copy_fusion.7), window={size=2}, dim_labels=01bf_01io->01bf, metadata={op_name="jit(train_step)/transpose(jvp(stage4))/conv_general_dilated" stack_frame_id=3}
  %reduce.1 = (f32[3]{0}, f32[3]{0}) fusion(%convolution.2, /*index=5*/%a), kind=kLoop, metadata={op_name="jit(train_step)/jvp(loss)/resize_bilinear/reduce_sum"}
  %convolution.3 = f32[3,3]{1,0} convolution(%a, %a), window={size=2}, dim_labels=01bf_01io->01bf
  ROOT %tuple = (f32[2,3]{1,0}, s32[]) tuple(%a, %nothing)
}
"""  # noqa: E501


def test_a_copy_is_counted_with_what_reads_it():
    described = costs.instructions(PROGRAM)
    counted = {name: tuple(costs.cost_of(name, path)) for name, (_, path) in described.items()}
    assert counted == {
        "a": ("arithmetic", "stage4", "backward"),
        "transpose_copy_fusion.7": ("copy", "stage4", "backward"),
        "convolution.2": ("convolution", "stage4", "backward"),
        "reduce.1": ("arithmetic", "loss", "forward"),
        "convolution.3": ("convolution", "", ""),
        "tuple": ("arithmetic", "", ""),
    }
    assert described["reduce.1"][0] == "fusion"


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


def test_attention_in_turns_equals_attention_all_at_once(rows):
    differences = {row["block"]: row["difference"] for row in rows["attention"]}
    assert differences["Base-OC, all at once"] == 0 and differences["ISA"] is None
    assert 0 <= differences["Base-OC"] < 1e-4


def test_a_size_of_no_map_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attention", "--sizes", "64"])
    with pytest.raises(SystemExit) as end:
        import_module("benchmarks.attention").main()
    assert end.value.code == 2
    assert "'64' is no size of a map; give height and width, like 64x128" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["bucketing", "camvid_segfix", "input_pipeline", "label_errors", "precision", "refine"]
)
def test_a_benchmark_that_takes_too_long_here_explains_itself(name, monkeypatch, capsys):
    if name == "refine":
        pytest.importorskip("torch")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        import_module(f"benchmarks.{name}").main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m benchmarks.{name} ")


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
