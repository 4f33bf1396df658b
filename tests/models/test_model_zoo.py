"""docs/model_zoo.md is what benchmarks/model_zoo.py makes, and counts operations as the published networks' were."""

import json
import re

import pytest

from benchmarks import model_zoo
from configs import cityscapes
from ovenet_jax.models.zoo import create_model
from tests.places import ROOT, SHARED

DOCUMENT = ROOT / "docs" / "model_zoo.md"
MANIFESTS = SHARED / "goldens" / "manifests"

PIXELS = 65 * 129  # of the map of 512x1024 pixels at stride 8, whose max pooling rounds up
TWICE = 2 * PIXELS * 512 * 256  # OCNet's first release computes queries and keys twice, though they are one
PUBLISHED = {  # by variant: the manifest, and what it counts too much
    "base_oc_r101": ("openseg_base_ocnet", 0),
    "ocnet_base_oc_r101": ("ocnet_first_release_resnet101_base_oc", TWICE),
    "ocnet_asp_oc_r101": ("ocnet_first_release_resnet101_asp_oc", 2 * (32 * 64) * 256 * 128),
    "ocnet_pyramid_oc_r101": ("ocnet_first_release_resnet101_pyramid_oc", 4 * TWICE),
    "fcn_r101": ("openseg_fcnet", 0),
    "isa_r101": ("openseg_isanet", 0),
    "ocr_r101": ("openseg_spatial_ocrnet", 0),
    "asp_ocr_r101": ("openseg_spatial_asp_ocrnet", 0),
    "asp_oc_r101": ("openseg_asp_ocnet", 0),
    "fcn_w48": ("openseg_hrnet_w48", 0),
    "ocr_w48": ("openseg_hrnet_w48_ocr", 0),
    "asp_ocr_w48": ("openseg_hrnet_w48_asp_ocr", 0),
    "hrnet_ocr": ("hrnet_w48_ocr_cityscapes", 0),
    "ovenet": ("ovenet_hrnet_w48_ocr_cityscapes_branch4", 0),
}


def test_the_document_is_what_the_program_makes_around_its_numbers():
    written = iter(re.findall(r"\| ([\d.]+) \(([\d.]+)\) \| ([\d.]+) \(([\d.]+)\) at ", DOCUMENT.read_text()))
    halves: list[tuple[float, float]] = []

    def as_written(_):
        if not halves:
            count, count_offsets, work, work_offsets = map(float, next(written))
            halves.extend([(count * 1e6, work * 1e9), (count_offsets * 1e6, work_offsets * 1e9)])
        return halves.pop(0)

    hours = iter(re.findall(r"^\| `(\w+):(\w+)` \| ([\d. to]+) \| ([\d. to]+) \| `python", DOCUMENT.read_text(), re.M))

    def hours_as_written(file, variant):
        *of, one, eight = next(hours)
        assert of == [file, variant]
        return one, eight

    assert model_zoo.document(as_written, hours_as_written) == DOCUMENT.read_text()
    assert not list(written)
    assert not list(hours)


@pytest.mark.usefixtures("undrawn")
def test_the_parameters_in_the_document_are_those_of_the_networks(monkeypatch):
    monkeypatch.setattr(model_zoo, "operations", lambda *_: 0)
    written = re.findall(r"^\| `(\w+):(\w+)` .*\| ([\d.]+) \([\d.]+\) \| [\d.]+ \(", DOCUMENT.read_text(), re.M)
    assert len(written) == len(model_zoo.ROWS)
    for file, variant, millions in dict.fromkeys(written):
        count, _ = model_zoo.measure(model_zoo.FILES[file].get_config(variant))
        assert f"{count / 1e6:.2f}" == millions


@pytest.mark.slow
def test_the_document_is_what_the_program_makes(capsys):
    """Two minutes: pytest -m slow tests/models/test_model_zoo.py"""
    model_zoo.main()
    assert capsys.readouterr().out == DOCUMENT.read_text()


@pytest.mark.skipif(not MANIFESTS.is_dir(), reason=f"no {MANIFESTS}")
@pytest.mark.parametrize(
    "variant", ["base_oc_r101", *(pytest.param(v, marks=pytest.mark.slow) for v in list(PUBLISHED)[1:])]
)
def test_operations_are_those_of_the_published_network(variant):
    """Of all of them: pytest -m slow tests/models/test_model_zoo.py"""
    name, too_much = PUBLISHED[variant]
    published = json.loads((MANIFESTS / f"{name}.json").read_text())["flops"]
    network = create_model(cityscapes.get_config(variant).model)
    counted = model_zoo.operations(network, tuple(published["input"][2:]))
    assert counted == published["total_flops"] - too_much
