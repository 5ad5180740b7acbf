"""--on ray: a real cluster of two nodes on this machine, one of which dies."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.lab import Lab
from helpers.small_studies import LONG, SmallStudy

from apps.study import on_ray
from apps.study.plan import units_of
from runtime.errors import InputError
from runtime.stopping import StopRequest

SEEDS = (111, 222, 333)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Two nodes with a processor each; the study is at home on the first."""
    for name, value in on_ray.QUIET.items():
        monkeypatch.setenv(name, value)
    utils = pytest.importorskip("ray.cluster_utils", reason="needs Ray: pip install -r requirements/dev.txt")
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_stop_and_a_dead_node_change_no_figure_and_do_nothing_twice(lab: Lab, cluster, monkeypatch):
    monkeypatch.setattr(on_ray, "TICK", 0.2)
    lab.medical("Brain")
    small, request, killed = SmallStudy(lab, "there", SEEDS, LONG), StopRequest(), []

    def stop() -> None:
        request.asked = request.asked or len(small.training()) == 2

    units = units_of(small.study().left)
    assert on_ray.run_on_ray(small.folder, units, cluster.address, 0, request, stop) == []
    assert small.states() == ["waiting"] * 3 and len(small.saved()) == 2

    def kill() -> None:
        if not killed and small.training() and small.went_on():
            killed.extend(cluster.worker_nodes)
            cluster.remove_node(killed[0], allow_graceful=False)

    small.done(lambda folder, units, request, tick: on_ray.run_on_ray(folder, units, cluster.address, 0, request, kill))
    assert killed and small.states() == ["finished"] * 3
    assert len(small.finished()) == len(set(small.finished())) == 3
    assert small.figures() == SmallStudy(lab, "here", SEEDS, LONG).done().figures()


@pytest.mark.slow
def test_a_unit_whose_process_dies_too_often_or_that_raises_is_told(lab: Lab, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/dev.txt")
    monkeypatch.setattr(on_ray, "RETRIES", 0)
    monkeypatch.chdir(lab.root)  # by which the processes of this test are told from others
    lab.medical("Brain")
    small, killed, handler = SmallStudy(lab, "killed", SEEDS[:1], LONG), [], signal.getsignal(signal.SIGTERM)

    def kill() -> None:
        if not killed and small.training():
            killed.extend(pid for pid in pids() if (Path("/proc") / pid / "cwd").resolve() == lab.root.resolve())
            for pid in killed:
                os.kill(int(pid), signal.SIGKILL)

    units = [*units_of(small.study().left), ["no run"]]
    died = on_ray.run_on_ray(small.folder, units, "local", 1, StopRequest(), kill)
    assert len(killed) == 1 and signal.getsignal(signal.SIGTERM) is handler
    reasons = {unit[0]: reason for unit, reason in died}
    assert reasons.keys() == {units[0][0], "no run"} and not any("\n" in reason for reason in reasons.values())
    assert reasons[units[0][0]].startswith("its process died 1 times, at last: ")
    assert reasons["no run"].startswith("AttributeError: ")


def pids() -> list[str]:
    """Processes that do a unit, as Ray names them."""
    found = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    return [path.name for path in found if _name(path).startswith(b"ray::_do")]


def _name(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_node_without_the_working_directory_says_so(tmp_path):
    with pytest.raises(InputError, match=r"can't enter .*nowhere; all must share the file system"):
        on_ray._do(str(tmp_path / "nowhere"), tmp_path, [])


def nodes(*resources: dict[str, float]) -> list[dict]:
    return [{"Alive": True, "Resources": one} for one in resources]


def test_tasks_fill_the_smallest_node_that_can_work():
    small, large = {"CPU": 8.0}, {"CPU": 64.0}
    with_gpus, more_gpus = {"CPU": 32.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 8.0}

    def asked(resources: list[dict], jobs: int = 0) -> tuple[float, float]:
        found = on_ray._resources(resources, jobs)
        assert found["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == str(found["num_cpus"])
        return found["num_cpus"], found["num_gpus"]

    assert asked(nodes(small, large)) == (8, 0)
    assert asked(nodes(small, large), jobs=3) == (2, 0)
    assert asked(nodes(small), jobs=100) == (1, 0)
    assert asked(nodes({"CPU": 0.0}, large)) == (64, 0)  # a head that takes no work
    assert asked([*nodes(large), {"Alive": False, "Resources": small}]) == (64, 0)
    assert asked(nodes(small, with_gpus, more_gpus)) == (8, 1)
    assert asked(nodes(with_gpus), jobs=2) == (16, 1)
    assert asked(nodes(with_gpus), jobs=8) == (4, 0.5)
    with pytest.raises(InputError, match="no node of the cluster has a processor"):
        asked(nodes({"CPU": 0.0}))


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^--on ray needs Ray: pip install -r requirements/ray\.txt$"):
        on_ray.run_on_ray(Path("nowhere"), [], None, 0, StopRequest(), lambda: None)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "no cluster at 127.0.0.1:1: "),
        ("nowhere.invalid:6379", "no cluster at nowhere.invalid:6379: "),
        ("head", "ray:head has no address as HOST:PORT"),
        ("head:0", "ray:head:0 has no address as HOST:PORT"),
        ("ray://head:10001/", "has no address as HOST:PORT"),
    ],
)
def test_an_address_where_no_cluster_is_is_one_line(address, says):
    pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/dev.txt")
    with pytest.raises(InputError, match=re.escape(says)) as fault:
        on_ray.run_on_ray(Path("nowhere"), [], address, 0, StopRequest(), lambda: None)
    assert "\n" not in str(fault.value)
