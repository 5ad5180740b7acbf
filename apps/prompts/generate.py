"""P-Prompts from a language model: asked for, validated like a stranger's, shown as a difference, written on demand."""

import argparse
import difflib
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import prompt
from apps.prompts.chat import ask, endpoint
from apps.prompts.check import findings, visible
from engine.options import number, positive
from runtime.errors import InputError, Parser

ROLES = [  # words of the modality or the object: who speaks; the first that fits
    (r"histo|patholog|cytolog|microscop|biops|h&e|\bstain(?:ed|ing)?\b|smear", "a pathologist"),
    (r"dermo|dermat|skin|na?ev(?:us|i)|melanom", "a dermatologist"),
    (r"retina|fundus|\boct\b|ophthalm|macula|cornea", "an ophthalmologist"),
    (r"endoscop|colonoscop|gastroscop", "a gastroenterologist"),
    (r"\bmri?\b|\bct\b|x-?ray|radiogra|tomogra|ultraso|sonogra|mammo|\bpet\b|angiogra", "a radiologist"),
    (r"", "a quality inspector on a production line"),
]
SHOWN = 20  # findings of an answer that are printed

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


def options(argv: Sequence[str]) -> argparse.Namespace:
    """The options of `prompt.py generate`; InputError before anything is asked where nothing could be written."""
    parser = Parser(
        prog="prompt.py generate",
        description="P-Prompts from any OpenAI-compatible chat endpoint. Without --output they are only shown.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--obj", required=True, help="the object, of prompt.py or your own")
    parser.add_argument("--modality", required=True, help="what kind of image, e.g. 'T2-weighted brain MRI'")
    parser.add_argument("--api", required=True, metavar="URL", help="e.g. http://localhost:11434/v1")
    parser.add_argument("--model", required=True, help="the model's name at that endpoint")
    parser.add_argument("--key_env", metavar="NAME", help="environment variable of the key (default: OPENAI_API_KEY)")
    parser.add_argument("--classname", help="words for the object; default: its own")
    parser.add_argument("--role", help="who speaks, e.g. 'a radiologist'; default: by the modality")
    parser.add_argument("--normal", type=positive, default=40, help="normal sentences to ask for")
    parser.add_argument("--abnormal", type=positive, default=80, help="abnormal sentences to ask for")
    parser.add_argument("--timeout", type=number(float, 1, 3600), default=300, metavar="S", help="for a whole answer")
    parser.add_argument("--drop", action="store_true", help="leave faulty sentences out rather than refuse the answer")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write a file for --prompts, if all is well")
    parser.add_argument("--force", action="store_true", help="write over an existing --output")
    args = parser.parse_args(argv)
    if not args.modality.strip() or not args.model.strip():
        raise InputError("--modality and --model must say something")
    if args.output is not None and args.output.suffix.lower() != ".json":
        raise InputError(f"--output {args.output}: name a .json file, which --prompts will read")
    _free(args)
    return args


def generate(argv: Sequence[str]) -> None:
    """Ask, validate, show the difference to what is there, and write."""
    args = options(argv)
    name = prompt.words_for(args.obj, args.classname)
    to = endpoint(args.api, args.model, args.key_env, args.timeout)
    if to.exposes:
        print(f"note: {to.url} is http and not https, so others may read the key on its way", file=sys.stderr)
    lists = read(ask(to, messages(args, name)), args, name)
    if any(map(to.reveals, [*lists[0], *lists[1]])):
        raise InputError(f"{to.url} puts your key into its answer; nothing is shown or written. Change the key")
    print(difference(args, lists) or "no difference")
    print(f"{len(lists[0])} normal + {len(lists[1])} abnormal sentences, all checks passed")
    if args.output is None:
        print("nothing was written; --output FILE.json keeps an answer")
        return
    _free(args)  # still
    prompt.write_json(args.output, *lists)
    print(f"written: {args.output}; use it with --prompts {args.output}")


def messages(args: argparse.Namespace, name: str) -> list[dict[str, str]]:
    """What the model is told: who it is, then what is wanted."""
    about = f"{args.modality} {args.obj} {name}".lower()
    role = args.role or next(role for words, role in ROLES if re.search(words, about))
    places = max(2, round(math.sqrt(args.abnormal)) - 1)
    request = REQUEST.format(
        modality=args.modality,
        name=name,
        normal=args.normal,
        abnormal=args.abnormal,
        findings=max(2, math.ceil(args.abnormal / places)),
        places=places,
    )
    return [{"role": "system", "content": SYSTEM.format(role=role)}, {"role": "user", "content": request}]


def read(answer: str, args: argparse.Namespace, name: str) -> tuple[list[str], list[str]]:
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
    _counted(lists, args)
    found = findings(*lists, name)
    for finding in found[:SHOWN]:
        print(f"left out: {finding}" if args.drop else finding)
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN} more")
    if found and not args.drop:
        raise InputError(
            f"{len(found)} findings in the model's answer, nothing was written; ask again, or let --drop leave them out"
        )
    faulty = {(finding.label, finding.number) for finding in found}
    for label, texts in zip(("normal", "abnormal"), lists, strict=True):
        texts[:] = [text for number, text in enumerate(texts, start=1) if (label, number) not in faulty]
    _counted(lists, args)
    return lists[0], lists[1]


def difference(args: argparse.Namespace, lists: tuple[list[str], list[str]]) -> str:
    """A unified diff from what is there, --output's file or else the object's P-Prompts, to the new lists."""
    if args.output is not None and args.output.exists():
        source, there = str(args.output), prompt.written(args.output)
    else:
        source, there = f"prompt.py, {args.obj}", prompt.sentences(args.obj, "llm", args.classname or "{classname}")
    old, new = (prompt.to_json(*part).splitlines() for part in (there, lists))
    lines = difflib.unified_diff(old, new, source, str(args.output or f"{args.model}, {args.obj}"), lineterm="")
    return "\n".join(map(visible, lines))


def _bare(answer: str) -> str:
    """The answer without what models put around JSON: thoughts, and a fence of Markdown."""
    text = answer.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    parts = text.split("```")
    return parts[1].removeprefix("json") if len(parts) == 3 else text


def _counted(lists: Sequence[list[str]], args: argparse.Namespace) -> None:
    """InputError unless there are about as many sentences as were asked for: half to twice."""
    for label, texts, asked in zip(("normal", "abnormal"), lists, (args.normal, args.abnormal), strict=True):
        low, high = math.ceil(asked / 2), 2 * asked
        if not low <= len(texts) <= high:
            raise InputError(
                f"the model gives {len(texts)} usable {label} sentences, not {low} to {high}; "
                f"ask again, or for another number with --{label}"
            )


def _free(args: argparse.Namespace) -> None:
    """InputError where --output would be written over without --force."""
    if args.output is not None and args.output.exists() and not args.force:
        raise InputError(f"--output {args.output} is there already; write over it with --force, or name another")
