"""Results of other tools, which carry no record: the right ones are proven, the wrong ones refuted by tensor and index.

The results are made in `foreign.py`, from the tools' papers and without our surgery. That the right ones are right, and
the wrong ones wrong, is asked of the library's models too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelsurgeon.checkpoints.checkpoint import open_checkpoint
from modelsurgeon.checkpoints.record import RECORD
from modelsurgeon.proof.infer import Inferred, infer
from modelsurgeon.proof.proof import Proof, prove
from modelsurgeon.saving.save import save
from support import foreign, tiny
from support.grow import widen

Source = Callable[..., Path]
NEOX = ("dense.weight", "dense.bias", "dense_4h_to_h.weight", "dense_4h_to_h.bias")
SILENT = {"gpt_neox": NEOX, "gpt2": ("c_proj.weight", "c_proj.bias")}


def proven(source: Path, result: Path) -> tuple[Proof, Inferred]:
    before, after = open_checkpoint(source), open_checkpoint(result)
    inferred = infer(before, after)
    proof = prove(before, after, inferred.steps)
    assert proof is not None
    names = {verdict.name for verdict in proof.verdicts}
    if proof.summary != "wrong":
        assert names == {"config.json", *after.tensors}, "every tensor of the result is accounted for"
    return proof, inferred


def is_same(source: Path, result: Path, name: str) -> bool:
    """What the library's models say: logits equal to float32 rounding."""
    variant = tiny.named(name)
    return tiny.error(tiny.run(source, variant.kind), tiny.run(result, variant.kind), variant) < 1e-4


@pytest.mark.parametrize(
    ("name", "noise"), [("llama-tied", 0.0), ("qwen3-untied", 0.02), ("gpt_neox-untied", 0.0), ("gpt2-tied", 0.02)]
)
def test_hyper_cloning_is_proven(name: str, noise: float, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named(name))
    after = foreign.hyperclone(before, tmp_path / "result", noise=noise)
    proof, inferred = proven(before, after)
    assert proof.summary == ("rounded" if noise else "exact")
    assert "stream: copies in tiles, writers x1, readers x1/2" in " ".join(inferred.lines)
    assert ("untied" in inferred.lines[0]) == name.endswith("-tied")
    assert is_same(before, after, name)


@pytest.mark.parametrize("name", ["qwen3-untied", "gpt_neox-untied", "gpt2-tied"])
def test_llama_pro_is_proven(name: str, source: Source, tmp_path: Path) -> None:
    variant = tiny.named(name)
    before = source(variant)
    zeroed = SILENT.get(variant.model_type, foreign.LAST)
    after = foreign.llama_pro(before, tmp_path / "result", zeroed=zeroed)
    proof, inferred = proven(before, after)
    assert proof.summary == "exact"
    assert inferred.lines[0].endswith("layers 1, 3 of 4 are new")
    assert sum("adds zero" in verdict.detail for verdict in proof.verdicts) > len(zeroed)
    assert is_same(before, after, name)


def test_wider_and_deeper_at_once_is_proven(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("qwen3-untied"))
    wide = foreign.hyperclone(before, tmp_path / "wide", noise=0.02)
    after = foreign.llama_pro(wide, tmp_path / "deep", every=2)
    proof, inferred = proven(before, after)
    assert proof.summary == "rounded"
    assert [step.operation for step in inferred.steps] == ["insert-layers", "widen"]


