"""predict.py --on ray: what it gives is what plain predict.py gives, whoever is killed on the way.

The slow ones start Ray clusters of this machine: under 5 minutes together on two cores that are free.
"""

import importlib.util
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from faults.ray_scale import Scale
from helpers.lab import Lab, files
from helpers.predicting import Out, noise, predict

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found by /proc")
MODULES = ("listing", "map_store", "ray_cluster", "ray_reading", "ray_run", "ray_scoring", "score_parts")


def refused(done: Out, *words: str) -> bool:
    return done.code == 2 and done.err.count("\n") == 1 and all(word in done.err for word in words)


def rows(out: Out) -> list[dict[str, str]]:
    """Without the seconds, which are never the same."""
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in out.rows]


def on_ray(lab: Lab, *flags: object, to: str = "ray") -> Out:
    return predict(lab, "--input", lab.root / "new", "--on", "ray", "--ray_actors", 1, *flags, to=to)


@pytest.mark.parametrize("place", ["spark", "ray:", "ray:host", "ray://host:10001", "ray:host:6379/x", "ray:a b:1"])
def test_other_places_are_refused(folders, place):
    done = predict(folders, "--input", folders.root / "new", "--on", place)
    assert refused(done, "--on", "ray:HOST:PORT") and not done.folder.exists()


@pytest.mark.parametrize("flags", [("--ray_actors", 2), ("--save_maps", "maps")])
def test_what_is_for_ray_needs_ray(folders, flags):
    done = predict(folders, "--input", folders.root / "new", *flags)
    assert refused(done, flags[0], "--on ray") and not done.folder.exists()


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_without_the_package_there_is_one_line(folders, monkeypatch, missing):
    for name in MODULES:
        monkeypatch.delitem(sys.modules, f"apps.predict.{name}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    done = on_ray(folders)
    assert refused(done, missing, "pip install -r requirements/ray.txt") and not done.folder.exists()


@needs_ray
@pytest.mark.parametrize("place", ["nowhere://bucket", "new/maps"])
def test_a_place_where_no_maps_can_go_is_refused_before_anything_starts(folders, monkeypatch, place):
    monkeypatch.chdir(folders.root)
    done = on_ray(folders, "--save_maps", place)
    assert refused(done, f"--save_maps {place}") and not done.folder.exists()
    assert not (folders.root / "new" / "maps").exists()


@needs_ray
def test_a_folder_of_a_plain_run_is_refused(folders):
    plain = predict(folders, "--input", folders.root / "new")
    before = files(plain.folder)
    done = on_ray(folders, to="out")
    assert refused(done, "--on", "--restart") and files(plain.folder) == before


@needs_ray
@pytest.mark.slow
def test_faults_of_settings_are_one_line_wherever_they_are_found(folders):
    """In a worker that opens the predictor, and where no cluster answers."""
    done = on_ray(folders, "--ckpt", folders.root / "nowhere.pth")
    assert refused(done, "nowhere.pth") and not done.folder.exists(), done.err
    done = predict(folders, "--input", folders.root / "new", "--on", "ray:127.0.0.1:1")
    assert refused(done, "--on ray:127.0.0.1:1", "no cluster answers") and not done.folder.exists(), done.err


@needs_ray
@pytest.mark.slow
def test_images_and_volumes_are_scored_as_without_ray(folders):
    """A volume, a broken file and one with a name that is no UTF-8; with masks, and maps to an URL; and again."""
    new, flags = folders.root / "new", ["--roi", folders.root / "masks", "--normal", folders.root / "good"]
    values = np.random.default_rng(1).integers(0, 99, (12, 10, 3), np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), new / "volume.nii.gz")
    (new / "broken.png").write_bytes(b"no image")
    noise(new / "caf\udce9.png", seed=7)
    for name in ("new0", "new1", "new2", "new3", "broken", "caf\udce9"):  # new4 has none
        noise(folders.root / "masks" / f"{name}.png", seed=3)
    noise(folders.root / "masks" / "volume.png", (12, 10), seed=3)
    plain = predict(folders, "--input", new, *flags)
    url = f"file://{folders.root}/stored maps"
    found = on_ray(folders, *flags, "--save_maps", url)
    assert found.code == plain.code == 1, found.err
    assert rows(found) == rows(plain) and len(rows(found)) == 10
    for words in ("not scored: 2", "broken.png can't be read", "new4.png has no mask"):
        assert words in found.err
    stored = folders.root / "stored maps"
    assert files(stored) == files(plain.folder / "maps")
    assert all((stored / name).read_bytes() == (plain.folder / "maps" / name).read_bytes() for name in files(stored))
    (map_volume,) = files(plain.folder / "volumes")
    assert (found.folder / "volumes" / map_volume).read_bytes() == (plain.folder / "volumes" / map_volume).read_bytes()
    for name in ("calibrated", "threshold", "pixel_threshold", "colours", "maps", "counts", "weights_sha256"):
        assert found.settings[name] == plain.settings[name]
    assert found.settings["options"] == plain.settings["options"] | {"output": str(found.folder)}
    assert found.settings["missing"] == found.settings["duplicates"] == 0
    assert refused(on_ray(folders, *flags), "--save_maps")
    assert refused(predict(folders, "--input", new, to="ray"), "--on")
    noise(new / "broken.png", seed=8)
    again = on_ray(folders, *flags, "--save_maps", url)
    assert "going on: 6 of 8 files" in again.out and "not scored: 1" in again.err
    assert rows(again) == rows(predict(folders, "--input", new, *flags))


@needs_ray
@needs_proc
@pytest.mark.slow
def test_every_image_is_there_once_whoever_is_killed(tmp_path):
    """The driver twice, an actor thrice, with SIGKILL."""
    scale = Scale(tmp_path, 300, ("--tile", 24, "--overlap", 8))
    scale.plain()
    told = scale.killed("--ray_actors", 2)
    assert told.kills == {"driver": 2, "actor": 3}
    assert len(told.stretches) == 3 and all(images > 0 for _, images in told.stretches), told.stretches
    assert scale.rows("ray") == scale.rows("plain") and len(scale.rows("ray")) == 300
    assert sum(row["verdict"] == "unreadable" for row in scale.rows("ray")) == 1
    assert "raylet" not in told.said and "WARNING" not in told.said, told.said


@needs_ray
@needs_proc
@pytest.mark.slow
def test_a_node_of_a_running_cluster_may_die(tmp_path):
    """Two nodes, joined by --on ray:ADDRESS; the one that scores most is killed."""
    from ray.cluster_utils import Cluster

    scale = Scale(tmp_path, 200, ("--tile", 24, "--overlap", 8))
    scale.plain()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "object_store_memory": 100 << 20})
    try:
        other = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        process = scale.start("ray", "--on", f"ray:{cluster.address}")
        while scale.finished("ray") == 0 and process.poll() is None:
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)
        said = process.communicate()[0].decode()
    finally:
        cluster.shutdown()
    assert process.returncode == 1, said
    assert "with 2 actors of 1 threads" in said and "Traceback" not in said
    assert scale.rows("ray") == scale.rows("plain")
