"""CLIP: `load_clip` builds a model by name and reads its weights; `tokenize` makes ids of texts."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from CLIP import weights as _weights
from CLIP.half import HALVES, hold_in_half, pack
from CLIP.int8 import quantise_weight, scale_name, to_int8
from CLIP.model import ACTIVATIONS, CLIP, MEAN, PRODUCTS, STD, TOWERS, TextConfig, VisionConfig
from CLIP.tokenizer import tokenize
from CLIP.weights import CONFIGS
from runtime.errors import InputError
from runtime.memory import trim_memory
from runtime.tensors import check_weights

__all__ = [
    "CLIP",
    "CONFIGS",
    "HALVES",
    "MEAN",
    "STD",
    "TOWERS",
    "build",
    "config",
    "load_clip",
    "model_names",
    "pack",
    "tokenize",
]

CONFIG_BYTES = 1 << 20  # of a config JSON, at most
MOST_LAYERS, MOST_WIDTH, MOST_WORDS = 256, 1 << 16, 1 << 20  # in a model config; no published one comes near


def model_names() -> list[str]:
    """The names that `load_clip` knows."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def config(model_name: str | Path) -> tuple[int, VisionConfig, TextConfig]:
    """(embed_dim, vision, text) of a model by name, or by the path of a config JSON.

    Raises InputError for an unknown name or a file that is not such a config.
    """
    path = CONFIGS / f"{model_name}.json"
    if not path.is_file():
        path = Path(model_name)
    if path.suffix != ".json" or not path.is_file():
        known = ", ".join(model_names())
        raise InputError(f"unknown model {model_name}; known: {known}, or the path of a config JSON")
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise ValueError(f"it has more than {CONFIG_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        vision, text = VisionConfig(**content["vision_cfg"]), TextConfig(**content["text_cfg"])
        _check_sizes(content["embed_dim"], vision, text)
        return content["embed_dim"], vision, text
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        why = f"{type(fault).__name__}: {fault}" if isinstance(fault, KeyError) else str(fault)
        raise InputError(f"{path} is not a model config like those in {CONFIGS}: {why}") from fault


def _check_sizes(embed_dim: int, vision: VisionConfig, text: TextConfig) -> None:
    """Raise ValueError for sizes that no model has."""
    for name, size in [("embed_dim", embed_dim), *vars(vision).items(), *vars(text).items()]:
        most = MOST_LAYERS if name == "layers" else MOST_WORDS if name == "vocab_size" else MOST_WIDTH
        if type(size) is not int or not 0 < size <= most:
            raise ValueError(f"all sizes must be whole numbers above 0, and {name} at most {most}")
    if vision.width % vision.head_width or text.width % text.heads:
        raise ValueError("widths must be multiples of head_width and of heads")
    if vision.patch_size > vision.image_size:
        raise ValueError("patch_size must be at most image_size")


def build(model_name: str | Path, activation: str = "gelu") -> CLIP:
    """An untrained model; `model_name` as in `config`. Raises InputError for an unknown name or activation."""
    embed_dim, vision, text = config(model_name)
    if activation not in ACTIVATIONS:
        raise InputError(f"unknown activation {activation}; known: {', '.join(ACTIVATIONS)}")
    return CLIP(embed_dim=embed_dim, vision=vision, text=text, activation=activation)


@dataclass
class _Converter:
    """A tensor of a weights' file, by its name, as the model holds it; those of `unread` parts without their numbers.

    fault: the first that was found. It is told later, since that it is another model's file would say more.
    """

    unread: set[str]
    precision: str
    fault: InputError | None = None

    def __call__(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        used = name.split(".")[0] not in self.unread
        try:
            check_weights({name: tensor} if used else {})
        except InputError as fault:
            self.fault = self.fault or fault
        if self.fault or not used:
            tensor = torch.empty(tensor.shape, device="meta")  # its shape will be checked
        if not used:
            return {name: tensor}
        product, image = name.endswith(PRODUCTS), name.startswith("visual.")
        small = product and image and self.precision == "int8" and name.endswith("weight")
        if small and tensor.ndim == 2 and tensor.numel():
            return dict(zip((name, scale_name(name)), quantise_weight(tensor), strict=True))
        return {name: tensor.to(HALVES.get(self.precision, torch.float32) if product else torch.float32, copy=True)}


def load_clip(
    model_name: str | Path,
    weights: str | Path | None = None,
    image_size: int = 240,
    activation: str | None = None,
    *,
    trust: bool = False,
    towers: Collection[str] = tuple(TOWERS),
    precision: str = "fp32",
) -> CLIP:
    """A frozen model in eval mode, on the CPU, float32 but for what `precision` says.

    model_name: a name of `model_names()` or the path of a config JSON.
    weights: a file of any format that `CLIP.weights.read` knows; None leaves the random start (seed first).
    image_size: side in pixels of the images to come; positions are resized from the checkpoint's grid.
    activation: "gelu" or "quickgelu"; None takes the one the weights were trained with.
    trust: open an OpenAI archive although its sha256 is not an official one.
    towers: "image", "text" or both; one that is left out takes no memory and can't be called.
    precision: of the linear layers in the towers' blocks: "fp32", "bf16" or "fp16" (`CLIP.half`), or "int8", with 8-bit
        weights and activations in the image tower (`CLIP.int8`).
    Raises InputError for an unknown model, and for weights that are missing, damaged or another model's.
    """
    unread = {part for tower, parts in TOWERS.items() if tower not in towers for part in parts}
    convert = _Converter(unread, precision)
    state, kind = (None, None) if weights is None else _weights.read(weights, trust=trust, convert=convert)
    with torch.device("cpu" if state is None else "meta"):  # read weights take the place of what is built
        model = build(model_name, activation or ("quickgelu" if kind == "openai" else "gelu"))
    if image_size < model.vision_config.patch_size:
        patch = model.vision_config.patch_size
        raise InputError(f"image size {image_size} is smaller than one patch of {model_name} ({patch} px)")
    model.image_size = image_size
    if state is None:
        _start(model)
    if precision == "int8" and "image" in towers:
        to_int8(model.visual.transformer)
    elif precision in HALVES and state is None:
        for blocks in (model.visual.transformer, model.transformer):
            hold_in_half(blocks, HALVES[precision])
    if state is not None:
        _weights.check_shapes(state, {name: tensor.shape for name, tensor in model.state_dict().items()}, weights)
        if convert.fault:
            raise InputError(f"{weights}: {convert.fault}")
        model.load_state_dict(state, assign=True)
    for part in unread:
        setattr(model, part, None)
    trim_memory()  # what passed by while weights were read
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _start(model: CLIP) -> None:
    """CLIP's random start: deviations that keep activations near one through the depth."""
    for tower in (model.visual.transformer, model.transformer):
        width = tower.resblocks[0].attn.out_proj.in_features
        narrow = width**-0.5
        for block in tower.resblocks:
            torch.nn.init.normal_(block.attn.in_proj_weight, std=narrow)
            torch.nn.init.normal_(block.attn.out_proj.weight, std=narrow * (2 * len(tower.resblocks)) ** -0.5)
            torch.nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            torch.nn.init.normal_(block.mlp.c_proj.weight, std=narrow * (2 * len(tower.resblocks)) ** -0.5)
            for bias in (block.attn.out_proj.bias, block.mlp.c_fc.bias, block.mlp.c_proj.bias):
                bias.zero_()
    visual = model.visual
    for tensor in (visual.class_embedding, visual.positional_embedding, visual.proj):
        torch.nn.init.normal_(tensor, std=model.vision_config.width**-0.5)
    torch.nn.init.normal_(model.token_embedding.weight, std=0.02)
    torch.nn.init.normal_(model.positional_embedding, std=0.01)
    torch.nn.init.normal_(model.text_projection, std=model.text_config.width**-0.5)
    model.logit_scale.fill_(math.log(1 / 0.07))
