"""The way back from the names that `dataset.convert folders` gives to files."""

from urllib.parse import unquote

from dataset.convert.names import JOINT


def path_of(name: str) -> str:
    """The path that `flat_name` made `name` of."""
    return "/".join(unquote(part) for part in name.split(JOINT))
