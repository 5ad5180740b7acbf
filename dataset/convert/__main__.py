"""The command line: python -m dataset.convert ham10000 | isic2019 | elpv | folders."""

import argparse
import sys
from pathlib import Path

from dataset.convert import elpv, folders_csv, skin
from runtime.errors import Parser, exit_code
from runtime.flags import number, path, words


def options() -> argparse.ArgumentParser:
    """One command a kind of source."""
    parser = Parser(prog="python -m dataset.convert", description="Write a data set in the layout that runs read.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, of in skin.SOURCES.items():
        command = commands.add_parser(name, help=f"{of.obj} from the raw downloads")
        command.add_argument("--source", type=path, required=True, help=f"holds {of.tables[0]}, {of.images[0]}/, ...")
    commands.add_parser("elpv", help="Solar, from the package elpv-dataset")
    command = commands.add_parser("folders", help="your own images and a csv of labels")
    command.add_argument("--source", type=path, required=True, help="the folder that paths in the csv start from")
    command.add_argument("--csv", type=path, required=True, help="columns path, label and, if wanted, mask, split")
    command.add_argument("--obj", type=words, required=True, help="the object's name: the set is OUT/NAME_AD")
    command.add_argument(
        "--valid_share",
        type=number(float, 0, 1),
        help=f"without a column split: the share of valid (default {folders_csv.VALID_SHARE})",
    )
    command.add_argument("--seed", type=number(int, 0, 2**32 - 1), help=f"of that split (default {folders_csv.SEED})")
    for command in commands.choices.values():
        command.add_argument("--out", type=path, default=Path("data"), help="data folder (default data)")
    return parser


def main() -> None:
    """Convert one set."""
    args = options().parse_args()
    if args.command == "elpv":
        elpv.convert(args.out)
    elif args.command == "folders":
        draw = folders_csv.Draw(args.valid_share, args.seed)
        folders_csv.convert(args.source, args.csv, args.obj, args.out, draw)
    else:
        skin.convert(args.command, args.source, args.out)


if __name__ == "__main__":
    sys.exit(exit_code(main))
