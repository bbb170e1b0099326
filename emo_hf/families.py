"""The families of the registry as classes. Made by ``python -m scripts.families`` from `emo_hf.versions`: not to edit.

    EmoSens(model.parameters())                       the newest version
    EmoSens(model.parameters(), version="3.8", stopcoef=0.1)

An option that is None, or not given, is the default of the version.
"""

from typing import Any, NoReturn

from torch.optim.optimizer import ParamsT

from emo_hf.emotion import Branch
from emo_hf.kernels import Implementation
from emo_hf.loss import LossOverRanks
from emo_hf.optimizer import EmoOptimizer, Writer
from emo_hf.spec import Compensation, OnNonfiniteLoss, UseOfMoments
from emo_hf.versions import find


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class EmoNavi(EmoOptimizer):
    """Adam without bias correction, damped.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Base learning rate, >= 0.
        version: 1.0, 2.0, 3.0, 3.1, 3.6, moments (experimental); None is 3.6, the newest.
        betas: Decay rates of the running averages, each in [0, 1). Default: (0.9, 0.999) in 1.0, 2.0, 3.0, 3.1 and
            moments; (0.9, 0.995) in 3.6.
        eps: Added to the denominator, >= 0.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory. Default:
            False. Not in 1.0, 2.0 and moments.
        branch: Which average of the loss decides; see `emo_hf.emotion`. Default: "rounding". Only in 3.6.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too. Default: "off" in
            1.0, 2.0, 3.0, 3.1 and 3.6; "drive" in moments.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] | None = None,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        use_shadow: bool | None = None,
        branch: Branch | None = None,
        moments: UseOfMoments | None = None,
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            use_shadow=use_shadow,
            branch=branch,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emonavi", version), writer=writer, **options)


class EmoFact(EmoOptimizer):
    """A factored second moment (signSGD in 3.6), damped.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Base learning rate, >= 0.
        version: 1.0, 2.0, 3.0, 3.1, 3.6; None is 3.6, the newest.
        betas: Decay rates of the running averages, each in [0, 1). Default: (0.9, 0.999). Not in 3.6.
        eps: Added to the denominator, >= 0. Default: 1e-08. Not in 3.6.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory. Default:
            False. Not in 1.0 and 2.0.
        branch: Which average of the loss decides; see `emo_hf.emotion`. Default: "rounding". Only in 3.6.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float = 0.01,
        use_shadow: bool | None = None,
        branch: Branch | None = None,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            use_shadow=use_shadow,
            branch=branch,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emofact", version), writer=writer, **options)


class EmoLynx(EmoOptimizer):
    """Lion, damped.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas` and `weight_decay`.
        lr: Base learning rate, >= 0.
        version: 1.0, 2.0, 3.0, 3.1, 3.6; None is 3.6, the newest.
        betas: Decay rates of the running averages, each in [0, 1). Default: (0.9, 0.99) in 1.0, 2.0 and 3.0; (0.9,
            0.999) in 3.1; (0.9, 0.995) in 3.6.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        decoupled_weight_decay: Whether the decay of Lion steps is independent of the initial lr. Default: False. Not
            in 3.1 and 3.6.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory. Default:
            False. Not in 1.0 and 2.0.
        branch: Which average of the loss decides; see `emo_hf.emotion`. Default: "rounding". Only in 3.6.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] | None = None,
        weight_decay: float = 0.01,
        decoupled_weight_decay: bool | None = None,
        use_shadow: bool | None = None,
        branch: Branch | None = None,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            use_shadow=use_shadow,
            branch=branch,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emolynx", version), writer=writer, **options)


class EmoClan(EmoOptimizer):
    """Lion, factored or Adam, by the scalar.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Base learning rate, >= 0.
        version: 3.0 is the only one.
        betas: Decay rates of the running averages, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        lynx_betas: `betas` of the Lion steps, each in [0, 1).
        decoupled_weight_decay: Whether the decay of Lion steps is independent of the initial lr.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        lynx_betas: tuple[float, float] = (0.9, 0.99),
        decoupled_weight_decay: bool = False,
        use_shadow: bool = False,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            lynx_betas=lynx_betas,
            decoupled_weight_decay=decoupled_weight_decay,
            use_shadow=use_shadow,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emoclan", version), writer=writer, **options)


