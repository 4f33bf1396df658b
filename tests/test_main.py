"""`python main.py` as a user runs it: in processes of its own, on one device."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.camvid_tree import write_tree
from tests.free_port import free_address
from tests.places import ROOT

HRNET = "configs/camvid.py:hrnet_tiny"
SMALL = [
    "--config.model.backbone.width=4",
    "--config.model.backbone.stem_width=8",
    "--config.model.backbone.layer1_blocks=1",
    "--config.model.backbone.layer1_width=4",
    "--config.augment.base_size=32",
    "--config.augment.crop=(32,32)",
    "--config.eval.base_size=32",
    "--config.eval.images_per_device=2",
    "--config.eval.panels=1",
    "--config.eval.worst=1",
    "--config.batch_size=2",
    "--config.report_every=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A made-up CamVid; its prepared form, the compilation cache and the runs come beside it."""
    folder = tmp_path_factory.mktemp("main")
    write_tree(folder, counts={"train": 4, "val": 3, "test": 1})
    return folder


def command(folder, *arguments, config="configs/camvid.py:ovenet_tiny", steps=4):
    data = [f"--config.data.root={folder}/source", f"--config.data.prepared={folder}/prepared"]
    small = [*SMALL, f"--config.steps={steps}", "--config.evaluate_every=2", "--config.checkpoint_every=1"]
    return [sys.executable, "main.py", f"--config={config}", *data, *small, *arguments]


def environment(folder):
    # Programs of all sizes are kept: which compile slowly depends on what else the machine does.
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **cache}


def run(arguments, environ):
    return subprocess.run(arguments, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=300)


def final_table(output: str) -> str:
    return output[output.rindex("\nIoU [%]") + 1 : output.index("Written:")]


@pytest.fixture(scope="module")
def trained(folder):
    result = run(command(folder, f"--workdir={folder}/run"), environment(folder))
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_training_ends_with_the_table_of_the_restored_best_checkpoint(trained):
    assert re.search(r"step 4/4  loss \d+\.\d+  \d+\.\d\d images/s  0:00:00 left", trained)
    assert re.search(r"Evaluating step [24] of .* on val: 3 images", trained)
    table = final_table(trained)
    assert "initial S_i      seed S_s     fused S_f" in table
    assert len(table.splitlines()) == 1 + 11 + 1 + 4 + 1  # title, classes, rule, means, the worst images


def test_a_new_process_evaluates_to_the_identical_table(folder, trained):
    result = run(command(folder, "--mode=evaluate", f"--workdir={folder}/run"), environment(folder))
    assert result.returncode == 0, result.stderr
    assert final_table(result.stdout) == final_table(trained)


def test_a_second_start_finds_its_steps_compiled(folder, trained):
    def compiled():
        return {path.name for path in (folder / "cache" / "ovenet_jax" / "xla").glob("*-cache")}

    before = compiled()
    assert {name.split("-")[0] for name in before} >= {"jit_train_step", "jit__forward"}
    result = run(command(folder, f"--workdir={folder}/second"), environment(folder))
    assert result.returncode == 0, result.stderr
    assert final_table(result.stdout) == final_table(trained)  # the same seed, the same run
    assert compiled() == before


def test_the_demo_learns(tmp_path):
    """Sixty small steps on the toy streets: the final table is clearly better than the one before training."""
    small = [
        f"--config.data.prepared={tmp_path}/prepared",
        "--config.model.backbone.width=6",
        "--config.model.backbone.stem_width=16",
        "--config.model.backbone.layer1_blocks=1",
        "--config.augment.crop=(64,128)",
        "--config.steps=60",
        "--config.report_every=60",
        "--config.evaluate_every=60",
        "--config.eval.panels=0",
        "--config.eval.worst=0",
        f"--workdir={tmp_path}/run",
    ]
    # Steps that are compiled as a user's take a tenth of the time, which is more than compiling them adds.
    environ = environment(tmp_path) | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    result = run([sys.executable, "main.py", "--config=configs/demo.py", *small], environ)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("initial", "seed", "fused"):
        assert lines[-1][f"eval_miou_{name}"] > lines[0][f"eval_miou_{name}"] + 0.1


