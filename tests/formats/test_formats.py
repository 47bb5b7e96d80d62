"""What holds for every storage format: sizes, purity, damage, strides, refusals."""

import pytest
import torch
from formats.format_helpers import ODD, SPECS, as_bytes, decoded, dtype_of, encoded, like_kv, noise, strided
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.errors import ConfigError, CorruptBlockError
from kvtier.format import PAGE_BYTES
from kvtier.formats.base import FORMATS, HEADER_BYTES, engine_layout, in_format
from kvtier.formats.choice import codec_for
from kvtier.hashing import Namespace
from kvtier.spec import KVSpec

LOSSY = [name for name in FORMATS if name != "lossless"]
KEY = bytes(range(32))

every_format = pytest.mark.parametrize("name", FORMATS)
every_spec = pytest.mark.parametrize("spec", [*SPECS, *ODD], ids=lambda spec: f"{spec.dtype}-{spec.head_dim}")


def make(name, spec):
    """A format in which every block fits, so that blocks of few numbers do."""
    return codec_for(name, spec, budget=1.0 if name == "lossless" else None)


@every_format
@every_spec
def test_an_encoded_block_is_whole_pages_of_the_size_promised(name, spec):
    codec = make(name, spec)

    stored = encoded(codec, as_bytes(like_kv(spec)))

    assert codec.encoded_bytes == len(stored)
    assert codec.encoded_bytes % PAGE_BYTES == 0


def test_the_sizes_of_a_small_real_model():
    spec = KVSpec(layers=30, kv_heads=3, head_dim=64, dtype="bfloat16")
    values, scales = 30 * 2 * 3 * 32 * 64, 2 * 30 * 3 * (64 + 32)

    sizes = {name: codec_for(name, spec).encoded_bytes for name in FORMATS}

    def pages(size):
        return -(-(HEADER_BYTES + size) // PAGE_BYTES) * PAGE_BYTES

    assert sizes["fp8"] == pages(values + scales)
    assert sizes["int8"] == pages(values + 2 * scales)
    assert sizes["int4"] == pages(values // 2 + 2 * scales)
    assert values * 1.5 < sizes["lossless"] < values * 1.5 + 2 * PAGE_BYTES


@every_format
@every_spec
def test_the_same_block_gives_the_same_bytes_whatever_was_there_before(name, spec):
    codec, block = make(name, spec), as_bytes(like_kv(spec))
    first, second = torch.zeros(codec.encoded_bytes, dtype=torch.uint8), encoded(codec, block)
    encoded(codec, as_bytes(like_kv(spec, seed=1)))  # what a thread keeps between calls must not show

    codec.encode(KEY, block, first)

    assert torch.equal(first, second)
    assert torch.equal(decoded(codec, first), decoded(codec, second))


@every_format
@every_spec
def test_a_strided_block_is_encoded_and_decoded_like_a_flat_one(name, spec):
    codec, block = make(name, spec), as_bytes(like_kv(spec))
    source, _ = strided(spec)
    source.copy_(block.view(source.shape))
    target, whole = strided(spec)

    stored = encoded(codec, source)
    codec.decode(KEY, stored, target)

    assert torch.equal(stored, encoded(codec, block))
    assert torch.equal(target.reshape(-1), decoded(codec, stored))
    target.zero_()
    assert not whole.any()


@every_format
def test_a_block_of_any_other_shape_and_strides_will_do(name):
    codec = make(name, SPECS[0])
    block = as_bytes(like_kv(SPECS[0]))
    every_second = torch.zeros(2 * len(block), dtype=torch.uint8)[::2]
    every_second.copy_(block)
    target = torch.zeros(2 * len(block), dtype=torch.uint8)[::2]

    codec.decode(KEY, encoded(codec, every_second), target)

    assert torch.equal(target, decoded(codec, encoded(codec, block)))


@every_format
def test_a_block_whose_bytes_lie_apart_will_do(name):
    codec = make(name, SPECS[0])
    block = as_bytes(like_kv(SPECS[0]))
    shape = strided(SPECS[0])[0].shape
    source, target = (torch.zeros(*shape[:-1], 2 * shape[-1], dtype=torch.uint8)[..., ::2] for _ in range(2))
    source.copy_(block.view(shape))

    codec.decode(KEY, encoded(codec, source), target)

    assert torch.equal(target.reshape(-1), decoded(codec, encoded(codec, block)))


@every_format
def test_a_block_at_an_odd_address_will_do(name):
    codec, block = make(name, SPECS[0]), as_bytes(like_kv(SPECS[0]))
    source = torch.zeros(len(block) + 1, dtype=torch.uint8)[1:]
    source.copy_(block)
    target = torch.zeros(len(block) + 1, dtype=torch.uint8)[1:]

    codec.decode(KEY, encoded(codec, source), target)

    assert torch.equal(target, decoded(codec, encoded(codec, block)))


@every_format
@pytest.mark.parametrize("dtype", ["float64", "float8_e4m3fn"])
def test_a_dtype_without_a_format_is_refused_by_name(name, dtype):
    with pytest.raises(ConfigError, match=f"{name}.*is for float32, float16, bfloat16; these blocks are {dtype}"):
        codec_for(name, KVSpec(layers=1, kv_heads=1, head_dim=8, dtype=dtype))


@every_format
@pytest.mark.parametrize("at", [*range(10), 15])
def test_a_changed_header_is_damage(name, at):
    codec = make(name, SPECS[0])
    stored = encoded(codec, as_bytes(like_kv(SPECS[0])))
    stored[at] ^= 0x41

    with pytest.raises(CorruptBlockError, match=rf"block 010101010101: {name}: "):
        decoded(codec, stored)


@every_format
@pytest.mark.parametrize("change", [-PAGE_BYTES, -1, 1])
def test_another_length_is_damage(name, change):
    codec = make(name, SPECS[0])
    stored = encoded(codec, as_bytes(like_kv(SPECS[0])))
    cut = torch.cat([stored, stored])[: len(stored) + change]

    with pytest.raises(CorruptBlockError, match=f"{len(cut)} bytes, expected {len(stored)}"):
        decoded(codec, cut)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("other", FORMATS)
def test_a_block_of_one_format_is_not_read_as_another(name, other):
    spec = KVSpec(layers=3, kv_heads=2, head_dim=16, dtype="float32", block_tokens=8)
    stored = encoded(make(other, spec), as_bytes(like_kv(spec)))
    reader = make(name, spec)
    padded = torch.zeros(reader.encoded_bytes, dtype=torch.uint8)
    padded[: len(stored)] = stored[: len(padded)]

    if name == other:
        assert decoded(reader, padded).any()
    else:
        with pytest.raises(CorruptBlockError):
            decoded(reader, padded)


@every_format
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), spec=st.sampled_from([*SPECS, *ODD]))
def test_noise_is_never_decoded(name, seed, spec):
    codec = make(name, spec)
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randint(0, 256, (codec.encoded_bytes,), dtype=torch.uint8, generator=generator)

    with pytest.raises(CorruptBlockError):
        decoded(codec, stored)


