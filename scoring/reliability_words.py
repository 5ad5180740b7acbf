"""What out-of-fold scores say of verdicts, in words for people."""

from scoring.reliability import FALSE_ALARMS, Evidence, ThresholdRule, false_alarms

GUESSES = (
    "Your normal and abnormal images do not separate for all these few can tell (the interval holds 0.5); verdicts are "
    "guesses. Try a larger --img_size, --tile for small defects, more images, masks, or another --classname."
)


def sentences(evidence: Evidence, threshold: float) -> list[str]:
    """What the support says of verdicts at a threshold, for people: how well it separates, what to expect, and where
    verdicts are guesses what to try."""
    if not evidence.held_out:
        return ["The threshold is of images that the adapters were trained on, so it promises too much (see --folds)."]
    normal, abnormal = len(evidence.normal), len(evidence.abnormal)
    how = "each scored without itself"
    if 1 in (normal, abnormal):
        how = "of a label's only image its variants were known, so this promises too much"
    if evidence.separation is None:
        if not normal:
            return []
        above = sum(score >= threshold for score in evidence.normal)
        return [
            f"No abnormal image is known. Of {_count(normal, 'normal image')} ({how}) {above} reach the "
            f"threshold; of new ones up to {(above + 1) / (normal + 1):.0%} may."
        ]
    found, (sensitivity, specificity) = evidence.separation, evidence.rates(threshold)
    said = [
        f"On the support ({_count(normal, 'normal image')}, {abnormal} abnormal, {how}): AUROC "
        f"{found.auroc:.2f} [{found.low:.2f}, {found.high:.2f}]; expected sensitivity {sensitivity:.2f}, specificity "
        f"{specificity:.2f}."
    ]
    return [*said, GUESSES] if found.by_chance else said


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def threshold_words(rule: str, normal: int, abnormal: int) -> str:
    """How a threshold is chosen on so many normal and abnormal images, in words."""
    parsed = ThresholdRule.parse(rule)
    if parsed.name == "specificity" or not abnormal:
        share = parsed.share if parsed.name == "specificity" else 1 - FALSE_ALARMS
        promised = false_alarms(normal, share)
        return f"of normal images like them at most {promised:.0%} are expected above the threshold"
    if parsed.name == "recall":
        promised = 1 - false_alarms(abnormal, parsed.share)
        return f"of abnormal images like them at least {promised:.0%} are expected above the threshold"
    if parsed.name == "f1":
        return "the threshold is the one with the largest F1 there"
    return "at the threshold either verdict is as probable, both kinds being as frequent"
