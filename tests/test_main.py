"""`python main.py` as a user runs it: in processes of its own, on one device."""

import json
import re
import shutil
import signal
import sys

import pytest

from ovenet_jax import described
from ovenet_jax.configs import camvid
from ovenet_jax.run import workdir
from tests import command_line
from tests.camvid_tree import write_tree
from tests.command_line import WITHOUT_TENSORFLOW
from tests.free_port import free_address

NETWORK = [  # which compiles in seconds
    "--config=configs/camvid.py:ovenet_fcn_r_tiny",
    "--config.model.backbone.widths=(4,4,4,4)",
    "--config.model.backbone.stem=(4,4,4)",
    "--config.model.head.classifier.hidden_features=4",
    "--config.model.head.aux.hidden_features=4",
]
SMALL = [
    "--config.augment.base_size=32",
    "--config.augment.crop=(32,32)",
    "--config.eval.base_size=32",
    "--config.eval.images_per_device=2",
    "--config.eval.panels=1",
    "--config.eval.worst=1",
    "--config.batch_size=8",
    "--config.optimizer.rate=0.001",  # so small a network would grow beyond float32 at the config's
    "--config.report_every=1",
    "--config.evaluate_every=2",
    "--config.checkpoint_every=1",
]


@pytest.fixture(scope="module")
def folder(in_memory):
    """A made-up CamVid; its prepared form and the runs come beside it."""
    folder = in_memory()
    write_tree(folder, counts={"train": 8, "val": 3, "test": 1})
    return folder


def arguments(folder, run, *others, network=NETWORK, steps=4):
    """Of a command about the small run `run` in `folder`; `others` take the place of those of the same name."""
    data = [f"--config.data.root={folder}/source", f"--config.data.prepared={folder}/prepared"]
    run = [f"--workdir={folder}/{run}", f"--config.steps={steps}"]
    given = [*network, *data, *SMALL, *run, *others]
    return list({argument.partition("=")[0]: argument for argument in given}.values())


def final_table(output: str) -> str:
    return output[output.rindex("\nIoU [%]") + 1 : output.index("Written:")]


@pytest.fixture(scope="module")
def users_cache(tmp_path_factory):
    """The variables of a user who has compiled nothing yet."""
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "JAX_COMPILATION_CACHE_DIR": None}


@pytest.fixture(scope="module")
def trained(folder, users_cache):
    return command_line.output(*arguments(folder, "run"), **users_cache)


def test_training_ends_with_the_table_of_the_restored_best_checkpoint(trained):
    assert re.search(r"step 4/4  loss \d+\.\d+  \d+\.\d\d images/s  0:00:00 left", trained)
    assert re.search(r"Evaluating step [24] of .* on val: 3 images", trained)
    table = final_table(trained)
    assert "initial S_i      seed S_s     fused S_f" in table
    assert len(table.splitlines()) == 1 + 11 + 1 + 4 + 1 + 1  # title, classes, rule, means, loss, the worst images


def test_a_new_process_asked_by_the_workdir_alone_evaluates_to_the_identical_table(folder, trained, users_cache):
    """The config is the run's; what is given comes on top, and is said."""
    moved = shutil.copytree(folder / "run", folder / "moved")
    again = command_line.output(f"--workdir={moved}", "--mode=evaluate", "--config.eval.panels=0", **users_cache)
    assert f"Using the config of {moved}, with --config.eval.panels=0." in again
    assert final_table(again) == final_table(trained)


def test_a_second_start_finds_all_programs_compiled(folder, trained, users_cache):
    """In the user's cache; there programs of all sizes are kept: which take long depends on what else runs."""
    second = command_line.output(*arguments(folder, "second"), **users_cache, **WITHOUT_TENSORFLOW)
    compiled = re.search(r"Compiled: (\d+) programs in .* s, (\d+) of them from the cache", second)
    assert compiled[1] == compiled[2]
    assert final_table(second) == final_table(trained)  # the same seed, the same run


def test_sigterm_saves_and_the_same_command_goes_on(folder):
    command = arguments(folder, "interrupted", steps=100_000)
    process = command_line.start(*command, **WITHOUT_TENSORFLOW)
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    saved = int(re.search(r"Interrupted at step (\d+), which is saved", rest)[1])
    assert (folder / "interrupted" / "checkpoints" / str(saved)).is_dir()

    process = command_line.start(*command, **WITHOUT_TENSORFLOW)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step"):
            break
    process.kill()
    process.communicate()
    assert any(f"Resuming {folder}/interrupted from step {saved} of 100000" in line for line in lines)
    assert lines[-1].startswith(f"step {saved + 1}/")


def meeting(*flags):
    """The flags of each of two processes that meet."""
    address = free_address()
    return [[f"--coordinator={address}", "--processes=2", f"--process={i}", *flags] for i in range(2)]


