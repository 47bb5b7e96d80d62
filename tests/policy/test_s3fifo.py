"""S3FIFO: the laws of every policy, and the order that is its own."""

import pytest

from kvtier.policy.s3fifo import S3FIFO
from kvtier.testing.policies import PolicyTests


class TestS3FIFO(PolicyTests):
    @pytest.fixture
    def policy(self):
        return S3FIFO(PolicyTests.MAX_NAMES)
