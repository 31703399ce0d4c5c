"""What was done, in full sentences, and what is needed to do it again."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from unswayed.audit.rundir import model_name
from unswayed.audit.summary import conditions_of, effects_of, is_grid
from unswayed.audit.verdict import metric_name
from unswayed.display.numbers import count, duration, listed
from unswayed.display.page import sections
from unswayed.memory.registry import describe
from unswayed.report.words import listed_conditions, points
from unswayed.statistics.crossed import fewest_items


def methods(
    run: dict[str, Any], answers: pd.DataFrame, summary: dict[str, Any]
) -> list[tuple[str, str]]:
    """(heading, full sentences) on what was done."""
    tests = summary["tests"]
    memory = next((m for m in answers["memory"] if m != "none"), None)
    view = {
        "run": run,
        "summary": summary,
        "n_items": count(run["n_items"], "item"),
        "item_counts": listed(
            f"{test['n_items']} of the test {name}" for name, test in tests.items()
        ),
        "kinds": list(dict.fromkeys(test["kind"] for test in tests.values())),
        "conditions": listed(listed_conditions(conditions_of(summary))),
        "memory": memory and describe(memory, summary["memory_style"]),
        "n_cells": run.get("n_cells") and count(run["n_cells"], "cell"),
        "n_pairs": count(run["n_pairs"] or 0, "base persona"),
        "n_trials": count(run["n_trials"], "trial"),
        "effects": effects_of(summary),
        "grid": is_grid(summary),
        "margin": points(summary["margin"]),
        "outcome": listed(
            dict.fromkeys(metric_name(t["outcome"], t["kind"]) for t in tests.values())
        ),
        "least_items": fewest_items(summary["margin"]),
    }
    return sections("unswayed.report", "run_methods.md.jinja", view)


def policy_line(summary: dict[str, Any]) -> str:
    """By which policy, and since when."""
    policy = summary["policy"]
    when = "declared before the first question" if policy["declared"] else "named afterwards"
    return f"{policy['name']}, {when}, SHA-256 {policy['sha256']}"


def facts(run: dict[str, Any], summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what is needed to repeat the run."""
    model, settings = run["model"] or {}, run["identity"].get("memory_settings")
    values = {
        "Model": model_name(run, summary),
        "Backend": run["identity"].get("backend"),
        "Model revision": model.get("revision"),
        "Adapter hash": model.get("adapter_hash"),
        "Architecture": model.get("architecture"),
        "Parameters": f"{model['parameters']:,}" if model.get("parameters") else None,
        "Data type": model.get("dtype"),
        "Device": model.get("device"),
        "Memory settings": json.dumps(settings) if settings else None,
        "Seed": run["identity"]["seed"],
        "Policy": policy_line(summary),
        "Items (SHA-256)": run["hashes"].get("items"),
        "Personas (SHA-256)": run["hashes"].get("personas"),
        "Prompts (SHA-256)": run["hashes"].get("prompts"),
        "Started": run["started"],
        "Finished": run["finished"],
        "Run time": duration(run["seconds"]),
        "Versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    }
    return [(name, str(value)) for name, value in values.items() if value is not None]
