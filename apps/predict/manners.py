"""Whether files are seen as the support was: how values became what is seen, and how slices lie."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.predict.inputs import Reader
from apps.predict.outputs import ScoredPicture
from apps.predict.volumes import Stack

LOOKED_AT = 8  # files of the support


@dataclass(frozen=True)
class Manner:
    """How pictures are made of a file; plane: empty where nobody knows."""

    shown: str
    plane: str

    @staticmethod
    def of(one: Stack | ScoredPicture) -> "Manner":
        """That of a file, or of a picture that was scored."""
        return Manner(one.shown, one.plane)


def manners_of(reader: Reader, support: Sequence[Path]) -> list[Manner]:
    """Those of the support, by a few of its files, spread over all."""
    step = max(1, len(support) // LOOKED_AT)
    return sorted({Manner.of(reader.open(file)) for file in support[::step][:LOOKED_AT]}, key=str)


def differing(rows: Iterable[ScoredPicture], support: Sequence[Manner]) -> Iterator[str]:
    """A line for every way in which files differ from the support; none without a support."""
    scored = [row for row in rows if row.score is not None]
    told = (
        ("brightness", lambda one: one.shown, "make both alike with --window, or as files of one kind"),
        ("plane", lambda one: one.plane, "choose another --axis, or a support of that plane"),
    )
    for what, of, mend in told:
        known = {of(one) for one in support if of(one)}
        for found in dict.fromkeys(of(row) for row in scored) if known else ():
            if found and found not in known:
                yield _line(what, found, known, [row for row in scored if of(row) == found], mend)


def _line(what: str, found: str, known: Iterable[str], rows: Sequence[ScoredPicture], mend: str) -> str:
    files = list(dict.fromkeys(row.file for row in rows))
    which = Path(files[0]).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    return f"{what} of {which}: {found}; of the support: {', '.join(sorted(known))}. Scores may not compare: {mend}"
