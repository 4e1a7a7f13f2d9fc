"""List the names that only a malicious checkpoint refers to.

Nothing that a file names is ever run: the list only tells users that the file was made to run code
when opened.
"""

from collections.abc import Iterable

from rsa_pretrain.weights.files.stand_in import Name

_PROCESSES = ("os", "posix", "nt", "subprocess", "_posixsubprocess", "pty", "popen2", "commands")
_CODE = ("sys", "imp", "runpy", "code", "codeop", "ctypes", "_ctypes", "zipimport", "pkgutil")
_CODE_RUNNERS = ("pdb", "bdb", "timeit", "cProfile", "profile", "pip", "setuptools")
_PICKLES = ("pickle", "_pickle", "cPickle", "marshal")
_FILES = ("io", "_io", "shutil", "tempfile")
_NETWORK = ("socket", "urllib2", "requests", "httplib", "ftplib", "smtplib", "webbrowser")
# Only the modules themselves: a project may well have a package called code.
_MODULES = frozenset(_PROCESSES + _CODE + _CODE_RUNNERS + _PICKLES + _FILES + _NETWORK)
_HARMLESS = frozenset({"io.BytesIO", "_io.BytesIO", "io.StringIO", "_io.StringIO"})
_RUNNING_CODE = ("eval", "exec", "execfile", "compile", "__import__", "reload", "apply")
_REACHING_OUT = ("open", "file", "input", "raw_input", "breakpoint", "globals", "locals")
_BUILTINS = frozenset(_RUNNING_CODE + _REACHING_OUT)
# These, and everything in them.
_PLACES = (
    "asyncio",
    "http",
    "importlib",
    "multiprocessing",
    "urllib",
    "numpy.load",
    "numpy.f2py",
    "numpy.testing",
    "numpy.distutils",
    "torch.load",
    "torch.hub",
    "torch.jit.load",
    "torch.ops.load_library",
    "torch.package",
    "torch.serialization.load",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
)


def dangerous(names: Iterable[Name]) -> tuple[str, ...]:
    """Return the names that run commands or code, or open files and connections."""
    return tuple(str(name) for name in names if _is_dangerous(name))


def _is_dangerous(name: Name) -> bool:
    # An attribute may be reached through any module that imports it: torch.serialization.os.system.
    parts = name.qualified.split(".")
    reached = [(part, ".".join(parts[number:])) for number, part in enumerate(parts[:-1], start=1)]
    return any(
        _does_harm(module, inside) for module, inside in [(name.module, name.qualified), *reached]
    )


def _does_harm(module: str, qualified: str) -> bool:
    name = f"{module}.{qualified}"
    if module in ("builtins", "__builtin__"):
        return qualified.partition(".")[0] in _BUILTINS
    return (module in _MODULES and name not in _HARMLESS) or any(
        f"{name}.".startswith(f"{place}.") for place in _PLACES
    )
