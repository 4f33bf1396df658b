"""Published PyTorch weights -> our parameters, by name.

A published state dict (OVeNet, its thesis network, HRNet, HRNet + OCR, ImageNet's HRNet) is renamed by one table and
transposed to our layout; nothing is guessed: every key must land and every parameter must be filled.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from ovenet_jax.errors import UserError

# Before the names of the network: of DataParallel, of the training script's wrapper.
PREFIX = r"^(module\.)?(model\.)?"

# Keys (without PREFIX) that carry nothing a network here needs, and what they are.
IGNORED = (
    (r"^(incre_modules|downsamp_modules|final_layer)\.", "ImageNet classification head"),
    (r"^classifier\.(weight|bias)$", "ImageNet classification head"),
    (r"(^|\.)num_batches_tracked$", "BatchNorm's step counters"),
    (r"^coords$", "stored pixel grid"),
    (r"^loss\.criterion\.weight$", "class weights of the loss"),
)

# Applied to each key in this order, each rule as often as it matches.
RULES = (
    (PREFIX, ""),
    # Parts. `_2` marks the offset trunk in the published code.
    (r"^(transition|stage)(\d)_2\.", r"offset_trunk.\1\2."),
    (r"^(transition|stage)(\d)\.", r"backbone.trunk.\1\2."),
    (r"^(conv1|bn1|conv2|bn2|layer1)\.", r"backbone.\1."),
    (r"^(aux_head_offset|offset_layer)\.", "offset_head.classifier."),
    (r"^last_layer\.", "head.classifier."),
    (r"^aux_head\.", "head.aux."),
    (r"^conv3x3_ocr\.", "head.pixels."),
    (r"^cls_head\.", "head.classifier."),
    (r"^ocr_distri_head\.conv_bn_dropout\.", "head.fusion."),
    (r"^ocr_distri_head\.object_context_block\.f_pixel\.", "head.attention.query."),
    (r"^ocr_distri_head\.object_context_block\.f_object\.", "head.attention.key."),
    (r"^ocr_distri_head\.object_context_block\.f_down\.", "head.attention.value."),
    (r"^ocr_distri_head\.object_context_block\.f_up\.", "head.attention.output."),
    # A new branch is a sequence of one step, itself a sequence.
    (r"(transition\d\.\d)\.0\.(?=\d\.)", r"\1."),
    # Sequences of (conv, BN, act) are numbered on: conv 0, BN 1, conv 2, BN 3; in OCR a BN sits one deeper (1.0).
    (r"^(head\.attention\.\w+)\.0\.(?=weight)", r"\1.0.conv."),
    (r"^(head\.attention\.\w+)\.1\.0\.", r"\1.0.norm."),
    (r"^(head\.attention\.\w+)\.2\.", r"\1.1.conv."),
    (r"^(head\.attention\.\w+)\.3\.0\.", r"\1.1.norm."),
    (r"^(head\.fusion)\.1\.0\.", r"\1.norm."),
    (r"^(head\.aux|(?:head|offset_head)\.classifier)\.3\.", r"\1.output."),
    (r"^(head\.aux|(?:head|offset_head)\.classifier)\.(?=[01]\.)", r"\1.hidden."),
    (r"\.(conv\d)\.(?=weight)", r".\1.conv."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.0\.(?=(weight|bias)$)", ".conv."),
    (r"\.1\.(?=(weight|bias|running_mean|running_var)$)", ".norm."),
    # Leaves.
    (r"\bnorm\.weight$", "norm.scale"),
    (r"\.weight$", ".kernel"),
    (r"\.running_mean$", ".mean"),
    (r"\.running_var$", ".var"),
)


def rename(key: str) -> str:
    """A published state-dict key -> the name of our array."""
    for pattern, replacement in RULES:
        key = re.sub(pattern, replacement, key)
    return key


def why_ignored(key: str) -> str | None:
    """What an ignored state-dict key is; None where its array belongs to the network."""
    key = re.sub(PREFIX, "", key)
    return next((reason for pattern, reason in IGNORED if re.search(pattern, key)), None)


def holds_backbone_only(keys: Iterable[str]) -> bool:
    """Whether these state-dict keys are ImageNet weights: a backbone, no head that is used here."""
    return all(rename(key).startswith("backbone.") for key in keys if why_ignored(key) is None)


def fill(
    expected: Mapping[str, np.ndarray | jax.Array], state_dict: Mapping[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
    """For each of our arrays in `expected`, the published one of that name, in its layout and type.

    Raises:
      UserError: naming all keys without a target, all arrays left unfilled, all wrong shapes, and all values that
        are no finite floating-point numbers.
    """
    found, problems = {}, []
    for key, value in state_dict.items():
        if why_ignored(key) is None:
            name = rename(key)
            if name in found:
                problems.append(f"{key} and {found[name][0]} are both {name}")
            found[name] = (key, value)
    problems += [f"{found[name][0]} has no target" for name in found.keys() - expected.keys()]
    problems += [f"nothing fills {name} {expected[name].shape}" for name in expected.keys() - found.keys()]
    arrays = {}
    for name in expected.keys() & found.keys():
        key, value = found[name]
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and named below
            arrays[name] = to_channels_last(value).astype(expected[name].dtype)
        if arrays[name].shape != expected[name].shape:
            problems.append(
                f"{key} has shape {arrays[name].shape} (channels last), {name} needs {expected[name].shape}"
            )
        if not np.issubdtype(value.dtype, np.floating):
            problems.append(f"{key} holds {value.dtype}, not floating-point numbers")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{key} holds numbers that are not finite")
    if problems:
        raise UserError(
            f"{source} does not fit the configured model ({len(problems)} problems); check the model part of "
            f"the config against the checkpoint: {'; '.join(sorted(problems))}."
        )
    return arrays


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict in a `.pth` file (plain, or under "state_dict" of a training checkpoint) as numpy arrays.

    Needs PyTorch, and reads with its `weights_only` loader, which executes nothing from the file.

    Raises:
      UserError: PyTorch is not installed, or the file is damaged or holds something else.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(f"Reading {path} needs PyTorch; install it with `pip install torch`.") from error
    # A training checkpoint holds its best mIoU as a numpy scalar; these constructors are all that needs.
    allowed = [np.dtype, type(np.dtype(np.float64)), np.float64, np._core.multiarray.scalar]
    if not Path(path).is_file():
        raise UserError(f"{path} is no file; give a .pth file.")
    try:
        with torch.serialization.safe_globals([*allowed, (allowed[-1], "numpy.core.multiarray.scalar")]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise UserError(
                f"{path} holds Python objects ({code[1]}), and loading those would run code from the file; save "
                f"the network's state_dict() alone where you trust it, and import that."
            ) from error
        raise UserError(
            f"{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}); check that it is a whole "
            f".pth file, not cut off or something else."
        ) from error
    try:
        state_dict = content.get("state_dict", content)
        arrays = {str(key): _widened(value.detach()).numpy() for key, value in state_dict.items()}
    except (AttributeError, TypeError, RuntimeError) as error:  # no dict, or values that are no plain tensors
        raise UserError(
            f"{path} holds no state dict, that is names with arrays that numpy knows, plain or under 'state_dict'; "
            f"save the network's state_dict() and import that."
        ) from error
    if not arrays:
        raise UserError(f"{path} holds an empty state dict; save the network's state_dict() and import that.")
    narrow = sorted({str(value.dtype) for value in state_dict.values() if _widened(value) is not value})
    if narrow:
        print(f"Note: {path} holds {' and '.join(narrow)} numbers, which are widened to float32.")
    return arrays


def _widened(value):
    """A PyTorch tensor of 16-bit numbers as float32, any other as it is."""
    return value.float() if value.is_floating_point() and value.element_size() == 2 else value


def to_channels_last(value: np.ndarray) -> np.ndarray:
    """PyTorch's kernel [out, in, h, w] -> ours [h, w, in, out]; vectors as they are."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
