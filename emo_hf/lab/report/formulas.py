"""The formulas of the registry in words: one line each, in the code's symbols, and upstream's names for their parts.

A formula that the registry uses and that has no words here raises a KeyError, so that a new one cannot stay
undocumented. Upstream's names are those of the files at the registry's commits, so a search for one finds every
version that has it.
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from emo_hf import emotion, geometry, mechanism, pulse, shadow, updates
from emo_hf.mechanism import Mechanism
from emo_hf.spec import OptimizerSpec


class Formula(NamedTuple):
    """A formula in one line, in the code's symbols, and upstream's names for its parts."""

    formula: str
    upstream: str = ""


RELATIVE = "`dl = (long - short) / long`, `dm = (long - short) / medium`"
SCALARS: Mapping[Hashable, Formula] = {
    emotion.absolute: Formula("`tanh(5 (short - long))`", "`_update_ema`, `_compute_scalar`"),
    emotion.relative: Formula("`tanh((long - short) / long)`", "`_update_ema`, `_compute_scalar`, `scale_base`"),
    emotion.relative_rounding: Formula(
        f"{RELATIVE}; `tanh(dl)` while `|dl| < 0.05`, else `tanh(dm)` or `tanh(dl)` by the last bit",
        "`_update_ema`, `_compute_scalar`, `diff_l` = `dl`, `diff_m` = `dm`, `scale_base_l`, `scale_base_m`",
    ),
}
DAMPERS: Mapping[Hashable, Formula] = {
    pulse.full: Formula("`lr`"),
    pulse.calm: Formula("`lr (1 - |scalar|)`"),
    pulse.zones: Formula(
        "`lr` times `1 - |scalar|` where `|scalar| > 0.625`, `1 + scalar` where `|scalar| > 0.125`, else 1",
        "`_decide_coeff`, `coeff`",
    ),
    pulse.drive: Formula(
        "`lr` times `8 |trust| (1 + 0.1 trust)` where `0.25 < |scalar| < 0.5`, `1 - |scalar|` where `|scalar| > 0.75`,"
        " else 1",
        "`emoDrive`, `emoDpt` = `8 |trust|`, `_decide_coeff` = `1 - |scalar|` where it brakes",
    ),
}
RATIO = (
    "`dNR_hist` = `snr`, `dNR_now_val` = `now`, `noise_est` = `noise`, `d_est` = `distance`, `d_base` = `signal`,"
    " `Noise_base` = `doubt`, `emoScope` (`emoScorp`) = `scope`, `emoPulse` = `pulse`"
)
PULSES: Mapping[Hashable, Formula] = {
    mechanism.V3_7_0.pulse: Formula(
        "`min(min(distance, 20 lr) / noise, 1e-3)`, times the factor of 3.6",
        "`d_est` = `distance`, `noise_est` = `noise`, `emoScope` = `20 lr`, `emoPulse` = `pulse`, `emoDrive`,"
        " `emoDpt` and `_decide_coeff`: the factor; `_early_scalar`",
    ),
    mechanism.V3_7.pulse: Formula("`snr lr 1e-4`, at least 1e-6 and at most 3e-3", RATIO),
    mechanism.V3_8.pulse: Formula(
        "`snr lr 1e-4`, at least 1e-7 and at most 3e-3; with `fftmode` a tenth of the three numbers",
        f"{RATIO}, `base_scale`, `max_lim`, `min_lim`",
    ),
    mechanism.V3_9.pulse: Formula(
        "`snr lr 1e-4` times `max(100 ** drift, 0.01)`, at least 1e-8 and at most `3e-3 lr`",
        f"{RATIO}, `c_est` = `drift`, `emoChain`, `base_scale`, `max_lim`, `min_lim`",
    ),
}
FREE = Formula(
    "starts at 0.02 `|loss| / sum |g|`; tenfold in `2 sqrt(total_steps)` steps until `<g', u> / <g, u>`, of the next"
    " gradient and this one, falls below 0.12 or a quarter of its maximum; half of that; then up where the loss falls"
    " by more than `0.12 sqrt(2 sqrt(total_steps) / t)` of `step <g, u>`, down where it rises beyond its noise"
)
SETTLED = "the last 32 {} have a mean size below 0.05 and a variance below 0.005; stays up"
STOPS: Mapping[Hashable, Formula] = {
    (mechanism.settled, None): Formula(SETTLED.format("scalars"), "`scalar_hist`, `should_stop`"),
    (mechanism.settled, emotion.relative): Formula(
        SETTLED.format("values of `tanh(dl)`"), "`scalar_hist`, `_early_scalar`, `should_stop`"
    ),
    (mechanism.still, None): Formula(
        "`|scalar|` and `|doubt - signal|` are at most `stopcoef` times the least pulse; meanwhile a tenth of `lr`",
        "`stop_scale`, `stop_scalar`, `stop_dNRsub`, `should_stop`, `emo_internal`",
    ),
    (mechanism.never, None): Formula(
        "the fall of the loss over its slow average, as seen and as predicted, is below the noise of its mean"
    ),
    (mechanism.within_margins, None): Formula(
        "`distance - noise >= 0.3` and the medium average of the loss is at most `stopcoef`",
        "`stop_base` = `distance - noise`, `should_stop`, `emo_internal`",
    ),
}
SHADOWS: Mapping[Hashable, Formula] = {
    shadow.V1: Formula("always on, `0.7 + 0.2 scalar`, 0.1 or 0.3 of it by zones", "`_decide_ratio`, `ratio`"),
    shadow.V2_ALWAYS: Formula("always on, `|scalar|` of it above 0.1", "`_decide_ratio`, `ratio`"),
    shadow.V2: Formula("off by default; `|scalar|` of it above 0.1", "`_decide_ratio`, `ratio`"),
    shadow.V3_1: Formula("off by default; do not use it, see below", "`_decide_ratio`, `leap_ratio`"),
    shadow.V3_6: Formula("off by default; `1 - |scalar|` of it above 0.625", "`_decide_ratio`, `leap_ratio`"),
}
ADAM = "`m = b1 m + (1-b1) g`, `v = b2 v + (1-b2) g g`, direction `m / (sqrt(v) + eps)`"
FACTORED = (
    "factored second moment: matrices `g / (sqrt(r c) + eps)`, `r` and `c` averages (b1) of the root mean squares of"
    " rows and columns"
)
LION = "direction `sign(b1 m + (1-b1) g)`, then `m = b2 m + (1-b2) g`"
FACTORS = "`exp_avg_r` = `exp_avg_sq_row`, `exp_avg_c` = `exp_avg_sq_col`"
CLOSED = "zero where `|g| ** (1/3) < 1e-4 (1 + |scalar|)`"
CAUTIOUS = "`sign(B)` where it agrees with `sign(g)`"
UPDATES: Mapping[Hashable, Formula] = {
    updates.ADAM: Formula(f"Adam without bias correction: {ADAM}"),
    updates.CORRECTED_ADAM: Formula(f"Adam with bias correction: {ADAM}, of averages over `1 - b^t`"),
    updates.FILTERED_ADAM: Formula(
        f"Adam without bias correction: {ADAM}; {CLOSED}", "`filter_strength`, `threshold`, `mask`"
    ),
    updates.MOMENTUM_SIGN: Formula("sign of momentum: `m = b1 m + (1-b1) g`, direction `sign(m)`"),
    updates.FACTORED: Formula(f"{FACTORED}; vectors: Adam without bias correction", FACTORS),
    updates.FACTORED_OR_SQUARE: Formula(
        f"{FACTORED}; vectors: `v = b1 v + (1-b2) g g`, direction `g / (sqrt(v) + eps)`", FACTORS
    ),
    updates.FILTERED_FACTORED: Formula(
        f"{FACTORED}; vectors: Adam without bias correction, {CLOSED}",
        f"{FACTORS}, `threshold`, `filter_mask`; `r_mask`, `c_mask` and `update_mask` are always 1",
    ),
    updates.SIGN: Formula("signSGD: direction `sign(g)`"),
    updates.LION: Formula(f"Lion: {LION}", "`blended_grad`"),
    updates.FILTERED_LION: Formula(
        f"Lion: {LION}; {CLOSED}", "`blended_grad`, `filter_strength`, `threshold`, `mask`"
    ),
    updates.CLAN: Formula(
        "one of three by the scalar: Lion (`lynx_betas`) where `|scalar| > 0.6`, factored where `|scalar| > 0.3`, else"
        " Adam without bias correction, each with its own state",
        "`_lynx_update`, `_fact_update`, `_navi_update`",
    ),
    updates.ZEAL: Formula(
        f"factored second moment, after another step: as Fact 3.0, but before it matrices take, with"
        f" `B = (1-b1) g`, {CAUTIOUS} where `|scalar| > 0.6`,"
        " `softsign(B) (norm(g) + eps)` where `|scalar| > 0.1`",
        f"{FACTORS}, `blended_grad` = `B`, `safe_norm` = `norm(g) + eps`, `softsign`",
    ),
    updates.NECO: Formula(
        "cautious sign or softsign of Lion's blend: with `B = b1 m + (1-b1) g`, `softsign(B) (norm(g) + eps)` where"
        f" `0.2 < |scalar| <= 0.5`, else {CAUTIOUS}; then `m = b2 m + (1-b2) g`",
        "`blended_grad` = `B`, `safe_norm` = `norm(g) + eps`, `softsign`",
    ),
}
GEOMETRIES: Mapping[Hashable, Formula] = {
    geometry.TION: Formula(
        "the share of `g` in `m` is multiplied by `freshness`: how far the L1 norm of all weights moved, `tanh` of"
        " its relative change / 0.03",
        "`g_freshness` = `freshness`, `point_gl1` and `prev_gl1`: the norms, `gratio`, `beta3` = `1-b1`",
    ),
    geometry.VOID: Formula(
        "for the first 55 steps, and once after each stop signal, all weights are rescaled to the L1 norm they had",
        "`point_gl1` and `prev_gl1`: the norms, `gratio`",
    ),
}


def formulas_of(spec: OptimizerSpec) -> dict[str, Formula]:
    """Returns the formulas of an optimizer, by what each computes."""
    mechanism = spec.mechanism
    formulas = {
        "emotion": SCALARS[mechanism.scalar],
        "step size": _step_size(mechanism),
        "update": UPDATES[spec.update],
        "stop signal": STOPS[mechanism.stop, mechanism.calm_scalar],
        **({} if mechanism.measures else {"shadow": SHADOWS[spec.shadow]}),
    }
    return formulas | ({"geometry": GEOMETRIES[spec.geometry]} if spec.geometry else {})


def _step_size(mechanism: Mechanism) -> Formula:
    if mechanism.measures:
        return FREE
    return PULSES[mechanism.pulse] if mechanism.pulse else DAMPERS[mechanism.damper]
