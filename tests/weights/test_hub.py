"""Weights by name: from a server on this machine that speaks the hub's protocol, into an import and a training."""

import errno
import hashlib
import json
import multiprocessing
import re
import sys
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest

import ovenet_jax
from configs import camvid, cityscapes, openseg
from ovenet_jax.errors import UserError
from ovenet_jax.import_weights import from_hub, import_weights
from ovenet_jax.run import workdir
from ovenet_jax.train import train
from ovenet_jax.weights import hub
from tests.free_port import free_address
from tests.hub_server import REVISION, serving
from tests.published_keys import arrays_of, assert_same, published
from tests.tiny_run import shrunk

constants = pytest.importorskip("huggingface_hub.constants")
numpy_file = pytest.importorskip("safetensors.numpy")

NAME = "hub:timm/tiny"


@pytest.fixture
def config(tmp_path):
    return shrunk(camvid.get_config("hrnet_tiny"), tmp_path)


@pytest.fixture
def backbone(config):
    """The arrays of a backbone, all different from initial ones, and a file of them as timm's."""
    arrays = arrays_of(ovenet_jax.create_model(config.model))
    arrays = {name: x + np.float32(1) for name, x in arrays.items() if name.startswith("backbone.")}
    return arrays, numpy_file.save({key: np.array(x, order="C") for key, x in published(arrays, config.model).items()})


@pytest.fixture
def connect(monkeypatch, tmp_path):
    """A function: huggingface_hub uses this address, as if HF_ENDPOINT were it, and a cache of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def use(address):
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)

    return use


def import_with_another(place, address, cache, config, folder):
    """One of two processes, `place` (coordinator, count, index), that start a training."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(*place)
    constants.HF_HUB_CACHE = str(cache)
    constants.HUGGINGFACE_CO_URL_TEMPLATE = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    constants.ENDPOINT = address
    from_hub(config, folder)


def backbone_of(folder):
    arrays = arrays_of(ovenet_jax.load_model(folder))
    return {name: x for name, x in arrays.items() if name.startswith("backbone.")}


def test_a_training_starts_from_a_name_and_records_what_it_was(config, backbone, connect, tmp_path, capsys):
    arrays, file = backbone
    config.init.base = f"{NAME}@main"
    with serving({"timm/tiny": {"README.md": b"", "model.safetensors": file, "pytorch_model.bin": b""}}) as address:
        connect(address)
        from_hub(config, tmp_path / "run")
        with workdir.held(tmp_path / "run"), pytest.raises(UserError, match="run is held by"):  # before it compiles
            train(config, tmp_path / "run")
    printed = capsys.readouterr().out
    assert f"{NAME}@main holds a backbone alone" in printed and "random values" not in printed
    folder = tmp_path / "run/init/timm--tiny@main"
    assert f"backbone: {len(arrays)} arrays loaded from {folder}" in printed
    report = json.loads((folder / "import.json").read_text())
    recorded = {key: report[key] for key in ("source", "revision", "licence", "sha256")}
    checksum = hashlib.sha256(file).hexdigest()
    assert recorded == {"source": f"{NAME}@main", "revision": REVISION, "licence": "mit", "sha256": checksum}
    assert_same(backbone_of(folder), arrays)
    from_hub(config, tmp_path / "run")  # an import that is there takes no connection


def test_two_processes_import_a_name_together(config, backbone, tmp_path):
    arrays, file = backbone
    config.init.base, context, coordinator = NAME, multiprocessing.get_context("forkserver"), free_address()
    context.set_forkserver_preload([__name__])
    with serving({"timm/tiny": {"model.safetensors": file}}) as address:
        given = address, tmp_path / "cache", config, tmp_path / "run"
        places = [(coordinator, 2, index) for index in range(2)]
        processes = [context.Process(target=import_with_another, args=(place, *given)) for place in places]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
            process.kill()  # one that hangs
    assert [process.exitcode for process in processes] == [0, 0]
    assert_same(backbone_of(tmp_path / "run/init/timm--tiny"), arrays)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hub:timm/none", "The hub has no timm/none, or keeps it private; check owner, name and revision."),
        ("hub:timm/tiny@none", "The hub has no timm/tiny@none, or keeps it private"),
        ("hub:a/b/c", "The hub has no a/b/c, or"),
        ("hub:timm/text", "hub:timm/text holds no weights; it must have the file model.safetensors or pytorch_model"),
        (NAME, "has the SHA-256 checksum .*, and that of hub:timm/tiny is recorded as 0000"),
    ],
)
def test_what_the_hub_does_not_have_is_refused(config, backbone, connect, tmp_path, name, sentence):
    models = {"timm/tiny": {"model.safetensors": backbone[1]}, "timm/text": {"README.md": b"words"}}
    with serving(models, checksum="0" * 64) as address:
        connect(address)
        with pytest.raises(UserError, match=sentence) as refused:
            import_weights(config, Path(name), tmp_path / "imported")
    if named := re.match("(.*) has the SHA-256", str(refused.value)):
        assert not Path(named[1]).is_symlink()  # a link to it would be made again, without a download
    assert not (tmp_path / "imported").exists()


def test_a_name_without_network_or_package_is_refused(config, connect, tmp_path, monkeypatch):
    with serving({}) as address:
        connect(address)
    with pytest.raises(UserError, match=r"tiny cannot be downloaded \(\w+\); check the network, or copy model.saf"):
        import_weights(config, Path(NAME), tmp_path / "imported")
    full = OSError(errno.ENOSPC, "No space left on device")
    with serving({"timm/tiny": {"model.safetensors": b""}}) as address, monkeypatch.context() as patch:
        connect(address)
        patch.setattr("huggingface_hub.HfApi.hf_hub_download", Mock(side_effect=full))
        with pytest.raises(OSError, match="No space left"):  # no fault of the network: errors.run says what helps
            import_weights(config, Path(NAME), tmp_path / "imported")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"`pip install huggingface_hub`, or ovenet_jax with its extra \[hub\]"):
        import_weights(config, Path(NAME), tmp_path / "imported")


def test_published_configs_name_their_weights():
    names = {
        variant: hub.name_of(cityscapes.get_config(variant).model.backbone) for variant in ("ovenet", "segfix_hx20")
    }
    assert names == {"ovenet": "hub:timm/hrnet_w48.ms_in1k", "segfix_hx20": ""}
    named = {name for name in openseg.BACKBONES if hub.name_of(openseg.BACKBONES[name]())}
    assert named == openseg.BACKBONES.keys() - {"tiny", "r_tiny"}
