"""The specs of the registry: every optimizer at every version, one row each.

A row is what a generation has in common, and what the family adds. `python -m scripts.families` makes the classes of
`emo_hf.families` from them.

Credit for all of `SPECS`: muooon (github.com/muooon/EmoNavi, github.com/muooon/EmoSens, Apache-2.0). `OWN` are ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from emo_hf import free, geometry, mechanism, quirks, shadow, updates
from emo_hf.errors import UnknownOptimizerError, did_you_mean
from emo_hf.mechanism import Mechanism
from emo_hf.spec import OptimizerSpec

DAMPED = "base learning rate, as for AdamW"
MULTIPLIER = "a multiplier, 1.0"


class Generation(NamedTuple):
    """What all optimizers of a version share."""

    mechanism: Mechanism
    shadow: shadow.Shadow
    source: str
    advice: str
    quirks: tuple[str, ...]
    options: Mapping[str, Any] = {}


GENERATIONS = {
    "1.0": Generation(mechanism.V1, shadow.V1, "muooon/EmoNavi@475e2c4", DAMPED, (quirks.PER_TENSOR, quirks.LATCH)),
    "2.0": Generation(
        mechanism.V2, shadow.V2_ALWAYS, "muooon/EmoNavi@fca8779", DAMPED, (quirks.PER_TENSOR, quirks.LATCH)
    ),
    "3.0": Generation(
        mechanism.V3, shadow.V2, "muooon/EmoNavi@d8f309f^", DAMPED, (quirks.ABSOLUTE, quirks.PER_TENSOR, quirks.LATCH)
    ),
    "3.1": Generation(mechanism.V3_1, shadow.V3_1, "muooon/EmoNavi@349b0b0", DAMPED, (quirks.SHRINKS, quirks.LATCH)),
    "3.6": Generation(mechanism.V3_6, shadow.V3_6, "muooon/EmoNavi@741166a", DAMPED, (quirks.ROUNDING, quirks.LATCH)),
    "3.7.0": Generation(
        mechanism.V3_7_0,
        shadow.V3_6,
        "muooon/EmoSens@88ccc3a",
        "a bound of the pulse, 1.0",
        (quirks.WITHDRAWN, quirks.BOUND, quirks.ROUNDING, quirks.LATCH),
    ),
    "3.7": Generation(
        mechanism.V3_7,
        shadow.V3_6,
        "muooon/EmoSens@6c49f89",
        MULTIPLIER,
        (quirks.ROUNDING, quirks.BRAKE, quirks.LATCH),
    ),
    "3.8": Generation(
        mechanism.V3_8,
        shadow.V3_6,
        "muooon/EmoSens@29b87cc",
        MULTIPLIER,
        (quirks.ROUNDING, quirks.BRAKE),
        {"stopcoef": 0.3, "fftmode": False},
    ),
    "3.9": Generation(
        mechanism.V3_9,
        shadow.V3_6,
        "muooon/EmoSens@397c573",
        "a multiplier: LoRA 1.0; full fine-tuning of a Transformer 0.01; DiT LoRA 0.1",
        (quirks.ROUNDING, quirks.BRAKE, quirks.CAP, quirks.STOP),
        {"stopcoef": 0.04},
    ),
}
SECOND = GENERATIONS["2.0"]._replace(  # 2.0 of Sens, Airy and Cats
    mechanism=mechanism.V2_CALM,
    shadow=shadow.V2,
    source="muooon/EmoSens@8f48f87^",
    quirks=(quirks.ABSOLUTE, quirks.FILTER, quirks.PER_TENSOR, quirks.LATCH),
)


# The stop signal's window holds tanh(gap) in Navi 3.6, Sens 3.7.0 and all of 3.7; in the others the scalar itself.
PLAIN_3_6 = GENERATIONS["3.6"]._replace(mechanism=replace(mechanism.V3_6, calm_scalar=None))
PLAIN_3_7_0 = GENERATIONS["3.7.0"]._replace(mechanism=replace(mechanism.V3_7_0, calm_scalar=None))


def _specs_of(
    name: str,
    versions: dict[str, updates.Update],
    *,
    betas: dict[str, tuple[float, float]],
    advised_lr: dict[str, float] | None = None,
    extra: dict[str, dict[str, Any]] | None = None,
    dead: dict[str, tuple[str, ...]] | None = None,
    own_quirks: dict[str, tuple[str, ...]] | None = None,
    generations: dict[str, Generation] | None = None,
    geometry: geometry.Geometry | None = None,
) -> Iterable[OptimizerSpec]:
    """Rows of one family; the dicts hold what differs by version."""
    for version, update in versions.items():
        shared = (generations or {}).get(version, GENERATIONS[version])
        idle, rate = (dead or {}).get(version, ()), (advised_lr or {}).get(version)
        defaults = {
            "lr": 1.0 if shared.mechanism.pulse else 1e-3,
            "betas": betas[version],
            "eps": 1e-8,
            "weight_decay": 0.01,
            **({} if shared.shadow.always else {"use_shadow": False}),
            **shared.options,
            **(extra or {}).get(version, {}),
        }
        yield OptimizerSpec(
            name=name,
            version=version,
            mechanism=shared.mechanism,
            update=update,
            shadow=shared.shadow,
            geometry=geometry,
            defaults={k: v for k, v in defaults.items() if k not in idle},
            dead=idle,
            source=shared.source,
            recommended_lr=f"base learning rate, {rate:g}" if rate else shared.advice,
            trainer_lr=rate,
            quirks=(*(own_quirks or {}).get(version, ()), *shared.quirks),
        )


def _all(value: Any, versions: Iterable[str]) -> dict[str, Any]:
    return dict.fromkeys(versions, value)


FIRST = ("1.0", "2.0", "3.0", "3.1", "3.6")
PULSED = ("3.7.0", "3.7", "3.8", "3.9")
LATER = ("3.7", "3.8", "3.9")
UNCOUPLED = {"decoupled_weight_decay": False}
SHARP, SLOW, FAST = (0.9, 0.995), (0.9, 0.999), (0.9, 0.99)

SPECS: tuple[OptimizerSpec, ...] = (
    *_specs_of(
        "emonavi",
        _all(updates.ADAM, FIRST),
        betas={**_all(SLOW, FIRST), "3.6": SHARP},
        advised_lr={"3.6": 6e-5},
        own_quirks=_all((quirks.UNBIASED,), FIRST),
    ),
    *_specs_of(
        "emofact",
        {**_all(updates.FACTORED, FIRST), "3.1": updates.FACTORED_OR_SQUARE, "3.6": updates.SIGN},
        betas={**_all(SLOW, FIRST), "3.6": SHARP},
        advised_lr={"3.6": 1e-4},
        dead={"3.6": ("betas", "eps")},
        own_quirks={"3.1": (quirks.VECTORS,), "3.6": (quirks.SIGN,)},
        generations={"3.6": PLAIN_3_6},
    ),
    *_specs_of(
        "emolynx",
        _all(updates.LION, FIRST),
        betas={**_all(FAST, FIRST), "3.1": SLOW, "3.6": SHARP},
        advised_lr={"3.6": 8e-5},
        extra=_all(UNCOUPLED, ("1.0", "2.0", "3.0")),
        dead=_all(("eps",), FIRST),
        generations={"3.6": PLAIN_3_6},
    ),
    *_specs_of(
        "emoclan",
        {"3.0": updates.CLAN},
        betas={"3.0": SLOW},
        extra={"3.0": {**UNCOUPLED, "lynx_betas": FAST}},
        own_quirks={"3.0": (quirks.CLAN, quirks.UNBIASED)},
    ),
    *_specs_of("emozeal", {"3.0": updates.ZEAL}, betas={"3.0": SLOW}, own_quirks={"3.0": (quirks.ZEAL,)}),
    *_specs_of(
        "emoneco",
        {"3.0": updates.NECO},
        betas={"3.0": FAST},
        extra={"3.0": UNCOUPLED},
        own_quirks={"3.0": (quirks.NECO,)},
    ),
    *_specs_of(
        "emosens",
        {"2.0": updates.FILTERED_ADAM, "3.7.0": updates.MOMENTUM_SIGN, **_all(updates.ADAM, LATER)},
        betas={"2.0": SLOW, **_all(SHARP, PULSED)},
        dead={"3.7.0": ("eps",)},
        own_quirks={"2.0": (quirks.UNBIASED,), "3.7.0": (quirks.MOMENTUM_SIGN,), **_all((quirks.UNBIASED,), LATER)},
        generations={"2.0": SECOND},
    ),
    *_specs_of(
        "emoairy",
        {"2.0": updates.FILTERED_FACTORED, **_all(updates.SIGN, PULSED)},
        betas={"2.0": SLOW, **_all(SHARP, PULSED)},
        dead=_all(("betas", "eps"), PULSED),
        own_quirks=_all((quirks.SIGN,), PULSED),
        generations={"2.0": SECOND, "3.7.0": PLAIN_3_7_0},
    ),
    *_specs_of(
        "emocats",
        {"2.0": updates.FILTERED_LION, **_all(updates.LION, PULSED)},
        betas={"2.0": FAST, **_all(SHARP, PULSED)},
        extra={"2.0": UNCOUPLED},
        dead=_all(("eps",), ("2.0", *PULSED)),
        generations={"2.0": SECOND, "3.7.0": PLAIN_3_7_0},
    ),
    *_specs_of(
        "emotion",
        {"3.9": updates.MOMENTUM_SIGN},
        betas={"3.9": SHARP},
        dead={"3.9": ("eps", "weight_decay")},
        own_quirks={"3.9": (quirks.FRESHNESS, quirks.GROUPS, quirks.NO_DECAY)},
        geometry=geometry.TION,
    ),
    *_specs_of(
        "emovoid",
        {"3.9": updates.SIGN},
        betas={"3.9": SHARP},
        dead={"3.9": ("betas", "eps", "weight_decay")},
        own_quirks={"3.9": (quirks.GROUPS, quirks.NO_DECAY, quirks.GRADIENTS)},
        geometry=geometry.VOID,
    ),
)
OWN: tuple[OptimizerSpec, ...] = (
    OptimizerSpec(
        name="emofree",
        version="1.0",
        mechanism=free.FREE,
        update=updates.CORRECTED_ADAM,
        shadow=shadow.V3_6,
        defaults={"lr": 1.0, "betas": SLOW, "eps": 1e-8, "weight_decay": 0.01, "total_steps": None},
        source="emo_hf",
        recommended_lr="a factor on what it finds, 1.0",
        quirks=(quirks.FREE_DOMAIN, quirks.FREE_CLIPPING, quirks.FREE_COUNT),
    ),
)
EXPERIMENTS: tuple[OptimizerSpec, ...] = (
    OptimizerSpec(
        name="emonavi",
        version="moments",
        mechanism=mechanism.MOMENTS,
        update=updates.ADAM,
        shadow=shadow.V2,
        defaults={"lr": 1e-3, "betas": SLOW, "eps": 1e-8, "weight_decay": 0.01, "moments": "drive"},
        source="muooon/EmoSens@8f48f87^, README",
        recommended_lr=DAMPED,
        quirks=(quirks.EXPERIMENT, quirks.UNBIASED, quirks.LATCH),
    ),
)
_BY_KEY = {spec.key: spec for spec in (*SPECS, *OWN, *EXPERIMENTS)}
_NEWEST = {spec.name: spec for spec in (*SPECS, *OWN)}  # specs of a family stand in order of version


def specs() -> tuple[OptimizerSpec, ...]:
    """Every optimizer at every version, the released ones first. `EXPERIMENTS` are found by their key only."""
    return (*SPECS, *OWN)


def families() -> tuple[str, ...]:
    """The names without versions, sorted."""
    return tuple(sorted(_NEWEST))


def names() -> list[str]:
    """Every string that means an optimizer: the families, and each version of them as "emosens-3.9"."""
    return [*families(), *(spec.key for spec in specs())]


def find(name: str, version: str | float | None = None) -> OptimizerSpec:
    """Returns the spec of `name` ("emosens" or "emosens-3.7") at `version`, by default the newest.

    Raises:
        UnknownOptimizerError: no such name or version; the message names the nearest ones.
    """
    key = f"{name}-{version}" if version is not None else name
    spec = _BY_KEY.get(key) or _NEWEST.get(key)
    if spec:
        return spec
    if name in _NEWEST:
        known = ", ".join(spec.version for spec in specs() if spec.name == name)
        raise UnknownOptimizerError(f"{name} has no version {version!r}; expected one of {known}.")
    raise UnknownOptimizerError(
        f"No optimizer is called {key!r}.{did_you_mean(key, (*_NEWEST, *_BY_KEY))} Known: {', '.join(families())};"
        " `emo-hf ls` lists the versions."
    )
