"""Download a published checkpoint, verify it, and import it with its provenance."""

import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rsa_pretrain.plumbing.download import download, downloads_into
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import refuse_input
from rsa_pretrain.weights.checkpoint import LoadedBackbone, save_tensors
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights
from rsa_pretrain.weights.foreign.recognise import AUTO
from rsa_pretrain.weights.metadata import PublishedPlace
from rsa_pretrain.weights.remote.cache_folder import cache_folder
from rsa_pretrain.weights.remote.registry import PublishedCheckpoint, find_published

_FOLDER = "zoo"
_DOWNLOADS = "downloads"


def kept_place(checkpoint: PublishedCheckpoint) -> Path:
    """Return the file that ``zoo:NAME`` stands for."""
    return cache_folder() / _FOLDER / f"{checkpoint.name}.safetensors"


def published_weights(name: str) -> Path:
    """Return the file of a published checkpoint, downloaded and imported at its first use.

    Raises:
        UserError: As ``get_published``, or if there is no checkpoint of that name.
    """
    checkpoint = find_published(name)
    place = kept_place(checkpoint)
    if not place.is_file():
        get_published(checkpoint, place)
    return place


def get_published(
    checkpoint: PublishedCheckpoint,
    out: Path,
    *,
    url: str | None = None,
    file: Path | None = None,
    keep: bool = False,
) -> LoadedBackbone:
    """Download a published checkpoint, verify it, and write its backbone in this toolkit's format.

    The file is received in the cache folder, where rerunning resumes it, and removed once its
    backbone is written.

    Args:
        checkpoint: What to get.
        out: File to write; must end in ``.safetensors``.
        url: Mirror to use instead of the published address.
        file: The published file, if it has been downloaded already; it is not removed.
        keep: Keep the published file in the cache folder.

    Returns:
        The backbone, as it was imported.

    Raises:
        UserError: If it cannot be downloaded, its checksum differs, or it is not the network that
            the registry names; if ``out`` is ``file``.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"'{out}' should end in .safetensors")
    if file is not None:
        refuse_input(out, file)
        _check(checkpoint, file)
        return _import(checkpoint, file, url or checkpoint.url or str(checkpoint.by_hand), out)
    address = url or checkpoint.url
    if address is None:
        raise UserError(
            f"{checkpoint.name} is published where only a browser can get it; download "
            f"{checkpoint.file_name or 'it'} from {checkpoint.by_hand} and run "
            f"rsa-pretrain zoo get {checkpoint.name} --file FILE"
        )
    folder = cache_folder() / _FOLDER / _DOWNLOADS / checkpoint.name
    received = folder / _file_name(address, checkpoint.name)
    with downloads_into(folder):
        download(address, received, checkpoint.known_checksum, _mirror_of(checkpoint, address))
        loaded = _import(checkpoint, received, address, out)
        if not keep:
            shutil.rmtree(folder)
    return loaded


def _import(checkpoint: PublishedCheckpoint, file: Path, address: str, out: Path) -> LoadedBackbone:
    options = ImportOptions(
        layout=checkpoint.layout or AUTO,
        network=checkpoint.network,
        method=checkpoint.method,
        data_set=checkpoint.data_set,
        pixels=Pixels(checkpoint.mean, checkpoint.std),
        cifar_stem=checkpoint.stem == "cifar",
        epochs=checkpoint.epochs,
        published=PublishedPlace(name=checkpoint.name, url=address, checksum=checkpoint.checksum),
    )
    loaded = import_weights(file, options)
    found = (loaded.metadata.arch, loaded.metadata.stem)
    if found != (checkpoint.arch, checkpoint.stem):
        raise UserError(
            f"{address} is a {found[0]} with the {found[1]} stem; expected {checkpoint.name} to be "
            f"a {checkpoint.arch} with the {checkpoint.stem} stem"
        )
    save_tensors(out, loaded.backbone.state_dict(), loaded.metadata)
    return loaded


def _check(checkpoint: PublishedCheckpoint, file: Path) -> None:
    if not file.is_file():
        raise UserError(f"'{file}' is not a file; expected the download of {checkpoint.name}")
    checksum = checkpoint.known_checksum
    if checksum is not None and checksum.of(file) != checksum.digits:
        raise UserError(
            f"'{file}' is not {checkpoint.name}: its {checksum} is {checksum.of(file)}, expected "
            f"{checksum.digits}"
        )


def _file_name(address: str, fallback: str) -> str:
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    return name if name not in ("", ".", "..") and "\0" not in name else fallback


def _mirror_of(checkpoint: PublishedCheckpoint, address: str) -> str:
    others = [one for one in checkpoint.mirrors if one != address]
    if others:
        return f"take its mirror with --url {others[0]}"
    return (
        f"ask for another address at {checkpoint.page}, as no mirror is known, and give it with "
        "--url"
    )
