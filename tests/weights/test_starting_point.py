"""Where each array of a new network comes from; networks are filled with one number each, to show an array's origin."""

import json
import re
import shutil
from contextlib import closing

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import camvid, common, demo, openseg, segfix
from ovenet_jax.errors import FAULTS_SHOWN, UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run import workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.train import train
from ovenet_jax.weights.network import load_model
from ovenet_jax.weights.starting_point import Source, start_from, summary, take_over
from tests.published_keys import arrays_of
from tests.tiny_run import shrunk
from tests.tiny_step import small_resnet

FRESH, BASE, TRUNK = 0.0, 1.0, 2.0


def network(model_config, value, **changes):
    """The arrays of such a network, all filled with `value`."""
    model_config = model_config.copy_and_resolve_references()
    model_config.update_from_flattened_dict(changes)
    return {name: np.full_like(x, value) for name, x in arrays_of(create_model(model_config)).items()}


def baseline(model_config, head=None):
    model_config = model_config.copy_and_resolve_references()
    del model_config.offset
    if head:
        model_config.head = head
    return model_config


def values(arrays, prefix):
    """The numbers that fill the arrays of one part."""
    return {float(number) for name, x in arrays.items() if name.startswith(prefix) for number in np.unique(x)}


def test_an_ovenet_starts_from_a_baseline_with_a_copy_of_its_trunk(tiny_model):
    fresh, base = network(tiny_model, FRESH), network(baseline(tiny_model), BASE)
    base |= {name: np.full_like(x, 3.0) for name, x in base.items() if "trunk.stage4" in name}
    base |= {name: np.full_like(x, 4.0) for name, x in base.items() if "trunk.transition3" in name}
    arrays, origins = take_over(fresh, tiny_model.head, Source("runs/hrnet", base, tiny_model.head))
    assert arrays.keys() == fresh.keys()
    assert all(np.array_equal(arrays[name], base[name]) for name in base)
    assert values(arrays, "offset_trunk.stage4.") == {3.0}
    assert values(arrays, "offset_trunk.transition3.") == {4.0}
    assert values(arrays, "offset_head.") == {FRESH}
    assert {name.split(".")[0]: origin for name, origin in origins.items()} == {
        "backbone": "loaded from runs/hrnet",
        "head": "loaded from runs/hrnet",
        "offset_trunk": "copied from the backbone of runs/hrnet",
        "offset_head": "initialised",
    }


def test_of_a_copied_trunk_the_first_modules_are_taken(tiny_model):
    changes = {"backbone.modules": (1, 2, 3), "offset.branch": 3, "offset.modules": (1, 2)}
    fresh = network(tiny_model, FRESH, **changes)
    base = network(baseline(tiny_model), BASE, **{"backbone.modules": (1, 2, 3)})
    for stage, modules in ((3, 2), (4, 3)):
        for module in range(modules):
            prefix = f"backbone.trunk.stage{stage}.{module}."
            base |= {n: np.full_like(x, 10 * stage + module) for n, x in base.items() if n.startswith(prefix)}
    arrays, _ = take_over(fresh, tiny_model.head, Source("base", base, tiny_model.head))
    assert values(arrays, "offset_trunk.transition") == {BASE}
    assert values(arrays, "offset_trunk.stage3.") == {30.0}
    assert values(arrays, "offset_trunk.stage4.0.") == {40.0}
    assert values(arrays, "offset_trunk.stage4.1.") == {41.0}


def test_a_trunk_of_other_widths_copies_what_has_the_backbones_shapes(tiny_model):
    base = network(baseline(tiny_model), BASE)
    widths = [tiny_model.backbone.width * 2**branch for branch in range(4)]
    widths[3] += 4
    fresh = network(tiny_model, FRESH, **{"offset.blocks": ((3, 1, 1, 1),), "offset.widths": (tuple(widths),)})
    arrays, origins = take_over(fresh, tiny_model.head, Source("base", base, tiny_model.head))
    assert values(arrays, "offset_trunk.stage4.0.branches.0.0.") == {BASE}
    assert origins["offset_trunk.stage4.0.branches.0.2.conv1.conv.kernel"] == "initialised"
    assert values(arrays, "offset_trunk.stage4.0.branches.3.0.") == {FRESH}
    other = "initialised: the backbone of base has another shape"
    assert origins["offset_trunk.stage4.0.branches.3.0.conv1.conv.kernel"] == other


