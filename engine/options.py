"""Every option and every default, once. Scripts take a namespace from here; checkpoints store it as a plain dict."""

import argparse
from collections.abc import Callable, Sequence
from math import inf, isfinite
from pathlib import Path

import CLIP
from madff import ADAPTERS, AXES, BRANCHES
from runtime.errors import InputError, Parser
from scoring.memory_bank import Cap

PROTOCOLS = ("paper", "sound")
TRAINED, TESTED = ("fp32", "bf16"), ("fp32", "bf16", "fp16", "int8")  # precisions; only some have gradients
DEMO_DATA = Path("data/demo")
DEMO = {"model_name": "ViT-T-16-demo", "pretrain": "demo", "data_path": DEMO_DATA, "iterate": -1}  # --demo means these
DEMO_FEW = {"epoch": 10}  # and these in training: a toy learns fast, and minutes should do
DEMO_ZERO = {"epoch": 5, "learning_rate": 1e-3}

# What decides the numbers of a trained model: test scripts read it back and refuse anything else.
FITTED = (
    *("model_name", "pretrain", "img_size", "features_list", "adapter", "madff", "madff_axis", "protocol"),
    *("shot", "abnormal_shot", "iterate", "seed", "classname", "demo"),
)
FOLLOWED = ("data_path", "clip_path", "prompts", "branches", "bank_cap")  # read back too, but free to be given anew


def number(kind: type, low: float, high: float = inf) -> Callable[[str], float]:
    """An argparse type: a number from `low` to `high`, both included."""

    def read(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")
        return value

    read.__name__ = kind.__name__  # argparse: "invalid int value: 'x'"
    return read


def cap(text: str) -> str:
    """An argparse type: what `bank.Cap` can parse, as it was given."""
    Cap.parse(text)
    return text


positive, natural = number(int, 1), number(int, 0)


def interval(text: str) -> float:
    """An argparse type: epochs between evaluations, 0 or from a thousandth of one on; a whole number as an int."""
    value = float(text)
    if not (value == 0 or 1e-3 <= value < inf):
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor from 0.001 on")
    return int(value) if value.is_integer() else value


def _parser(description: str, precisions: Sequence[str] = ()) -> Parser:
    """The options that all scripts share; without `precisions`, those of a script that evaluates nothing."""
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
    run.add_argument(
        "--cache_path",
        type=Path,
        default=Path("cache"),
        help="folder for what need not be computed twice",
    )
    run.add_argument(
        "--cache_gb", type=number(float, 0), default=10, metavar="GB", help="what the cache may take; 0: no cache"
    )
    if not precisions:
        parser.set_defaults(precision="fp32", compile=False)
        return parser
    run.add_argument(
        "--precision",
        choices=precisions,
        default="fp32",
        help="of the trunk: bf16 and fp16 by autocast, int8 on its linear layers; adapters and scores stay fp32",
    )
    run.add_argument("--compile", action="store_true", help="torch.compile the trunk for scoring: starts later")
    return parser


def _survey(parser: Parser) -> None:
    """The options of scripts that evaluate on a test set."""
    survey = parser.add_argument_group("test set")
    survey.add_argument("--num_workers", type=natural, default=0, help="processes that read images")
    survey.add_argument(
        "--results_path", type=Path, default=Path("results"), help="folder for results.json and results.csv"
    )
    survey.add_argument(
        "--save_images", type=Path, metavar="DIR", help="write a picture of every test image's map into DIR"
    )


def _support(parser: Parser) -> None:
    """Which images are support."""
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


def _few(parser: Parser) -> None:
    """The options of scripts that score by support."""
    _support(parser)
    few = parser.add_argument_group("scoring")
    few.add_argument(
        "--bank_cap",
        type=cap,
        metavar="N|coreset[:N]",
        help="tokens a tap that a large memory bank keeps: drawn evenly, or a greedy coreset (a tenth of all, or N)",
    )
    few.add_argument(
        "--branches",
        choices=("few", "zero", "both"),
        default="both",
        help="what is scored: memory bank, prompts, both",
    )


def _train(parser: Parser, save_path: str, learning_rate: float, eval_every: dict) -> None:
    """The options of training scripts. eval_every: what argparse must know of that option, which differs."""
    _survey(parser)
    train = parser.add_argument_group("training")
    train.add_argument("--epoch", type=natural, default=50, help="0 trains nothing and evaluates")
    train.add_argument("--eval_every", **eval_every)
    train.add_argument("--batch_size", type=positive, default=1, help="images a step; the published code's is 1")
    train.add_argument("--learning_rate", type=number(float, 0), default=learning_rate)
    train.add_argument("--save_path", type=Path, default=Path(save_path), help="folder for the checkpoint")
    train.add_argument("--save_model", type=int, choices=(0, 1), default=1)
    train.add_argument("--log_dir", type=Path, default=Path("runs"), help="folder for TensorBoard scalars")


def _test(parser: Parser, save_path: str) -> None:
    """The options of test scripts."""
    _survey(parser)
    _checkpoint(parser, save_path)
    parser.add_argument("--batch_size", type=positive, default=16)


def _checkpoint(parser: Parser, save_path: str) -> None:
    """Which checkpoint is looked at."""
    test = parser.add_argument_group("checkpoint")
    test.add_argument(
        "--ckpt", type=Path, help="adapter file, ours or a published one; default: the one in --save_path"
    )
    test.add_argument("--save_path", type=Path, default=Path(save_path), help="folder where training put it")


def _predict(parser: Parser) -> None:
    """The options of predict.py alone."""
    what = parser.add_argument_group("what is scored")
    what.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="FILE|DIR|GLOB",
        help="png jpg bmp tif, DICOM, NIfTI (.nii, .nii.gz), NRRD; folders with all below them",
    )
    what.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for scores, maps and pictures")
    what.add_argument(
        "--roi", type=Path, metavar="MASK_DIR", help="masks of the inputs' own names: what is outside is ignored"
    )
    what.add_argument(
        "--tile", type=positive, metavar="N", help="score pieces of N x N pixels, for small defects in large images"
    )
    what.add_argument(
        "--overlap", type=natural, metavar="M", help="pixels that tiles share; default: a quarter of --tile"
    )
    what.add_argument(
        "--axis", type=int, choices=(0, 1, 2), default=2, help="axis of a volume that slices are cut along"
    )
    what.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("CENTER", "WIDTH"),
        help="intensities shown of DICOM and volumes; default: the DICOM header's, else their whole range",
    )
    judged = parser.add_argument_group("how it is judged")
    judged.add_argument("--ckpt", type=Path, help="adapter file; without it nothing trained is used")
    judged.add_argument("--normal", type=Path, metavar="DIR", help="without --ckpt: normal images, for the memory bank")
    judged.add_argument("--abnormal", type=Path, metavar="DIR", help="without --ckpt: abnormal images, for thresholds")
    judged.add_argument(
        "--score",
        choices=("max", "mean"),
        default="max",
        help="without --ckpt: an image's score is its map's highest value, or the mean over its patches",
    )
    judged.add_argument("--threshold", type=float, help="score from which an image is abnormal; default: calibrated")
    judged.add_argument("--pixel_threshold", type=float, help="map value from which a pixel is; default: calibrated")


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
    words = "epochs between evaluations; 0: only at the end, no best epoch"
    _train(parser, "ckpt/few-shot", 1e-3, {"type": natural, "default": 1, "help": words})
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
    words = "epochs, or a fraction of one, between evaluations, the first before any step; 0: only at the end"
    _train(parser, "ckpt/zero-shot", 1e-4, {"type": interval, "default": 0.2, "help": words})
    return _parse(parser, argv, DEMO_ZERO)


