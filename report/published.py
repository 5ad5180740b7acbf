"""Published AUROC, in percent, to stand beside what a run finds. No code of ours made these numbers."""

from typing import Literal

# MVFA-AD: (as printed in the paper, what its authors' released code gives); epochs selected on the test set.
MVFA_AD = {
    "zero": {
        "Histopathology": {"image_auroc": (77.9, 76.9)},
        "Chest": {"image_auroc": (71.11, 71.11)},
        "Retina_OCT2017": {"image_auroc": (95.4, 95.4)},
        "Brain": {"image_auroc": (78.63, 79.8), "pixel_auroc": (90.27, 89.68)},
        "Liver": {"image_auroc": (76.24, 81.18), "pixel_auroc": (97.85, 97.93)},
        "Retina_RESC": {"image_auroc": (83.31, 88.99), "pixel_auroc": (92.05, 90.44)},
        "medical": {"image_auroc": (80.43, 82.23), "pixel_auroc": (93.39, 92.68)},
    },
    4: {
        "Histopathology": {"image_auroc": (82.71, 82.71)},
        "Chest": {"image_auroc": (81.95, 81.95)},
        "Retina_OCT2017": {"image_auroc": (99.38, 99.38)},
        "Brain": {"image_auroc": (92.44, 92.31), "pixel_auroc": (97.3, 97.3)},
        "Liver": {"image_auroc": (81.18, 81.18), "pixel_auroc": (99.73, 99.69)},
        "Retina_RESC": {"image_auroc": (96.18, 96.18), "pixel_auroc": (98.97, 98.97)},
        "medical": {"image_auroc": (88.97, 88.95), "pixel_auroc": (98.67, 98.65)},
    },
}
CLIPMPCAD = {  # few-shot averages
    "medical": {"image_auroc": 90.78, "pixel_auroc": 98.67},
    "industrial": {"image_auroc": 93.11, "pixel_auroc": 97.54},  # MVTec AD, MPDD and BTAD together
}
PATCHCORE = {  # trained on all normal images of the same medical benchmark (BMAD)
    "Brain": {"image_auroc": 91.55, "pixel_auroc": 96.97},
    "Liver": {"image_auroc": 60.4, "pixel_auroc": 96.58},
    "Retina_RESC": {"image_auroc": 91.5, "pixel_auroc": 96.39},
    "Retina_OCT2017": {"image_auroc": 98.56},
    "Chest": {"image_auroc": 75.17},
    "Histopathology": {"image_auroc": 69.34},
}

SELECTED_ON_TEST = "published, epoch selected on the test set"
FULL_SHOT = "published, trained on all normal images"


def protocol(source: str) -> str:
    """How the figures of one of the sources of `published` came about."""
    return FULL_SHOT if source.startswith("PatchCore") else SELECTED_ON_TEST


def published(obj: str, shot: int | Literal["zero", "normal"]) -> dict[str, dict[str, float]]:
    """Source -> {"image_auroc": percent, "pixel_auroc": percent}, as far as published; {} if nothing is.

    obj: a medical object, or "medical", "industrial", "mvtec", "mpdd", "btad" for averages.
    shot: K, "zero" for zero-shot transfer, or "normal" for a memory bank of normal images alone. PatchCore is full-shot
    and stands beside every K and beside "normal".
    """
    found = {}
    mvfa = MVFA_AD.get(shot, {}).get(obj, {})
    for index, source in enumerate(("paper", "rerun")):
        title = f"MVFA-AD {'zero-shot' if shot == 'zero' else f'{shot}-shot'}, {source}"
        found[title] = {metric: values[index] for metric, values in mvfa.items()}
    if isinstance(shot, int) and obj == "medical":
        found["ClipMPCAD few-shot, average"] = CLIPMPCAD["medical"]
    if isinstance(shot, int) and obj in ("industrial", "mvtec", "mpdd", "btad"):
        found["ClipMPCAD few-shot, MVTec+MPDD+BTAD"] = CLIPMPCAD["industrial"]
    found["PatchCore, full-shot"] = PATCHCORE.get(obj, {})
    return {source: dict(figures) for source, figures in found.items() if figures}
