"""Files give PyTorch's numbers for every kind of checkpoint, are whole or not there, and run without torch."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.lab import ROOT, SIZE, Lab, files, run

import dataset
import madff
from apps.export import __main__, exporting, formats
from apps.export.formats import ONNX, OPENVINO
from apps.export.graph import MatrixFAB, settle, waves, without_fft
from decoder import MDecoder
from engine.system import System
from runtime.errors import InputError
from scoring.calibration import Calibration
from scoring.maps import scaled_maps
from scoring.raw_scores import RawScores, main_branch

EXPORT = "apps/export/__main__"
NEAR = {"rtol": 0, "atol": 1e-3}


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Path, Path]) -> Lab:
    """A lab with a trained Brain, which tests leave as it is."""
    lab = Lab(tmp_path_factory.mktemp("brain"), *tiny)
    lab.medical("Brain")
    lab.done("train_few", "--eval_every", 0)
    return lab


@pytest.fixture(scope="module")
def file(brain: Lab) -> Path:
    """The ONNX file of that; OpenVINO's is `beside` it, if there is OpenVINO."""
    file = brain.root / "out" / "model.onnx"
    return written(brain, "Brain_1-shot", *(["--openvino", beside(file)] if has_openvino() else []))


def written(lab: Lab, ckpt: str, *flags: object) -> Path:
    """The file that `python -m apps.export` makes of a checkpoint of this lab."""
    file = lab.root / "out" / "model.onnx"
    done = run(EXPORT, "--ckpt", lab.root / f"ckpt/{ckpt}.pth", "--onnx", file, *cached(lab), *flags)
    assert done.code == 0, done.err
    assert done.out.count("against PyTorch on 3 images: ") == 1 + ("--openvino" in flags)
    return file


def beside(file: Path) -> Path:
    """Where OpenVINO's file is."""
    return file.parent.with_name("openvino") / "model.xml"


def has_openvino() -> bool:
    """Found without an import, which would send telemetry."""
    return find_spec("openvino") is not None


needs_openvino = pytest.mark.skipif(not has_openvino(), reason="needs openvino: pip install -r requirements/dev.txt")
KINDS = (ONNX, pytest.param(OPENVINO, marks=needs_openvino))


