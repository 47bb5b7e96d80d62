"""Sizes: every unit, and what is not a size."""

import pytest

from kvtier.config import parse_size
from kvtier.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1 kB", 1000),
        ("1 KiB", 1024),
        ("1 MB", 10**6),
        ("1 MiB", 2**20),
        ("40 GB", 40 * 10**9),
        ("2 GiB", 2 * 2**30),
        ("3 TB", 3 * 10**12),
        ("3 TiB", 3 * 2**40),
        ("1.5GiB", 3 * 2**29),
        ("0.5 kib", 512),
        ("  2 gib ", 2 * 2**30),
    ],
)
def test_a_text_is_a_number_and_a_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("size", [0, 1, 2**40])
def test_a_number_is_a_number_of_bytes(size):
    assert parse_size(size) == size


def test_a_fraction_of_a_byte_is_rounded_down():
    assert parse_size("1.9") == 1


@pytest.mark.parametrize(
    "bad",
    ["", "GiB", "2 GiBs", "2 parsecs", "-1 GiB", "1e9", "1,5 GiB", ".5 GiB", "2 GiB 3", "1_000", True, None, 1.5, b"2"],
)
def test_what_is_not_a_size_is_refused_with_examples(bad):
    with pytest.raises(ConfigError, match=r"is not a size; write bytes or a text like '512 MiB', '2 GiB', '40 GB'"):
        parse_size(bad)


def test_a_negative_number_is_refused():
    with pytest.raises(ConfigError, match="a size cannot be negative, got -1"):
        parse_size(-1)
