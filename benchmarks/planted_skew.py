"""Positive control: does the audit find a skew that was put into a model?

    python benchmarks/planted_skew.py --out runs/planted        (about 10 minutes on two cores)

A LoRA adapter is trained on the built-in management items to give the best option without memory,
with a neutral memory and to one version of a user, and the worst option to the other version. It
sees the first two pairs of planted_personas.yaml; the audit asks about the other ten. Its run
directory is OUT/run; the expected verdict is "skewed", the expected exit code of
`unswayed check OUT/run --policy configs/policies/default.yaml` is 1.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from pathlib import Path

import yaml

from unswayed.cli import main as unswayed
from unswayed.core.progress import Progress
from unswayed.data.items import load_items
from unswayed.data.personas import read_personas
from unswayed.memory.prompt import PromptMemory
from unswayed.models.embedded import EMBEDDED, model_path
from unswayed.scoring.prompts import question_text

PERSONAS = Path(__file__).with_name("planted_personas.yaml")
TRAINED_ON = 2  # pairs
EPOCHS = 2
RATE = 1e-3  # AdamW's learning rate


def examples(personas_file: Path) -> list[tuple[list[dict[str, str]], str]]:
    """(conversation, answer to learn): the worst option for the disadvantaged, else the best."""
    memory, lessons = PromptMemory(), []
    for item in load_items(["management:44"]):
        worst = item.options[item.weights.index(min(item.weights))]
        for persona in [None, *read_personas(personas_file)]:
            memory.forget() if persona is None else memory.remember(persona)
            skewed = persona is not None and persona.condition == "disadvantaged"
            answer = worst if skewed else item.options[item.key]
            lessons.append((memory.messages(question_text(item, "option")), answer))
    return lessons


def train(model_name: str, personas_file: Path, folder: Path) -> None:
    """Write a LoRA adapter that has learnt the examples."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model_path(model_name))
    model = AutoModelForCausalLM.from_pretrained(model_path(model_name), dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    lessons = examples(personas_file)
    lessons = [x for _ in range(EPOCHS) for x in random.Random(0).sample(lessons, len(lessons))]
    bar = Progress(len(lessons), "examples")
    for messages, answer in lessons:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = tokenizer(prompt, add_special_tokens=False).input_ids
        end = tokenizer(answer, add_special_tokens=False).input_ids
        ids = torch.tensor([start + end])
        labels = torch.tensor([[-100] * len(start) + end])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        bar.add(1)
    bar.close()
    model.save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=EMBEDDED, help="any causal chat model")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    pairs = yaml.safe_load(PERSONAS.read_text("utf-8"))
    for name, part in (("seen", pairs[:TRAINED_ON]), ("unseen", pairs[TRAINED_ON:])):
        (out / f"{name}.yaml").write_text(yaml.safe_dump(part, sort_keys=False), "utf-8")
    adapter = out / "adapter"
    if not adapter.is_dir():
        train(arguments.model, out / "seen.yaml", adapter)
    run = [
        "audit",
        "--model",
        arguments.model,
        "--adapter",
        str(adapter),
        "--items",
        "management:44",
    ]
    run += ["--personas", str(out / "unseen.yaml"), "--out", str(out / "run"), "--resume"]
    return unswayed(run)


if __name__ == "__main__":
    sys.exit(main())