def cached(lab: Lab) -> list[object]:
    return ["--device", "cpu", "--cache_path", lab.root / "cache"]


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def judged(seen: RawScores, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Maps and scores as the test scripts and their thresholds see them."""
    branch = main_branch(seen.map_patches)
    maps = torch.cat(list(scaled_maps(seen.map_patches, calibration.maps, SIZE, branch)))
    return maps.numpy(), seen.image_scores(SIZE, calibration)[branch].numpy()


def agree(file: Path, obj: str, data: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    """The file gives `expected` for the object's test images, one by one and in batches of five."""
    _, samples = dataset.open_test(obj, data)
    images = np.stack([dataset.load_image(sample.image, SIZE).numpy() for sample in samples])
    assert len(images) > 5 and np.ptp(expected[1]) > 0.01
    for size in (1, 5):
        parts = [
            session(file).run(["map", "score"], {"images": images[i : i + size]}) for i in range(0, len(images), size)
        ]
        for found, wanted in zip(zip(*parts, strict=True), expected, strict=True):
            np.testing.assert_allclose(np.concatenate(found), wanted, **NEAR)


FEW = {  # object, its masks, flags of train_few.py
    "gates a token": ("Brain", "anomaly_mask", ["--madff_axis", "token", "--protocol", "sound"]),
    "no masks, mvfa": ("Chest", None, ["--adapter", "mvfa"]),
    "projector, prompts alone": ("Brain", "anomaly_mask", ["--adapter", "projector", "--branches", "zero"]),
    "memory bank alone": ("Brain", "anomaly_mask", ["--abnormal_shot", 0, "--bank_cap", 40]),
    "bare trunk": ("Chest", None, ["--adapter", "none"]),
}


@pytest.mark.parametrize("case", FEW)
def test_few_shot_checkpoints(lab, case):
    obj, masks, flags = FEW[case]
    lab.medical(obj, masks=masks)
    lab.done("train_few", "--obj", obj, "--eval_every", 0, *flags)
    check_few(lab, obj, written(lab, f"{obj}_1-shot"))


def test_the_default_checkpoint(brain, file):
    check_few(brain, "Brain", file)
    onnx.checker.check_model(file)


def check_few(lab: Lab, obj: str, file: Path) -> None:
    """The file agrees with test_few.py, and knows the checkpoint's thresholds."""
    last = lab.checkpoint(f"{obj}_1-shot").last
    seen = lab.done("test_few", "--obj", obj).seen[0]
    agree(file, obj, lab.data, judged(seen, last.calibration))
    facts = session(file).get_modelmeta().custom_metadata_map
    branch = main_branch(seen.map_patches)
    assert facts["object"] == obj and facts["size"] == str(SIZE) and facts["branch"] == branch
    assert float(facts["image_threshold"]) == last.calibration.image[branch]
    assert float(facts["pixel_threshold"]) == last.calibration.pixel[branch]
    assert files(file.parent) == {"model.onnx"}


def test_transfer_checkpoints_need_no_images(lab):
    lab.medical("Brain")
    lab.others()
    lab.done("train_zero", "--obj", "Brain")
    last = lab.checkpoint("Brain").last
    seen = lab.done("test_zero", "--obj", "Brain").seen[0]
    file = written(lab, "Brain", "--data_path", lab.root / "nowhere")
    agree(file, "Brain", lab.data, judged(seen, last.calibration))
    assert seen.mean_patches is not None  # means of det tokens, beside maps of seg tokens

    flags = ["--ckpt", lab.root / "ckpt/Brain.pth", "--onnx", lab.root / "few.onnx", *cached(lab)]
    refused = run(EXPORT, *flags, "--branches", "both")
    assert refused.code == 2 and refused.err.endswith("which have no memory bank: leave --branches out\n")
    other = written(lab, "Brain", "--data_path", lab.root / "nowhere", "--obj", "Chest")  # its words, no threshold
    facts = session(other).get_modelmeta().custom_metadata_map
    assert facts["object"] == "Chest" and not {"image_threshold", "pixel_threshold"} & facts.keys()
    noise = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    maps, scores = session(other).run(None, {"images": noise})
    assert 0 < maps.min() < maps.max() < 1  # probabilities
    np.testing.assert_allclose(scores, maps.mean(axis=(1, 2)), rtol=0, atol=0.1)


@pytest.mark.parametrize(("length", "width"), [(1, 32), (5, 31), (17, 33), (290, 64)])
def test_the_twin_of_fab(length, width):
    torch.manual_seed(length)
    adapter = madff.MADFF(width, 8, axis="token" if length == 1 else "sequence").eval()
    x = 3 * torch.randn(2, length, width) + 1
    with torch.no_grad():
        expected = adapter.frequency_attention(x)
        decoder = torch.nn.ModuleList([adapter])
        without_fft(decoder, length)
        assert isinstance(adapter.frequency_attention, MatrixFAB)
        found = adapter.frequency_attention(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_waves_are_those_of_the_fourier_transform():
    x = torch.randn(3, 50)
    cosine, sine = (x @ waves(50, 26)).split(26, dim=1)
    torch.testing.assert_close(torch.complex(cosine, -sine), torch.fft.rfft(x), rtol=1e-4, atol=1e-4)


def test_settled_positions_change_nothing(clip, images):
    decoder = MDecoder(clip, (6, 12), "none")
    grid, positions = clip.visual.grid, clip.visual.positional_embedding
    small = torch.nn.functional.interpolate(images, (112, 112))
    try:
        before = decoder.prefix(small)
        assert settle(System(decoder, torch.device("cpu"), 112)) == before.shape[1]
        assert clip.visual.grid != grid and decoder.prefix(small).equal(before)
    finally:
        clip.visual.grid, clip.visual.positional_embedding = grid, positions


def test_large_models_have_a_second_file(brain, file, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGE", 0)
    large = tmp_path / "large.onnx"
    flags = ["--ckpt", brain.root / "ckpt/Brain_1-shot.pth", "--onnx", large, *cached(brain)]
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, flags)])
    __main__.main()
    assert files(tmp_path) == {"large.onnx", "large.onnx.data"}
    adapters = brain.checkpoint().last.adapters.values()
    assert (tmp_path / "large.onnx.data").stat().st_size > sum(one.nbytes for part in adapters for one in part.values())
    image = np.zeros((1, 3, SIZE, SIZE), np.float32)
    one, two = (session(path).run(["score"], {"images": image})[0] for path in (file, large))
    np.testing.assert_allclose(one, two, **NEAR)

    draft = tmp_path / "draft" / "large.onnx"
    draft.parent.mkdir()
    draft.write_bytes(b"small")
    exporting.put(draft, large, ONNX.second)
    assert files(tmp_path) == {"large.onnx"} and large.read_bytes() == b"small"  # the second file went with the first


