"""What the scripts of `datasets_scripts/` are given: what to build, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass

from unswayed.core.arguments import option
from unswayed.core.errors import InputError


@dataclass
class BuildArguments:
    """Arguments of every script."""

    output_dir: str | None = option(
        None, "folder of the dataset (default: runs/datasets/NAME of the script)"
    )
    configs: list[str] | None = option(None, "build only these configs (default: all)")
    push_to_hub: bool = option(False, "upload the folder to --repo_id when it is built")
    repo_id: str | None = option(None, "dataset on the Hub, OWNER/NAME")
    public: bool = option(False, "make a new dataset on the Hub public (default: private)")

    def check(self) -> None:
        """The arguments fit together.

        Raises:
            InputError: says which do not.
        """
        if self.push_to_hub and not self.repo_id:
            raise InputError("--push_to_hub needs --repo_id OWNER/NAME")
        if not self.push_to_hub and (self.repo_id or self.public):
            raise InputError("--repo_id and --public do nothing without --push_to_hub: add it")


@dataclass
class LicensedArguments(BuildArguments):
    """Arguments of the scripts that can build from texts of the user's own."""

    license_statement: str | None = option(
        None, "terms under which texts of your own files may be passed on"
    )

    def __post_init__(self) -> None:
        if self.license_statement is not None:
            self.license_statement = " ".join(self.license_statement.split())

    def own_sources(self) -> list[str]:
        """The arguments that name texts which are not this project's, as they were given."""
        raise NotImplementedError

    def check(self) -> None:
        """Also: texts of the user's own are pushed only with a word on their licence."""
        super().check()
        stated, own = self.license_statement, self.own_sources()
        if stated is not None and not (own and stated):
            raise InputError(
                "--license_statement is for texts of your own, NAME=FILE, and says something: "
                "give it with them, and not empty"
            )
        if own and self.push_to_hub and not stated:
            raise InputError(
                f"--push_to_hub with {own[0]}: these texts are not this project's to give away; "
                'say with --license_statement "..." under what terms you may publish them, or '
                "leave --push_to_hub out"
            )


@dataclass
class ItemArguments(LicensedArguments):
    """Arguments of the scripts whose dataset has items."""

    items: str | None = option(
        None, "as for audit, of one kind, e.g. steu=steu.jsonl (default: the built-in bank's)"
    )
    decisions: str | None = option(None, "annotators' decisions on persona invariance, a file")
    scoring: str = option("option", "wording of the question: option, letter, generate")
    seed: int = option(0, "of the order of options under letters")

    def own_sources(self) -> list[str]:
        return [f"--items {self.items}"] if "=" in (self.items or "") else []
