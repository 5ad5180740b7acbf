"""Flags with values that they don't take."""

from collections.abc import Iterator

from faults.trying import Case

HUGE = ("1e30", "9223372036854775808", "1000000000000", "nan", "inf", "-inf", "-1", "", "x", "1" * 5000)
RUNS = ("train_few", "test_few", "train_zero", "test_zero", "predict", "app", "apps.export", "prompt rank")
FEW = tuple(one for one in RUNS if "zero" not in one)
TRAIN, TEST = ("train_few", "train_zero"), ("test_few", "test_zero")
SETS = (*TRAIN, *TEST)
NUMBERS = {  # flag -> the scripts that have it, and values beside HUGE that none takes
    "--img_size": (RUNS, ("0", "100000000", "12.5", "5000")),
    "--cache_gb": (RUNS, ("-0.5", "1e9")),
    "--seed": (RUNS, ("4294967296", "1.5")),
    "--features_list": (RUNS, ("0", "5000")),
    "--shot": (FEW, ("0", "1.5", "100000000")),
    "--abnormal_shot": (FEW, ("1.5", "100000000")),
    "--iterate": (FEW, ("-2", "100000000")),
    "--batch_size": (SETS, ("0", "1.5", "10000000")),
    "--num_workers": (SETS, ("5000", "1.5")),
    "--epoch": (TRAIN, ("1.5", "100000000")),
    "--learning_rate": (TRAIN, ("1e39",)),
    "--eval_every": (TRAIN, ("1e12",)),
    "--save_every": (TRAIN, ("1e12",)),
    "--save_model": (TRAIN, ("2",)),
    "--bank_cap": (("train_few", "test_few", "predict", "app"), ("0", "coreset:", "coreset:0", "random:5")),
    "--tile": (("predict",), ("0", "1000000000", "1.5")),
    "--threshold": (("predict",), ("1e300",)),
    "--pixel_threshold": (("predict",), ("1e300",)),
    "--axis": (("predict",), ("3",)),
    "--port": (("app",), ("65536",)),
    "--tokens_gb": (("app",), ("0", "1e12")),
    "--upload_mb": (("app",), ("0", "1e12")),
    "--top": (("prompt rank",), ("1.5",)),
    "--timeout": (("prompt generate",), ("0", "4000")),
    "--normal": (("prompt generate",), ("0", "1.5")),
    "--abnormal": (("prompt generate",), ("0", "1.5")),
    "--share": (("apps.demo_clip",), ("5000",)),
    "--pool": (("apps.demo_clip",), ("0",)),
    "--check_every": (("apps.demo_clip",), ("0",)),
    "--workers": (("apps.demo_clip", "dataset.check"), ("0", "5000")),
    "--show": (("dataset.check",), ("1.5",)),
    "--alike": (("dataset.check",), ("2",)),
    "--valid_share": (("dataset.convert",), ("1.5", "2")),
}
MINUS = {"--iterate", "--threshold", "--pixel_threshold"}  # -1 is a value of theirs
FREE = {
    "--threshold": ("1000000000000",),
    "--pixel_threshold": ("1000000000000",),
    "--learning_rate": ("1e30", "9223372036854775808", "1000000000000"),  # the loss says so
}
CHOICES = {
    "--adapter": RUNS,
    "--madff": RUNS,
    "--madff_axis": RUNS,
    "--protocol": RUNS,
    "--precision": (*SETS, "predict", "app", "prompt rank"),
    "--branches": ("train_few", "test_few", "predict", "app", "apps.export"),
    "--method": ("train_few", "test_few", "predict", "app", "apps.export"),
    "--device": RUNS,
    "--stage": ("apps.export",),
    "--score": ("predict bare",),
    "--by": ("prompt rank",),
}
WRONG = {  # what no choice is; a device may be numbered
    "": ("", "none of these", "\udcff"),
    "--device": (
        "",
        "gpu",
        "cuda:99",
        "cuda:99999999999999999999",
        "cuda:-1",
        "meta",
        "cpu:x",
        "\udcff",
        "xla",
        "cpu:1",
    ),
}
TEXTS = {
    "--obj": RUNS,
    "--classname": ("train_few", "train_zero", "predict bare", "app", "prompt show", "prompt check"),
    "--data_path": (*SETS, "app", "apps.export", "prompt rank", "dataset.download"),
    "--ckpt": ("test_few", "test_zero", "predict", "app", "apps.export", "prompt rank"),
    "--save_path": (*SETS, "app"),
    "--results_path": (*SETS, "engine.runs"),
    "--log_dir": TRAIN,
    "--save_images": TEST,
    "--cache_path": RUNS,
    "--clip_path": (*TRAIN, "predict bare", "app", "prompt rank"),
    "--model_name": (*TRAIN, "predict bare", "app", "prompt rank"),
    "--pretrain": (*TRAIN, "predict bare", "app", "prompt rank"),
    "--prompts": (*TRAIN, "predict", "predict bare", "app", "prompt rank", "prompt show", "prompt check"),
    "--output": ("predict", "prompt generate"),
    "--onnx": ("apps.export",),
    "--openvino": ("apps.export",),
    "--host": ("app",),
    "--roi": ("predict",),
    "--csv": ("prompt rank", "dataset.check", "dataset.convert"),
    "--out": ("dataset.demo", "dataset.convert", "apps.demo_clip"),
    "--source": ("dataset.convert",),
    "--archive": ("dataset.download",),
    "--normal": ("predict bare",),
    "--modality": ("prompt generate",),
    "--model": ("prompt generate",),
    "--role": ("prompt generate",),
    "--key_env": ("prompt generate",),
    "--api": ("prompt generate",),
}
NO_TEXT = {"empty": "", "blank": "  ", "no UTF-8": "caf\udce9", "a line break": "a\nb"}
LONE = {  # script -> flags that can't be, and words of their line
    "predict": {
        "empty input": (("--input", ""), ("--input",)),
        "one empty input of two": (("--input", "@lab/new", ""), ("--input",)),
        "no such input": (("--input", "@here/none"), ("@here/none",)),
        "window of one": (("--window", "1"), ("--window",)),
        "window nan": (("--window", "nan", "1"), ("--window",)),
        "window inf": (("--window", "0", "inf"), ("--window",)),
        "window of no width": (("--window", "0", "0"), ("--window",)),
        "window of almost no width": (("--window", "0", "1e-320"), ("--window",)),
        "window far away": (("--window", "1e300", "1"), ("--window",)),
        "overlap alone": (("--overlap", "3"), ("--tile",)),
        "overlap as large": (("--tile", "8", "--overlap", "8"), ("--overlap",)),
        "overlap huge": (("--tile", "8", "--overlap", "1e30"), ("--overlap",)),
        "both ways": (("--normal", "@lab/good"), ("--normal",)),
        "output in a file": (("--output", "@lab/words.json"), ("words.json",)),
    },
    "train_few": {
        "resume and restart": (("--resume", "--restart"), ("--resume",)),
        "nothing to resume": (("--resume",), ("resume",)),
        "unknown flag": (("--shots", "3"), ("--shots",)),
        "a word too many": (("Brain",), ("Brain",)),
        "taps fall": (("--features_list", "3", "1"), ("--features_list",)),
        "taps too deep": (("--features_list", "5"), ("--features_list",)),
        "save path in a file": (("--save_path", "@lab/words.json/x"), ("words.json",)),
        "adapters of a baseline": (("--method", "patchcore", "--adapter", "mvfa"), ("--adapter",)),
        "attentions of a baseline": (("--method", "winclip", "--madff", "sca"), ("--madff",)),
        "a bank's cap of none": (("--method", "linear", "--bank_cap", "5"), ("--bank_cap",)),
        "prompts of a baseline without": (("--method", "patchcore", "--branches", "zero"), ("--branches",)),
        "one label of two": (("--method", "linear", "--abnormal_shot", "0"), ("--abnormal_shot",)),
        "no last block": (("--method", "winclip", "--features_list", "1"), ("--features_list",)),
        "name too long": (("--save_path", "@here/" + "x" * 300), ("too long",)),
    },
    "apps.export": {
        "no onnx name": (("--onnx", "@here/x.pt"), ("--onnx",)),
        "onnx in a file": (("--onnx", "@lab/words.json/x.onnx"), ("words.json",)),
        "onnx a folder": (("--onnx", "@here/../here.onnx/../"), ("--onnx",)),
        "no openvino name": (("--openvino", "@here/x.bin"), ("--openvino",)),
        "openvino in a file": (("--openvino", "@lab/words.json/x.xml"), ("words.json",)),
    },
    "engine.runs": {
        "one to compare": (("compare", "x"), ("compare",)),
        "no such run": (("delete", "nothing"), ("nothing",)),
        "unknown command": (("burn",), ("burn",)),
    },
}


def cases() -> Iterator[Case]:
    """Every flag with every value; the line names the flag."""
    for flag, (scripts, more) in NUMBERS.items():
        values = [value for value in (*HUGE, *more) if value not in FREE.get(flag, ())]
        for script in scripts:
            for value in values:
                if value != "-1" or flag not in MINUS:
                    yield Case(f"{script} {flag} {value[:20]!r}", script, (flag, value), (flag,))
    for flag, scripts in CHOICES.items():
        for script in scripts:
            for value in WRONG.get(flag, WRONG[""]):
                yield Case(f"{script} {flag} {value!r}", script, (flag, value), (flag,))
    for flag, scripts in TEXTS.items():
        for script in scripts:
            for name, value in NO_TEXT.items():
                yield Case(f"{script} {flag} {name}", script, (flag, value), (flag,))
    for script, flags in LONE.items():
        for name, (given, words) in flags.items():
            yield Case(f"{script}: {name}", script, given, words)