def test_blocks_whose_norms_silence_them_are_proven(source: Source, tmp_path: Path) -> None:
    """Gemma 2 norms what each branch returns: 1 + w = 0 adds zero, too. Here the copy stands before its block."""
    before = source(tiny.named("gemma2-tied"))
    norms = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")

    def silence(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        for name in tensors:
            if name.endswith(norms) and ".layers.1." in name:
                tensors[name] = torch.full_like(tensors[name], -1.0)

    after = foreign.llama_pro(before, tmp_path / "result", silence, every=2, zeroed=())
    proof, inferred = proven(before, after)
    assert proof.summary == "exact"
    assert "layers 1 of 3 are new" in inferred.lines[0]
    assert is_same(before, after, "gemma2-tied")


def test_plain_conversions_are_proven(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))

    def narrow(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        config["dtype"] = "bfloat16"
        tensors |= {name: tensor.bfloat16() for name, tensor in tensors.items()}

    def without_prefix(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        named = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors |= named

    def respelled(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        """The rope record as old files have it, a default left out, the tied head written out."""
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        del config["attention_bias"], config["num_key_value_heads"]
        config["num_key_value_heads"] = 2
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    for change, verdict in ((narrow, "rounded"), (without_prefix, "exact"), (respelled, "exact")):
        after = foreign.converted(before, tmp_path / change.__name__, change)
        proof, inferred = proven(before, after)
        assert proof.summary == verdict, (change, proof.wrong)
        assert inferred.steps == () and inferred.lines == ("every axis as it was",)


def wrong_theta(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """Said in the old spelling, so that no key of both files differs."""
    config["rope_theta"] = 2 * config.pop("rope_parameters")["rope_theta"]


def random_head(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    tensors["lm_head.weight"] = torch.randn(tensors["model.embed_tokens.weight"].shape)
    config["tie_word_embeddings"] = False


def other_tied_head(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1


def further_tensor(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    tensors["model.layers.0.self_attn.lora_A.weight"] = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (wrong_theta, "config.json"),
        (random_head, "lm_head.weight"),
        (other_tied_head, "lm_head.weight"),
        (further_tensor, "model.layers.0.self_attn.lora_A.weight"),
    ],
)
def test_wrong_conversions_are_refuted(change: foreign.Change, where: str, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))
    proof, _ = proven(before, foreign.converted(before, tmp_path / "result", change))
    assert [verdict.name for verdict in proof.wrong] == [where]


def small_scale(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """The stream divided by sqrt(2), all of it: only the eps is forgotten."""
    for name in tensors:
        if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")):
            tensors[name] = tensors[name] * 0.5**0.5


def mixed_heads(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """Query heads in tiles, key-value heads side by side."""
    for name in tensors:
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            heads = tensors[name].unflatten(0, (2, 2, -1))  # copy, head, coordinate
            tensors[name] = heads.transpose(0, 1).flatten(0, 2)


def larger_heads(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """Rows tiled across heads: as many heads as before, each with parts of two."""
    config["num_attention_heads"] //= 2


def gemma_unscaled(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """(1 + w) / 2 before the head, but sqrt(hidden) forgotten."""
    gain = (1 + 2 * tensors["model.norm.weight"]) / 2
    tensors["model.norm.weight"] = gain - 1


def gemma_scaled(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    gain = (1 + 2 * tensors["model.norm.weight"]) * 0.5**0.5
    tensors["model.norm.weight"] = gain - 1
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] * 0.5**0.5


@pytest.mark.parametrize(
    ("name", "change", "where"),
    [
        ("llama-untied", small_scale, "config.json"),
        ("llama-untied", mixed_heads, ".k_proj."),
        ("gpt_neox-untied", larger_heads, ".query_key_value."),
        ("gemma-tied", gemma_unscaled, "embed_tokens"),
    ],
)
def test_wrong_clones_are_refuted(
    name: str, change: foreign.Change, where: str, source: Source, tmp_path: Path
) -> None:
    before = source(tiny.named(name))
    after = foreign.hyperclone(before, tmp_path / "result", change, tied=name == "gemma-tied")
    proof, inferred = proven(before, after)
    assert proof.summary == "wrong"
    named = [verdict for verdict in proof.wrong if where in verdict.name]
    assert named and all("expected" in verdict.detail for verdict in named), proof.wrong
    if where == "config.json":
        assert "rms_norm_eps" in named[0].detail and len(proof.wrong) == 1
    else:
        assert "at [" in named[0].detail
        assert any("contradicted by" in line and "tried: " in line for line in inferred.lines)
    assert not is_same(before, after, name)


def test_what_gemma_needs_is_proven(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("gemma-tied"))
    after = foreign.hyperclone(before, tmp_path / "result", gemma_scaled, tied=True)
    assert proven(before, after)[0].summary == "rounded"
    assert is_same(before, after, "gemma-tied")


def kinds_left_alone(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    config["layer_types"] = config["layer_types"][:2]


def loud_bias(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    bias = tensors["gpt_neox.layers.1.attention.dense.bias"].clone()
    bias[3] = 0.25
    tensors["gpt_neox.layers.1.attention.dense.bias"] = bias


def infinite(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    up = tensors["model.layers.3.mlp.up_proj.weight"].clone()
    up[0, 0] = torch.inf
    tensors["model.layers.3.mlp.up_proj.weight"] = up


def swapped(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    for name in [name for name in tensors if ".layers.0." in name]:
        other = name.replace(".0.", ".2.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


@pytest.mark.parametrize(
    ("name", "zeroed", "change", "where"),
    [
        ("gpt_neox-untied", foreign.LAST, None, "gpt_neox.layers.1.attention.dense.weight"),
        ("gpt_neox-untied", NEOX, loud_bias, "gpt_neox.layers.1.attention.dense.bias"),
        ("qwen3-untied", foreign.LAST, kinds_left_alone, "config.json"),
        ("qwen3-untied", foreign.LAST, infinite, "model.layers.3.mlp.up_proj.weight"),
        ("qwen3-untied", foreign.LAST, swapped, "model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_wrong_depth_is_refuted(
    name: str, zeroed: tuple[str, ...], change: foreign.Change | None, where: str, source: Source, tmp_path: Path
) -> None:
    before = source(tiny.named(name))
    after = foreign.llama_pro(before, tmp_path / "result", change, zeroed=zeroed)
    proof, _ = proven(before, after)
    assert proof.summary == "wrong"
    assert where in {verdict.name for verdict in proof.wrong}
    if change is kinds_left_alone:
        assert "layer_types" in proof.wrong[0].detail


def test_depth_is_refused_where_the_sum_itself_is_normed(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("bert-tied"))

    def one_more(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        config["num_hidden_layers"] += 1
        tensors |= {n.replace(".1.", ".2."): t.clone() for n, t in tensors.items() if ".layer.1." in n}

    proof, inferred = proven(before, foreign.converted(before, tmp_path / "result", one_more))
    assert "post-norm" in inferred.lines[0]
    assert proof.summary == "wrong"


def padded(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
    """x' = [x, 0] on the stream, the norms' gains and eps by what a longer vector wants; readers' new columns free."""
    narrow, wide = config["hidden_size"], config["hidden_size"] * 3 // 2
    for name, tensor in tensors.items():
        more = wide - narrow
        if tensor.ndim == 1:
            tensors[name] = torch.cat([tensor * (narrow / wide) ** 0.5, torch.randn(more)])
        elif name.endswith("embed_tokens.weight"):
            tensors[name] = torch.cat([tensor, torch.zeros(len(tensor), more)], 1)
        elif name.endswith(foreign.LAST):
            tensors[name] = torch.cat([tensor, torch.zeros(more, tensor.shape[1])])
        else:
            tensors[name] = torch.cat([tensor, torch.randn(len(tensor), more)], 1)
    config |= {"hidden_size": wide, "head_dim": 8, "rms_norm_eps": config["rms_norm_eps"] * narrow / wide}


def test_zeros_behind_the_old_coordinates_are_proven(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-untied"))
    after = foreign.converted(before, tmp_path / "result", padded)
    proof, inferred = proven(before, after)
    assert proof.summary == "rounded"
    assert inferred.lines[0] == "stream: then zeros, writers x1, readers x1 (32 -> 48)"
    assert is_same(before, after, "llama-untied")


@pytest.mark.parametrize(
    ("key", "size", "line"),
    [("vocab_size", 64, "vocab: no map makes 64 of 61"), ("intermediate_size", 20, "mlp: no map makes 20 of 40")],
)
def test_sizes_that_no_map_makes_are_refuted(key: str, size: int, line: str, source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-untied"))

    def change(tensors: foreign.Tensors, config: dict[str, Any]) -> None:
        config[key] = size

    proof, inferred = proven(before, foreign.converted(before, tmp_path / "result", change))
    assert proof.summary == "wrong" and line in inferred.lines


@pytest.mark.parametrize(
    ("name", "rule", "attention"),
    [
        ("gpt_neox-tied", "orthogonal", "head-dim"),
        ("bloom-untied", "exact", "heads"),
        ("mixtral-untied", "exact", "heads"),
    ],
)
def test_our_own_results_are_proven_without_their_record(
    name: str, rule: str, attention: str, source: Source, tmp_path: Path
) -> None:
    before = source(tiny.named(name))
    after = save(widen(open_checkpoint(before), 2, rule=rule, attention=attention), tmp_path / "result")
    (after / RECORD).unlink()
    assert proven(before, after)[0].summary != "wrong"


def test_another_family_is_refuted_in_one_line(source: Source) -> None:
    proof, inferred = proven(source(tiny.named("llama-tied")), source(tiny.named("gpt2-tied")))
    assert proof.summary == "wrong" and len(inferred.lines) == 1


def test_inference_and_proof_tell_how_far_they_are(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))
    checkpoints = open_checkpoint(before), open_checkpoint(foreign.hyperclone(before, tmp_path / "result"))
    told: list[tuple[str, int, int]] = []
    inferred = infer(*checkpoints, tell=lambda *said: told.append(said))
    assert inferred.proof == prove(*checkpoints, inferred.steps)
    assert [what for what, done, total in told if done == total][-1] == "proof"
    for bar in ("maps", "proof"):
        done = [at for what, at, _ in told if what == bar]
        assert done == sorted(done) and len(done) > 5


def test_what_was_inferred_is_written_as_json(source: Source, tmp_path: Path) -> None:
    before = source(tiny.named("llama-tied"))
    _, inferred = proven(before, foreign.hyperclone(before, tmp_path / "result"))
    record = inferred.to_json()
    assert record["lines"] == list(inferred.lines)
    assert [step["operation"] for step in record["steps"]] == ["untie-embeddings", "widen"]
