"""Small random prompts over a forest, their replay through the real placement, and the best there can be."""

import random
from functools import cache

from kvtier.hashing import Chain, Label
from kvtier.placement import Placement, TierRules
from kvtier.policy.base import Setting
from kvtier.sim.future import Future
from kvtier.sim.trace import Request


def random_prompts(seed, max_blocks=8, max_requests=7):
    """Prompts as lists of ids, which are given out in order of first appearance."""
    source = random.Random(seed)
    parents, children = {}, {}
    prompts = []
    for _ in range(source.randint(1, max_requests)):
        prompt, above = [], None
        for _ in range(source.randint(1, 4)):
            known = children.setdefault(above, [])
            if len(parents) < max_blocks and (not known or source.random() < 0.35):
                known.append(len(parents))
                parents[known[-1]] = above
                above = known[-1]
            elif known:
                above = source.choice(known)
            else:
                break
            prompt.append(above)
        prompts.append(prompt)
    return [prompt for prompt in prompts if prompt]


def requests(prompts):
    return [Request(float(number), prompt, 0, 0) for number, prompt in enumerate(prompts)]


def best_hits(prompts, capacity):
    """Most block hits of any cache of whole prefixes: all of them are tried, bypass included."""
    parent = {block: above for prompt in prompts for above, block in zip([None, *prompt], prompt, strict=False)}

    @cache
    def kept(blocks):
        """What can be kept of a set of blocks."""
        closed = {frozenset()}
        for block in sorted(blocks):  # a parent's id is lower
            closed |= {part | {block} for part in closed if parent[block] is None or parent[block] in part}
        return [part for part in closed if len(part) <= capacity]

    @cache
    def rest(number, held):
        if number == len(prompts):
            return 0
        prompt = frozenset(prompts[number])
        return len(prompt & held) + max(rest(number + 1, part) for part in kept(held | prompt))

    return rest(0, frozenset())


def replay(prompts, capacity, make_policy, make_admission=None, check=False):
    """Hits and evictions of a replay in one tier, as the simulator does it.

    ``make_policy`` gets a setting, ``make_admission`` the policy and the future.
    """
    future = Future(requests(prompts))
    placement = None
    setting = Setting(
        capacity_blocks=capacity,
        depth=lambda key: placement.index[key].depth,
        num_children=lambda key: len(placement.index[key].children),
        next_use=future.next_use,
    )
    policy = make_policy(setting)
    admission = make_admission(policy, future) if make_admission else None
    placement = Placement([TierRules(capacity, policy)])
    hits = victims = 0
    for prompt in prompts:
        future.advance()
        num_held = len(placement.match(prompt))
        hits += num_held
        placement.touch(prompt)
        new = prompt[num_held:]
        if admission:
            admission.touch(prompt)
            new = new[: admission.admit(new)]
        labels = [Label(prompt[depth - 1] if depth else -1, depth, b"") for depth in range(num_held, len(prompt))]
        moves = placement.plan_write(Chain(new, labels[: len(new)]), hold=prompt)
        victims += sum(move.dst is None for move in moves)
        while moves:
            moves = placement.commit(moves)
        if check:
            placement.check()
    return hits, victims