def test_of_a_resnet_the_first_blocks_of_the_last_layer_are_copied(tiny_model):
    tiny_model.backbone, tiny_model.head = openseg.network("isa", "r_tiny")
    tiny_model.backbone.update({"blocks": (1, 1, 1, 3), "multi_grid": (1, 1, 1)})
    tiny_model.offset.modules = (2,)
    fresh, base = network(tiny_model, FRESH), network(baseline(tiny_model), BASE)
    for block in range(3):
        prefix = f"backbone.trunk.layer4.{block}."
        base |= {n: np.full_like(x, 10 + block) for n, x in base.items() if n.startswith(prefix)}
    arrays, origins = take_over(fresh, tiny_model.head, Source("isa.pth", base, tiny_model.head))
    assert {name.split(".")[1] for name in arrays if name.startswith("offset_trunk.")} == {"layer4"}
    assert values(arrays, "offset_trunk.layer4.0.") == {10.0}
    assert values(arrays, "offset_trunk.layer4.1.") == {11.0}
    assert values(arrays, "head.") == {BASE}
    assert origins["offset_trunk.layer4.0.conv1.conv.kernel"] == "copied from the backbone of isa.pth"


def test_an_ovenet_starts_from_another_with_its_own_trunk(tiny_model):
    base = Source("base", network(tiny_model, BASE), tiny_model.head)
    arrays, origins = take_over(network(tiny_model, FRESH), tiny_model.head, base)
    assert values(arrays, "") == {BASE}
    assert set(origins.values()) == {"loaded from base"}


def test_trunk_and_base_may_come_from_two_runs(tiny_model):
    base, trunk = (
        Source(title, network(tiny_model, value), tiny_model.head)
        for title, value in (("base", BASE), ("trunk", TRUNK))
    )
    arrays, origins = take_over(network(tiny_model, FRESH), tiny_model.head, base, trunk)
    assert values(arrays, "backbone.") == values(arrays, "head.") == {BASE}
    assert values(arrays, "offset_") == {TRUNK}
    assert origins["offset_head.classifier.output.bias"] == "loaded from trunk"


def test_a_plain_head_becomes_the_auxiliary_head_of_ocr(tiny_model):
    base = network(baseline(tiny_model, head=common.fcn()), BASE)
    source = Source("hrnet.pth", base, common.fcn())
    arrays, origins = take_over(network(baseline(tiny_model), FRESH), tiny_model.head, source)
    assert values(arrays, "head.aux.") == {BASE}
    assert values(arrays, "head.pixels.") == values(arrays, "head.classifier.") == {FRESH}
    assert origins["head.aux.output.bias"] == "loaded from the plain head of hrnet.pth"


def test_a_plain_head_with_an_auxiliary_one_stays_what_it_is(tiny_model):
    tiny_model.backbone, tiny_model.head = openseg.network("fcn", "r_tiny")
    base = network(baseline(tiny_model), BASE)
    base |= {name: np.full_like(x, 3.0) for name, x in base.items() if name.startswith("head.aux.")}
    arrays, _ = take_over(
        network(baseline(tiny_model), FRESH), tiny_model.head, Source("fcn.pth", base, tiny_model.head)
    )
    assert values(arrays, "head.classifier.") == {BASE}
    assert values(arrays, "head.aux.") == {3.0}


@pytest.mark.parametrize("head", [None, common.fcn()])
def test_last_layers_of_other_classes_stay_as_initialised(tiny_model, head):
    other = network(baseline(tiny_model, head), BASE, num_classes=7)
    config = head or tiny_model.head
    fresh = network(baseline(tiny_model, head), FRESH)
    arrays, origins = take_over(fresh, config, Source("base", other, config))
    kept = {name for name in arrays if values(arrays, name) == {FRESH}}
    last = {"head.classifier", "head.aux.output"} if head is None else {"head.classifier.output"}
    assert kept == {f"{layer}.{array}" for layer in last for array in ("kernel", "bias")}
    assert {origins[name] for name in kept} == {"initialised: base has another number of classes"}


