"""The commands of prompt.py: look at an object's sentences, check them, rank them, have a language model write others.

python prompt.py show Brain                        what a run encodes
python prompt.py check [OBJ ...]                   repeats, contradictions and other slips; all objects if none is named
python prompt.py rank --obj Brain --demo           what each sentence does for the support, left out in turn
python prompt.py generate --obj Brain --modality "brain MRI" --api http://localhost:11434/v1 --model NAME
"""

import argparse
import difflib
import sys
from collections import Counter
from collections.abc import Sequence

import prompt
from apps.prompts.check import KINDS, blanks, slips, visible
from runtime.bars import Bar
from runtime.errors import InputError, Parser, exit_code
from runtime.flags import words as reader

CLEAN, FOUND = 0, 1  # exit codes beside 2, that of bad input
BAR_AFTER = 2  # seconds


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; gives the exit code: 0, 1 when `check` found something, 2 bad input."""
    codes = []
    return exit_code(lambda: codes.append(_command(argv))) or codes[0]


def _command(argv: Sequence[str] | None) -> int:
    commands = {"show": show, "check": check, "rank": rank, "generate": generate}
    parser = Parser(prog="prompt.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=commands)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="prompt.py COMMAND --help lists them")
    args = parser.parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # sentences may have letters that the terminal lacks
    code = commands[args.command](args.arguments)
    sys.stdout.flush()  # a reader that went away shows here, where it is one line
    return code


def words(parser: Parser) -> None:
    """The options that say which sentences are meant."""
    parser.add_argument("--prompts", type=reader, default="all", help="base, llm, all (default), or a JSON file")
    parser.add_argument("--classname", type=reader, help="words for the prompts; default: the object's own")


def known(obj: str, classname: str | None) -> list[str]:
    """The objects that a name stands for: itself, or all classes of "mvtec" and the like.

    Raises InputError for a name without a block, unless `classname` says what it is.
    """
    if obj in (*prompt.P_PROMPTS, "GENERIC") or (classname or "").strip():
        return [obj]
    if family := [name for name in prompt.P_PROMPTS if name.startswith(f"{obj}/")]:
        return family
    names = {name.lower(): name for name in prompt.P_PROMPTS}
    names |= {name.rpartition("/")[2].lower(): name for name in prompt.P_PROMPTS}
    close = difflib.get_close_matches(obj.lower(), names, n=1)
    guess = f" Did you mean {names[close[0]]}?" if close else ""
    raise InputError(f"unknown object {obj}: prompt.py has no block for it.{guess} For an own one give --classname")


def show(argv: Sequence[str]) -> int:
    """Print the sentences of an object, counted."""
    parser = Parser(prog="prompt.py show", description="The sentences of an object as a run encodes them.")
    parser.add_argument("obj", help="Brain, mvtec/bottle, mvtec (all its classes), or your own with --classname")
    words(parser)
    args = parser.parse_args(argv)
    for obj in known(args.obj, args.classname):
        lists = prompt.sentences(obj, args.prompts, args.classname)
        print(f"{obj}, --prompts {args.prompts}: {len(lists[0])} normal + {len(lists[1])} abnormal sentences")
        for label, texts in zip(("normal", "abnormal"), lists, strict=True):
            for number, text in enumerate(texts, start=1):
                print(f"{label} {number:>3}  {visible(text)}")
    return CLEAN


def check(argv: Sequence[str]) -> int:
    """Print a table of slips by object, and every slip with its sentence."""
    parser = Parser(prog="prompt.py check", description="Slips in prompts. Exit code 0: none, 1: some, 2: bad input.")
    parser.add_argument(
        "obj", nargs="*", help="default: every object of prompt.py, or --prompts FILE.json as it stands"
    )
    words(parser)
    parser.epilog = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    args = parser.parse_args(argv)
    objects = dict.fromkeys(name for obj in args.obj for name in known(obj, args.classname))
    from_file = args.prompts.lower().endswith(".json")
    objects = list(objects) or ([args.prompts] if from_file else [*prompt.P_PROMPTS, "GENERIC"])
    rows, found = [], []
    for obj in Bar(objects, desc="checking", unit="object", leave=False, delay=BAR_AFTER):
        if from_file:
            name = prompt.words_for(obj, args.classname) if args.obj else (args.classname or "")
            lists, own = prompt.written(args.prompts), []
        else:
            name = prompt.words_for(obj, args.classname)
            lists, own = prompt.composed(obj, args.prompts, args.classname), blanks(obj)
        own += slips(*lists, name)
        counts = Counter(slip.kind for slip in own)
        rows.append([obj, *map(len, lists), *(counts[kind] for kind in KINDS)])
        found += [f"{obj}: {slip}" for slip in own]
    print(table(["object", "normal", "abnormal", *KINDS], rows))
    print("\n".join(["", *found, f"{len(found)} findings"] if found else ["no findings"]))
    return FOUND if found else CLEAN


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines with names on the left and numbers on the right."""
    cells = [list(map(str, row)) for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells
    )


def rank(argv: Sequence[str]) -> int:
    """Print, and with --csv write, the leave-one-out effect of every sentence on the support."""
    from apps.prompts.rank import RankSpec, rank_objects  # torch comes with it, and not every command needs it
    from engine.options import parse

    rank_objects(parse(RankSpec, argv, prog="prompt.py rank"))
    return CLEAN


def generate(argv: Sequence[str]) -> int:
    """Ask a language model for sentences, validate them, show the difference, and with --output write them."""
    from apps.prompts.generate import GenerateSpec, generate_prompts  # as above
    from engine.options import parse

    generate_prompts(parse(GenerateSpec, argv, prog="prompt.py generate"))
    return CLEAN
