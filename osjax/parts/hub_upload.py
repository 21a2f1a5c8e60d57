"""A folder of weights to a repository of Hugging Face, through `huggingface_hub`, an extra: private unless asked.

The repository is looked at before anything is converted, so that a token that may not write says so at once.
"""

import os
from pathlib import Path
from typing import Any

from osjax.errors import UserError
from osjax.parts import hub

MARK = "osjax.json"  # in repositories that osjax wrote, which it may write anew
REPLACED = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "samples/*")
# What the server answers -> what it means, and what to do.
ANSWERS = {
    401: "the token is not known there: `hf auth login`, or set HF_TOKEN",
    403: "the token may not do this: make one that may write at https://huggingface.co/settings/tokens",
    404: "it is not there, or the token may not see it: check the name",
    429: "too many requests: wait, and run the same command again",
}


def begin(path: str, public: bool) -> str:
    """The repository OWNER/NAME of an `hf://` path, made where it is not there yet, after a look at what it holds.

    public: whether everybody may see it. UserError, status 2, for a path that is no repository, without a token, where
    it holds what osjax did not write, and where it is public unasked; status 1 for what the server refuses.
    """
    match = hub.PATH.fullmatch(path)
    if match is None or match["inside"] or match["revision"]:
        raise UserError(f"{path} is no hf://OWNER/NAME, a repository to upload to", status=2)
    name, api = match["repository"], _api(path)
    try:
        if not api.repo_exists(name):
            api.create_repo(name, private=not public)
        about = api.model_info(name)
        files = {str(file.rfilename) for file in about.siblings or ()} - {".gitattributes"}
    except Exception as error:  # of the library and of its HTTP client: their kinds differ by version
        raise _refused(path, error) from error
    if files - {"README.md"} and MARK not in files:
        raise UserError(f"{path} holds files of another program, {min(files)} say: name another repository", status=2)
    if not (public or about.private):
        raise UserError(f"{path} is public, for everybody to see: add --public to upload to it", status=2)
    return name


def upload(path: str, name: str, folder: Path) -> str:
    """Upload all files of a folder as one commit, instead of the weights and samples that were there; the commit.

    path: as the user named it. name: of the repository. UserError for what the server refuses.
    """
    try:
        done = _api(path).upload_folder(
            repo_id=name, folder_path=folder, commit_message="Uploaded by osjax", delete_patterns=list(REPLACED)
        )
    except Exception as error:  # see `begin`
        raise _refused(path, error) from error
    return str(done.oid)


def _api(path: str) -> Any:
    library = hub.library()
    if not library.get_token():
        raise UserError(f"{path} needs a token that may write: `hf auth login`, or set HF_TOKEN", status=2)
    return library.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _refused(path: str, error: BaseException) -> UserError:
    """What a failed request means, in one line."""
    told: BaseException | None = error
    while told is not None and getattr(told, "response", None) is None:  # an upload in a thread wraps its error
        told = told.__cause__
    status = getattr(getattr(told, "response", None), "status_code", None)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if status is None:
        return UserError(f"{path} cannot be reached ({reason}): check the network, and run the same command again")
    mend = ANSWERS.get(status, "run the same command again later" if status >= 500 else "see what it says")
    return UserError(f"{path} is not written, the server answers {status} ({reason}): {mend}")
