"""A run of predict.py with Ray Data: read -> score in actors -> write parquet, taken up again by its checkpoints."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import ray
from pyarrow.fs import FileSystem, LocalFileSystem
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.checkpoint import CheckpointConfig, IdColumnCheckpointManager

from apps.predict import inputs
from apps.predict.listing import ID, Listing, write_listing
from apps.predict.map_store import check_maps
from apps.predict.outputs import PROGRESS, TABLE, UNREADABLE, Outputs
from apps.predict.progress import Progress, settings_of
from apps.predict.ray_cluster import Shape, as_own_faults, cluster
from apps.predict.ray_reading import BLOCK, ListingSource, read_bytes
from apps.predict.ray_scoring import Job, Opened, Scorer, describe
from apps.predict.roi import RegionMasks
from apps.predict.score_files import made
from apps.predict.score_parts import PENDING, Counts, Parts
from apps.predict.spec import PredictSpec, ScaleSpec, check_asked
from runtime.bars import Bar
from runtime.errors import InputError, Stopped

SCORES, OWN = "scores", "ray"  # folders in --output: parts for all to read, and what only this program does
LIGHT = 0.25  # CPUs of a task that reads or writes
SHOWN_EVERY = 2.0  # seconds between two looks at how much is finished
BATCH = 16  # files that an actor is given at a time
GO_ON = "the same command goes on where it stopped"


def predict_files(asked: Mapping[str, Any]) -> bool:
    """Score the files that --input names; whether all could be read. asked: settings of `ScaleSpec` by name.

    Raises InputError where nothing could start and where the cluster is lost, OSError for a full disk.
    """
    scale = ScaleSpec.of(asked)
    asked = {one.name: asked[one.name] for one in fields(PredictSpec) if one.name in asked}
    check_asked(asked)
    spec = PredictSpec.of(asked)
    if "precision" in asked:
        asked["precision"] = spec.precision  # chosen once, not by every machine
    if scale.save_maps is not None:
        check_maps(scale.save_maps, spec.input)
    files = inputs.find(spec.input, spec.output)
    inputs.check_packages(files)
    with made(spec.output):
        settings = settings_of(spec, asked) | {"on": "ray", "save_maps": scale.save_maps}
        progress = Progress(spec.output, settings, spec.restart)
        parts = Parts(spec.output / SCORES, spec.output / OWN / "checkpoint")
        if spec.restart:
            for folder in (parts.scores, parts.checkpoint):
                shutil.rmtree(folder, ignore_errors=True)
        with _tidied(spec.output):
            masks = RegionMasks(spec.roi, files) if spec.roi else None
            listing = write_listing(spec.output / OWN / "listing.parquet", files, masks)
            del files, masks  # of a million files, most of this process's memory
            with cluster(scale, spec.device) as shape:
                job = Job(spec, asked, str(Path.cwd()), listing.path.absolute(), shape.threads, scale.save_maps)
                return _score(job, shape, progress, parts, listing)


@contextmanager
def _tidied(output: Path) -> Iterator[None]:
    """Where nothing came of a run, its list of files goes again."""
    try:
        yield
    except BaseException:
        if not (output / PROGRESS).exists():
            shutil.rmtree(output / OWN, ignore_errors=True)
        raise


def _score(job: Job, shape: Shape, progress: Progress, parts: Parts, listing: Listing) -> bool:
    with as_own_faults("run again"):
        opened: Opened = ray.get(ray.remote(max_calls=1, **shape.remote())(describe).remote(job))
    print(opened.said, end="")
    if progress.model is not None:
        progress.check_model(opened.digest)
    progress.start({}, opened.digest)
    outputs, started = opened.outputs, time.time()
    record = {"script": "predict.py", **opened.origin, "branch": opened.branch, "on": "ray"}
    if done := parts.settle(listing):
        print(f"going on: {done} of {len(listing.ids)} files were scored before")
    outputs.begin([])
    print(f"scoring with {shape.actors} actors of {shape.threads} threads" + (" and a GPU" if shape.gpus else ""))
    try:
        if done < len(listing.ids):
            with as_own_faults(GO_ON), bar(parts, len(listing.ids), done):
                run(replace(job, known_by=opened.known_by), shape, parts, listing)
    except KeyboardInterrupt:
        _finish(outputs, parts, listing, record | {"stopped": True})
        raise Stopped(f"stopped by the user; {GO_ON}") from None
    record |= {"seconds": round(time.time() - started, 1), "environment": opened.environment}
    counts = _finish(outputs, parts, listing, record)
    if counts.missing:
        raise InputError(f"{counts.missing} files have no row in {parts.scores}; {GO_ON}")
    return not counts.verdicts[UNREADABLE]


def run(job: Job, shape: Shape, parts: Parts, listing: Listing) -> None:
    """Score what no checkpoint has, and write it as parts."""
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = BLOCK
    parts.checkpoint.mkdir(parents=True, exist_ok=True)
    known = CheckpointConfig(
        ID,
        str(parts.checkpoint.absolute()),
        delete_checkpoint_on_success=False,
        override_filesystem=LocalFileSystem(),
        checkpoint_manager_cls=FinishedIds,
    )
    known.checkpoint_actor_pool_max_size = 1  # enough: it looks numbers up
    known.checkpoint_actor_memory_bytes = BLOCK
    context.checkpoint_config = known
    source, ahead = ListingSource(job.listing), TaskPoolStrategy(size=shape.actors + 1)
    data = ray.data.read_datasource(source, override_num_blocks=listing.shares, num_cpus=LIGHT)
    data = data.map_batches(
        partial(read_bytes, cwd=job.cwd), batch_size=None, batch_format="pyarrow", compute=ahead, num_cpus=LIGHT
    )
    pool = ActorPoolStrategy(
        min_size=1, max_size=shape.actors, initial_size=shape.actors, max_tasks_in_flight_per_actor=2
    )
    data = data.map_batches(
        Scorer,
        fn_constructor_args=(job,),
        batch_size=BATCH,
        batch_format="pyarrow",
        compute=pool,
        **shape.remote(),
    )
    data.write_parquet(str(parts.scores.absolute()), filesystem=LocalFileSystem(), ray_remote_args={"num_cpus": LIGHT})


class FinishedIds(IdColumnCheckpointManager):
    """Reads the ids of finished files here; Ray's own way starts a dozen processes for it."""

    def load_checkpoint(
        self, data_file_dir: str | None = None, data_file_filesystem: FileSystem | None = None
    ) -> tuple[Any, int]:
        """Take away parts that may be half-written; then a reference to the sorted ids (N,) int64, and their bytes."""
        if data_file_dir is not None:
            self._clean_pending_checkpoints(data_file_dir, data_file_filesystem)
        files = [str(path) for path in Path(self.checkpoint_path).glob("*.parquet")]
        if not files:
            return None, 0
        ids = np.sort(ds.dataset(files, format="parquet").to_table([ID])[ID].to_numpy())
        return ray.put(ids), ids.nbytes


