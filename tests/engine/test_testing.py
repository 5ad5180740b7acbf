"""Evaluating checkpoints: several objects by one model at a time, and what is written of all of them."""

import gc
import json
import weakref

import pytest
import torch
from helpers.lab import Lab

from engine import FewShotSpec, Predictor, testing, train_few_shot
from engine.system import System
from runtime.errors import InputError


def test_one_model_is_gone_before_the_next_is_opened(lab: Lab, monkeypatch):
    lab.mvtec("mpdd/tubes")
    lab.mvtec("mpdd/connector")
    for obj in ("mpdd/tubes", "mpdd/connector"):
        lab.done("train_few", "--obj", obj)
    alive: list[weakref.ref] = []
    seen: list[int] = []
    made = System.__init__

    def noted(self: System, *given: object, **named: object) -> None:
        gc.collect()
        seen.append(sum(one() is not None for one in alive))
        made(self, *given, **named)
        alive.append(weakref.ref(self))

    monkeypatch.setattr(System, "__init__", noted)
    monkeypatch.setattr("dataset.expand", lambda obj: ["mpdd/tubes", "mpdd/connector"])
    asked = {"obj": "mpdd", "shot": 1, "device": "cpu", "save_path": lab.root / "ckpt"}
    asked |= {"results_path": lab.root / "results", "cache_path": lab.root / "cache"}
    spec, results = testing.evaluate_few_shot(asked)
    assert seen == [0, 0] and [result.obj for result in results if result.selected == "last"] == [
        "mpdd/tubes",
        "mpdd/connector",
    ]
    whole = json.loads((lab.root / "results" / "test_few" / "mpdd_1-shot" / "results.json").read_text())
    assert whole["options"]["obj"] == spec.obj == "mpdd" and whole["options"]["features_list"] == [1, 2, 3, 4]


def test_a_file_that_does_not_say_what_it_is_of_is_not_taken_for_brain(trained: Lab, tmp_path):
    content = torch.load(trained.root / "ckpt" / "Brain_1-shot.pth", weights_only=True)
    torch.save({head: content[head] for head in ("seg_adapters", "det_adapters")}, tmp_path / "bare.pth")
    with pytest.raises(InputError, match="does not say what it was trained on"):
        Predictor.from_checkpoint(tmp_path / "bare.pth", device="cpu")


def test_the_demo_is_never_drawn_among_benchmarks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="name a folder for them alone"):
        train_few_shot(FewShotSpec(demo=True))
    assert not any(tmp_path.iterdir())
