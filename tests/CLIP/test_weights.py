"""Reading weights of every published form, and refusing what is none of them.

The peers are the `clip` package's and `open_clip`'s own model classes, small and random.
"""

import copy
import importlib.util
import json
import os
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import CLIP
from CLIP import weights
from CLIP.sources import ALIASES, SOURCES, WeightsSource, source
from runtime import download
from runtime.errors import InputError
from runtime.files import sha256

CONTEXT, VOCABULARY = 20, 300
SMALL = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 64, "heads": 1, "layers": 2},
}
EXTRAS = {"input_resolution": 64, "context_length": CONTEXT, "vocab_size": VOCABULARY}


def peer_module() -> ModuleType:
    """`clip/model.py` alone: the package itself imports pkg_resources, which setuptools has dropped."""
    package = importlib.util.find_spec("clip")
    assert package is not None, "pip install -r requirements/dev.txt"
    path = Path(package.origin).with_name("model.py")
    spec = importlib.util.spec_from_file_location("peer_clip_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def openai_peer(config: dict) -> nn.Module:
    """The `clip` package's model with random weights that float16 can hold."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    peer = peer_module().CLIP(
        embed_dim=config["embed_dim"],
        image_resolution=vision["image_size"],
        vision_layers=vision["layers"],
        vision_width=vision["width"],
        vision_patch_size=vision["patch_size"],
        context_length=text["context_length"],
        vocab_size=text["vocab_size"],
        transformer_width=text["width"],
        transformer_heads=text["heads"],
        transformer_layers=text["layers"],
    )
    return scramble(peer)


@torch.no_grad()
def scramble(peer: nn.Module) -> nn.Module:
    """Biases and norms start at 0 and 1, where a mistake would not show; in place, rounded to float16."""
    generator = torch.Generator().manual_seed(0)
    for parameter in peer.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
        parameter.copy_(parameter.half())
    return peer.eval()


def archive(peer: nn.Module, config: dict, path: Path) -> Path:
    """`peer` as OpenAI would publish it: TorchScript, mostly float16, three numbers among the weights."""
    peer = copy.deepcopy(peer)
    peer_module().convert_weights(peer)
    for name in EXTRAS:
        vars(peer).pop(name, None)
        peer.register_buffer(name, torch.tensor(EXTRAS[name]))
    size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    example = torch.zeros(1, 3, size, size), torch.zeros(1, length, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather have its new formats
        torch.jit.trace(peer, example, check_trace=False).save(str(path))
    return path


def inputs(config: dict, count: int = 2) -> tuple[Tensor, Tensor]:
    """Images (count, 3, H, W) and token ids (count, T), each text's last id the highest."""
    generator = torch.Generator().manual_seed(1)
    size, text = config["vision_cfg"]["image_size"], config["text_cfg"]
    ids = torch.randint(1, text["vocab_size"] - 1, (count, text["context_length"]), generator=generator)
    ids[:, 6:] = 0
    ids[:, 5] = text["vocab_size"] - 1
    return torch.rand(count, 3, size, size, generator=generator), ids


@torch.no_grad()
def assert_same_features(ours: nn.Module, peer: nn.Module, config: dict) -> None:
    images, ids = inputs(config)
    torch.testing.assert_close(ours.encode_image(images), peer.encode_image(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.encode_text(ids), peer.encode_text(ids), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    path = folder / "small.json"
    path.write_text(json.dumps(SMALL))
    return path


@pytest.fixture(scope="module")
def openai(folder: Path) -> nn.Module:
    return openai_peer(SMALL)


@pytest.fixture(scope="module")
def openai_archive(openai: nn.Module, folder: Path) -> Path:
    return archive(openai, SMALL, folder / "archive.pt")


@pytest.fixture(scope="module")
def openclip() -> nn.Module:
    model = pytest.importorskip("open_clip.model")
    torch.manual_seed(2)
    return scramble(model.CLIP(SMALL["embed_dim"], dict(SMALL["vision_cfg"]), dict(SMALL["text_cfg"])))


@pytest.fixture
def state(openai: nn.Module) -> dict[str, Tensor]:
    """A plain state dict under OpenAI's names, without the extra numbers."""
    return {name: tensor.clone() for name, tensor in openai.state_dict().items()}


def load(config: Path, path: Path, **options: object) -> nn.Module:
    return CLIP.load_clip(config, weights=path, image_size=SMALL["vision_cfg"]["image_size"], **options)


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        weights.read(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Formats


def test_openai_archive(openai, openai_archive, config):
    state, kind = weights.read(openai_archive, trust=True)
    assert kind == "openai"
    assert state.keys() == openai.state_dict().keys()
    assert state["visual.conv1.weight"].dtype == torch.float16
    assert_same_features(load(config, openai_archive, trust=True), openai, SMALL)


def test_an_archive_opens_only_if_it_is_official_or_trusted(openai_archive, config, monkeypatch):
    assert "--trust_weights" in refusal(openai_archive)
    with pytest.raises(InputError, match="--trust_weights"):
        load(config, openai_archive)
    monkeypatch.setattr(weights, "OFFICIAL", {sha256(openai_archive)})
    assert weights.read(openai_archive)[1] == "openai"


def test_an_archive_is_openais_even_without_the_extra_numbers(openai_archive, monkeypatch):
    monkeypatch.setattr(weights.Archive, "__iter__", lambda self: iter(["logit_scale"]))
    assert weights.read(openai_archive, trust=True)[1] == "openai"


def test_an_untrusted_archive_is_not_even_opened(openai_archive, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("opened"))
    refusal(openai_archive)


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dict_of_openai(openai, config, tmp_path, zipped):
    path = tmp_path / "ViT.pt"
    torch.save({**openai.state_dict(), **EXTRAS}, path, _use_new_zipfile_serialization=zipped)
    assert weights.read(path)[1] == "openai"
    assert_same_features(load(config, path), openai, SMALL)


def test_state_dict_that_lost_its_extra_numbers_needs_the_activation(openai, config, state, tmp_path):
    path = tmp_path / "bare.pth"
    torch.save(state, path)
    assert weights.read(path)[1] == "openclip"
    assert_same_features(load(config, path, activation="quickgelu"), openai, SMALL)


def test_half_precision_stays_half(openai, tmp_path):
    path = tmp_path / "half.safetensors"
    safetensors.torch.save_file({name: p.half() for name, p in openai.state_dict().items()}, path)
    state, _ = weights.read(path)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_openclip_files(openclip, config, tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(openclip.state_dict(), path)
    else:
        torch.save(openclip.state_dict(), path)
    assert weights.read(path)[1] == "openclip"
    assert_same_features(load(config, path), openclip, SMALL)


def test_a_file_is_what_its_bytes_say(openclip, config, tmp_path):
    path = tmp_path / "renamed.pt"
    safetensors.torch.save_file(openclip.state_dict(), path)
    assert_same_features(load(config, path), openclip, SMALL)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_training_checkpoint(openclip, config, tmp_path, prefix):
    path = tmp_path / "epoch_32.pt"
    wrapped = {prefix + name: tensor for name, tensor in openclip.state_dict().items()}
    torch.save({"epoch": 32, "name": "run", "state_dict": wrapped, "optimizer": {"state": {}}}, path)
    assert_same_features(load(config, path), openclip, SMALL)


@pytest.mark.slow
def test_full_vit_l_14_336_through_the_archive(tmp_path):
    full = json.loads((weights.CONFIGS / "ViT-L-14-336.json").read_text())
    torch.manual_seed(0)
    peer = openai_peer(full)
    path = archive(peer, full, tmp_path / "ViT-L-14-336px.pt")
    ours = CLIP.load_clip("ViT-L-14-336", weights=path, image_size=336, trust=True)
    assert_same_features(ours, peer, full)


# Refusals


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("way", ["pickle", "zip", "legacy", "nested"])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(state, tmp_path, way):
    path, trace = tmp_path / "evil.pt", tmp_path / "it-ran"
    if way == "pickle":
        path.write_bytes(pickle.dumps({**state, "logit_scale": Evil(trace)}))
    elif way == "nested":
        torch.save({"state_dict": {**state, "epoch": [Evil(trace)]}}, path)
    else:
        torch.save({**state, "logit_scale": Evil(trace)}, path, _use_new_zipfile_serialization=way == "zip")
    assert "run anyone's code" in refusal(path)
    assert "run anyone's code" in refusal(path, trust=True)  # trust is for TorchScript alone
    assert not trace.exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    assert "state_dict()" in refusal(tmp_path / "module.pt")


@pytest.mark.parametrize(
    "body, word",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
        (b"\n\n <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"weights", "not a weights file"),
        (b"\x00" * 1000, "not a weights file"),
        (b"PK\x03\x04" + b"\x01" * 500, "cut short or damaged"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x02}q\x01.", "damaged"),
        (b"\xff" * 8 + b"{" + b" " * 100, "damaged"),
        (b"\x10" + b"\x00" * 7 + b'{"a": 12345678}', "damaged"),
    ],
)
def test_what_is_no_weights_file(tmp_path, body, word):
    path = tmp_path / "ViT-L-14-336px.pt"
    path.write_bytes(body)
    assert word in refusal(path, trust=True)


def test_missing_file_or_folder(tmp_path):
    assert "no weights file" in refusal(tmp_path / "nowhere.pt")
    assert "no weights file" in refusal(tmp_path)


@pytest.mark.parametrize("form", ["archive", "zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(openai_archive, state, tmp_path, form, share):
    path = write(form, state, openai_archive, tmp_path)
    body = path.read_bytes()
    path.write_bytes(body[: max(1, int(len(body) * share))])
    refusal(path, trust=True)


@pytest.mark.parametrize("form", ["archive", "zip", "legacy", "safetensors"])
def test_damaged_bytes_never_end_in_a_traceback(openai_archive, state, tmp_path, form):
    few = {name: state[name] for name in ("logit_scale", "visual.class_embedding", "ln_final.bias")}
    path = write(form, few, openai_archive, tmp_path)
    body = path.read_bytes()
    generator = torch.Generator().manual_seed(3)
    for _ in range(60):
        damaged = bytearray(body)
        for place in torch.randint(-750, 750, (4,), generator=generator).tolist():  # both ends have structure
            damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            weights.read(path, trust=True)
        except InputError as fault:
            assert "\n" not in str(fault)


def write(form: str, state: dict[str, Tensor], openai_archive: Path, folder: Path) -> Path:
    path = folder / "weights.pt"
    if form == "archive":
        shutil.copy(openai_archive, path)
    elif form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("holds", [[1, 2], {}, {"epoch": 1}, torch.zeros(2)])
def test_holds_no_state_dict(tmp_path, holds):
    torch.save(holds, tmp_path / "x.pt")
    assert "no state dict" in refusal(tmp_path / "x.pt")


def test_adapters_are_no_clip(tmp_path):
    torch.save({"seg_adapters": {"0.fc1.0.weight": torch.zeros(2)}, "det_adapters": {}}, tmp_path / "x.pth")
    assert "--ckpt" in refusal(tmp_path / "x.pth")


def test_a_foreign_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refusal(tmp_path / "x.pt")


# Another model's weights


def unfit(state: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    with pytest.raises(InputError) as caught:
        weights.check_shapes(state, {name: tensor.shape for name, tensor in expected.items()}, "file.pt")
    assert str(caught.value).startswith("file.pt does not fit")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def test_fitting_weights_pass(state):
    weights.check_shapes(state, {name: tensor.shape for name, tensor in state.items()}, "file.pt")


def test_missing_and_unexpected_names_are_told(state):
    other = {name.replace("ln_post", "norm"): tensor for name, tensor in state.items()}
    said = unfit(other, state)
    assert "it lacks visual.ln_post.weight, visual.ln_post.bias" in said
    assert "it has besides visual.norm.weight" in said


@pytest.mark.parametrize("model_name", ["ViT-L-14-336", "ViT-L-14", "ViT-B-16", "ViT-B-16-plus-240"])
def test_the_model_is_recognised(state, model_name):
    with torch.device("meta"):
        theirs = CLIP.build(model_name).state_dict()
    assert f"it seems to be {model_name}: try --model_name {model_name}" in unfit(theirs, state)


def test_an_unknown_vit_is_described(openai_archive, state):
    said = unfit(weights.read(openai_archive, trust=True)[0], dict(list(state.items())[:-1]))
    assert "embed_dim 48, width 128, 3 layers, patch 16, image size 64, text width 64, 2 text layers" in said


@pytest.mark.parametrize(
    "name, words",
    [
        ("vision_model.embeddings.class_embedding", "Transformers"),
        ("visual.layer1.0.conv1.weight", "no plain ViT"),
        ("visual.trunk.blocks.0.norm1.weight", "no plain ViT"),
        ("fc.weight", "no CLIP"),
    ],
)
def test_other_networks_are_named(state, name, words):
    assert words in unfit({name: torch.zeros(2)}, state)


def test_load_clip_refuses_another_models_weights(openai_archive):
    with pytest.raises(InputError, match="does not fit"):
        CLIP.load_clip("ViT-T-16-demo", weights=openai_archive, trust=True)


# Hashes


@pytest.fixture
def hashings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Every file that is hashed; notes are written for small files too."""
    hashed: list[Path] = []
    monkeypatch.setattr(weights, "_NOTED_FROM", 0)
    monkeypatch.setattr(weights, "sha256", lambda path: hashed.append(path) or sha256(path))
    return hashed


def test_a_file_is_hashed_once(tmp_path, hashings):
    path = tmp_path / "a.pt"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert [weights.weights_hash(path) for _ in range(3)] == [digest] * 3
    assert len(hashings) == 1
    path.write_bytes(b"abd")
    assert weights.weights_hash(path) != digest
    assert len(hashings) == 2


def test_a_note_that_came_with_a_file_is_not_believed(tmp_path, hashings):
    path, note = tmp_path / "a.pt", tmp_path / ".a.pt.sha256"
    path.write_bytes(b"harmless")
    digest = weights.weights_hash(path)
    stat = path.stat()
    path.write_bytes(b"harmful!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert json.loads(note.read_text())["modified"] == path.stat().st_mtime_ns
    assert weights.weights_hash(path) != digest


@pytest.mark.parametrize("note", ["", "[]", "{}", "{", '{"sha256": "00"}'])
def test_a_damaged_note_is_written_anew(tmp_path, hashings, note):
    path = tmp_path / "a.pt"
    path.write_bytes(b"abc")
    (tmp_path / ".a.pt.sha256").write_text(note)
    assert weights.weights_hash(path) == sha256(path)
    assert weights.weights_hash(path) == sha256(path)
    assert len(hashings) == 1


def test_a_small_file_leaves_no_note(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"abc")
    weights.weights_hash(tmp_path / "a.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


# Finding


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What would have been fetched; a hub has no .safetensors."""
    calls: list[tuple] = []

    def fake(url: str, path: Path, digest: str | None) -> Path:
        calls.append((url, path.name, digest))
        if url.endswith(".safetensors"):
            raise download.NotPublished("404")
        return path

    monkeypatch.setattr(weights, "fetch", fake)
    return calls


def test_clip_path_comes_first(tmp_path, fetched):
    path = tmp_path / "mine.pt"
    with pytest.raises(InputError, match=r"mine\.pt; correct --clip_path"):
        weights.find("ViT-L-14-336", "openai", clip_path=path)
    path.write_bytes(b"x")
    assert weights.find("no such model", "no such tag", clip_path=path) == path
    assert fetched == []


def test_a_file_that_is_there_is_verified(tmp_path, fetched, monkeypatch):
    path = tmp_path / "ViT-L-14-336px.pt"
    path.write_bytes(b"abc")
    with pytest.raises(InputError, match="not the published file"):
        weights.find("ViT-L-14-336", "openai", folder=tmp_path)
    for digest in (sha256(path), sha256(path)[:8]):
        row = WeightsSource("ViT-L-14-336", "openai", path.name, ("http://x/y.pt",), digest)
        monkeypatch.setitem(SOURCES, ("ViT-L-14-336", "openai"), row)
        assert weights.find("ViT-L-14-336", "openai", folder=tmp_path, offline=True) == path
    assert fetched == []


def test_a_missing_file_is_fetched(tmp_path, fetched):
    path = weights.find("ViT-L-14-336", "openai", folder=tmp_path)
    digest = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-L-14-336px.pt"
    assert path == tmp_path / "ViT-L-14-336px.pt"
    assert fetched == [(url, path.name, digest)]


def test_a_hub_without_safetensors_gives_its_bin(tmp_path, fetched):
    path = weights.find("ViT-B-16", "laion2b", folder=tmp_path)
    assert [name for _, name, _ in fetched] == [
        "ViT-B-16-laion2b_s34b_b88k.safetensors",
        "ViT-B-16-laion2b_s34b_b88k.bin",
    ]
    path.write_bytes(b"abc")
    assert weights.find("ViT-B-16", "laion2b", folder=tmp_path, offline=True) == path


def test_offline_never_tries(tmp_path, fetched):
    with pytest.raises(InputError) as caught:
        weights.find("ViT-L-14-336", "openai", folder=tmp_path, offline=True)
    for word in ("--offline", "https://openaipublic", str(tmp_path), "ViT-L-14-336px.pt", "--demo"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert fetched == []


def test_the_demo_model_is_not_fetched(tmp_path, fetched):
    with pytest.raises(InputError, match="comes with the repository"):
        weights.find("ViT-T-16-demo", "demo", folder=tmp_path)
    assert fetched == []


def test_unknown_names_are_answered_with_known_ones():
    with pytest.raises(InputError, match="did you mean openai"):
        source("ViT-L-14-336", "opena")
    with pytest.raises(InputError, match="ViT-B-16, ViT-L-14 has them"):
        source("ViT-L-14-336", "laion2b")
    with pytest.raises(InputError, match="--clip_path"):
        source("ViT-H-14", "openai")


# The table


@pytest.mark.parametrize("model_name", ["ViT-L-14-336", "ViT-L-14", "ViT-B-16", "ViT-B-16-plus-240"])
def test_the_table_is_what_open_clip_publishes(model_name):
    theirs = pytest.importorskip("open_clip.pretrained")._PRETRAINED[model_name]
    assert {tag for name, tag in SOURCES if name == model_name} == set(theirs)
    for tag, published in theirs.items():
        row = source(model_name, tag)
        assert row.quick_gelu == published.get("quick_gelu", False)
        assert (row.mean, row.std) == (published["mean"], published["std"])
        if "huggingface" in row.urls[0]:
            repositories = {url.split("/resolve/")[0] for url in row.urls}
            assert repositories == {"https://huggingface.co/" + published["hf_hub"].rstrip("/")}
        else:
            assert row.urls == (published["url"],)
            assert row.sha256 in row.urls[0]


def test_short_names():
    assert source("ViT-B-16-plus-240", "laion400m").pretrain == "laion400m_e32"
    assert source("ViT-L-14", "laion2b").pretrain == "laion2b_s32b_b82k"
    assert source("ViT-B-16", "datacomp").pretrain == "datacomp_xl_s13b_b90k"
    assert {tag for tags in ALIASES.values() for tag in tags} <= {tag for _, tag in SOURCES}
    assert len({row.filename for row in SOURCES.values()}) == len(SOURCES)


def test_the_readme_of_the_folder_knows_the_files():
    said = (weights.FOLDER / "readme.md").read_text(encoding="utf-8")
    files = {row.filename: row for row in SOURCES.values()}
    named = set(re.findall(r"`(ViT-[\w.-]+\.(?:pt|safetensors))`", said))
    assert {row.filename for row in files.values() if row.pretrain == "openai"} < named
    for name in named:
        assert f"`{files[name].pretrain}`" in said
        assert all(url in said for url in files[name].urls[:1])
    for _, tag in SOURCES:
        assert f"`{tag}`" in said
