"""A small copy of a transformers model, on which the architecture is tried in an instant.

The copy has the class, the code, the config and the attention kernel of the model, but few and
narrow layers of every kind, a short window, few experts and tokens, and random weights in float32
on CPU. These are drawn so wide that a token more or less in the context moves every later
probability.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from unswayed.scoring.attention import attention_kernel

WINDOW = 8  # tokens that a sliding window of the copy reaches
GAIN = 1.5  # standard deviation of a layer's outputs over its inputs'

SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size")
WIDTH = "(size|dim|embd|model)$"  # names of what may be the hidden size under another name
LIMITS = {  # largest value in the copy, by name; the first pattern that fits
    r"vocab_size\w*": 128,
    r"\w*intermediate_size\w*|ffn_dim|ffn_hidden_size|n_inner": 64,
    r"(sliding|attention|local)?_?window(_size)?": WINDOW,
    r"(moe_)?num(_local|_routed)?_experts|n_routed_experts": 4,
    r"\w*experts_per_tok\w*|moe_top_?k|moe_k|top_k(_experts)?|n(um)?_shared_experts": 2,
    r"n_group|topk_group|first_k_dense_replace|num_dense_layers|moe_layer_start_index": 1,
    r"pad_token_id": 0,
}


def shrunken(model: Any) -> Any:
    """The copy; no state of a random number generator changes.

    Args:
        model: of transformers, or a PEFT model around one, whose adapter is left out.

    Raises:
        Exception: of whatever kind the model's code raises on a config that it does not expect.
        ValueError: the copy has no layer of some class that the model has.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = type(base.config).from_dict(_shrunk(base.config))
    config._attn_implementation = attention_kernel(base)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        small = type(base)(config).float().eval()
    draw = torch.Generator().manual_seed(0)
    for parameter in small.parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        if parameter.dim() < 2:  # norms and biases
            parameter.data += 0.1 * noise
        else:
            parameter.data = noise * GAIN / parameter.shape[-1] ** 0.5
    if missing := _own_classes(base) - _own_classes(small):
        raise ValueError(f"it has no {', '.join(sorted(cls.__name__ for cls in missing))}")
    return small


def _shrunk(config: Any) -> dict[str, Any]:
    """Values of a smaller config, those of the configs inside it too."""
    values = config.to_dict()
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            values[name] = _shrunk(part)
    layers, heads, hidden = (config.attribute_map.get(name, name) for name in SIZES)
    if values.get(layers):
        values |= _few_layers(values, layers)
    if values.get(heads):
        values |= _few_heads(values, heads, hidden)
    return _limited(values)


def _few_layers(values: dict[str, Any], layers: str) -> dict[str, Any]:
    """What changes when the first layer of each kind is kept, and one more if all are alike."""
    count = values[layers]
    lists = {k: v for k, v in values.items() if isinstance(v, list)}
    each = {k: v for k, v in lists.items() if len(v) == count}
    places = {k: v for k, v in lists.items() if k not in each and re.search("layers|idx", k)}
    extra = {int(i): v for i, v in (values.get("per_layer_config") or {}).items()}
    reusing = count - (values.get("num_kv_shared_layers") or 0)
    first: dict[str, int] = {}
    for i in range(count):
        listed = [v[i] for v in each.values()], [i in v for v in places.values()]
        first.setdefault(repr((i >= reusing, listed, extra.get(i))), i)
    kept = sorted({*first.values(), count - 1})[: max(2, len(first))]
    changed: dict[str, Any] = {layers: len(kept)}
    changed |= {k: [v[i] for i in kept] for k, v in each.items()}
    changed |= {k: [j for j, i in enumerate(kept) if i in v] for k, v in places.items()}
    if extra:
        overrides = {j: _limited(extra[i]) for j, i in enumerate(kept) if i in extra}
        changed["per_layer_config"] = overrides
    if reusing < count:
        changed["num_kv_shared_layers"] = sum(i >= reusing for i in kept)
    return changed


def _few_heads(values: dict[str, Any], heads: str, hidden: str) -> dict[str, Any]:
    """What changes when there are at most two pairs of keys and values, and two queries each."""
    grouped = [k for k in ("num_key_value_heads", "num_kv_heads") if values.get(k)]
    pairs = values[grouped[0]] if grouped else values[heads]
    few, queries = min(pairs, 2), min(values[heads] // pairs, 2)
    width = few * queries * (values.get("head_dim") or values[hidden] // values[heads])
    alike = [k for k, v in values.items() if v == values[hidden] and re.search(WIDTH, k)]
    return dict.fromkeys(alike, width) | dict.fromkeys(grouped, few) | {heads: few * queries}


def _limited(values: dict[str, Any]) -> dict[str, Any]:
    def limited(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [limited(name, one) for one in value]
        limit = next((n for pattern, n in LIMITS.items() if re.fullmatch(pattern, name)), None)
        return value if limit is None or type(value) is not int else min(value, limit)

    return {name: limited(name, value) for name, value in values.items()}


def _own_classes(model: Any) -> set[type]:
    """Classes of modules that come with the architecture."""
    rooms = ("transformers.models.", "transformers_modules.")
    return {type(module) for module in model.modules() if type(module).__module__.startswith(rooms)}
