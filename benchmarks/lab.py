"""How long the prompt lab takes to answer an edit: both sets, maps, figures and pulling sentences, to finished HTML.

    python -m benchmarks.lab                          (trains a small checkpoint first; two minutes on two CPU cores)

Demo CLIP, generated pictures of Brain, prompts "all" with one sentence added; medians of EDITS different edits. CPU
seconds are of all threads: what a busy machine's clock does not change much.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from apps.promptlab.session import EACH, LabSession
from engine import FewShotSpec, train_few_shot
from runtime.errors import exit_code
from runtime.files import atomic_write

OUT = Path(__file__).with_name("lab.md")
EDITS = 9
LIMIT = 1.0  # seconds
OBJ = "Brain"


def seconds(session: LabSession, name: str, each: int) -> tuple[float, float]:
    """Median seconds of an answer after one edit, of `each` images of either label: by the clock, and of the CPU."""
    lab = session.lab(OBJ, name)
    names, start, other = session.chosen(lab, each), session.start(lab), session.start(lab, "base")
    taken = []
    for edit in range(EDITS + 1):  # the first takes the images in
        edited = (f"{start[0]}\na {{classname}} of kind {each} {edit}", *start[1:])
        started = time.perf_counter(), time.process_time()
        session.answer(OBJ, name, names, "score of A", edited + other)
        taken.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    wall, cpu = zip(*taken[1:], strict=True)
    return statistics.median(wall), statistics.median(cpu)


def main() -> None:
    """Train, time, write the table; say whether an edit is quick enough."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"save_path": f"{scratch}/ckpt", "results_path": f"{scratch}/results", "log_dir": f"{scratch}/runs"}
        train_few_shot(FewShotSpec.of(demo=True, obj=OBJ, epoch=2, eval_every=0, **folders))
        session = LabSession({"demo": True, "save_path": Path(scratch, "ckpt")}, Path(scratch))
        rows = [(name, each, *seconds(session, name, each)) for name in session.checkpoints(OBJ) for each in (EACH, 25)]
    lines = ["| checkpoint | images | seconds after one edit | CPU seconds |", "|---|---|---|---|"]
    lines += [f"| {name} | {2 * each} | {wall:.2f} | {cpu:.2f} |" for name, each, wall, cpu in rows]
    lines += ["", f"{torch.get_num_threads()} threads; demo CLIP, 588 sentences and one more in set A, 420 in set B."]
    with atomic_write(OUT) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    worst = max(wall for _, each, wall, _ in rows if each == EACH)
    print(f"{'within' if worst < LIMIT else 'NOT within'} {LIMIT:g} s at the page's own {2 * EACH} images")


if __name__ == "__main__":
    sys.exit(exit_code(main))
