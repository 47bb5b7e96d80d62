"""FIFO: the laws of every policy, and the order that is its own."""

import pytest

from kvtier.policy.fifo import FIFO
from kvtier.testing.policies import PolicyTests


class TestFIFO(PolicyTests):
    @pytest.fixture
    def policy(self):
        return FIFO()
