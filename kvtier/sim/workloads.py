"""Five kinds of service, each a synthetic trace with parameters.

    chat            all that was said before, then a message         history grows, pauses of minutes
    shared_prompts  one of some system prompts (Zipf), a question    one turn
    rag             instructions, documents (Zipf) by rank, question one turn; order breaks prefixes
    agents          tools, then what one tool after another said     quick steps; a full context is summed up
    long_documents  a document, one question                         each question without those before it

The shapes are those of the services; the numbers are round ones to be set, not fitted to a trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

from kvtier.errors import ConfigError
from kvtier.sim.generate import Draw, Piece, Session, Turn, Workload


def _zipf(num: int, exponent: float) -> list[float]:
    """Sums of the weights 1, 1/2^s, 1/3^s ..."""
    return list(accumulate(rank**-exponent for rank in range(1, num + 1)))


@dataclass(frozen=True, kw_only=True)
class Chat(Workload):
    """Conversations over one system prompt."""

    name: ClassVar[str] = "chat"
    about: ClassVar[str] = "conversations of several turns over one system prompt"

    turns: float = 6.0
    """Messages of a user, on average."""

    think_s: float = 60.0
    system_tokens: int = 400
    user_tokens: int = 150
    answer_tokens: int = 350
    context_tokens: int = 32_768
    """A conversation ends before its prompt passes this."""

    @property
    def turns_each(self) -> float:
        """See ``Workload.turns_each``."""
        return self.turns

    def session(self, draw: Draw) -> Session:
        """See ``Workload.session``."""
        return Session([Piece("system", self.system_tokens)], self._turns(draw))

    def _turns(self, draw: Draw) -> Iterator[Turn]:
        said = self.system_tokens
        for each in range(draw.number(self.turns)):
            turn = Turn(draw.wait_s(self.think_s), draw.tokens(self.user_tokens), draw.tokens(self.answer_tokens))
            said += turn.new_tokens
            if each and said > self.context_tokens:
                return
            yield turn
            said += turn.output_tokens


@dataclass(frozen=True, kw_only=True)
class SharedPrompts(Workload):
    """Questions to many applications, some of them asked far more than others."""

    name: ClassVar[str] = "shared_prompts"
    about: ClassVar[str] = "one of many system prompts, with Zipf weights, and a question"

    prompts: int = 100
    zipf: float = 1.0
    system_tokens: int = 2000
    user_tokens: int = 200
    answer_tokens: int = 200

    turns_each: ClassVar[float] = 1.0

    @cached_property
    def _weights(self) -> list[float]:
        return _zipf(self.prompts, self.zipf)

    def session(self, draw: Draw) -> Session:
        """See ``Workload.session``."""
        prompt = draw.rank(self._weights)
        tokens = Draw(f"{self.seed}/prompt {prompt}").tokens(self.system_tokens)
        turn = Turn(0.0, draw.tokens(self.user_tokens), draw.tokens(self.answer_tokens))
        return Session([Piece(f"prompt {prompt}", tokens)], iter([turn]))


@dataclass(frozen=True, kw_only=True)
class Rag(Workload):
    """Questions behind documents that a search has found."""

    name: ClassVar[str] = "rag"
    about: ClassVar[str] = "documents that a search has found, with Zipf weights, in front of a question"

    documents: int = 1000
    zipf: float = 1.0
    retrieved: int = 3
    """Documents a question, all different, the most popular not always first."""

    system_tokens: int = 300
    document_tokens: int = 1200
    question_tokens: int = 60
    answer_tokens: int = 250

    turns_each: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retrieved > min(self.documents, 100):
            raise ConfigError(f"synthetic:rag: retrieved must be at most {min(self.documents, 100)}")

    @cached_property
    def _weights(self) -> list[float]:
        return _zipf(self.documents, self.zipf)

    def session(self, draw: Draw) -> Session:
        """See ``Workload.session``."""
        found: dict[int, None] = {}
        for _ in range(20 * self.retrieved):  # some weights would have one draw for ever
            found[draw.rank(self._weights)] = None
            if len(found) == self.retrieved:
                break
        pieces = [Piece("system", self.system_tokens)]
        for each in found:
            tokens = Draw(f"{self.seed}/document {each}").tokens(self.document_tokens)
            pieces.append(Piece(f"document {each}", tokens))
        turn = Turn(0.0, draw.tokens(self.question_tokens), draw.tokens(self.answer_tokens))
        return Session(pieces, iter([turn]))


@dataclass(frozen=True, kw_only=True)
class Agents(Workload):
    """Agents that call tools, one step after another."""

    name: ClassVar[str] = "agents"
    about: ClassVar[str] = "agents with tools, whose prompts grow with every call until they are summed up"

    kinds: int = 4
    """Sets of tools; an agent has one, with Zipf weights."""

    zipf: float = 1.0
    steps: float = 30.0
    step_s: float = 12.0
    tool_tokens: int = 12_000
    """Descriptions of the tools, and instructions."""

    task_tokens: int = 500
    result_tokens: int = 900
    answer_tokens: int = 250
    context_tokens: int = 131_072
    summary_tokens: int = 4000
    """What a full context is replaced by, behind the tools."""

    @property
    def turns_each(self) -> float:
        """See ``Workload.turns_each``."""
        return self.steps

    @cached_property
    def _weights(self) -> list[float]:
        return _zipf(self.kinds, self.zipf)

    def session(self, draw: Draw) -> Session:
        """See ``Workload.session``."""
        kind = draw.rank(self._weights)
        tools = Piece(f"tools {kind}", Draw(f"{self.seed}/tools {kind}").tokens(self.tool_tokens))
        return Session([tools], self._turns(draw, tools.tokens))

    def _turns(self, draw: Draw, tool_tokens: int) -> Iterator[Turn]:
        said = tool_tokens
        for each in range(draw.number(self.steps)):
            new = draw.tokens(self.result_tokens if each else self.task_tokens)
            full = bool(each) and said + new > self.context_tokens
            if full:
                said, new = tool_tokens, draw.tokens(self.summary_tokens)
            turn = Turn(draw.wait_s(self.step_s), new, draw.tokens(self.answer_tokens), fresh=full)
            yield turn
            said += turn.new_tokens + turn.output_tokens


@dataclass(frozen=True, kw_only=True)
class LongDocuments(Workload):
    """Readers who ask about one long document after another."""

    name: ClassVar[str] = "long_documents"
    about: ClassVar[str] = "several questions on one long document, each without those before it"

    questions: float = 8.0
    """On one document, on average."""

    pause_s: float = 90.0
    system_tokens: int = 200
    document_tokens: int = 30_000
    question_tokens: int = 60
    answer_tokens: int = 300

    @property
    def turns_each(self) -> float:
        """See ``Workload.turns_each``."""
        return self.questions

    def session(self, draw: Draw) -> Session:
        """See ``Workload.session``."""
        document = Piece(draw.seed, draw.tokens(self.document_tokens))
        return Session([Piece("system", self.system_tokens), document], self._turns(draw))

    def _turns(self, draw: Draw) -> Iterator[Turn]:
        for _ in range(draw.number(self.questions)):
            yield Turn(
                draw.wait_s(self.pause_s),
                draw.tokens(self.question_tokens),
                draw.tokens(self.answer_tokens),
                fresh=True,
            )


WORKLOADS: dict[str, type[Workload]] = {each.name: each for each in (Chat, SharedPrompts, Rag, Agents, LongDocuments)}


def workload(name: str, **parameters: float) -> Workload:
    """A synthetic trace by its name.

    Raises:
        ConfigError: No such workload or parameter, or a value that cannot be.
    """
    if name not in WORKLOADS:
        raise ConfigError(f"no synthetic workload is called {name!r}; there are {', '.join(WORKLOADS)}")
    known = {each.name: each.type for each in fields(WORKLOADS[name])}
    for key, value in parameters.items():
        if key not in known:
            raise ConfigError(f"synthetic:{name} has no {key!r}; it has {', '.join(known)}")
        if known[key] == "int" and int(value) != value:
            raise ConfigError(f"synthetic:{name}: {key} must be a whole number, got {value}")
    typed: dict[str, Any] = {key: int(value) if known[key] == "int" else value for key, value in parameters.items()}
    return WORKLOADS[name](**typed)
