"""Texts as vectors: mean-pooled last hidden states of any Hugging Face model.

Works with sentence encoders and, where there is none, with a causal model. The raw vectors of the
latter all point the same way (anisotropy: Ethayarajh 2019, arXiv 1909.00512), so compare them
`centred` on a reference corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.models.embedded import EMBEDDED, model_path
from unswayed.models.load import default_device
from unswayed.scoring.checkpoint import check_finite, refusing

BATCH = 16  # texts; sorted by length, they need little padding


class Embedder:
    """A model that turns texts into vectors, in float32.

    Args:
        model: Hub id, folder or the embedded model's name; an encoder, an encoder-decoder (whose
            encoder is taken) or a causal model.
        device: as in torch; None takes the GPU if there is one.

    Raises:
        InputError: the model cannot be loaded.
    """

    def __init__(self, model: str = EMBEDDED, device: str | None = None) -> None:
        import transformers

        self._tokenizer, loaded = load_reader(transformers.AutoModel, model, device)
        self._limit = context_length(self._tokenizer, loaded.config)
        self._width = loaded.config.get_text_config(decoder=True).hidden_size
        self._model = loaded.get_encoder() if loaded.config.is_encoder_decoder else loaded

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One row of length 1 per text: the mean over its tokens' last hidden states.

        A row does not depend on the other texts, beyond float rounding.

        Returns:
            Array (n, d), float32.

        Raises:
            InputError: a text is empty, or longer than the model's context.
        """
        import torch

        tokens = [self._tokenizer(text)["input_ids"] for text in texts]
        for text, ids in zip(texts, tokens, strict=True):
            if not text.strip():
                raise InputError("an empty text has no embedding: leave it out")
            check_length(len(ids), self._limit, text)
        rows = np.empty((len(texts), self._width), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            with torch.inference_mode():
                rows[batch] = self._pooled([tokens[i] for i in batch])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def _pooled(self, batch: list[list[int]]) -> np.ndarray:
        """Means of a batch, padded on the right (the mask hides it, whatever the token)."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        filler = self._tokenizer.pad_token_id or 0
        ids = pad_sequence([torch.tensor(row) for row in batch], True, filler).to(
            self._model.device
        )
        ones = [torch.ones(len(row), dtype=torch.long) for row in batch]
        mask = pad_sequence(ones, True, 0).to(self._model.device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        mask = mask[..., None].to(states.dtype)
        return ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()


def centred(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows less `mean`, of length 1 again: what is left of a text beside what all texts share.

    The first step of All-but-the-Top (Mu & Viswanath 2018, arXiv 1702.01417, algorithm 1).

    Args:
        vectors: (n, d), rows of `Embedder.embed`.
        mean: (d,), the mean row of a reference corpus.
    """
    rows = vectors - mean
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


# -- loading, for models that only read ----------------------------------------------------------


def load_reader(kind: Any, model: str, device: str | None) -> tuple[Any, Any]:
    """Tokenizer and model of an auto class (`kind`) of transformers, ready to read, in float32.

    Raises:
        InputError: they cannot be loaded, or the checkpoint lacks weights: transformers would
            draw them at random.
    """
    import torch
    import transformers

    path = model_path(model)
    with refusing(path):
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        loaded, report = kind.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
        loaded.to(device or default_device())
    if missing := sorted(name for name in report["missing_keys"] if "pooler" not in name):
        raise InputError(
            f"{model} is no complete {kind.__name__}: its checkpoint lacks {missing[0]}, which "
            "would be random. Take a model that was trained as one"
        )
    check_finite(loaded, f"model {model}")
    return tokenizer, loaded.eval()


def context_length(tokenizer: Any, config: Any) -> int:
    """The most tokens that a model reads: what its tokenizer says, and its config if it does."""
    config = config.get_text_config(decoder=True)
    positions = getattr(config, "max_position_embeddings", None)
    return min(tokenizer.model_max_length, positions or tokenizer.model_max_length)


def check_length(tokens: int, limit: int, text: str) -> None:
    """Raises InputError if a text of `tokens` tokens exceeds `limit`; nothing is cut."""
    if tokens > limit:
        raise InputError(
            f"a text of {tokens} tokens exceeds this model's context of {limit} tokens: shorten it "
            f"or take a model with a longer context (the text begins {text[:60]!r})"
        )
