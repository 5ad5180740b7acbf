"""The one table of CLIP weights that others published: where each lies, its hash, how it was trained."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from CLIP.model import MEAN, STD
from runtime.errors import InputError


@dataclass(frozen=True)
class WeightsSource:
    """One set of published weights.

    urls: tried in order; more than one where a hub repository may hold either format.
    filename: its name in CLIP/ckpt; a later URL's file has that URL's suffix.
    sha256: all 64 digits, or the leading ones where only those are published, or None.
    quick_gelu: trained with QuickGELU. mean, std: of the RGB channels it was trained on, values in [0, 1].
    """

    model_name: str
    pretrain: str
    filename: str
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    quick_gelu: bool = False
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def files(self, folder: Path) -> list[tuple[Path, str]]:
        """Every (path, URL) under which these weights may be had; the URL is "" where there is none."""
        path = folder / self.filename
        return [(path.with_suffix(Path(url).suffix), url) for url in self.urls] or [(path, "")]


def _openai(model_name: str, filename: str, digest: str) -> WeightsSource:
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/{filename}"
    return WeightsSource(model_name, "openai", filename, (url,), digest, quick_gelu=True)


def _release(model_name: str, tag: str, digits: str) -> WeightsSource:
    """OpenCLIP's GitHub release; the last part of its file names is the start of the sha256."""
    stem = f"{model_name.lower().replace('-', '_')}-{tag}-{digits}"
    url = f"https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/{stem}.pt"
    return WeightsSource(model_name, tag, f"{model_name}-{tag}.pt", (url,), digits)


def _hub(
    model_name: str, tag: str, repository: str, quick_gelu: bool = False, half_range: bool = False
) -> WeightsSource:
    """A repository on Hugging Face's hub, which states the sha256 when the file is fetched."""
    root = f"https://huggingface.co/{repository}/resolve/main"
    urls = (f"{root}/open_clip_model.safetensors", f"{root}/open_clip_pytorch_model.bin")
    scale = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} if half_range else {}
    return WeightsSource(model_name, tag, f"{model_name}-{tag}.safetensors", urls, quick_gelu=quick_gelu, **scale)


# Comes with the repository, was trained on drawings and knows nothing else.
TOY = "ViT-T-16-demo"
TOY_NOTE = f"toy CLIP ({TOY}, trained on drawings): its scores say nothing about real images"

# Model -> the endings of LAION's hub repositories. The tag is the ending in lower case, with _ for - and .
_LAION = {
    "ViT-B-16": (
        "DataComp.XL-s13B-b90K",
        "DataComp.L-s1B-b8K",
        "CommonPool.L.clip-s1B-b8K",
        "CommonPool.L.laion-s1B-b8K",
        "CommonPool.L.image-s1B-b8K",
        "CommonPool.L.text-s1B-b8K",
        "CommonPool.L.basic-s1B-b8K",
        "CommonPool.L-s1B-b8K",
    ),
    "ViT-L-14": (
        "DataComp.XL-s13B-b90K",
        "CommonPool.XL.clip-s13B-b90K",
        "CommonPool.XL.laion-s13B-b90K",
        "CommonPool.XL-s13B-b90K",
    ),
}

