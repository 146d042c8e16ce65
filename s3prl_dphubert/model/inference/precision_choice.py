"""Choice of the number type that a model's products and convolutions take least time in, by measuring them.

What is fast differs between processors: bfloat16 takes half of float32's time on some and twice on others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils import environment
from ...utils.environment import versions
from ...utils.files import user_cache_dir, write_text
from ...utils.readers import read_record
from ..model_config import ModelConfig
from ..speech_model import AUTOCAST

log = logging.getLogger(__name__)

AUTO = "auto"
SECONDS = 1.5  # after which a measurement ends; with what began before, it takes at most two
ROUNDS = 9  # of each number type, at most
FRAMES = 200  # of a product: four seconds of audio
GAIN = 0.9  # share of float32's time from which the lower precision is chosen
FORMAT = 1  # to be raised whenever the same shapes would be measured in another way
PACKAGES = ("torch", "numpy")

Product = tuple[str, int, int, int]
"""``linear`` or ``conv``, inputs, outputs, kernel."""


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision that was chosen, and why.

    Args:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        seconds: precision -> least seconds of the model's products for four seconds of audio.
        ratio: time of the lower precision over that of float32.
        place: processor or GPU.
        training: whether gradients were computed, too.
    """

    precision: str
    seconds: dict[str, float]
    ratio: float
    place: str
    training: bool

    def __str__(self) -> str:
        lower = next(name for name in self.seconds if name != "fp32")
        work = "products with gradients" if self.training else "products"
        return (
            f"precision auto: {self.precision}, since {lower} takes {self.ratio:.2f} of float32's time for "
            f"this model's {work} on {self.place}"
        )


def resolve(precision: str, config: ModelConfig, device: torch.device, training: bool = False) -> str:
    """Return a precision as it is, or for ``auto`` the faster one, and say once which that is.

    Args:
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto``.
        config: shape of the model.
        device: where it runs.
        training: whether it is trained; scaling of losses is not chosen, so that it is never fp16.
    """
    if precision != AUTO:
        return precision
    return choose(config, device, training).precision


def choose(config: ModelConfig, device: torch.device, training: bool = False) -> PrecisionChoice:
    """Return the faster precision for a model on this machine, measured once per machine and versions.

    Arguments as of :func:`resolve`.
    """
    lower = "fp16" if device.type == "cuda" and not training else "bf16"
    return _choose(products(config), device, lower, training)


def products(config: ModelConfig) -> tuple[tuple[Product, int, int], ...]:
    """Return the products of a model: each with its number and its rows for :data:`FRAMES` frames.

    The first convolution, which is float32 in every precision, and the scores of attention are left out.
    """
    counts: Counter[tuple[Product, int]] = Counter()
    rows = FRAMES * config.stride
    channels = (1, *config.conv_channels)
    for index, (kernel, stride) in enumerate(zip(config.conv_kernels, config.conv_strides, strict=True)):
        rows //= stride
        if index:
            counts[("conv", channels[index], channels[index + 1], kernel), rows] += 1
    width = config.embed_dim
    counts[("linear", channels[-1], width, 1), FRAMES] += 1
    for heads, units in zip(config.heads, config.ffn, strict=True):
        inner = len(heads or ()) * config.head_dim
        if inner:
            counts[("linear", width, 3 * inner, 1), FRAMES] += 1
            counts[("linear", inner, width, 1), FRAMES] += 1
        if units:
            counts[("linear", width, units, 1), FRAMES] += 1
            counts[("linear", units, width, 1), FRAMES] += 1
    return tuple((product, rows, count) for (product, rows), count in sorted(counts.items()))


