"""Every provider's rule on traffic small enough to bill by hand.

Each case: tariff, calls, and for each call the tokens (read, written, uncached) with the arithmetic beside it.
Segments are ``name:tokens``, ``*`` marks one. Answers begin one second after their call unless a call says otherwise.
"""

import pytest
from billing_helpers import charges, tokens

from kvtier.errors import ConfigError

SONNET, HOUR, HAIKU = "anthropic sonnet-4.5 5m", "anthropic sonnet-4.5 1h", "anthropic haiku-4.5 5m"
GPT5, EXTENDED, GPT56 = "openai gpt-5 memory", "openai gpt-5 extended", "openai gpt-5.6 30m"
IMPLICIT, EXPLICIT = "google gemini-2.5-pro implicit", "google gemini-2.5-pro explicit"
DISK, UNITS, GROK = "deepseek v3.2 disk", "deepseek v4-pro units", "xai grok-4.5 automatic"


def blocks(first, last):
    """Segments of 100 tokens each, named by their number from 1 on, both ends included."""
    return " ".join(f"b{number}:100" for number in range(first, last + 1))


CASES = {
    # Anthropic: what is marked is written, what comes after the last mark is not.
    "the first call writes up to its mark": (SONNET, [(0, "S:2000* u:100")], [(0, 2000, 100)]),
    "the second reads it, at the last second too": (
        SONNET,
        [(0, "S:2000* u:100"), (300, "S:2000* v:70")],
        [(0, 2000, 100), (2000, 0, 70)],
    ),
    "a second later it is gone and written again": (
        SONNET,
        [(0, "S:2000* u:100"), (301, "S:2000* v:70")],
        [(0, 2000, 100), (0, 2000, 70)],
    ),
    "a use refreshes it": (
        SONNET,
        [(0, "S:2000*"), (250, "S:2000*"), (500, "S:2000*")],  # 500 is 250 after the last use
        [(0, 2000, 0), (2000, 0, 0), (2000, 0, 0)],
    ),
    "an hour lasts an hour": (HOUR, [(0, "S:2000*"), (3600, "S:2000*")], [(0, 2000, 0), (2000, 0, 0)]),
    "and no second more": (HOUR, [(0, "S:2000*"), (3601, "S:2000*")], [(0, 2000, 0), (0, 2000, 0)]),
    "1,023 tokens are too few": (SONNET, [(0, "S:1023*"), (9, "S:1023*")], [(0, 0, 1023), (0, 0, 1023)]),
    "1,024 are enough": (SONNET, [(0, "S:1024*"), (9, "S:1024*")], [(0, 1024, 0), (1024, 0, 0)]),
    "another model needs 4,096": (HAIKU, [(0, "S:4095*"), (9, "S:4095*")], [(0, 0, 4095), (0, 0, 4095)]),
    "and takes them": (HAIKU, [(0, "S:4096*"), (9, "S:4096*")], [(0, 4096, 0), (4096, 0, 0)]),
    "a mark too early is passed over": (
        SONNET,
        [(0, "S:500* D:1000*")],  # 500 are too few, 500 + 1,000 are enough
        [(0, 1500, 0)],
    ),
    "without a mark the last segment is marked": (
        SONNET,
        [(0, "S:2000 u:100"), (60, "S:2000 u:100 a:300 v:50")],
        [(0, 2100, 0), (2100, 350, 0)],  # 2,000 + 100 read, 300 + 50 written
    ),
    "nothing marked, nothing stored": (
        SONNET,
        [(0, "S:2000", {"unmarked": True}), (9, "S:2000", {"unmarked": True})],
        [(0, 0, 2000), (0, 0, 2000)],
    ),
    "the look-back finds an entry 19 segments before": (
        SONNET,
        [(0, blocks(1, 15) + "*"), (9, blocks(1, 34) + "*")],  # positions 34 down to 15
        [(0, 1500, 0), (1500, 1900, 0)],
    ),
    "and none 20 before": (
        SONNET,
        [(0, blocks(1, 15) + "*"), (9, blocks(1, 35) + "*")],  # positions 35 down to 16
        [(0, 1500, 0), (0, 3500, 0)],
    ),
    "a second mark looks back from where it stands": (
        SONNET,
        [(0, blocks(1, 15) + "*"), (9, blocks(1, 20) + "* " + blocks(21, 35) + "*")],
        [(0, 1500, 0), (1500, 2000, 0)],  # 500 to the first mark, 1,500 to the second
    ),
    "the longest match wins": (
        SONNET,
        [(0, "S:2000* D:3000*"), (9, "S:2000* D:3000* u:40")],
        [(0, 5000, 0), (5000, 0, 40)],
    ),
    "a prefix that nobody marked is not there": (
        SONNET,
        [(0, "S:2000 D:3000*"), (9, "S:2000 E:1000*")],
        [(0, 5000, 0), (0, 3000, 0)],
    ),
    "one that was marked is": (
        SONNET,
        [(0, "S:2000* D:3000*"), (9, "S:2000 E:1000*")],
        [(0, 5000, 0), (2000, 1000, 0)],
    ),
    "an other head shares nothing": (
        SONNET,
        [(0, "S:2000* D:3000*"), (9, "T:2000* D:3000*")],
        [(0, 5000, 0), (0, 5000, 0)],
    ),
    "with two lifetimes the short one goes first": (
        SONNET,
        [(0, "S:2000*1h D:3000*5m"), (600, "S:2000*1h D:3000*5m")],
        [(0, 5000, 0), (2000, 3000, 0)],
    ),
    "a five-minute entry read as one of an hour stays one of five minutes": (
        SONNET,
        [(0, "S:2000*5m"), (10, "S:2000*1h"), (400, "S:2000*1h")],
        [(0, 2000, 0), (2000, 0, 0), (0, 2000, 0)],
    ),
    "reading a long entry keeps its head": (
        SONNET,
        [(0, "S:2000* D:3000*"), (200, "S:2000 D:3000*"), (400, "S:2000* E:100")],
        [(0, 5000, 0), (5000, 0, 0), (2000, 0, 100)],
    ),
    "but does not bring back a head that has expired": (
        SONNET,
        [(0, "S:2000*5m"), (10, "S:2000 D:1000*1h"), (600, "S:2000 D:1000*1h"), (700, "S:2000*5m")],
        [(0, 2000, 0), (2000, 1000, 0), (3000, 0, 0), (0, 2000, 0)],  # S was last used at 10 s
    ),
    "calls in parallel all miss": (
        SONNET,
        [(0, "S:2000* u:10"), (0, "S:2000* v:10"), (0.5, "S:2000* w:10"), (1, "S:2000* x:10")],
        [(0, 2000, 10), (0, 2000, 10), (0, 2000, 10), (2000, 0, 10)],
    ),
    "an answer that begins late makes its entry late": (
        SONNET,
        [(0, "S:2000*", {"first_token_s": 5.0}), (4, "S:2000*"), (5, "S:2000*")],
        [(0, 2000, 0), (0, 2000, 0), (2000, 0, 0)],
    ),
    # OpenAI: 1,024 tokens or more, in steps of 128.
    "1,023 tokens are not cached": (GPT5, [(0, "S:1023"), (9, "S:1023")], [(0, 0, 1023), (0, 0, 1023)]),
    "1,024 are": (GPT5, [(0, "S:1024"), (9, "S:1024")], [(0, 1024, 0), (1024, 0, 0)]),
    "hits are whole steps": (
        GPT5,
        [(0, "S:1500"), (9, "S:1500")],  # 11 * 128 = 1,408
        [(0, 1408, 92), (1408, 0, 92)],
    ),
    "of what is shared": (
        GPT5,
        [(0, "S:2000 u:500"), (9, "S:2000 v:500")],  # 15 * 128 = 1,920 of 2,000; 19 * 128 = 2,432 of 2,500
        [(0, 2432, 68), (1920, 512, 68)],
    ),
    "1,000 shared tokens are too few however long the prompt": (
        GPT5,
        [(0, "S:1000 u:1048"), (9, "S:1000 v:1048")],
        [(0, 2048, 0), (0, 2048, 0)],
    ),
    "ten minutes idle": (GPT5, [(0, "S:1024"), (600, "S:1024")], [(0, 1024, 0), (1024, 0, 0)]),
    "but not eleven": (GPT5, [(0, "S:1024"), (660, "S:1024")], [(0, 1024, 0), (0, 1024, 0)]),
    "in use for longer than that": (
        GPT5,
        [(0, "S:1024"), (500, "S:1024"), (1000, "S:1024")],
        [(0, 1024, 0), (1024, 0, 0), (1024, 0, 0)],
    ),
    "a day if extended": (EXTENDED, [(0, "S:1024"), (86400, "S:1024")], [(0, 1024, 0), (1024, 0, 0)]),
    "and no longer": (EXTENDED, [(0, "S:1024"), (86401, "S:1024")], [(0, 1024, 0), (0, 1024, 0)]),
    "marks mean nothing to it": (
        GPT5,
        [(0, "S:1024* u:1024"), (9, "S:1024* u:1024")],
        [(0, 2048, 0), (2048, 0, 0)],
    ),
    "thirty minutes from GPT-5.6 on": (
        GPT56,
        [(0, "S:2000"), (1800, "S:2000 u:500")],  # 1,920 read; 2,432 - 1,920 = 512 written; 2,500 - 2,432 = 68
        [(0, 1920, 80), (1920, 512, 68)],
    ),
    "parallel calls miss there too": (GPT56, [(0, "S:1024"), (0, "S:1024")], [(0, 1024, 0), (0, 1024, 0)]),
    # Google implicit: from 2,048 tokens on for this model, no steps.
    "2,047 tokens are too few": (IMPLICIT, [(0, "S:2047"), (9, "S:2047")], [(0, 0, 2047), (0, 0, 2047)]),
    "2,048 are not, nor is there a step": (
        IMPLICIT,
        [(0, "S:2048 u:5"), (9, "S:2048 u:5 v:9")],
        [(0, 2053, 0), (2053, 9, 0)],
    ),
    # Google explicit: made by a call of its own, so read by the call that wanted it as well.
    "an entry is made, then read": (EXPLICIT, [(0, "S:10000* u:100")], [(10000, 10000, 100)]),
    "and read again without another": (
        EXPLICIT,
        [(0, "S:10000* u:100"), (3600, "S:10000* v:50")],
        [(10000, 10000, 100), (10000, 0, 50)],
    ),
    "uses do not keep it": (
        EXPLICIT,
        [(0, "S:10000*"), (3000, "S:10000*"), (3601, "S:10000*")],
        [(10000, 10000, 0), (10000, 0, 0), (10000, 10000, 0)],
    ),
    "parallel calls share the making": (
        EXPLICIT,
        [(0, "S:10000* u:1"), (0, "S:10000* v:1")],
        [(10000, 10000, 1), (10000, 0, 1)],
    ),
    "it holds what the first mark says": (EXPLICIT, [(0, "S:9000* D:1000*")], [(9000, 9000, 1000)]),
    "none is made below the minimum": (EXPLICIT, [(0, "S:2047*")], [(0, 0, 2047)]),
    "who marks nothing reads what others made": (
        EXPLICIT,
        [(0, "S:5000*"), (9, "S:5000 u:10", {"unmarked": True})],
        [(5000, 5000, 0), (5000, 0, 10)],
    ),
    "and at once: it was made before the call": (
        EXPLICIT,
        [(0, "S:5000*"), (0, "S:5000 u:10", {"unmarked": True})],
        [(5000, 5000, 0), (5000, 0, 10)],
    ),
    # DeepSeek: units of 64 tokens on disk.
    "hits are whole units": (
        DISK,
        [(0, "S:1000 u:100"), (9, "S:1000 v:100")],  # 15 * 64 = 960; 17 * 64 = 1,088
        [(0, 1088, 12), (960, 128, 12)],
    ),
    "63 tokens are no unit": (DISK, [(0, "S:63"), (9, "S:63")], [(0, 0, 63), (0, 0, 63)]),
    "64 are one": (DISK, [(0, "S:64"), (9, "S:64")], [(0, 64, 0), (64, 0, 0)]),
    "kept for a day": (DISK, [(0, "S:64"), (86400, "S:64")], [(0, 64, 0), (64, 0, 0)]),
    "a prompt that goes on reads all of the one before": (
        UNITS,
        [(0, "A:640 B:640"), (9, "A:640 B:640 C:640")],
        [(0, 1280, 0), (1280, 640, 0)],
    ),
    "one that branches off reads nothing, the next one the common prefix": (
        UNITS,
        [(0, "A:640 B:640"), (9, "A:640 C:640"), (20, "A:640 D:640")],
        [(0, 1280, 0), (0, 1280, 0), (640, 640, 0)],
    ),
    "the end of an answer is a unit": (
        UNITS,
        [(0, "A:640", {"reply": "r", "output": 64}), (9, "A:640 r:64 C:640")],
        [(0, 640, 0), (704, 640, 0)],
    ),
    "where it is known what the answer was": (
        UNITS,
        [(0, "A:640", {"output": 64}), (9, "A:640 r:64 C:640")],
        [(0, 640, 0), (640, 704, 0)],
    ),
    # xAI: nothing documented but that it is automatic.
    "ten tokens are cached": (GROK, [(0, "S:10"), (9, "S:10 u:1")], [(0, 10, 0), (10, 1, 0)]),
    "for as long as is assumed": (GROK, [(0, "S:10"), (601, "S:10")], [(0, 10, 0), (0, 10, 0)]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_providers_rule(case):
    tariff, calls, expected = case

    assert tokens(tariff, *calls) == expected


#: Micro-dollars of the last call: tokens times US$ per million.
DOLLARS = {
    "five-minute writes at 1.25": (SONNET, [(0, "S:2000* u:100")], 2000 * 3.75 + 100 * 3.00),
    "hour writes at 2": (HOUR, [(0, "S:2000* u:100")], 2000 * 6.00 + 100 * 3.00),
    "reads at a tenth": (SONNET, [(0, "S:2000* u:100"), (9, "S:2000* v:70")], 2000 * 0.30 + 70 * 3.00),
    "reads at a fortieth": ("anthropic fable-5.1 5m", [(0, "S:2000*"), (9, "S:2000*")], 2000 * 0.25),
    "each lifetime at its price": (SONNET, [(0, "S:2000*1h D:3000*5m u:9")], 2000 * 6.00 + 3000 * 3.75 + 9 * 3.00),
    "from the hit on, to the last mark of an hour and to the last": (
        SONNET,
        [(0, "S:2000*1h"), (9, "S:2000*1h D:500*1h E:700*5m u:11")],  # A = 2,000, B = 2,500, C = 3,200
        2000 * 0.30 + 500 * 6.00 + 700 * 3.75 + 11 * 3.00,
    ),
    "OpenAI's writes were free": (GPT5, [(0, "S:2000")], 2000 * 1.25),
    "and its reads at half": ("openai gpt-4o memory", [(0, "S:1280"), (9, "S:1280 u:20")], 1280 * 1.25 + 20 * 2.50),
    "from GPT-5.6 on they cost a quarter more": (GPT56, [(0, "S:2000")], 1920 * 5.00 + 80 * 4.00),
    "and two and a half times when kept": ("openai gpt-5.6 over-12h", [(0, "S:2000")], 1920 * 10.00 + 80 * 4.00),
    "Google over 200,000 tokens": (IMPLICIT, [(0, "S:200001")], 200001 * 2.50),
    "not at 200,000": (IMPLICIT, [(0, "S:200000")], 200000 * 1.25),
    "reads of a long prompt as well": (
        IMPLICIT,
        [(0, "S:200001"), (9, "S:200001 u:10")],
        200001 * 0.25 + 10 * 2.50,
    ),
    "made, read and stored for an hour": (
        EXPLICIT,
        [(0, "S:10000* u:100")],
        10000 * 1.25 + 10000 * 0.125 + 100 * 1.25 + 10000 * 4.50,
    ),
    "stored for five minutes": (
        "google gemini-2.5-pro explicit-5m",
        [(0, "S:12000*")],
        12000 * 1.25 + 12000 * 0.125 + 12000 / 12 * 4.50,
    ),
    "DeepSeek reads at a tenth": (DISK, [(0, "S:640"), (9, "S:640 u:6")], 640 * 0.028 + 6 * 0.28),
    "or at a thirtieth": (UNITS, [(0, "S:640"), (9, "S:640 u:6")], 640 * 0.044 + 6 * 1.32),
    "xAI at 15 %": (GROK, [(0, "S:640"), (9, "S:640 u:6")], 640 * 0.30 + 6 * 2.00),
}


@pytest.mark.parametrize("case", DOLLARS.values(), ids=DOLLARS)
def test_what_a_call_costs(case):
    tariff, calls, micro_usd = case

    assert charges(tariff, *calls)[-1].input_usd == pytest.approx(micro_usd / 1e6, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a:2000*5m b:2000*1h", "longer lifetime after a shorter one"),
        ("a:2000* b:9* c:9* d:9* e:9*", "has 5 marks, of 4 allowed"),
    ],
)
def test_a_call_that_the_provider_would_refuse_is_refused(text, what):
    with pytest.raises(ConfigError, match=what):
        tokens(SONNET, (0, text))


def test_four_marks_are_taken():
    assert tokens(SONNET, (0, "a:2000* b:9* c:9* d:9*")) == [(0, 2027, 0)]


def test_the_look_back_does_not_count_the_blocks_of_a_trace():
    calls = [
        (0, blocks(1, 15) + "*", {"in_content_blocks": False}),
        (9, blocks(1, 60) + "*", {"in_content_blocks": False}),
    ]

    assert tokens(SONNET, *calls)[1] == (1500, 4500, 0)


def test_a_call_routed_elsewhere_reads_nothing():
    assert tokens(GPT5, (0, "S:1024"), (9, "S:1024"), hit_probability=0.0) == [(0, 1024, 0), (0, 1024, 0)]


def test_a_cache_that_is_not_routed_knows_no_such_luck():
    assert tokens(DISK, (0, "S:64"), (9, "S:64"), hit_probability=0.0)[1] == (64, 0, 0)


def test_half_the_calls_routed_elsewhere_read_half_as_often():
    made = tokens(GPT5, *[(9 * i, "S:1024") for i in range(401)], hit_probability=0.5, seed=3)

    assert 160 < sum(read > 0 for read, _, _ in made) < 240


@pytest.mark.parametrize("options", [{"hit_probability": 1.1}, {"hit_probability": -0.1}, {"first_token_s": -1.0}])
def test_an_option_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError):
        tokens(GPT5, (0, "S:64"), **options)
