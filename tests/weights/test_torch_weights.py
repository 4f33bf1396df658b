import argparse
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict, deque
from unittest.mock import Mock

import numpy as np
import pytest

from configs import common
from ovenet_jax.errors import UserError
from ovenet_jax.models.zoo import create_model
from ovenet_jax.weights import pth_file
from ovenet_jax.weights.torch_weights import fill, fold_in_place_abn, in_place_abn, matched, read_file
from tests.places import SHARED
from tests.published_keys import arrays_of, assert_same, load_state_dict, published


def plain_hrnet(tiny_model):
    """HRNet with the plain head, and its arrays by name."""
    del tiny_model.offset
    tiny_model.head = common.fcn()
    model = create_model(tiny_model)
    return model, arrays_of(model)


def test_a_whole_published_network_is_taken_over(tiny_model):
    model, arrays = plain_hrnet(tiny_model)
    doubled = {name: 2 * value for name, value in arrays.items()}
    loaded = load_state_dict(model, published(doubled, tiny_model, prefix="model."), "weights.pth")
    assert_same(arrays_of(loaded), doubled)


def test_everything_that_does_not_fit_is_listed_at_once(tiny_model):
    model, _ = plain_hrnet(tiny_model)
    state_dict = {"conv1.weight": np.zeros((8, 3, 5, 5), np.float32), "surprise.weight": np.zeros(3)}
    with pytest.raises(UserError) as error:
        load_state_dict(model, state_dict, "weights.pth")
    message = str(error.value)
    assert message.startswith("weights.pth does not fit the configured model (")
    assert "surprise.weight has no target" in message
    assert "nothing fills backbone.conv2.conv.kernel (3, 3, 8, 8)" in message
    assert (
        "conv1.weight has shape (5, 5, 3, 8) (channels last), backbone.conv1.conv.kernel needs (3, 3, 3, 8)" in message
    )


# The first release's keys and queries are one module.
SHARED_MODULE = ("context.stages.0.f_key.1.weight", "context.stages.0.f_query.1.weight")
MODULES = ("layer2.0.bn1", "cls", "layer5.0", "context.conv_bn_dropout.0")
OF_FIRST_RELEASE = {f"{module}.bias": np.zeros(2, np.float32) for module in MODULES}


def test_a_module_stored_under_two_names_is_one():
    state_dict = OF_FIRST_RELEASE | dict.fromkeys(SHARED_MODULE, np.asarray([1.0, 2.0]))
    names = ("backbone.trunk.layer2.0.conv1.norm.bias", "head.classifier.bias", "head.pixels.conv.bias")
    names += ("head.fusion.conv.bias", "head.attentions.0.key.0.norm.scale")
    filled = fill(dict.fromkeys(names, np.zeros(2, np.float32)), state_dict, "weights.pth")
    np.testing.assert_array_equal(filled["head.attentions.0.key.0.norm.scale"], [1, 2])


def test_two_keys_of_one_array_that_differ_are_both_named():
    key, query = SHARED_MODULE
    state_dict = OF_FIRST_RELEASE | {key: np.asarray([1.0, 2.0]), query: np.asarray([1.0, 3.0])}
    name = "head.attentions.0.key.0.norm.scale"
    with pytest.raises(UserError, match=f"{query} and {key} both map to {name}, but differ"):
        fill({name: np.zeros(2, np.float32)}, state_dict, "weights.pth")


BATCH_NORM = {"weight": np.asarray([-0.5, 2.0], np.float32), "running_var": np.ones(2, np.float32)}


@pytest.mark.parametrize("module", ["module.backbone.layer2.0.bn1", "backbone.transition1.0.1", "cls_head.1"])
def test_the_scales_of_in_place_abn_are_folded(module):
    """|weight| + 1e-5, as its kernels scale; what has a step counter, or is no scale, stays as it is."""
    state_dict = {f"{module}.{key}": value for key, value in BATCH_NORM.items()}
    others = {f"backbone.stage2.0.bn2.{key}": value for key, value in BATCH_NORM.items()}
    others |= {"backbone.stage2.0.bn2.num_batches_tracked": np.asarray(7), "cls_head.3.weight": np.full(2, -1.0)}
    folded = fold_in_place_abn(state_dict | others)
    np.testing.assert_array_equal(folded.pop(f"{module}.weight"), np.float32([0.50001, 2.00001]))
    state_dict.pop(f"{module}.weight")
    for key, value in (state_dict | others).items():
        np.testing.assert_array_equal(folded[key], value)


