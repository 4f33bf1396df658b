"""From a published .pth to a published label map by the command line alone, each command in a process of its own."""

import json
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import command_line, golden_outputs, goldens
from tests.places import SHARED

pytestmark = pytest.mark.usefixtures("torch")

VARIANTS = {"thesis_offset_hrnet": "thesis", "hrnet_ocr": "hrnet_ocr", "ovenet_hrnet_ocr": "ovenet"}
CASES = sorted(
    file.parent for file in (SHARED / "goldens").glob("*/case.json") if "inference" in json.loads(file.read_text())
)


@pytest.mark.skipif(not CASES, reason=f"no {SHARED.name}/goldens beside the project")
@pytest.mark.parametrize("folder", CASES or [None], ids=lambda folder: folder and folder.name)
def test_published_weights_give_the_published_label_map(folder, tmp_path):
    case = goldens.Case(folder)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "image.png"), case.io["image"])  # both BGR
    weights = folder / case.spec["weights"]["file"]
    main("import", tmp_path, f"--source={weights}", *network(case))
    report = main("predict", tmp_path, f"--source={tmp_path / 'images'}", *network(case), *protocol(case))
    assert "Written and checked: 1 label maps" in report
    found = cv2.imread(str(tmp_path / "run/predictions/images/label_maps/image.png"), cv2.IMREAD_UNCHANGED)
    reference = case.io["ms_flip_argmax"][0]
    assert found.shape == reference.shape
    assert (found != reference).mean() <= case.rule("ms_flip_argmax")["mismatch_fraction"]


OPENSEG = SHARED / "goldens" / "15b_spatial_ocrnet_relu"  # plain BatchNorm, so that nothing is folded


@pytest.mark.skipif(not OPENSEG.exists(), reason=f"no {SHARED.name}/goldens beside the project")
def test_openseg_weights_give_the_label_map_of_the_published_network(tmp_path):
    case = goldens.Case(OPENSEG)
    height, width = case.io["x"].shape[2:]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)  # BGR
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "image.png"), image)
    config = openseg_network(case)
    report = main("import", tmp_path, f"--source={OPENSEG / case.spec['weights']['file']}", *config)
    assert "Its arrays are named as in openseg (ResNet), with plain BatchNorm." in report
    assert "Note:" not in report
    main("predict", tmp_path, f"--source={tmp_path / 'images'}", f"--config.eval.base_size={width}", *config)
    found = cv2.imread(str(tmp_path / "run/predictions/images/label_maps/image.png"), cv2.IMREAD_UNCHANGED)

    case.io["x"] = (image - np.float32([102.9801, 115.9465, 122.7717])).transpose(2, 0, 1)[None]
    reference = golden_outputs.forward(case)["out"].argmax(1)[0]
    assert len(np.unique(reference)) > 1
    assert (found != reference).mean() <= 1e-3  # ties, to rounding


def openseg_network(case: goldens.Case) -> list[str]:
    """The case's ResNet and OCR as a variant of configs/cityscapes.py with overrides."""
    backbone, head, aux = (case.network[part] for part in ("backbone", "head", "aux_head"))
    overrides = {
        "num_classes": case.network["num_classes"],
        "backbone.blocks": tuple(backbone["blocks"]),
        "backbone.widths": tuple(backbone["planes"]),
        "backbone.stem": tuple(backbone["stem"]["channels"]),
        "head.mid_features": head["mid_channels"],
        "head.key_features": head["key_channels"],
        "head.activation": "relu",
        "head.aux.hidden_features": aux["hidden_channels"],
        "head.aux.activation": "relu",
    }
    values = [f"--config.model.{key}={str(value).replace(' ', '')}" for key, value in overrides.items()]
    return ["--config=configs/cityscapes.py:ocr_r101", *values]


@pytest.mark.slow
def test_full_width_goes_through_import_and_prediction_within_12_gigabytes(torch, tmp_path):
    manifest = SHARED / "goldens" / "manifests" / "ovenet_hrnet_w48_ocr_cityscapes_branch4.json"
    arrays = random_arrays(json.loads(manifest.read_text()))
    state_dict = {key: torch.from_numpy(value) for key, value in arrays.items()}
    torch.save(state_dict, tmp_path / "ovenet.pth")
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (512, 1024, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "image.png"), image)
    config = "--config=configs/cityscapes.py"
    report = main("import", tmp_path, f"--source={tmp_path / 'ovenet.pth'}", config)
    assert "holds a whole network" in report
    at_its_size = ["--config.eval.base_size=1024", "--config.eval.window=(512,1024)"]
    main("predict", tmp_path, f"--source={tmp_path / 'images'}", config, *at_its_size)
    written = tmp_path / "run" / "predictions" / "images" / "label_maps" / "image.png"
    assert cv2.imread(str(written), cv2.IMREAD_UNCHANGED).shape == (512, 1024)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # GB; Linux counts kB
    print(f"peak memory {peak:.1f} GB")
    assert peak < 12


def random_arrays(manifest: dict) -> dict[str, np.ndarray]:
    """What a published training script would save of that network, with random kernels."""
    rng = np.random.default_rng(0)
    state = {}
    for key, entry in manifest["keys"].items():
        shape = entry if isinstance(entry, list) else entry["shape"]
        if key.endswith("num_batches_tracked"):
            value = np.asarray(7)
        elif len(shape) == 4 and not key.endswith("coords"):
            value = 0.03 * rng.standard_normal(shape, np.float32)
        else:
            value = np.ones(shape, np.float32)
        state[f"model.{key}"] = value
    return state


def main(mode: str, folder: Path, *arguments: str) -> str:
    variant = next(a for a in arguments if a.startswith("--config="))
    rest = [a for a in arguments if a != variant]
    return command_line.output(variant, f"--mode={mode}", f"--workdir={folder / 'run'}", *rest)


def network(case: goldens.Case) -> list[str]:
    """The case's network as a variant of configs/cityscapes.py with overrides."""
    network = case.network
    first, *stages = network["backbone"]["stages"]
    overrides = {
        "num_classes": network["num_classes"],
        "align_corners": network["align_corners"],
        "backbone.width": stages[0]["channels"][0],
        "backbone.modules": tuple(stage["modules"] for stage in stages),
        "backbone.blocks": stages[0]["blocks"][0],
        "backbone.layer1_blocks": first["blocks"][0],
        "backbone.layer1_width": first["planes"][0],
    }
    if network["head"]["type"] == "ocr":
        overrides["head.mid_features"] = network["head"]["mid_channels"]
        overrides["head.key_features"] = network["head"]["key_channels"]
    if "offset_head" in network:
        overrides["offset.branch"] = network["offset_head"]["branch"]
        stages = network["backbone"]["offset_stages"].values()
        overrides["offset.modules"] = tuple(stage["modules"] for stage in stages)
    variant = VARIANTS[network["architecture"]]
    values = [f"--config.model.{key}={str(value).replace(' ', '')}" for key, value in overrides.items()]
    return [f"--config=configs/cityscapes.py:{variant}", *values]


def protocol(case: goldens.Case) -> list[str]:
    """The case's inference as overrides of config.eval."""
    inference = case.spec["inference"]
    overrides = {
        "base_size": inference["base_size"],
        "window": tuple(inference["crop_size_hw"]),
        "scales": tuple(inference["scales"]),
        "flip": inference["flip"],
        "windows": "generic" if inference["variant"] == "base" else "cityscapes",
    }
    return [f"--config.eval.{key}={str(value).replace(' ', '')}" for key, value in overrides.items()]
