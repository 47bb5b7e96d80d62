"""The tree of errors is the one drawn, and messages say who and which."""

import inspect
import pickle
import re

import pytest

from kvtier import errors


def drawn():
    """``{class: parents}`` as the module's docstring draws them."""
    tree, path = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^ {4}([│ ├└─]*)(\w+Error)\s*(?:\((\w+)\))?", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        path[depth:] = [found[2]]
        parents = {path[depth - 1]} if depth else {"Exception"}
        tree[found[2]] = parents | ({found[3]} if found[3] else set())
    return tree


def test_the_drawn_tree_is_the_real_one():
    real = {
        name: {base.__name__ for base in cls.__bases__} for name, cls in vars(errors).items() if inspect.isclass(cls)
    }

    assert drawn() == real


def test_the_drawing_was_found():
    assert len(drawn()) == 16


def test_a_corrupt_block_is_named_by_its_first_twelve_digits():
    error = errors.CorruptBlockError(bytes.fromhex("6f1c0a9be2d4") + bytes(26), "checksum mismatch")

    assert str(error) == "block 6f1c0a9be2d4: checksum mismatch"


def test_a_corrupt_block_error_carries_the_whole_name():
    name = bytes(range(32))

    assert errors.CorruptBlockError(name, "checksum mismatch").key == name


@pytest.mark.parametrize("cls", [errors.TierFullError, errors.TierClosedError, errors.TierUnavailableError])
def test_a_tier_error_starts_with_the_tier(cls):
    error = cls("nvme", "9 blocks do not fit: 8 of 8 slots are free")

    assert str(error) == "nvme: 9 blocks do not fit: 8 of 8 slots are free"


@pytest.mark.parametrize("cls", [errors.TierFullError, errors.TierClosedError, errors.TierUnavailableError])
def test_a_tier_error_carries_the_tier_and_the_reason(cls):
    error = cls("nvme", "gone")

    assert (error.tier, error.reason) == ("nvme", "gone")


def test_an_unavailable_tier_is_caught_as_an_os_error():
    with pytest.raises(OSError, match="nvme: gone"):
        raise errors.TierUnavailableError("nvme", "gone")


@pytest.mark.parametrize("cls", [errors.TierFullError, errors.TierClosedError, errors.TierUnavailableError])
def test_a_tier_error_comes_back_from_a_worker_process(cls):
    error = pickle.loads(pickle.dumps(cls("nvme", "gone")))

    assert (type(error), str(error), error.tier, error.reason) == (cls, "nvme: gone", "nvme", "gone")


def test_a_refusal_comes_back_from_a_worker_process():
    keys = frozenset({bytes(range(32))})
    error = pickle.loads(pickle.dumps(errors.BlockRefusedError("nvme", "too large", keys)))

    assert (str(error), error.tier, error.reason, error.keys) == ("nvme: too large", "nvme", "too large", keys)


def test_a_corrupt_block_error_comes_back_from_a_worker_process():
    error = pickle.loads(pickle.dumps(errors.CorruptBlockError(bytes(range(32)), "checksum mismatch")))

    assert (error.key, error.reason) == (bytes(range(32)), "checksum mismatch")
