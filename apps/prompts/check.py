"""Slips in prompt lists: repeats, overlong and contradictory sentences, and the like, each named with its sentence.

The rules know words, not meaning. They are the lists below, to be read and amended; what they find is for a person
to judge.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import prompt

KINDS = {  # kind of slip: what it means
    "empty": "says nothing",
    "control": "holds a character that can't be seen, such as a line break or a terminal's escape",
    "place-holder": "has braces other than {classname}, which stay as they are",
    "overlong": "has more tokens than CLIP's text tower reads",
    "duplicate": "is in its list before",
    "near": "differs from one before it in case, punctuation or white space only",
    "both": "is in both lists, and so pulls both directions together",
    "contradiction": "says the opposite of what its list stands for",
}
LONGEST = 600  # characters; more is overlong whatever its tokens, and is looked at no further

# Words that a normal sentence says only to deny them. Whole words: "broken" is not in "unbroken".
ABNORMAL = re.compile(
    r"""\b(?:
    abnormal\w* | anomal\w* | patholog(?:y|ies|ical) | disease[sd]? | malignan\w* | cancer\w* | tumou?rs? | neoplas\w* |
    carcinoma\w* | melanomas? | gliomas? | metasta\w* | lesions? | mass(?:es)? | nodules? | cyst(?:s|ic|oid)? |
    o?edema\w* | ha?emorrhag\w* | bleed\w* | infarct\w* | necro\w* | fractur\w* | effusions? | consolidations? |
    opacit\w+ | infiltrat\w* | pneumonia | pneumothorax | atelecta\w* | drusen | detachments? | ulcer\w* | swollen |
    swelling | atypi\w* | pleomorphic |
    defect\w* | flaw(?:s|ed)? | fault(?:s|y)? | damag\w* | blemish\w* | broken | crack\w* | scratch\w* | scuff\w* |
    dent(?:s|ed)? | gouge\w* | chipped | torn | bent | burnt | scorch\w* | rust(?:y|ed)? | corro[ds]\w* | stains? |
    contaminat\w* | frayed | leak\w* | missing | misplaced | misaligned | mis-?shapen | deform\w* | distort\w* |
    irregular\w* | asymmetr\w* | uneven\w* | worn
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
# What denies such a word: one of these, at most REACH words before it in the same clause. Commas end no clause, since
# "no mass, oedema or bleeding" denies all three.
DENIAL = re.compile(
    r"\b(?:no|not(?! only)|nor|never|neither|none|without|free (?:of|from)|absence of|lack(?:s|ing)?|excludes)\b"
)
REACH = 7
CLAUSE_END = re.compile(r"[.;:!?]|\b(?:but|however|although|except|besides|apart|with|showing)\b")
# Or one of these right after it: "rust-free", "a fracture is absent".
DENIED_AFTER = re.compile(
    r"[- ]free\b(?! (?:fluid|air|of|from)\b)"
    r"| (?:(?:is|are) )?(?:absent|excluded|ruled out|not (?:seen|present|visible))\b"
)
# What an abnormal sentence never says ...
CLAIMED = re.compile(
    r"""\b(?:no|without|free\ (?:of|from))\s+(?:\w+\s+){0,3}?
    (?:abnormalit\w+|anomal\w+|patholog\w+|diseases?|defects?|flaws?|faults?|damage|blemish\w*)\b
    | \bwithin\ normal\ limits\b | \bpass(?:es)?\ inspection\b | \bnothing\ (?:wrong|abnormal|unusual)\b""",
    re.IGNORECASE | re.VERBOSE,
)
# ... and what it only says when it also names something abnormal ("normal tissue displaced by a mass").
SOUND = re.compile(r"\b(?:normal|healthy|unremarkable|flawless|perfect|unblemished|undamaged|benign)\b", re.IGNORECASE)

_BRACES = re.compile(r"\{[^{}]*\}?|\}")
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # Unicode's categories


@dataclass(frozen=True)
class Slip:
    """One slip: its kind (a key of KINDS), the list and the place in it, counted from 1, and the sentence."""

    kind: str
    label: str
    number: int
    text: str
    note: str  # what exactly

    def __str__(self) -> str:
        text = self.text if len(self.text) <= LONGEST else f"{self.text[:60]}..."
        return visible(f'{self.kind}: {self.label} {self.number} "{text}" {self.note}')


def slips(normal: Sequence[str], abnormal: Sequence[str], name: str) -> list[Slip]:
    """All slips of two lists, in their order. `name` fills {classname}, and does not count against a sentence."""
    found, lists = [], {"normal": normal, "abnormal": abnormal}
    plain = {label: [_plain(text, name) for text in texts] for label, texts in lists.items()}
    for label, texts in lists.items():
        other = set(plain["abnormal" if label == "normal" else "normal"])
        first: dict[str, int] = {}
        for number, text in enumerate(texts, start=1):
            notes = list(_alone(text, label, name))
            if not {"empty", "overlong"} & dict(notes).keys():
                same = plain[label][number - 1]
                if before := first.setdefault(same, number) - number:
                    notes.append(_repeats(text, texts[number + before - 1], number + before))
                if same in other:
                    notes.append(("both", "is in the other list too"))
            found += [Slip(kind, label, number, text, note) for kind, note in notes]
    return found


def blanks(obj: str) -> list[Slip]:
    """Entries without words in prompt.py's lists for `obj`, which leave gaps in the middle of sentences."""
    block = prompt.P_PROMPTS.get(obj, prompt.GENERIC)
    voice = block.get("voice", "inspection")
    lists = {f"{key} of {obj}": block[key] for key in block if isinstance(block[key], list)}
    lists |= {f"{key} of the voice {voice}": texts for key, texts in prompt.VOICES[voice].items()}
    for key in ("NORMAL_STATES", "ABNORMAL_STATES", "TEMPLATES"):
        lists[key] = getattr(prompt, key)
    return [
        Slip("empty", key, number, text, "is an entry without words; take it away")
        for key, texts in lists.items()
        for number, text in enumerate(texts, start=1)
        if not text.strip()
    ]


def visible(text: str) -> str:
    """The text with every character that can't be seen, or that moves a terminal's cursor, as its escape."""
    return "".join(ascii(one)[1:-1] if unicodedata.category(one) in _UNSEEN else one for one in text)


def _alone(text: str, label: str, name: str) -> Iterator[tuple[str, str]]:
    """What is wrong with one sentence by itself, (kind, note)."""
    if not text.strip():
        yield "empty", KINDS["empty"]
        return
    if len(text) > LONGEST:
        yield "overlong", f"has {len(text)} characters; {LONGEST} are never one sentence"
        return
    if unseen := [one for one in text if unicodedata.category(one) in _UNSEEN]:
        yield "control", f"holds {unseen[0]!a}"
    if braces := _BRACES.search(text.replace("{classname}", "")):
        yield "place-holder", f"holds {braces[0]}, and only {{classname}} is filled in"
    if excess := _excess(text.replace("{classname}", name)):
        yield "overlong", excess
    if contradiction := _contradiction(text, label, name):
        yield "contradiction", contradiction


def _excess(text: str) -> str:
    """By how much a sentence is too long for CLIP; an empty text if it is not."""
    from CLIP.tokenizer import CONTEXT_LENGTH, default  # torch comes with it, and not every command needs it

    tokens = len(default().encode(text)) + 2  # start and end
    return f"has {tokens} tokens, and CLIP reads {CONTEXT_LENGTH}" if tokens > CONTEXT_LENGTH else ""


def _contradiction(text: str, label: str, name: str) -> str:
    """What a sentence says against its list; an empty text if nothing."""
    text = _without_name(text, name)
    wrong = next((found for found in ABNORMAL.finditer(text) if not _denied(text, found)), None)
    if label == "normal":
        return f"says {wrong[0]!r} without denying it" if wrong else ""
    if claim := CLAIMED.search(text):
        return f"claims {' '.join(claim[0].split())!r}"
    sound = SOUND.search(text)
    denied = sound and re.search(r"\b(?:not|never|no longer|loss of|lacks?)\s+(?:\w+\s+)?$", text[: sound.start()])
    return f"says {sound[0]!r} and names nothing abnormal" if sound and not denied and not wrong else ""


def _denied(text: str, found: re.Match) -> bool:
    """Whether the sentence denies the word that was found in it."""
    clause = CLAUSE_END.split(text[: found.start()].lower())[-1]
    near = " ".join(re.findall(r"\w+", clause)[-REACH:])
    return bool(DENIAL.search(near) or DENIED_AFTER.match(text.lower(), found.end()))


def _without_name(text: str, name: str) -> str:
    """The sentence without the object's words: "skin lesion" says nothing of its state."""
    return re.sub(rf"\b{re.escape(name)}\b", "thing", text.replace("{classname}", name)) if name else text


def _plain(text: str, name: str) -> str:
    """What near duplicates have in common."""
    text = unicodedata.normalize("NFKC", text[: LONGEST + 1].replace("{classname}", name)).casefold()
    return " ".join(re.sub(r"[^\w{}]+", " ", text).split())


def _repeats(text: str, before: str, number: int) -> tuple[str, str]:
    """(kind, note) of a sentence that says what one before it does."""
    if text.strip() == before.strip():
        return "duplicate", f"is number {number} too"
    return "near", f'differs little from number {number} "{visible(before)}"'