@pytest.mark.parametrize("name", LOSSY)
@every_spec
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan"), -float("nan")])
@pytest.mark.parametrize("half", ["keys", "values"])
def test_a_number_that_is_not_finite_is_refused(name, spec, bad, half):
    codec, numbers = make(name, spec), like_kv(spec)
    numbers[-1, int(half == "values"), -1, -1, -1] = bad

    reason = codec.encode(KEY, as_bytes(numbers), torch.zeros(codec.encoded_bytes, dtype=torch.uint8))

    assert reason.startswith(f"the {half} hold a number that is not finite")


@pytest.mark.parametrize("name", LOSSY)
def test_every_bit_pattern_of_a_nan_is_refused(name):
    codec, numbers = make(name, SPECS[0]), like_kv(SPECS[0])
    for bits in (0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF):
        numbers.view(torch.int32)[0, 0, 0, 0, 0] = bits

        assert codec.encode(KEY, as_bytes(numbers), torch.zeros(codec.encoded_bytes, dtype=torch.uint8)) is not None


@pytest.mark.parametrize("name", LOSSY)
@every_spec
def test_zeros_come_back_as_zeros(name, spec):
    codec = make(name, spec)

    assert not decoded(codec, encoded(codec, torch.zeros(spec.block_bytes, dtype=torch.uint8))).any()


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)
@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_none_can_have_is_damage(name, spec, scale):
    codec = make(name, spec)
    stored = encoded(codec, as_bytes(like_kv(spec)))
    groups = spec.layers * spec.kv_heads * spec.head_dim
    last = HEADER_BYTES + 2 * codec.num_parameters * groups
    stored[last - 2 : last] = torch.tensor([scale], dtype=torch.bfloat16).view(torch.uint8)

    with pytest.raises(CorruptBlockError, match="a scale is not a positive number"):
        decoded(codec, stored)


def test_a_format_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match="'int5' is not known; use 'raw' or one of: lossless, fp8, int8, int4"):
        codec_for("int5", SPECS[0])


@pytest.mark.parametrize("name", LOSSY)
def test_a_budget_is_for_the_lossless_format(name):
    with pytest.raises(ConfigError, match=f"{name}.*has a fixed size"):
        codec_for(name, SPECS[0], budget=0.5)


@every_format
@pytest.mark.parametrize("layout", ["kvtier-v1", "kvtier-v1/chunk64", "other"])
def test_a_namespace_in_a_format_is_another_and_tells_its_engine(name, layout):
    plain = Namespace(spec=SPECS[0], weights="w", layout=layout)

    own = in_format(plain, name)

    assert own.root != plain.root
    assert (own.layout, engine_layout(own.layout)) == (f"{layout}/{name}", layout)
    assert engine_layout(layout) == layout


def test_a_layout_that_is_only_a_formats_name_is_an_engines():
    assert engine_layout("int8") == "int8"


@every_format
def test_noise_of_all_threads_at_once_is_kept_apart(name):
    from concurrent.futures import ThreadPoolExecutor

    spec = SPECS[1]
    codec = make(name, spec)
    blocks = [as_bytes(like_kv(spec, seed)) for seed in range(24)]
    expected = [decoded(codec, encoded(codec, block)) for block in blocks]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda block: decoded(codec, encoded(codec, block)), blocks))

    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_the_helpers_noise_has_no_order():
    assert noise(SPECS[0]).unique().numel() > 200
    assert dtype_of(SPECS[0]) == torch.float32
