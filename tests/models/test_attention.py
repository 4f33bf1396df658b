import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from ovenet_jax.devices import parallel
from ovenet_jax.models import attention
from ovenet_jax.models.attention import QUERIES, SelfAttention, attend
from ovenet_jax.models.layers import InitialValues, relu
from tests.collectives import collectives

IN_TURNS = [(23, 23), (25, 43), (32, 32)]  # two turns and one query of padding; three and two; two and none


def maps(height, width, dtype=np.float64, batch=2):
    """Queries and keys of 4 channels, values of 6, and a gradient of the context."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(batch, height, width, channels)).astype(dtype) for channels in (4, 4, 6, 6)]


def formula(query, key, value, gradient):
    """Context and the gradients of queries, keys and values, map by map and written out, in NumPy."""
    results = []
    for q, k, v, g in zip(query, key, value, gradient, strict=True):
        q, k, v, g = (x.reshape(-1, x.shape[-1]) for x in (q, k, v, g))
        scale = k.shape[-1] ** -0.5
        weights = np.exp(q @ k.T * scale)
        weights /= weights.sum(1, keepdims=True)
        above = g @ v.T
        scores = weights * (above - (weights * above).sum(1, keepdims=True)) * scale
        results.append((weights @ v, scores @ k, scores.T @ q, weights.T @ g))
    maps = (value, query, key, value)
    return [np.stack(arrays).reshape(x.shape) for arrays, x in zip(zip(*results, strict=True), maps, strict=True)]


@jax.jit
def ours(query, key, value, gradient):
    context, backward = jax.vjp(attend, query, key, value)
    return context, *backward(gradient)


@pytest.mark.parametrize("size", [(3, 5), *IN_TURNS])
def test_context_and_gradients_are_those_of_the_formula(size):
    arrays = maps(*size)
    for result, expected in zip(ours(*map(jnp.float32, arrays)), formula(*arrays), strict=True):
        assert_allclose(result, expected, rtol=1e-5, atol=2e-6)


def test_float64_stays_float64_in_turns():
    arrays = maps(*IN_TURNS[0])
    with jax.enable_x64(True):
        results = ours(*map(jnp.asarray, arrays))
    for result, expected in zip(results, formula(*arrays), strict=True):
        assert_allclose(result, expected, rtol=1e-12, atol=1e-14)


def test_gradients_in_bfloat16_are_not_rounded_once_per_turn(monkeypatch):
    monkeypatch.setattr(attention, "QUERIES", 16)
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in maps(32, 32, batch=1)]  # 64 turns
    context, backward = jax.vjp(attend, *arrays[:3])
    results = (context, *backward(arrays[3]))
    for result, expected in zip(results, formula(*(np.asarray(x, np.float64) for x in arrays)), strict=True):
        assert result.dtype == jnp.bfloat16
        error = np.asarray(result, np.float64) - expected
        assert np.linalg.norm(error) < 0.006 * np.linalg.norm(expected)  # one rounding is up to 0.004


def test_weights_are_the_softmax_of_scaled_scores():
    # Scores 2 ln 3 / sqrt(4) = ln 3 and 0, hence weights 3/4 and 1/4.
    query = np.zeros((1, 1, 2, 4), np.float32)
    query[..., 0] = 2 * np.log(3)
    key = np.zeros((1, 1, 2, 4), np.float32)
    key[0, 0, 0, 0] = 1
    value = np.float32([[[[4], [8]]]])
    assert_allclose(attend(query, key, value), np.full((1, 1, 2, 1), 5), rtol=1e-6)


@pytest.mark.parametrize("size", [(3, 5), IN_TURNS[0]])
def test_attention_to_equal_keys_is_the_mean_of_the_values(size):
    query, key, value, _ = maps(*size, np.float32)
    context = attend(query, np.ones_like(key), value)
    assert_allclose(context, np.broadcast_to(value.mean((1, 2), keepdims=True), value.shape), atol=1e-5)


def planned_memory(height, width):
    """Bytes of temporaries for forward and backward pass."""
    arrays = [jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32) for channels in (4, 4, 6, 6)]
    return ours.lower(*arrays).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_number_of_pixels_not_with_its_square():
    pixels = 64 * 128
    memory, doubled = planned_memory(64, 128), planned_memory(128, 128)
    assert memory < 8 * QUERIES * pixels * 4 < pixels**2 * 4  # a few times the scores of a chunk; all scores
    assert doubled < 2.1 * memory


def test_a_batch_over_devices_attends_without_communication():
    mesh = parallel.create_mesh()
    split = parallel.batch_sharded(mesh)
    arrays = maps(*IN_TURNS[0], np.float32, batch=8)
    program = jax.jit(ours, in_shardings=split, out_shardings=split).lower(*arrays).compile()
    assert "while" in program.as_text()
    assert not list(collectives(program.as_text()))
    for result, expected in zip(program(*jax.device_put(arrays, split)), ours(*arrays), strict=True):
        assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def self_attention(**options):
    widths = {"key_features": 3, "value_features": 5, "activation": relu}
    return SelfAttention(4, **{**widths, **options}, init=InitialValues(0, he=False))


def test_the_context_is_nothing_at_first():
    x = jnp.asarray(maps(4, 6, np.float32)[0])
    np.testing.assert_array_equal(self_attention()(x), np.zeros(x.shape))
    assert np.abs(self_attention(project_with_norm=True)(x)).max() > 0


def test_queries_are_keys_in_the_first_release():
    x = jnp.asarray(maps(4, 6, np.float32)[0])

    def queries_and_keys(block):
        seen = []
        block(x, lambda query, key, value: seen.extend((query, key)) or value)
        return seen

    query, key = queries_and_keys(self_attention(first_release=True))
    np.testing.assert_array_equal(query, key)
    query, key = queries_and_keys(self_attention())
    assert np.abs(query - key).max() > 0.01
