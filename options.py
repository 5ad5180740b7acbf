"""Every option and every default, once. Scripts take a namespace from here; checkpoints store it as a plain dict."""

import argparse
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import NoReturn

import CLIP
from errors import InputError
from madff import ADAPTERS, AXES, BRANCHES

PROTOCOLS = ("paper", "sound")
TRAINED, TESTED = ("fp32", "bf16"), ("fp32", "bf16", "fp16", "int8")  # precisions; only some have gradients
DEMO_DATA = Path("data/demo")
DEMO = {"model_name": "ViT-T-16-demo", "pretrain": "demo", "data_path": DEMO_DATA, "iterate": -1}  # --demo means these
DEMO_FEW = {"epoch": 10}  # and these in training: a toy learns fast, and minutes should do
DEMO_ZERO = {"epoch": 5, "batch_size": 4, "learning_rate": 1e-3}

# What decides the numbers of a trained model: test scripts read it back and refuse anything else.
FITTED = (
    *("model_name", "pretrain", "img_size", "features_list", "adapter", "madff", "madff_axis", "protocol"),
    *("shot", "abnormal_shot", "iterate", "seed", "classname", "demo"),
)
FOLLOWED = ("data_path", "clip_path", "prompts", "branches", "bank_cap")  # read back too, but free to be given anew


class Parser(argparse.ArgumentParser):
    """Raises InputError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def number(kind: type, low: float, high: float = inf) -> Callable[[str], float]:
    """An argparse type: a number from `low` to `high`, both included."""

    def read(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")
        return value

    read.__name__ = kind.__name__  # argparse: "invalid int value: 'x'"
    return read


positive, natural = number(int, 1), number(int, 0)


def _parser(description: str, precisions: Sequence[str]) -> Parser:
    """The options that all scripts share."""
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--obj",
        default="Brain",
        help="Brain, Liver, ..., mvtec/bottle, mvtec (all its classes), or a name of your own",
    )
    data.add_argument(
        "--data_path",
        type=Path,
        default=Path("data"),
        help="folder that holds Brain_AD, mvtec, ..., or your own images",
    )
    data.add_argument("--classname", help="words for the prompts, e.g. 'solar cell'; default: the object's own")
    data.add_argument(
        "--demo",
        action="store_true",
        help="the embedded demo CLIP on generated images (made in data/demo when missing)",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model_name", default="ViT-L-14-336", help=f"{', '.join(CLIP.model_names())}, or a config JSON"
    )
    model.add_argument(
        "--pretrain",
        default="openai",
        help="which published weights: openai, laion400m, laion2b, datacomp, ...; beside --clip_path: whose these are",
    )
    model.add_argument("--clip_path", type=Path, help="a weights file of your own, instead of --pretrain's")
    model.add_argument(
        "--trust_weights",
        action="store_true",
        help="open a TorchScript archive whose sha256 is not an official one",
    )
    model.add_argument("--offline", action="store_true", help="never fetch weights")
    model.add_argument("--img_size", type=positive, default=240, help="pixels a side")
    model.add_argument(
        "--features_list",
        type=positive,
        nargs="+",
        help="blocks with adapters; default: quarters of the depth (6 12 18 24)",
    )
    model.add_argument("--adapter", choices=ADAPTERS, default="madff")
    model.add_argument(
        "--madff", choices=BRANCHES, nargs="*", default=list(BRANCHES), help="attention branches that are on"
    )
    model.add_argument("--madff_axis", choices=AXES, default="sequence", help="token: what the released code computes")
    model.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="paper",
        help="sound: CLIP's normalisation, QuickGELU for OpenAI's weights",
    )
    model.add_argument("--prompts", default="all", help="base, llm, all, or a JSON file")
    run = parser.add_argument_group("run")
    run.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=111)
    run.add_argument("--device", default="auto", help="auto, cuda, cuda:N, mps or cpu")
    run.add_argument("--num_workers", type=natural, default=0, help="processes that read images")
    run.add_argument(
        "--precision",
        choices=precisions,
        default="fp32",
        help="of the trunk: bf16 and fp16 by autocast, int8 on its linear layers; adapters and scores stay fp32",
    )
    run.add_argument("--compile", action="store_true", help="torch.compile the trunk for scoring (minutes to start)")
    run.add_argument(
        "--cache_path",
        type=Path,
        default=Path("cache"),
        help="folder for what need not be computed twice",
    )
    run.add_argument(
        "--cache_gb", type=number(float, 0), default=10, metavar="GB", help="what the cache may take; 0: no cache"
    )
    run.add_argument(
        "--results_path", type=Path, default=Path("results"), help="folder for results.json and results.csv"
    )
    run.add_argument(
        "--save_images", type=Path, metavar="DIR", help="write a picture of every test image's map into DIR"
    )
    return parser


def _few(parser: Parser) -> None:
    """The options of few-shot scripts."""
    few = parser.add_argument_group("few-shot")
    few.add_argument("--shot", type=positive, default=4, help="normal support images, and as many abnormal ones")
    few.add_argument(
        "--abnormal_shot",
        type=natural,
        help="abnormal support images; default: as many as --shot; 0: memory bank on the bare trunk",
    )
    few.add_argument(
        "--iterate",
        type=number(int, -1),
        default=0,
        help="line of the published selection; -1 draws with --seed",
    )
    few.add_argument(
        "--bank_cap",
        metavar="N|coreset[:N]",
        help="tokens a tap that a large memory bank keeps: drawn evenly, or a greedy coreset (a tenth of all, or N)",
    )
    few.add_argument(
        "--branches",
        choices=("few", "zero", "both"),
        default="both",
        help="what is scored: memory bank, prompts, both",
    )


def _train(parser: Parser, save_path: str, batch_size: int, learning_rate: float) -> None:
    """The options of training scripts."""
    train = parser.add_argument_group("training")
    train.add_argument("--epoch", type=natural, default=50, help="0 trains nothing and evaluates")
    train.add_argument("--batch_size", type=positive, default=batch_size)
    train.add_argument("--learning_rate", type=number(float, 0), default=learning_rate)
    train.add_argument(
        "--eval_every",
        type=natural,
        default=1,
        help="epochs between evaluations; 0: only at the end, no best epoch",
    )
    train.add_argument("--save_path", type=Path, default=Path(save_path), help="folder for the checkpoint")
    train.add_argument("--save_model", type=int, choices=(0, 1), default=1)
    train.add_argument("--log_dir", type=Path, default=Path("runs"), help="folder for TensorBoard scalars")


def _test(parser: Parser, save_path: str) -> None:
    """The options of test scripts."""
    test = parser.add_argument_group("checkpoint")
    test.add_argument(
        "--ckpt", type=Path, help="adapter file, ours or a published one; default: the one in --save_path"
    )
    test.add_argument("--save_path", type=Path, default=Path(save_path), help="folder where training put it")
    test.add_argument("--batch_size", type=positive, default=16)


def _parse(parser: Parser, argv: Sequence[str] | None, demo: dict | None = None) -> argparse.Namespace:
    """Parse, note in `given` which options were said in so many words, and settle what --demo implies."""
    args = parser.parse_args(argv)
    unsaid = object()
    parser.set_defaults(**dict.fromkeys(vars(args), unsaid))
    args.given = sorted(name for name, value in vars(parser.parse_args(argv)).items() if value is not unsaid)
    if getattr(args, "abnormal_shot", 0) is None:
        args.abnormal_shot = args.shot
    args.madff = [branch for branch in BRANCHES if branch in args.madff]  # in whatever order they were given
    if args.demo:
        for name, value in (DEMO | (demo or {})).items():
            if hasattr(args, name) and name not in args.given:
                setattr(args, name, value)
    if args.clip_path is not None and "pretrain" not in args.given:
        args.pretrain = None  # nobody said whose the file is
    return args


def train_few(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of train_few.py."""
    parser = _parser("Train adapters on k normal and k abnormal images, evaluate on the test split.", TRAINED)
    _few(parser)
    _train(parser, "ckpt/few-shot", batch_size=1, learning_rate=1e-3)
    return _parse(parser, argv, DEMO_FEW)


