"""What a step measures of its gradients, on its way to the mechanism that asked for it (`Mechanism.measures`).

    begin     the mechanism hears what the last step measured; before its start, the size of this step's gradients
    sums_of   what the update of a group is to add up (`emo_hf.kernels.measuring`)
    end       the sums stay on their device until the next `begin`: only there the host waits for the device

Groups count by their own speed, so that a predicted fall is that of the step that is really made. Of a mechanism that
does not measure, nothing is computed.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from emo_hf.kernels.measuring import Sums
from emo_hf.mechanism import GradientStatistics, Mechanism, MechanismState


class Measurement:
    """The measurements of one optimizer.

    Args:
        lr: the optimizer's own, in whose units the speed of a group counts.

    Attributes:
        clipped: what the gradients of the coming step were divided by, >= 1 or a 0-d tensor.
    """

    def __init__(self, lr: float) -> None:
        self.clipped: float | Tensor = 1.0
        self._lr = lr
        self._schedule = 1.0
        self._sums: Sums | None = None  # of the step that is being made
        self._unheard: tuple[Sums, float | Tensor] | None = None  # of the last step, with its `clipped`

    def begin(self, mechanism: Mechanism, state: MechanismState, groups: Sequence[dict[str, Any]]) -> float:
        """Opens a step. Returns what a scheduler multiplies it by: that of the group that it leaves the most."""
        if not mechanism.measures:
            return 1.0
        self.settle(mechanism, state)
        self._schedule = max((float(group["lr"]) / group["scope"] for group in groups), default=1.0)
        if not mechanism.has_started(state):
            sums = Sums()
            for group in groups:
                sums.weight = self._speed(group)
                sums.add_magnitude([p.grad for p in group["params"] if p.grad is not None])
            self._close(sums)
            self.settle(mechanism, state)
        self._sums = Sums()
        return self._schedule

    def sums_of(self, group: dict[str, Any]) -> Sums | None:
        """Returns the sums of this step, ready for the tensors of `group`; None where nobody wants them."""
        if self._sums is not None:
            self._sums.weight = self._speed(group)
        return self._sums

    def end(self) -> None:
        """Closes a step."""
        if self._sums is not None:
            self._close(self._sums)
        self._sums, self.clipped = None, 1.0

    def _close(self, sums: Sums) -> None:
        if sums.close():
            self._unheard = sums, self.clipped

    def settle(self, mechanism: Mechanism, state: MechanismState) -> bool:
        """Tells the mechanism what was measured, once; returns whether there was anything."""
        if self._unheard is None:
            return False
        (sums, clipped), self._unheard = self._unheard, None
        mechanism.note(state, GradientStatistics(*sums.read(), float(clipped)))
        return True

    def _speed(self, group: dict[str, Any]) -> float:
        """How fast a group goes, in units of the optimizer's own lr and without the schedule; 0 if it is frozen."""
        lr = float(group["lr"]) / self._schedule if self._schedule else group["scope"]
        return lr / self._lr
