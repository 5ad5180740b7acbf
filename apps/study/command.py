"""study.py's command line: run a study, compare two, list those there are, write the leaderboard."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.study import plans
from apps.study.on_ray import run_on_ray
from apps.study.on_slurm import SlurmSpec, run_on_slurm
from apps.study.own import read_plan
from apps.study.plan import KINDS, Plan, cells_of, restricted
from apps.study.pool import run_locally
from apps.study.stored import (
    STUDIES,
    compare_stored,
    list_studies,
    publish,
    write_leaderboard,
)
from apps.study.study import Backend, Study
from dataset import demo
from runtime.cache import key_of
from runtime.errors import InputError, Parser
from runtime.flags import WORKERS, number, path, positive, words

SAID_BY = {"obj": "--obj", "seed": "--seeds", "shot": "--shots", "demo": "--demo", "results_path": "--results_path"}
LONG = 60  # letters of objects' names from which a study is called by their number and a hash
STORED = ("list", "publish", "leaderboard")  # what is done with studies that were made
HELP = """\
python study.py paper                      the paper's few-shot tables, untrained baselines beside them
python study.py ablation --obj Brain       attention branches, taps, axis, adapters, branches, prompts
python study.py recipe                     the robust recipe's parts, beside the published method
python study.py reproduction               MVFA-AD's zero-shot and few-shot tables, the skin objects
python study.py my_study.yaml              a grid of your own (docs/study.md)
python study.py compare A B                two studies, or two prompt sets or files, seed by seed
python study.py list                       the studies there are
python study.py publish NAME DIR           a study's page, without links, and its tables, to hand on
python study.py leaderboard NAME           docs/leaderboard.md from a study and from published numbers
"""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, by the flags' names."""

    study: str
    names: Sequence[str]
    demo: bool
    obj: Sequence[str] | None
    shots: Sequence[int] | None
    seeds: Sequence[int] | None
    prompts: Sequence[str]
    set: Sequence[str]
    name: str | None
    data_path: Path | None
    results_path: Path
    dry: bool
    strict: bool
    retry: bool
    jobs: int
    on: str
    slurm: Sequence[str]


