"""The proof of the replay: a real store over small real tiers counts the same on the same trace.

Each request is a get of the whole prompt and a put of what was missing. The background is let finish in
between, for a replay knows no time that moves take; its buffer between two tiers holds a whole prompt. The
replay gets the capacities that the store's placement has: those of the tiers, less the places that the
fastest sets aside. Prompts need no more than those places, so that no put waits or is cut in parts.
"""

from itertools import islice

import pytest
import torch
from forests import random_prompts
from sim.traces import published, watched
from store_helpers import BLOCK, NAMESPACE, PATIENT, SPEC, blank, counters, disk_tier, memory, settle

from kvtier.policy.registry import POLICIES
from kvtier.sim.reading import open_trace
from kvtier.sim.replay import Replay
from kvtier.sim.settings import Settings, TierSettings
from kvtier.sim.trace import Request
from kvtier.store import TieredStore

#: Every policy but the one that must know what comes.
LIVE = tuple(name for name in POLICIES if name != "belady")
SHAPES = {
    "device": (24,),
    "disk": (24,),
    "device host": (32, 12),
    "device disk": (32, 40),
    "device host disk": (32, 10, 60),
}


class Prompts:
    name, block_tokens = "prompts", SPEC.block_tokens

    def __init__(self, prompts):
        self.prompts = prompts

    def __iter__(self):
        for number, blocks in enumerate(self.prompts):
            yield Request(float(number), list(blocks), len(blocks) * self.block_tokens, 1)


def tokens(prompt):
    """Tokens of a prompt of ids: a block of one id is that number, over and over."""
    return [block + 1 for block in prompt for _ in range(SPEC.block_tokens)]


def store_over(path, shape, **options):
    tiers = []
    for name, blocks in zip(shape.split(), SHAPES[shape], strict=True):
        tiers.append(disk_tier(path, blocks) if name == "disk" else memory(name, blocks))
    return TieredStore(tiers, NAMESPACE, **PATIENT, **options)


def served(store, prompts):
    """Run a store through the prompts; hits of each by tier, and a name for each block id."""
    ids, hits = {}, []
    payload = torch.zeros(BLOCK, dtype=torch.uint8)
    for prompt in prompts:
        chain = store.name(tokens(prompt))
        ids.update(zip(chain.keys, prompt, strict=True))
        hit = store.get_chain(chain, blank(len(prompt)))
        settle(store)
        store.put_chain(chain, [payload] * (len(prompt) - hit.num_blocks), start=hit.num_blocks)
        settle(store)
        hits.append(hit.tiers)
    return hits, ids


def replayed(store, shape, prompts, *, policy="lru", admission="all", **options):
    names, placement = shape.split(), store._core.placement
    capacities = [rules.capacity_blocks for rules in placement._rules]
    assert all(len(prompt) <= (store._behind or 99) for prompt in prompts), "no put is cut in parts"
    policies, admissions = ([each] * len(names) if isinstance(each, str) else each for each in (policy, admission))
    tiers = [
        TierSettings(name=name, capacity_blocks=blocks, policy=policy, admission=admission)
        for name, blocks, policy, admission in zip(names, capacities, policies, admissions, strict=True)
    ]
    replay, ways = watched(Replay(Prompts(prompts), Settings(tiers=tiers, **options)))
    hits = [tuple(names[tier] for tier in match.tiers) for _, match in replay.serve()]
    return hits, replay, ways


def counted(ways, last):
    """A replay's moves under the names of a store's counters."""
    found = dict.fromkeys(MOVES, 0)
    for (src, dst, keep), count in ways.items():
        if src is None:
            found["new_blocks"] += count
        elif dst is None:
            found["dropped_blocks"] += count
        elif dst < src:
            found["promoted_blocks"] += count
        else:
            found["copied_blocks" if keep and dst == last else "demoted_blocks"] += count
    return found


MOVES = ("new_blocks", "promoted_blocks", "demoted_blocks", "copied_blocks", "dropped_blocks")


