"""What the configs share: the keys of keys.py with their defaults, and the parts of networks."""

from ml_collections import ConfigDict

from ovenet_jax import described

PARTS = ("model.backbone.", "model.offset.")


def base_config(name: str) -> ConfigDict:
    """All keys with a default, except those of `config.model.backbone` and `config.model.offset`."""
    values = {key: value for key, value in described.defaults().items() if not key.startswith(PARTS)}
    return described.nested({"name": name} | values)


def defaults_of(part: str) -> dict:
    """The defaults of the keys of a part of the network, without its prefix."""
    return {key.removeprefix(part): value for key, value in described.defaults(part).items()}


def hrnet(width: int) -> ConfigDict:
    """HRNetV2-W<width> as published (MODEL.EXTRA.STAGE1..4)."""
    return ConfigDict(
        {
            "name": "hrnet",
            "width": width,
            "modules": (1, 4, 3),
            "blocks": 4,
            "layer1_blocks": 4,
            "layer1_width": 64,
            "stem_width": 64,
            "he_init": False,  # published: N(0, 0.001^2), then overwritten by ImageNet weights
            **defaults_of("model.backbone."),
        }
    )


def tiny_hrnet() -> ConfigDict:
    """A backbone that a laptop trains in minutes."""
    tiny = {
        "modules": (1, 1, 1),
        "blocks": 2,
        "layer1_blocks": 2,
        "layer1_width": 16,
        "stem_width": 32,
        "he_init": True,
    }
    return ConfigDict({**hrnet(12), **tiny})


def classifier(hidden_features: int = 0, kernel_size: int = 1, **options) -> ConfigDict:
    """A PixelClassifier, for auxiliary and plain heads. hidden_features 0: as many as its input has."""
    published = {
        "hidden_features": hidden_features,
        "kernel_size": kernel_size,
        "bias": True,
        "output_bias": True,
        "dropout": 0.0,
        "activation": "relu",
        "in_head": True,  # PyTorch's default initial kernels; False: the backbone's
    }
    return ConfigDict({**published, **options})


def ocr(mid_features: int = 512) -> ConfigDict:
    """The OCR head: MODEL.OCR.MID_CHANNELS, KEY_CHANNELS; the dropout rate is a literal in the published network."""
    return ConfigDict(
        {
            "name": "ocr",
            "mid_features": mid_features,
            "key_features": mid_features // 2,
            "bias": False,
            "dropout": 0.05,
            "activation": "relu",
            "aux": classifier(),
        }
    )


def fcn() -> ConfigDict:
    """The plain head of HRNet."""
    return ConfigDict({"name": "fcn", "classifier": classifier(in_head=False)})


def add_offsets(config: ConfigDict, branch: int = 4, modules: tuple[int, ...] = (2,)) -> None:
    """OVeNet on top of a baseline (MODEL.EXTRA.OFFSET_BRANCH, STAGE4_2 ...)."""
    config.model.offset = {"branch": branch, "modules": modules, **defaults_of("model.offset.")}


Networks = dict[str, tuple[ConfigDict, ConfigDict, bool]]  # variant -> backbone, head, whether with offsets


def published_networks(*variants: str) -> Networks:
    """Selects published networks with HRNet-W48 by variant."""
    w48 = hrnet(48)
    networks = {
        "ovenet": (w48, ocr(), True),
        "ovenet_frozen": (w48, ocr(), True),
        "hrnet_ocr": (w48, ocr(), False),
        "hrnet": (w48, fcn(), False),
        "thesis": (w48, fcn(), True),
    }
    return {variant: networks[variant] for variant in variants}


def small_networks() -> Networks:
    """OVeNet and its baselines with HRNet-W18; the `_tiny` variants are small enough for a CPU."""
    w18, tiny = hrnet(18), tiny_hrnet()
    return {
        "ovenet": (w18, ocr(), True),
        "hrnet_ocr": (w18, ocr(), False),
        "hrnet": (w18, fcn(), False),
        "ovenet_tiny": (tiny, ocr(64), True),
        "hrnet_ocr_tiny": (tiny, ocr(64), False),
        "hrnet_tiny": (tiny, fcn(), False),
    }


def choose_model(config: ConfigDict, variant: str, variants: Networks) -> None:
    """Sets the model to variants[variant]: backbone, head, and offsets if the third entry is True."""
    config.model.backbone, config.model.head, offsets = variants[variant]
    if offsets:
        add_offsets(config)


def set_thesis(config: ConfigDict) -> None:
    """Settings of the thesis network that differ from OVeNet's on every data set, except the head."""
    config.model.align_corners = False
    config.model.norm_momentum = 0.01  # BN_MOMENTUM, a literal in the published network
    config.model.offset.threshold = 0.5  # EXTRA.OFFSET_THRESHOLD
    config.model.offset.default_init = False  # published: modules named cls, aux or ocr have it; this is `offset_layer`
    config.loss.ohem.on = True  # LOSS.USE_OHEM
    config.loss.ohem.softmax_again = False  # ranks probabilities (model.offset.logits False) as they are
