"""The studies that have a name: the paper's tables, ablations, MVFA-AD's tables and their reproduction."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from apps.study.outputs.rows import SELECTION
from apps.study.plan import ZERO, Column, Plan
from dataset.demo import OBJECTS as IN_THE_DEMO
from dataset.registry import FAMILIES
from decoder import default_taps
from engine.build import taps_of
from engine.recipe import PAPER, ROBUST
from engine.spec import FewShotSpec
from madff import ATTENTIONS
from report.tables import INDUSTRIAL_THREE, SIX_MEDICAL
from runtime.errors import InputError

INDUSTRIAL = tuple(name for family in INDUSTRIAL_THREE for name in FAMILIES[family])
DRAWN = {"iterate": -1}  # the support is drawn with the seed, so that the spread is that of draws
PUBLISHED = {"iterate": 0}  # the published selection: the spread is that of starts and orders alone
DEMO = {"epoch": 2, "img_size": 160}  # of the demo's studies, so that hundreds of runs take minutes
MADFF, BANK = "MADFF", "memory bank"
SKIN = ("Skin_HAM10000", "Skin_ISIC2019")
SKIN_SHOTS = (2, 4, 8, 16, 32, 64)
SENTENCES = ("base", "llm", "all")
COMPARISON = "comparison"
BASELINES = (
    Column(BANK, {"adapter": "none"}, branch="few"),
    Column("PatchCore", {"method": "patchcore"}),
    Column("WinCLIP", {"method": "winclip"}),
    Column("linear", {"method": "linear"}),
)


def paper(demo: bool) -> Plan:
    """Few-shot tables: six medical objects and the industrial sets, MADFF and MVFA beside what needs no training."""
    methods = (Column(MADFF), Column("MVFA", {"adapter": "mvfa"}))
    selected = tuple(
        replace(column, group=SELECTION, settings={**column.settings, **PUBLISHED}, objects=SIX_MEDICAL)
        for column in methods
    )
    return Plan(
        "paper",
        "Few-shot anomaly detection, 4-shot",
        methods + BASELINES + (() if demo else selected),
        tuple(IN_THE_DEMO) if demo else SIX_MEDICAL + INDUSTRIAL,
        settings={"eval_every": 0, **DRAWN, **(DEMO if demo else {})},
        reference=MADFF,
    )


def ablation(demo: bool, prompts: Sequence[str] = ()) -> Plan:
    """What each part is worth: attention branches, taps, axis, adapters, branches, prompts."""
    return Plan(
        "ablation",
        "Ablations",
        (*_attentions(), *_taps(demo), *_adapters(), *_branches(), *_prompts([*SENTENCES, *prompts])),
        ("Brain",),
        settings={"eval_every": 0, **DRAWN, **(DEMO if demo else {})},
        reference=MADFF,
    )


def _attentions() -> list[Column]:
    subsets = [some for count in range(len(ATTENTIONS)) for some in combinations(ATTENTIONS, count)]
    names = [" + ".join(some).upper() or "no attention" for some in subsets]
    found = [Column(name, {"madff": some}, "attention branches") for name, some in zip(names, subsets, strict=True)]
    return [*found, Column(MADFF, group="attention branches")]


def _taps(demo: bool) -> list[Column]:
    every = taps_of(FewShotSpec.of(demo=demo))
    assert every == default_taps(every[-1])
    subsets = [*((tap,) for tap in every), every[:2], every[2:], every[1:]]
    named = [("tap " if len(some) == 1 else "taps ") + " ".join(map(str, some)) for some in subsets]
    found = [Column(name, {"features_list": some}, "taps") for name, some in zip(named, subsets, strict=True)]
    return [*found, Column(MADFF, group="taps")]


def _adapters() -> list[Column]:
    return [
        Column("MADFF, token axis", {"madff_axis": "token"}, "adapters"),
        Column("MVFA", {"adapter": "mvfa"}, "adapters"),
        Column("projector", {"adapter": "projector"}, "adapters"),
        Column("untrained", {"adapter": "none"}, "adapters"),
        Column(MADFF, group="adapters"),
    ]


def _branches() -> list[Column]:
    trained = [Column(f"MADFF, {branch}", group="branches", branch=branch) for branch in ("zero", "few")]
    bare = {"adapter": "none"}
    untrained = [Column(f"untrained, {one}", bare, "branches", branch=one) for one in ("zero", "few", "fused")]
    return [*trained, *untrained, Column(MADFF, group="branches", branch="fused")]


def _prompts(sets: Sequence[str]) -> list[Column]:
    """Every set trained with, and put into what another set trained, and without training."""
    found = []
    for trained in sets:
        for scored in sets:
            label = trained if trained == scored else f"{trained}, scored with {scored}"
            found.append(Column(label, {"prompts": trained}, "prompts", scored_with=scored))
    found += [Column(f"untrained, {one}", {"adapter": "none", "prompts": one}, "prompts") for one in sets]
    return found


def recipe(demo: bool) -> Plan:
    """The parts of the robust recipe, each alone beside the published method, and all that are in it (docs/recipe.md).

    Parts that need no out-of-fold scores are run without folds, which change nothing of their figures.
    """
    alone: dict[str, dict[str, Any]] = {
        "averaged weights": {"average_epochs": 2},
        "ensemble of 4": {"ensemble": 4},
        "synthetic": {"synthetic": 2},
        "top 1 %": {"image_score": "top"},
        "3 x 3": {"neighbourhood": 3},
        "5 x 5": {"neighbourhood": 5},
        "smoothed": {"smooth": 4.0},
        "bank of images alone": {"bank_variants": "none"},
    }
    by_support: dict[str, dict[str, Any]] = {
        "epoch by support": {"epoch_by": "support"},
        "fusion by support": {"fusion": "support"},
        "taps by support": {"bank_taps": "support"},
        "cues": {"image_score": "cues"},
        "cues, linear": {"image_score": "cues", "head": "linear"},
    }
    masked = tuple(name for name, one in IN_THE_DEMO.items() if one.masks)
    parts = [Column(label, settings, "parts") for label, settings in by_support.items()]  # first: they share folds
    parts += [
        Column(label, {"folds": 0, **settings}, "parts", objects=masked if "synthetic" in settings else None)
        for label, settings in alone.items()
    ]
    untrained = {"adapter": "none"}
    whole = [
        Column(ROBUST, {"recipe": ROBUST}),
        Column("untrained, robust", {**untrained, "recipe": ROBUST}),
        Column("untrained", untrained),
        Column("PatchCore", {"method": "patchcore"}),
        Column("linear", {"method": "linear"}),
    ]
    return Plan(
        "recipe",
        "The robust recipe and its parts, 4-shot",
        (Column(PAPER), *whole, Column(PAPER, group="parts"), *parts),
        tuple(IN_THE_DEMO) if demo else SIX_MEDICAL + INDUSTRIAL,
        settings={"eval_every": 0, **DRAWN, **(DEMO if demo else {})},
        reference=PAPER,
    )


def reproduction(demo: bool) -> Plan:
    """MVFA-AD's zero-shot and few-shot tables, and its reproduction study's skin objects, shots and ablations."""
    mvfa = {"adapter": "mvfa", "prompts": "base", **PUBLISHED}
    projector = {**mvfa, "adapter": "projector"}
    columns = [
        Column("MVFA, few-shot", mvfa),
        Column("MVFA, zero-shot", {"adapter": "mvfa", "prompts": "base"}, script=ZERO),
    ]
    if not demo:
        skin = {"group": "skin", "objects": SKIN}
        columns += [
            Column("MVFA", mvfa, shots=SKIN_SHOTS, **skin),
            Column("projector", projector, shots=SKIN_SHOTS, **skin),
            Column("MVFA, zero branch", mvfa, branch="zero", shots=SKIN_SHOTS, **skin),
            Column("MVFA, few branch", mvfa, branch="few", shots=SKIN_SHOTS, **skin),
            Column("normal images alone", {**mvfa, "abnormal_shot": 0}, shots=SKIN_SHOTS, **skin),
            Column("MVFA, zero-shot", {"adapter": "mvfa", "prompts": "base"}, script=ZERO, **skin),
        ]
    demo_objects = tuple(name for name, one in IN_THE_DEMO.items() if one.layout == "medical")
    return Plan(
        "reproduction",
        "MVFA-AD and its reproduction study",
        tuple(columns),
        demo_objects if demo else SIX_MEDICAL,
        settings=DEMO if demo else {},
        reference="MVFA, few-shot",
    )


def comparison(files: Sequence[str]) -> Plan:
    """Prompt sets or files against each other, the first of them the reference."""
    if len(files) < 2:
        raise InputError("compare takes two studies, or two prompt sets or files: python study.py compare A B")
    return Plan(
        COMPARISON,
        "Prompts against each other",
        tuple(Column(name, {"prompts": name}) for name in files),
        ("Brain",),
        settings={"eval_every": 0, **DRAWN},
        reference=files[0],
    )


def named(name: str, demo: bool, prompts: Sequence[str]) -> Plan:
    """The plan called so; InputError for a name that there is not."""
    made = {"paper": paper, "recipe": recipe, "reproduction": reproduction}
    if name == "ablation":
        return ablation(demo, prompts)
    if name not in made:
        raise InputError(f"no study {name}: name paper, ablation, recipe, reproduction, or a .yaml file of your own")
    return made[name](demo)
