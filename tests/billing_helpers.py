"""Traffic in a line: what a test of billing would otherwise spend ten on."""

import numpy as np

from kvtier.econ.billing.bills import bills
from kvtier.econ.billing.calls import Call, Mark
from kvtier.econ.billing.tariffs import tariffs

TARIFFS = {tariff.name: tariff for tariff in tariffs()}


class Script:
    """Calls of segments such as ``"S:2000 D:3000* u:50"``: name, tokens, and ``*`` or ``*1h`` for a breakpoint."""

    def __init__(self):
        self._ids = {}

    def call(self, time_s, text, *, reply=None, output=0, unmarked=False, **more):
        ids, ends, marks = [], [], []
        for word in text.split():
            name, _, rest = word.partition(":")
            tokens, star, lifetime = rest.partition("*")
            ids.append(self._id(ids, name, int(tokens)))
            ends.append((ends[-1] if ends else 0) + int(tokens))
            marks += [Mark(len(ids) - 1, lifetime or None)] if star else []
        return Call(
            time_s=float(time_s),
            ids=np.array(ids, dtype=np.int64),
            ends=np.array(ends, dtype=np.int64),
            input_tokens=ends[-1] if ends else 0,
            output_tokens=output,
            conversation=more.pop("conversation", 0),
            marks=() if unmarked else tuple(marks) or None,
            reply=None if reply is None else self._id(ids, reply, output),
            **more,
        )

    def _id(self, before, name, tokens):
        return self._ids.setdefault((*before[-1:], name, tokens), len(self._ids))


def charges(tariff, *lines, **options):
    """What calls cost, one by one; a line is ``(time_s, text)`` or ``(time_s, text, more)``."""
    script = Script()
    calls = [script.call(*line[:2], **(line[2] if len(line) > 2 else {})) for line in lines]
    (bill,) = bills(calls, [TARIFFS[tariff]], keep_charges=True, **options)
    return bill.charges


def tokens(tariff, *lines, **options):
    """``(read, written, uncached)`` of each call."""
    made = charges(tariff, *lines, **options)
    return [(charge.read_tokens, charge.written_tokens, charge.uncached_tokens) for charge in made]
