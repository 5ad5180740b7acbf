"""One file from the network: whole, checked and resumable, or one line that says why not."""

import errno
import http.client
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from runtime import files
from runtime.bars import Bar
from runtime.errors import InputError

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # connections in a row that bring nothing new
WAIT = 1.0  # seconds before the first retry; doubles with each
CHUNK = 1 << 18  # bytes
# Faults of the disk, not of the network: not worth a retry, and told by `errors.exit_code`.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class NotPublished(InputError):
    """The server is there but has no such file (404, 410)."""


class _Cut(Exception):
    """The connection ended before the file did; what came is kept."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the sha256 that Hugging Face's hub states on its way to the storage."""

    def __init__(self) -> None:
        self.sha256: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        tag = headers.get("X-Linked-Etag", "").strip('W/"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            self.sha256 = tag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def by_hand(url: str, path: Path) -> str:
    """What the user can do where the program can't fetch."""
    return f"put {url} into {path.parent} as {path.name}, or try --demo, which needs no download"


def fetch(url: str, path: str | Path, sha256: str | None = None, mend: str | None = None) -> Path:
    """Download `url` to `path` with a progress bar, and return `path`.

    The bytes gather in `path` + ".part", which a later call continues; it takes `path`'s name only when its
    size and its sha256 are right. sha256: the hexadecimal digest or its leading digits; None takes the one
    that Hugging Face's hub states, if it does, which guards against damage on the way. mend: what a fault's line
    advises, else `by_hand`. Proxies come from the environment. A connection that is cut is taken up again a few times.
    Raises NotPublished for a 404, InputError for every other failure of the network or of the bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    mend = mend or by_hand(url, path)
    print(f"fetching {url} to {path}", file=sys.stderr)
    stated = _gather(url, part, mend)
    expected = (sha256 or stated or "").lower()
    found = files.sha256(part)
    if not found.startswith(expected):
        part.unlink()
        raise InputError(
            f"{url} gave other bytes than those published (sha256 {found[:16]}, not {expected[:16]}); "
            f"they were removed; run again, or {mend}"
        )
    return part.replace(path)


def _gather(url: str, part: Path, mend: str) -> str | None:
    """Fill `part`, over as many connections as it takes; the sha256 that the server stated."""
    most = start = _size(part)
    failures = 0
    while True:
        try:
            return _receive(url, part, mend)
        except urllib.error.HTTPError as fault:
            fault.close()
            kind = NotPublished if fault.code in (404, 410) else InputError
            raise kind(f"{url} answered {fault.code} {fault.reason}; {mend}") from fault
        except (_Cut, OSError, http.client.HTTPException, ValueError) as fault:
            if isinstance(fault, OSError) and fault.errno in _DISK:
                raise
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            # Nothing has ever come: no network, or a wrong address. Trying again would only delay that.
            if most == start and not isinstance(fault, _Cut):
                why = getattr(fault, "reason", fault)
                raise InputError(f"{url} could not be reached ({why}); {mend}") from fault
            if failures == ATTEMPTS:
                raise InputError(
                    f"{url} was cut after {_size(part) / 1e6:.1f} MB ({fault}); run again and it goes on, or {mend}"
                ) from fault
            time.sleep(WAIT * 2**failures)


def _receive(url: str, part: Path, mend: str) -> str | None:
    """One connection: append what `part` lacks, or write it anew where the server knows no ranges."""
    redirects = _Redirects()
    have = _size(part)
    headers = {"User-Agent": "ClipMPCAD", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={have}-"} if have else {}))
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as fault:
        if fault.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        fault.close()
        if fault.headers.get("Content-Range", "").endswith(f"/{have}"):
            return redirects.sha256  # it was complete, only not yet checked and renamed
        part.unlink()
        raise _Cut("what was there belonged to another file") from fault
    with response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url} gave a web page, not the file (a login page?); {mend}")
        offset, total = _extent(response, have)
        with (
            part.open("ab" if offset else "wb") as file,
            Bar(total=total, initial=offset, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while piece := response.read(CHUNK):
                bar.update(file.write(piece))
    have = _size(part)
    if total is not None and have > total:
        part.unlink()
    if total is not None and have != total:
        raise _Cut(f"of {total / 1e6:.1f} MB")
    return redirects.sha256


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the body starts in the file, and the whole file's size if the server says so."""
    if response.status != http.client.PARTIAL_CONTENT:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if span is None or int(span[1]) != have:
        raise http.client.HTTPException("the server sent another range than was asked for")
    return have, None if span[2] == "*" else int(span[2])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
