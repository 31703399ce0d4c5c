"""`unswayed publish`: a local dataset tree, model or Space goes to the Hub in one commit.

It is checked before anything is sent (`local`). What the repository has of other configs stays,
in files and in the card; files of the tree's own configs, or of the model, that are no longer in
the folder are deleted. A commit is whole or not there, and it is tied to the state it was made from
(`parent_commit`), so any attempt can be repeated: what is uploaded already is not sent again, and
nothing is committed twice.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unswayed import __version__
from unswayed.core.cards import CARD
from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.publish.local import SPACE, Local, check_id, read_folder
from unswayed.publish.metadata import merged_card, metadata

MESSAGE = "Publish with unswayed"
PAUSES = (1, 3)  # seconds before the second and the third attempt
LENGTH = 200  # of what is quoted of an error, in characters
PASSING = (409, 412, 500, 502, 503, 504)  # statuses that another attempt may not meet
AGAIN = "run the same command again; nothing is uploaded or committed twice"
NO_XET = "; with HF_HUB_DISABLE_XET=1 if this server does not know Xet storage"
ADVICE = {
    400: "mend what it names",
    401: "the token is wrong or has expired; log in with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there; ask for write access, use a token that may write, or "
    "give another --repo_id",
    404: "there is no such repository or owner for this token; see --repo_id",
    409: f"others are changing it; {AGAIN}",
    412: f"others are changing it; {AGAIN}",
    413: "a file is larger than the Hub takes",
    429: f"these were too many requests; wait, then {AGAIN}",
}

log = logging.getLogger(__name__)


def publish(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    message: str = MESSAGE,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Put a dataset tree or a model into a repository of its kind, made if there is none.

    Args:
        repo_id: OWNER/NAME.
        private: of a new repository; the visibility of one that exists is never changed.
        message: of the commit.
        license, base_model: as in `read_folder`.

    Returns:
        The commit's URL; the latest commit's if there was nothing to change.

    Raises:
        InputError: no dataset tree and no model, no token, or the Hub refuses or cannot be
            reached; the repository's content is then as it was.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    local = read_folder(folder, license, base_model)
    check_id(repo_id, f"--repo_id {repo_id} is no id of a repository on the Hub, OWNER/NAME")
    if not message.strip():
        raise InputError("--message is empty; a commit needs one, or leave the option out")
    token = _token()
    api = HfApi(token=token, library_name="unswayed", library_version=__version__)
    for pause in (*PAUSES, None):
        try:
            with _discreet():
                return _attempt(api, local, repo_id, private, message)
        except InputError:
            raise
        except OfflineModeIsEnabled:
            raise InputError(
                "HF_HUB_OFFLINE is set, so nothing can be published: unset it"
            ) from None
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            if getattr(error, "filename", None):  # a local file that cannot be read
                raise
            what, advice, passing = _explain(_cause(error), repo_id, api.endpoint)
            what = what.replace(token, "<token>")
            if pause is None or not passing:
                raise InputError(f"{what}: {advice}") from None
            log.info("%s: trying again in %d s", what, pause)
            time.sleep(pause)


def _attempt(api: Any, local: Local, repo_id: str, private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    where = {"repo_id": repo_id, "repo_type": local.kind}
    sdk = {"space_sdk": "gradio"} if local.kind == SPACE else {}
    api.create_repo(**where, **sdk, private=private, exist_ok=True)
    info = api.repo_info(**where)
    if private and not info.private:
        log.warning("%s is public, and stays so", repo_id)
    there = api.list_repo_files(**where, revision=info.sha)
    remote = {}
    if CARD in there:
        with tempfile.TemporaryDirectory() as scratch:
            card = api.hf_hub_download(**where, filename=CARD, revision=info.sha, local_dir=scratch)
            remote = metadata(read_text(Path(card)), f"the card of {repo_id}")
    card = merged_card(local.card, remote).encode()
    operations = [
        *(CommitOperationAdd(*entry) for entry in {CARD: card, **local.files}.items()),
        *(CommitOperationDelete(p, is_folder=False) for p in local.stale(remote, there, repo_id)),
    ]
    return api.create_commit(
        **where, operations=operations, commit_message=message, parent_commit=info.sha
    ).commit_url


# -- the Hub -------------------------------------------------------------------------------------


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError(
            "no token for the Hub: log in with `hf auth login`, or set HF_TOKEN to a token that "
            "may write"
        )
    if not re.fullmatch(r"[!-~]+", token):  # else the HTTP client's error would show it
        raise InputError(
            "the token for the Hub holds characters that no token has: log in again with `hf auth "
            "login`, or mend HF_TOKEN"
        )
    return token


class _Relay(logging.Handler):
    """Takes over huggingface_hub's messages, without the queries of addresses: these are signed."""

    def emit(self, record: logging.LogRecord) -> None:
        log.info("%s", re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", record.getMessage()))


@contextmanager
def _discreet() -> Iterator[None]:
    """huggingface_hub's messages and warnings as ours, a line each; bars in a terminal only."""
    from huggingface_hub import utils

    library = logging.getLogger("huggingface_hub")
    handlers, propagate = library.handlers, library.propagate
    library.handlers, library.propagate = [_Relay()], False
    no_bars = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    if no_bars:
        utils.disable_progress_bars()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
        for warning in caught:
            log.warning("%s", " ".join(str(warning.message).split()))
    finally:
        library.handlers, library.propagate = handlers, propagate
        if no_bars:
            utils.enable_progress_bars()


def _cause(error: BaseException) -> BaseException:
    """What went wrong: huggingface_hub wraps it where it uploads, and where it reads the card."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _explain(error: BaseException, repo_id: str, endpoint: str) -> tuple[str, str, bool]:
    """What happened, in one line and without addresses, which may be signed; what to do; and
    whether another attempt may not meet it."""
    from httpx2 import TransportError

    if isinstance(error, TransportError | ConnectionError):  # the latter from hf_xet
        what = f"no lasting connection to {endpoint} ({_line(str(error))})"
        return what, AGAIN + (NO_XET if isinstance(error, ConnectionError) else ""), True
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return f"publishing to {repo_id} failed ({_line(str(error))})", AGAIN, False
    words = getattr(error, "server_message", None) or error.response.reason_phrase
    what = f"{endpoint} answers {status} ({_line(words)}) for {repo_id}"
    return what, ADVICE.get(status, AGAIN), status in PASSING


def _line(text: str) -> str:
    text = " ".join(re.sub(r"https?://\S+", "", text).split())
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"