class EmoZeal(EmoOptimizer):
    """Factored, with a cautious sign or softsign step before it.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Base learning rate, >= 0.
        version: 3.0 is the only one.
        betas: Decay rates of the running averages, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        use_shadow: bool = False,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            use_shadow=use_shadow,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emozeal", version), writer=writer, **options)


class EmoNeco(EmoOptimizer):
    """A cautious sign or softsign of Lion's blend.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Base learning rate, >= 0.
        version: 3.0 is the only one.
        betas: Decay rates of the running averages, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        decoupled_weight_decay: Whether the decay of Lion steps is independent of the initial lr.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        decoupled_weight_decay: bool = False,
        use_shadow: bool = False,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            use_shadow=use_shadow,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emoneco", version), writer=writer, **options)


class EmoSens(EmoOptimizer):
    """Adam without bias correction, at the pulse's step size.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Multiplier of the pulse, > 0, around 1.0; in 2.0 the base learning rate, >= 0. Default: 0.001 in 2.0; 1.0
            in 3.7.0, 3.7, 3.8 and 3.9.
        version: 2.0, 3.7.0, 3.7, 3.8, 3.9; None is 3.9, the newest.
        betas: Decay rates of the running averages, each in [0, 1). Default: (0.9, 0.999) in 2.0; (0.9, 0.995) in
            3.7.0, 3.7, 3.8 and 3.9.
        eps: Added to the denominator, >= 0. Default: 1e-08. Not in 3.7.0.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        stopcoef: Where the stop signal comes up, >= 0: as a share of the least pulse (3.8), as a loss (3.9). Default:
            0.3 in 3.8; 0.04 in 3.9.
        fftmode: Whether the pulse is the smaller one for full fine-tuning. Default: False. Only in 3.8.
        branch: Which average of the loss decides; see `emo_hf.emotion`. Default: "rounding". Not in 2.0.
        hold_pulse: Whether the step size stays that of the start, whatever the loss does. Default: False. Not in 2.0
            and 3.7.0.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | None = None,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float = 0.01,
        use_shadow: bool = False,
        stopcoef: float | None = None,
        fftmode: bool | None = None,
        branch: Branch | None = None,
        hold_pulse: bool | None = None,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            use_shadow=use_shadow,
            stopcoef=stopcoef,
            fftmode=fftmode,
            branch=branch,
            hold_pulse=hold_pulse,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emosens", version), writer=writer, **options)


class EmoAiry(EmoOptimizer):
    """signSGD at the pulse's step size (2.0: factored, damped). No state.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Multiplier of the pulse, > 0, around 1.0; in 2.0 the base learning rate, >= 0. Default: 0.001 in 2.0; 1.0
            in 3.7.0, 3.7, 3.8 and 3.9.
        version: 2.0, 3.7.0, 3.7, 3.8, 3.9; None is 3.9, the newest.
        betas: Decay rates of the running averages, each in [0, 1). Default: (0.9, 0.999). Only in 2.0.
        eps: Added to the denominator, >= 0. Default: 1e-08. Only in 2.0.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        stopcoef: Where the stop signal comes up, >= 0: as a share of the least pulse (3.8), as a loss (3.9). Default:
            0.3 in 3.8; 0.04 in 3.9.
        fftmode: Whether the pulse is the smaller one for full fine-tuning. Default: False. Only in 3.8.
        branch: Which average of the loss decides; see `emo_hf.emotion`. Default: "rounding". Not in 2.0.
        hold_pulse: Whether the step size stays that of the start, whatever the loss does. Default: False. Not in 2.0
            and 3.7.0.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | None = None,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float = 0.01,
        use_shadow: bool = False,
        stopcoef: float | None = None,
        fftmode: bool | None = None,
        branch: Branch | None = None,
        hold_pulse: bool | None = None,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            use_shadow=use_shadow,
            stopcoef=stopcoef,
            fftmode=fftmode,
            branch=branch,
            hold_pulse=hold_pulse,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emoairy", version), writer=writer, **options)