@pytest.mark.parametrize(
    "other", ["last_layer.3.weight", "stage2.0.branches.0.0.conv1.weight", "layer2.0.conv1.weight"]
)
def test_what_never_had_in_place_abn_is_not_folded(other):
    state_dict = {f"bn1.{key}": value for key, value in BATCH_NORM.items()} | {other: np.zeros(1)}
    assert in_place_abn(state_dict) == set()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1, 2], "bn1.bias holds int64, not floating-point numbers"),
        ([1.0, np.nan], "bn1.bias holds numbers that are not finite"),
        ([1.0, 1e300], "bn1.bias holds numbers that are not finite"),  # in float32
    ],
)
def test_values_that_no_network_has_are_refused(values, sentence):
    expected = {"backbone.conv1.norm.bias": np.zeros(2, np.float32)}
    with pytest.raises(UserError, match=sentence):
        fill(expected, {"bn1.bias": np.asarray(values)}, "weights.pth")


def test_half_precision_is_widened():
    expected = {"backbone.conv1.norm.bias": np.zeros(2, np.float32)}
    filled = fill(expected, {"bn1.bias": np.asarray([1.5, 0.1], np.float16)}, "weights.pth")
    assert filled["backbone.conv1.norm.bias"].dtype == np.float32
    np.testing.assert_array_equal(filled["backbone.conv1.norm.bias"], np.float16([1.5, 0.1]))


def folders_with_pth():
    return sorted(path.parent for path in (SHARED / "goldens").glob("[01]*/weights.pth"))


@pytest.mark.skipif(not folders_with_pth(), reason=f"no {SHARED.name}/goldens beside the project")
@pytest.mark.parametrize("folder", folders_with_pth() or [None], ids=lambda path: path and path.name)
def test_a_pth_file_reads_as_the_same_arrays_as_its_npz(folder):
    arrays = np.load(folder / "weights.npz")
    state_dict = read_file(folder / "weights.pth")
    assert state_dict.keys() == set(arrays.files)
    for key, value in state_dict.items():
        np.testing.assert_array_equal(value, arrays[key])


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_old_and_new_files_plain_or_of_a_training_are_read(torch, tmp_path, wrapped, zipped):
    state_dict = {"bn1.weight": torch.nn.Parameter(torch.arange(3.0))}
    content = {"epoch": 3, "state_dict": state_dict} if wrapped else state_dict
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    read = read_file(tmp_path / "weights.pth")
    assert read.keys() == {"bn1.weight"}
    np.testing.assert_array_equal(read["bn1.weight"], [0, 1, 2])