def test_of_another_head_nothing_is_taken_though_names_coincide(tiny_model):
    """Both have `attention.key` and `attention.query`, of the same shapes, in other places of the network."""
    tiny_model.backbone, tiny_model.head = openseg.network("base_oc", "tiny")
    fresh, head = network(baseline(tiny_model), FRESH), tiny_model.head
    tiny_model.backbone, tiny_model.head = openseg.network("ocr", "tiny")
    base = network(baseline(tiny_model), BASE)
    assert fresh.keys() & base.keys() & {"head.attention.key.0.conv.kernel"}
    arrays, origins = take_over(fresh, head, Source("runs/ocr", base, tiny_model.head))
    assert values(arrays, "backbone.") == {BASE}
    assert values(arrays, "head.") == {FRESH}
    expected = "initialised: runs/ocr has another head, OCR in openseg's form"
    assert {origin for name, origin in origins.items() if name.startswith("head.")} == {expected}


def test_two_heads_that_were_never_published_are_the_same_by_their_name(tiny_model):
    """Whatever their arrays are called."""
    arrays = {name: network(baseline(tiny_model), value) for name, value in (("fresh", FRESH), ("base", BASE))}
    ours, theirs = (ConfigDict({**tiny_model.head, "name": name}) for name in ("new", "other"))
    taken, _ = take_over(arrays["fresh"], ours, Source("runs/new", arrays["base"], ours))
    assert values(taken, "head.") == {BASE}
    taken, origins = take_over(arrays["fresh"], ours, Source("runs/other", arrays["base"], theirs))
    assert values(taken, "head.") == {FRESH}
    assert origins["head.pixels.conv.bias"] == "initialised: runs/other has another head, the head 'other'"


@pytest.mark.parametrize("head", [head for head in openseg.HEADS if head != "ocr"])
def test_one_import_of_a_backbone_serves_every_head(tiny_model, head):
    tiny_model.backbone, tiny_model.head = openseg.network("ocr", "r_tiny")
    base = network(baseline(tiny_model), BASE)
    untrained = frozenset(name for name in base if name.startswith("head."))
    imported = Source("imagenet", base, tiny_model.head, untrained)
    tiny_model.backbone, tiny_model.head = openseg.network(head, "r_tiny")
    arrays, _ = take_over(network(baseline(tiny_model), FRESH), tiny_model.head, imported)
    assert values(arrays, "backbone.") == {BASE}
    assert values(arrays, "head.") == {FRESH}


@pytest.mark.parametrize("head", ["base_oc", "ocr"])
def test_a_plain_head_becomes_no_narrower_auxiliary_head(tiny_model, head):
    base = network(baseline(tiny_model, head=common.fcn()), BASE)
    backbone = tiny_model.backbone
    _, tiny_model.head = openseg.network(head, "tiny")
    tiny_model.backbone = backbone
    source = Source("runs/hrnet", base, common.fcn())
    arrays, origins = take_over(network(baseline(tiny_model), FRESH), tiny_model.head, source)
    assert values(arrays, "backbone.") == {BASE}
    assert values(arrays, "head.") == {FRESH}
    assert origins["head.aux.output.kernel"] == "initialised: runs/hrnet has another head, a plain head"


def test_a_segfix_of_other_directions_starts_from_one_but_for_its_last_layer(tiny_model):
    tiny_model.head = segfix.head(8)
    fresh, base = (
        network(baseline(tiny_model), value, num_classes=classes) for value, classes in ((FRESH, 17), (BASE, 9))
    )
    arrays, origins = take_over(fresh, tiny_model.head, Source("runs/segfix", base, tiny_model.head))
    assert {name for name in arrays if values(arrays, name) == {FRESH}} == {"direction_head.output.kernel"}
    assert origins["boundary_head.hidden.conv.kernel"] == "loaded from runs/segfix"
    assert "another number of classes" in origins["direction_head.output.kernel"]


