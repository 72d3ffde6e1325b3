"""Pushing a release directory to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi


def push(
    directory: Path | str, repo: str, *, revision: str | None = None, private: bool = False, token: str | None = None
) -> str:
    """Create the model repository if needed, upload the directory as one commit; returns the commit's address.

    Raises:
        ValueError: the directory is not a release.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise ValueError(f"{directory} has no config.json; it is not a release of this project")
    api = HfApi(token=token)
    api.create_repo(repo, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)
    info = api.upload_folder(
        repo_id=repo,
        folder_path=directory,
        revision=revision,
        commit_message="Upload weights",
        ignore_patterns=["*.tmp"],
    )
    return info.commit_url
