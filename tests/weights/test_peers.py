"""Networks of other libraries, made there with random weights: after an import ours compute the same.

What the libraries do otherwise is said where it is: their networks are built so that it makes no difference.
"""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import ovenet_jax
from configs import common, demo, openseg
from ovenet_jax.import_weights import import_weights

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("torch")]

CLASSES = 5
NORM = {"norm_cfg": {"type": "BN"}, "align_corners": False}
WIDTHS = (8, 16, 32, 64)


@pytest.fixture(autouse=True)
def without_compiled_operators(monkeypatch):
    """Of torchvision, whose packages are for CUDA, and of MMCV, whose small package has none; none is called."""
    for module in ("torchvision._meta_registrations", "mmcv._ext"):
        monkeypatch.setitem(sys.modules, module, MagicMock())


def largest_error(found, reference) -> float:
    """Over the scale of the reference [B, C, H, W]."""
    reference = reference.detach().numpy().transpose(0, 2, 3, 1)
    assert found.shape == reference.shape
    error = float(np.abs(np.asarray(found) - reference).max() / np.abs(reference).max())
    print(f"largest error over scale: {error:.1e}")
    return error


def randomise(module):
    """As after a training: no BatchNorm is the identity."""
    import torch

    rng = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.ndim == 1:
            kind = name.rpartition(".")[2]
            spread = 0.5 * torch.rand(value.shape, generator=rng)
            value.copy_(0.75 + spread if kind in ("weight", "running_var") else spread - 0.25)
    return module.eval()


def image(size):
    """[B, H, W, 3] and the same for PyTorch."""
    import torch

    x = np.random.default_rng(0).standard_normal((1, *size, 3)).astype(np.float32)
    return jnp.asarray(x), torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


@pytest.fixture
def config(tiny_model) -> ConfigDict:
    del tiny_model.offset
    tiny_model.num_classes = CLASSES
    config = demo.get_config("hrnet")
    config.model = tiny_model
    return config


def mmsegmentation(head: str):
    """HRNet with an FCN, or a cascade of FCN and OCR, as its config files put them together."""
    pytest.importorskip("mmseg")
    import torch
    from mmseg.models import HRNet
    from mmseg.models.decode_heads import FCNHead, OCRHead

    def stage(number):
        form = {"num_modules": 1, "num_branches": number, "block": "BASIC", "num_blocks": (1,) * number}
        return form | {"num_channels": WIDTHS[:number]}

    first = {"num_modules": 1, "num_branches": 1, "block": "BOTTLENECK", "num_blocks": (1,), "num_channels": (64,)}
    stages = {"stage1": first} | {f"stage{number}": stage(number) for number in (2, 3, 4)}
    reading = {"in_channels": list(WIDTHS), "in_index": (0, 1, 2, 3), "input_transform": "resize_concat"}
    reading |= {"num_classes": CLASSES, "dropout_ratio": -1, **NORM}
    fcn = FCNHead(channels=sum(WIDTHS), kernel_size=1, num_convs=1, concat_input=False, **reading)
    network = torch.nn.Module()
    network.backbone = HRNet(extra=stages, norm_cfg=NORM["norm_cfg"])
    network.decode_head = fcn
    if head == "ocr":
        network.decode_head = torch.nn.ModuleList([fcn, OCRHead(ocr_channels=16, channels=32, **reading)])
    return randomise(network)


@pytest.mark.parametrize("head", ["fcn", "ocr"])
def test_mmsegmentation(head, config, tmp_path, capsys):
    network = mmsegmentation(head)
    import torch
    from mmengine.logging import MessageHub

    hub = MessageHub.get_instance("training")
    hub.update_scalar("train/loss", 0.5)
    content = {"meta": {"epoch": 1}, "state_dict": network.state_dict(), "message_hub": hub.state_dict()}
    torch.save(content, tmp_path / "iter_160000.pth")

    config.model.backbone = openseg.hrnet(8, modules=(1, 1, 1), blocks=1, layer1_blocks=1, layer1_width=64)
    config.model.head = common.fcn() if head == "fcn" else common.ocr()
    if head == "ocr":
        config.model.head.update({"mid_features": 32, "key_features": 16})
    config.model.align_corners = False
    import_weights(config, tmp_path / "iter_160000.pth", tmp_path / "imported")
    printed = capsys.readouterr().out
    assert "named as in mmsegmentation (HRNet), with plain BatchNorm" in printed and "Note:" not in printed
    x, theirs = image((64, 96))
    with torch.no_grad():
        maps = network.backbone(theirs)
        reference = network.decode_head(maps) if head == "fcn" else network.decode_head[0](maps)
        if head == "ocr":
            reference = network.decode_head[1](maps, reference)
    assert largest_error(ovenet_jax.load_model(tmp_path / "imported")(x).main, reference) < 1e-5


