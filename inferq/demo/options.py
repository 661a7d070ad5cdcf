"""The arguments of the demo."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

ENGINES = ("simulated", "llamacpp", "noop")
#: Those with a KV cache, which can cross from node to node.
KV_ENGINES = ("simulated", "llamacpp")
#: More requests than this are shown as load: a line for each would not fit on a screen.
CHAT_MOST_REQUESTS = 32
CHAT_REQUESTS = 8
CHAT_MAX_TOKENS = 80
LOAD_MAX_TOKENS = 128
TRACE_REQUESTS = 300
#: As first argument: nodes in processes of their own, which share a Redis.
GLOBAL_MODE = "global"
#: The same, where one node prefills and another decodes.
SPLITWISE_MODE = "splitwise"


class LoadDefaults(NamedTuple):
    """What an engine gets through in half a minute. ``rate`` is in requests a second."""

    requests: int
    rate: float
    speedup: float
    prompt_tokens: int


LOAD_DEFAULTS = {
    "simulated": LoadDefaults(2000, 8.0, 20.0, 400),
    "noop": LoadDefaults(2000, 8.0, 20.0, 400),
    "llamacpp": LoadDefaults(40, 2.0, 1.0, 48),
}


@dataclass(frozen=True)
class Options:
    """The arguments, completed.

    ``rate`` is in requests a second before ``speedup``, which divides every arrival time.
    ``prompt_tokens`` is the median length of synthetic prompts.
    """

    load: bool
    engine: str
    model: str | None
    trace: str | None
    requests: int
    arrival_cv: float
    rate: float
    speedup: float
    prompt_tokens: int
    max_tokens: int | None
    seed: int


@dataclass(frozen=True)
class ClusterOptions:
    """The arguments of the modes with nodes in processes of their own."""

    engine: str
    model: str | None
    requests: int
    max_tokens: int
    speedup: float
    seed: int


@dataclass(frozen=True)
class GlobalOptions(ClusterOptions):
    """The arguments of global mode; ``slots`` of each node."""

    nodes: int
    slots: int


def parse(argv: Sequence[str] | None = None) -> Options:
    """Read the arguments; exits with status 2 and a message that names one that is wrong."""
    parser = _parser()
    given = parser.parse_args(argv)
    load = (
        any(value is not None for value in (given.trace, given.arrival_cv, given.rate))
        or (given.requests or 0) > CHAT_MOST_REQUESTS
    )
    engine = given.engine or ("llamacpp" if given.model or not load else "simulated")
    _refuse_contradictions(parser, given, engine, load=load)
    defaults = LOAD_DEFAULTS[engine]
    max_tokens: int | None
    if not load:
        requests, max_tokens, speedup = CHAT_REQUESTS, CHAT_MAX_TOKENS, 1.0
    else:
        requests, max_tokens, speedup = defaults.requests, LOAD_MAX_TOKENS, defaults.speedup
    if given.trace is not None:
        requests, max_tokens = min(requests, TRACE_REQUESTS), None
    return Options(
        load=load,
        engine=engine,
        model=given.model,
        trace=given.trace,
        requests=given.requests or requests,
        arrival_cv=1.0 if given.arrival_cv is None else given.arrival_cv,
        rate=given.rate or defaults.rate,
        speedup=given.speedup or speedup,
        prompt_tokens=defaults.prompt_tokens,
        max_tokens=given.max_tokens or max_tokens,
        seed=given.seed,
    )


def parse_global(argv: Sequence[str]) -> GlobalOptions:
    """Read the arguments of global mode; exits with status 2 as ``parse`` does."""
    parser = _cluster_parser(
        GLOBAL_MODE,
        "sends all prompts to the first one, and shows what the others steal from it.",
        ENGINES,
    )
    add = parser.add_argument
    add("--max-tokens", type=_count, default=CHAT_MAX_TOKENS, metavar="N", help="longest answer")
    add("--nodes", type=_nodes, default=2, metavar="N", help="worker processes; default: 2")
    add("--slots", type=_count, default=2, metavar="N", help="a node computes so many at once")
    return GlobalOptions(**_cluster_values(parser, argv))


def parse_splitwise(argv: Sequence[str]) -> ClusterOptions:
    """Read the arguments of splitwise mode; exits with status 2 as ``parse`` does."""
    parser = _cluster_parser(
        SPLITWISE_MODE,
        "one for prefill and one for decode; shows how each KV cache crossed, and compares the "
        "answers with those of a single engine.",
        KV_ENGINES,
    )
    add, most = parser.add_argument, CHAT_MAX_TOKENS
    add("--max-tokens", type=_answer, default=most, metavar="N", help="longest answer, from 2")
    return ClusterOptions(**_cluster_values(parser, argv))


def _cluster_parser(mode: str, shows: str, engines: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m inferq.demo {mode}",
        description=f"Starts a private Redis and worker processes, {shows}",
    )
    add = parser.add_argument
    add("--engine", choices=engines, default="llamacpp", help="of each node; default: llamacpp")
    add("--model", metavar="PATH", help="a .gguf file for llamacpp; default: SmolLM2")
    add("--requests", type=_count, default=CHAT_REQUESTS, metavar="N", help="how many prompts")
    add("--speedup", type=_speedup, default=1.0, metavar="S", help="of the simulated engine")
    add("--seed", type=_seed, default=0, metavar="N", help="of sampling")
    return parser


def _cluster_values(parser: argparse.ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    given = parser.parse_args(argv)
    if given.model is not None and given.engine != "llamacpp":
        parser.error(f"argument --model: the {given.engine} engine has no model")
    return vars(given)


def _refuse_contradictions(
    parser: argparse.ArgumentParser, given: argparse.Namespace, engine: str, *, load: bool
) -> None:
    def refuse(option: str, reason: str) -> NoReturn:
        parser.error(f"argument {option}: {reason}")

    if given.model is not None and engine != "llamacpp":
        refuse("--model", f"the {engine} engine has no model; use --engine llamacpp")
    if given.trace is not None and given.arrival_cv is not None:
        refuse("--arrival-cv", "not allowed with --trace, which has its own arrival times")
    if given.trace is not None and given.rate is not None:
        refuse("--rate", "not allowed with --trace, which has its own arrival times")
    if given.speedup is not None and not load and engine != "simulated":
        refuse("--speedup", f"the {engine} engine runs as fast as it can; there is no load either")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inferq.demo",
        description="Streams the answers to a few real prompts. With --arrival-cv, --rate, "
        f"--trace or more than {CHAT_MOST_REQUESTS} requests: a load run with synthetic prompts.",
        epilog=f"As first argument, {GLOBAL_MODE}: several nodes that share a Redis; "
        f"{SPLITWISE_MODE}: prefill and decode on different nodes. Each has options of its own, "
        f"see {GLOBAL_MODE} --help and {SPLITWISE_MODE} --help.",
    )
    add = parser.add_argument
    add("--engine", choices=ENGINES, help="default: llamacpp; simulated for a load run")
    add("--model", metavar="PATH", help="a .gguf file for llamacpp; default: SmolLM2")
    add("--requests", type=_count, metavar="N", help="how many; of a trace: the first N")
    add("--arrival-cv", type=_cv, metavar="X", help="burstiness: variation of the gaps")
    add("--rate", type=_positive, metavar="R", help="mean arrivals, requests/s")
    add("--trace", metavar="FILE", help="replay an Azure (CSV) or Mooncake (JSONL) trace")
    speedup_help = "simulated engine and arrivals run S times faster; inf: without any waiting"
    add("--speedup", type=_speedup, metavar="S", help=speedup_help)
    add("--max-tokens", type=_count, metavar="N", help="longest answer, tokens")
    add("--seed", type=_seed, default=0, metavar="N", help="of lengths, arrivals and sampling")
    return parser


def _count(text: str) -> int:
    return _integer(text, 1, 1_000_000)


def _answer(text: str) -> int:
    """The first token is the prefill node's."""
    return _integer(text, 2, 1_000_000)


def _nodes(text: str) -> int:
    return _integer(text, 1, 16)


def _seed(text: str) -> int:
    return _integer(text, 0, 2**31)


def _integer(text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer from {low} to {high}")
    return value


def _positive(text: str) -> float:
    return _number(text, above=0)


def _cv(text: str) -> float:
    return _number(text, above=-math.ulp(0), most=1000)


def _speedup(text: str) -> float:
    return _number(text, above=0, most=math.inf)


def _number(text: str, *, above: float, most: float = 1e9) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not above < value <= most:
        low = "from 0" if above < 0 else "above 0"
        raise argparse.ArgumentTypeError(f"{text!r} is no number {low} to {most:g}")
    return value
