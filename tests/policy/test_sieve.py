"""Sieve: the laws of every policy, and the order that is its own."""

import pytest

from kvtier.policy.sieve import Sieve
from kvtier.testing.policies import PolicyTests


class TestSieve(PolicyTests):
    resumes = True

    @pytest.fixture
    def policy(self):
        return Sieve()
