"""Words for the prompts where nobody gave any: those of the folder that the images lie in."""

import os
import re
from pathlib import Path

from apps.predict.spec import PredictSpec
from dataset import words_note
from prompt import class_name

UNKNOWN = "object"
DEPTH = 4  # folders that are looked at, from the images upwards
# Names that say what is done with images, where they come from or whose they are, and not what they show.
SAYING_NOTHING = """
    good ok normal normals healthy ungood bad abnormal abnormals defect defects defective anomaly anomalies faulty
    ng train training test testing valid val validation query support reference references known unknown labelled
    img imgs image images photo photos picture pictures scan scans slice slices sample samples case cases file files
    new old all my some input inputs in data dataset datasets archive raw png jpg jpeg tif tiff bmp dcm dicom nifti
    tmp temp home user users root mnt media work desktop documents downloads results output out var srv opt ad
"""


def own_words(spec: PredictSpec) -> str:
    """The object's words, by the name of the folder of normal images, or without one of the input; says so."""
    folder = _folder(str(spec.normal or spec.input[0]))
    for place in [folder, *folder.parents][:DEPTH]:
        name = re.sub(r"_AD$", "", place.name)
        if place.parent != place and says_something(name):
            words = class_name(re.sub(r"[_\-. ]+", "_", name))
            print(words_note(words, f"the folder {place.name}"))
            return words
    print(words_note(UNKNOWN, "default, since no folder's name says what the images show"))
    return UNKNOWN


def says_something(name: str) -> bool:
    """Whether a folder's name may say what its images show."""
    parts = [part for part in re.split(r"[\W_\d]+", name.lower()) if part]
    return any(len(part) > 1 and part not in SAYING_NOTHING.split() for part in parts)


def _folder(name: str) -> Path:
    """The folder that a file, a folder or a pattern stands for."""
    plain = Path(name)
    if not plain.exists():
        plain = Path(*plain.parts[: _patterned(plain)])
    path = Path(os.path.realpath(plain))
    return path if path.is_dir() else path.parent


def _patterned(path: Path) -> int:
    """How many parts of a path come before the first one with a pattern's signs."""
    return next((place for place, part in enumerate(path.parts) if set("*?[") & set(part)), len(path.parts))
