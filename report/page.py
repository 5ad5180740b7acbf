"""What every page of ours is made of: one HTML file that fetches nothing and runs nothing but its own script."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")
LIMIT = 29_000_000  # bytes of a page


def render(template: Path, styles: Sequence[Path], scripts: Sequence[Path], content: Mapping[str, Any]) -> str:
    """The page: texts are escaped by the template, styles and scripts go in as they are, under a policy of hashes.

    content: what the template knows beside `style`, `script` and `policy`; JSON in it comes from `json_text`.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _source(styles), _source(scripts)
    raw = {"style": Markup(style), "script": Markup(script), "policy": _policy(style, script)}
    return environment.get_template(template.name).render({**content, **raw})


def json_text(content: Any) -> Markup:
    """JSON that no browser takes for markup, whatever names hold."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}))


def _source(paths: Iterable[Path]) -> str:
    """Files as they go between tags."""
    return "\n" + "\n".join(path.read_text(encoding="utf-8") for path in paths)


def _policy(style: str, script: str) -> str:
    """Nothing is fetched, and nothing runs but what was written here."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
