"""CLIP's published weights: which file, whether it is the right one, and what is in it.

`find` says which file (and fetches it), `read` opens it without running anything it may contain,
`check_shapes` says whether it is the model's. A large file is hashed once, not at each start.
"""

import contextlib
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import safetensors
import safetensors.torch
from torch import Tensor

from CLIP.sources import OFFICIAL, source
from CLIP.torchscript import Archive
from runtime.download import NotPublished, by_hand, fetch
from runtime.errors import InputError
from runtime.files import atomic_write, sha256
from runtime.tensors import load

T = TypeVar("T")
FOLDER = Path(__file__).with_name("ckpt")
CONFIGS = Path(__file__).with_name("model_configs")


def find(
    model_name: str,
    pretrain: str,
    clip_path: str | Path | None = None,
    offline: bool = False,
    folder: str | Path = FOLDER,
) -> Path:
    """The file of a model's weights: `clip_path` if given, else the one in `folder`, else fetched into it.

    offline: never try the network. A file in `folder` is compared with its published sha256.
    Raises InputError if there is no such file and it can't be had, or if it is not the published one.
    """
    if clip_path is not None:
        path = Path(clip_path)
        if not path.is_file():
            raise InputError(f"no weights file {path}; correct --clip_path, or leave it out to use --pretrain")
        return path
    published = source(model_name, pretrain)
    files = published.files(Path(folder))
    for path, _ in files:
        if path.is_file():
            verify(path, published.sha256)
            return path
    path, url = files[0]
    if not url:
        raise InputError(f"{path} is missing; it comes with the repository: git checkout -- {path}")
    if offline:
        raise InputError(f"{path} is missing and --offline forbids fetching; {by_hand(url, path)}")
    for path, url in files[:-1]:
        with contextlib.suppress(NotPublished):
            return fetch(url, path, published.sha256)
    path, url = files[-1]
    return fetch(url, path, published.sha256)


def verify(path: Path, digest: str | None) -> None:
    """Raise InputError unless the file's sha256 begins with `digest`; None checks nothing."""
    if digest and not weights_hash(path).startswith(digest):
        raise InputError(
            f"{path} is not the published file of that name (its sha256 does not begin with {digest[:16]}): "
            "remove it to have it fetched, or, if it is your own, name it with --clip_path"
        )


_NOTED_FROM = 64 << 20  # bytes; a smaller file is hashed faster than a note is worth


def weights_hash(path: str | Path) -> str:
    """The sha256 of a weights file, hexadecimal; a large file's is noted beside it for later starts.

    The note holds for the size and both time stamps (ns) that the file had: no other file comes to them by accident.
    """
    path = Path(path)
    stat = path.stat()
    stamp = {"size": stat.st_size, "modified": stat.st_mtime_ns, "changed": stat.st_ctime_ns}
    if stat.st_size < _NOTED_FROM:
        return sha256(path)
    note = path.with_name(f".{path.name}.sha256")
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):  # a damaged note is no note
        known = json.loads(note.read_text(encoding="utf-8"))
        if {**known, **stamp} == known and re.fullmatch("[0-9a-f]{64}", known["sha256"]):
            return known["sha256"]
    digest = sha256(path)
    with contextlib.suppress(OSError), atomic_write(note) as draft:  # a read-only folder costs time, no more
        draft.write_text(json.dumps({**stamp, "sha256": digest}), encoding="utf-8")
    return digest


# Numbers that OpenAI's archives carry among the weights, and no other publisher's files do.
_EXTRAS = {"input_resolution", "context_length", "vocab_size"}
# What the readers raise on damaged bytes: they document nothing, so this was found by damaging files.
DAMAGE = (
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
    AssertionError,
    struct.error,
)


Convert = Callable[[str, Tensor], dict[str, Tensor]]
PIECE = 32  # tensors taken from one mapping of a file: a fresh one gives back the memory of those before


