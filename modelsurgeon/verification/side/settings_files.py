"""Small JSON files that are read beside the model, compared key by key: of tokenizers, generation, processors.

Keys that say who wrote a file, and where, do not count; a key that is left out counts as its default. A special token
is a text or an object with further settings, by the version that wrote it; tokenizer.json has these settings too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from modelsurgeon.files.file import File
from modelsurgeon.verification.side.finding import NEITHER, SAME, Beside, Pair, apart, by_bytes, document

GENERATION = "generation_config.json"
OF_TOKENIZERS = ("tokenizer_config.json", "special_tokens_map.json")
OF_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
FILES = frozenset({GENERATION, *OF_TOKENIZERS, *OF_PROCESSORS})

# Keys that say who wrote a file and from what, or that a row of their own compares.
NOTES = frozenset(
    """
    _commit_hash _from_model_config _name_or_path auto_map backend chat_template is_local local_files_only name_or_path
    special_tokens_map_file tokenizer_file transformers_version
    """.split()
)
RENAMED = {"additional_special_tokens": "extra_special_tokens"}
# One class under the names that versions of the library gave it.
ONE_CLASS = {"PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend"}

# What a key means that is left out, where it is not null, false or empty.
DEFAULTS: dict[str, Any] = {
    **{"model_max_length": int(1e30), "clean_up_tokenization_spaces": False, "use_cache": True, "num_beams": 1},
    **{"temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0},
    **{"length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0},
    **{"encoder_no_repeat_ngram_size": 0, "num_return_sequences": 1, "num_beam_groups": 1, "diversity_penalty": 0.0},
}


def compare_settings(pair: Pair) -> Iterator[Beside]:
    """A row for each such file of either side; one for generation and one for processors where neither side has any."""
    whole = all("tokenizer.json" in names for names in pair.names)
    differences = {name: partial(_differences, whole=whole) for name in OF_TOKENIZERS}
    for name in pair.all_names:
        if name in FILES:
            yield by_bytes(name, pair, differences.get(name, _differences))
    for what, files in (("generation_config.json", {GENERATION}), ("preprocessors", set(OF_PROCESSORS))):
        if not files & set(pair.all_names):
            yield Beside(what, SAME, NEITHER)


def _differences(before: File, after: File, whole: bool = False) -> Iterator[str]:
    """Where two files differ.

    whole  whether both sides have a tokenizer.json, which lists the added tokens for itself
    """
    one, other = (_plain(document(file)) for file in (before, after))
    if whole and not ("added_tokens_decoder" in one and "added_tokens_decoder" in other):
        one, other = ({k: v for k, v in side.items() if k != "added_tokens_decoder"} for side in (one, other))
    for key, value in one.items():
        if isinstance(value, str) and isinstance(other.get(key), dict):
            other[key] = other[key].get("content")
        elif isinstance(value, dict) and isinstance(other.get(key), str):
            one[key] = value.get("content")
    return apart(one, other, DEFAULTS)


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """The keys that count, under their present names."""
    counted = {RENAMED.get(key, key): value for key, value in found.items() if key not in NOTES}
    name = counted.get("tokenizer_class")
    if isinstance(name, str):
        counted["tokenizer_class"] = "one for all" if name in ONE_CLASS else name.removesuffix("Fast")
    return counted