class EmoCats(EmoOptimizer):
    """Lion at the pulse's step size.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas` and `weight_decay`.
        lr: Multiplier of the pulse, > 0, around 1.0; in 2.0 the base learning rate, >= 0. Default: 0.001 in 2.0; 1.0
            in 3.7.0, 3.7, 3.8 and 3.9.
        version: 2.0, 3.7.0, 3.7, 3.8, 3.9; None is 3.9, the newest.
        betas: Decay rates of the running averages, each in [0, 1). Default: (0.9, 0.99) in 2.0; (0.9, 0.995) in 3.7.0,
            3.7, 3.8 and 3.9.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        decoupled_weight_decay: Whether the decay of Lion steps is independent of the initial lr. Default: False. Only
            in 2.0.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        stopcoef: Where the stop signal comes up, >= 0: as a share of the least pulse (3.8), as a loss (3.9). Default:
            0.3 in 3.8; 0.04 in 3.9.
        fftmode: Whether the pulse is the smaller one for full fine-tuning. Default: False. Only in 3.8.
        branch: Which average of the loss decides; see `emo_hf.emotion`. Default: "rounding". Not in 2.0.
        hold_pulse: Whether the step size stays that of the start, whatever the loss does. Default: False. Not in 2.0
            and 3.7.0.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | None = None,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] | None = None,
        weight_decay: float = 0.01,
        decoupled_weight_decay: bool | None = None,
        use_shadow: bool = False,
        stopcoef: float | None = None,
        fftmode: bool | None = None,
        branch: Branch | None = None,
        hold_pulse: bool | None = None,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            use_shadow=use_shadow,
            stopcoef=stopcoef,
            fftmode=fftmode,
            branch=branch,
            hold_pulse=hold_pulse,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emocats", version), writer=writer, **options)


class EmoTion(EmoOptimizer):
    """Sign of a momentum that listens to the norm of the weights, at the pulse's step size.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr` and `betas`.
        lr: Multiplier of the pulse, > 0, around 1.0.
        version: 3.9 is the only one.
        betas: Decay rates of the running averages, each in [0, 1).
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        stopcoef: Where the stop signal comes up, >= 0: as a share of the least pulse (3.8), as a loss (3.9).
        branch: Which average of the loss decides; see `emo_hf.emotion`.
        hold_pulse: Whether the step size stays that of the start, whatever the loss does.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] = (0.9, 0.995),
        use_shadow: bool = False,
        stopcoef: float = 0.04,
        branch: Branch = "rounding",
        hold_pulse: bool = False,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            use_shadow=use_shadow,
            stopcoef=stopcoef,
            branch=branch,
            hold_pulse=hold_pulse,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emotion", version), writer=writer, **options)


class EmoVoid(EmoOptimizer):
    """signSGD with a rescaled weight norm, at the pulse's step size. No state.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`.
        lr: Multiplier of the pulse, > 0, around 1.0.
        version: 3.9 is the only one.
        use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        stopcoef: Where the stop signal comes up, >= 0: as a share of the least pulse (3.8), as a loss (3.9).
        branch: Which average of the loss decides; see `emo_hf.emotion`.
        hold_pulse: Whether the step size stays that of the start, whatever the loss does.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        version: str | float | None = None,
        use_shadow: bool = False,
        stopcoef: float = 0.04,
        branch: Branch = "rounding",
        hold_pulse: bool = False,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            use_shadow=use_shadow,
            stopcoef=stopcoef,
            branch=branch,
            hold_pulse=hold_pulse,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emovoid", version), writer=writer, **options)


class EmoFree(EmoOptimizer):
    """Adam at a step size that it finds itself: no learning rate to set. Ours, not of the authors.

    Args:
        params: Parameters, or parameter groups; a group may have its own `lr`, `betas`, `eps` and `weight_decay`.
        lr: Multiplier of the step size that is found, > 0, around 1.0.
        version: 1.0 is the only one.
        betas: Decay rates of the running averages, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Share of the weights taken off per unit of step size, >= 0.
        total_steps: Steps of the whole training, for the length of the ramp; a Trainer tells it. None counts as 625.
            Default: None.
        moments: Experimental: log the moments of the gradient, or let them drive the step size too.
        on_nonfinite_loss: At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is
            finite.
        implementation: How the update is computed; see `emo_hf.kernels`.
        compensation: For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.
        loss_over_ranks: What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.
        writer: Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        version: str | float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        total_steps: int | None = None,
        moments: UseOfMoments = "off",
        on_nonfinite_loss: OnNonfiniteLoss = "auto",
        implementation: Implementation = "auto",
        compensation: Compensation = "off",
        loss_over_ranks: LossOverRanks = "mean",
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            total_steps=total_steps,
            moments=moments,
            on_nonfinite_loss=on_nonfinite_loss,
            implementation=implementation,
            compensation=compensation,
            loss_over_ranks=loss_over_ranks,
            **unknown,
        )
        super().__init__(params, find("emofree", version), writer=writer, **options)


CLASSES: dict[str, type[EmoOptimizer]] = {
    "emonavi": EmoNavi,
    "emofact": EmoFact,
    "emolynx": EmoLynx,
    "emoclan": EmoClan,
    "emozeal": EmoZeal,
    "emoneco": EmoNeco,
    "emosens": EmoSens,
    "emoairy": EmoAiry,
    "emocats": EmoCats,
    "emotion": EmoTion,
    "emovoid": EmoVoid,
    "emofree": EmoFree,
}
