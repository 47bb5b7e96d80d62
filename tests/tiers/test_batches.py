"""Batched copies: the same bytes as block by block, in as few calls as the addresses allow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvtier.tiers import batches
from kvtier.tiers.batches import _holds_words, copy_across, copy_parts, runs, stacked

SHAPE = (4, 2, 3, 8, 16)  # layers, K and V, heads, tokens, bytes
BLOCK = 4 * 2 * 3 * 8 * 16


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def cache_views(count, start=0):
    """Blocks of one prompt's cache, as an adapter passes them."""
    cache = torch.zeros(*SHAPE[:3], (start + count) * SHAPE[3], SHAPE[4], dtype=torch.uint8)
    return [cache[:, :, :, i * SHAPE[3] : (i + 1) * SHAPE[3]] for i in range(start, start + count)]


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(1, 5))
def test_runs_cover_every_row_once_in_order(rows, longest):
    found = list(runs(rows, longest))

    assert [run.row + i for run in found for i in range(run.length)] == rows
    assert [run.first + i for run in found for i in range(run.length)] == list(range(len(rows)))
    assert all(1 <= run.length <= longest for run in found)


def test_neighbours_are_one_run():
    assert len(list(runs(range(100), 1000))) == 1


@pytest.mark.parametrize("start", [0, 3])
def test_the_blocks_of_a_prompt_are_one_tensor(start):
    views = cache_views(5, start)
    whole = stacked(views)

    views[2].fill_(9)

    assert whole.shape == (5, *SHAPE)
    assert whole[2].eq(9).all()
    assert not whole[[0, 1, 3, 4]].any()


ROW = noise(6, 32)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([ROW[0], ROW[1], ROW[3]], id="a gap"),
        pytest.param([ROW[2], ROW[1], ROW[0]], id="backwards"),
        pytest.param([ROW[0], noise(32)], id="another buffer"),
        pytest.param([ROW[0], ROW[1].view(4, 8)], id="another shape"),
        pytest.param([ROW[0], ROW[1:5, ::4].reshape(-1)], id="a copy"),
    ],
)
def test_blocks_that_are_not_equally_spaced_are_not_one_tensor(blocks):
    assert stacked(blocks) is None


@given(
    rows=st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True),
    scattered=st.booleans(),
    batch=st.integers(1, 4),
    data=st.data(),
)
def test_a_batched_copy_is_that_of_each_block(rows, scattered, batch, data):
    pool, before = noise(9, BLOCK), noise(9, BLOCK)
    views = cache_views(len(rows))
    if scattered:
        views = [view.clone() for view in views]
    start = data.draw(st.integers(0, 3))
    layers = data.draw(st.none() | st.just(slice(start, start + data.draw(st.integers(1, 4 - start)))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_BYTES", batch * BLOCK)
        if layers is None:
            copy_across(pool, rows, views, out=True)
        else:
            assert list(copy_parts(pool, rows, views, [layers])) == [0]
        back = before.clone()
        copy_across(back, rows, views, out=False)

    for row, view in zip(rows, views, strict=True):
        wanted = torch.zeros(SHAPE, dtype=torch.uint8)
        wanted[layers or slice(None)] = pool[row].view(SHAPE)[layers or slice(None)]
        assert torch.equal(view, wanted)
        assert torch.equal(back[row].view(SHAPE), wanted)
    others = [row for row in range(9) if row not in rows]
    assert torch.equal(back[others], before[others])


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (4, 1), (5, 2)])
def test_a_prompts_blocks_in_neighbouring_rows_are_copied_by_one_call(monkeypatch, count, calls):
    made, genuine = [], batches._copy
    monkeypatch.setattr(batches, "BATCH_BYTES", 4 * BLOCK)
    monkeypatch.setattr(batches, "_copy", lambda *pair: (made.append(pair), genuine(*pair)))

    copy_across(noise(8, BLOCK), range(2, 2 + count), cache_views(count), out=True)

    assert len(made) == calls


@pytest.mark.parametrize(("count", "calls"), [(1, 4), (8, 4), (9, 8)])
def test_layers_of_a_prompts_blocks_are_copied_by_one_call_for_each_part(monkeypatch, count, calls):
    made, genuine = [], batches._copy
    monkeypatch.setattr(batches, "PART_BATCH_BYTES", 2 * BLOCK)  # eight blocks' quarters
    monkeypatch.setattr(batches, "_copy", lambda *pair: (made.append(pair), genuine(*pair)))
    parts = [slice(layer, layer + 1) for layer in range(SHAPE[0])]

    for number in copy_parts(noise(12, BLOCK), range(2, 2 + count), cache_views(count), parts):
        assert len(made) == (number + 1) * calls // len(parts), "a part is queued before the next one"

    assert len(made) == calls


def test_layers_of_no_blocks_have_arrived():
    assert list(copy_parts(noise(2, BLOCK), [], [], [slice(0, 2), slice(2, 4)])) == [0, 1]


ALIGNED = torch.arange(64, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        pytest.param(ALIGNED, True, id="flat"),
        pytest.param(torch.zeros(4, 3, 16, dtype=torch.uint8)[:, 1], True, id="rows apart"),
        pytest.param(ALIGNED[8:24], True, id="at a word"),
        pytest.param(ALIGNED[:63], False, id="not whole words"),
        pytest.param(ALIGNED[3:19], False, id="at an odd address"),
        pytest.param(torch.zeros(4, 12, dtype=torch.uint8)[:, :8], False, id="rows at odd addresses"),
        pytest.param(ALIGNED[::2], False, id="every other byte"),
    ],
)
def test_bytes_are_copied_as_words_where_they_are_words(block, words):
    assert _holds_words(block) is words
