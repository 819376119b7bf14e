"""The fit itself: Adam over one drawn window after the other, watched on frames that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from deployments.engines.gaussian_splatting.config import FitConfig
from deployments.engines.gaussian_splatting.losses import picture_loss, psnr
from deployments.engines.gaussian_splatting.network import Binding, Gaussians, Pose, draw, pose
from deployments.engines.gaussian_splatting.rig import EYES, SKIN
from deployments.engines.gaussian_splatting.shots import FAINT, Shots

LOOKS = 12  # held-out windows that are looked at
DEAD = 0.03  # opacity of a Gaussian that may move elsewhere
SPLIT = 0.63  # both halves of a split Gaussian shrink by this (Kerbl et al. 2023 divide by 1.6)
LATE = 0.02  # share of the rate that is left at the end


@dataclass
class Run:
    """State of a fit between two looks; all that a resumed fit needs."""

    avatar: Gaussians  # the tensors that are learned
    best: Gaussians
    moments: list[tuple[Tensor, Tensor]]  # Adam's, in the order of the fields
    error: Tensor  # [N] gradients summed since the last refill: where more Gaussians are wanted
    step: int = 0
    best_psnr: float = -math.inf
    stale: int = 0  # looks without gain
    history: list[dict[str, float]] = field(default_factory=list)


def new_run(avatar: Gaussians) -> Run:
    """Nothing learned yet."""
    zeros = [(torch.zeros_like(t), torch.zeros_like(t)) for t in (getattr(avatar, part.name) for part in fields(avatar))]
    return Run(avatar.map(torch.clone), avatar.map(torch.clone), zeros, torch.zeros_like(avatar.opacity))


def train(
    run: Run, binding: Binding, shots: Shots, sizes: Tensor, config: FitConfig, look: Callable[[Run, Binding], None]
) -> Binding:
    """Learn from the first windows, look at the last; sizes [N, 3] pull back to `sizes`. Calls `look` at every look.

    Returns the binding, in which some Gaussians have moved to other triangles.
    """
    optimiser = _Adam(run, rates(float(shots.pose.scale.median()), config), config.basis_decay)
    while run.step < config.steps and run.stale < config.patience:
        noise = torch.Generator().manual_seed(config.seed * 1_000_003 + run.step)
        row = int(torch.randint(shots.taught, (1,), generator=noise))
        loss = _loss(run.avatar, binding, shots, row, sizes, config, noise)
        gradients = torch.autograd.grad(loss, list(run.avatar.__dict__.values()))
        run.error += gradients[2].norm(dim=1)
        optimiser.step(gradients, run.step, config.steps)
        run.step += 1
        if run.step in config.refill_at:
            binding = _refill(run, binding, noise)
            run.error.zero_()
        if run.step % config.check_every == 0 or run.step == config.steps:
            _look(run, binding, shots, float(loss.detach()))
            look(run, binding)
    return binding


def rates(unit: float, config: FitConfig) -> list[float]:
    """Adam's rates in the order of the fields; offsets are given in pixels, of which an eye distance has `unit`."""
    offset, basis = config.offset_rate / unit, config.offset_basis_rate / unit
    shape = config.shape_rate
    return [config.colour_rate, config.colour_basis_rate, offset, basis, shape, shape, config.opacity_rate]


class _Adam:
    """Adam (Kingma, Ba 2015) with decoupled decay of the bases; its moments live in the run, which can be saved."""

    def __init__(self, run: Run, learn: list[float], decay: float) -> None:
        self.run, self.learn, self.decay = run, learn, decay
        for tensor in run.avatar.__dict__.values():
            tensor.requires_grad_(True)

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], step: int, steps: int) -> None:
        fade = LATE + (1 - LATE) * 0.5 * (1 + math.cos(math.pi * step / steps))
        correction = math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        tensors = list(self.run.avatar.__dict__.items())
        for (name, tensor), gradient, (mean, square), rate in zip(tensors, gradients, self.run.moments, self.learn, strict=True):
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            if name.endswith("_basis"):
                tensor.mul_(1 - rate * fade * self.decay)
            tensor.addcdiv_(mean, square.sqrt().add_(1e-10), value=-rate * fade * correction)


