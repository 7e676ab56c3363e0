"""How this package is installed, said in one place: it isn't on PyPI yet."""


def install(extras: str) -> str:
    """Return what to type for these extras.

    >>> install("serve,demo")
    "pip install '.[serve,demo]'  # in a clone of sqs-codec"
    """
    return f"pip install '.[{extras}]'  # in a clone of sqs-codec"


def needs(module: str, error: ModuleNotFoundError, extras: str) -> ImportError:
    """Return what to raise where a module of this package lacks another one."""
    package = (error.name or "").partition(".")[0]
    return ImportError(f"{module} needs {package}: {install(extras)}")
