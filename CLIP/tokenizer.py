"""CLIP's byte-pair encoding: text to the 49,408 symbols that the text tower knows."""

import gzip
import html
import warnings
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex
import torch

VOCABULARY = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
VOCABULARY_SIZE = 49408
CONTEXT_LENGTH = 77
START, END = "<start_of_text>", "<end_of_text>"
END_OF_WORD = "</w>"

# Contractions, runs of letters, single digits, runs of anything else; the two specials stay whole.
PIECES = regex.compile(
    rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
)


def clean(text: str) -> str:
    """Repair mis-decoded Unicode, undo html escapes (twice), fold white space, lower the case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(text.split()).lower()


def _byte_symbols() -> dict[int, str]:
    """A printable character for each byte, in the vocabulary's order: printable bytes first, as themselves."""
    printable = [byte for first, last in ("!~", "¡¬", "®ÿ") for byte in range(ord(first), ord(last) + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    return symbols | {byte: chr(256 + place) for place, byte in enumerate(others)}


class Tokenizer:
    """Text to ids. `encode` gives the ids of one text without start and end; calling it gives a padded batch."""

    def __init__(self, vocabulary: str | Path = VOCABULARY) -> None:
        lines = gzip.decompress(Path(vocabulary).read_bytes()).decode("utf-8").split("\n")
        self.byte_symbol = _byte_symbols()
        alphabet = list(self.byte_symbol.values())
        room = VOCABULARY_SIZE - 2 * len(alphabet) - 2  # what the alphabet and the specials leave for merges
        merges = [tuple(line.split()) for line in lines[1 : room + 1]]
        symbols = [*alphabet, *(symbol + END_OF_WORD for symbol in alphabet), *map("".join, merges), START, END]
        self.rank = {pair: place for place, pair in enumerate(merges)}
        self.id = {symbol: place for place, symbol in enumerate(symbols)}
        assert len(symbols) == VOCABULARY_SIZE
        self.start, self.end = self.id[START], self.id[END]
        self._warned_of: set[str] = set()
        self._merged = lru_cache(maxsize=65536)(self._merge)

    def _merge(self, piece: str) -> tuple[int, ...]:
        """Join the two neighbours of the lowest rank until no known pair is left."""
        if piece in (START, END):
            return (self.id[piece],)
        symbols = [self.byte_symbol[byte] for byte in piece.encode("utf-8")]
        symbols[-1] += END_OF_WORD
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self.rank.get(pair, len(self.rank)))
            if best not in self.rank:
                break
            joined, place = [], 0
            while place < len(symbols):
                pair = tuple(symbols[place : place + 2])
                joined.append("".join(pair) if pair == best else symbols[place])
                place += 2 if pair == best else 1
            symbols = joined
        return tuple(self.id[symbol] for symbol in symbols)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, of any length, without the start and end symbols."""
        return [number for piece in PIECES.findall(clean(text)) for number in self._merged(piece)]

    def __call__(self, texts: str | list[str], context_length: int = CONTEXT_LENGTH) -> torch.Tensor:
        """Texts to int64 ids (N, context_length): start, text, end, zeros.

        A text that is too long is cut with its end symbol kept; one warning says how many were, once of each.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = torch.zeros(len(texts), context_length, dtype=torch.long)
        overlong = []
        for row, text in zip(ids, texts, strict=True):
            numbers = self.encode(text)
            if len(numbers) > context_length - 2:
                overlong.append(text)
            numbers = [self.start, *numbers[: context_length - 2], self.end]
            row[: len(numbers)] = torch.tensor(numbers)
        if new := [text for text in overlong if text not in self._warned_of]:
            self._warned_of.update(new)
            warnings.warn(
                f"{len(overlong)} of {len(texts)} prompts exceed {context_length} tokens and were cut; "
                f"the first: {new[0][:60]!r}",
                stacklevel=3,
            )
        return ids


@lru_cache(maxsize=1)
def default() -> Tokenizer:
    """The one tokenizer of the process, read on first use."""
    return Tokenizer()


def tokenize(texts: str | list[str], context_length: int = CONTEXT_LENGTH) -> torch.Tensor:
    """Texts to int64 ids (N, context_length); see `Tokenizer.__call__`."""
    return default()(texts, context_length)
