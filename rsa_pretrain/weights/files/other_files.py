"""Recognise files mistaken for checkpoints."""

_WHITE_SPACE = b" \t\r\n\xef\xbb\xbf"
_TAR = slice(257, 262)
_STARTS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file it points to (git lfs pull)",
    b"<": "a web page; download the file itself",
    b"{": "JSON text, a configuration or an index of other files; name the file with the weights",
    b"\x89HDF": "an HDF5 file, as Keras writes; expected PyTorch weights",
    b"\x93NUMPY": "one numpy array; expected a checkpoint with named tensors",
    b"GGUF": "a GGUF file of quantised weights; expected a PyTorch checkpoint",
    b"\x08": "an ONNX or TensorFlow file; save the state_dict() of its PyTorch network",
}


def what_else(start: bytes) -> str:
    """Identify a file that is not a checkpoint by its first bytes, with what to do."""
    if start[_TAR] == b"ustar":
        return (
            "a tar archive; unpack it first (if in PyTorch's format before 0.2, load it with torch "
            "and save its state_dict() again)"
        )
    text = start.lstrip(_WHITE_SPACE)
    for magic, what in _STARTS.items():
        if start.startswith(magic) or text.startswith(magic):
            return what
    return (
        f"not a checkpoint (it starts with {start[:8].hex(' ')}); expected a file of torch.save, "
        "safetensors, or a pickle of numpy arrays"
    )
