"""How a cluster's CPUs and GPUs are shared out, and what is said of faults; no cluster is started."""

import sys
import threading

import pytest

ray = pytest.importorskip("ray")

from apps.predict import ray_cluster  # noqa: E402
from apps.predict.ray_cluster import OwnVoice, Shape, as_own_faults, patched  # noqa: E402
from apps.predict.spec import ScaleSpec  # noqa: E402
from runtime.errors import InputError  # noqa: E402


def shape(monkeypatch: pytest.MonkeyPatch, nodes: list[dict], device: str = "auto", actors: int = 0) -> Shape:
    total = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    monkeypatch.setattr(ray_cluster.torch, "get_num_threads", lambda: 4)
    return ray_cluster._shape(ScaleSpec(on="ray:auto", ray_actors=actors), device)


@pytest.mark.parametrize(
    ("nodes", "device", "actors", "wanted"),
    [
        ([{"CPU": 18}], "auto", 0, Shape(4, 4, 0)),  # two CPUs are left free
        ([{"CPU": 18}], "cpu", 2, Shape(2, 4, 0)),
        ([{"CPU": 18}], "cpu", 8, Shape(8, 2, 0)),  # fewer threads for many actors
        ([{"CPU": 18}], "cpu", 99, Shape(16, 1, 0)),
        ([{"CPU": 2}, {"CPU": 2}, {"CPU": 2}], "auto", 0, Shape(2, 2, 0)),  # no node has 4
        ([{"CPU": 3}], "auto", 0, Shape(1, 1, 0)),
        ([{"CPU": 32, "GPU": 4}], "auto", 0, Shape(4, 1, 1)),
        ([{"CPU": 32, "GPU": 4}], "cuda", 3, Shape(3, 1, 1)),
        ([{"CPU": 32, "GPU": 4}], "cpu", 0, Shape(7, 4, 0)),
    ],
)
def test_shapes(monkeypatch, nodes, device, actors, wanted):
    assert shape(monkeypatch, nodes, device, actors) == wanted


@pytest.mark.parametrize(
    ("nodes", "device", "words"),
    [
        ([{"CPU": 2}], "auto", "3 are needed"),
        ([{"CPU": 8}], "cuda", "no GPU"),
        ([{"CPU": 8, "GPU": 2}], "cuda:1", "--device cuda$"),
    ],
)
def test_clusters_that_lack_something_are_refused(monkeypatch, nodes, device, words):
    with pytest.raises(InputError, match=words):
        shape(monkeypatch, nodes, device)


def of_task(cause: Exception) -> Exception:
    """As Ray raises what a task raised."""
    return ray.exceptions.RayTaskError("task", "Traceback ...", cause).as_instanceof_cause()


def test_faults_of_workers_come_out_as_they_were():
    for cause in (InputError("weights are missing"), OSError(28, "No space left on device", "/full")):
        with pytest.raises(type(cause)) as raised, as_own_faults("go on"):
            raise of_task(cause)
        assert raised.value is cause
    with pytest.raises(ZeroDivisionError), as_own_faults("go on"):  # a fault of the program keeps its traceback
        raise of_task(ZeroDivisionError("of ours"))


def test_the_end_of_a_cluster_is_one_line():
    for fault in (ray.exceptions.RaySystemError("gcs is gone\nmore"), ConnectionError("reset by peer")):
        with pytest.raises(InputError, match=r"Ray gave up \(.*\); go on") as raised, as_own_faults("go on"):
            raise fault
        assert "\n" not in str(raised.value)


def test_only_our_own_threads_are_heard(capsys):
    voice = OwnVoice(sys.stdout)
    for name in ("ray_listen_error_messages", "ours"):
        thread = threading.Thread(target=print, args=(f"by {name}",), kwargs={"file": voice}, name=name)
        thread.start()
        thread.join()
    assert capsys.readouterr().out == "by ours\n"


def test_variables_are_as_before(monkeypatch):
    monkeypatch.setenv("CLIPMPCAD_ONE", "kept")
    with patched({"CLIPMPCAD_ONE": "now", "CLIPMPCAD_TWO": "now"}):
        assert ray_cluster.os.environ["CLIPMPCAD_ONE"] == ray_cluster.os.environ["CLIPMPCAD_TWO"] == "now"
    assert ray_cluster.os.environ["CLIPMPCAD_ONE"] == "kept" and "CLIPMPCAD_TWO" not in ray_cluster.os.environ