def test_the_last_layers_are_taken_over_by_the_names_of_their_classes(tiny_model):
    model = baseline(tiny_model)
    base = network(model, BASE, num_classes=3)
    last = [f"{layer}.{array}" for layer in ("head.classifier", "head.aux.output") for array in ("kernel", "bias")]
    for name in last:
        base[name] = base[name] * np.float32((10, 20, 30))
    source = Source("runs/hrnet", base, tiny_model.head, classes=("sky", "road", "car"))

    fresh = network(model, FRESH, num_classes=3)
    arrays, origins = take_over(fresh, model.head, source, classes=("car", "sky", "road"))
    for name in last:
        np.testing.assert_array_equal(arrays[name], np.broadcast_to((30, 10, 20), fresh[name].shape))
        assert origins[name] == "loaded from runs/hrnet, by the names of its classes"
    assert values(arrays, "backbone.") == {BASE}

    fresh = network(model, FRESH, num_classes=2)
    arrays, origins = take_over(fresh, model.head, source, classes=("van", "road"))
    for name in last:
        np.testing.assert_array_equal(arrays[name], np.broadcast_to((0, 20), fresh[name].shape))
        assert origins[name] == "initialised except 1 of 2 classes, loaded from runs/hrnet"

    same, _ = take_over(network(model, FRESH, num_classes=3), model.head, source, classes=source.classes)
    assert all(np.array_equal(same[name], base[name]) for name in last)


@pytest.mark.parametrize(
    ("changes", "absent", "said"),
    [
        ({"head.mid_features": 8}, (), "head.pixels.conv.bias has shape (8,) in runs/other and (16,) in the model"),
        (
            {"backbone.modules": (1, 2, 1)},
            (),
            "trunk.stage3.1.branches.0.0.conv1.conv.kernel of runs/other is not in the model",
        ),
        ({}, ("backbone.conv1.norm.bias",), "\n  backbone.conv1.norm.bias is not in runs/other"),
    ],
)
def test_arrays_of_another_network_are_listed(tiny_model, changes, absent, said):
    base = network(baseline(tiny_model), BASE, **changes)
    for name in absent:
        del base[name]
    with pytest.raises(UserError) as error:
        take_over(network(tiny_model, FRESH), tiny_model.head, Source("runs/other", base, tiny_model.head))
    message = str(error.value)
    assert message.startswith("runs/other cannot be a starting point of the configured model (")
    assert said in message
    count = int(re.search(r"\((\d+) problem", message)[1])
    assert message.count("\n") == min(count, FAULTS_SHOWN + 1)


def test_a_trunk_of_another_branch_is_refused(tiny_model):
    other = network(tiny_model, TRUNK, **{"offset.branch": 3, "offset.modules": (1, 1)})
    base = Source("base", network(tiny_model, BASE), tiny_model.head)
    with pytest.raises(UserError, match="offset_trunk.stage3.0.branches.*kernel of other is not in the model"):
        take_over(network(tiny_model, FRESH), tiny_model.head, base, Source("other", other, tiny_model.head))


def test_a_trunk_without_offsets_is_refused(tiny_model):
    arrays = network(baseline(tiny_model), BASE)
    base, trunk = (Source(title, arrays, tiny_model.head) for title in ("base", "trunk"))
    with pytest.raises(UserError, match="trunk has no offset trunk"):
        take_over(network(tiny_model, FRESH), tiny_model.head, base, trunk)


def test_the_summary_counts_by_part_and_origin():
    origins = {"backbone.a": "loaded", "head.a": "loaded", "head.b": "initialised", "backbone.b": "loaded"}
    assert summary(origins) == ("backbone: 2 arrays loaded\nhead: 1 array loaded\nhead: 1 array initialised")


# ---- folders ----


def save_run(folder, model_config, value=None):
    """A folder that holds a network, filled with `value` if there is one, else with initial values of seed 1."""
    config = demo.get_config("ovenet" if "offset" in model_config else "hrnet")
    config.model = model_config
    workdir.claim(folder, config)
    _, *arrays = parameters.split(create_model(model_config, seed=1))
    if value is not None:
        arrays = jax.tree.map(lambda x: np.full_like(x, value), arrays)
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save_model(*arrays)
    return str(folder)


def started(model_config, base, trunk="", **options):
    config = ConfigDict({"model": model_config, "init": {"base": base, "trunk": trunk}})
    return start_from(create_model(model_config), config, **options)


