"""DeepSeek-V3: DeepSeek-V2 with a sigmoid router and a bias that decides which experts are chosen, not how they weigh.

Rotated pairs lie interleaved unless `rope_interleave` says otherwise. Released files hold one layer more, number 61,
that predicts further tokens: the library leaves it out of the model.
Upstream: transformers/models/deepseek_v3/modeling_deepseek_v3.py.
"""

from dataclasses import replace

from modelsurgeon.architectures.architecture import Axis, Config, Form, Rotary
from modelsurgeon.architectures.layouts import by_layer
from modelsurgeon.architectures.tables.deepseek_v2 import ARCHITECTURE as V2


def layout(config: Config) -> str:
    """Which coordinates of the rotated part make a pair."""
    return "interleaved" if config.get("rope_interleave", True) else "half"


def sparse(config: Config, layer: int) -> bool:
    """Whether a layer holds experts."""
    return bool(layer >= config.get("first_k_dense_replace", 3))


def copies_count_once(config: Config) -> bool:
    """Whether twice the experts, twice as many of them active, compute the same.

    A group's score is the sum of its best two experts, which copies change, so every group must be open; and the
    weights of the chosen must be normalised.
    """
    every_group = config.get("topk_group", 4) == config.get("n_group", 8)
    return bool(every_group and config.get("norm_topk_prob", True))


def _unbiased(template: str) -> str:
    return template.replace(".{weight,bias?}", ".weight")


EXPERTS = replace(V2.axes["experts"], default=256)
ARCHITECTURE = replace(
    V2,
    model="DeepseekV3ForCausalLM",
    rotary=Rotary(layout, axis="rope"),
    axes={
        **V2.axes,
        "shared_mlp": replace(V2.axes["shared_mlp"], default=1),
        "experts": EXPERTS,
        "choice": Axis("n_routed_experts", 256, through="choice", follows="experts"),
    },
    tensors={
        **{_unbiased(name) if ".mlp." in name else name: text for name, text in V2.tensors.items()},
        "model.layers.{layer}.mlp.gate.e_score_correction_bias": "choice <-",
        "score.bias?": "labels <-",
    },
    fills={"model.layers.{layer}.mlp.gate.e_score_correction_bias": -8192.0},
    only=by_layer(sparse, ".mlp.gate.", ".mlp.experts.", ".mlp.shared_experts."),
    forms=(
        *V2.forms,
        Form(
            "experts that cannot be copied",
            when=lambda config, names: not copies_count_once(config),
            axes={"experts": replace(EXPERTS, active=None)},
        ),
        Form(
            "layer 61 left out",
            when=lambda config, names: config.get("num_hidden_layers") in range(62),
            fields={"ignored": (*V2.ignored, r"(model\.)?layers\.61\..*")},
        ),
    ),
    keys=" ".join(key for key in V2.keys.split() if key != "mlp_bias") + " num_nextn_predict_layers rope_interleave",
    requires={},
    multiples={},
    defaults={
        "n_group": 8,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 128,
        "tie_word_embeddings": False,
    },
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
)
