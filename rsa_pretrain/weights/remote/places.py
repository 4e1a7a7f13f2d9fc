"""Turn a CHECKPOINT into a path on disk; one at an address is downloaded."""

from pathlib import Path

from rsa_pretrain.plumbing.user_paths import ZOO, is_address, user_path


def local_weights(place: str | Path) -> Path:
    """Return the path of a checkpoint; one at an address is downloaded at its first use.

    Args:
        place: A path, ``zoo:NAME``, or ``hf://USER/NAME[@REVISION]``.

    Raises:
        UserError: If nothing is published under the address, or it cannot be downloaded.
    """
    if not is_address(place):
        return user_path(place)
    address = str(place)
    if address.startswith(ZOO):
        from rsa_pretrain.weights.remote.zoo import published_weights

        return published_weights(address.removeprefix(ZOO))
    from rsa_pretrain.weights.remote.hub import pull

    return pull(address).file
