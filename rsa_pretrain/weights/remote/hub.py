"""Pull weights from the Hugging Face hub, and push an export to it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.weights.checkpoint import BACKBONE_FILE, MODEL_FILE, file_sha256

CONFIG = "config.json"
_OPTIONAL = ("preprocessor_config.json",)
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PulledModel:
    """A model of the hub in the hub's own cache."""

    repository: str
    """USER/NAME."""
    file: Path
    """Its weights: ``backbone.safetensors`` of this toolkit, or another library's file."""

    @property
    def is_own(self) -> bool:
        """Return whether the weights are in this toolkit's format."""
        return self.file.name == BACKBONE_FILE

    @property
    def timm_architecture(self) -> str | None:
        """Name of the network in timm, if it is a model of timm."""
        try:
            config = parse_json((self.file.parent / CONFIG).read_bytes())
        except ValueError:
            return None
        found = config.get("architecture") if isinstance(config, dict) else None
        return found if isinstance(found, str) else None

    @property
    def address(self) -> str:
        """Its address with the commit that was pulled."""
        return f"hf://{self.repository}@{self.file.parent.name}"


def pull(address: str) -> PulledModel:
    """Download a model from the hub, or take it from the hub's cache.

    Args:
        address: ``hf://USER/NAME[@REVISION]``, of a branch, a tag or a commit.

    Raises:
        UserError: If the address is malformed, the hub refuses or cannot be reached, the model has
            no weights in safetensors, or a file's SHA-256 is not the one that the hub states.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UserError(f"'{address}' is not of the form hf://USER/NAME[@REVISION]")
    repository, revision = parts.groups()
    hub = import_extra("huggingface_hub", address)

    def get(name: str, revision: str | None = revision) -> Path | None:
        with _explained(address):
            try:
                found = hub.hf_hub_download(repository, name, revision=revision)
            except hub.errors.LocalEntryNotFoundError:
                raise
            except hub.errors.EntryNotFoundError:
                return None
        return _verified(Path(found))

    file = get(BACKBONE_FILE)
    if file is None:
        file = get(MODEL_FILE)
        commit = None if file is None else file.parent.name  # the branch may move meanwhile
        if file is None or get(CONFIG, commit) is None:
            raise UserError(
                f"{address} has neither {BACKBONE_FILE} nor {MODEL_FILE} with {CONFIG}; expected "
                "an export of this toolkit, or a model of transformers or timm"
            )
        for name in _OPTIONAL:
            get(name, commit)
    return PulledModel(repository, file)


def check_repository(repository: str) -> None:
    """Refuse a name that no repository of the hub can have, and a missing library.

    Raises:
        UserError: If it is not USER/NAME.
    """
    if _REPOSITORY.fullmatch(repository) is None:
        raise UserError(f"'{repository}' is not of the form USER/NAME")
    import_extra("huggingface_hub", f"--push {repository}")


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a folder to the hub as one commit; create the repository if there is none.

    Args:
        folder: Its files.
        repository: USER/NAME.
        private: Whether a new repository is visible to its owner alone.

    Returns:
        Address of the commit.

    Raises:
        UserError: If the hub refuses or cannot be reached.
    """
    hub = import_extra("huggingface_hub", repository)
    with _explained(repository):
        interface = hub.HfApi()
        interface.create_repo(repository, private=private, exist_ok=True)
        done = interface.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Export by rsa-pretrain"
        )
    return str(done.commit_url)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the library's errors into one line."""
    errors = import_module("huggingface_hub.errors")
    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"{what}: its owner gives access on request; ask on its page, then run hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{what}: the hub has no such repository that you may see; check the name, or run hf "
            "auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{what}: the repository has no such revision") from None
    # RuntimeError: some versions ask once more by the client that a broken connection closed.
    except (errors.LocalEntryNotFoundError, RuntimeError):
        raise UserError(
            f"{what}: the hub cannot be reached, and its cache on this machine lacks the model"
        ) from None
    # The library's errors derive from those of its HTTP client, which pass through it as well.
    except (*errors.HfHubHTTPError.__bases__, OSError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UserError(f"{what}: {line} (to log in, run hf auth login)") from None


def _verified(path: Path) -> Path:
    """Compare a large file with the hash that the hub states, which names it in the cache."""
    stated = path.resolve().name
    if _SHA256.fullmatch(stated) and file_sha256(path) != stated:
        raise UserError(
            f"'{path}' is damaged: its SHA-256 is not the {stated} that the hub states; delete "
            f"'{path.resolve()}' and rerun the command"
        )
    return path
