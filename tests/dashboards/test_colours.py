"""One colour for each optimizer, whatever else is in the picture."""

from emo_hf import registry
from emo_hf.dashboards.colours import COOL, OWN, PALETTE, WARM, assign


def test_an_optimizer_has_its_colour_in_every_picture() -> None:
    for others in ([], ["emofree", "lion"], ["adamw_torch", "unknown"]):
        *_, sens, adamw = assign([*others, "emosens-3.9", "adamw"])
        assert sens == OWN["emosens"]
        assert (adamw == OWN["adamw"]) == ("adamw_torch" not in others)


def test_no_two_lines_are_alike_and_what_one_owns_no_other_gets() -> None:
    many = ["emosens"] * 30 + ["emocats", "adamw", "sgd-momentum", "unheard-of"]
    given = assign(many)
    assert len(set(given)) == len(many)
    assert given[30:33] == [OWN["emocats"], OWN["adamw"], OWN["sgd"]]
    assert not {OWN["emocats"], OWN["adamw"], OWN["sgd"]} & {*given[:30]}


def test_every_optimizer_of_ours_owns_a_warm_colour_and_every_colour_has_its_place() -> None:
    assert {spec.name for spec in registry.SPECS} <= OWN.keys()
    assert sorted((*WARM, *COOL)) == list(range(len(PALETTE)))
    assert len(set(OWN.values())) == len(OWN)
    assert all((place in WARM) == name.startswith("emo") for name, place in OWN.items())
