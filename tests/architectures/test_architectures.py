"""Every table, held against what `transformers` really writes and reads. Tables are found, not listed."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modelsurgeon.architectures import registry
from modelsurgeon.architectures.architecture import Architecture, Form
from modelsurgeon.architectures.config import lookup
from modelsurgeon.checkpoints.check import check
from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.errors import ArchitectureError, SourceError
from modelsurgeon.maps.signature import parse
from modelsurgeon.saving.save import save
from support import tiny
from support.grow import widen

KNOWN = registry.known()
VARIANTS = tiny.variants()
# The names that axes go by, in every table alike: the documentation explains each of them once.
VOCABULARY = frozenset(
    """
    vocab positions types buckets labels stream hidden final branch embedded transform pooled mlp expert_mlp shared_mlp
    heads kv head prehead preheads prekv value experts choice q_rank pre_q_rank kv_rank pre_kv_rank nope rope angles
    encoder_heads decoder_heads encoder_head decoder_head encoder_value decoder_value encoder_mlp decoder_mlp stem
    encoder tasks channels patch pixels frames mels
    """.split()
)
# Tensors of forms that are not built here, by model type: what else may lie in a file of this table.
NEVER_WRITTEN = {
    "t5": (r"(encoder|decoder)\.embed_tokens\.weight",),  # old files repeat the shared embedding under these names
    "mt5": (r"(encoder|decoder)\.embed_tokens\.weight",),
    "umt5": (r"(encoder|decoder)\.embed_tokens\.weight",),
}

each_type = pytest.mark.parametrize("model_type", KNOWN)
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def rewrite(folder, change):
    """Apply `change` to the tensors of a folder, on disk."""
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def configure(folder, **changes):
    """Change config.json; None removes a key."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def every_template(table):
    """The templates of a table in all its forms."""
    forms = [{name: text for name, text in form.tensors.items() if text} for form in table.forms]
    layouts = [dataclasses.replace(table, tensors=tensors) for tensors in (table.tensors, *forms)]
    return [template for layout in layouts for template in layout.templates]


def every_axis(table):
    """{name: [Axis]} of a table in all its forms."""
    layouts = [table.axes, *(form.axes for form in table.forms)]
    return {name: [axes[name] for axes in layouts if name in axes] for axes in layouts for name in axes}


