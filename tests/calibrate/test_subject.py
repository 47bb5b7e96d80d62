"""The model that is calibrated with, and its blocks."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from kvtier.calibrate.subject import Subject  # noqa: E402  # needs transformers
from kvtier.oracle.models import ModelSource  # noqa: E402


def test_blocks_lie_in_a_cache_as_those_of_a_prompt_do():
    subject = Subject.load(ModelSource(), block_tokens=4, chunk_tokens=None)
    blocks = subject.buffers(3)

    views = subject.in_a_cache(blocks)

    assert all(torch.equal(view.reshape(-1), block) for view, block in zip(views, blocks, strict=True))
    assert len({view.untyped_storage().data_ptr() for view in views}) == 1
    assert not views[0].is_contiguous()
