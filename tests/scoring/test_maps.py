"""Maps under a Gaussian, against SciPy's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from scoring.maps import smoothed


@pytest.mark.parametrize("size", [5, 40])
def test_smoothing_is_a_gaussian_with_mirrored_edges(size):
    """And no map's depends on how many there are."""
    maps = torch.rand(3, size, size, generator=torch.manual_seed(0))
    reach = min(6, size - 1)
    expected = gaussian_filter(maps.double().numpy(), (0, 2.0, 2.0), mode="mirror", radius=(0, reach, reach))
    found = smoothed(maps, 2.0)
    assert np.allclose(found.numpy(), expected, atol=1e-6) and smoothed(maps, 0.0) is maps
    assert all(torch.equal(smoothed(one[None], 2.0)[0], whole) for one, whole in zip(maps, found, strict=True))
