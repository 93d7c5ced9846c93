"""What a config says of rotary positions, and how it follows the growth of the rotated axis.

Pair j of a rotated axis of d coordinates turns at f(j) = theta^(-2j/d). An axis `count` times as wide keeps every old
pair at `count * j`, where the exponent is the same; what the config measures in pairs has to move along. LongRoPE's
factors, one a pair, are repeated in place:

    >>> record = {"rope_type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [3.0, 4.0]}
    >>> nested({"rope_scaling": record}, rotated=4, count=2)["rope_scaling"]["long_factor"]
    [3.0, 3.0, 4.0, 4.0]

The law: f'(count * j) = f(j) for every pair j, and the scaling of cosines and sines is what it was.
Upstream: transformers/modeling_rope_utils.py (Su et al., https://arxiv.org/abs/2104.09864; YaRN,
https://arxiv.org/abs/2309.00071; LongRoPE, https://arxiv.org/abs/2402.13753).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, inf, isclose, log, nextafter, pi
from typing import Any

from modelsurgeon.errors import PlanError, SourceError

Config = Mapping[str, Any]
Record = Mapping[str, Any]
NESTING = ("default", "linear", "llama3", "proportional", "dynamic", "longrope", "yarn")
PRETRAINED = ("llama3", "longrope", "yarn")  # the types that want the length of pretraining
PARTIAL = ("partial_rotary_factor", "rotary_pct")
THETAS = {None: ("rope_theta", "rotary_emb_base"), "sliding_attention": ("rope_local_base_freq", "local_rope_theta")}
LAYERED = ("rope_local_base_freq", "local_rope_theta", "global_rope_theta")  # legacy keys of layers of several thetas
BESIDE = "rope_parameters by layer type stand beside rope_scaling, and both are read"
NARROWEST = 0.001  # the width that upstream gives a YaRN ramp that has none
LARGEST = 1e300  # a number of a config: neither nan nor inf, nor an integer that no float holds
SAME = 1e-12  # YaRN's bounds, in pairs: a few float64 roundings


def records(config: Config) -> dict[str | None, Record]:
    """{layer type: rope record}, completed from the legacy keys; None is the type of a record for all layers.

    As the library reads them: a `rope_scaling` that is not empty replaces `rope_parameters`; a record's keys win over
    the legacy keys, except `original_max_position_embeddings` in a flat record; `truncate` is read outside of nested
    records. Every record has `rope_type`, in the new spelling.
    """
    stated = _mapping(config, "rope_parameters")
    scaling = _mapping(config, "rope_scaling")
    layers = {name: record for name, record in stated.items() if isinstance(record, Mapping)}
    if not layers:
        return {None: _flat(config, scaling or stated)}
    thetas = {name: THETAS.get(name, (*THETAS[None], "global_rope_theta")) for name in layers}
    filled: dict[str | None, Record] = {
        name: _filled(config, record, stated, thetas[name]) for name, record in layers.items()
    }
    return {**filled, None: _flat(config, scaling)} if scaling else filled


def kinds(config: Config) -> tuple[str, ...]:
    """The scaling types that a config names, each once; "default" where it names none."""
    return tuple(dict.fromkeys(record["rope_type"] for record in records(config).values()))


def rotated_size(config: Config, size: int, partial: float | None, size_key: str | None = None) -> int:
    """How many coordinates of an axis of `size` are rotated.

    size_key  the config key that names their number (GPT-J: `rotary_dim`)
    partial   the share where the config names none; None: the family always rotates the whole axis, as the type
              `proportional` does (its idle pairs turn at frequency zero)
    Raises SourceError where that is no number from 0 to `size`, or not the same for all layers.
    """
    if size_key is not None and config.get(size_key) is not None:
        counts = {int(_number(config, size_key))}
    elif partial is None:
        return size
    else:
        counts = {_rotated(record, size, partial) for record in records(config).values()}
    if len(counts) > 1 or not 0 <= min(counts) <= size:
        raise SourceError(f"config.json: {sorted(counts)} of {size} coordinates are rotated, expected one number")
    return counts.pop()


def reasons_against_nesting(config: Config) -> str | None:
    """Why the rotated axis cannot grow by nested pairs, in one clause; None where it can."""
    by_type = records(config)
    unknown = [kind for kind in kinds(config) if kind not in NESTING]
    if unknown:
        return f"rope type {unknown[0]!r} is not known to keep its frequencies (known: {', '.join(NESTING)})"
    if None in by_type and len(by_type) > 1:
        return BESIDE
    if None in by_type and "yarn" in kinds(config) and any(config.get(key) is not None for key in LAYERED):
        return "one yarn record serves layers of several thetas; name rope_parameters by layer type"
    return None


def nested(config: Config, rotated: int, count: int) -> dict[str, Any]:
    """The config keys, with their new values, that keep all frequencies when `rotated` becomes `count * rotated`.

    rotated  coordinates of the axis that are rotated, before
    Empty where the exponents decide everything: default, linear, llama3, dynamic (up to max_position_embeddings).
    Raises PlanError where there is no such config, SourceError where a record lacks what its type needs.
    """
    reason = reasons_against_nesting(config)
    if reason is not None:
        raise PlanError(f"rotary pairs cannot be nested: {reason}")
    if rotated % 2:
        raise PlanError(f"rotary pairs cannot be nested: {rotated} coordinates, an odd number, are rotated")
    if count == 1:
        return {}
    changes = {
        name: CHANGES[record["rope_type"]](record, rotated, count)
        for name, record in records(config).items()
        if record["rope_type"] in CHANGES
    }
    return _written(config, {name: change for name, change in changes.items() if change})


def appended(config: Config, rotated: int, new_size: int) -> dict[str, Any]:
    """The config keys, with their new values, that keep `rotated` coordinates rotated in an axis of `new_size`.

    The new share goes wherever the config states the old one, else into the record. Frequencies depend on `rotated`
    alone. Raises PlanError where they do not (`proportional`), or where there are more of them than coordinates.
    """
    if "proportional" in kinds(config):
        raise PlanError("rope type 'proportional' has frequencies of the whole axis: plain coordinates cannot be added")
    if not 0 <= rotated <= new_size:
        raise PlanError(f"{rotated} rotated coordinates do not fit into an axis of {new_size}")
    if len(records(config)) > 1 and None in records(config):
        raise PlanError(f"plain coordinates cannot be added: {BESIDE}")
    share = _share(rotated, new_size)
    legacy = {key: share for key in PARTIAL if config.get(key) is not None}
    stated = (*_mapping(config, _key(config)).values(), _mapping(config, _key(config)))
    inside = any(isinstance(part, Mapping) and part.get(PARTIAL[0]) is not None for part in stated)
    if legacy and not inside:
        return legacy
    return {**legacy, **_written(config, {name: {PARTIAL[0]: share} for name in records(config)})}


def _flat(config: Config, stated: Record) -> Record:
    """A record for all layers, completed."""
    record = _filled(config, stated, stated, THETAS[None])
    if record["rope_type"] in PRETRAINED and config.get("original_max_position_embeddings") is not None:
        return {**record, "original_max_position_embeddings": config["original_max_position_embeddings"]}
    return record


def _filled(config: Config, stated: Record, outer: Record, thetas: tuple[str, ...]) -> dict[str, Any]:
    record = {key: value for key, value in stated.items() if value is not None and key != "type"}
    kind = str(stated.get("rope_type") or stated.get("type") or "default")
    # Phi-3's first files call LongRoPE "su" or "yarn".
    record["rope_type"] = "longrope" if kind in ("su", "yarn") and "long_factor" in stated else kind
    if record["rope_type"] == "yarn":  # upstream looks for `truncate` beside nested records, not in them
        record["truncate"] = bool(outer.get("truncate", True))
    outside = {
        "rope_theta": thetas,
        "partial_rotary_factor": PARTIAL,
        "original_max_position_embeddings": ("max_position_embeddings",) if record["rope_type"] in PRETRAINED else (),
    }
    for key, names in outside.items():
        values = [config[name] for name in names if config.get(name) is not None]
        if values:
            record.setdefault(key, values[0])
    return record


def _rotated(record: Record, size: int, partial: float) -> int:
    if record["rope_type"] == "proportional":
        return size
    return int(size * _number({PARTIAL[0]: partial, **record}, PARTIAL[0]))


def _share(rotated: int, size: int) -> float:
    """A share of `size` that upstream rounds to `rotated`."""
    share = rotated / size
    return share if int(size * share) == rotated else nextafter(share, inf)


def _longrope(record: Record, rotated: int, count: int) -> dict[str, Any]:
    changes = {}
    for key in ("short_factor", "long_factor"):
        factors = record.get(key)
        if not isinstance(factors, list) or len(factors) != rotated // 2:
            found = f"{len(factors)} numbers" if isinstance(factors, list) else repr(factors)
            raise SourceError(f"config.json: longrope's {key} holds {found}, expected a list of {rotated // 2}")
        changes[key] = [factor for factor in factors for _ in range(count)]
    return changes


def _proportional(record: Record, rotated: int, count: int) -> dict[str, Any]:
    """The share of pairs that turn, where its rounding would let an idle one turn or stop one."""
    share = _number({PARTIAL[0]: 1.0, **record}, PARTIAL[0])
    turning = int(share * rotated // 2)
    if count * (turning - 1) < int(share * count * rotated // 2) <= count * turning:
        return {}
    return {PARTIAL[0]: _share(2 * count * turning, count * rotated)}


def _yarn(record: Record, rotated: int, count: int) -> dict[str, Any]:
    """The turns whose bounds are those of the old ramp times `count`: M / (2 pi theta^(2 bound / d)).

    Where upstream rounds bounds outwards (`truncate`) the turns are those of half a new pair further in, so that no
    error of the logarithm counts. New bounds lie within the new clamps because the old ones do within the old.
    """
    old, new = _ramp(record, rotated), _ramp(record, count * rotated)
    if all(isclose(b, count * a, rel_tol=SAME, abs_tol=SAME) for a, b in zip(old, new, strict=True)):
        return {}
    inset = 0.5 / count if record["truncate"] else 0.0
    theta, length = _number(record, "rope_theta"), _number(record, "original_max_position_embeddings")
    bounds = (old[0] + inset, old[1] - inset)
    fast, slow = (length / (2 * pi * theta ** (2 * bound / rotated)) for bound in bounds)
    return {"beta_fast": fast, "beta_slow": slow}


def _ramp(record: Record, rotated: int) -> tuple[float, float]:
    """(low, high), in pairs: where YaRN's ramp from old to stretched frequencies begins and ends.

    Upstream: transformers/modeling_rope_utils.py, _compute_yarn_parameters, find_correction_range: each operation in
    the same order, as the results are rounded to integers.
    """
    theta, length = _number(record, "rope_theta"), _number(record, "original_max_position_embeddings")
    turns = [_number(record, key) if record.get(key) else least for key, least in (("beta_fast", 32), ("beta_slow", 1))]
    if not (1 < theta < 1e30 and 0 < length < 1e30 and all(1e-99 < turn < 1e99 for turn in turns)):
        raise SourceError(f"config.json: yarn has no ramp for theta {theta:g}, length {length:g} and betas {turns}")
    low, high = (rotated * log(length / (turn * 2 * pi)) / (2 * log(theta)) for turn in turns)
    if record["truncate"]:
        return max(floor(low), 0), min(ceil(high), rotated - 1)
    low, high = max(low, 0), min(high, rotated - 1)
    return low, high + NARROWEST if low == high else high


CHANGES = {"longrope": _longrope, "proportional": _proportional, "yarn": _yarn}


def _written(config: Config, changes: Mapping[str | None, Record]) -> dict[str, Any]:
    """The config's own record with changes to it, {layer type: {key: value}}, under the key that holds it."""
    if not changes:
        return {}
    key = _key(config)
    record = {**_mapping(config, key), **changes.get(None, {})}
    for name, change in changes.items():
        if name is not None:
            record[name] = {**record[name], **change}
    return {key: record}


def _key(config: Config) -> str:
    """The key of the record that the library reads."""
    return "rope_scaling" if _mapping(config, "rope_scaling") else "rope_parameters"


def _mapping(config: Config, key: str) -> Record:
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise SourceError(f"config.json: {key} is {value!r}, expected an object")
    return value


def _number(record: Record, key: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        found = "is absent" if value is None else f"is {value!r}"
        raise SourceError(f"config.json: {key} {found}, expected a number")
    return float(value)
