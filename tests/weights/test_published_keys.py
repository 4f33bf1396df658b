"""From our arrays to a published state dict and back, bit for bit."""

import pytest

from configs import camvid, openseg
from ovenet_jax.errors import UserError
from ovenet_jax.weights.published_keys import code_base_of, state_dict
from ovenet_jax.weights.published_names import recognise
from ovenet_jax.weights.torch_weights import fill, fold_in_place_abn, in_place_abn
from tests.published_keys import assert_same, trained

FIRST_RELEASE = {head for head in openseg.HEADS if head.startswith("ocnet_") or head == "pyramid_oc"}
SERIES = [f"{head}_r_tiny" for head in openseg.HEADS]
SERIES += [f"{head}_tiny" for head in openseg.HEADS if head not in FIRST_RELEASE]
OWN = ["ovenet_tiny", "hrnet_ocr_tiny", "hrnet_tiny", "segfix_tiny"]


@pytest.mark.parametrize("variant", [*OWN, *SERIES, *(f"ovenet_{variant}" for variant in SERIES)])
def test_a_network_comes_back_bit_for_bit(variant):
    model = camvid.get_config(variant).model
    arrays = trained(model)
    published = state_dict(model, arrays, steps=5)
    back = fill(arrays, fold_in_place_abn(published), "weights.pth")
    assert_same(back, arrays)
    counters = {int(value) for key, value in published.items() if key.endswith("num_batches_tracked")}
    assert counters <= {5} and recognise(published) is code_base_of(model)


@pytest.mark.parametrize("head", ["base_oc", "ocnet_base_oc", "ocnet_asp_oc", "pyramid_oc"])
def test_a_network_with_relu_leaves_with_plain_batchnorm(head):
    """As it came: an import tells by the form of BatchNorm which activation follows."""
    model = camvid.get_config(f"{head}_r_tiny").model
    model.head.activation = "relu"
    published = state_dict(model, trained(model), steps=5)
    assert in_place_abn(published) == set() and recognise(published) is code_base_of(model)


def test_a_scale_that_in_place_abn_cannot_have_is_named():
    model = camvid.get_config("base_oc_r_tiny").model
    arrays = trained(model)
    arrays["head.pixels.norm.scale"][3] = -0.25
    with pytest.raises(UserError, match="head.pixels.norm.scale holds -0.25, .* in-place ABN .* begin at 1e-05"):
        state_dict(model, arrays, steps=0)


@pytest.mark.parametrize("variant", ["ocnet_base_oc_tiny", "ocnet_pyramid_oc_tiny"])
def test_what_has_no_published_names_is_said(variant):
    model = camvid.get_config(variant).model
    with pytest.raises(UserError, match="No published network has .* on the backbone 'hrnet'"):
        state_dict(model, trained(model), steps=0)
