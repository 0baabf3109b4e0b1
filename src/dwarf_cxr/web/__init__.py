"""The pages for clinicians: what the blind study and the review of radiographs share."""

from importlib.util import find_spec

from dwarf_cxr.errors import ConfigError

NEEDED = ("fastapi", "sqlmodel", "uvicorn", "python_multipart")


def require_web() -> None:
    """Say what is missing before anything is imported that needs it.

    Raises:
        ConfigError: a package of the extra `web` is not installed; names them all.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the pages need {', '.join(missing)}, not installed: pip install 'dwarf-cxr[web]'"
        )
