"""One question to an OpenAI-compatible chat endpoint. Of the server nothing is taken for granted: not that it ends its
answer, keeps it short, stays at its address, or speaks the protocol at all.
"""

import asyncio
import contextlib
import email.utils
import ipaddress
import json
import math
import os
import re
import ssl
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from apps.prompts.check import visible
from runtime.bars import Bar
from runtime.errors import InputError

LARGEST = 1 << 20  # bytes of an answer; a hundred sentences take twenty thousand
PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds before the second attempt: unless the server says, and at most
BAR_AFTER, TICK = 2, 0.1  # seconds
SECRET = 12  # characters from which on a key is one; local servers take any word for it
QUOTED = 200  # characters of a server's message that are shown
T = TypeVar("T")


@dataclass(frozen=True)
class Endpoint:
    """Where a question goes. key: an empty text sends none. timeout: seconds for a whole answer."""

    url: str
    model: str
    key: str
    timeout: float

    def quoted(self, text: str) -> str:
        """What a server says, as it may be shown: short, harmless to a terminal, without the key."""
        hidden = text.replace(self.key, "[key]") if self.reveals(text) else text
        return visible(" ".join(hidden[: 10 * QUOTED].split()))[:QUOTED]

    @property
    def exposes(self) -> bool:
        """Whether the key travels where others can read it."""
        return bool(self.key) and self.url.startswith("http:") and not _is_local(urlsplit(self.url).hostname)

    def reveals(self, text: str) -> bool:
        """Whether the key is in a text."""
        return len(self.key) >= SECRET and self.key in text


@dataclass(frozen=True)
class ChatReply:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def endpoint(api: str, model: str, key_env: str | None, timeout: float) -> Endpoint:
    """The endpoint at API/chat/completions, with the key of an environment variable (None: OPENAI_API_KEY, if set).

    Raises InputError for an address that is none, and for a key that is missing or can't be one.
    """
    url = f"{api.strip().rstrip('/').removesuffix('/chat/completions')}/chat/completions"
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not re.fullmatch(r"[\x21-\x7e]+", url) or parts.query or parts.fragment:
        raise InputError(f"--api {visible(api)} is no address; give one like http://localhost:11434/v1")
    if parts.username is not None or parts.password is not None:
        raise InputError("--api holds a user name or a password; put the key into an environment variable (--key_env)")
    name = key_env or "OPENAI_API_KEY"
    key = os.environ.get(name, "").strip()
    if key_env and not key:
        raise InputError(f"--key_env {name}: that environment variable is not set, or empty")
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise InputError(f"the key in the environment variable {name} has characters that no key has; set it anew")
    return Endpoint(url, model, key, timeout)


def ask(to: Endpoint, messages: list[dict[str, str]]) -> str:
    """The content of the model's answer to messages ({"role", "content"}); tried twice where the server is busy.

    Raises InputError, one line without the key, for all that can go wrong.
    """
    question = json.dumps({"model": to.model, "messages": messages}).encode()
    answer = _waiting(_post(to, question), to.timeout, "asking")
    if answer.status == 429 or answer.status >= 500:
        pause = _pause(answer.headers.get("Retry-After"))
        if pause > LONGEST_PAUSE:
            raise InputError(f"{to.url} is busy (status {answer.status}) and asks to wait {pause:.0f} s; try then")
        _waiting(asyncio.sleep(pause), pause, f"status {answer.status}, asking again")
        answer = _waiting(_post(to, question), to.timeout, "asking")
    if 300 <= answer.status < 400:
        target = to.quoted(answer.headers.get("Location") or "nowhere")
        raise InputError(f"{to.url} redirects to {target}; nothing was sent there. If it is right, give it as --api")
    if answer.status in (401, 403):
        raise InputError(f"{to.url} refuses the key (status {answer.status}: {_message(to, answer)}); see --key_env")
    if answer.status != 200:
        raise InputError(f"{to.url} answers with status {answer.status}: {_message(to, answer)}")
    return _content(to, answer)


async def _post(to: Endpoint, question: bytes) -> ChatReply:
    """One attempt, at most `timeout` seconds long however slowly it drips in; no redirect is followed: the key is for
    the address that the user named.
    """
    try:
        import httpx
    except ImportError as fault:
        raise InputError(f"generate needs {fault.name}: pip install -r requirements/prompts.txt") from fault
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    if to.key:
        headers["Authorization"] = f"Bearer {to.key}"
    proxies = not _is_local(urlsplit(to.url).hostname)  # no proxy knows this machine's own servers
    try:
        async with (
            asyncio.timeout(to.timeout),
            httpx.AsyncClient(timeout=None, trust_env=proxies, verify=ssl.create_default_context()) as client,
            client.stream("POST", to.url, content=question, headers=headers, follow_redirects=False) as response,
        ):
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > LARGEST:
                    raise InputError(f"{to.url} answers with more than {LARGEST >> 20} MB; it was not read on")
            return ChatReply(response.status_code, response.headers, body)
    except (TimeoutError, httpx.TimeoutException):
        raise InputError(f"{to.url} has not answered within {to.timeout:g} s; see --timeout") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ImportError, ValueError) as fault:  # the last two: of proxies
        said = to.quoted(str(fault) or type(fault).__name__)
        raise InputError(f"{to.url} can't be asked ({said}); check --api") from None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _waiting(work: Coroutine[None, None, T], seconds: float, what: str) -> T:
    """What `work` gives, with a bar of `seconds`, the most that it takes, once it takes long."""

    async def watched() -> T:
        started, task = time.monotonic(), asyncio.create_task(work)
        form = "{desc}: {n:.0f} of at most {total:.0f} s"
        with Bar(total=seconds, desc=what, leave=False, delay=BAR_AFTER, bar_format=form) as bar:
            while not (await asyncio.wait([task], timeout=TICK))[0]:
                bar.update(time.monotonic() - started - bar.n)
        return await task

    return asyncio.run(watched())


def _pause(retry_after: str | None) -> float:
    """Seconds to wait by a Retry-After header: a number, or a date."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        date = email.utils.parsedate_tz(retry_after)
        seconds = email.utils.mktime_tz(date) - time.time() if date else float(retry_after)
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return PAUSE


def _message(to: Endpoint, answer: ChatReply) -> str:
    """What a server says of a fault: the protocol's error message, or its body."""
    text = answer.body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    return to.quoted(text) or "no reason given"


def _content(to: Endpoint, answer: ChatReply) -> str:
    try:
        choice = json.loads(answer.body)["choices"][0]
        content, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        raise InputError(f"{to.url} does not answer like a chat endpoint; check --api, it often ends in /v1") from None
    if reason == "length":
        raise InputError(f"{to.url} cut the answer off; ask for fewer sentences with --normal and --abnormal")
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{to.url} gives an empty answer; ask again, or another --model")
    return content