@needs_openvino
def test_openvinos_file_has_the_same_facts_and_whole_weights(file):
    assert files(beside(file).parent) == {"model.xml", "model.bin"}
    read = formats.openvino().Core().read_model(beside(file))
    assert sys.modules["openvino_telemetry"] is None
    assert read.get_rt_info([formats.SECTION]).value == session(file).get_modelmeta().custom_metadata_map
    weights = {node.get_element_type().get_type_name() for node in read.get_ops() if node.get_type_name() == "Constant"}
    assert "f32" in weights and "f16" not in weights


@needs_openvino
def test_openvinos_file_alone(brain, tmp_path):
    """Over an old pair, and with figures as test_few.py has them."""
    target = tmp_path / "model.xml"
    for old in (target, OPENVINO.second(target)):
        old.write_bytes(b"old")
    done = run(EXPORT, "--ckpt", brain.root / "ckpt/Brain_1-shot.pth", "--openvino", target, *cached(brain))
    assert done.code == 0 and files(tmp_path) == {"model.xml", "model.bin"}, done.err
    expected = judged(brain.done("test_few").seen[0], brain.checkpoint().last.calibration)
    _, samples = dataset.open_test("Brain", brain.data)
    images = np.stack([dataset.load_image(sample.image, SIZE).numpy() for sample in samples])
    for found, wanted in zip(formats.opened_openvino(target)(images), expected, strict=True):
        np.testing.assert_allclose(found, wanted, **NEAR)


def test_faults(brain, tmp_path, monkeypatch):
    ckpt, there = brain.root / "ckpt/Brain_1-shot.pth", files(brain.root)

    def line(*flags: object) -> str:
        stopped = run(EXPORT, *flags, *cached(brain))
        assert stopped.code == 2 and files(brain.root) == there and not files(tmp_path)
        return stopped.err.splitlines()[-1]

    target = tmp_path / "out.onnx"
    assert "ends in .onnx" in line("--ckpt", ckpt, "--onnx", tmp_path / "out.txt")
    assert "no checkpoint" in line("--ckpt", brain.root / "none.pth", "--onnx", target)
    assert "no best epoch" in line("--ckpt", ckpt, "--onnx", target, "--stage", "best")
    assert "was trained on Brain, not on Liver" in line("--ckpt", ckpt, "--onnx", target, "--obj", "Liver")
    assert "--onnx FILE.onnx, --openvino FILE.xml, or both" in line("--ckpt", ckpt)
    monkeypatch.setattr(MatrixFAB, "forward", lambda self, x: 1.1 * x)
    assert "off, so it was not kept" in line("--ckpt", ckpt, "--onnx", target)


@needs_openvino
def test_faults_of_openvinos_files(brain, tmp_path, monkeypatch):
    def line(*flags: object) -> str:
        stopped = run(EXPORT, "--ckpt", brain.root / "ckpt/Brain_1-shot.pth", *flags, *cached(brain))
        assert stopped.code == 2
        return stopped.err.splitlines()[-1]

    target, weights = tmp_path / "out.xml", tmp_path / "out.bin"
    assert "ends in .xml" in line("--openvino", tmp_path / "out.onnx") and not files(tmp_path)
    weights.write_bytes(b"another's")
    assert "out.bin is there without out.xml: move it away" in line("--openvino", target)
    assert files(tmp_path) == {"out.bin"} and weights.read_bytes() == b"another's"
    target.write_bytes(b"old")
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)  # and ONNX's is not kept without the other
    assert "off, so it was not kept: try other than torch" in line("--openvino", target, "--onnx", tmp_path / "a.onnx")
    assert files(tmp_path) == {"out.bin", "out.xml"} and target.read_bytes() == b"old"


