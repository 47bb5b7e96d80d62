"""The arena: memory comes back when the last view is gone, and not a moment earlier."""

import threading

import pytest
import torch

from kvtier.integrations.arena import Arena

SHAPE = (4, 1024)
CPU = torch.device("cpu")


def test_a_tensor_has_the_shape_and_type_asked_for():
    taken = Arena().take((2, 3, 5), torch.bfloat16, CPU)

    assert (taken.shape, taken.dtype, taken.is_contiguous()) == ((2, 3, 5), torch.bfloat16, True)


def test_memory_is_used_again_once_its_tensor_is_gone():
    arena = Arena()
    taken = arena.take(SHAPE, torch.float32, CPU)
    address = taken.data_ptr()

    del taken

    assert arena.take(SHAPE, torch.float32, CPU).data_ptr() == address


@pytest.mark.parametrize(
    "view_of",
    [lambda t: t[1:], lambda t: t.view(torch.uint8), lambda t: t.t(), lambda t: t.unbind()[3], lambda t: t.detach()],
    ids=["slice", "bytes", "transposed", "row", "detached"],
)
def test_memory_is_not_used_again_while_a_view_lives(view_of):
    arena = Arena()
    taken = arena.take(SHAPE, torch.float32, CPU)
    taken.fill_(7)
    view, before = view_of(taken), view_of(taken).clone()

    del taken
    arena.take(SHAPE, torch.float32, CPU).fill_(9)

    assert torch.equal(view, before)


def test_two_tensors_alive_share_no_memory():
    arena = Arena()

    first, second = (arena.take(SHAPE, torch.float32, CPU) for _ in range(2))
    first.fill_(1)
    second.fill_(2)

    assert bool((first == 1).all())


def test_a_smaller_tensor_takes_the_smallest_memory_that_fits():
    arena = Arena()
    large, small = arena.take((8 << 20,), torch.uint8, CPU), arena.take((1 << 20,), torch.uint8, CPU)
    address = small.data_ptr()

    del large, small

    assert arena.take((1000,), torch.uint8, CPU).data_ptr() == address


def test_memory_beyond_the_limit_goes_back_oldest_first(monkeypatch):
    monkeypatch.setattr("kvtier.integrations.arena._KEEP_BYTES", 2 << 20)
    arena = Arena()
    taken = [arena.take((1 << 20,), torch.uint8, CPU) for _ in range(3)]
    last = taken[2].data_ptr()

    while taken:
        del taken[0]

    assert sum(map(len, arena._free.values())) <= 2 << 20
    assert last in {memory.ctypes.data for memory in arena._free.values()}


def test_a_cache_dropped_while_a_layers_keys_are_kept_gives_nothing_back(tiny, open_lm):
    lm = open_lm(tiny(), host=8)
    keys = lm.prefill(list(range(40))).past_key_values.layers[0].keys
    before = keys.clone()

    lm.prefill([7] * 40)
    lm.prefill([9] * 40)

    assert torch.equal(keys, before)


def test_a_dropped_cache_gives_its_memory_to_the_next_prompt(tiny, open_lm):
    lm = open_lm(tiny(), host=8)
    address = lm.prefill([5] * 40).past_key_values.layers[0].keys.data_ptr()

    assert lm.prefill([7] * 40).past_key_values.layers[0].keys.data_ptr() == address


def test_threads_never_share_memory():
    arena, wrong = Arena(), []

    def work(number):
        for step in range(400):
            taken = arena.take(((1 + (number + step) % 3) << 10,), torch.uint8, CPU)
            taken.fill_(number)
            if not bool((taken == number).all()):
                wrong.append((number, step))
            del taken

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert 0 < len(arena._free) <= 8
