"""Build `persona_preferences`: pairs for DPO in which the better answer keeps the memory out.

    python datasets_scripts/persona_preferences.py --sampled 0 --own 2

The stages stand in --work_dir, and the same command goes on where it was interrupted. Nothing is
uploaded without --push_to_hub --repo_id OWNER/NAME. See docs/preferences.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from unswayed.datasets.arguments import LicensedArguments
from unswayed.mitigation.preferences.settings import PreferenceSettings
from unswayed.publish.scripts import run_script


@dataclass
class PreferenceArguments(PreferenceSettings, LicensedArguments):
    """Arguments of this script."""

    def own_sources(self) -> list[str]:
        return [f"--questions {spec}" for spec in self.questions or [] if "=" in spec]

    def check(self) -> None:
        LicensedArguments.check(self)
        PreferenceSettings.check(self)


def build(arguments: PreferenceArguments, command: str):
    """The dataset, from the arguments."""
    from unswayed.datasets.preference_sets import preference_tree

    return preference_tree(
        arguments,
        configs=arguments.configs,
        license_statement=arguments.license_statement,
        command=command,
    )


if __name__ == "__main__":
    sys.exit(run_script("persona_preferences", PreferenceArguments, build, __doc__))