def test_folders_are_restored_and_the_report_printed(tiny_model, tmp_path, capsys):
    base = save_run(tmp_path / "base", baseline(tiny_model), BASE)
    trunk = save_run(tmp_path / "trunk", tiny_model, TRUNK)
    tiny_model.input.bgr = True
    arrays = arrays_of(started(tiny_model, base, trunk))
    assert values(arrays, "backbone.") == values(arrays, "head.") == {BASE}
    assert values(arrays, "offset_") == {TRUNK}
    printed = capsys.readouterr().out
    assert f"arrays loaded from {trunk}" in printed
    assert f"Note: config.model.input.bgr is True; {base} was trained with False." in printed


def test_a_network_fed_blue_first_takes_over_kernels_as_they_are_as_openseg_does(tiny_model, tmp_path):
    model = baseline(tiny_model)
    base = save_run(tmp_path / "base", model)
    model.input.bgr = True
    _, params, _ = parameters.split(started(model, base))
    theirs = parameters.split(create_model(baseline(tiny_model), seed=1))[1]
    first = "backbone.conv1.conv.kernel"
    np.testing.assert_array_equal(params[first], theirs[first])


@pytest.mark.parametrize(("missing", "present"), [("base", "trunk"), ("trunk", "base")])
def test_a_folder_without_a_run_is_named_with_its_key(tiny_model, tmp_path, missing, present):
    save_run(tmp_path / present, tiny_model, BASE)
    with pytest.raises(UserError, match=f"config.init.{missing}: .*{missing} holds no run"):
        started(tiny_model, str(tmp_path / "base"), str(tmp_path / "trunk"))


def test_a_frozen_run_keeps_its_base_to_the_bit_and_resumes_without_it(tmp_path):
    config = shrunk(camvid.get_config("ovenet_tiny"), tmp_path)
    config.model.backbone, config.model.offset.modules = small_resnet(), (1,)
    config.init.base = save_run(tmp_path / "base", baseline(config.model))
    config.freeze_base = True
    config.eval.update({"panels": 0, "worst": 0})
    fresh = arrays_of(create_model(config.model, config.seed))
    assert train(config, tmp_path / "run")
    (_, *base), (_, *trained) = (parameters.split(load_model(tmp_path / name)) for name in ("base", "run"))
    for before, after in zip(base, trained, strict=True):
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    moved = {name for after in trained for name, x in after.items() if not np.array_equal(x, fresh[name])}
    assert "offset_head.classifier.output.kernel" in moved  # the offsets have learned

    shutil.rmtree(config.init.base)
    assert train(config, tmp_path / "run")  # nothing left to do: restored, evaluated


@pytest.mark.parametrize("changes", [{"init.trunk": "runs/x"}, {"freeze_base": True}])
def test_offsets_alone_need_a_base(tmp_path, changes):
    config = camvid.get_config("ovenet_tiny")
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match="config.init.trunk and freeze_base need a trained base network"):
        train(config, tmp_path)


@pytest.mark.parametrize("unsuitable", ["other classes", "plain head", "ImageNet"])
def test_a_head_that_nobody_trained_is_not_frozen(tiny_model, tmp_path, unsuitable):
    model_config = baseline(tiny_model, common.fcn() if unsuitable == "plain head" else None)
    if unsuitable == "other classes":
        model_config.num_classes += 1
    base = save_run(tmp_path / "base", model_config, BASE)
    if unsuitable == "ImageNet":
        names = network(model_config, BASE)
        origins = {n: "initialised" if n.startswith("head.") else "loaded from imagenet.pth" for n in names}
        (tmp_path / "base" / workdir.IMPORT_REPORT).write_text(json.dumps({"arrays": origins}))
    with pytest.raises(UserError, match=r"freeze_base would freeze arrays that .*base has not trained: \d+; .* head\."):
        started(tiny_model, base, frozen=("backbone", "head"))
    started(tiny_model, base)  # to be trained, it will do


def test_a_trained_base_may_be_frozen(tiny_model, tmp_path):
    base = save_run(tmp_path / "base", baseline(tiny_model), BASE)
    started(tiny_model, base, frozen=("backbone", "head"))