def imported_features(config, source: Path, x):
    """The stages of the backbone that the file holds."""
    import_weights(config, source, source.parent / "imported")
    return ovenet_jax.load_model(source.parent / "imported").backbone(x)


def test_an_hrnet_of_timm(config, tmp_path, capsys):
    """Its fusing upsamples by repeating pixels, as in HRNet's code for ImageNet; here as in segmentation."""
    timm = pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file

    network = randomise(timm.create_model("hrnet_w18_small", pretrained=False))
    for module in network.modules():
        if isinstance(module, torch.nn.Upsample):
            module.mode, module.align_corners = "bilinear", True
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config.model.backbone = openseg.BACKBONES["w18_small_v1"]()
    x, theirs = image((64, 96))
    found = imported_features(config, tmp_path / "model.safetensors", x)[-1]
    assert "a backbone alone" in capsys.readouterr().out
    with torch.no_grad():
        stem = network.act1(network.bn1(network.conv1(theirs)))
        reference = network.stages(network.act2(network.bn2(network.conv2(stem))))
    assert max(map(largest_error, found, reference)) < 1e-5


def dilated_resnet(stem: tuple[int, ...], half_dilation: bool) -> ConfigDict:
    backbone = openseg.resnet((1, 1, 1, 1), stem=stem)
    backbone.half_dilation = half_dilation
    return backbone


@pytest.mark.parametrize("stem", [(64,), (64, 64, 128)])
def test_a_resnet_of_timm(config, tmp_path, capsys, stem):
    """Its pooling rounds sizes down: the same for sizes of 4 n + 1."""
    pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file
    from timm.models.resnet import Bottleneck, ResNet

    deep = {"stem_type": "deep", "stem_width": 64} if len(stem) > 1 else {}
    network = randomise(ResNet(Bottleneck, (1, 1, 1, 1), output_stride=8, **deep))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config.model.backbone, config.model.head = dilated_resnet(stem, half_dilation=True), openseg.base_oc(64)
    x, theirs = image((65, 97))
    found = imported_features(config, tmp_path / "model.safetensors", x)[-1]
    title = "timm's ResNet with a deep stem" if len(stem) > 1 else "ResNet on ImageNet"
    assert f"named as in {title}, with plain BatchNorm" in capsys.readouterr().out
    with torch.no_grad():
        assert largest_error(found, network.forward_features(theirs)) < 1e-5


@pytest.mark.parametrize("encoder", ["resnet50", "tu-hrnet_w18_small"])
def test_an_encoder_of_segmentation_models_pytorch(config, tmp_path, capsys, encoder):
    """Sizes as for timm; the HRNet is timm's own, and compared there."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    import torch

    hrnet = "hrnet" in encoder
    stride = {} if hrnet else {"encoder_output_stride": 8}
    make = smp.Unet if hrnet else smp.DeepLabV3
    network = randomise(make(encoder, encoder_weights=None, classes=CLASSES, **stride))
    torch.save({"model_state_dict": network.state_dict(), "epoch": 3}, tmp_path / "best.pth")
    config.model.backbone = openseg.BACKBONES["w18_small_v1"]() if hrnet else dilated_resnet((64,), half_dilation=False)
    if not hrnet:
        config.model.backbone.update({"blocks": (3, 4, 6, 3), "multi_grid": (1, 1, 1)})
        config.model.head = openseg.base_oc(64)
    x, theirs = image((65, 97))
    found = imported_features(config, tmp_path / "best.pth", x)[-1]
    printed = capsys.readouterr().out
    assert f"named as in segmentation_models.pytorch ({'HRNet' if hrnet else 'ResNet'})" in printed
    assert "decoder of segmentation_models.pytorch" in printed
    if not hrnet:
        with torch.no_grad():
            assert largest_error(found, network.encoder(theirs)[-1]) < 1e-5
