"""Numbers of things, in words."""


def count(number: int, thing: str) -> str:
    """How many of a thing: "1 film", "2 films"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
