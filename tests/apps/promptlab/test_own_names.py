"""The page answers under its own names alone."""

import asyncio
import socket

import pytest

from apps.promptlab.own_names import OwnNamesOnly


def answer(at: str, kind: str = "http", **headers: str) -> list:
    """What a request gets: messages of the refusal, or "passed"."""
    said = []

    async def app(*_: object) -> None:
        said.append("passed")

    async def send(message: dict) -> None:
        said.append(message)

    pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
    asyncio.run(OwnNamesOnly(app, at)({"type": kind, "headers": pairs}, None, send))
    return said


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST:1", "scanner.local:80"])
def test_its_own_names(name):
    assert answer("scanner.local", host=name) == ["passed"]
    assert answer("scanner.local", host=name, origin=f"http://{name}") == ["passed"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:7860"},
        {"host": "localhost.evil.example"},
        {"host": "localhost@evil.example"},
        {"host": "10.0.0.1"},
        {"host": "[::1"},
        {"host": ""},
        {},
        {"host": "localhost", "origin": "http://evil.example"},
        {"host": "localhost", "origin": "null"},
    ],
)
def test_other_names_are_refused(kind, headers):
    first = answer("127.0.0.1", kind, **headers)[0]
    assert first["status"] == 403 if kind == "http" else first["type"] == "websocket.close"


def test_served_to_all_it_answers_by_number_too():
    assert answer("0.0.0.0", host="10.0.0.1:7860", origin="http://10.0.0.1:7860") == ["passed"]
    assert answer("0.0.0.0", host="evil.example")[0]["status"] == 403


def test_starting_and_stopping_pass():
    assert answer("127.0.0.1", "lifespan") == ["passed"]


def test_the_machines_own_name_where_it_is_served_everywhere():
    name = socket.gethostname()
    assert answer("0.0.0.0", host=f"{name}:7860") == ["passed"] != answer("127.0.0.1", host=name)
    assert answer("0.0.0.0", host="evil.example") != ["passed"]
