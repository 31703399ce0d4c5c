"""lm-eval's HF model with what plain transformers and PEFT load: `--backend hf`, and the base of
hf-shared.

Other than the stock model it

* refuses a checkpoint or an adapter that is not complete (`unswayed.scoring.checkpoint`),
* leaves head and embedding as they were loaded, where stock ties them again,
* keeps the vocabulary, which stock cuts to the tokenizer's if there is an adapter,
* takes the softmax in float32; stock rounds a log-probability to the model's dtype, 0.03 nats a
  token in bfloat16,
* reads with the tokenizer and chat template that were saved with the adapter, if any,
* renders conversations so that nothing that was said is lost, scores answers after a thought that
  is closed, and ends generated ones with their turn (`unswayed.scoring.template`),
* takes a tokenizer that names neither beginning nor end of text,
* hands the arguments of bitsandbytes (`load_in_4bit=True`) to transformers as it takes them,
* takes an adapter from its repository's main branch, whatever `revision` says of the model, and
* compares a dozen scores with the plain model (`unswayed.scoring.selfcheck`).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from unswayed.core.errors import InputError
from unswayed.scoring.backends import first_line
from unswayed.scoring.chat import end_tokens
from unswayed.scoring.checkpoint import (
    adapter_tokenizer,
    check_no_adapter,
    check_rows,
    load_complete,
    load_tokenizer,
    put_adapter,
    refusing,
)
from unswayed.scoring.selfcheck import Plain, check_scores, plain_scores
from unswayed.scoring.template import ChatTemplate, chat_template, named_template

BITS = re.compile("load_in_|bnb_|llm_int8_")  # arguments of bitsandbytes


class CheckpointLM(HFLM):
    """See the module.

    Args:
        pretrained, kwargs: those of `lm_eval.models.huggingface.HFLM`.
        chat_template: which of several named chat templates is used.

    Attributes:
        gguf_file, subfolder: what was loaded of the folder or repository; None and "" are usual.
        tokenizer_source: folder or Hub id of a tokenizer from elsewhere, None if there is none.
        notes: sentences on what was loaded, for a reader.
        difference: mean difference of a score to the plain model, nats per token; None if the model
            was loaded already or is no causal one.

    Raises:
        InputError: the model is not what plain transformers and PEFT would load in full.
    """

    def __init__(self, pretrained: Any, chat_template: str | None = None, **kwargs: Any) -> None:
        self.gguf_file, self.subfolder = kwargs.get("gguf_file"), kwargs.get("subfolder", "")
        given = kwargs.get("tokenizer")
        self.tokenizer_source = given if isinstance(given, str) else None
        self.notes: list[str] = []
        self.difference: float | None = None
        self._adapter = kwargs.get("peft")
        self._plain: Plain | None = None
        kwargs = {"softmax_dtype": "float32"} | kwargs
        if isinstance(pretrained, str):
            super().__init__(pretrained, **kwargs)
        else:
            _keep_ties(pretrained)
            super().__init__(pretrained, **kwargs)
        vars(self.model).pop("tie_weights", None)
        if chat_template is not None:
            self.tokenizer.chat_template = named_template(self.tokenizer, chat_template)
        if self._plain is not None:
            self.difference = check_scores(self, self._plain, pretrained)

    def _get_config(self, pretrained: str, **settings: Any) -> None:
        check_no_adapter(pretrained, settings["revision"])
        with refusing(pretrained, settings["revision"]):
            super()._get_config(pretrained, **settings)

    def _create_tokenizer(self, pretrained: Any, tokenizer: Any, **settings: Any) -> None:
        if tokenizer is None and self._adapter and isinstance(pretrained, str):
            options = {"trust_remote_code": settings.get("trust_remote_code")}
            base = partial(load_tokenizer, pretrained, revision=settings["revision"], **options)
            if self.gguf_file:
                base = partial(base, gguf_file=self.gguf_file)
            tokenizer, note = adapter_tokenizer(self._adapter, base, **options)
            self.notes += [note] if note else []
        if tokenizer is not None and not isinstance(tokenizer, str):  # loaded already
            return super()._create_tokenizer(pretrained, tokenizer, **settings)
        source = tokenizer or getattr(pretrained, "name_or_path", pretrained)
        with refusing(source, what="the tokenizer of"):
            super()._create_tokenizer(pretrained, tokenizer, **settings)

    def _create_model(self, pretrained: str, peft: str | None = None, **settings: Any) -> None:
        if peft and settings.get("delta"):
            raise InputError("an adapter and delta weights exclude each other: give one of them")
        if bits := {name: settings.pop(name) for name in [*settings] if BITS.match(name)}:
            settings["quantization_config"] = _few_bits(bits)
        kind = self.AUTO_MODEL_CLASS
        self.AUTO_MODEL_CLASS = SimpleNamespace(from_pretrained=partial(load_complete, kind))
        try:
            super()._create_model(pretrained, **settings)
        finally:
            self.AUTO_MODEL_CLASS = kind
        if peft:
            self._model = put_adapter(self._model, peft, self.tokenizer)
        check_rows(self._model, self.tokenizer, pretrained)
        if self.backend == "causal":
            self._plain = plain_scores(self._model.eval(), self.tokenizer)
        _keep_ties(self._model)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, *args: Any, **kwargs: Any
    ) -> list[int]:
        """lm-eval's, also where there is no first token that the text could begin with.

        A conversation has the special tokens that its chat template writes, and no other ones, as
        in transformers, where stock puts BOS in front.
        """
        if add_special_tokens is None and self._is_rendered(string):
            add_special_tokens = False
        if add_special_tokens is None and self._first_token is None:
            add_special_tokens = self.add_bos_token is not False
        return super().tok_encode(string, add_special_tokens, *args, **kwargs)

    def tok_batch_encode(
        self, strings: list[str], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """lm-eval's, with the special tokens of `tok_encode`."""
        chosen = self.add_bos_token
        self.add_bos_token = False if self._is_rendered(strings[0]) else chosen
        try:
            return super().tok_batch_encode(strings, *args, **kwargs)
        finally:
            self.add_bos_token = chosen

    def _is_rendered(self, text: str) -> bool:
        """Whether the chat template wrote the special tokens; not if the user chose about BOS."""
        template = self._template if self.add_bos_token is None else None
        return template is not None and template.begins(text)

    @property
    def _first_token(self) -> int | None:
        return super().prefix_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context.

        Raises:
            InputError: the tokenizer names nothing that could.
        """
        if self._first_token is None:
            raise InputError(
                f"the tokenizer of {self.pretrained} names neither a beginning nor an end of text "
                "(bos_token, eos_token), so a text without context cannot be scored: name one in "
                "tokenizer_config.json"
            )
        return self._first_token

    @property
    def eot_token_id(self) -> int:
        """End of text.

        Raises:
            InputError: the tokenizer names none, so generation would not end.
        """
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                f"the tokenizer of {self.pretrained} names no end of text (eos_token), so a text "
                "would never end: name it in tokenizer_config.json, or score options"
            )
        return self.tokenizer.eos_token_id

    # -- conversations and answers -------------------------------------------------------------

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> torch.Tensor:
        """lm-eval's, but every row ends with its turn; what would stand behind it is padding.

        The stock model ends at the tokenizer's EOS and the model's only.
        """
        of_template = self._template.end_tokens if self._template else ()
        ends = end_tokens(self.tokenizer, self.model.generation_config, of_template)
        settings = ({"eos_token_id": ends} if ends else {}) | settings
        tokens = super()._model_generate(context, max_length, stop, **settings)
        if self.backend == "causal":
            answers = tokens[:, context.shape[1] :]
            ended = torch.isin(answers, torch.tensor(ends, device=answers.device)).cumsum(-1) > 0
            answers.masked_fill_(ended, self.tokenizer.pad_token_id)
        return tokens

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """lm-eval's, but answers also end at texts with which the chat template ends them."""
        if (template := self._template) is not None and template.stops:
            requests = [_until(request, template.stops) for request in requests]
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    @property
    def _template(self) -> ChatTemplate | None:
        """None where there is none, or one that cannot be used: it has rendered no request."""
        try:
            return self._chat_template()
        except InputError:
            return None

    def _chat_template(self) -> ChatTemplate | None:
        if self.tokenizer.chat_template is None:
            return None
        return chat_template(self.tokenizer, self.chat_template_args)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """lm-eval's, but nothing that was said is lost.

        The stock model drops a system message that the template refuses, and with it the memory.

        Raises:
            InputError: the template refuses, drops or changes a message.
        """
        if (template := self._chat_template()) is None:
            return super().apply_chat_template(chat_history, add_generation_prompt)
        if add_generation_prompt:
            return template.render_either(chat_history)
        return template.begun(chat_history)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """lm-eval's, but after a thought that is closed, where the chat template opens one.

        Raises:
            InputError: the template opens one that cannot be closed, or a request does not fit.
        """
        if (template := self._template) is not None:
            requests = [
                dataclasses.replace(request, arguments=(template.closed(prompt), text))
                for request in requests
                for prompt, text in [request.args]
            ]
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)


def _few_bits(bits: dict[str, Any]) -> Any:
    """transformers' configuration of weights in 4 or 8 bits, which takes no such arguments itself
    any more.

    Raises:
        InputError: bitsandbytes is not installed, or an argument is wrong.
    """
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f"{next(iter(bits))} needs the package bitsandbytes: `pip install bitsandbytes`"
        )
    try:
        return BitsAndBytesConfig(**bits)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{', '.join(bits)}: {first_line(error)}") from None


def _until(request: Instance, stops: Sequence[str]) -> Instance:
    """A request of generation that ends at these texts too."""
    context, settings = request.args
    until = settings.get("until") or []
    until = [until] if isinstance(until, str) else until
    settings = settings | {"until": list(dict.fromkeys([*until, *stops]))}
    return dataclasses.replace(request, arguments=(context, settings))


def _keep_ties(model: torch.nn.Module) -> None:
    """While lm-eval constructs: it ties head and embedding again, whatever was loaded."""
    model.tie_weights = lambda *args, **kwargs: None