_TABLE = (
    _openai("ViT-L-14-336", "ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
    _openai("ViT-L-14", "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    _openai("ViT-B-16", "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    _release("ViT-B-16-plus-240", "laion400m_e31", "8fb26589"),
    _release("ViT-B-16-plus-240", "laion400m_e32", "699c4b84"),
    _release("ViT-B-16", "laion400m_e31", "00efa78f"),
    _release("ViT-B-16", "laion400m_e32", "55e67d44"),
    _release("ViT-L-14", "laion400m_e31", "69988bb6"),
    _release("ViT-L-14", "laion400m_e32", "3d133497"),
    _hub("ViT-B-16", "laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    _hub("ViT-L-14", "laion2b_s32b_b82k", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", half_range=True),
    *(
        _hub(name, re.sub("[-.]", "_", end.lower()), f"laion/CLIP-{name}-{end}")
        for name, endings in _LAION.items()
        for end in endings
    ),
    _hub("ViT-B-16", "metaclip_400m", "timm/vit_base_patch16_clip_224.metaclip_400m", quick_gelu=True),
    _hub("ViT-B-16", "metaclip_fullcc", "timm/vit_base_patch16_clip_224.metaclip_2pt5b", quick_gelu=True),
    _hub("ViT-L-14", "metaclip_400m", "timm/vit_large_patch14_clip_224.metaclip_400m", quick_gelu=True),
    _hub("ViT-L-14", "metaclip_fullcc", "timm/vit_large_patch14_clip_224.metaclip_2pt5b", quick_gelu=True),
    _hub("ViT-B-16", "dfn2b", "apple/DFN2B-CLIP-ViT-B-16", quick_gelu=True),
    _hub("ViT-L-14", "dfn2b", "apple/DFN2B-CLIP-ViT-L-14", quick_gelu=True),
    _hub("ViT-L-14", "dfn2b_s39b", "apple/DFN2B-CLIP-ViT-L-14-39B"),
    # Comes with the repository; trained on images in [0, 1] as they are.
    WeightsSource(TOY, "demo", "ViT-T-16-demo.safetensors", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
)
SOURCES: dict[tuple[str, str], WeightsSource] = {(row.model_name, row.pretrain): row for row in _TABLE}
ALIASES = {  # a short name is the first of these that the model has
    "laion400m": ("laion400m_e32",),
    "laion2b": ("laion2b_s34b_b88k", "laion2b_s32b_b82k"),
    "datacomp": ("datacomp_xl_s13b_b90k",),
    "metaclip": ("metaclip_fullcc",),
    "dfn": ("dfn2b",),
}
# The sha256 of the archives that may be opened.
OFFICIAL = {row.sha256 for row in _TABLE if row.pretrain == "openai"}


def usual(model_name: str) -> str:
    """The tag that is taken where none is named: OpenAI's, or the only one that a model has."""
    tags = [tag for name, tag in SOURCES if name == model_name]
    return tags[0] if len(tags) == 1 else "openai"


def notes(model_name: str) -> list[str]:
    """What is to be said wherever a model's scores are shown: that it is the toy, where it is."""
    return [TOY_NOTE] * (model_name == TOY)


def kind(pretrain: str) -> WeightsSource:
    """Any weights of a tag or short name: what holds of them all (activation, mean, deviation) holds of a file of it.

    Raises InputError if no model has such weights.
    """
    tags = {tag for _, tag in SOURCES}
    for tag in (pretrain, *ALIASES.get(pretrain, ())):
        if tag in tags:
            return next(row for row in _TABLE if row.pretrain == tag)
    near = difflib.get_close_matches(pretrain, [*tags, *ALIASES], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"--pretrain {pretrain} is the name of no published weights{hint}")


def source(model_name: str, pretrain: str) -> WeightsSource:
    """The published weights of a model under a tag or a short name of it.

    Raises InputError, with the model's tags, if there are none of that name.
    """
    for tag in (pretrain, *ALIASES.get(pretrain, ())):
        if (model_name, tag) in SOURCES:
            return SOURCES[model_name, tag]
    tags = [tag for name, tag in SOURCES if name == model_name]
    if not tags:
        raise InputError(f"no weights are published for {model_name}; name a file of yours with --clip_path")
    near = difflib.get_close_matches(pretrain, [*tags, *ALIASES], n=1)
    others = sorted({name for name, tag in SOURCES if tag in (pretrain, *ALIASES.get(pretrain, ()))})
    hint = f"; {', '.join(others)} has them" if others else f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"{model_name} has no weights {pretrain!r}{hint}; --pretrain can be {', '.join(tags)}")
