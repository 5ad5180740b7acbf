"""P-Prompts from a language model: asked for, validated like a stranger's, shown as a difference, written on demand."""

import difflib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import prompt
from apps.prompts.chat import ask, endpoint
from apps.prompts.check import slips, visible
from engine.settings import Spec, setting
from runtime.errors import InputError
from runtime.flags import number, path

ROLES = [  # words of the modality or the object: who speaks; the first that fits
    (r"histo|patholog|cytolog|microscop|biops|h&e|\bstain(?:ed|ing)?\b|smear", "a pathologist"),
    (r"dermo|dermat|skin|na?ev(?:us|i)|melanom", "a dermatologist"),
    (r"retina|fundus|\boct\b|ophthalm|macula|cornea", "an ophthalmologist"),
    (r"endoscop|colonoscop|gastroscop", "a gastroenterologist"),
    (r"\bmri?\b|\bct\b|x-?ray|radiogra|tomogra|ultraso|sonogra|mammo|\bpet\b|angiogra", "a radiologist"),
    (r"", "a quality inspector on a production line"),
]
MOST = 10_000  # sentences that are asked for
SHOWN = 20  # slips in an answer that are printed


@dataclass(frozen=True, kw_only=True)
class GenerateSpec(Spec):
    """P-Prompts from any OpenAI-compatible chat endpoint. Without --output they are only shown."""

    GROUP: ClassVar = "generating"
    obj: str | None = setting(None, "the object, of prompt.py or your own", required=True)
    modality: str | None = setting(None, "what kind of image, e.g. 'T2-weighted brain MRI'", required=True)
    api: str | None = setting(None, "e.g. http://localhost:11434/v1", required=True, metavar="URL")
    model: str | None = setting(None, "the model's name at that endpoint", required=True)
    key_env: str | None = setting(None, "environment variable of the key (default: OPENAI_API_KEY)", metavar="NAME")
    classname: str | None = setting(None, "words for the object; default: its own")
    role: str | None = setting(None, "who speaks, e.g. 'a radiologist'; default: by the modality")
    normal: int = setting(40, "normal sentences to ask for", type=number(int, 1, MOST))
    abnormal: int = setting(80, "abnormal sentences to ask for", type=number(int, 1, MOST))
    timeout: float = setting(300.0, "for a whole answer", type=number(float, 1, 3600), metavar="S")
    drop: bool = setting(False, "leave faulty sentences out rather than refuse the answer")
    output: Path | None = setting(None, "write a file for --prompts, if all is well", type=path, metavar="FILE")
    force: bool = setting(False, "write over an existing --output")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.modality or "").strip() or not (self.model or "").strip():
            raise InputError("--modality and --model must say something")
        if self.output is not None and self.output.suffix.lower() != ".json":
            raise InputError(f"--output {self.output}: name a .json file, which --prompts will read")


SYSTEM = """You are {role} with long practice. You write captions of images: short sentences that a vision-language \
model (CLIP) will compare with an image to tell normal from abnormal. You write only what can be seen in a single \
image, in the words of a report of your profession."""

REQUEST = """Write captions of this kind of image: {modality}. It shows: {name}.

1. {normal} captions of NORMAL images. Each names one or two signs that everything is in order: structure, outline, \
symmetry, texture, brightness, completeness, and the like, as they look in this kind of image. Say what is there, not \
what is absent.

2. {abnormal} captions of ABNORMAL images. Compose them of finding x severity x location. First settle for yourself \
about {findings} findings that really occur in such images, the frequent ones first; 4 or 5 grades of severity or size \
(such as small, large, faint, clearly visible); and about {places} locations that your profession distinguishes here. \
Then combine them, so that every finding comes at several locations and in several grades. Each caption says what is \
wrong and where; none denies a finding or calls the image normal.

Rules for every caption:
- one English sentence of 6 to 25 words that ends with a full stop;
- change the sentence structure and the words for the image from caption to caption;
- {{classname}}, exactly so, may stand for "{name}"; no other braces;
- no numbers, measurements, history, patient data or names of datasets, and no word on labels, masks, arrows or scores;
- no caption twice, and none in both lists.

Answer with JSON alone, without Markdown and without any word before or after it, in exactly this shape:
{{"normal": {{"prompts": ["...", "..."]}}, "abnormal": {{"prompts": ["...", "..."]}}}}"""


