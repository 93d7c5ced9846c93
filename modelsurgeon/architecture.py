"""Architectures are tables: which axes a model has, which of them each tensor writes and reads, what its norms need.

One module in `modelsurgeon/architectures/` for each `model_type`, found by its name and read alone; it holds one
`ARCHITECTURE`. Keys of `tensors` are the names on disk: `{layer}` counts, `.{weight,bias}` stands for two tensors (the
bias has the written half of the signature), and `?` marks what may be absent. A tensor that no template names is
refused, and so is one that is missing; so is a config key with an effect that the table does not know.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from modelsurgeon.errors import ArchitectureError, SourceError
from modelsurgeon.signature import Signature, parse

Config = Mapping[str, Any]
Default = Callable[[Config], Any]

# Keys with no say in what a model of one width computes (dropout, tokens, labels, bookkeeping), in any family.
INERT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels add_cross_attention
    architectures attention_dropout attention_probs_dropout_prob auto_map bos_token_id chunk_size_feed_forward
    classifier_dropout cross_attention_hidden_size decoder_start_token_id dropout dropout_rate dtype eos_token_id
    finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing hidden_dropout hidden_dropout_prob
    id2label init_std initializer_factor initializer_range is_encoder_decoder label2id layerdrop model_type num_labels
    output_attentions output_hidden_states output_past pad_token_id prefix problem_type return_dict sep_token_id
    task_specific_params tie_word_embeddings tokenizer_class torch_dtype torchscript transformers_version
    unk_token_id use_cache use_return_dict vocab_size
    """.split()
)

# Keys that change what some family computes: elsewhere than in a family whose table names them they are refused.
EFFECTIVE = frozenset(
    """
    alibi attention_multiplier attn_config clip_qkv embedding_multiplier logit_scale logits_scaling
    no_rope_layers norm_topk_prob per_layer_config pruned_heads qk_layernorm residual_multiplier routed_scaling_factor
    """.split()
)


@dataclass(frozen=True)
class Axis:
    """One named axis.

    key       the config key of its size, or None where the size only follows from others
    default   its size when the key is absent or null
    through   what the axis passes on the way from its writers to its readers; it decides which maps commute:
              "residual"    sums and norms: copies of one scale
              "pointwise"   an activation: copies of scale 1
              "linear"      nothing: copies of any scale
              "heads"       a softmax per head: whole copies of scale 1
              "inner"       an inner product: copies; nested pairs where it is rotated
              "normed"      an inner product's axis before a norm of its own: follows the axis named by `follows`
              "angles"      the columns of a stored table of rotations: follows the axis named by `follows`
              "fixed"       never grows
    scaled    the power of its size by which the model multiplies what crosses it (-0.5: attention by sqrt(head))
    when      a config key (with its default in `Architecture.defaults`) that must be true for `scaled` to hold
    """

    key: str | None = None
    default: Default | None = None
    through: str = "fixed"
    scaled: float = 0.0
    when: str | None = None
    follows: str | None = None


@dataclass(frozen=True)
class Tie:
    """An output head that is the embedding, unless the config says otherwise.

    head       the head's tensor, absent on disk while tied
    embedding  the tensor that it is tied to
    axis       what the head reads: grown so that one tensor can serve as both
    also       further tensors that the flag gates, {target: source}
    forced     the library ties whenever both tensors are equal, whatever the flag: an own head must differ, so it is
               doubled and the norm named here halved (powers of two: the logits keep their last bit)
    requires   the template that a checkpoint with a head holds, where headless ones share the model type
    """

    head: str
    embedding: str
    axis: str = "final"
    also: Mapping[str, str] = field(default_factory=dict)
    forced: str | None = None
    requires: str | None = None


