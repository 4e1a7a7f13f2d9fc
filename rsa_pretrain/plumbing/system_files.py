"""Recognise files that operating systems, archivers and storage devices leave behind."""

# In addition to hidden names, which begin with a dot.
_SYSTEM_NAMES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
        "__macosx",
        "paxheader",
        "paxheaders",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)


def is_system(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or a system's."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES
