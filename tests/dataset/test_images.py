"""Image files of every kind as tensors, masks as 0 and 1, and faults that name the file."""

import os
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers import trees
from PIL import Image
from torchvision import transforms

from dataset import images
from dataset.images import (
    Batches,
    ImageSet,
    Sample,
    image_size,
    load_image,
    load_mask,
    load_pixels,
    open_picture,
    read_mask,
    read_rgb,
    readers,
    to_unit,
)
from runtime.errors import InputError

SIZE = 24


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    """uint8 (40, 56, 3), smooth so that lossy files stay near it."""
    y, x = np.mgrid[0:40, 0:56]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y], axis=2).astype(np.uint8)


def published(image: Image.Image) -> torch.Tensor:
    """What the published code makes of an image."""
    return transforms.Compose(
        [transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.BICUBIC), transforms.ToTensor()]
    )(image.convert("RGB"))


def save(path, values: np.ndarray, mode: str | None = None, **options):
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "TIFF", "jpg", "JPEG", "webp"])
def test_eight_bit_rgb_is_read_as_published(tmp_path, colours, suffix):
    path = save(tmp_path / f"a.{suffix}", colours)
    tensor = load_image(path, SIZE)
    assert tensor.shape == (3, SIZE, SIZE) and tensor.dtype == torch.float32
    assert torch.equal(tensor, published(Image.open(path)))
    assert (tensor - published(Image.fromarray(colours))).abs().mean() < 0.02
    assert (read_rgb(path) == np.asarray(Image.open(path).convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_eight_bit_modes_become_rgb(tmp_path, colours, mode):
    path = save(tmp_path / "a.tif", colours, mode)
    assert torch.equal(load_image(path, SIZE), published(Image.open(path)))


def test_a_palette_with_transparency_does_not_warn(tmp_path, colours, recwarn):
    image = Image.fromarray(colours).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    opaque = load_image(save(tmp_path / "b.png", colours, "P"), SIZE)
    assert torch.equal(load_image(tmp_path / "a.png", SIZE), opaque)
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped(tmp_path, colours, mode):
    image = Image.fromarray(colours).convert(mode)
    image.putalpha(Image.new("L", image.size, 60))
    image.save(tmp_path / "a.png")
    assert torch.equal(load_image(tmp_path / "a.png", SIZE), published(Image.fromarray(colours).convert(mode[:-1])))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, colours, suffix):
    eight = colours[..., 0]
    path = save(tmp_path / f"a.{suffix}", eight.astype(np.uint16) * 257)
    tensor = load_image(path, SIZE)
    expected = published(Image.fromarray(eight))
    assert torch.equal(tensor[0], tensor[1]) and torch.equal(tensor[0], tensor[2])
    assert (tensor - expected).abs().max() < 0.01  # 8-bit resizing rounds
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert (read_rgb(path)[..., 0] == eight).all()


@pytest.mark.parametrize("values", [np.uint16, np.int32, np.float32])
def test_small_values_in_deep_files_are_eight_bit(tmp_path, colours, values):
    path = save(tmp_path / "a.tif", colours[..., 0].astype(values))
    assert (load_image(path, SIZE) - published(Image.fromarray(colours[..., 0]))).abs().max() < 0.01


def test_float_images_from_0_to_1(tmp_path, colours):
    path = save(tmp_path / "a.tif", colours[..., 0].astype(np.float32) / 255)
    assert (load_image(path, SIZE) - published(Image.fromarray(colours[..., 0]))).abs().max() < 0.01


@pytest.mark.parametrize("value", [-5, 70000, float("nan")])
def test_values_outside_are_refused(tmp_path, value):
    values = np.full((5, 5), 3, np.float32)
    values[2, 2] = value
    path = save(tmp_path / "ct.tif", values)
    with pytest.raises(InputError, match=r"ct\.tif holds values outside"):
        load_image(path, SIZE)


def test_the_first_of_several_frames(tmp_path, colours):
    frames = [Image.fromarray(colours), Image.fromarray(255 - colours)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert torch.equal(load_image(tmp_path / "a.tif", SIZE), published(frames[0]))


def test_exif_orientation_is_left_alone(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    save(tmp_path / "a.png", colours, exif=exif)
    assert torch.equal(load_image(tmp_path / "a.png", SIZE), published(Image.fromarray(colours)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    for load in (load_image, load_mask):
        with pytest.raises(InputError, match=rf"cut\.{suffix} can't be read as an image") as caught:
            load(path, SIZE)
        assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path, colours):
    path = save(tmp_path / "bad.png", colours)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"bad\.png can't be read"):
        load_image(path, SIZE)


def test_an_oversized_header_is_refused(tmp_path, monkeypatch):
    path = trees.picture(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"huge\.png can't be read"):
        images.check_headers([Sample(path, 0)], "x")


# Masks


@pytest.fixture(scope="module")
def region() -> np.ndarray:
    """bool (30, 40), an L-shaped region."""
    region = np.zeros((30, 40), bool)
    region[4:20, 5:15] = True
    region[14:20, 5:33] = True
    return region


@pytest.mark.parametrize("top", [1, 2, 127, 128, 255])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_masks(tmp_path, region, top, suffix):
    path = save(tmp_path / f"m.{suffix}", region.astype(np.uint8) * top)
    assert (read_mask(path) == region).all()
    tensor = load_mask(path, SIZE)
    assert tensor.shape == (1, SIZE, SIZE) and tensor.dtype == torch.float32
    assert set(tensor.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_sixteen_bit_masks(tmp_path, region, top):
    assert (read_mask(save(tmp_path / "m.png", region.astype(np.uint16) * top)) == region).all()


def test_nearest_neighbour_as_published(tmp_path, region):
    path = save(tmp_path / "m.png", region.astype(np.uint8) * 255)
    resized = transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.NEAREST)(Image.open(path))
    assert torch.equal(load_mask(path, SIZE), (transforms.ToTensor()(resized) > 0.5).float())


def test_grey_edges_count_from_half(tmp_path):
    values = np.array([[0, 60, 127, 128, 200, 255]], np.uint8)
    assert read_mask(save(tmp_path / "m.png", values)).tolist() == [[False, False, False, True, True, True]]


def test_class_numbers_all_count(tmp_path):
    assert read_mask(save(tmp_path / "m.png", np.array([[0, 1, 2, 9]], np.uint8))).tolist() == [
        [False, True, True, True]
    ]


def test_one_bit_and_jpeg_masks(tmp_path, region):
    assert (read_mask(save(tmp_path / "m.png", region)) == region).all()
    assert (read_mask(save(tmp_path / "m.jpg", region.astype(np.uint8) * 255)) == region).mean() > 0.99


def test_empty_and_full_masks(tmp_path):
    assert load_mask(save(tmp_path / "a.png", np.zeros((4, 4), np.uint8)), SIZE).sum() == 0
    assert load_mask(save(tmp_path / "b.png", np.full((4, 4), 255, np.uint8)), SIZE).mean() == 1


@pytest.mark.parametrize("colour", [(128, 0, 0), (0, 64, 0), (255, 255, 255), (1, 1, 1)])
def test_palette_masks_count_any_colour_but_black(tmp_path, region, colour):
    for black_first in (True, False):  # writers may sort the palette
        image = Image.fromarray((region == black_first).astype(np.uint8), mode="P")
        entries = [(0, 0, 0), colour] if black_first else [colour, (0, 0, 0)]
        image.putpalette([channel for entry in entries for channel in entry])
        image.save(tmp_path / "m.png")
        assert (read_mask(tmp_path / "m.png") == region).all()


def test_coloured_and_transparent_masks(tmp_path, region):
    rgb = region[..., None] * np.array([200, 40, 0], np.uint8)
    assert (read_mask(save(tmp_path / "a.png", rgb.astype(np.uint8))) == region).all()
    grey = np.repeat(region[..., None], 3, axis=2).astype(np.uint8) * 255
    assert (read_mask(save(tmp_path / "b.png", grey)) == region).all()
    white = np.full((*region.shape, 4), 255, np.uint8)
    white[..., 3] = region * 255
    assert (read_mask(save(tmp_path / "c.png", white)) == region).all()


# The set and the check


def test_image_set(tmp_path):
    with_mask = Sample(trees.picture(tmp_path / "a.png"), 1, trees.mask(tmp_path / "m.png"))
    without = Sample(trees.picture(tmp_path / "b.png"), 0)
    one, other = next(iter(Batches(ImageSet([with_mask, without], SIZE), batch_size=2)))
    assert one.image.shape == other.image.shape == (3, SIZE, SIZE) and one.mask.shape == (1, SIZE, SIZE)
    assert (one.label, other.label) == (1, 0) and one.known is None
    assert one.mask.mean() == 0.25 and other.mask.sum() == 0
    assert torch.equal(to_unit(one.image), load_image(with_mask.image, SIZE))


def test_what_is_known_of_an_image_spares_decoding_it(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    known = {tmp_path / "a.png": torch.ones(3)}
    trees.picture(tmp_path / "b.png")
    samples = [Sample(tmp_path / name, 0) for name in ("a.png", "b.png")]
    (one, other) = next(iter(Batches(ImageSet(samples, SIZE, known.get), batch_size=2)))
    assert one.image is None and one.known.equal(torch.ones(3))
    assert other.known is None and other.image.shape == (3, SIZE, SIZE)


def test_eight_bits_stay_bytes_until_they_are_floats(tmp_path, colours):
    """Of every byte the float is what `load_image` gives; deep images are floats from the start."""
    path = save(tmp_path / "a.png", colours)
    pixels = load_pixels(path, SIZE)
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, SIZE, SIZE) and pixels.is_contiguous()
    assert torch.equal(to_unit(pixels), load_image(path, SIZE))
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit(every), transforms.functional.to_tensor(every.numpy()[None, :, None])[0, 0])
    deep = load_pixels(save(tmp_path / "b.png", colours[..., 0].astype(np.uint16) * 257), SIZE)
    assert deep.dtype == torch.float32 and to_unit(deep) is deep


@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_the_same_whoever_reads_them(tmp_path, colours, workers):
    """Known or not, with a mask or without, of eight bits or deep, in one batch."""
    paths = [save(tmp_path / f"{n}.png", colours + n if n % 2 else colours[..., 0].astype(np.uint16)) for n in range(7)]
    mask = trees.mask(tmp_path / "m.png")
    samples = [Sample(path, n % 3, mask if n == 4 else None) for n, path in enumerate(paths)]
    known = {paths[2]: torch.ones(3), paths[5]: torch.full((3,), 2.0)}
    for masks in (True, False):
        own = ImageSet(samples, SIZE, known.get, masks)
        read = [item for batch in Batches(own, 4, num_workers=workers) for item in batch]
        assert len(read) == 7
        for found, expected in zip(read, own, strict=True):
            assert (found.path, found.label) == (expected.path, expected.label)
            for name in ("image", "known", "mask"):
                one, other = getattr(found, name), getattr(expected, name)
                assert one is other is None or (one.dtype == other.dtype and one.equal(other)), name
        assert all((item.mask is not None) == masks for item in read)


def test_readers_are_as_many_as_pay(monkeypatch):
    monkeypatch.setattr(images.shutil, "disk_usage", lambda place: SimpleNamespace(free=1 << 40))
    monkeypatch.setattr(images.multiprocessing, "get_start_method", lambda: "fork")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(images, "processors", lambda: 6)
    assert [readers(n, 1, cpu) for n in (0, 3)] == [0, 3]  # whoever says it means it
    assert readers("auto", 1000, cpu) == 0 and readers("auto", 63, gpu) == 0 and readers("auto", 64, gpu) == 5
    with monkeypatch.context() as other:
        other.setattr(images.multiprocessing, "get_start_method", lambda: "spawn")
        assert readers("auto", 64, gpu) == 0 and readers(3, 64, gpu) == 3
    with monkeypatch.context() as other:
        other.setattr(images.shutil, "disk_usage", lambda place: SimpleNamespace(free=64 << 20))  # Docker's
        assert readers("auto", 64, gpu) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert readers("auto", 64, gpu) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert readers("auto", 64, gpu) == 0
    monkeypatch.setattr(images, "processors", lambda: 1000)
    assert readers("auto", 64, gpu) == 8
    monkeypatch.setitem(images.multiprocessing.current_process()._config, "daemon", True)
    assert readers("auto", 64, gpu) == 0  # it may have no children


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_a_worker_is_one_line(tmp_path, workers):
    path = trees.picture(tmp_path / "cut.png", (60, 60))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"^\S+cut\.png can't be read as an image \([^\n]+\): [^\n]+$"):
        next(iter(Batches(ImageSet([Sample(path, 0)], SIZE), num_workers=workers)))


def test_check_reads_headers_only(tmp_path, monkeypatch):
    sample = Sample(trees.picture(tmp_path / "a.png"), 1, trees.mask(tmp_path / "m.png"))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("pixels were decoded"))
    images.check_headers([sample] * 3, "x")


def test_a_bar_for_many_files(tmp_path, capsys):
    path = trees.picture(tmp_path / "a.png")
    for more in (0, 1):
        with patch.object(images, "Bar", side_effect=images.Bar) as bar:
            images.check_headers([Sample(path, 0)] * (images.BAR_FROM + more), "Brain")
        assert "checking Brain" in str(bar.call_args) and bar.call_args.kwargs["disable"] == (not more)
    assert capsys.readouterr().err == ""  # no terminal


def test_a_pipe_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("x.png", "zero.png"):
        for reader in (open_picture, read_mask, image_size):
            with pytest.raises(InputError, match=f"{name} is a folder, pipe or device"):
                reader(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_that_is_not_finite_names_its_file(tmp_path, value):
    values = np.zeros((4, 4), np.float32)
    Image.fromarray(values).save(tmp_path / "m.tif")
    assert not read_mask(tmp_path / "m.tif").any()
    values[1, 2] = value
    Image.fromarray(values).save(tmp_path / "m.tif")
    with pytest.raises(InputError, match=r"m\.tif has values that are not finite"):
        read_mask(tmp_path / "m.tif")
