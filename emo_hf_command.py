"""The command ``emo-hf``. It tells the version by itself, as importing emo_hf loads torch."""

import sys
from importlib.metadata import version


def main() -> int:
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"emo-hf {version('emo-hf')}\n")
        return 0
    from emo_hf import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