@pytest.mark.usefixtures("trained")
def test_sigterm_saves_and_the_same_command_goes_on(folder):
    arguments = command(folder, f"--workdir={folder}/interrupted", steps=100_000)
    process = subprocess.Popen(
        arguments, env=environment(folder), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    saved = int(re.search(r"Interrupted at step (\d+), which is saved", rest)[1])
    assert (folder / "interrupted" / "checkpoints" / str(saved)).is_dir()

    process = subprocess.Popen(
        arguments, env=environment(folder), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step"):
            break
    process.kill()
    process.communicate()
    assert any(f"Resuming {folder}/interrupted from step {saved} of 100000" in line for line in lines)
    assert lines[-1].startswith(f"step {saved + 1}/")


def test_two_processes_train_as_one(folder):
    """Two real processes with two devices each, which share the batch and the rows of its images."""
    address = free_address()
    tiny = ["--config.model.backbone.blocks=1", "--config.batch_size=8"]
    starts = {"alone": [(1, tiny)], "together": []}
    for process in "01":
        meeting = [f"--coordinator={address}", "--processes=2", f"--process={process}"]
        starts["together"].append((2, [*tiny, *meeting, "--config.mesh=(2,2)"]))
    processes = [
        subprocess.Popen(
            command(folder, f"--workdir={folder}/{name}", *arguments, config=HRNET, steps=1),
            env={**environment(folder), "JAX_NUM_CPU_DEVICES": str(devices)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, all_arguments in starts.items()
        for devices, arguments in all_arguments
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert "2 processes with 2 devices each." in outputs[1]
    assert f"Written: {folder}/together/evaluation/val" in outputs[1]
    alone, together = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in starts
    )
    assert [line["step"] for line in together] == [line["step"] for line in alone] == [0, 1, 1]
    assert together[1]["loss_total"] == pytest.approx(alone[1]["loss_total"], rel=1e-5)


def test_processes_with_different_configs_get_one_sentence(folder):
    address = free_address()
    processes = [
        subprocess.Popen(
            command(
                folder,
                f"--workdir={folder}/differing",
                f"--coordinator={address}",
                "--processes=2",
                f"--process={process}",
                f"--config.seed={process}",
            ),
            env=environment(folder),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "config.seed is 0 in process 0 and 1 in process 1; start all with one command." in errors
        assert "Traceback" not in errors


MISTAKES = {
    "unknown key": (["--config.stepz=3"], "No such key in the config: 'stepz'"),
    "unknown mode": (
        ["--mode=trian"],
        "value should be one of <train|evaluate|predict|",
    ),
    "no run to evaluate": (["--mode=evaluate", "--workdir=nowhere"], "nowhere holds no run"),
    "no flag": (["mode=evaluate"], "'mode=evaluate' is no flag; flags are written --name=value"),
    "missing data": (["--config.data.root=nowhere"], "nowhere: no such folder"),
    "no coordinator": (
        ["--coordinator=localhost:1", "--processes=2", "--process=1", "--wait=0.5"],
        "The coordinator localhost:1 did not answer process 1 in time",
    ),
    "half a meeting": (["--processes=2"], "missing: --coordinator, --process"),
    "nothing to import": (["--mode=import"], "--mode=import needs the file to read: --source=FILE.pth"),
    "no pth": (["--mode=import", "--source=README.md"], "README.md cannot be read as a PyTorch checkpoint"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_and_no_stack_trace(folder, mistake):
    arguments, sentence = MISTAKES[mistake]
    result = run(command(folder, f"--workdir={folder}/{mistake}", *arguments), environment(folder))
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            "configs/camvid.py:deeplab",
            "Config variant 'deeplab' is unknown; choose one of ovenet, hrnet_ocr, hrnet",
        ),
        ("configs/nowhere.py", "--config cannot be loaded"),
    ],
)
def test_an_unknown_config_gets_one_sentence(folder, config, sentence):
    result = run(command(folder, f"--workdir={folder}/unknown", config=config), environment(folder))
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.eval.scales=half"], "config.eval.scales is ('half',); it must be positive numbers"),
        (["--config.eval.scales=(0.5,-1)"], "config.eval.scales is (0.5, -1); it must be positive numbers"),
        (["--config.eval.checkpoint=7"], "config.eval.checkpoint is '7'; it must be 'best' or 'latest'"),
        (["--mode=predict", "--source=nowhere"], "--source=nowhere is no folder"),
        (["--config.predict.ids=names", "--mode=predict"], "config.predict.ids is 'names'; known: label_ids"),
    ],
)
def test_settings_of_a_test_that_make_no_sense_get_one_sentence(folder, arguments, sentence):
    arguments = ["--mode=evaluate", f"--workdir={folder}/run", *arguments]
    result = run(command(folder, *arguments), environment(folder))
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("trained")
def test_scales_and_flip_are_chosen_on_the_command_line(folder):
    arguments = ["--mode=evaluate", "--config.eval.scales=(0.5,1.0)", "--config.eval.flip"]
    result = run(command(folder, f"--workdir={folder}/run", *arguments), environment(folder))
    assert result.returncode == 0, result.stderr
    assert "on val: 3 images, scales 0.5 1, flip." in result.stdout
    assert (folder / "run" / "evaluation" / "val_0.5-1_flip" / "report.json").exists()


@pytest.mark.usefixtures("trained")
def test_an_image_left_out_of_a_prediction_shows_in_the_exit_code(folder):
    images = folder / "images"
    images.mkdir()
    shutil.copy(next((folder / "source" / "test").iterdir()), images / "good.png")
    (images / "broken.jpg").write_bytes(b"no image")
    result = run(
        command(folder, "--mode=predict", f"--source={images}", f"--workdir={folder}/run"),
        environment(folder),
    )
    assert result.returncode == 1, result.stderr
    assert "Left out: 1 of 2 images, which cannot be read:" in result.stdout
    assert (folder / "run" / "predictions" / "images" / "label_maps" / "good.png").exists()


@pytest.mark.usefixtures("trained")
def test_a_checkpoint_of_another_model_gets_one_sentence(folder):
    arguments = ["--mode=evaluate", f"--workdir={folder}/run", "--config.model.backbone.width=8"]
    result = run(command(folder, *arguments), environment(folder))
    assert result.returncode == 2
    assert "is of another model:" in result.stderr
    assert "Traceback" not in result.stderr
