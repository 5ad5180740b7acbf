"""What makes runs fast changes no figure, or only as much as it says."""

import pytest
import torch
from helpers.goldens import CONFIG, WEIGHTS
from helpers.lab import Lab

import CLIP
from dataset import images
from decoder import MDecoder
from engine.prefix_files import PrefixFiles
from engine.system import System


@pytest.fixture
def lab(lab) -> Lab:
    lab.medical(test=(3, 3))
    lab.others()
    return lab


def results(lab: Lab, name: str) -> list[dict]:
    return lab.results(name)["results"]


@pytest.mark.parametrize("kind", ["few", "zero"])
def test_the_cache_changes_no_bit(lab, kind):
    name = f"train_{kind}/{'Brain_1-shot' if kind == 'few' else 'Brain'}"
    flags = ["--epoch", 2, "--prompts", "base"]
    lab.done(f"train_{kind}", *flags, "--cache_gb", 0)
    assert not (lab.root / "cache").exists()
    without = results(lab, name)
    for _ in ("cold", "warm"):
        lab.done(f"train_{kind}", *flags)
        assert results(lab, name) == without
    entries = [path for path in (lab.root / "cache").rglob("*") if path.is_file()]
    for path in entries:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    lab.done(f"train_{kind}", *flags)
    assert results(lab, name) == without  # nothing damaged was trusted


def test_images_seen_before_are_not_decoded_again(lab, monkeypatch):
    tests = sorted((lab.data / "Brain_AD" / "test").glob("*/img/*"))
    decoded, real = [], images.load_pixels
    monkeypatch.setattr(images, "load_pixels", lambda path, size: decoded.append(path) or real(path, size))
    lab.done("train_few", "--epoch", 2)
    assert sorted(decoded) == tests  # once, for two epochs and the last evaluation
    lab.done("train_few", "--epoch", 2)
    assert sorted(decoded) == tests  # and another run knows them still


def test_a_changed_image_is_seen_anew(tmp_path):
    system = System(MDecoder(CLIP.load_clip(CONFIG, WEIGHTS)), torch.device("cpu"), 28)
    system.cache.folder, system.cache.limit = tmp_path / "cache", 1 << 20
    path = tmp_path / "a"
    path.write_bytes(b"one")
    files = PrefixFiles(system.cache, "key", (2, 3))
    files.keep(path, torch.ones(2, 3))
    assert files(path).equal(torch.ones(2, 3))
    assert PrefixFiles(system.cache, "another model", (2, 3))(path) is None
    assert PrefixFiles(system.cache, "key", (3, 3))(path) is None
    path.write_bytes(b"two")
    assert files(path) is None


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precision_changes_figures_a_little(lab, precision):
    lab.done("train_few", "--epoch", 2, "--eval_every", 0)
    run = lab.done("test_few", "--precision", precision)
    exact = lab.done("test_few")
    assert not run.seen[0].map_patches.zero.equal(exact.seen[0].map_patches.zero)
    for branch, atol in (("zero", 3.0), ("few", 0.05)):  # logits of ±100, distances up to 2
        assert torch.allclose(
            getattr(run.seen[0].map_patches, branch), getattr(exact.seen[0].map_patches, branch), atol=atol
        )


def test_int8_has_no_gradients_so_it_does_not_train(lab):
    refused = lab.run("train_few", "--precision", "int8")
    assert refused.code == 2 and "--precision" in refused.err


@pytest.mark.parametrize("cap", ["20", "coreset", "coreset:10"])
def test_a_limited_bank_is_calibrated_anew(lab, cap):
    lab.done("train_few", "--eval_every", 0)
    whole = lab.done("test_few")
    run = lab.done("test_few", "--bank_cap", cap)
    assert "the bank's limits are not those of the training run" in run.out
    assert (run.seen[0].map_patches.few >= whole.seen[0].map_patches.few - 1e-6).all()  # fewer tokens are never nearer
    assert run.seen[0].map_patches.zero.equal(whole.seen[0].map_patches.zero)


def test_a_bank_that_leaves_one_image_alone_is_refused(lab):
    lab.done("train_few", "--shot", 2, "--eval_every", 0)
    refused = lab.run("test_few", "--shot", 2, "--bank_cap", 1)
    assert refused.code == 2 and "--bank_cap 1 leaves tokens of one support image alone" in refused.err


@pytest.mark.slow
def test_the_compiled_trunk_is_the_trunk():
    torch.manual_seed(0)
    clip, images = CLIP.load_clip(CONFIG, WEIGHTS), torch.rand(1, 3, 240, 240)
    torch.manual_seed(0)
    plain = MDecoder(clip)
    torch.manual_seed(0)
    compiled = MDecoder(clip, compiled=True)
    with torch.no_grad():
        one, other = (decoder.decode(decoder.prefix(images), pooled=False) for decoder in (plain, compiled))
    for level, expected in zip(other.seg_tokens + other.det_tokens, one.seg_tokens + one.det_tokens, strict=True):
        assert (level - expected).norm() < 1e-5 * expected.norm()


def test_the_decoder_runs_without_data_on_the_meta_device():
    """Shapes alone: nothing in the loop looks at values, which on a GPU would wait for them."""
    with torch.device("meta"):
        decoder = MDecoder(CLIP.build("ViT-L-14-336"))
        decoded = decoder.decode(decoder.prefix(torch.rand(2, 3, 336, 336)))  # the grid that the weights were made for
    assert [tuple(level.shape) for level in decoded.seg_tokens] == [(2, 577, 768)] * 4
    assert decoded.pooled.shape == (2, 768) and decoded.pooled.is_meta
