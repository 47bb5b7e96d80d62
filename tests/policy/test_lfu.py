"""LFU: the laws of every policy, and the order that is its own."""

import pytest

from kvtier.policy.lfu import LFU
from kvtier.testing.policies import PolicyTests


class TestLFU(PolicyTests):
    @pytest.fixture
    def policy(self):
        return LFU()