def read(path: str | Path, trust: bool = False, convert: Convert | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict in a weights file and its kind, openai or openclip.

    Reads OpenAI's TorchScript archives, plain state dicts (.pt, .pth, .bin; also inside {"state_dict": ...}
    and with "module." before every name) and .safetensors; the bytes decide what a file is, not its name.
    Kind "openai", which means QuickGELU, is a TorchScript archive, or a file with one of the three extra
    entries that OpenAI's archives carry. Where these were lost the file can't tell, and only --pretrain can.
    trust: open a TorchScript archive although its sha256 is not an official one.
    convert: what to make of each named tensor as it comes from the file, so that the whole file is never in memory
    beside it. Without it tensors come as stored (often float16), mapped from the file.
    Raises InputError for a file that is missing, damaged, not weights, or would have to be trusted.
    """
    path = Path(path)
    form = _form(path)
    if form == "torchscript" and not trust and weights_hash(path) not in OFFICIAL:
        raise InputError(
            f"{path} is a TorchScript archive and by its sha256 none of OpenAI's; "
            "if you trust where it comes from, add --trust_weights"
        )
    reader = {"torchscript": Archive, "safetensors": safetensors.torch.load_file, "pickle": load}[form]
    state = _open(path, lambda file: _unwrap(reader(file), file))
    kind = "openai" if form == "torchscript" or not _EXTRAS.isdisjoint(state) else "openclip"
    names, converted = [name for name in state if name not in _EXTRAS], {}
    for first in range(0, len(names), PIECE):
        if first and convert is not None and form != "torchscript":
            state = _open(path, lambda file: _unwrap(reader(file), file))
        for name in names[first : first + PIECE]:
            tensor = _open(path, lambda _, name=name, state=state: state[name])
            made = {name: tensor} if convert is None else convert(name, tensor)
            if not converted.keys().isdisjoint(made):
                raise InputError(f"{path} is not CLIP's weights: it has a name of its own for what {name} becomes")
            converted |= made
    return converted, kind


def _form(path: Path) -> str:
    """torchscript | pickle | safetensors, from the file's first bytes."""
    if not path.is_file():
        raise InputError(f"no weights file {path}")
    with path.open("rb") as file:
        head = file.read(64)
    again = "remove it and fetch it again"
    if not head:
        raise InputError(f"{path} is empty; {again}")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is only git-lfs's pointer to the weights; run git lfs pull in its repository")
    if head.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page, not weights; {again}, with the file's direct link")
    if head.startswith(b"PK\x03\x04"):
        names = _open(path, _members)
        return "torchscript" if any(name.endswith("/constants.pkl") for name in names) else "pickle"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    raise InputError(f"{path} is not a weights file (.pt, .pth, .bin or .safetensors)")


def _open(path: Path, reader: Callable[[Path], T]) -> T:
    """What `reader` makes of the file; its faults become one line."""
    try:
        return reader(path)
    except pickle.UnpicklingError as fault:
        raise InputError(
            f"{path} is damaged, or it holds more than tensors, and opening that could run anyone's code; "
            "fetch it again, or save only the model's state_dict()"
        ) from fault
    except DAMAGE as fault:
        why = (str(fault).splitlines() or [type(fault).__name__])[0][:120]
        raise InputError(f"{path} is cut short or damaged ({why}); remove it and fetch it again") from fault


def _members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _unwrap(loaded: object, path: Path) -> Mapping[str, Tensor]:
    """Names as published, from what a training script may have wrapped them in."""
    if isinstance(loaded, Archive):
        return loaded
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if isinstance(loaded, Mapping) and "seg_adapters" in loaded:
        raise InputError(f"{path} holds trained adapters, not CLIP's weights; it is for --ckpt")
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path} holds no state dict of tensors; save the model's state_dict()")
    state = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor) or name in _EXTRAS}
    for prefix in ("_orig_mod.", "module."):  # torch.compile, DistributedDataParallel
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def check_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], path: str | Path) -> None:
    """Raise InputError unless names and shapes are as expected, saying whose weights these seem to be."""
    faults = {
        "it lacks": [name for name in expected if name not in state],
        "it has besides": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in state and tuple(state[name].shape) != tuple(shape)
        ],
    }
    if any(faults.values()):
        said = "; ".join(f"{what} {_few(names)}" for what, names in faults.items() if names)
        raise InputError(f"{path} does not fit the model, it seems to be {_describe(state)} ({said})")


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _describe(state: Mapping[str, Tensor]) -> str:
    """Which model a state dict looks like, in words for the user."""
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        return "CLIP under Hugging Face Transformers' names: take OpenAI's .pt or OpenCLIP's .safetensors"
    if any(name.startswith(("visual.layer1.", "visual.trunk.")) for name in state):
        return "a CLIP whose image tower is no plain ViT: take a ViT's"
    try:
        size = _dimensions(state)
    except (KeyError, ValueError, IndexError, TypeError):
        return "no CLIP at all"
    for config in sorted(CONFIGS.glob("*.json")):
        known = json.loads(config.read_text(encoding="utf-8"))
        vision, text = known["vision_cfg"], known["text_cfg"]
        if size == (
            known["embed_dim"],
            *(vision[name] for name in ("width", "layers", "patch_size", "image_size")),
            *(text[name] for name in ("width", "layers")),
        ):
            return f"{config.stem}: try --model_name {config.stem}"
    words = "embed_dim {}, width {}, {} layers, patch {}, image size {}, text width {}, {} text layers"
    return f"a ViT with {words.format(*size)}"


def _dimensions(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """(embed_dim, width, layers, patch size, image size, text width, text layers)."""
    width, _, patch, _ = state["visual.conv1.weight"].shape
    grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    embed_dim = state["visual.proj"].shape[1]
    towers = (_depth(state, "visual.transformer.resblocks."), _depth(state, "transformer.resblocks."))
    return embed_dim, width, towers[0], patch, grid * patch, len(state["ln_final.weight"]), towers[1]


def _depth(names: Iterable[str], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})
