"""The command line is tested with the recipes and the data of the lab's tests."""

from tests.lab.conftest import data_folder, recipe, stand_in, trec_folder, write

__all__ = ["data_folder", "recipe", "stand_in", "trec_folder", "write"]
