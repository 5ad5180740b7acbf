"""Twenty kills at random moments: nothing is lost, and the end has the bits of an undisturbed training."""

import pytest

from faults.kill import NAMES, Kills


@pytest.mark.slow
@pytest.mark.parametrize("script", NAMES)
def test_killed_trainings_end_with_the_same_bits(tmp_path, script):
    kills = Kills(tmp_path, script, seed=1)
    kills.run(10)
    assert kills.counts["kills"] == 10 and kills.counts["kills with something saved"] > 0
    assert kills.counts["finished runs, same bits"] > 0
