"""A set of prompts in the form that the lab edits: sentences, states and templates, as lists of lines."""

import ast
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from unicodedata import category

import prompt
from runtime.errors import InputError

SOURCE = Path(prompt.__file__)
MOST_SENTENCES = 5000  # states x templates grow fast
LONGEST = 1000  # characters; 77 tokens are far fewer
UNWRITTEN = ("Cc", "Cs")  # control characters, halves of surrogate pairs
ENSEMBLE = ("normal_states", "abnormal_states", "templates")  # fields, and in capitals lists of prompt.py


@dataclass(frozen=True)
class PromptSet:
    """Sentences of both labels, and the states and templates that more of them are made of.

    In a sentence `{classname}` stands for the object's words; in a state and in a template `{}` does.
    """

    normal: tuple[str, ...] = ()
    abnormal: tuple[str, ...] = ()
    normal_states: tuple[str, ...] = ()
    abnormal_states: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    @staticmethod
    def of(obj: str, prompts: str | Path = "all", classname: str | None = None) -> "PromptSet":
        """What --prompts names: base, llm, all or a JSON file. Raises InputError as `prompt.sentences`."""
        lists = {}
        if prompts in ("base", "all"):
            lists = {field: getattr(prompt, field.upper()) for field in ENSEMBLE}
        if prompts != "base":
            own = prompt.sentences(obj, "llm" if prompts == "all" else prompts, classname)
            lists |= zip(("normal", "abnormal"), own, strict=True)
        return PromptSet(**{field: tuple(texts) for field, texts in lists.items()})

    @staticmethod
    def typed(*texts: str) -> "PromptSet":
        """From texts with an entry a line, in the order of the fields; empty lines and spaces around count for nothing.

        Raises InputError for a line that is too long or no text, or a state or template without its place-holder.
        """
        lists = [tuple(line.strip() for line in text.splitlines() if line.strip()) for text in texts]
        for field, lines in zip(fields(PromptSet), lists, strict=True):
            name = field.name.replace("_", " ")
            for number, line in enumerate(lines, start=1):
                if bad := next((sign for sign in line if category(sign) in UNWRITTEN), None):
                    raise InputError(f"{name}, line {number}: the sign {bad!a} is no text; take it out")
                if len(line) > LONGEST:
                    raise InputError(f"{name}, line {number}: {len(line)} characters; keep to {LONGEST}")
                if field.name.endswith(("states", "templates")) and "{}" not in line:
                    raise InputError(f"{name}, line {number}: no {{}} in {line!r:.60}; put {{}} where the words go")
        return PromptSet(*lists)

    def texts(self) -> tuple[str, ...]:
        """What `typed` reads, a text a field."""
        return tuple("\n".join(getattr(self, field.name)) for field in fields(self))

    def sentences(self, classname: str) -> tuple[list[str], list[str]]:
        """All (normal, abnormal) sentences without repeats: the ensemble's, then the typed ones.

        Raises InputError when a label has none, or all are too many.
        """
        lists = []
        for label, own, states in (
            ("normal", self.normal, self.normal_states),
            ("abnormal", self.abnormal, self.abnormal_states),
        ):
            if (count := len(states) * len(self.templates) + len(own)) > MOST_SENTENCES:
                raise InputError(f"{count} {label} sentences, more than {MOST_SENTENCES}: take some out")
            made = prompt.ensemble(list(states), classname, list(self.templates))
            made += [sentence.replace("{classname}", classname) for sentence in own]
            if not made:
                raise InputError(f"no {label} sentences: write at least one, or a state and a template")
            lists.append(list(dict.fromkeys(made)))
        return lists[0], lists[1]


def diff(start: PromptSet, edited: PromptSet, obj: str) -> str:
    """What was edited, as a unified diff; empty without an edit. A list that is left empty counts as none: what goes
    without the ensemble is --prompts llm, what goes without sentences --prompts base.

    States and templates give a patch of prompt.py. Sentences are listed beside: prompt.py composes them of an
    object's block, so they have no lines of their own there; a JSON file for --prompts takes them as they are.
    """
    before = after = SOURCE.read_text(encoding="utf-8")
    for field in ENSEMBLE:
        if getattr(edited, field) not in ((), getattr(start, field)):
            after = _with_list(after, field.upper(), getattr(edited, field))
    parts = [_unified(before.splitlines(), after.splitlines(), SOURCE.name)]
    for field in ("normal", "abnormal"):
        if lines := getattr(edited, field):
            parts.append(_unified(getattr(start, field), lines, f"{obj}, {field} sentences"))
    return "".join(parts)


def _with_list(source: str, name: str, texts: Sequence[str]) -> str:
    """Python source with the list `name` at its top level replaced, a text a line."""
    (node,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name
    )
    lines = source.splitlines(keepends=True)
    entries = [f"    {json.dumps(text, ensure_ascii=False)},\n" for text in texts]
    lines[node.lineno - 1 : node.end_lineno] = [f"{name} = [\n", *entries, "]\n"]
    return "".join(lines)


def _unified(before: Sequence[str], after: Sequence[str], name: str) -> str:
    lines = difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", lineterm="")
    return "".join(f"{line}\n" for line in lines)