def test_few(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of test_few.py."""
    parser = _parser("Evaluate few-shot adapters on the test split.", TESTED)
    _few(parser)
    _test(parser, "ckpt/few-shot")
    return _parse(parser, argv)


def train_zero(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of train_zero.py."""
    parser = _parser("Train adapters on all other medical objects, evaluate on the one they have never seen.", TRAINED)
    _train(parser, "ckpt/zero-shot", batch_size=16, learning_rate=1e-4)
    return _parse(parser, argv, DEMO_ZERO)


def test_zero(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of test_zero.py."""
    parser = _parser("Evaluate adapters trained on other objects.", TESTED)
    _test(parser, "ckpt/zero-shot")
    return _parse(parser, argv)


def app(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of app.py."""
    parser = _parser("A page on this machine: edit prompts and see what becomes of maps and scores.", TESTED)
    _few(parser)
    _test(parser, "ckpt")
    page = parser.add_argument_group("page")
    page.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 lets other machines in")
    page.add_argument("--port", type=number(int, 0, 65535), default=7860, help="0: any that is free")
    page.add_argument(
        "--tokens_gb", type=number(float, 0.1), default=2, metavar="GB", help="what tokens of images may take in memory"
    )
    page.add_argument("--upload_mb", type=number(float, 0.1), default=32, metavar="MB", help="largest file to upload")
    return _parse(parser, argv)


def recall(args: argparse.Namespace, record: dict | None, source: Path, obj: str) -> argparse.Namespace:
    """Options for testing a checkpoint on `obj`: those it was trained with, and those given now where that makes sense.

    A file published by others has no record: then the options are as given. Raises InputError when an option that
    decides the numbers is given otherwise than the checkpoint has it.
    """
    if record is None:
        return args
    trained, merged = dict(record["options"]), dict(vars(args))
    if record["obj"] != obj:
        trained.pop("classname", None)  # the words of another object
    for name in (*FITTED, *FOLLOWED):
        if name not in trained or name not in merged:
            continue
        value = trained[name]
        if name in args.given and name in FITTED and merged[name] != value:
            then, now = (" ".join(map(str, one)) if isinstance(one, list) else one for one in (value, merged[name]))
            raise InputError(f"{source} was trained with --{name} {then}, not {now}; leave --{name} out")
        if name not in args.given:
            merged[name] = Path(value) if name.endswith("_path") and value is not None else value
    return argparse.Namespace(**merged)


def plain(args: argparse.Namespace) -> dict:
    """The options as JSON can hold them, without the list of those given."""
    options = {name: value for name, value in vars(args).items() if name != "given"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