def same_outputs(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


# --- tables ----------------------------------------------------------------------------------------------------------


def test_every_known_model_type_is_tried_by_what_its_table_says():
    assert {variant.model_type for variant in tiny.variants()} == set(KNOWN)


def test_exceptions_are_of_known_model_types():
    assert not set(tiny.OVERRIDES) - set(KNOWN)
    assert not set(tiny.FORMS) - set(KNOWN)


@each_type
def test_signatures_name_only_axes_of_their_table_and_every_axis_is_named(model_type):
    table = registry.find(model_type)
    axes = every_axis(table)
    weightless = [table.weightless, *(form.fields.get("weightless", ()) for form in table.forms)]
    signatures = [t.signature for t in every_template(table)] + [parse(text) for texts in weightless for text in texts]
    named = {axis for signature in signatures for axis in signature.axes}
    assert named <= set(axes)
    leaders = {axis.follows for forms in axes.values() for axis in forms if axis.follows}
    grown = {name for name, forms in axes.items() if any(axis.through != "fixed" for axis in forms)}
    assert leaders <= set(axes)
    assert not grown - named - leaders


@each_type
def test_every_axis_of_the_table_has_a_name_from_the_vocabulary(model_type):
    assert set(every_axis(registry.find(model_type))) <= VOCABULARY


@each_type
def test_every_form_of_a_table_has_a_name_of_its_own(model_type):
    names = [form.name for form in registry.find(model_type).forms]
    assert all(names) and len(set(names)) == len(names)


def test_a_line_for_several_tensors_is_one_line_for_each_in_tables_and_in_forms():
    form = Form(
        "wide", when=lambda config, names: True, tensors={"{wi,wi_0}.{weight,bias}?": "mlp <- mlp", "b.a": None}
    )
    lines = {"a.{layer}.{gate,up}_proj.{weight,bias?}": "mlp <- mlp", "{a.b,b}.a": "mlp <-"}
    table = Architecture(axes={}, tensors=lines, norm="rms", model="X")
    each = {f"a.{{layer}}.{name}_proj.{{weight,bias?}}": "mlp <- mlp" for name in ("gate", "up")}
    assert list(table.tensors.items()) == [*each.items(), ("a.b.a", "mlp <-"), ("b.a", "mlp <-")]
    added = {f"{name}.{{weight,bias}}?": "mlp <- mlp" for name in ("wi", "wi_0")}
    assert form.of(table).tensors == {**each, "a.b.a": "mlp <-", **added}


@each_type
def test_templates_count_with_counters_and_axes_that_the_table_knows(model_type):
    table = registry.find(model_type)
    counted = {name for template in every_template(table) for name in template.placeholders}
    assert counted <= set(table.counters) | set(every_axis(table))
    lasts = {name for template in every_template(table) for name in re.findall(r"\{(\w+)\.last\}", template.name)}
    assert lasts <= set(table.counters)


@each_type
def test_what_a_table_refers_to_is_in_the_table(model_type):
    table = registry.find(model_type)
    templates, axes = {template.name for template in every_template(table)}, every_axis(table)
    tie = table.tie
    if tie:
        assert {tie.head, tie.embedding, *tie.also, *tie.also.values()} <= templates
        assert tie.axis in axes
        assert {name for name in (tie.forced, tie.requires) if name} <= templates
    assert set(table.multiplied) | set(table.computed) | set(table.fills) | set(table.fixed_eps) <= templates
    assert {axis for axis, *_ in table.multiplied.values()} <= set(axes)
    dropped = {name for form in table.forms for name, text in form.tensors.items() if text is None}
    given = {name for form in table.forms for name, text in form.tensors.items() if text} | set(table.tensors)
    assert dropped <= given
    assert all(any(piece in name for name in templates) for piece in table.only)
    assert set(table.outputs.values()) <= set(axes)
    assert {axis.when for forms in axes.values() for axis in forms if isinstance(axis.when, str)} <= set(table.defaults)
    assert {name for forms in axes.values() for axis in forms for name in axis.over} <= set(axes)
    assert table.rotary is None or table.rotary.axis in axes
    assert hasattr(transformers, table.model)


@each_type
def test_every_field_of_the_config_class_is_accounted_for(model_type):
    """A later version of the library that adds a field to this family's config fails here: decide what it does."""
    kind, base = transformers.CONFIG_MAPPING[model_type], transformers.PretrainedConfig
    fields = {f.name for f in dataclasses.fields(kind)} - {f.name for f in dataclasses.fields(base)}
    written = set(kind().to_dict()) - set(base().to_dict())
    assert not sorted((fields | written) - registry.find(model_type).accounted_keys)


@each_type
def test_what_an_absent_key_means_is_what_the_config_class_says(model_type):
    """Sizes from an empty config.json are those of the library's own defaults (where the family has any)."""
    table, config = registry.find(model_type), transformers.CONFIG_MAPPING[model_type]().to_dict()
    for name, axis in table.axes.items():
        if axis.key and axis.default and lookup(config, axis.key) is not None:
            without = {key: value for key, value in config.items() if key != axis.key}
            if name in ("kv", "prekv"):
                # a constant in some classes, the number of heads in others: what does the library make of its absence?
                rebuilt = transformers.CONFIG_MAPPING[model_type](**without).to_dict()
                assert table.size(without, name) == rebuilt[axis.key]
            else:
                assert table.size(without, name) == table.size(config, name)
    for key in set(table.absent) & set(config):
        assert table.value({k: v for k, v in config.items() if k != key}, key) == config[key], key


@each_type
def test_aliases_of_the_config_class_are_known(model_type):
    table, attribute_map = registry.find(model_type), transformers.CONFIG_MAPPING[model_type].attribute_map
    sizes = {axis.key for axis in table.axes.values()} | set(table.counters.values())
    named = {a: n for a, n in attribute_map.items() if n in sizes and a != n}
    assert named.items() <= {a: n for a, n in table.aliases.items() if n in sizes}.items()


def test_an_unknown_model_type_is_refused_with_the_list_of_known_ones():
    with pytest.raises(ArchitectureError, match=r"unknown model_type 'no_such'; known: .*bert, .*gemma2"):
        registry.find("no_such")


# --- tables against files --------------------------------------------------------------------------------------------


@each_variant
def test_every_tensor_on_disk_is_matched_by_one_template_and_has_its_shape(variant, source):
    checkpoint = open_checkpoint(source(variant))
    table = checkpoint.architecture
    for name, tensor in checkpoint.tensors.items():
        fitting = [t for t in table.templates if t.pattern.fullmatch(table.canonical(name))]
        placeholders = [len(t.placeholders) for t in fitting]
        assert len(set(placeholders)) == len(placeholders), name  # the one with the fewest holds
        assert all(tensor.shape == t.signature.shape(checkpoint.sizes) for t in fitting), name


@each_variant
def test_a_saved_checkpoint_passes_the_check_and_every_key_of_its_config_is_known(variant, source):
    assert check(open_checkpoint(source(variant))) == ()


@each_type
def test_every_template_occurs_in_some_form_of_its_family(model_type, source):
    seen, known = set(), {t for t in every_template(registry.find(model_type)) if ".last}" not in t.name}
    for variant in (v for v in VARIANTS if v.model_type == model_type):
        table = open_checkpoint(source(variant)).architecture
        seen |= {table.template(name).name for name in open_checkpoint(source(variant)).tensors}
        known |= set(table.templates)
    unseen = [t for t in known if t.name not in seen]
    assert not [t.name for t in unseen if not t.optional]
    allowed = NEVER_WRITTEN.get(model_type, ())
    assert not [t.name for t in unseen if not any(re.fullmatch(pattern, t.name) for pattern in allowed)]


@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.has_head], ids=str)
def test_the_table_knows_that_there_is_no_head(variant, source):
    assert not open_checkpoint(source(variant)).has_head


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.has_head], ids=str)
def test_the_table_knows_whether_the_head_is_the_embedding(variant, source):
    checkpoint = open_checkpoint(source(variant))
    model = tiny.load(source(variant), variant.kind)
    head = model.get_output_embeddings()
    assert checkpoint.has_head and head is not None
    if not (checkpoint.architecture.tie.forced or checkpoint.architecture.tie.refused):
        assert checkpoint.is_tied == (head.weight is model.get_input_embeddings().weight)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.main], ids=str)
