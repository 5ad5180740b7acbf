"""Recipes: what is made of the published method, and which settings that stands for (docs/recipe.md)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from engine.settings import Spec, setting, threshold_rule
from runtime.errors import InputError
from runtime.flags import MANY, SIDE, natural, number, positive

PAPER, ROBUST = "paper", "robust"
RECIPES: dict[str, dict[str, Any]] = {  # what each makes of settings that nobody asked for
    PAPER: {
        "epoch_by": "last",
        "average_epochs": 1,
        "synthetic": 0,
        "fusion": "half",
        "image_score": "published",
        "smooth": 0.0,
        "neighbourhood": 1,
        "bank_taps": "all",
        "bank_variants": "all",
        "head": "none",
    },
}
RECIPES[ROBUST] = RECIPES[PAPER] | {"image_score": "cues", "head": "linear", "smooth": 4.0}
PARTS = tuple(RECIPES[PAPER])  # of a recipe


@dataclass(frozen=True, kw_only=True)
class RecipeSpec(Spec):
    """What is made of the published method; a part that is not given is as --recipe has it (docs/recipe.md)."""

    GROUP: ClassVar = "recipe"
    recipe: str | None = setting(
        None,
        "paper: as published; robust: ours, weighed and calibrated by the support alone; default: paper for "
        "benchmarks, robust for your images",
        choices=tuple(RECIPES),
    )
    folds: int = setting(
        4,
        "parts of the support that are left out in turn, for scores of images that were not seen; 0: scores of the "
        "images that were trained on",
        type=number(int, 0, MANY),
    )
    threshold_rule: str = setting(
        "balanced",
        "of out-of-fold scores: equally probable, largest F1, or a share found right",
        type=threshold_rule,
        metavar="f1|balanced|recall:R|specificity:S",
    )
    epoch_by: str | None = setting(
        None, "which epoch counts: the last, or the one with the best out-of-fold scores", choices=("last", "support")
    )
    average_epochs: int | None = setting(None, "epochs, the last ones, whose weights are averaged", type=positive)
    synthetic: int | None = setting(
        None, "further abnormal images from each normal one, by pasting lesions of abnormal ones", type=natural
    )
    fusion: str | None = setting(
        None, "the branches' shares: half and half, or by out-of-fold scores", choices=("half", "support")
    )
    image_score: str | None = setting(
        None,
        "of a map its maximum (or of patches their mean), the mean of its top 1 %, or the first and cues, by halves",
        choices=("published", "top", "cues"),
    )
    smooth: float | None = setting(
        None, "deviation of the Gaussian that maps are smoothed by, in pixels", type=number(float, 0, SIDE)
    )
    neighbourhood: int | None = setting(
        None, "patches a side whose mean is compared with the memory bank", type=int, choices=(1, 3, 5)
    )
    bank_taps: str | None = setting(
        None, "taps of the memory bank: all, or those that separate the support", choices=("all", "support")
    )
    bank_variants: str | None = setting(
        None, "images in the memory bank: all variants, or themselves alone", choices=("all", "none")
    )
    head: str | None = setting(
        None, "linear: a probe on the trunk's tokens as a further cue", choices=("none", "linear")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in RECIPES.get(self.recipe, {}).items():  # without one when the object is known
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.folds == 1:
            raise InputError("--folds 1 leaves nothing to train on; give 0, or 2 or more")
        if self.image_score == "cues" and not self.folds:
            raise InputError("--image_score cues are weighed by out-of-fold scores: let --folds be 2 or more")
        if self.epoch_by == "support" and not self.folds:
            raise InputError("--epoch_by support chooses by out-of-fold scores: let --folds be 2 or more")
        if self.head == "linear" and self.image_score not in (None, "cues"):
            raise InputError("--head linear is a cue: give --image_score cues beside it")

    def of_recipe(self, recipe: str) -> Self:
        """The same settings, what is open of them as that recipe has it, unless they have one."""
        return replace(self, recipe=recipe) if self.recipe is None else self


AS_IN_THE_PAPER = RecipeSpec(recipe=PAPER, folds=0)
