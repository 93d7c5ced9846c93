"""The cases of the golden record: checkpoints, the operations on each, and the documents of each.

A covering set, not all products: every rule, kind of attention, amount of noise and kind of size occurs, and each
together with two others. What a family does not allow stays in: its refusal is on record as well.
"""

from dataclasses import dataclass

DEMO = "demo"  # comes with the package


@dataclass(frozen=True)
class Checkpoint:
    """The values that commands need for one checkpoint.

    hidden, mlp  sizes half as large again: no multiples
    dtype        one that is not its own
    rotary       whether its positions are rotary
    """

    hidden: str
    mlp: str
    dtype: str
    rotary: bool = False


CHECKPOINTS = {
    DEMO: Checkpoint("hidden_size=192", "intermediate_size=528", "float32", rotary=True),
    "llama": Checkpoint("hidden_size=192", "intermediate_size=528", "float32", rotary=True),
    "qwen3": Checkpoint("hidden_size=192", "intermediate_size=528", "float32", rotary=True),
    "gemma2": Checkpoint("hidden_size=192", "intermediate_size=528", "float32", rotary=True),
    "gpt_neox": Checkpoint("hidden_size=192", "intermediate_size=768", "float32", rotary=True),
    "opt": Checkpoint("hidden_size=192", "ffn_dim=768", "float32"),
    "gpt2": Checkpoint("n_embd=192", "n_inner=768", "bfloat16"),
    "bert": Checkpoint("hidden_size=192", "intermediate_size=768", "bfloat16"),
    "roformer": Checkpoint("hidden_size=192", "intermediate_size=768", "bfloat16", rotary=True),
    "t5": Checkpoint("d_model=192", "d_ff=768", "bfloat16"),
    "mt5": Checkpoint("d_model=192", "d_ff=528", "bfloat16"),
}

QUIET = " --memory 8GB --quiet"  # enough for a process of many commands; it changes no result
WRITING = {  # {operation: arguments}; each writes to `out`
    "widened by defaults": "widen {source} -o out",
    "widened orthogonally, more heads, copies alike": (
        "widen {source} -o out --factor 2 --rule orthogonal --attention heads --noise 0"
    ),
    "widened orthogonally, larger heads, copies apart": (
        "widen {source} -o out --factor 2 --rule orthogonal --attention head-dim --noise 0.5 --seed 1"
    ),
    "widened exactly, more heads, copies apart": (
        "widen {source} -o out --factor 2 --rule exact --attention heads --noise 0.5 --seed 1"
    ),
    "widened exactly, larger heads, copies alike": (
        "widen {source} -o out --factor 2 --rule exact --attention head-dim --noise 0"
    ),
    "widened to three times": "widen {source} -o out --factor 3 --noise 0.25 --seed 2",
    "a wider MLP that is no multiple": "widen {source} -o out --set {mlp} --rule exact --noise 0.5",
    "a wider stream that is no multiple, orthogonally": "widen {source} -o out --set {hidden} --rule orthogonal",
    "a wider stream that is no multiple, exactly": "widen {source} -o out --set {hidden} --rule exact --noise 0",
    "both that are no multiples": "widen {source} -o out --set {hidden} --set {mlp}",
    "widened with rotary frequencies repeated": "widen {source} -o out --rope repeat --attention head-dim",
    "widened into another dtype": "widen {source} -o out --dtype {dtype} --rule orthogonal",
    "widened into shards by two workers": "widen {source} -o out --shard-size 1MB --workers 2",
    "untied": "untie-embeddings {source} -o out",
    "untied, the head's halves swapped": "untie-embeddings {source} -o out --head half-swap --no-measure",
    "untied, the head shuffled": "untie-embeddings {source} -o out --head shuffle --no-measure",
    "untied, the head turned": "untie-embeddings {source} -o out --head orthogonal --seed 1 --no-measure",
    "untied, the head new": "untie-embeddings {source} -o out --head normal --seed 1 --no-measure",
    "begun anew by defaults": "init {source} -o out --no-measure",
    "begun anew, truncated, small residuals": (
        "init {source} -o out --std 0.01 --distribution truncated --residual gpt2 --seed 1 --no-measure"
    ),
}
ROTARY_ALONE = {"widened with rotary frequencies repeated"}


@dataclass(frozen=True)
class Telling:
    """A document.

    line    the command that prints it
    before  the command that is run first
    forget  whether the result of `before`, `wide`, loses its record: then maps are derived from weights
    runs    whether it runs the model, which takes seconds
    demo    whether only the demo checkpoint has it: float32 ones show mere rounding as a string (7.74e-07)
    """

    line: str
    before: str = ""
    forget: bool = False
    runs: bool = False
    demo: bool = False


WIDE = f"widen {{source}} -o wide --seed 1{QUIET}"
FEW = "--samples 2 --length 48"  # of text: a short run
TELLING = {
    "inspect": Telling("inspect {source} --json"),
    "plan-widen": Telling(f"widen {{source}} --dry-run --json{QUIET}"),
    "plan-params": Telling(f"widen {{source}} --params 3M --rule exact --dry-run --json{QUIET}"),
    "plan-untie": Telling(f"untie-embeddings {{source}} --head shuffle --dry-run --json{QUIET}"),
    "plan-init": Telling(f"init {{source}} --residual wang --dry-run --json{QUIET}"),
    "verify": Telling(f"verify {{source}} wide --json --quiet {FEW}", before=WIDE, runs=True),
    "verify-infer": Telling(
        "verify {source} wide --infer --trainable --json --quiet --samples 1 --length 32",
        before=WIDE,
        forget=True,
        runs=True,
    ),
    "diagnose": Telling(f"diagnose {{source}} --json {FEW}{QUIET}", runs=True),
    "diagnose-two": Telling(f"diagnose {{source}} wide --json {FEW}{QUIET}", before=WIDE, runs=True, demo=True),
    "loss-untie": Telling(f"untie-embeddings {{source}} -o out --head half-swap --json{QUIET}", runs=True),
    "loss-init": Telling(f"init {{source}} -o out --json{QUIET}", runs=True),
}
FAMILIES = {
    "all": "families --json",
    **{name: f"families {name} --json" for name in ("llama", "mixtral", "bert", "gpt2", "t5", "deepseek_v3")},
}


def writing(name: str) -> dict[str, str]:
    """The cases of WRITING that apply to a checkpoint."""
    return {what: how for what, how in WRITING.items() if CHECKPOINTS[name].rotary or what not in ROTARY_ALONE}


def telling(name: str) -> dict[str, Telling]:
    """The cases of TELLING that apply to a checkpoint."""
    return {what: one for what, one in TELLING.items() if name == DEMO or not one.demo}