def test_zero(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of test_zero.py."""
    parser = _parser("Evaluate adapters trained on other objects.", TESTED)
    _test(parser, "ckpt/zero-shot")
    return _parse(parser, argv)


def export(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of export.py."""
    parser = _parser("Write a checkpoint as one ONNX file: image in, anomaly map and score out.", ())
    _few(parser)
    out = parser.add_argument_group("export")
    out.add_argument("--ckpt", type=Path, required=True, help="adapter file of train_few.py or train_zero.py")
    out.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")
    out.add_argument("--stage", choices=("last", "best"), default="last", help="best: the epoch chosen on the test set")
    return _parse(parser, argv)


def rank(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of `prompt.py rank`."""
    parser = _parser("What each sentence does for the zero branch on the support: leave-one-out.", TESTED)
    parser.prog = "prompt.py rank"
    _support(parser)
    test = parser.add_argument_group("ranking")
    test.add_argument("--ckpt", type=Path, help="adapter file; default: none, the trunk's own tokens")
    test.add_argument("--csv", type=Path, metavar="FILE", help="write every sentence with its effect")
    test.add_argument("--by", choices=("margin", "auroc"), default="margin", help="what the table is sorted by")
    test.add_argument("--top", type=natural, default=10, help="sentences shown from either end; 0: all of them")
    return _parse(parser, argv)


def predict(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of predict.py. Raises InputError for options that contradict each other."""
    parser = _parser("Score images and volumes: with trained adapters, or with no training at all.", TESTED)
    _few(parser)
    _predict(parser)
    args = _parse(parser, argv)
    if args.tile is None and args.overlap is not None:
        raise InputError("--overlap says how much tiles share; give their size with --tile")
    if args.tile is not None and args.overlap is None:
        args.overlap = args.tile // 4
    if args.tile is not None and args.overlap >= args.tile:
        raise InputError(f"--overlap {args.overlap} must be less than --tile {args.tile}")
    if args.window is not None and args.window[1] <= 0:
        raise InputError(f"--window needs a width above 0, not {args.window[1]:g}")
    for name in ("threshold", "pixel_threshold"):
        if getattr(args, name) is not None and not isfinite(getattr(args, name)):
            raise InputError(f"--{name} {getattr(args, name)} is not a number")
    unfit = (
        ("normal", "abnormal", "score") if args.ckpt else ("adapter", "madff", "madff_axis", "abnormal_shot", "iterate")
    )
    for name in (name for name in unfit if name in args.given):
        raise InputError(f"--{name} {'is for scoring without --ckpt' if args.ckpt else 'needs --ckpt'}; leave one out")
    if args.abnormal and not args.normal:
        raise InputError("--abnormal needs --normal beside it: a threshold lies between the two")
    return args


def app(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of app.py."""
    parser = _parser("A page on this machine: edit prompts and see what becomes of maps and scores.", TESTED)
    _few(parser)
    _checkpoint(parser, "ckpt")
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