def test_a_missing_tensor_is_refused(variant, source, tmp_path):
    folder = tmp_path / "source"
    save(open_checkpoint(source(variant)), folder)
    table = open_checkpoint(folder).architecture
    for name in [n for n in load_file(folder / "model.safetensors") if not table.template(n).optional][::7]:
        checkpoint = open_checkpoint(folder)
        left = {n: t for n, t in checkpoint.tensors.items() if n != name}
        with pytest.raises(SourceError, match=f"tensor '{re.escape(table.canonical(name))}' is missing"):
            check(dataclasses.replace(checkpoint, tensors=left))


@each_type
def test_a_tensor_that_no_template_names_is_refused(model_type):
    with pytest.raises(ArchitectureError, match=r"tensor 'adapter\.weight': no line"):
        registry.find(model_type).template("adapter.weight")


# --- old spellings ---------------------------------------------------------------------------------------------------


def spelt(variant, source, folder, change):
    """(the checkpoint with its tensors respelt, its widened copy's outputs, those of the source as it was)."""
    save(open_checkpoint(source(variant)), folder)
    rewrite(folder, change)
    wide = widen(open_checkpoint(folder), 2, rule="exact", attention="heads")
    save(wide, folder.with_name("wide"))
    return wide, tiny.run(folder.with_name("wide"), variant.kind), tiny.run(source(variant), variant.kind)


@pytest.mark.parametrize("model_type", ["bert", "roformer"])
def test_norms_may_be_spelt_gamma_and_beta(model_type, source, tmp_path):
    def old(tensors):
        return {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }

    wide, after, before = spelt(tiny.named(f"{model_type}-tied"), source, tmp_path / "old", old)
    assert any(name.endswith("LayerNorm.gamma") for name in wide.tensors)
    assert (after["logits"] - before["logits"]).abs().max() / before["logits"].std() < tiny.ROUNDING


def test_gpt_neox_may_spell_its_head_lm_head(source, tmp_path):
    variant = tiny.named("gpt_neox-untied")

    def modern(tensors):
        return {name.replace("embed_out.", "lm_head."): tensor for name, tensor in tensors.items()}

    wide, after, before = spelt(variant, source, tmp_path / "modern", modern)
    assert "lm_head.weight" in wide.tensors
    assert (after["logits"] - before["logits"]).abs().max() / before["logits"].std() < tiny.ROUNDING


@pytest.mark.parametrize("model_type", [t for t in KNOWN if registry.find(t).prefix])
def test_files_of_the_bare_body_may_lack_the_prefix_or_have_it(model_type, source, tmp_path):
    variant = tiny.named(f"{model_type}-body")
    prefix = registry.find(model_type).prefix
    assert not any(name.startswith(prefix) for name in open_checkpoint(source(variant)).tensors)

    wide, after, _ = spelt(
        variant, source, tmp_path / "prefixed", lambda tensors: {prefix + name: t for name, t in tensors.items()}
    )
    assert all(name.startswith(prefix) for name in wide.tensors)
    plain = widen(open_checkpoint(source(variant)), 2, rule="exact", attention="heads")
    save(plain, tmp_path / "plain")
    assert not any(name.startswith(prefix) for name in plain.tensors)
    assert same_outputs(after, tiny.run(tmp_path / "plain", variant.kind))


def test_one_tensor_under_two_spellings_is_refused(source):
    checkpoint = open_checkpoint(source(tiny.named("gpt_neox-untied")))
    both = {**checkpoint.tensors, "lm_head.weight": checkpoint.tensors["embed_out.weight"]}
    with pytest.raises(SourceError, match="appears twice, under two names"):
        check(dataclasses.replace(checkpoint, tensors=both))