def parser() -> Parser:
    """The flags."""
    made = Parser(prog="study.py", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("study", type=words, help="which study, or what to do with those there are")
    made.add_argument("names", nargs="*", type=words, help="of compare, publish, leaderboard: studies, prompt files")
    made.add_argument("--demo", action="store_true", help="the embedded demo CLIP on generated images")
    made.add_argument("--obj", nargs="+", action="extend", type=words, help="these objects alone")
    made.add_argument("--shots", nargs="+", action="extend", type=positive, help="instead of the study's own")
    made.add_argument(
        "--seeds", nargs="+", action="extend", type=number(int, 0, 2**32 - 1), help="instead of the study's own five"
    )
    made.add_argument(
        "--prompts", nargs="+", action="extend", type=words, default=[], help="of ablation: JSON files of your own"
    )
    made.add_argument(
        "--set", nargs="+", action="extend", type=words, default=[], metavar="NAME=VALUE", help="settings of every run"
    )
    made.add_argument("--name", type=words, help="of the study's folder in results/studies")
    made.add_argument("--data_path", type=path, help="folder that holds Brain_AD, mvtec, ... (default: data)")
    made.add_argument("--results_path", type=path, default=Path("results"), help="folder for runs and studies")
    made.add_argument("--dry", action="store_true", help="say what would run, and how long it may take")
    made.add_argument("--strict", action="store_true", help="stop when an object's images are missing")
    made.add_argument("--retry", action="store_true", help="try again what failed")
    made.add_argument(
        "--jobs",
        type=number(int, 0, WORKERS),
        default=0,
        help="processes, on Ray a node (default: one a GPU)",
    )
    made.add_argument("--on", type=words, default="local", help="local (default), ray, ray:ADDRESS or slurm")
    made.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        type=words,
        default=[],
        metavar="NAME=VALUE",
        help="what each job asks for",
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says and print it."""
    asked = Asked(**vars(parser().parse_args(argv)))
    if asked.study in STORED and (useless := [name for name in _given(asked) if name not in ("names", "results_path")]):
        raise InputError(f"{asked.study} runs nothing, so --{useless[0]} means nothing to it; leave it out")
    if asked.study == "list":
        if asked.names:
            raise InputError(f"list takes no {asked.names[0]}; see study.py --help")
        print(*list_studies(asked.results_path), sep="\n")
    elif asked.study == "leaderboard":
        print(write_leaderboard(asked.results_path, asked.names))
    elif asked.study == "publish":
        print(*publish(asked.results_path, asked.names), sep="\n")
    elif asked.study == "compare" and not any(_is_prompts(name) for name in asked.names):
        print(*compare_stored(asked.results_path, asked.names), sep="\n")
    else:
        _study(asked)


def _is_prompts(name: str) -> bool:
    return name.endswith(".json") or name in plans.SENTENCES


def _study(asked: Asked) -> None:
    plan, backend = planned(asked), _backend(asked)
    if asked.dry:
        print(*_described(asked, plan), sep="\n")
        return
    study = _opened(asked, plan)
    if asked.demo:
        demo.ensure(Path(_data_path(plan)), names=_demo_objects(plan))
    study.check(strict=asked.strict)
    study.run(backend, retry=asked.retry)
    print(*study.finish(), sep="\n")
    if failed := study.those("failed"):
        raise InputError(f"{len(failed)} of {len(study.runs)} runs failed; --retry tries them again")


def _opened(asked: Asked, plan: Plan, **settings: Any) -> Study:
    plan = replace(plan, settings={**plan.settings, **settings})
    return Study(plan, asked.results_path / STUDIES / plan.name, _command(asked), asked.demo)


def _described(asked: Asked, plan: Plan) -> list[str]:
    """What --dry says: nothing is fetched, and a demo's images that are missing are drawn into a folder that goes."""
    study = _opened(asked, plan, offline=True)
    lines = study.described()
    if not asked.demo or not study.states or not study.those("missing data"):
        return lines
    with TemporaryDirectory() as folder:
        demo.ensure(folder, names=_demo_objects(plan))
        return _opened(asked, plan, offline=True, data_path=folder).described()


def planned(asked: Asked) -> Plan:
    """The plan that the flags ask for."""
    if asked.study == "compare":
        plan = plans.comparison(asked.names)
    elif asked.names:
        raise InputError(f"{asked.study} takes no {asked.names[0]}; see study.py --help")
    elif asked.study.endswith((".yaml", ".yml")):
        plan = read_plan(Path(asked.study))
    else:
        plan = plans.named(asked.study, asked.demo, asked.prompts)
    if asked.prompts and asked.study != "ablation":
        raise InputError("--prompts adds sets to the ablation; in a study of your own it is a setting of a column")
    own = plan.objects
    plan = restricted(plan, asked.obj, asked.demo)
    given = {"shots": asked.shots, "seeds": asked.seeds}
    plan = replace(plan, **{name: tuple(values) for name, values in given.items() if values})
    if asked.shots:
        plan = replace(plan, columns=tuple(replace(column, shots=None) for column in plan.columns))
    places = {"results_path": asked.results_path} | ({"data_path": asked.data_path} if asked.data_path else {})
    plan = replace(plan, settings={**plan.settings, **places, **_settings(asked.set)})
    some = "" if plan.objects == own or not asked.obj else f"-{_short(asked.obj)}"
    name = asked.name or f"{plan.name}{some}{'-demo' * asked.demo}"
    if Path(name).name != name or name == "..":
        raise InputError(f"--name {name} is no name of a folder")
    return replace(plan, name=name)


def _short(objects: Sequence[str]) -> str:
    """Objects' names as a part of a folder's."""
    words = "_".join(objects).replace("/", "_")
    return words if len(words) < LONG else f"{len(objects)}_objects_{key_of(words)[:8]}"


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE, several values apart by commas; what a spec does not take is refused when specs are made."""
    known = {one.name: one for kind in KINDS.values() for one in fields(kind)}
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise InputError(f"--set {text} is not NAME=VALUE with the name of a setting, such as epoch=10")
        if name in SAID_BY:
            raise InputError(f"--set {text}: say it by {SAID_BY[name]}")
        if isinstance(known[name].default, bool):
            found[name] = {"true": True, "false": False}.get(value, value)
        else:
            found[name] = tuple(value.split(",")) if "nargs" in known[name].metadata else value
    return found


def _given(asked: Asked) -> list[str]:
    """What is asked for otherwise than by default."""
    default = Asked(**vars(parser().parse_args([asked.study])))
    return [name for name in vars(asked) if getattr(asked, name) != getattr(default, name)]


def _command(asked: Asked) -> str:
    """The command as a reader may repeat it: without where things lie on this machine, and how many processes."""
    left = ("study", "names", "data_path", "results_path", "jobs", "on", "slurm", "dry", "retry", "strict", "name")
    flags = [name for name in _given(asked) if name not in left]
    told = [f"--{name}" if (value := getattr(asked, name)) is True else f"--{name} {_words(value)}" for name in flags]
    return " ".join(["python study.py", *map(_words, (asked.study, *asked.names)), *told])


def _words(value: Any) -> str:
    """A flag's value; of an absolute path the name, since pages are handed on."""
    if isinstance(value, list):
        return " ".join(map(_words, value))
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)


def _data_path(plan: Plan) -> Path:
    return cells_of(plan)[0].run.spec.data_path


def _demo_objects(plan: Plan) -> list[str]:
    """Those whose images must be drawn: transfer trains on all medical ones."""
    transfer = any(column.script == "train_zero" for column in plan.columns)
    others = [name for name, one in demo.OBJECTS.items() if transfer and one.layout == "medical"]
    return list(dict.fromkeys([*plan.objects, *others]))


def _backend(asked: Asked) -> Backend:
    """Where runs are done."""
    place, _, address = asked.on.partition(":")
    if asked.slurm and asked.on != "slurm":
        raise InputError("--slurm says what jobs of --on slurm ask for; leave it out here")
    if asked.on == "local":
        return lambda folder, units, request, tick: run_locally(folder, units, asked.jobs, request, tick)
    if place == "ray":
        return lambda folder, units, *rest: run_on_ray(folder, units, address or None, asked.jobs, *rest)
    if asked.on == "slurm":
        spec = SlurmSpec.parse(asked.slurm)
        return lambda folder, units, *rest: run_on_slurm(folder, units, spec, *rest)
    raise InputError(f"--on {asked.on} is none of local, ray, ray:ADDRESS, slurm")