def generate_prompts(asked: Mapping[str, Any]) -> None:
    """Ask, validate, show the difference to what is there, and write. asked: settings of `GenerateSpec` by name.

    Raises InputError, before anything is asked where nothing could be written.
    """
    spec = GenerateSpec.of(asked)
    _check_free(spec)
    name = prompt.words_for(spec.obj, spec.classname)
    to = endpoint(spec.api, spec.model, spec.key_env, spec.timeout)
    if to.exposes:
        print(f"note: {to.url} is http and not https, so others may read the key on its way", file=sys.stderr)
    lists = read(ask(to, messages(spec, name)), spec, name)
    if any(map(to.reveals, [*lists[0], *lists[1]])):
        raise InputError(f"{to.url} puts your key into its answer; nothing is shown or written. Change the key")
    print(difference(spec, lists) or "no difference")
    print(f"{len(lists[0])} normal + {len(lists[1])} abnormal sentences, all checks passed")
    if spec.output is None:
        print("nothing was written; --output FILE.json keeps an answer")
        return
    _check_free(spec)  # still
    prompt.write_json(spec.output, *lists)
    print(f"written: {spec.output}; use it with --prompts {spec.output}")


def messages(spec: GenerateSpec, name: str) -> list[dict[str, str]]:
    """What the model is told: who it is, then what is wanted."""
    about = f"{spec.modality} {spec.obj} {name}".lower()
    role = spec.role or next(role for words, role in ROLES if re.search(words, about))
    places = max(2, round(math.sqrt(spec.abnormal)) - 1)
    request = REQUEST.format(
        modality=spec.modality,
        name=name,
        normal=spec.normal,
        abnormal=spec.abnormal,
        findings=max(2, math.ceil(spec.abnormal / places)),
        places=places,
    )
    return [{"role": "system", "content": SYSTEM.format(role=role)}, {"role": "user", "content": request}]


def read(answer: str, spec: GenerateSpec, name: str) -> tuple[list[str], list[str]]:
    """The (normal, abnormal) sentences of an answer, `{classname}` as it stands.

    Raises InputError for anything but JSON of the right shape, for too few or too many sentences, and, after naming
    them, for sentences with a slip that `prompts.check` finds; with --drop these are left out.
    """
    try:
        content = json.loads(_bare(answer))
    except (ValueError, RecursionError) as fault:
        raise InputError(
            f"the model's answer is not JSON ({visible(str(fault))}); ask again, or another --model"
        ) from None
    lists = [[text.strip() for text in texts] for texts in prompt.parse(content, "the model's answer")]
    _counted(lists, spec)
    found = slips(*lists, name)
    for slip in found[:SHOWN]:
        print(f"left out: {slip}" if spec.drop else slip)
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN} more")
    if found and not spec.drop:
        raise InputError(
            f"{len(found)} findings in the model's answer, nothing was written; ask again, or let --drop leave them out"
        )
    faulty = {(slip.label, slip.number) for slip in found}
    for label, texts in zip(("normal", "abnormal"), lists, strict=True):
        texts[:] = [text for number, text in enumerate(texts, start=1) if (label, number) not in faulty]
    _counted(lists, spec)
    return lists[0], lists[1]


def difference(spec: GenerateSpec, lists: tuple[list[str], list[str]]) -> str:
    """A unified diff from what is there, --output's file or else the object's P-Prompts, to the new lists."""
    if spec.output is not None and spec.output.exists():
        source, there = str(spec.output), prompt.written(spec.output)
    else:
        source, there = f"prompt.py, {spec.obj}", prompt.sentences(spec.obj, "llm", spec.classname or "{classname}")
    old, new = (prompt.to_json(*part).splitlines() for part in (there, lists))
    lines = difflib.unified_diff(old, new, source, str(spec.output or f"{spec.model}, {spec.obj}"), lineterm="")
    return "\n".join(map(visible, lines))


def _bare(answer: str) -> str:
    """The answer without what models put around JSON: thoughts, and a fence of Markdown."""
    text = answer.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    parts = text.split("```")
    return parts[1].removeprefix("json") if len(parts) == 3 else text


def _counted(lists: Sequence[list[str]], spec: GenerateSpec) -> None:
    """InputError unless there are about as many sentences as were asked for: half to twice."""
    for label, texts, asked in zip(("normal", "abnormal"), lists, (spec.normal, spec.abnormal), strict=True):
        low, high = math.ceil(asked / 2), 2 * asked
        if not low <= len(texts) <= high:
            raise InputError(
                f"the model gives {len(texts)} usable {label} sentences, not {low} to {high}; "
                f"ask again, or for another number with --{label}"
            )


def _check_free(spec: GenerateSpec) -> None:
    """InputError where --output would be written over without --force."""
    if spec.output is not None and spec.output.exists() and not spec.force:
        raise InputError(f"--output {spec.output} is there already; write over it with --force, or name another")
