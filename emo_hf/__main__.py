"""The command ``emo-hf``, also as ``python -m emo_hf``: `emo_hf.cli`, where the extra ``recipes`` is installed."""

import sys

from emo_hf import __version__
from emo_hf.errors import MissingExtraError
from emo_hf.extras import needing


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code, 2 if a package that it needs is not installed."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments == ["--version"]:  # at once: the subcommands import much
        sys.stdout.write(f"emo-hf {__version__}\n")
        return 0
    command = " ".join(["emo-hf", *arguments[:1]]) if arguments and arguments[0].isalpha() else "emo-hf"
    try:
        with needing(command):
            from emo_hf.cli import main as run

            return run(arguments)
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
