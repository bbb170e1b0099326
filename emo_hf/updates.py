"""The directions: one free function per update rule, over one tensor.

Every rule has the signature ``rule_(param, grad, state, h)`` and changes `param` and the tensors of `state` in place,
never `grad`. None but `corrected_adam_` corrects the bias of its averages. `init` functions create the state: a dict
of tensors, zeros.

    rule           state                                  direction u in  p -= decay * p;  p -= step * u
    adam_          exp_avg, exp_avg_sq                    m / (sqrt(v) + eps)
    corrected_adam_  the same                             m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
    momentum_sign_ exp_avg                                sign(m)
    factored_      exp_avg_sq_row, exp_avg_sq_col         g / (sqrt(r c) + eps)
    sign_          none                                   sign(g)
    lion_          exp_avg                                sign(b1 m + (1-b1) g)
    clan_          all of adam_, factored_ and lion_      one of the three, by |scalar|
    zeal_, neco_   factored_ / exp_avg                    a cautious sign or a softsign by |scalar|

The golden traces pin the order of operations. Source: muooon/EmoNavi, muooon/EmoSens at the registry's commits;
`corrected_adam_` is Adam with decoupled decay (1412.6980, 1711.05101).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TensorState = dict[str, Tensor]


class Hyper(NamedTuple):
    """The numbers of one step for one parameter group."""

    step: float  # step size, >= 0
    decay: float  # decay step * weight_decay, >= 0
    lion_decay: float  # the same for the lion rules, whose decay may be independent of the initial lr
    beta1: float
    beta2: float
    eps: float
    scalar: float  # emotion scalar, [-1, 1]
    lynx_betas: tuple[float, float] = (0.9, 0.99)
    freshness: float = 1.0  # trust in the new gradient (EmoTion), [1 - beta1, 1]
    age: int = 0  # steps of the averages, this one included, for rules that correct their bias


Rule = Callable[[Tensor, Tensor, TensorState, Hyper], None]


@dataclass(frozen=True, slots=True)
class Update:
    """An update rule and the state it needs.

    Attributes:
        apply: the rule.
        init: makes the state of a tensor.
        elementwise: an entry depends on no other entry of its tensor, so that any piece of it may be taken alone.
        direction: ``direction(state, h)`` is u, of the shape of the tensor, as the rule made it from the state that it
            left behind at ``h.age``; None where a state does not hold it.
        join: ``join(state, grad, h)`` prepares the new state of a tensor that joins after others, in place.
    """

    apply: Rule
    init: Callable[[Tensor], TensorState]
    elementwise: bool = True
    direction: Callable[[TensorState, Hyper], Tensor] | None = None
    join: Callable[[TensorState, Tensor, Hyper], None] | None = None


# -- state ---------------------------------------------------------------------------------------------------------


def nothing(param: Tensor) -> TensorState:
    """No state."""
    return {}


def momentum(param: Tensor) -> TensorState:
    """First moment, shaped like `param`."""
    return {"exp_avg": torch.zeros_like(param)}


def moments(param: Tensor) -> TensorState:
    """First and second moment, shaped like `param`."""
    return {"exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}


def factors(param: Tensor) -> TensorState:
    """Row factor (n, 1, ..., 1) and column factor (1, ...) of a tensor (n, ...); the moments of a vector."""
    if param.dim() < 2:
        return moments(param)
    return {
        "exp_avg_sq_row": torch.zeros_like(_mean_of_rows(param)),
        "exp_avg_sq_col": torch.zeros_like(_mean_of_columns(param)),
    }


def factors_or_square(param: Tensor) -> TensorState:
    """As `factors`; only the second moment of a vector (Fact 3.1)."""
    return factors(param) if param.dim() >= 2 else {"exp_avg_sq": torch.zeros_like(param)}


def as_if_always(state: TensorState, grad: Tensor, h: Hyper) -> None:
    """Adam's second moment of a tensor whose gradient is the first at ``h.age``: as if its mean square were old.

    The bias correction goes by the count of the group. With zeros, the first steps would be several times too long.
    """
    square = (grad.float() ** 2).sum() / max(grad.numel(), 1)
    square = square.full_tensor() if hasattr(square, "full_tensor") else square
    state["exp_avg_sq"].fill_(float(square) * (1 - h.beta2 ** (h.age - 1)))


def three_minds(param: Tensor) -> TensorState:
    """Clan: the states of adam, factored and lion side by side."""
    state = {**moments(param), "exp_avg_lynx": torch.zeros_like(param)}
    own = factors(param)
    return state | (own if param.dim() >= 2 else {f"{name}_fact": value for name, value in own.items()})


# -- directions ----------------------------------------------------------------------------------------------------


def _mean(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    if hasattr(x, "to_local"):
        # torch 2.6's mean of a DTensor is wrong where the shards differ in length, and gloo has no average there
        return x.sum(dim=dims, keepdim=True) / math.prod(x.shape[i] for i in dims)
    return x.mean(dim=dims, keepdim=True)


def _mean_of_rows(x: Tensor) -> Tensor:
    return _mean(x, tuple(range(1, x.dim())))


def _mean_of_columns(x: Tensor) -> Tensor:
    # One row is its own mean, sharded as it is: DTensor would refuse to put a replicated mean back into that row
    one_row = isinstance(x, Tensor) and x.shape[0] == 1
    return x if one_row else _mean(x, (0,))


def _adam_direction(grad: Tensor, state: TensorState, h: Hyper) -> Tensor:
    m, v = state["exp_avg"], state["exp_avg_sq"]
    # m = b1 m + (1-b1) g
    m.mul_(h.beta1).add_(grad, alpha=1 - h.beta1)
    # v = b2 v + (1-b2) g g
    v.mul_(h.beta2).addcmul_(grad, grad, value=1 - h.beta2)
    # u = m / (sqrt(v) + eps)
    return m / v.sqrt().add_(h.eps)


def _factored_direction(grad: Tensor, state: TensorState, h: Hyper) -> Tensor:
    r, c, square = state["exp_avg_sq_row"], state["exp_avg_sq_col"], grad * grad
    # r = b1 r + (1-b1) sqrt(mean(g g, all dims but 0) + eps)
    r.mul_(h.beta1).add_(_mean_of_rows(square).add(h.eps).sqrt_(), alpha=1 - h.beta1)
    # c = b1 c + (1-b1) sqrt(mean(g g, dim 0) + eps)
    c.mul_(h.beta1).add_(_mean_of_columns(square).add(h.eps).sqrt_(), alpha=1 - h.beta1)
    # u = g / (sqrt(r c) + eps)
    return grad / (r * c).sqrt_().add_(h.eps)


def _factored_or_adam_direction(grad: Tensor, state: TensorState, h: Hyper) -> Tensor:
    return _factored_direction(grad, state, h) if grad.dim() >= 2 else _adam_direction(grad, state, h)


def _open(strength: Tensor, h: Hyper) -> Tensor:
    # The emotional filter of 2.0 closes only where `strength` is below about 1e-12
    return strength.pow(1 / 3).ge(1e-4 * (1 + abs(h.scalar)))


def _cautious(blend: Tensor, grad: Tensor) -> Tensor:
    # sign(B) [sign(B) == sign(g)]
    direction = blend.sign()
    return direction * (direction == grad.sign())


def _softsign(blend: Tensor, grad: Tensor, h: Hyper) -> Tensor:
    # B / (1 + |B|) (norm(g) + eps)
    return blend / (1 + blend.abs()) * (grad.norm() + h.eps)


def _descend_(param: Tensor, direction: Tensor, h: Hyper) -> None:
    # p = (1 - decay) p;  p -= step u
    param.mul_(1 - h.decay).add_(direction, alpha=-h.step)


# -- rules ---------------------------------------------------------------------------------------------------------


def adam_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Navi; Sens 3.7 and later."""
    _descend_(param, _adam_direction(grad, state, h), h)


