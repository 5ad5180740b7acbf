"""Regions of anomaly maps in words, as pages show them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NO_DIAGNOSIS = (
    "what a region resembles is the closest of a few texts, no diagnosis; below 0 the rest of the picture is closer"
)
SHOWN = 5  # regions of an image on a page
LIMIT = 2_000_000  # bytes that all images' regions take in a page

Region = Mapping[str, Any]  # as `engine.findings.plain` has it


def words(region: Region) -> str:
    """Where a region is, how large, how much of the score: "upper left, 120 pixels (29.4 mm²), 61 % of the score"."""
    size = f"{region['area']:,} pixel{'s' if region['area'] != 1 else ''}"
    if (area := region["area_mm2"]) is not None:
        size += f" ({area:.3g} mm²)" if area < 1000 else f" ({area:,.0f} mm²)"
    return f"{region['place']}, {size}, {100 * region['share']:.0f} % of the score"


def resembled(region: Region) -> list[str]:
    """What a region resembles, the closest first, each with how much closer it is than the normal text."""
    return [f"{one['finding']} ({one['margin']:+.1f})" for one in region["resembles"]]


def listed(regions: Sequence[Region]) -> dict[str, Any]:
    """An image's regions as a page's script reads them: those shown, and how many more there are."""
    shown = [{"words": words(one), "resembles": resembled(one)} for one in regions[:SHOWN]]
    return {"regions": shown, "more": len(regions) - len(shown)}


def within(images: Iterable[tuple[int, Sequence[Region]]], limit: int = LIMIT) -> dict[int, dict[str, Any]]:
    """`listed` by an image's number, of as many images as `limit` bytes hold, first things first."""
    found, spent = {}, 0
    for number, regions in images:
        if regions:
            made = listed(regions)
            spent += len(json.dumps(made))
            if spent > limit:
                break
            found[number] = made
    return found