@dataclass(frozen=True)
class Rotary:
    """Rotary positions on the `head` axis.

    layout    which coordinates make a pair: "half" (j, j + d/2) or "interleaved" (2j, 2j + 1)
    partial   the share of the head that is rotated when the config names none; families that always rotate the whole
              head ignore the key, and have None here
    """

    layout: str = "half"
    partial: float | None = None


@dataclass(frozen=True)
class Template:
    """One line of the table: tensors of one name pattern."""

    name: str
    signature: Signature
    optional: bool
    pattern: re.Pattern[str] = field(compare=False)

    @property
    def counters(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\{(\w+)\}", self.name))


@dataclass(frozen=True)
class Architecture:
    """Everything that surgery must know of a family.

    axes       name -> Axis
    tensors    name template -> signature
    counters   {layer} -> the config key that counts it
    norm       "layer" or "rms"
    eps        the config key of the norms' eps, or None where the code fixes it
    tie        the output head's tie, or None
    prefix     what names may lack in files of the bare body
    offset     what the model adds to every gain: 1 for (1 + w)
    multiplied tensors whose product the model multiplies by a power of an axis' size, {template: (axis, power)}
    computed   tensors whose gaps are computed, {template: function(size, new size) -> function(start, stop) -> rows}
    keys       further config keys that have an effect, but none that depends on width
    requires   {key: (accepted values ...)}: anything else is refused
    defaults   {key: function(config)}: values of absent keys that matter
    equal      {key: key}: must be equal before and after (derived keys that are written to the file)
    aliases    {other name in config.json: native key}
    synonyms   (old, new) pieces of tensor names
    ignored    tensors that the library recomputes: not carried over
    unless     {template: (tensor, signature)}: the signature it has in checkpoints without that tensor
    outputs    {name of a model's output: the axis of its last dimension}
    model      the transformers class used when config.json names none
    """

    axes: Mapping[str, Axis]
    tensors: Mapping[str, str]
    norm: str
    eps: str | None
    model: str
    counters: Mapping[str, str] = field(default_factory=lambda: {"layer": "num_hidden_layers"})
    tie: Tie | None = None
    rotary: Rotary | None = None
    prefix: str = ""
    offset: float = 0.0
    multiplied: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    computed: Mapping[str, Callable[[int, int], Any]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    requires: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Default] = field(default_factory=dict)
    equal: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    synonyms: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    unless: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=lambda: {"last_hidden_state": "final"})

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        """The table, one template a tensor."""
        return tuple(template for name, text in self.tensors.items() for template in _expand(name, text))

    def fitted(self, names: Iterable[str]) -> Architecture:
        """The table for a checkpoint that holds these names: what depends on the presence of a tensor is decided."""
        present = {self.canonical(name) for name in names} if self.unless else set()
        changed = {
            template: signature for template, (tensor, signature) in self.unless.items() if tensor not in present
        }
        return replace(self, tensors={**self.tensors, **changed}) if changed else self

    @cached_property
    def accounted_keys(self) -> frozenset[str]:
        """Every config key that this table knows."""
        axes = {axis.key for axis in self.axes.values() if axis.key}
        rotary = {"rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor"} if self.rotary else set()
        named = {*self.keys, *self.requires, *self.defaults, *self.equal, *self.counters.values(), *self.aliases}
        return frozenset(INERT | axes | rotary | named | ({self.eps} if self.eps else set()))

    def canonical(self, name: str) -> str:
        """The name on disk -> the name in the table (prefix and old spellings undone)."""
        for old, new in self.synonyms:
            name = name.replace(old, new)
        if self.prefix and not self._find(name) and self._find(self.prefix + name):
            return self.prefix + name
        return name

    def template(self, name: str) -> Template | None:
        """The line of the table for a name on disk. None: the library recomputes this tensor.

        Raises ArchitectureError when nothing accounts for it.
        """
        found = self._find(self.canonical(name))
        if found:
            return found
        if self.is_recomputed(name):
            return None
        raise ArchitectureError(f"tensor {name!r}: no line of this model type's table accounts for it")

    def is_recomputed(self, name: str) -> bool:
        """Whether the library makes this tensor itself and ignores what a file says."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def _find(self, name: str) -> Template | None:
        return next((template for template in self.templates if template.pattern.fullmatch(name)), None)

    def resolve(self, config: Config) -> dict[str, Any]:
        """The config as the library reads it: other names of a key, where present, win over the native one."""
        named = {native: config[alias] for alias, native in self.aliases.items() if alias in config}
        return {**config, **named}

    def value(self, config: Config, key: str) -> Any:
        """A config value, or what its absence means."""
        value = config.get(key)
        if value is None and key in self.defaults:
            return self.defaults[key](config)
        return value

    def spelled_out(self, config: Config) -> dict[str, Any]:
        """The values that absent keys stand for."""
        return {key: default(config) for key, default in self.defaults.items() if config.get(key) is None}

    def sizes(self, config: Config) -> dict[str, int]:
        """{axis: size}. Raises SourceError for a size that is no positive integer."""
        return {name: self.size(config, name) for name in self.axes}

    def size(self, config: Config, name: str) -> int:
        axis = self.axes[name]
        size = config.get(axis.key) if axis.key else None
        if size is None:
            if axis.default is None:
                raise SourceError(f"config.json: no {axis.key!r}, which is the size of the axis {name!r}")
            try:
                size = axis.default(config)
            except (KeyError, TypeError, ZeroDivisionError) as error:
                raise SourceError(f"config.json: the size of axis {name!r} cannot be told ({error!r})") from None
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise SourceError(f"config.json: {axis.key or name} is {size!r}, expected a positive integer")
        return size


def quotient(above: str, below: str) -> Default:
    """A default size: one config key divided by another."""

    def divide(config: Config) -> int:
        if config[above] % config[below]:
            raise SourceError(f"config.json: {above} = {config[above]} is no multiple of {below} = {config[below]}")
        return int(config[above] // config[below])

    return divide


def group(heads: str, kv: str, default: int | None = None) -> Default:
    """A default size: query heads for each key-value head, where `default` key-value heads stand for an absent key."""

    def divide(config: Config) -> int:
        count = config.get(kv) or default or config[heads]
        if config[heads] % count:
            raise SourceError(f"config.json: {heads} = {config[heads]} is no multiple of {kv} = {count}")
        return int(config[heads] // count)

    return divide


def labels(config: Config) -> int:
    """A default size: how many labels a classification head tells apart."""
    named = config.get("id2label")
    return len(named) if isinstance(named, Mapping) else int(config.get("num_labels") or 2)


def known() -> tuple[str, ...]:
    """The model types that have a table, in alphabetical order."""
    from modelsurgeon import architectures

    return tuple(sorted(module.name for module in pkgutil.iter_modules(architectures.__path__)))


def find(model_type: Any) -> Architecture:
    """The table of a model type. Raises ArchitectureError, with the list of known ones, when there is none."""
    if model_type not in known():
        raise ArchitectureError(f"unknown model_type {model_type!r}; known: {', '.join(known())}")
    return _load(model_type)


@cache
def _load(model_type: str) -> Architecture:
    module = importlib.import_module(f"modelsurgeon.architectures.{model_type}")
    architecture: Architecture = module.ARCHITECTURE
    return architecture


def _expand(name: str, text: str) -> list[Template]:
    signature = parse(text)
    both = re.fullmatch(r"(.*)\.\{weight,bias(\??)\}(\??)", name)
    if not both:
        return [_template(name.removesuffix("?"), signature, name.endswith("?"))]
    stem, bias, every = both.groups()
    return [
        _template(f"{stem}.weight", signature, bool(every)),
        _template(f"{stem}.bias", signature.bias, bool(bias or every)),
    ]


def _template(name: str, signature: Signature, optional: bool) -> Template:
    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(name))
    return Template(name, signature, optional, re.compile(pattern))