def corrected_adam_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """EmoFree. Adam with bias correction."""
    # m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g g
    state["exp_avg"].mul_(h.beta1).add_(grad, alpha=1 - h.beta1)
    state["exp_avg_sq"].mul_(h.beta2).addcmul_(grad, grad, value=1 - h.beta2)
    _descend_(param, corrected_adam_direction(state, h), h)


def corrected_adam_direction(state: TensorState, h: Hyper) -> Tensor:
    """The direction that `corrected_adam_` took when it left `state` behind, ``h.age`` being that of its step."""
    # u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
    root = (state["exp_avg_sq"] / (1 - h.beta2**h.age)).sqrt_().add_(h.eps)
    return (state["exp_avg"] / (1 - h.beta1**h.age)) / root


def filtered_adam_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Sens 2.0: `adam_` where the emotional filter is open."""
    _descend_(param, _adam_direction(grad, state, h) * _open(grad.abs(), h), h)


def momentum_sign_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Sens 3.7.0; Tion, which takes in `freshness` times as much of the gradient."""
    m, k = state["exp_avg"], (1 - h.beta1) * h.freshness
    # m = (1-k) m + k g,  k = (1-b1) freshness
    m.mul_(1 - k).add_(grad, alpha=k)
    _descend_(param, m.sign(), h)


