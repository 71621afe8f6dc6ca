"""For every test: chance that comes again, and no deadline, since a busy machine is no failure."""

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "hunt", deadline=None, max_examples=5000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _same_chance():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
