"""The lossy formats: errors within their bounds, for numbers of every size."""

import numpy as np
import pytest
import torch
from formats.format_helpers import ODD, SPECS, as_bytes, dtype_of, encoded, like_kv, there_and_back
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.formats.affine import Int4, Int8
from kvtier.formats.fp8 import Float8, e4m3_codes, e4m3_numbers
from kvtier.formats.quantized import SMALLEST_SCALE, bfloat16_below, scale_above, widened

every_spec = pytest.mark.parametrize("spec", [*SPECS, *ODD], ids=lambda spec: f"{spec.dtype}-{spec.head_dim}")


def exponents(spec):
    """Powers of two within the dtype's range, with room for the numbers they multiply."""
    return st.integers(-20, 10) if spec.dtype == "float16" else st.integers(-120, 115)


@st.composite
def numbers_of(draw, spec):
    """Blocks of all sizes and offsets, channel by channel and token by token."""
    numbers = like_kv(spec, draw(st.integers(0, 2**31))).double()
    numbers *= 2.0 ** draw(exponents(spec))
    if draw(st.booleans()):
        numbers += numbers.abs().max() * draw(st.floats(-3, 3))
    if draw(st.booleans()):
        numbers[:, :, :, :, ::2] = numbers[:, :, :, :, :1].clone()
    return numbers.clamp(-torch.finfo(dtype_of(spec)).max, torch.finfo(dtype_of(spec)).max).to(dtype_of(spec))


def rounding(numbers, spec):
    """Half of a last digit of each number: what rounding to the dtype, and to float32 on the way, may add."""
    info = torch.finfo(dtype_of(spec))
    digits = {"float32": 2.0**-22, "float16": 2.0**-11 + 2.0**-22, "bfloat16": 2.0**-8 + 2.0**-22}[spec.dtype]
    return numbers.abs() * digits + info.smallest_normal * info.eps + 2.0**-126


def step_of(numbers, axis, levels):
    """The step a group must make do with: its range, and what rounding its parameters adds to it."""
    low, high = numbers.amin(axis, keepdim=True), numbers.amax(axis, keepdim=True)
    span = high - low + low.abs() * 2.0**-7
    return (span / levels * (1 + 2.0**-7)).clamp(min=float(SMALLEST_SCALE))


@pytest.mark.parametrize("kind", [Int8, Int4])
@every_spec
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_number_is_off_by_half_a_step_of_its_group_at_most(kind, spec, data):
    numbers = data.draw(numbers_of(spec))

    back = there_and_back(kind(spec), numbers).double()

    given_ = numbers.double()
    for half, axis in ((0, -2), (1, -1)):
        x, y = given_[:, half], back[:, half]
        slack = rounding(x, spec) + rounding(y, spec) + rounding(x.amin(axis, keepdim=True), spec) * 2.0**-10
        span_slack = (x.amax(axis, keepdim=True) - x.amin(axis, keepdim=True)).abs() * 2.0**-20
        assert ((x - y).abs() <= step_of(x, axis, kind.levels) / 2 + slack + span_slack).all()


@every_spec
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_number_in_fp8_keeps_its_leading_digits_or_is_near_zero(spec, data):
    numbers = data.draw(numbers_of(spec))

    back = there_and_back(Float8(spec), numbers).double()

    given_ = numbers.double()
    for half, axis in ((0, -2), (1, -1)):
        x, y = given_[:, half], back[:, half]
        scale = (x.abs().amax(axis, keepdim=True) / 448 * (1 + 2.0**-7)).clamp(min=float(SMALLEST_SCALE))
        bound = torch.maximum(x.abs() / 16, scale / 1024) * (1 + 2.0**-16)
        assert ((x - y).abs() <= bound + rounding(x, spec) + rounding(y, spec)).all()


@pytest.mark.parametrize("kind", [Int8, Int4, Float8])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 2.0**-14, 448.0])
@every_spec
def test_a_constant_that_bfloat16_has_comes_back_exact(kind, value, spec):
    numbers = torch.full(spec.block_shape, value, dtype=dtype_of(spec))

    back = there_and_back(kind(spec), numbers)

    bound = abs(value) / 16 if kind is Float8 else 0
    assert ((back.double() - numbers.double()).abs() <= bound).all()


@pytest.mark.parametrize("kind", [Int8, Int4, Float8])
@every_spec
def test_the_largest_numbers_of_a_dtype_stay_finite(kind, spec):
    largest = torch.finfo(dtype_of(spec)).max
    numbers = torch.full(spec.block_shape, largest / 2.5, dtype=dtype_of(spec))
    if spec.dtype == "float16":
        numbers.fill_(largest)
        numbers.view(-1)[::3] = largest / 1.01

    back = there_and_back(kind(spec), numbers)

    assert torch.isfinite(back).all()
    assert (back >= largest / 3).all()


