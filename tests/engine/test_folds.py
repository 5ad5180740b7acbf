"""Folds: who leaves together, what is trained on what, and that no score comes of a system that saw the image."""

import pytest
import torch

from engine.folds import deal, in_order, kept_or_made, left_out_together
from engine.support import Support, with_synthetic
from runtime.errors import InputError
from scoring.cues import Cues
from scoring.patch_scores import PatchScores

VARIANTS = 3


def support(abnormal: int, normal: int) -> Support:
    """Images of one grey each, abnormal ones first, marked in their middle."""
    images = abnormal + normal
    source = torch.arange(images).repeat_interleave(VARIANTS)
    labels = (source < abnormal).float()
    masks = torch.zeros(len(source), 1, 8, 8)
    masks[labels == 1, :, 3:5, 3:5] = 1
    pictures = (source / images).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()
    return Support(pictures, masks, labels, source, torch.arange(VARIANTS).repeat(images))


def rows_of(made: Support) -> torch.Tensor:
    return torch.arange(len(made.labels))


@pytest.mark.parametrize(
    ("abnormal", "normal", "count", "folds"), [(4, 4, 4, 4), (2, 5, 4, 4), (3, 3, 8, 3), (16, 16, 4, 4)]
)
def test_every_image_is_left_out_once_with_all_its_variants(abnormal, normal, count, folds):
    made = support(abnormal, normal)
    dealt = deal(made, count, 7, rows_of(made))
    assert len(dealt) == folds
    assert torch.equal(torch.cat([fold.left_out for fold in dealt]).sort().values, rows_of(made))
    for fold in dealt:
        assert not set(made.source[fold.left_out].tolist()) & set(made.source[fold.kept].tolist())
        assert set(made.labels[fold.kept].tolist()) == {0, 1}
        assert set(fold.owners) == set(made.source[fold.left_out].tolist())


def test_of_a_single_image_the_variants_are_dealt():
    made = support(1, 4)
    dealt = deal(made, 4, 7, rows_of(made))
    for fold in dealt:
        assert made.labels[fold.kept].sum() > 0
        assert not set(fold.left_out.tolist()) & set(fold.kept.tolist())
    assert len(left_out_together(made)[made.labels == 1].unique()) == VARIANTS


def test_the_seed_decides_who_is_left_out_together():
    made = support(8, 8)
    first, again, other = (deal(made, 4, seed, rows_of(made)) for seed in (1, 1, 2))
    assert [one.owners for one in first] == [one.owners for one in again] != [one.owners for one in other]


def test_only_rows_that_are_asked_for_are_scored_and_all_others_are_trained_on():
    made = support(2, 4)
    asked = (made.variant == 0).nonzero()[:, 0]
    for fold in deal(made, 2, 0, asked):
        assert set(made.variant[fold.left_out].tolist()) == {0}
        assert len(fold.kept) == VARIANTS * 3


def test_what_was_made_of_an_image_leaves_with_it():
    made = with_synthetic(support(2, 2), 3, 0)
    assert int(made.is_synthetic.sum()) == 6 and made.labels[made.is_synthetic].all()
    for fold in deal(made, 2, 0, (~made.is_synthetic).nonzero()[:, 0]):
        assert not made.is_synthetic[fold.left_out].any()
        parents = made.parents[fold.kept][made.is_synthetic[fold.kept]]
        assert not set(parents.flatten().tolist()) & set(fold.owners)


def test_synthetic_images_are_lesions_in_normal_ones():
    plain = support(2, 2)
    made = with_synthetic(plain, 2, 5)
    rows = made.is_synthetic.nonzero()[:, 0]
    for row in rows.tolist():
        lesion, ground = made.parents[row].tolist()
        assert lesion < 2 <= ground and torch.equal(made.masks[row], plain.masks[0])
        values = made.images[row]
        assert values[:, 0, 0] == pytest.approx([ground / 4] * 3, abs=0.05)
        assert abs(values[0, 3, 3] - ground / 4) > 0.1 * abs(lesion - ground) / 4
    again = with_synthetic(plain, 2, 5)
    assert torch.equal(again.images, made.images)
    with pytest.raises(InputError, match="--synthetic"):
        with_synthetic(Support(plain.images, 0 * plain.masks, plain.labels, plain.source, plain.variant), 1, 0)


def found(*values: float) -> dict:
    column = torch.tensor(values)
    return {"seg": PatchScores(column.view(-1, 1, 1, 1), None), "cues": Cues(column[:, None], ("one",))}


def test_rows_come_back_in_their_order():
    parts = [(torch.tensor([4, 0]), found(4, 0)), (torch.tensor([2]), found(2))]
    ordered = in_order(parts, torch.tensor([0, 2, 4]))
    assert ordered["seg"].zero.flatten().tolist() == [0, 2, 4] == ordered["cues"].values.flatten().tolist()


def test_a_fold_that_is_done_is_not_made_again(tmp_path):
    made = []

    def make():
        made.append(1)
        return {3: found(1, 2)}

    path = tmp_path / "folds" / "0.pth"
    first, again = kept_or_made(path, make), kept_or_made(path, make)
    assert len(made) == 1 and again[3]["cues"].names == ("one",)
    assert torch.equal(first[3]["seg"].zero, again[3]["seg"].zero) and again[3]["seg"].few is None
    content = torch.load(path, weights_only=True)
    content["epochs"]["3"]["seg"]["zero"][0] = 9
    torch.save(content, path)
    with pytest.raises(InputError, match="damaged"):
        kept_or_made(path, make)
