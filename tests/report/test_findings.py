"""Regions in words, and how many of them a page holds."""

from report.findings import SHOWN, listed, resembled, within, words

REGION = {"area": 1200, "area_mm2": None, "share": 0.614, "place": "upper left", "resembles": []}


def test_a_region_in_words():
    assert words(REGION) == "upper left, 1,200 pixels, 61 % of the score"
    assert words(REGION | {"area": 1, "area_mm2": 0.25}) == "upper left, 1 pixel (0.25 mm²), 61 % of the score"
    assert "(12,346 mm²)" in words(REGION | {"area_mm2": 12345.6})


def test_what_it_resembles_in_words():
    like = [{"finding": "a mass", "margin": 1.26}, {"finding": "a cyst", "margin": -0.5}]
    assert resembled(REGION | {"resembles": like}) == ["a mass (+1.3)", "a cyst (-0.5)"]


def test_a_page_shows_some_of_many():
    found = listed([REGION] * (SHOWN + 7))
    assert len(found["regions"]) == SHOWN and found["more"] == 7


def test_a_page_holds_as_many_as_there_is_room_for():
    one = len(str(listed([REGION]))) + 20
    found = within([(4, [REGION]), (2, []), (9, [REGION]), (1, [REGION])], limit=2 * one)
    assert list(found) == [4, 9]