def compare(path, shape, prompts, *, write="on_eviction", **ruling):
    """Hold a store and a replay against each other; the replay."""
    with store_over(path, shape, write=write, **ruling) as store:
        hits, ids = served(store, prompts)
        said, held = counters(store), [{ids[key] for key, _ in tier.scan()} for tier in store.tiers]
        expected, replay, ways = replayed(store, shape, prompts, write=write, **ruling)

    assert hits == expected
    assert {name: said[name] for name in MOVES} == counted(ways, len(replay.settings.tiers) - 1)
    assert {name: said.get(f"hit_blocks.{name}", 0) for name in shape.split()} == {
        name: tier.hits for name, tier in zip(shape.split(), replay.tally.tiers, strict=True)
    }
    assert [said[name] for name in ("skipped_copies", "dropped_demotions", "lost_blocks", "damaged_blocks")] == [0] * 4
    nodes = replay.placement.index.nodes.values()
    assert held == [{node.key for node in nodes if node.tiers >> number & 1} for number in range(len(held))]
    return replay


def mixed(seed, count):
    """Prompts of up to six blocks from a forest, some of them again and again."""
    found = []
    for turn in range(count):
        more = random_prompts(1000 * seed + turn // 4 % 7, max_blocks=30, max_requests=30)
        offset = 100 * (turn // 4 % 7)
        found += [[offset + block for block in prompt] for prompt in more[turn % 4 :: 4]]
    return found


def test_the_prompts_share_prefixes_and_overflow_every_tier():
    prompts = mixed(0, 30)
    blocks = {block for prompt in prompts for block in prompt}

    assert len(blocks) > max(map(sum, SHAPES.values()))
    assert sum(map(len, prompts)) > 2 * len(blocks)


@pytest.mark.parametrize("write", ["on_eviction", "on_insertion"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_store_and_a_replay_count_the_same(tmp_path, shape, write):
    replay = compare(tmp_path, shape, mixed(1, 30), write=write)

    assert all(tier.written for tier in replay.tally.tiers)
    assert replay.tally.tiers[-1].lost + replay.tally.tiers[0].lost > 0


@pytest.mark.parametrize("policy", LIVE)
def test_under_every_policy_a_store_and_a_replay_count_the_same(tmp_path, policy):
    compare(tmp_path, "device disk", mixed(2, 25), policy=policy)


@pytest.mark.parametrize("policy", LIVE)
def test_under_every_policy_of_one_tier_a_store_and_a_replay_count_the_same(tmp_path, policy):
    compare(tmp_path, "device", mixed(3, 25), policy=policy)


@pytest.mark.parametrize("admission", ["second_touch", "long_prompts/3"])
@pytest.mark.parametrize("write", ["on_eviction", "on_insertion"])
def test_with_an_admission_a_store_and_a_replay_count_the_same(tmp_path, admission, write):
    replay = compare(tmp_path, "device host disk", mixed(4, 25), write=write, admission=["all", "all", admission])

    assert replay.tally.tiers[1].lost > 0


def test_tiers_may_have_policies_of_their_own(tmp_path):
    compare(tmp_path, "device disk", mixed(5, 25), policy=["sieve", "gdsf"])


@pytest.mark.parametrize("shape", ["device", "device host disk"])
def test_on_a_recorded_trace_a_store_and_a_replay_count_the_same(tmp_path, shape):
    trace = open_trace(published("mooncake_conversation_trace.jsonl.gz"))
    heads = [request.blocks[:8] for request in islice(trace, 250)]

    compare(tmp_path, shape, heads)


def test_without_promotion_a_store_and_a_replay_count_the_same(tmp_path):
    prompts = mixed(6, 25)
    with store_over(tmp_path, "device host disk", promote=False) as store:
        hits, _ = served(store, prompts)
        expected, replay, _ = replayed(store, "device host disk", prompts, promote=False)

    assert hits == expected
    assert sum(tier.hits for tier in replay.tally.tiers[1:]) > 0