@cache
def _choose(
    shapes: tuple[tuple[Product, int, int], ...],
    device: torch.device,
    lower: str,
    training: bool,
) -> PrecisionChoice:
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    key = [FORMAT, place, device.type, lower, training, shapes, versions(PACKAGES)]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = user_cache_dir() / "precision" / f"{name}.json"
    choice = _read(path)
    if choice is None:
        seconds = measure(shapes, device, lower, training)
        ratio = seconds[lower] / seconds["fp32"]
        precision = lower if ratio < GAIN else "fp32"
        choice = PrecisionChoice(precision, seconds, ratio, place, training)
        with suppress(OSError):  # a cache that cannot be written costs two seconds the next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(asdict(choice), indent=1) + "\n")
        choice = _read(path) or choice  # of two processes that measured, both take what the last one wrote
    if environment.is_first_process():
        log.warning("%s", choice)
    return choice


def _read(path: Path) -> PrecisionChoice | None:
    """Return the choice in a file; none if it is missing or damaged."""
    try:
        choice = PrecisionChoice(**read_record(path))
        lower = (set(choice.seconds) - {"fp32"}).pop()
        finite = all(math.isfinite(value) and value > 0 for value in (*choice.seconds.values(), choice.ratio))
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    expected = lower if choice.ratio < GAIN else "fp32"
    return choice if finite and lower in AUTOCAST and choice.precision == expected else None


def processor() -> str:
    """Return name and number of the processor, and what PyTorch uses of it."""
    fields = environment.cpuinfo()
    number = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
    return f"{environment.processor()} ({number}, {torch.backends.cpu.get_cpu_capability()})"


def measure(
    shapes: Sequence[tuple[Product, int, int]], device: torch.device, lower: str, training: bool
) -> dict[str, float]:
    """Measure the products in float32 and in the lower precision, in turns.

    On the processor one thread is measured, by its own clock, and the least time of each product counts:
    other work on the machine would mislead the time of several threads that wait for each other. What is not
    reached within :data:`SECONDS` is left out, in both precisions.

    Returns:
        Precision -> seconds.
    """
    names = ("fp32", lower)
    best: dict[int, dict[str, float]] = {}
    threads, end = torch.get_num_threads(), time.perf_counter() + SECONDS
    order = [(turn, index) for turn in range(ROUNDS) for index in range(len(shapes))]
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            for turn, index in order:
                product, rows, _ = shapes[index]
                times = best.setdefault(index, dict.fromkeys(names, math.inf))
                for name in names[:: -1 if turn % 2 else 1]:
                    run = _run(product, rows, device, name, training)
                    if not turn:  # prepares the kernels
                        _time(run, device)
                    times[name] = min(times[name], _time(run, device))
                if time.perf_counter() > end:
                    break
    finally:
        torch.set_num_threads(threads)
    return {name: sum(shapes[index][2] * best[index][name] for index in best) for name in names}


def _time(run: Callable[[], object], device: torch.device) -> float:
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(clock() - began, 1e-9)


def _run(
    product: Product, rows: int, device: torch.device, precision: str, training: bool
) -> Callable[[], object]:
    """Return a product to time: as a folded model has it, or with its gradients under autocast."""
    kind, inputs, outputs, kernel = product
    dtype = AUTOCAST.get(precision, torch.float32)
    stored = torch.float32 if training else dtype  # autocast converts weights in every step
    sizes: tuple[tuple[int, ...], tuple[int, ...]] = (rows, inputs), (outputs, inputs)
    if kind == "conv":
        samples = 2 * (rows - 1) + kernel
        sizes = (
            ((1, inputs, samples), (outputs, inputs, kernel))
            if training
            else ((1, inputs, 1, samples), (outputs, inputs, 1, kernel))
        )
    x, weight = (torch.randn(size, device=device, dtype=stored) for size in sizes)
    if kind == "linear":
        function: Callable[[Tensor, Tensor], Tensor] = F.linear
    elif training:
        function = partial(F.conv1d, stride=2)
    else:
        x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
        function = partial(F.conv2d, stride=(1, 2))
    if not training:
        return torch.no_grad()(partial(function, x, weight))
    x.requires_grad_(True)
    weight.requires_grad_(True)

    def run() -> None:
        y = function(x.to(dtype), weight.to(dtype))
        torch.autograd.grad(y, (x, weight), y.detach())

    return torch.enable_grad()(run)
