"""Readers of flags' values: what each takes, and what is said of the rest."""

import argparse
from collections.abc import Callable
from math import isfinite
from pathlib import Path

SIDE = 4096  # pixels of a square image that a trunk is given, at most
MANY = 1_000_000  # images, epochs, lines: more than anybody has
WORKERS = 256  # processes or threads
AUTO = "auto"  # a number that the program chooses
GIGABYTES = 1e6
INTENSITY = 1e12  # of a pixel, or a score; what is far above overflows float32


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """A reader of numbers from `low` to `high`, both included."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError as fault:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{_short(text)} is not {what}") from fault
        if kind is float and not isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not a finite number")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{_short(text)} is not from {low} to {high}")
        return value

    return read


def auto_or(read: Callable[[str], float]) -> Callable[[str], float | str]:
    """A reader of `AUTO`, or of what another reader takes."""

    def either(text: str) -> float | str:
        try:
            return AUTO if text == AUTO else read(text)
        except argparse.ArgumentTypeError as fault:
            raise argparse.ArgumentTypeError(f"{fault}, nor is it {AUTO}") from fault

    return either


def interval(text: str) -> float:
    """A reader of epochs between evaluations, 0 or from a thousandth of one on; a whole number as an int."""
    value = number(float, 0, MANY)(text)
    if 0 < value < 1e-3:
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor from 0.001 on")
    return int(value) if value.is_integer() else value


finite = number(float, -INTENSITY, INTENSITY)
positive, natural = number(int, 1, MANY), number(int, 0, MANY)


def words(text: str) -> str:
    """A reader of names and phrases: one line of text that says something, in letters that UTF-8 has."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text says nothing; leave the flag out or give it a value")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as fault:
            raise argparse.ArgumentTypeError(f"{text!a} is not in UTF-8") from fault
    if any(sign in text for sign in "\0\n\r"):
        raise argparse.ArgumentTypeError(f"{_short(repr(text))} is more than one line of text")
    return text


def name(text: str) -> str:
    """A reader of files' names as the system gives them, in whatever letters."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError("an empty text names no file; leave it out")
    return text


def path(text: str) -> Path:
    """A reader of files' and folders' names."""
    return Path(words(text))


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
