"""Kill a run with Ray again and again; every image is there once, with the score of plain predict.py to the bit.

python -m tests.faults.ray_scale --images 20000

Small images of noise, one of them broken, are scored by plain predict.py; then with `--on ray`, where the driver is
killed twice and an actor thrice, each when so many images are finished.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from helpers.lab import ROOT, SIZE, Lab, write_clip
from helpers.predicting import noise
from helpers.processes import called, descendants, peak_memory, wait_for_end

PIXELS = 32
ACTOR, AGENT = "MapBatches(Scorer)", "Agent"
KILLS = ((0.1, "actor"), (0.2, "driver"), (0.3, "actor"), (0.5, "driver"), (0.6, "actor"))  # when so much is finished


@dataclass
class Told:
    """What became of a run: kills by kind, seconds and images of every stretch, peaks of memory, what it said."""

    kills: Counter[str] = field(default_factory=Counter)
    stretches: list[tuple[float, int]] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    said: str = ""
    outlived: float = 0.0  # seconds for which workers outlived a killed driver, at most


class Scale:
    """A lab with many small images, and runs of predict.py on them. flags: for all runs."""

    def __init__(self, folder: Path, images: int, flags: tuple[object, ...] = ()) -> None:
        self.lab, self.images, self.flags = Lab(folder, *write_clip(folder)), images, flags
        for number in range(images):
            noise(folder / "new" / f"{number // 1000:03}" / f"{number:06}.png", (PIXELS, PIXELS), seed=number)
        for number in range(4):
            noise(folder / "good" / f"{number}.png", (PIXELS, PIXELS), seed=images + number)
        (folder / "new" / "000" / "000100.png").write_bytes(b"no image")

    def start(self, to: str, *flags: object) -> subprocess.Popen:
        """predict.py in a process of its own."""
        lab, root = self.lab, self.lab.root
        usual = ["--device", "cpu", "--cache_path", root / "cache", "--output", root / to, "--normal", root / "good"]
        usual += ["--model_name", lab.config, "--clip_path", lab.weights, "--img_size", SIZE, "--prompts", lab.words]
        usual += ["--classname", "thing", "--input", root / "new", *self.flags, *flags]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "predict.py"), *map(str, usual)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def rows(self, to: str) -> list[dict[str, str]]:
        """scores.csv without what differs from run to run."""
        with (self.lab.root / to / "scores.csv").open(newline="", encoding="utf-8") as file:
            return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]

    def plain(self, to: str = "plain") -> float:
        """Score without Ray; seconds."""
        begun, process = time.monotonic(), self.start(to)
        said = process.communicate()[0].decode()
        assert process.returncode == 1, said  # one image is broken
        return time.monotonic() - begun

    def killed(self, *flags: object, to: str = "ray", kills: tuple[tuple[float, str], ...] = KILLS) -> Told:
        """Score with Ray, with all these kills, until it is finished."""
        told, due = Told(), list(kills)
        while True:
            process, begun, before = self.start(to, "--on", "ray", *flags), time.monotonic(), self.finished(to)
            with suppress(StopIteration):
                self._watch(process, to, due, told)
            told.said = process.communicate()[0].decode(errors="replace")
            told.stretches.append((time.monotonic() - begun, self.finished(to) - before))
            assert "Traceback" not in told.said, told.said
            if process.returncode >= 0:
                assert process.returncode == 1, told.said
                return told

    def _watch(self, process: subprocess.Popen, to: str, due: list[tuple[float, str]], told: Told) -> None:
        """Kill what is due, and note memory, until the process ends."""
        while process.poll() is None:
            time.sleep(0.05)
            started = descendants(process.pid)
            actors = called(started, ACTOR)
            for kind, pids in {"driver": [process.pid], "actor": actors, "all": [process.pid, *started]}.items():
                peaks = [peak_memory(pid) for pid in pids]
                told.peaks[kind] = max([told.peaks.get(kind, 0), *([sum(peaks)] if kind == "all" else peaks)])
            if not due or self.finished(to) < due[0][0] * self.images or not actors:
                continue
            kind = due.pop(0)[1]
            told.kills[kind] += 1
            os.kill(process.pid if kind == "driver" else actors[0], signal.SIGKILL)
            if kind == "driver":
                process.wait()
                told.outlived = max(told.outlived, end_all(started))

    def finished(self, to: str) -> int:
        """How many images have a committed row."""
        import pyarrow.parquet as pq  # only where there are runs to look into

        found = 0
        for path in (self.lab.root / to / "ray" / "checkpoint").glob("*.parquet"):
            if not path.name.endswith(".pending.parquet"):
                with suppress(OSError):  # it may be gone by now
                    found += pq.read_metadata(path).num_rows
        return found


def end_all(pids: list[int]) -> float:
    """Wait for the end of what a killed driver had started; seconds. Two agents of Ray stay, and are ended here."""
    begun, agents = time.monotonic(), called(pids, AGENT)
    assert not wait_for_end([pid for pid in pids if pid not in agents], 60)
    wait_for_end(agents, 0)
    return time.monotonic() - begun


def main() -> None:
    """Score, kill, compare, count."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.ray_scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where to work, instead of a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        scale = Scale(Path(folder), args.images)
        seconds = scale.plain()
        print(f"plain: {seconds:.0f} s, {args.images / seconds:.0f} images/s", flush=True)
        told = scale.killed()
        plain, found = scale.rows("plain"), scale.rows("ray")
        files = Counter(row["file"] for row in found)
        print(f"kills: {dict(told.kills)}, workers outlived their driver by {told.outlived:.1f} s")
        for seconds, images in told.stretches:
            print(f"a stretch of {seconds:.0f} s: {images} images, {images / seconds:.0f} images/s with start and end")
        print({kind: f"{peak / 1e6:.0f} MB" for kind, peak in told.peaks.items()})
        twice = sum(count - 1 for count in files.values())
        print(f"rows: {len(found)}, twice: {twice}, missing: {len({row['file'] for row in plain} - files.keys())}")
        print(f"equal to plain predict.py: {found == plain}")


if __name__ == "__main__":
    main()
