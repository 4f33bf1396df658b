"""Runs and prepared data as commit 27140ce wrote them are read; earlier.json says how that was."""

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

import ovenet_jax
from configs import camvid
from ovenet_jax.data import pipeline
from ovenet_jax.models import parameters
from ovenet_jax.train import train
from tests.places import ROOT
from tests.tiny_run import metrics, tiny_config
from tests.untrained import narrow, tiny

EARLIER = json.loads((ROOT / "tests" / "run" / "earlier.json").read_text())


def shapes(model: ConfigDict) -> dict[str, list[int]]:
    _, params, statistics = parameters.split(ovenet_jax.create_model(model))
    return {name: list(x.shape) for name, x in (params | statistics).items()}


def checkpoint_of_step_3(model: ConfigDict) -> dict[str, dict]:
    """The items of a checkpoint with averages, put together by optax alone from the arrays of a new network."""
    _, *arrays = parameters.split(ovenet_jax.create_model(model))
    params, statistics = jax.device_put(arrays)
    optimizer = optax.chain(optax.add_decayed_weights(0.0), optax.sgd(lambda _: 0.0, momentum=0.9))
    opt_state = optax.tree.set(optimizer.init(params), count=jnp.int32(3))
    collected = {name: {"count": jnp.int32(3), "total": jnp.float32(3)} for name in EARLIER["measures"]}
    collected["_reduction_counter"] = {"value": jnp.int32(1)}
    network = {"params": params, "statistics": statistics}
    training = {"step": jnp.int32(3), "opt_state": opt_state, "collected": collected}
    return {"model": network, "training": training | network}


def names(tree) -> list[str]:
    """What leads to each array; * for the network's own names."""
    paths = [jax.tree_util.keystr(path, simple=True, separator=" ") for path, _ in jax.tree.leaves_with_path(tree)]
    return sorted({" ".join("*" if "." in part else part for part in path.split()) for path in paths})


def test_a_run_goes_on(tmp_path, capsys):
    config, folder = tiny_config(tmp_path), tmp_path / "run"
    assert shapes(config.model) == EARLIER["arrays"]
    items = checkpoint_of_step_3(config.model)
    assert {item: names(tree) for item, tree in items.items()} == EARLIER["items"]

    handlers = {item: ocp.StandardCheckpointHandler() for item in items}
    with ocp.CheckpointManager(folder / "checkpoints", item_handlers=handlers) as manager:
        args = {item: ocp.args.StandardSave(tree) for item, tree in items.items()}
        manager.save(3, args=ocp.args.Composite(**args))
    (folder / "config.json").write_text(json.dumps(EARLIER["config"]))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in EARLIER["metrics"]))
    assert train(config, folder)
    output = capsys.readouterr().out
    assert f"Resuming {folder} from step 3 of 6." in output
    assert "averages of other metrics" not in output
    assert [line["step"] for line in metrics(folder)] == [0, 3, 4, 6, 6]
    ovenet_jax.load_model(folder)


@pytest.mark.parametrize("variant", EARLIER["networks"])
def test_networks_have_the_same_arrays(variant):
    config = camvid.get_config(variant)
    found = shapes(tiny(config, ConfigDict(), narrow(config.model.backbone)).model)
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    assert [len(found), digest] == EARLIER["networks"][variant]


def test_prepared_data_are_where_they_were_and_alike(tmp_path):
    """Their folder is named after what they are made of; another name would prepare them anew."""
    write_tree(tmp_path / "source")
    data = {"name": "camvid", "root": str(tmp_path / "source"), "prepared": str(tmp_path / "prepared")}
    folder = Path(pipeline.prepare(ConfigDict({**data, "lists": "", "storage": "compressed"}))["folder"])
    assert folder.relative_to(tmp_path / "prepared").as_posix() == EARLIER["prepared"]["folder"]
    assert sorted(path.name for path in folder.iterdir()) == EARLIER["prepared"]["files"]
    assert json.loads((folder / "features.json").read_text()) == EARLIER["prepared"]["features"]


def write_tree(root: Path) -> None:
    """A CamVid with one sample per split, whose files have the same size and time on every machine."""
    for split in ("train", "val", "test"):
        for name, channels in ((split, 3), (f"{split}annot", 1)):
            (root / name).mkdir(parents=True)
            file = root / name / f"{split}.png"
            file.write_bytes(png(np.zeros((8, 8, channels), np.uint8)))
            os.utime(file, ns=(10**18, 10**18))


def png(image: np.ndarray) -> bytes:
    """`image` uint8 [H, W, C], not compressed."""
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