@pytest.mark.parametrize("kind", exporting.FORMATS, ids=lambda kind: kind.name)
def test_a_missing_package_is_one_line(monkeypatch, kind):
    monkeypatch.setattr(exporting, "FORMATS", (replace(kind, needed=("onnx", "no_such_package")),))
    monkeypatch.setattr(sys, "argv", ["export.py", "--ckpt", "a.pth", f"--{kind.name}", f"a{kind.suffix}"])
    with pytest.raises(InputError, match=rf"no_such_package is missing: pip install -r requirements/{kind.name}\.txt"):
        __main__.main()


def without_torch(folder: Path, *given: object) -> subprocess.CompletedProcess[str]:
    """Run the example where torch and more can't be imported."""
    for name in ("torch", "torchvision", "cv2", "scipy", "dataset"):
        (folder / "barred" / name).mkdir(parents=True, exist_ok=True)
        (folder / "barred" / name / "__init__.py").write_text("raise ImportError('barred')")
    command = [sys.executable, ROOT / "apps/export/without_torch.py", *given]
    place = os.environ | {"PYTHONPATH": str(folder / "barred")}
    return subprocess.run(list(map(str, command)), env=place, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_example_runs_without_torch(brain, file, tmp_path, kind):
    model = file if kind is ONNX else beside(file)
    image, picture = brain.data / "Brain_AD/test/Ungood/img/test_a0.png", tmp_path / "map.png"
    seen, calibration = brain.done("test_few").seen[0], brain.checkpoint().last.calibration
    score = judged(seen, calibration)[1][4]  # after four normal images
    for flags, near in ((), 1e-3), (("--precision", "bf16"), 0.05):
        done = without_torch(tmp_path, model, image, picture, *flags)
        if flags and kind is ONNX:
            assert done.returncode == 2 and done.stderr.endswith("--precision is for .xml files\n")
            continue
        assert done.returncode == 0, done.stderr
        said = dict(line.split(":", 1) for line in done.stdout.splitlines())
        said = {name.strip(): value.strip() for name, value in said.items()}
        assert abs(float(said["score"]) - score) < near
        assert flags or said["verdict"] == ("abnormal" if score >= calibration.image["fused"] else "normal")
        assert dataset.read_rgb(picture).shape == dataset.read_rgb(image).shape
        assert dataset.read_rgb(picture).std() > 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_example_refuses_with_one_line(brain, tmp_path, kind):
    model, image = tmp_path / f"model{kind.suffix}", brain.data / "Brain_AD/test/Ungood/img/test_a0.png"
    done = without_torch(tmp_path, model, image, tmp_path / "map.png")
    assert done.returncode == 1 and done.stderr == f"no file {model}; write it with python -m apps.export\n"
    model.write_text("neither")
    done = without_torch(tmp_path, model, image, tmp_path / "map.png")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"{model} or {image} can't be read: ")
    assert "Traceback" not in done.stderr and not (tmp_path / "map.png").exists()


def test_adapters_published_by_others_are_calibrated_on_the_support(brain, file, tmp_path):
    published = tmp_path / "published.pth"
    torch.save(brain.checkpoint().last.adapters, published)
    target = tmp_path / "model.onnx"
    flags = ["--model_name", brain.config, "--clip_path", brain.weights, "--img_size", SIZE, "--data_path", brain.data]
    flags += ["--prompts", brain.words, "--shot", 1, "--iterate", -1, "--threshold_rule", "f1", *cached(brain)]
    done = run(EXPORT, "--ckpt", published, "--onnx", target, "--obj", "Brain", *flags)
    assert done.code == 0, done.err
    facts, own = (session(path).get_modelmeta().custom_metadata_map for path in (target, file))
    assert {name for name in own if own[name] != facts.get(name)} == {"checkpoint", "epoch"}


@pytest.mark.parametrize("place", [0, 1])
def test_a_file_that_gives_nan_is_not_kept(place):
    def run(images: np.ndarray) -> list[np.ndarray]:
        found = [np.zeros((len(images), 4, 4), np.float32), np.zeros(len(images), np.float32)]
        found[place][-1] = np.nan
        return found

    kind = replace(ONNX, opened=lambda _: run)
    with pytest.raises(InputError, match="nan off, so it was not kept"):
        exporting.compare(kind, Path("a.onnx"), torch.zeros(2, 3, 4, 4), (torch.zeros(2, 4, 4), torch.zeros(2)))
