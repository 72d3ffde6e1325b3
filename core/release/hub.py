"""Releases to and from the Hugging Face Hub; whatever goes wrong there is said in plain words."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .default import SENTENCE_FOLDER
from .manifest import (
    BACKBONE,
    CARD,
    CONFIG,
    RECORDS,
    backbone_directory,
    is_config,
    read_config,
    verify,
    weight_files,
    with_list,
)

# All that the client raises: it wraps failed uploads in RuntimeErrors, and the HTTP library's own errors, whichever
# library that is, share a base with the client's.
_FAILURES = (RuntimeError, OSError, *HfHubHTTPError.__bases__)
_LOG_IN = "set HF_TOKEN, or run `hf auth login`"


class HubError(ValueError):
    """The Hub refused, or could not be reached. The message names the repository and says what to do."""


def parse_repo(text: str) -> tuple[str, str | None]:
    """`user/repo` or `user/repo@revision` to (repository, revision or None).

    Raises:
        ValueError: it has neither form, or names the project's folder of releases.
    """
    repo, at, revision = text.partition("@")
    if repo.startswith(f"{SENTENCE_FOLDER.parts[0]}/"):  # whoever registered that name would decide what is loaded
        raise ValueError(
            f"{text!r} would be a directory in a checkout, and is not sought on the Hub; "
            "the shipped release is the default, from any folder"
        )
    try:
        validate_repo_id(repo)
        if repo.count("/") != 1 or (at and not re.fullmatch(r"[\w.\-/]+", revision)):
            raise HFValidationError
    except HFValidationError:
        raise ValueError(f"{text!r} is not a Hub repository; it has the form USER/REPO or USER/REPO@REVISION") from None
    return repo, revision or None


def pull(repo: str, revision: str | None = None) -> Path:
    """Directory of a release from the Hub: downloaded once, then from the cache, and offline from the cache alone.

    Args:
        repo: `user/repo`, or `user/repo@revision`.
        revision: a branch, tag or commit (default: main).

    Raises:
        ValueError: no name of a repository, a revision given twice, or a `HubError`: repository or revision missing,
            private, token refused, no network and not in the cache, connection lost.
    """
    repo, own = parse_repo(repo)
    if own and revision and own != revision:
        raise ValueError(f"two revisions for {repo!r}: {own!r} and {revision!r}")
    revision = own or revision
    with _plain_words(repo, revision):
        return Path(snapshot_download(repo, revision=revision))


def contents(directory: Path, card: str) -> dict[str, Path | bytes]:
    """What a repository of this release holds: by path, a file here, or bytes made for the Hub.

    These are weights, backbone, records, `card`, and a config.json that lists the files with their digests, so that a
    loader can tell whether it has them all, as they were. Nothing else that lies in the directory: resume states,
    temporary files, notes.

    Raises:
        ValueError: not a release, one whose backbone is not here, or whose files are not what its config.json lists.
    """
    config = read_config(directory)
    weights = weight_files(directory, config)
    verify(directory, config, weights)
    if backbone_directory(directory, config) is not None:
        config["backbone"] = BACKBONE
    elif config["backbone"].startswith("local-dir:"):
        raise ValueError(f"{directory}: its backbone {config['backbone']!r} is not here, and belongs to the release")
    run = config.get("run") or {}
    if places := {key: Path(run[key]).name for key in ("data", "start") if run.get(key)}:
        config["run"] = run | places  # where they lie on this machine is nobody else's business
    config = with_list(config, weights)
    made = {CONFIG: (json.dumps(config, indent=1, allow_nan=False) + "\n").encode(), CARD: card.encode()}
    records = {RECORDS: directory / RECORDS} if (directory / RECORDS).is_file() else {}
    return {**made, **records, **weights}


def check_token() -> str:
    """Name of the user whose token is in use; a `HubError` without a token, or with one that the Hub refuses."""
    with _plain_words("", None):
        return HfApi().whoami()["name"]


def push(
    files: dict[str, Path | bytes],
    repo: str,
    *,
    revision: str | None = None,
    private: bool = False,
    replace: bool = False,
) -> str:
    """Make a model repository hold exactly these files, as one commit; returns the commit's address.

    Creates the repository and the branch `revision` where needed. What else the repository holds is deleted: one that
    is no release of this project yet, but has files, is left alone, unless `replace`. Readers see
    the old release or the new one, never a mixture; after an interruption, large files that arrived are not sent again.

    Raises:
        ValueError: no name of a repository, or a `HubError`: token missing, refused or without the right to write, the
            repository is public and should be private, or holds something else; connection lost.
    """
    repo, _ = parse_repo(repo)
    api = HfApi()
    with _plain_words(repo, revision):
        api.whoami()
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise HubError(f"Hub repository {repo!r} is public; make it private in its settings, or choose another")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        there = set(api.list_repo_files(repo, revision=revision)) - {".gitattributes", CARD}
        stale = there - files.keys()
        if there and not replace and not (CONFIG in there and _is_release(api, repo, revision)):
            raise HubError(
                f"Hub repository {repo!r} holds {len(there)} files that are no release of ours, such as "
                f"{min(stale or there)!r}, and pushing would delete or replace them; choose another repository, or "
                "pass --replace"
            )
        operations = [
            *(CommitOperationDelete(path) for path in sorted(stale)),
            *(CommitOperationAdd(path, file) for path, file in files.items()),
        ]
        return api.create_commit(repo, operations, commit_message="Upload weights", revision=revision).commit_url


def _is_release(api: HfApi, repo: str, revision: str | None) -> bool:
    """Whether a repository's config.json is one of this project's: other libraries' models have a file so called."""
    try:
        config = json.loads(Path(api.hf_hub_download(repo, CONFIG, revision=revision)).read_text(encoding="utf-8"))
    except ValueError:
        return False
    return is_config(config)