@pytest.mark.parametrize("zipped", [False, True])
def test_all_that_checkpoints_hold_is_read_as_pytorch_reads_it(torch, tmp_path, zipped):
    module = torch.nn.BatchNorm2d(3)
    state = module.state_dict()  # an OrderedDict with versions of its modules
    grid = torch.arange(24.0).reshape(4, 6)
    state |= {"part": grid[1:3, ::2], "turned": grid.T, "scalar": torch.tensor(2.5), "none": torch.zeros(0, 3)}
    state |= {"again": state["part"], "flags": torch.tensor([True, False]), "double": grid.double()}
    state |= {"half": grid.half(), "brain": grid.bfloat16()}
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.ones(1, 3, 2, 2)).sum().backward()
    optimizer.step()
    content = {"state_dict": state, "best_mIoU": np.float64(0.5), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    read = read_file(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    for key, value in state.items():
        wide = value.float() if key in ("half", "brain") else value
        np.testing.assert_array_equal(read[key], wide.detach().numpy())
        assert read[key].dtype == wide.detach().numpy().dtype


@pytest.mark.parametrize(
    "prefix", ["module.", "module.model.", "model.module.", "_orig_mod.", "module._orig_mod.", "net."]
)
def test_what_wrappers_put_before_names_is_left_out(tiny_model, prefix):
    _, arrays = plain_hrnet(tiny_model)
    assert set(matched(arrays, published(arrays, tiny_model, prefix=prefix)).values()) == arrays.keys()


def test_the_entry_of_a_training_checkpoint_is_chosen(torch, tmp_path):
    file, kernel = tmp_path / "w.pth", torch.ones(1, 1, 1, 1)
    others = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "rng": {"cpu": torch.ones(8)}}
    torch.save({"model_state_dict": {"conv1.weight": kernel}, **others}, file)
    np.testing.assert_array_equal(read_file(file)["conv1.weight"], kernel)
    torch.save({"state_dict": {"conv1.weight": kernel}, "state_dict_ema": {"conv1.weight": 2 * kernel}, **others}, file)
    choice = f"'state_dict' and 'state_dict_ema'; choose one: --source={file}:state_dict."
    with pytest.raises(UserError, match=f"holds several state dicts, under {choice}"):
        read_file(file)
    with pytest.raises(UserError, match=f"holds no state dict under 'ema', but under {choice}"):
        read_file(file, "ema")
    np.testing.assert_array_equal(read_file(file, "state_dict_ema")["conv1.weight"], 2 * kernel)


def test_the_network_or_its_average_is_chosen_by_its_wrapper(torch, tmp_path):
    """Of a Lightning module with both; what is neither belongs to none."""
    file, kernel = tmp_path / "last.ckpt", torch.ones(1, 1, 1, 1)
    state_dict = {"net.conv1.weight": kernel, "ema.module.conv1.weight": 2 * kernel, "ema.n_averaged": torch.ones(())}
    torch.save({"state_dict": state_dict | {"metric.total": torch.ones(3)}, "callbacks": {}}, file)
    with pytest.raises(UserError, match=f"several state dicts, under 'ema' and 'net'; choose one: --source={file}:ema"):
        read_file(file)
    assert read_file(file, "net").keys() == {"net.conv1.weight"}
    np.testing.assert_array_equal(read_file(file, "ema")["ema.module.conv1.weight"], 2 * kernel)


def test_other_objects_beside_the_state_dict_are_left_out(torch, tmp_path):
    others = [argparse.Namespace(rate=0.1), tmp_path, np.arange(3.0), np.int64(8), torch.float32, torch.Size([1, 2])]
    others += [torch.device("cpu"), defaultdict(list, a=[1]), deque([np.float64(0.5)]), OrderedDict(a={"b": tmp_path})]
    torch.save(
        {"state_dict": {"bn1.weight": torch.ones(2)}, "others": others, "meta": {"path": tmp_path}}, tmp_path / "w"
    )
    assert read_file(tmp_path / "w").keys() == {"bn1.weight"}


def test_safetensors_are_read_and_damaged_ones_are_named(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    file, array = tmp_path / "model.safetensors", np.arange(6, dtype=np.float16).reshape(2, 3)
    safetensors.save_file({"bn1.weight": array}, file)
    np.testing.assert_array_equal(read_file(file)["bn1.weight"], array.astype(np.float32))
    whole = file.read_bytes()
    for length in (0, 4, 20, len(whole) - 4):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"model.safetensors {NOT_READ}"):
            read_file(file)


def written(
    path, shape, strides, count=4, start=0, module="torch._utils", name="_rebuild_tensor_v2", copies=1, stored=4
):
    """A file with tensors of such a shape over `count` numbers, which nobody checks."""
    data = path / "w.pth"
    storage = f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{count}\ntQ".encode()
    numbers = ["(" + "".join(f"I{n}\n" for n in tuple_) + "t" for tuple_ in (shape, strides)]
    tensor = f"c{module}\n{name}\n(".encode() + storage + f"I{start}\n{numbers[0]}{numbers[1]}I00\n".encode()
    pairs = b"".join(f"Vbn{i}.weight\n".encode() + tensor + b"ccollections\nOrderedDict\n)RtR" for i in range(copies))
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("w/data.pkl", b"(" + pairs + b"d.")
        file.writestr("w/data/0", np.arange(stored, dtype=np.float32).tobytes())
    return data


def test_what_is_written_for_tests_is_read(tmp_path):
    np.testing.assert_array_equal(read_file(written(tmp_path, (2, 2), (1, 2)))["bn0.weight"], [[0, 2], [1, 3]])


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": (10**6, 10**6), "strides": (0, 0)},
        {"shape": (3, 2), "strides": (1, 1)},
        {"shape": (5,), "strides": (1,)},
        {"shape": (2,), "strides": (10**12,)},
        {"shape": (2,), "strides": (-1,), "start": 1},
        {"shape": (2,), "strides": (1,), "start": 3},
        {"shape": (2,), "strides": (1, 1)},
        {"shape": (4,), "strides": (1,), "count": 10**12},
        {"shape": (10_000,), "strides": (1,), "count": 10_000, "stored": 10_000, "copies": 30},
    ],
)
def test_tensors_that_show_more_than_the_file_holds_are_refused(tmp_path, tensor):
    with pytest.raises(UserError, match=NOT_READ):
        read_file(written(tmp_path, **tensor))