# --- buffers of old files --------------------------------------------------------------------------------------------

JUNK = [
    ("gpt2-tied", "transformer.h.0.attn.bias", torch.ones(1, 1, 24, 24, dtype=torch.uint8)),
    ("gpt2-tied", "transformer.h.0.attn.masked_bias", torch.tensor(-1e4)),
    ("gpt2-body", "h.1.attn.bias", torch.ones(1, 1, 24, 24, dtype=torch.bool)),
    ("gpt_neox-untied", "gpt_neox.layers.0.attention.bias", torch.ones(1, 1, 24, 24, dtype=torch.bool)),
    ("gpt_neox-untied", "gpt_neox.layers.1.attention.masked_bias", torch.tensor(-1e9)),
    ("gpt_neox-untied", "gpt_neox.layers.0.attention.rotary_emb.inv_freq", torch.ones(2)),
    ("llama-untied", "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4)),
    ("bert-tied", "bert.embeddings.position_ids", torch.arange(24)[None]),
    ("bert-body", "embeddings.position_ids", torch.arange(24)[None]),
    (
        "t5-tied",
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        torch.ones(8, 4),
    ),
]


@pytest.mark.parametrize(("name", "buffer", "value"), JUNK, ids=[f"{name}:{buffer}" for name, buffer, _ in JUNK])
def test_buffers_that_the_library_recomputes_are_left_out(name, buffer, value, source, tmp_path):
    variant = tiny.named(name)
    save(open_checkpoint(source(variant)), tmp_path / "old")
    rewrite(tmp_path / "old", lambda tensors: {**tensors, buffer: value})
    wide = widen(open_checkpoint(tmp_path / "old"), 2)
    assert buffer not in wide.tensors
    assert "1 tensors left out: the library recomputes or ignores them" in wide.notes
    assert set(wide.tensors) == set(open_checkpoint(source(variant)).tensors)


# --- config traps ----------------------------------------------------------------------------------------------------


def test_an_alias_in_config_json_wins_over_the_native_key_as_in_the_library(source, tmp_path):
    variant = tiny.named("gpt2-tied")
    save(open_checkpoint(source(variant)), tmp_path / "source")
    configure(tmp_path / "source", hidden_size=32, n_embd=16)
    wide = widen(open_checkpoint(tmp_path / "source"), 2, rule="exact", attention="heads")
    save(wide, tmp_path / "wide")
    model = tiny.load(tmp_path / "wide", variant.kind)
    assert model.config.n_embd == 64
    before = tiny.run(source(variant), variant.kind)["logits"]
    assert (tiny.outputs(model)["logits"] - before).abs().max() / before.std() < tiny.ROUNDING


def test_an_opt_of_350ms_layout_whose_norms_hold_no_tensors_is_refused(source, tmp_path):
    save(open_checkpoint(source(tiny.named("opt-350m"))), tmp_path / "source")
    configure(tmp_path / "source", layer_norm_elementwise_affine=False)
    with pytest.raises(ArchitectureError, match="layer_norm_elementwise_affine = False is not supported for opt"):
        check(open_checkpoint(tmp_path / "source"))


def test_a_pre_norm_opt_that_lost_its_last_norm_is_refused(source, tmp_path):
    save(open_checkpoint(source(tiny.named("opt-tied"))), tmp_path / "source")
    configure(tmp_path / "source", _remove_final_layer_norm=True)
    with pytest.raises(ArchitectureError, match="_remove_final_layer_norm = True is not supported for opt"):
        check(open_checkpoint(tmp_path / "source"))


@pytest.mark.parametrize(
    ("key", "value"), [("clip_qkv", 8.0), ("logit_scale", 0.5), ("n_embd", 32), ("per_layer_config", {})]
)
def test_a_key_that_has_an_effect_elsewhere_is_refused_where_no_table_line_names_it(key, value, source, tmp_path):
    save(open_checkpoint(source(tiny.named("llama-untied"))), tmp_path / "source")
    configure(tmp_path / "source", **{key: value})
    with pytest.raises(SourceError, match=f"config.json: {key} = .* is not accounted for by llama"):
        check(open_checkpoint(tmp_path / "source"))


def test_a_key_that_nobody_knows_is_kept_and_told_of(source, tmp_path):
    save(open_checkpoint(source(tiny.named("llama-untied"))), tmp_path / "source")
    configure(tmp_path / "source", training_run="blue")
    wide = widen(open_checkpoint(tmp_path / "source"), 2)
    assert wide.config["training_run"] == "blue"
    assert "config keys kept as they are, unknown to llama: training_run" in wide.notes
