"""Names that a checkpoint has no use for and an attack has.

Nothing that a file names is ever run, so this guards nothing: it tells a user that somebody meant
to run code on whoever opens the file.
"""

from collections.abc import Iterable

from rsa_pretrain.foreign.stand_in import Name

_PROCESSES = ("os", "posix", "nt", "subprocess", "_posixsubprocess", "multiprocessing", "pty")
_PROCESSES_OF_PYTHON_2 = ("popen2", "commands", "imp", "urllib2", "httplib", "cPickle")
_CODE = ("sys", "importlib", "runpy", "code", "codeop", "ctypes", "_ctypes", "zipimport", "pkgutil")
_CODE_RUNNERS = ("pdb", "bdb", "timeit", "cProfile", "profile", "pip", "setuptools", "asyncio")
_PICKLES = ("pickle", "_pickle", "marshal")
_FILES = ("io", "_io", "shutil", "tempfile")
_NETWORK = ("socket", "urllib", "requests", "http", "ftplib", "smtplib", "webbrowser")
_MODULES = frozenset(
    _PROCESSES + _PROCESSES_OF_PYTHON_2 + _CODE + _CODE_RUNNERS + _PICKLES + _FILES + _NETWORK
)
_HARMLESS = frozenset({"io.BytesIO", "_io.BytesIO", "io.StringIO", "_io.StringIO"})
_RUNNING_CODE = ("eval", "exec", "execfile", "compile", "__import__", "reload", "apply")
_REACHING_OUT = ("open", "file", "input", "raw_input", "breakpoint", "globals", "locals")
_BUILTINS = frozenset(_RUNNING_CODE + _REACHING_OUT)
_FUNCTIONS = (
    "torch.load",
    "torch.hub",
    "torch.jit.load",
    "torch.ops.load_library",
    "torch.package",
    "torch.serialization.load",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
    "numpy.load",
    "numpy.f2py",
    "numpy.testing",
    "numpy.distutils",
)


def dangerous(names: Iterable[Name]) -> tuple[str, ...]:
    """Return which of the names run commands or code, or open files and connections."""
    return tuple(str(name) for name in names if _is_dangerous(name))


def _is_dangerous(name: Name) -> bool:
    # An attribute may be reached through any module that imports it: torch.serialization.os.system.
    parts = name.qualified.split(".")
    return _does_harm(str(name)) or any(
        _does_harm(".".join(parts[start:])) for start in range(len(parts) - 1)
    )


def _does_harm(name: str) -> bool:
    module, _, rest = name.partition(".")
    return (
        (module in _MODULES and name not in _HARMLESS)
        or (module in ("builtins", "__builtin__") and rest in _BUILTINS)
        or any(name == harm or name.startswith(f"{harm}.") for harm in _FUNCTIONS)
    )
