"""How the commands say a line."""

from rich.console import Console


def print_plain(console: Console, text: str, end: str = "\n") -> None:
    """Prints `text` as it is, without markup or line breaks, so that paths can be copied."""
    console.print(text, end=end, soft_wrap=True, markup=False, highlight=False)