def factored_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Fact 1.0 to 3.0. Vectors take the adam direction."""
    _descend_(param, _factored_or_adam_direction(grad, state, h), h)


def factored_or_square_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Fact 3.1. The square of a vector decays by b1 but grows by 1-b2, as released."""
    if grad.dim() >= 2:
        direction = _factored_direction(grad, state, h)
    else:
        # v = b1 v + (1-b2) g g;  u = g / (sqrt(v) + eps)
        state["exp_avg_sq"].mul_(h.beta1).addcmul_(grad, grad, value=1 - h.beta2)
        direction = grad / state["exp_avg_sq"].sqrt().add_(h.eps)
    _descend_(param, direction, h)


def filtered_factored_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Airy 2.0. Vectors are filtered; the filter of matrices is always open."""
    direction = _factored_or_adam_direction(grad, state, h)
    _descend_(param, direction if grad.dim() >= 2 else direction * _open(grad * grad, h), h)


def sign_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Fact 3.6, Airy 3.7.0 and later, Void. Upstream's factored denominator is positive and drops out of the sign."""
    _descend_(param, grad.sign(), h)


def lion_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Lynx; Cats 3.7.0 and later."""
    m = state["exp_avg"]
    # p = (1 - decay) p;  p -= step sign(b1 m + (1-b1) g)
    blend = grad.mul(1 - h.beta1).add_(m, alpha=h.beta1)
    param.mul_(1 - h.lion_decay).add_(blend.sign_(), alpha=-h.step)
    # m = b2 m + (1-b2) g
    m.mul_(h.beta2).add_(grad, alpha=1 - h.beta2)


def filtered_lion_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Cats 2.0: `lion_` where the emotional filter is open."""
    m = state["exp_avg"]
    # p = (1 - decay) p;  p -= step sign(b1 m + (1-b1) g) filter
    blend = grad.mul(1 - h.beta1).add_(m, alpha=h.beta1)
    param.mul_(1 - h.lion_decay).add_(blend.sign_().mul_(_open(grad.abs(), h)), alpha=-h.step)
    # m = b2 m + (1-b2) g
    m.mul_(h.beta2).add_(grad, alpha=1 - h.beta2)


def neco_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Neco 3.0: softsign for 0.2 < |scalar| <= 0.5, else the cautious sign of the lion blend."""
    m = state["exp_avg"]
    # B = (1-b1) g + b1 m
    blend = grad.mul(1 - h.beta1).add_(m, alpha=h.beta1)
    direction = _softsign(blend, grad, h) if 0.2 < abs(h.scalar) <= 0.5 else _cautious(blend, grad)
    param.mul_(1 - h.lion_decay).add_(direction, alpha=-h.step)
    # m = b2 m + (1-b2) g
    m.mul_(h.beta2).add_(grad, alpha=1 - h.beta2)


def zeal_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Zeal 3.0: before the factored step, matrices take one of Neco's. Upstream's blend holds no momentum."""
    if grad.dim() >= 2 and abs(h.scalar) > 0.1:
        # B = (1-b1) g
        blend = grad * (1 - h.beta1)
        direction = _cautious(blend, grad) if abs(h.scalar) > 0.6 else _softsign(blend, grad, h)
        param.add_(direction, alpha=-h.step)
    factored_(param, grad, state, h)


def clan_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """Clan 3.0: lion above |scalar| = 0.6, factored above 0.3, else adam; each with its own state."""
    if abs(h.scalar) > 0.6:
        beta1, beta2 = h.lynx_betas
        lion_(param, grad, {"exp_avg": state["exp_avg_lynx"]}, h._replace(beta1=beta1, beta2=beta2))
    elif abs(h.scalar) > 0.3:
        own = ("exp_avg", "exp_avg_sq")
        factored_(param, grad, state if grad.dim() >= 2 else {k: state[f"{k}_fact"] for k in own}, h)
    else:
        adam_(param, grad, state, h)


ADAM = Update(adam_, moments)
CORRECTED_ADAM = Update(corrected_adam_, moments, direction=corrected_adam_direction, join=as_if_always)
FILTERED_ADAM = Update(filtered_adam_, moments)
MOMENTUM_SIGN = Update(momentum_sign_, momentum)
FACTORED = Update(factored_, factors, elementwise=False)
FACTORED_OR_SQUARE = Update(factored_or_square_, factors_or_square, elementwise=False)
FILTERED_FACTORED = Update(filtered_factored_, factors, elementwise=False)
SIGN = Update(sign_, nothing)
LION = Update(lion_, momentum)
FILTERED_LION = Update(filtered_lion_, momentum)
NECO = Update(neco_, momentum, elementwise=False)
ZEAL = Update(zeal_, factors, elementwise=False)
CLAN = Update(clan_, three_minds, elementwise=False)
