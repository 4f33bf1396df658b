"""From our arrays to a published state dict and back, bit for bit."""

import numpy as np
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
    all_in_place = variant in {*SERIES, "segfix_tiny"}  # openseg's and OCNet's networks; offset heads have BatchNorm
    assert counters == (set() if all_in_place else {5}) and recognise(published) is code_base_of(model)


@pytest.mark.parametrize("head", ["base_oc", "ocnet_base_oc", "ocnet_asp_oc", "pyramid_oc"])
def test_a_network_with_relu_leaves_with_plain_batchnorm(head):
    """As it came: an import tells by the form of BatchNorm which activation follows."""
    model = camvid.get_config(f"{head}_r_tiny").model
    model.head.activation = "relu"
    published = state_dict(model, trained(model), steps=5)
    assert in_place_abn(published) == set() and recognise(published) is code_base_of(model)


def test_small_scales_of_in_place_abn_come_back_up_to_their_last_bit():
    """Of float32 near 1e-4, half are no |weight| + 1e-5."""
    model, scale = camvid.get_config("base_oc_r_tiny").model, "head.pixels.norm.scale"
    arrays = trained(model)
    exact, near = np.float32([1e-5, 2e-5, 0.5]), np.float32([7.103517e-5, 1e-4, 1.1e-4])
    arrays[scale][:6] = [*exact, *near]
    back = fill(arrays, fold_in_place_abn(state_dict(model, arrays, steps=0)), "weights.pth")[scale]
    np.testing.assert_array_equal(back[:3], exact)
    np.testing.assert_array_max_ulp(back[3:6], near, maxulp=1)


@pytest.mark.parametrize(("value", "said"), [(-0.25, "-0.25"), (9.999999e-6, "9.99999[0-9]*e-06"), (np.nan, "nan")])
def test_a_scale_that_in_place_abn_cannot_have_is_named(value, said):
    model = camvid.get_config("base_oc_r_tiny").model
    arrays = trained(model)
    arrays["head.pixels.norm.scale"][3] = value
    with pytest.raises(UserError, match=f"head.pixels.norm.scale holds {said}, .* in-place ABN .* begin at 1e-05"):
        state_dict(model, arrays, steps=0)


@pytest.mark.parametrize("variant", ["hrnet_ocr_tiny", "ovenet_tiny"])
def test_ocr_in_hrnets_form_has_hrnets_names_also_where_it_takes_bgr(variant):
    model = camvid.get_config(variant).model
    arrays = trained(model)
    published = state_dict(model, arrays, steps=0)
    model.input.bgr = True
    assert_same(state_dict(model, arrays, steps=0), published)


@pytest.mark.parametrize("variant", ["ocnet_base_oc_tiny", "ocnet_pyramid_oc_tiny"])
def test_what_has_no_published_names_is_said(variant):
    model = camvid.get_config(variant).model
    with pytest.raises(UserError, match="No published network has .* on the backbone 'hrnet'"):
        state_dict(model, trained(model), steps=0)
