"""The optimizer: takes the loss in, asks the mechanism once, then applies shadow and update to every parameter.

One step, in this order, which the golden traces pin:

    loss -> mechanism (once, floats only) -> geometry (whole model, Tion and Void)
         -> per parameter with a gradient: shadow, update -> signals

The loss arrives by ``step(loss=...)``, ``step(closure)`` or a preceding ``observe(loss)``; without it `step` raises.
The optimizer never writes ``group["lr"]``: that belongs to the scheduler. What the mechanism remembers lives in every
parameter group as a tuple of plain floats (``group["emo"]``), the one place that survives every kind of checkpoint.
"""

import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from emo_hf import geometry, kernels, saved_state, updates
from emo_hf.errors import EmoError, MissingLossError, NonFiniteLossError, OptionError
from emo_hf.free import Found
from emo_hf.kernels import compensation
from emo_hf.loss import Scalar, gradients_are_finite, hear, is_main_process, say_left_out
from emo_hf.measurement import Measurement
from emo_hf.mechanism import Bounds, Rate
from emo_hf.moments import Moments, gradient_moments
from emo_hf.signals import Signals
from emo_hf.spec import GROUP_OPTIONS, OptimizerSpec
from emo_hf.updates import Hyper

logger = logging.getLogger(__name__)

# Below it a multiplier is nearly always a learning rate meant for AdamW; 0.01 is the smallest recommended one.
LEAST_MULTIPLIER = 1e-2


class Writer(Protocol):
    """TensorBoard's SummaryWriter, or its like."""

    def add_scalar(self, tag: str, value: float, step: int, /) -> Any: ...


def _owned(tensor: Any) -> Any:
    """Returns a DTensor of contiguous shards; torch 2.6 restores them from a full checkpoint as views of the whole."""
    if not hasattr(tensor, "to_local") or tensor.to_local().is_contiguous():
        return tensor
    layout = {"placements": tensor.placements, "shape": tensor.shape, "stride": tensor.stride()}
    return type(tensor).from_local(tensor.to_local().contiguous(), tensor.device_mesh, **layout)


