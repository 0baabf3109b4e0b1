"""Methods: one file each, saying in plain sight what the method is made of."""

from dwarf_cxr.config import MethodSettings
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.methods import (
    class_attention,
    classifier,
    clip,
    devide,
    direct,
    dwarf,
    dwarf_prior,
    gain,
    gain_am,
    ham,
    kad,
    report_attention,
    retinanet,
)
from dwarf_cxr.methods.method import Method

METHODS: tuple[Method, ...] = (
    dwarf.METHOD,
    dwarf_prior.METHOD,
    classifier.METHOD,
    gain.METHOD,
    gain_am.METHOD,
    direct.METHOD,
    kad.METHOD,
    devide.METHOD,
    clip.METHOD,
    class_attention.METHOD,
    ham.METHOD,
    retinanet.METHOD,
    report_attention.METHOD,
)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: unknown; lists the known ones.
    """
    for method in METHODS:
        if method.name == name:
            return method
    known = ", ".join(method.name for method in METHODS)
    raise ConfigError(f"unknown method {name!r}; known: {known}")


__all__ = ["METHODS", "Method", "MethodSettings", "find_method"]