def _loss(
    avatar: Gaussians, binding: Binding, shots: Shots, row: int, sizes: Tensor, config: FitConfig, noise: torch.Generator
) -> Tensor:
    """Cost of one window, drawn over a random colour so that nothing learns to be see-through."""
    filmed, weight = window(shots, row, config.lip_weight)
    at = pose_of(shots, row)
    code = at.code + config.code_noise * torch.randn(at.code.shape, generator=noise).to(at.code.device)
    picture = draw(pose(avatar, binding, Pose(at.vertices, at.scale, code)), filmed.new_zeros(1, 2), *filmed.shape[1:3])
    behind = torch.rand(3, generator=noise).to(filmed.device)
    drawn = picture.colours + (1 - picture.alpha[..., None]) * behind
    size = ((avatar.size - sizes) ** 2).mean()
    return picture_loss(drawn, filmed, weight, config.ssim_weight, config.gradient_weight) + config.size_weight * size


def window(shots: Shots, row: int, lip_weight: float) -> tuple[Tensor, Tensor]:
    """Filmed window [1, h, w, 3] in 0..1 and pixel weights [1, h, w]."""
    weight = shots.weight[row].float() / 255
    x0, y0, x1, y1 = shots.mouth[row].tolist()
    weight[y0:y1, x0:x1] *= lip_weight
    return shots.rgb[row].float()[None] / 255, weight[None]


def pose_of(shots: Shots, row: int) -> Pose:
    """Where the rig was in one window."""
    part = slice(row, row + 1)
    return Pose(shots.pose.vertices[part], shots.pose.scale[part], shots.pose.code[part])


@torch.no_grad()
def held_out(avatar: Gaussians, binding: Binding, shots: Shots) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some of the held-out windows [1, h, w, 3], drawn and filmed, and their pixel weights [1, h, w]."""
    for row in torch.linspace(shots.taught, len(shots) - 1, min(LOOKS, len(shots) - shots.taught)).long().unique().tolist():
        filmed, weight = window(shots, row, 1.0)
        weight = torch.where(weight > FAINT, weight, 0.0)  # only what will be shown
        yield draw(pose(avatar, binding, pose_of(shots, row)), filmed.new_zeros(1, 2), *filmed.shape[1:3]).colours, filmed, weight


@torch.no_grad()
def _look(run: Run, binding: Binding, shots: Shots, loss: float) -> None:
    """PSNR over the held-out windows; the best avatar so far is kept."""
    found = [psnr(drawn, filmed, weight) for drawn, filmed, weight in held_out(run.avatar, binding, shots)]
    mean = sum(found) / len(found)
    run.history.append({"step": run.step, "loss": round(loss, 5), "psnr": round(mean, 3)})
    run.stale += 1
    if mean > run.best_psnr + 0.01:
        run.best_psnr, run.stale = mean, 0
        run.best = run.avatar.map(lambda tensor: tensor.detach().clone())


@torch.no_grad()
def _refill(run: Run, binding: Binding, noise: torch.Generator) -> Binding:
    """Prune and densify at once: dead Gaussians become the second half of those of their kind whose place is wrong most.

    The number stays, as in 3DGS-MCMC (Kheradmand et al. 2024): buffers and moments keep their shapes.
    """
    opacity = torch.sigmoid(run.avatar.opacity)
    owner, weights = binding.owner.clone(), binding.weights.clone()
    layer = binding.layer
    eyes = [(layer == EYES + k) for k in range(2 * len(binding.lids))]
    for kind in (layer == SKIN, (layer != SKIN) & (layer < EYES), *eyes):
        dead = torch.nonzero(kind & (opacity < DEAD))[:, 0]
        alive = torch.nonzero(kind & (opacity >= 0.3))[:, 0]
        dead = dead[: len(alive)]
        chosen = alive[run.error[alive].argsort(descending=True)[: len(dead)]]
        owner[dead], weights[dead] = owner[chosen], weights[chosen]
        _split(run, dead, chosen, noise)
    return replace(binding, owner=owner, weights=weights)


def _split(run: Run, dead: Tensor, chosen: Tensor, noise: torch.Generator) -> None:
    avatar = run.avatar
    avatar.size[chosen] += math.log(SPLIT)
    for name, (mean, square) in zip(avatar.__dict__, run.moments, strict=True):
        tensor: Tensor = getattr(avatar, name)
        rows = (slice(None), dead) if name.endswith("_basis") else (dead,)
        tensor[rows] = tensor[(slice(None), chosen) if name.endswith("_basis") else (chosen,)]
        mean[rows], square[rows] = 0, 0
    spread = avatar.size[chosen].exp() * torch.randn(len(chosen), 3, generator=noise).to(dead.device)
    avatar.offset[dead] += spread