@pytest.mark.parametrize("kind", [Int8, Int4, Float8])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_numbers_are_rounded_to_the_dtype_as_torch_does_it(kind, dtype, seed):
    wide = SPECS[0]
    narrow = next(spec for spec in SPECS if spec.dtype == dtype)
    numbers = like_kv(narrow, seed)

    back, exact = there_and_back(kind(narrow), numbers), there_and_back(kind(wide), numbers.float())

    assert torch.equal(back.view(torch.int16), exact.to(dtype_of(narrow)).view(torch.int16))


@pytest.mark.parametrize("kind", [Int8, Int4])
def test_a_range_wider_than_float32_is_refused(kind):
    codec, numbers = kind(SPECS[0]), like_kv(SPECS[0])
    numbers[0, 1, 0, 0, 0], numbers[0, 1, 0, 0, 1] = 3e38, -3e38

    assert codec.encode(b"", as_bytes(numbers), torch.zeros(codec.encoded_bytes, dtype=torch.uint8)).startswith(
        "the values"
    )


@pytest.mark.parametrize("kind", [Int8, Int4, Float8])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)
def test_a_large_channel_of_keys_leaves_the_others_as_they_are(kind, spec):
    quiet = like_kv(spec)
    loud = quiet.clone()
    loud[:, 0, :, :, 3] *= 100

    back, louder = there_and_back(kind(spec), quiet), there_and_back(kind(spec), loud)

    others = [channel for channel in range(spec.head_dim) if channel != 3]
    assert torch.equal(back[:, 0][..., others], louder[:, 0][..., others])


@pytest.mark.parametrize("kind", [Int8, Int4, Float8])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)
def test_a_large_token_of_values_leaves_the_others_as_they_are(kind, spec):
    quiet = like_kv(spec)
    loud = quiet.clone()
    loud[:, 1, :, 3] *= 100

    back, louder = there_and_back(kind(spec), quiet), there_and_back(kind(spec), loud)

    others = [token for token in range(spec.block_tokens) if token != 3]
    assert torch.equal(back[:, 1][:, :, others], louder[:, 1][:, :, others])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)
def test_finer_formats_are_nearer(spec):
    numbers = like_kv(spec)

    errors = [(there_and_back(kind(spec), numbers).float() - numbers.float()).abs().mean() for kind in (Int8, Int4)]

    assert 0 < errors[0] < errors[1] / 8


def test_codes_of_four_bits_lie_two_to_a_byte():
    spec = SPECS[0]
    numbers = torch.zeros(spec.block_shape)
    numbers[..., 8:] = torch.arange(8.0)
    numbers[..., :8] = torch.arange(15.0, 7.0, -1)
    codec = Int4(spec)

    stored = encoded(codec, as_bytes(numbers))

    values = stored[codec._used - 8 * spec.layers * spec.kv_heads * spec.block_tokens : codec._used].view(-1, 8)
    assert values[0].tolist() == [15 - i | i << 4 for i in range(8)]


def test_every_code_of_e4m3_means_what_torch_says():
    codes = np.array([code for code in range(256) if code & 0x7F != 0x7F], np.uint8)
    numbers, again = np.empty(len(codes), np.float32), np.empty_like(codes)

    e4m3_numbers(codes, numbers)
    expected = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    e4m3_codes(numbers.copy(), again)

    assert np.array_equal(numbers.view(np.uint32), expected.view(np.uint32))
    assert np.array_equal(again, codes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-448, 448, width=32), min_size=1, max_size=50))
def test_a_number_has_the_code_that_torch_gives_it(values):
    numbers = np.array(values, np.float32)
    codes = np.empty(len(values), np.uint8)
    # Near a tie below the normal numbers the two round twice at different places.
    ties = np.abs(numbers) * 1024
    clear = np.abs(ties - np.rint(ties)) > 1e-5
    exact = ties == np.rint(ties)

    e4m3_codes(numbers.copy(), codes)

    expected = torch.from_numpy(numbers).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(codes[clear | exact], expected[clear | exact])


floats = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**126), max_value=2.0**126)


@given(floats)
def test_a_scale_is_the_next_bfloat16_above(value):
    number = np.array([value], np.float32)

    bits = scale_above(number)

    wanted = max(number[0], SMALLEST_SCALE)
    assert widened(bits)[0] >= wanted > widened(bits - np.uint16(1))[0]


@given(floats)
def test_a_low_end_is_the_next_bfloat16_below(value):
    number = np.array([value], np.float32)

    found = widened(bfloat16_below(number))[0]

    above = torch.nextafter(torch.tensor(float(found)).bfloat16(), torch.tensor(float("inf")).bfloat16()).item()
    assert found <= number[0] < above


def test_parameters_of_what_is_not_finite_are_not_finite():
    bad = np.array([np.nan, np.inf, -np.inf], np.float32)

    assert not np.isfinite(widened(scale_above(bad))).any()
    assert not np.isfinite(widened(bfloat16_below(bad))).any()
