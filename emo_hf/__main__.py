"""``python -m emo_hf``: the same as the command ``emo-hf``."""

import sys

from emo_hf.cli import main

if __name__ == "__main__":
    sys.exit(main())