@pytest.mark.parametrize(
    "name", ["torch._utils._rebuild_qtensor", "torch._utils._rebuild_sparse_tensor", "builtins.bytearray"]
)
def test_names_that_no_state_dict_needs_are_refused(tmp_path, name):
    module, _, function = name.rpartition(".")
    with pytest.raises(UserError, match=rf"holds Python objects \({name}\)"):
        read_file(written(tmp_path, (4,), (1,), module=module, name=function))


NOT_READ = r"cannot be read as a checkpoint \(\w+\); check that it is a whole .pth or .safetensors file"


@pytest.mark.parametrize("content", [b"", b"no zip file", b"<!DOCTYPE html>", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(UserError, match=f"broken.pth {NOT_READ}"):
        read_file(tmp_path / "broken.pth")


def test_a_fault_of_the_system_is_no_damaged_file(tmp_path, monkeypatch):
    (tmp_path / "sound.pth").touch()
    monkeypatch.setattr(pth_file, "read", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        read_file(tmp_path / "sound.pth")


def test_keys_of_tuples_within_tuples_are_refused(tmp_path):
    """A hash of the forty here would take days."""
    with zipfile.ZipFile(tmp_path / "broken.pth", "w") as file:
        file.writestr("w/data.pkl", b"\x80\x02})" + b"2\x86" * 40 + b"K\x01s.")
    with pytest.raises(UserError, match=f"broken.pth {NOT_READ}"):
        read_file(tmp_path / "broken.pth")


@pytest.mark.parametrize("content", [b"".join(b"ca\nb%d\n" % i for i in range(2000)), b"]" + b"ca\nb\n)R" * 10**6])
def test_a_file_cannot_make_any_number_of_objects(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "broken.pth", "w") as file:
        file.writestr("w/data.pkl", content + b".")
    with pytest.raises(UserError, match=f"broken.pth {NOT_READ}"):
        read_file(tmp_path / "broken.pth")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_file_is_named(torch, tmp_path, zipped):
    file = tmp_path / "cut.pth"
    torch.save({"bn1.weight": torch.zeros(1000)}, file, _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError, match=f"cut.pth {NOT_READ}"):
        read_file(file)


class Harmful:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_file_is_named_and_not_run(torch, tmp_path, zipped):
    trace = tmp_path / "trace"
    torch.save({"bn1": Harmful(trace)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"w.pth holds Python objects \(posix.mkdir\), and loading those would run"):
        read_file(tmp_path / "w.pth")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace)))  # what would have happened
    assert trace.exists()


def test_a_whole_pickled_network_is_refused_with_its_class(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    with pytest.raises(UserError, match=r"holds Python objects \(torch.nn.modules.linear.Linear\)"):
        read_file(tmp_path / "network.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": [1]}, {"bn1.weight": {"a": 1}}])
def test_a_checkpoint_without_a_state_dict_is_named(torch, tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth holds no state dict"):
        read_file(tmp_path / "w.pth")


@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_an_array_alone_is_no_state_dict(torch, tmp_path, shape):
    torch.save(torch.zeros(shape), tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth holds no state dict"):
        read_file(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.pth is not a file"):
        read_file(tmp_path / "nowhere.pth")
