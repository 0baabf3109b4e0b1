"""Options of the commands that serve pages, or print links to them."""

from typing import Annotated, Optional

import typer

HostOption = Annotated[
    str,
    typer.Option(
        help="Address that the pages are bound to; others than this machine's own are warned of."
    ),
]
PortOption = Annotated[
    int, typer.Option(min=1, max=65535, help="Port that the pages are bound to.")
]
AllowHostOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--allow-host", metavar="NAME", help="A name that readers open the pages under; repeatable."
    ),
]