@contextmanager
def bar(parts: Parts, files: int, done: int) -> Iterator[None]:
    """A progress bar of finished files, by the checkpoints that are there."""
    shown, over = Bar(total=files, initial=done, desc="scoring", unit="file", leave=False), threading.Event()
    seen = set(parts.checkpoint.glob("*.parquet"))

    def watch() -> None:
        pause = SHOWN_EVERY
        while not over.wait(pause):
            begun = time.monotonic()
            for path in set(parts.checkpoint.glob("*.parquet")) - seen:
                if not path.name.endswith(PENDING):
                    seen.add(path)
                    shown.update(pq.read_metadata(path).num_rows)
            pause = max(SHOWN_EVERY, 20 * (time.monotonic() - begun))  # many files take long to list

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shown.close()


def _finish(outputs: Outputs, parts: Parts, listing: Listing, record: dict) -> Counts:
    """Write scores.csv and settings.json, and say how it went."""
    counts = parts.write_csv(outputs.folder, listing)
    made_of = {"counts": dict(counts.verdicts), "missing": counts.missing, "duplicates": counts.duplicates}
    outputs.record(record | outputs.settings() | made_of)
    outputs.say(counts.verdicts)
    print(f"results: {outputs.folder / TABLE}; parts: {parts.scores}")
    if failed := counts.verdicts[UNREADABLE]:
        print(f"not scored: {failed}", file=sys.stderr)
        for note in counts.faults:
            print(f"  {note}", file=sys.stderr)
        if more := failed - len(counts.faults):
            print(f"  and {more} more: see the column error of {parts.scores}", file=sys.stderr)
    return counts