@contextlib.contextmanager
def _plain_words(repo: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except HubError:
        raise
    except _FAILURES as error:
        raise HubError(_explain(error, repo, revision)) from error


def _explain(error: BaseException, repo: str, revision: str | None) -> str:
    chain = list(_causes(error))
    status = next(
        (e.response.status_code for e in chain if isinstance(e, HfHubHTTPError) and e.response is not None), None
    )
    where = f"Hub repository {repo!r}" if repo else "the Hub"
    if isinstance(error, LocalTokenNotFoundError):
        return f"no token for the Hub: {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"{where} has no revision {revision!r}: a branch, tag or commit that it has is needed"
    if isinstance(error, GatedRepoError):
        return f"{where} gives access on request only: ask for it on its page, and {_LOG_IN}"
    if status == 401 and get_token() is not None:  # also what a missing repository answers, but only without a token
        return f"the Hub does not accept your token{f' (for {repo!r})' if repo else ''}: {_LOG_IN} with a valid one"
    if status == 401:
        return f"{where} does not exist, or is private and needs a token: check the name, or {_LOG_IN}"
    if status == 403:
        return f"your token may not do this to {where}: it needs the right to write there ({error})"
    if status == 404:
        return f"{where} does not exist, or is private and not open to your token: check the name and the token"
    if isinstance(error, LocalEntryNotFoundError) and status is None:
        offline = any(isinstance(e, OfflineModeIsEnabled) for e in chain)
        why = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} cannot be reached"
        return (
            f"{where} is not, or not whole, in the cache {constants.HF_HUB_CACHE}, and {why}: connect once to fill it"
        )
    if status is not None:
        return f"{where}: {constants.ENDPOINT} answered {status} ({error})"
    return (
        f"{where}: the connection to {constants.ENDPOINT} failed ({type(chain[-1]).__name__}: {chain[-1]}). Try again; "
        "whole files that arrived are kept"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