@pytest.mark.usefixtures("trained")
def test_two_processes_train_as_one(folder):
    """Two real processes with two devices each, which share the batch and the rows of its images."""
    processes = [
        command_line.start(*arguments(folder, "together", *flags, steps=1), devices=2, **WITHOUT_TENSORFLOW)
        for flags in meeting("--config.mesh=(2,2)")
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "2 processes with 2 devices each." in outputs[0][0]
    assert f"Written: {folder}/together/evaluation/val" in outputs[0][0]
    alone, together = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("run", "together")
    )
    assert [line["step"] for line in together] == [0, 1, 1]
    assert [line["step"] for line in alone[:2]] == [0, 1]
    assert together[1]["loss_total"] == pytest.approx(alone[1]["loss_total"], rel=1e-5)


def test_processes_with_different_configs_get_one_sentence(folder):
    processes = [
        command_line.start(*arguments(folder, "differing", *flags, f"--config.seed={i}"))
        for i, flags in enumerate(meeting())
    ]
    for i, process in enumerate(processes):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert f"config.seed is {i} here and differs in process {1 - i}; start all with the same" in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("--config.stepz=3", "There is no key config.stepz (did you mean steps?); --mode=config lists all"),
        ("--mode=evaluate", "nowhere holds no run"),
        (
            "--coordinator=localhost:1 --processes=2 --process=1 --wait=0.5",
            "The coordinator localhost:1 did not answer process 1 in time",
        ),
    ],
)
def test_a_mistake_gets_one_sentence_and_no_stack_trace(folder, mistake, sentence):
    """Among the flags, in a mode, and before JAX is started."""
    result = command_line.run(*arguments(folder, "nowhere", *mistake.split()))
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("mode=evaluate", "'mode=evaluate' is not a flag; flags are written --name=value"),
        ("--mode=trian", "--mode=trian: value should be one of <train|evaluate|"),
        ("--config.data.root=nowhere", "nowhere: no such folder"),
        ("--processes=2", "missing: --coordinator, --process"),
        ("--mode=import", "--mode=import needs the file to read: --source=FILE.pth"),
        ("--modee=train", "Unknown command line flag 'modee'"),
        ("--config.seed=1e4", "--config.seed=1e4: it must be a whole number; --help"),
        ("--config.ema=fast", "--config.ema=fast: it must be a number; --help"),
        ("--config.eval.flip=maybe", "--config.eval.flip=maybe: it must be true or false; --help"),
        ("--config.optimizer.rate=-0.1", "config.optimizer.rate is -0.1; it must be a number of at least 0"),
        ("--config.optimizer.power=nan", "config.optimizer.power is nan; it must be a number of at least 0"),
        ("--config.init.base=~nobody-here/run", "there is no home folder ~nobody-here; give the path without ~"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(folder, mistake, sentence):
    assert sentence in command_line.refusal(*arguments(folder, "refused", *mistake.split()))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["--config.eval.scales=(1.0,)", "--config.eval.scales=(0.5,1.0)"], "config.eval.scales"),
        (["--config.eval.flip", "--noconfig.eval.flip"], "config.eval.flip"),
        (["--wait=1", "--wait=1"], "wait"),
        (["--config=configs/folder.py"], "config"),
    ],
)
def test_an_option_given_twice_is_refused(folder, given, name):
    said = command_line.refusal(*arguments(folder, "refused"), *given)
    assert said == f"--{name} is given 2 times; give it once."


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--config.data.root=~/data", "HOME/data: no such folder"),
        ("--mode=predict --source=~/images", "There is no file or folder HOME/images"),
        ("--mode=compare --source=~/a,~/b", "HOME/a holds no run"),
        ("--mode=evaluate --workdir=~/run", "HOME/run holds no run"),
    ],
)
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, folder, flags, sentence):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = [a for a in arguments(folder, "tilde") if not a.startswith(("--workdir", "--config.data.root"))]
    if "--workdir" not in flags:
        given.append(f"--workdir={folder}/run")
    if "data.root" not in flags:
        given.append(f"--config.data.root={folder}/source")
    assert sentence.replace("HOME", str(tmp_path)) in command_line.refusal(*given, *flags.split())


