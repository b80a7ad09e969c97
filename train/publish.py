"""Publishes weights, each with its card, and the Space to the Hugging Face Hub.

    python train/publish.py model fer_cbam.fer2013 [--repo OWNER/NAME]
    python train/publish.py model --all [--repo OWNER]
    python train/publish.py space [--repo OWNER/NAME]

What goes up is first written to runs/publish/NAME; --dry-run stops there and says what would change. All
files of a repository go up in one commit: it has all of them or none, and what is there already is not sent
again. The token is read from HF_TOKEN or from `hf auth login`; HF_ENDPOINT names another Hub.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.sha import git_hash

from fer_zoo.errors import reason
from fer_zoo.models import WEIGHTS_DIR
from fer_zoo.models._base import HUB_ORG
from train.cli import create_parser, run
from train.evaluate import packaged
from train.files import sha256
from train.hub_folder import write_model, write_space

OUT_DIR = Path("runs/publish")


def changes(api: HfApi, folder: Path, repo: str, repo_type: str, revision: str | None) -> dict[str, str]:
    """What pushing `folder` would do to each file: path -> "new", "changed" or "deleted".

    A model's repository keeps files of others, a Space is exactly its folder. A repository or revision that
    is not there is an empty one.
    """
    try:
        tree = list(api.list_repo_tree(repo, recursive=True, repo_type=repo_type, revision=revision))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        tree = []
    there = {file.path: file for file in tree if hasattr(file, "size")}
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if (old := there.pop(name, None)) is None:
            found[name] = "new"
        elif (old.lfs.sha256 != sha256(path)) if old.lfs else (old.blob_id != git_hash(path.read_bytes())):
            found[name] = "changed"
    if repo_type == "space":
        found |= {name: "deleted" for name in there if name != ".gitattributes"}
    return found


def push(api: HfApi, folder: Path, repo: str, repo_type: str, revision: str | None, private: bool) -> str:
    """Brings a repository, made where it is missing, to what `folder` holds; returns the commit's URL."""
    sdk = "gradio" if repo_type == "space" else None
    api.create_repo(repo, repo_type=repo_type, private=private or None, space_sdk=sdk, exist_ok=True)
    if revision:
        api.create_branch(repo, branch=revision, repo_type=repo_type, exist_ok=True)
    commit = api.upload_folder(
        folder_path=folder,
        repo_id=repo,
        repo_type=repo_type,
        revision=revision,
        delete_patterns="*" if repo_type == "space" else None,
        commit_message=f"Publish {folder.name}",
    )
    return commit.commit_url


def publish(api: HfApi, folder: Path, repo: str, repo_type: str, args: argparse.Namespace) -> None:
    """Says what would change in `repo`, and changes it unless that is all that was asked for.

    Raises:
        ValueError: The Hub refuses or cannot be reached; the message is one sentence.
    """
    try:
        found = changes(api, folder, repo, repo_type, args.revision)
        for name, change in found.items():
            print(f"{repo}: {change} {name}")
        if not found:
            print(f"{repo} is up to date")
        elif args.dry_run:
            print(f"{repo}: nothing was sent")
        else:
            print(f"published: {push(api, folder, repo, repo_type, args.revision, args.private)}")
    except (HTTPError, RuntimeError, ConnectionError) as error:  # a failed upload comes as RuntimeError
        raise ValueError(explain(error, repo)) from error


def explain(error: Exception, repo: str) -> str:
    """What went wrong on the Hub, and what to do, in one sentence."""
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    again = "nothing was published; the same command tries again"
    if not isinstance(cause, HfHubHTTPError):
        return f"{repo}: the Hub cannot be reached ({reason(cause)}): {again}"
    status = cause.response.status_code
    if status in (401, 403):
        return f"{repo}: the Hub does not let this token write there ({status}): set HF_TOKEN to one that may"
    if status == 404:
        return f"{repo}: the Hub does not find it ({status}): check the name and HF_TOKEN"
    if status == 429:
        return f"{repo}: the Hub has had too many requests ({status}): wait some minutes; {again}"
    if status >= 500:
        return f"{repo}: the Hub is at fault ({status}): {again}"
    return f"{repo}: the Hub refuses ({status}: {cause.server_message or 'it does not say why'})"


def repository(given: str | None, name: str) -> str:
    """`owner/name` where only the owner, or nothing, was given."""
    owner = given or HUB_ORG
    return owner if "/" in owner else f"{owner}/{name}"


def main() -> None:
    parser = create_parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    model = kinds.add_parser("model", help="weights and their card")
    model.add_argument("name", nargs="?", help="packaged weights, such as fer_cbam.paper")
    model.add_argument("--all", action="store_true", help="all packaged weights")
    space = kinds.add_parser("space", help="the web demo")
    for sub in (model, space):
        sub.add_argument("--repo", help=f"owner/name, or an owner alone (default: {HUB_ORG})")
        sub.add_argument("--revision", help="the branch, made where it is missing (default: main)")
        sub.add_argument("--private", action="store_true", help="if the repository is new, make it private")
        sub.add_argument("--dry-run", action="store_true", help="write the folder, send nothing")
    args = parser.parse_args()

    if args.kind == "space":
        names, repo_type = ["fer-zoo"], "space"
    else:
        if bool(args.name) == args.all:
            parser.error("name the weights, or give --all")
        if args.all and "/" in (args.repo or ""):
            parser.error("--all needs many repositories: give --repo an owner alone")
        ours = [path.stem for path in packaged(WEIGHTS_DIR)]
        if args.name and args.name not in ours:
            raise ValueError(
                f"no packaged weights {args.name!r}: there are {', '.join(ours)}; others go up by timm, as "
                "README says"
            )
        names = ours if args.all else [args.name]
        repo_type = "model"
    targets = {repository(args.repo, name): name for name in names}
    for repo, name in targets.items():  # all are written before the first is sent
        if args.kind == "space":
            write_space(OUT_DIR / name, repo)
        else:
            write_model(name, OUT_DIR / name, repo)
        print(f"written: {OUT_DIR / name}")
    api = HfApi(library_name="fer-zoo")
    for repo, name in targets.items():
        publish(api, OUT_DIR / name, repo, repo_type, args)


if __name__ == "__main__":
    run(main)
