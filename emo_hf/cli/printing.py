"""How the commands say a line."""

from rich.console import Console


def print_plain(console: Console, text: str, end: str = "\n") -> None:
    """Prints `text` as it is: a path or a name may look like markup, and is copied in one piece."""
    console.print(text, end=end, soft_wrap=True, markup=False, highlight=False)