def test_a_tilde_in_a_config_file_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "from configs import folder\ndef get_config():\n    c = folder.get_config()\n    c.data.root = '~/d'\n"
    (tmp_path / "mine.py").write_text(f"{text}    return c\n")
    said = command_line.refusal("--config=~/mine.py", "--mode=prepare")
    assert said.startswith(f"{tmp_path}/d/classes.yaml: cannot be read")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("configs/camvid.py:deeplab", "Config variant 'deeplab' is unknown; choose one of ovenet, hrnet_ocr, hrnet"),
        ("configs/nowhere.py", "There is no config file 'configs/nowhere.py'; known: acdc, "),
        ("cityscapes.py:ovenet", "There is no config file 'cityscapes.py' (did you mean cityscapes?); known: "),
    ],
)  # fmt: skip
def test_an_unknown_config_is_refused_in_one_sentence(folder, config, sentence):
    assert sentence in command_line.refusal(*arguments(folder, "unknown", network=[f"--config={config}"]))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "get_config = nothing",
            "--config cannot be loaded (NameError: name 'nothing' is not defined); fix that file, or the keys given",
        ),
        ("def get_config(", "--config cannot be loaded (SyntaxError: '(' was never closed"),
        ("steps = 3", "--config is a file without get_config; define"),
    ],
)
def test_a_config_of_ones_own_that_does_not_work_is_told_in_one_sentence(tmp_path, monkeypatch, text, sentence):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # the config that was loaded before
    (tmp_path / "mine.py").write_text(text)
    assert sentence in command_line.refusal(f"--config={tmp_path}/mine.py", "--mode=prepare")


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("--config.eval.scales=half", "config.eval.scales is ('half',); it must be one or more, each a number above 0"),
        ("--config.eval.scales=(0.5,-1)", "config.eval.scales is (0.5, -1); it must be one or more"),
        ("--config.eval.checkpoint=7", "config.eval.checkpoint is '7'; it must be one of 'best', 'latest'"),
        ("--mode=predict --source=nowhere", "There is no file or folder nowhere"),
        ("--mode=predict --config.predict.ids=names", "config.predict.ids is 'names'; it must be one of 'label_ids'"),
        ("--config.model.head.classifier.hidden_features=8", "is of another model in "),
    ],
)
def test_a_test_that_makes_no_sense_is_refused_in_one_sentence(folder, setting, sentence):
    assert sentence in command_line.refusal(*arguments(folder, "run", "--mode=evaluate", *setting.split()))


def test_a_key_may_be_given_to_a_run_with_the_one_that_gives_it_effect(tmp_path):
    workdir.claim(tmp_path, described.resolved(camvid.get_config("ovenet_tiny")))
    given = {"non_finite.policy": "skip", "non_finite.limit": 50, "loss.ohem.on": True, "loss.ohem.keep": 7}
    given |= {"augment.scale_range": (), "augment.scale_factor": 9, "augment.brightness": 3}
    given |= {"augment.brightness_share": 0.25}
    options = [f"--config.{key}={value}" for key, value in given.items()]
    output = command_line.output(f"--workdir={tmp_path}", "--mode=config", *options)
    for key, value in given.items():
        assert f" {key} = {value!r} " in output
    refused = command_line.refusal(f"--workdir={tmp_path}", "--mode=config", "--config.non_finite.limit=50")
    assert "config.non_finite.limit has an effect only with non_finite.policy='skip'; leave it out." in refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "--config is missing: give one, as --config=configs/camvid.py, or the --workdir of a run"),
        ("--workdir=nowhere", "--config is missing: .*; nowhere holds no run"),
        ("--mode=prepare", "--config is missing: .*; --mode=prepare requires it"),
        ("--mode=import --workdir=nowhere --config.steps=3", "--config is missing: .*; --mode=import requires it"),
        ("--mode=compare", "--config is missing: .*, or the --source of a run"),
        ("--mode=compare --source=nowhere,b", "--config is missing: .*; nowhere holds no run"),
    ],
)
def test_without_a_config_or_a_run_there_is_one_sentence(arguments, sentence):
    assert re.search(sentence, command_line.refusal(*arguments.split()))


@pytest.mark.usefixtures("trained")
def test_scales_and_flip_are_chosen_on_the_command_line(folder, users_cache):
    chosen = ["--mode=evaluate", "--config.eval.scales=(0.5,1.0)", "--config.eval.flip"]
    output = command_line.output(*arguments(folder, "run", *chosen), **users_cache)
    assert "on val: 3 images, scales 0.5 1, flip." in output
    assert (folder / "run" / "evaluation" / "val_0.5-1_flip" / "report.json").exists()


@pytest.mark.usefixtures("trained")
def test_an_image_left_out_of_a_prediction_shows_in_the_exit_code(folder, users_cache):
    images = folder / "images"
    images.mkdir()
    shutil.copy(next((folder / "source" / "test").iterdir()), images / "good.png")
    (images / "broken.jpg").write_bytes(b"no image")
    result = command_line.run(*arguments(folder, "run", "--mode=predict", f"--source={images}"), **users_cache)
    assert result.returncode == 1, result.stderr
    assert "Skipped 1 of 2 images, which cannot be read:" in result.stdout
    assert (folder / "run" / "predictions" / "images" / "label_maps" / "good.png").exists()
