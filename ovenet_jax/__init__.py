"""OVeNet, HRNet and OCR semantic segmentation in JAX and Flax.

    load(workdir)                a Predictor from the best checkpoint of a run or an import; call .predict(image)
    load_model(workdir)          the network of the best checkpoint as a Flax module
    load_normalisation(workdir)  the input normalisation of that network
    create_model(config.model)   a network with its initial values

All are imported on first use, because worker processes of the input pipeline import this package but not jax.
"""

from importlib import import_module

__version__ = "0.1.0"

_LAZY_IMPORTS = {
    "load": "ovenet_jax.evaluation.predictor",
    "create_model": "ovenet_jax.models.zoo",
    "load_model": "ovenet_jax.weights.network",
    "load_normalisation": "ovenet_jax.weights.network",
}
__all__ = list(_LAZY_IMPORTS)


def __getattr__(name: str):
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'ovenet_jax' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_LAZY_IMPORTS[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