class EmoOptimizer(torch.optim.Optimizer):
    """Any spec of the registry as a `torch.optim.Optimizer`.

    Args:
        params: parameters or parameter groups. A group may have its own `lr`, `betas`, `eps`, `weight_decay`.
        spec: what to compute (`emo_hf.registry`).
        writer: gets every signal of every step.
        **options: see ``spec.options``.

    Raises:
        OptionError: an option is unknown or out of range. One that has no effect in this spec is a warning.
    """

    _observed: float | Scalar | None  # the loss of the coming step

    def __init__(self, params: ParamsT, spec: OptimizerSpec, *, writer: Writer | None = None, **options: Any) -> None:
        self.spec = spec
        options.pop("notify", None)  # of the released code: whether it prints; ours prints nothing
        self._said: set[str] = set()  # what is said once
        self.options = spec.resolve(self._without_dead(options))
        self.writer = writer
        self.mechanism = spec.mechanism.configure(
            branch=self.options.get("branch"),
            stopcoef=self.options.get("stopcoef"),
            fftmode=self._on("fftmode"),
            hold_pulse=self._on("hold_pulse"),
            multiplier=self.options["lr"],
            total_steps=self.options.get("total_steps"),
        )
        self._state = self.mechanism.start()
        self._geometry = geometry.GeometryState()
        self._shapes: set[torch.Size] = set()  # of the parameters as they were given
        self.zeroed = 0  # how often the gradients were thrown away
        self._forget_step()
        if spec.shadow.warning and self._uses_shadow:
            warnings.warn(f"{spec.key} with use_shadow=True: {spec.shadow.warning}", stacklevel=3)
        super().__init__(params, {k: v for k, v in self.options.items() if k in GROUP_OPTIONS})

    def _without_dead(self, options: dict[str, Any]) -> dict[str, Any]:
        """Leaves out, and warns of, what this version ignores: scripts pass it to every optimizer by habit."""
        dead = {name: value for name, value in options.items() if name in self.spec.dead}
        told = ", ".join(f"{name}={value!r}" for name, value in dead.items() if name not in self._said)
        if told:
            self._said.update(dead)
            warnings.warn(f"{self.spec.key} ignores {told}: its update has no such thing.", stacklevel=4)
        return {name: value for name, value in options.items() if name not in dead}

    # -- the loss --------------------------------------------------------------------------------------------------

    def observe(self, loss: float | Scalar | None) -> None:
        """Notes the loss of the coming step. A second call before `step` replaces the first; None forgets it."""
        self._observed = loss

    @property
    def observed(self) -> float | Scalar | None:
        """The noted loss of the coming step, None once a step has used it."""
        return self._observed

    def plan(self, total_steps: int, anneals: bool | None = None) -> None:
        """Tells how long the training is, before it begins. Only EmoFree heeds it.

        Args:
            total_steps: optimizer steps of the whole training, > 0. The option of the same name wins.
            anneals: whether a schedule will take the step size down; None: as soon as one is seen to.
        """
        self.mechanism = self.mechanism.plan(total_steps, anneals)

    def note_clipping(self, divisor: float | Tensor) -> None:
        """Notes what the gradients of the coming step were divided by, >= 1 or a 0-d tensor. Only EmoFree heeds it.

        It is forgotten with these gradients, at `zero_grad`, or at a step that is left out.
        """
        self._measurement.clipped = divisor.detach() if isinstance(divisor, Tensor) else divisor

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self.zeroed += 1
        self.note_clipping(1.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: float | Scalar | None = None) -> Any:
        """Updates every parameter that has a gradient.

        Args:
            closure: recomputes the model, calls backward and returns the loss. Where a feed has summed the losses of
                this step (accelerate, Lightning), that sum counts instead.
            loss: the loss of this step, one number, when there is no closure and nothing was observed. On several
                ranks it is this rank's: the mean is taken, unless `loss_over_ranks` is "own".

        Returns:
            What the closure returned, or None.

        Raises:
            EmoError: a CUDA graph is being captured.
            MissingLossError: no loss in any of the three ways.
            OptionError: the loss has several elements, or there is one beside a closure that returns another.
            NonFiniteLossError: the loss is NaN or infinite, and `on_nonfinite_loss` is "raise", or it is "auto" and a
                gradient is so too; nothing was changed.
        """
        self._refuse_capture()
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
            if loss is not None and result is not None:
                raise OptionError(f"{type(self).__name__}.step() got both a closure and a loss: give one of them.")
            # A feed has heard the whole step, of which the closure may return a part: the last micro-batch.
            if loss is None and not getattr(self._observed, "is_whole", False):
                loss = result
        if loss is not None:
            self.observe(loss)
        self._refuse_unsupported_gradients()
        self._refuse_flat_partitions()
        if self._observed is not None:
            self._advance(self._observed)
        elif self._is_probe():
            self._create_state()
            return result
        elif not self._continues():
            raise MissingLossError(
                f"{type(self).__name__}.step() got no loss. Emotion-driven optimizers need the training loss of every"
                " step. Under a Trainer: its training_step must call self.accelerator.backward(loss); train with"
                " emo_hf.EmoTrainer, or call emo_hf.attach(trainer), or add emo_hf.EmotionCallback to it. Under"
                " accelerate: call accelerator.backward(loss), and emo_hf.attach(accelerator) where importing emo_hf"
                " does not patch it. In your own loop: call optimizer.step(loss=loss) or optimizer.step(closure)."
            )
        if not self._skipping:
            self._apply()
        if self.writer is not None and not self._skipping and not self._stepped:
            self._write(self.writer)
        self._stepped.update(map(id, self.param_groups))
        for group in self.param_groups:
            self._publish_to(group)
        return result

    def _advance(self, observed: float | Scalar) -> None:
        self._observed = None
        self._stepped.clear()
        try:
            over_ranks = self.options["loss_over_ranks"]
            self._loss = hear(observed, f"{type(self).__name__}.step()", over_ranks, self.param_groups)
        except NonFiniteLossError:
            policy = self.options["on_nonfinite_loss"]
            if policy == "raise" or (policy == "auto" and not gradients_are_finite(self.param_groups)):
                raise
            self._skipping = True
            self._state.skipped += 1
            self.note_clipping(1.0)
            if "left out" not in self._said:
                self._said.add("left out")
                say_left_out(self.key, self._state.steps + self._state.skipped)
            return
        self._skipping = False
        was_ready = self._state.ready
        schedule = self._measurement.begin(self.mechanism, self._state, self.param_groups)
        self.mechanism.advance(self._state, self._loss, schedule)
        self._move_geometry(rising=bool(self._state.ready) and not was_ready)

    def _continues(self) -> bool:
        # DeepSpeed ZeRO calls step() once per parameter group, so one observed loss serves each group once.
        # A mechanism that measures would see parts of the model.
        others = bool(self._stepped) and self._stepped.isdisjoint(map(id, self.param_groups))
        return others and not self.mechanism.measures

    def _is_probe(self) -> bool:
        # torch.distributed.checkpoint creates the state of a fresh optimizer by a step with every lr at 0.
        return all(float(group["lr"]) == 0 for group in self.param_groups)

    def _forget_step(self) -> None:
        """Clears what belongs to one step only and no checkpoint holds."""
        self._observed = None
        self._loss = math.nan
        self._skipping = False
        self._stepped: set[int] = set()  # ids of the groups that used the current loss
        self._rate: Rate | None = None
        self._moments: Moments | None = None
        self._measurement = Measurement(self.options["lr"])
        self._whole = False  # whether no parameter is a flat partition; whoever makes them does so before a first step

    # -- the parameters --------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        if self.options["moments"] != "off":
            self._moments = gradient_moments([p.grad for p in self._with_gradient() if p.grad is not None])
        for i, group in enumerate(self.param_groups):
            rate = self.mechanism.rate(self._state, float(group["lr"]), group["scope"])
            if self._moments is not None and self.options["moments"] == "drive":
                rate = rate._replace(step=rate.step * self._moments.factor)
            if i == 0 and not self._stepped:
                self._rate = rate
            group["effective_lr"] = rate.step  # what loggers of other trainers look for
            self._update(group, self._hyper(group, rate))
        self._geometry.scale = 1.0
        self._measurement.end()

    def _update(self, group: dict[str, Any], hyper: Hyper) -> None:
        params = [param for param in group["params"] if param.grad is not None]
        states = self._states_of(params, hyper)
        if self._uses_shadow:
            for param, state in zip(params, states, strict=True):
                self.spec.shadow.apply(param, state, self._state.scalar)
        lists = params, [param.grad for param in params if param.grad is not None], states
        sums = self._measurement.sums_of(group)
        kernels.apply(self.options["implementation"], self.spec.update, lists, hyper, self._geometry.scale, sums)

    def _hyper(self, group: dict[str, Any], rate: Rate) -> Hyper:
        beta1, beta2 = group.get("betas", (0.0, 0.0))
        decay = rate.decay * group.get("weight_decay", 0.0)
        return Hyper(
            step=rate.step,
            decay=decay,
            lion_decay=decay / group["scope"] if decay and self._on("decoupled_weight_decay") else decay,
            beta1=beta1,
            beta2=beta2,
            eps=group.get("eps", 0.0),
            scalar=self._state.scalar,
            lynx_betas=group.get("lynx_betas", (0.0, 0.0)),
            freshness=self._geometry.freshness,
            age=int(self._state.steps - group["start"]) if "start" in group else 0,
        )

    def _states_of(self, params: list[Tensor], hyper: Hyper | None = None) -> list[dict[str, Tensor]]:
        """Returns the states of parameters with a gradient; at the step `hyper` a new one may join older ones."""
        states = [self.state[param] for param in params]
        stateless = self.spec.update.init is updates.nothing and not self._uses_shadow
        if not all(states) and not (stateless and not any(map(compensation.applies_to, params))):
            for param, state in zip(params, states, strict=True):
                if not state:
                    state.update(self._new_state(param))
                    if hyper is not None and hyper.age > 1 and self.spec.update.join and param.grad is not None:
                        self.spec.update.join(state, param.grad, hyper)
        return states

    def _new_state(self, param: Tensor) -> dict[str, Tensor]:
        state = self.spec.update.init(param)
        if self._uses_shadow:
            state.update(self.spec.shadow.start(param))
        if compensation.applies_to(param):
            state.update(self._compensate(param))
        return state

    def _compensate(self, param: Tensor) -> dict[str, Tensor]:
        if self.options["compensation"] == "kahan":
            return {compensation.KEY: torch.zeros_like(param)}
        if "16 bits" not in self._said:
            self._said.add("16 bits")
            warnings.warn(
                f"{self.spec.key} got weights in {param.dtype} without compensation: steps far below the spacing of a"
                " weight are lost (at a step size of 1e-5 most weights never move). Pass compensation='kahan' (2 more"
                " bytes per weight), or train float32 weights under autocast (bf16=True in TrainingArguments).",
                stacklevel=2,
            )
        return {}

    def _create_state(self) -> None:
        self._states_of(self._with_gradient())

    def _with_gradient(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _move_geometry(self, rising: bool) -> None:
        norm_step = self.spec.geometry
        if norm_step is None or not norm_step.looks(self._geometry, rising):
            return
        params = self._with_gradient()
        norm = kernels.l1_norm(self.options["implementation"], params)
        norm = geometry.l1_norm(params) if norm is None else norm
        size = float(sum(param.numel() for param in params))
        norm_step.before(self._geometry, norm, size, self.param_groups[0].get("betas", (0.0,))[0])
        if self._uses_shadow and params:  # the shadow sees rescaled weights
            compensation.scale_(params, [self.state[param] for param in params], self._geometry.scale)
            self._geometry.scale = 1.0
        if rising:
            norm_step.after(self._geometry)

    def _refuse_capture(self) -> None:
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            raise EmoError(
                f"{type(self).__name__}.step() was called while a CUDA graph is being captured. The host makes the"
                " numbers of a step from its loss, so a graph would repeat those of one step for ever. Capture forward"
                " and backward only, and call step(loss=...) after each replay."
            )

    def _refuse_unsupported_gradients(self) -> None:
        for param in self._with_gradient():
            if param.is_complex() or (param.grad is not None and param.grad.is_sparse):
                raise EmoError(
                    f"{type(self).__name__} got a sparse gradient or a complex parameter of shape"
                    f" {tuple(param.shape)}; expected dense real ones. Use sparse=False in the embedding, or give"
                    " that parameter to torch.optim.SparseAdam."
                )

    def _refuse_flat_partitions(self) -> None:
        if self._whole or (self.spec.elementwise and self.options["moments"] == "off"):
            return
        for param in (p for group in self.param_groups for p in group["params"]):
            if getattr(param, "_fsdp_flattened", False) or param.shape not in self._shapes:
                raise EmoError(
                    f"{self.spec.key} needs every parameter whole and in its own shape, or its statistics over tensors"
                    f" or over the whole model would be silently wrong; it got a flat partition of shape"
                    f" {tuple(param.shape)}, as DeepSpeed ZeRO and FSDP1 make them. Use DDP or FSDP2, or an"
                    " element-wise optimizer, such as emosens, emoairy or emocats, with moments='off'."
                )
        self._whole = True

    def _on(self, option: str) -> bool:
        return bool(self.options.get(option, False))

    @property
    def _uses_shadow(self) -> bool:
        return self.spec.shadow.always or self._on("use_shadow")

    # -- what can be seen ------------------------------------------------------------------------------------------

    @property
    def effective_lr(self) -> float:
        """Step size used in the first parameter group at the last step; nan before the first."""
        return self._rate.step if self._rate else math.nan

    @property
    def should_stop(self) -> bool:
        """The hint that training may stop (upstream's name)."""
        return bool(self._state.ready)

    @property
    def key(self) -> str:
        """What it is, e.g. "emosens-3.9"."""
        return self.spec.key

    @property
    def steps(self) -> int:
        """Steps with a finite loss, those before a resume included."""
        return int(self._state.steps)

    @property
    def skipped_steps(self) -> int:
        """Steps left out because of a non-finite loss."""
        return int(self._state.skipped)

    @property
    def found(self) -> Found | None:
        """EmoFree: the step size that its ramp found, None before. str() says it in words."""
        return self.mechanism.found(self._state)

    @property
    def bounds(self) -> Bounds | None:
        """Between which step sizes the pulse of the first parameter group moves; None where there is no pulse."""
        return self.mechanism.bounds(self.param_groups[0]["scope"])

    def signals(self) -> Signals | None:
        """Returns what the last step saw and decided, or None before the first step."""
        if self._rate is None:
            return None
        mix = max(self.spec.shadow.mix(self._state.scalar), 0.0) if self._uses_shadow else None
        signals = self.mechanism.signals(self._state, self._loss, self._rate, shadow_mix=mix)
        return replace(signals, **self._moments.signals()) if self._moments else signals

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; it shares the emotion of the others. Its `lr` becomes its scope; at 0 it is frozen."""
        own = {
            k: v for k, v in param_group.items() if k in GROUP_OPTIONS and k in {*self.spec.options, *self.spec.dead}
        }
        if not own.get("weight_decay"):
            own.pop("weight_decay", None)  # Trainer gives every group one: 0 is no request where it is dead
        if "lr" in own and float(own["lr"]) == 0:
            own.pop("lr")
        own = self._without_dead(own)
        resolved = self.spec.resolve(own)
        super().add_param_group({**param_group, **{name: resolved[name] for name in own}})
        group = self.param_groups[-1]
        self._advise_on_rate(float(group["lr"]))
        group.setdefault("scope", float(group["lr"]) or float(self.options["lr"]))
        group.setdefault("effective_lr", 0.0)
        if self.spec.update.join is not None:  # a rule that counts steps
            group.setdefault("start", self._state.steps)
        if group.get("weight_decay") and "weight_decay" in self.spec.dead:
            group["weight_decay"] = 0.0
        group["optimizer"] = self.spec.key
        self._shapes.update(p.shape for p in group["params"])
        self._whole = False
        self._publish_to(group)

    def _advise_on_rate(self, lr: float) -> None:
        if not (self.spec.lr_is_multiplier and 0 < lr < LEAST_MULTIPLIER) or "rate" in self._said:
            return
        self._said.add("rate")
        if is_main_process():
            logger.warning(
                "The learning rate is a multiplier for %s: %g means %s. Leave it out for %g (in TrainingArguments,"
                " leave learning_rate unset, or give it to args.set_optimizer(), which otherwise sets 5e-05).",
                self.key,
                lr,
                f"{lr:g} times what it finds" if self.mechanism.measures else f"a step of about {lr * 1e-4:g}",
                self.spec.options["lr"],
            )

    def _write(self, writer: Writer) -> None:
        signals = self.signals()
        for tag, value in signals.log().items() if signals else ():
            writer.add_scalar(tag, value, int(self._state.steps))

    def _publish_to(self, group: dict[str, Any]) -> None:
        group["emo"] = self._state.pack()
        if self.spec.geometry:
            group["geometry"] = self._geometry.pack()

    def state_dict(self) -> dict[str, Any]:
        self._settle()
        return super().state_dict()

    def _settle(self) -> None:
        if self._measurement.settle(self.mechanism, self._state):
            for group in self.param_groups:
                self._publish_to(group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state of the same spec; `state_dict` is not changed.

        Raises:
            CheckpointError: the state belongs to another spec, another version or another optimizer, or it does not
                fit the parameters and groups of this one (`emo_hf.saved_state`); nothing was changed.
        """
        if not isinstance(state_dict, dict):  # hooks would fail over it
            saved_state.check(state_dict, self.spec, self.param_groups)  # type: ignore[unreachable]
        # as the last hook: what other hooks make of the state is looked at, and before anything is loaded
        last = self.register_load_state_dict_pre_hook(
            lambda _, state: saved_state.check(state, self.spec, self.param_groups)
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            last.remove()
        for param, state in self.state.items():  # an option that was switched on since has its state start now
            state.update({**self._new_state(param), **{name: _owned(tensor) for name, tensor in state.items()}})
        self._forget_step()
        self._read_groups()

    def _read_groups(self) -> None:
        if not self.param_groups:
            return
        self._state = self.mechanism.restore(tuple(self.param_groups[0]["emo"]))
        if self.spec.geometry:
            self._geometry = geometry.GeometryState(*self.param_groups[0]["geometry"])

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return {
            **super().__getstate__(),
            **{name: getattr(self, name) for name in ("spec", "options", "mechanism", "_shapes", "_said")},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "spec" in state:  # unpickled or copied; load_state_dict passes the torch part only
            self.writer = None
            self.zeroed = 0
            self._geometry = geometry.GeometryState()
            self._forget_step()
            self._read_groups()

    def __repr__(self) -> str:
        """Tells the rate and what differs from the defaults, also of parameter groups that differ from each other."""
        given = {name: value for name, value in self.options.items() if value != self.spec.options[name]}
        parts = {"version": self.spec.version, "lr": self.options["lr"], **given}
        shown = [{name: group[name] for name in GROUP_OPTIONS if name in group} for group in self.param_groups]
        changed = [{k: value for k, value in group.items() if value != self.options.get(k)} for group in shown]
        if any(changed):
            parts["groups"] = changed
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in parts.items())})"
