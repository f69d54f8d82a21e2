"""Writes peers.json: steps of the optimizers that tlr is compared with, by their own packages.

    python3 -m venv venv
    venv/bin/pip install torch numpy parameterfree mechanic-pytorch momo-opt schedulefree
    venv/bin/python tests/golden/peers.py [tests/golden/peers.json]

Made with torch 2.15.0, parameterfree 0.0.1, mechanic-pytorch 0.0.1, momo-opt 0.1.0 and
schedulefree 1.4.1. float64, on the CPU. The problem is a perceptron 3-5-1 with tanh, a mean of
squares over 24 examples, all of them in each step. A step's loss is that before it; rates and
weights are those after it. Hypergradients are written out here from the paper (the authors' package
is not on PyPI and does not run on today's torch), and so are fastai's and Lightning's suggestions,
whose packages are large.
"""

import json
import math
import sys

import torch

torch.set_default_dtype(torch.float64)

from mechanic_pytorch import mechanize  # noqa: E402
from momo import Momo, MomoAdam  # noqa: E402
from parameterfree import COCOB  # noqa: E402
from schedulefree import AdamWScheduleFree, SGDScheduleFree  # noqa: E402

STEPS = 15
SHAPES = [(5, 3), (5,), (1, 5), (1,)]


def problem():
    generator = torch.Generator().manual_seed(21)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    x = draw(24, 3)
    y = torch.sin(x.sum(1, keepdim=True)) + 0.5 * x[:, :1]
    return x, y, [0.4 * draw(*shape) for shape in SHAPES]


X, Y, PARAMS0 = problem()


def loss_of(params):
    w1, b1, w2, b2 = params
    return ((torch.tanh(X @ w1.T + b1) @ w2.T + b2 - Y) ** 2).mean()


def flat(params):
    return [float(f"{value:.15g}") for p in params for value in p.detach().flatten().tolist()]


def case(name, hyperparameters, make, rate=None, scheduler=None, takes_loss=False, averaged=False):
    """The steps of an optimizer that `make` makes for the parameters."""
    params = [torch.nn.Parameter(p.clone()) for p in PARAMS0]
    optimizer = make(params)
    schedule = scheduler(optimizer) if scheduler else None
    if averaged:
        optimizer.train()
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(params)
        loss.backward()
        lr = optimizer.param_groups[0].get("lr", 0.0)
        if takes_loss:
            optimizer.step(loss=loss)
        else:
            optimizer.step()
        steps.append(
            {
                "loss": loss.item(),
                "rate": [float(f"{(rate(optimizer) if rate else lr):.15g}")],
                "w": flat(params),
            }
        )
        if rate is no_rate:
            steps[-1]["rate"] = []
        if schedule:
            schedule.step()
    result = {"name": name, "hyperparameters": hyperparameters, "steps": steps}
    if averaged:
        optimizer.eval()
        result["averaged"] = flat(params)
    return result


def no_rate(_):
    return 0.0


class Hypergradient(torch.optim.Optimizer):
    """Baydin et al. 2018, equations 6 and 8: the rate moves first, then the weights."""

    def __init__(self, params, lr, meta, multiplicative):
        super().__init__(params, {"lr": lr})
        self.meta, self.multiplicative, self.before = meta, multiplicative, None

    def step(self):
        group = self.param_groups[0]
        gradient = torch.cat([p.grad.flatten() for p in group["params"]])
        if self.before is not None:
            product = gradient @ self.before
            if self.multiplicative:
                group["lr"] *= 1 + self.meta * (
                    product / (gradient.norm() * self.before.norm())
                ).item()
            else:
                group["lr"] += self.meta * product.item()
        self.before = gradient.clone()
        with torch.no_grad():
            for p in group["params"]:
                p -= group["lr"] * p.grad


def of_group(key):
    return lambda optimizer: optimizer.param_groups[0][key]


def sum_s(optimizer):
    return optimizer.state["_mechanic"]["s"].sum().item()


class WithTau:
    """The step size that MoMo takes is not kept by the package: the way over the direction."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self, loss):
        group = self.param_groups[0]
        before = [p.detach().clone() for p in group["params"]]
        self.optimizer.step(loss=loss)
        decay = 1 + group["lr"] * group["weight_decay"]
        p, b = group["params"][0], before[0]
        state = self.optimizer.state[p]
        direction = state["grad_avg"]
        if "grad_avg_sq" in state:
            bias2 = 1 - group["betas"][1] ** self.optimizer._number_steps
            direction = direction / ((state["grad_avg_sq"] / bias2).sqrt() + group["eps"])
        way = b - p.detach() * decay
        self.tau = ((way * direction).sum() / (direction * direction).sum()).item()


def tau(optimizer):
    return optimizer.tau


def cases():
    sgd, scheduler = torch.optim.SGD, torch.optim.lr_scheduler
    yield case(
        "sgd_multistep",
        {"lr": 0.3, "milestones": [6, 11], "gamma": 0.1},
        lambda p: sgd(p, lr=0.3),
        scheduler=lambda o: scheduler.MultiStepLR(o, [6, 11], 0.1),
    )
    yield case(
        "sgd_momentum_cosine",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "cosine": STEPS},
        lambda p: sgd(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        scheduler=lambda o: scheduler.CosineAnnealingLR(o, STEPS),
    )
    yield case(
        "adam",
        {"lr": 0.03, "weight_decay": 0.01},
        lambda p: torch.optim.Adam(p, lr=0.03, weight_decay=0.01),
    )
    yield case(
        "adamw",
        {"lr": 0.03, "weight_decay": 0.1, "decoupled": True},
        lambda p: torch.optim.AdamW(p, lr=0.03, weight_decay=0.1),
    )
    yield case(
        "nadamw_cosine",
        {"lr": 0.03, "weight_decay": 0.1, "cosine": STEPS},
        lambda p: torch.optim.NAdam(p, lr=0.03, weight_decay=0.1, decoupled_weight_decay=True),
        scheduler=lambda o: scheduler.CosineAnnealingLR(o, STEPS),
    )
    yield case(
        "rmsprop",
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.01},
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5, weight_decay=0.01),
    )
    yield case(
        "hypergradient_additive",
        {"lr": 0.02, "meta": 0.01},
        lambda p: Hypergradient(p, 0.02, 0.01, False),
        rate=of_group("lr"),
    )
    yield case(
        "hypergradient_multiplicative",
        {"lr": 0.02, "meta": 0.2},
        lambda p: Hypergradient(p, 0.02, 0.2, True),
        rate=of_group("lr"),
    )
    yield case(
        "cocob",
        {"alpha": 10.0, "weight_decay": 0.01},
        lambda p: COCOB(p, alpha=10.0, weight_decay=0.01),
        rate=no_rate,
    )
    yield case(
        "mechanic_sgd",
        {"lr": 0.1, "momentum": 0.9, "s_init": 1e-3, "s_decay": 0.01},
        lambda p: mechanize(sgd, s_init=1e-3)(p, lr=0.1, momentum=0.9),
        rate=sum_s,
    )
    yield case(
        "mechanic_adam_delta",
        {"lr": 0.01, "s_init": 1e-3, "s_decay": 0.1, "store_delta": True},
        lambda p: mechanize(torch.optim.Adam, s_init=1e-3, s_decay=0.1, store_delta=True)(
            p, lr=0.01
        ),
        rate=sum_s,
    )
    yield case(
        "momo",
        {"lr": 1.0, "weight_decay": 0.01},
        lambda p: WithTau(Momo(p, lr=1.0, weight_decay=0.01)),
        rate=tau,
        takes_loss=True,
    )
    yield case(
        "momo_bound",
        {"lr": 0.5, "lower_bound": 0.01},
        lambda p: WithTau(Momo(p, lr=0.5, lb=0.01)),
        rate=tau,
        takes_loss=True,
    )
    yield case(
        "momo_star",
        {"lr": 0.5, "estimate_bound": True},
        lambda p: WithTau(Momo(p, lr=0.5, use_fstar=True)),
        rate=tau,
        takes_loss=True,
    )
    yield case(
        "momo_adam",
        {"lr": 0.1, "weight_decay": 0.01},
        lambda p: WithTau(MomoAdam(p, lr=0.1, weight_decay=0.01)),
        rate=tau,
        takes_loss=True,
    )
    yield case(
        "schedule_free_sgd",
        {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.01, "warmup_steps": 10, "r": 0.5},
        lambda p: SGDScheduleFree(
            p, lr=0.3, momentum=0.8, weight_decay=0.01, warmup_steps=10, r=0.5, foreach=False
        ),
        rate=of_group("scheduled_lr"),
        averaged=True,
    )
    yield case(
        "schedule_free_adamw",
        {"lr": 0.05, "weight_decay": 0.1, "warmup_steps": 5},
        lambda p: AdamWScheduleFree(p, lr=0.05, weight_decay=0.1, warmup_steps=5, foreach=False),
        rate=of_group("scheduled_lr"),
        averaged=True,
    )


def valley(lrs, losses):
    """fastai 2.8.12, fastai/callback/schedule.py."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(0, i):
            if (losses[i] < losses[j]) and (lds[i] < lds[j] + 1):
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return lrs[max_start + int(sections) + int(sections / 2)]


def steep(lrs, losses):
    """fastai 2.8.12, fastai/callback/schedule.py."""
    lrs, losses = torch.tensor(lrs), torch.tensor(losses)
    grads = (losses[1:] - losses[:-1]) / (lrs[1:].log() - lrs[:-1].log())
    return lrs[grads.argmin()].item()


def lightning(lrs, losses):
    """lightning.pytorch.tuner.lr_finder, with skip_begin=10 and skip_end=1."""
    return lrs[10 + torch.argmin(torch.gradient(torch.tensor(losses[10:-1]))[0]).item()]


def range_test():
    """SGD on the problem from 1e-5 to 100 in 100 steps, as fastai's lr_find."""
    params = [p.clone().requires_grad_() for p in PARAMS0]
    average, best, lrs, losses = 0.0, math.inf, [], []
    for i in range(100):
        lr = 1e-5 * (100.0 / 1e-5) ** (i / 100)
        loss = loss_of(params)
        gradients = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for p, g in zip(params, gradients):
                p -= lr * g
        average = 0.98 * average + 0.02 * loss.item()
        smooth = average / (1 - 0.98 ** (i + 1))
        lrs.append(lr)
        losses.append(smooth)
        best = min(best, smooth)
        if smooth > 4 * best:
            break
    tenth = len(lrs) // 10
    inner = (lrs[tenth:-5], losses[tenth:-5])
    return {
        "rates": lrs,
        "losses": losses,
        "valley": valley(*inner),
        "steep": steep(*inner),
        "lightning": lightning(lrs, losses),
    }


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "tests/golden/peers.json"
    golden = {
        "problem": {
            "kind": "tanh_mlp_mse",
            "X": X.tolist(),
            "Y": Y.tolist(),
            "params0": [p.tolist() for p in PARAMS0],
        },
        "cases": list(cases()),
        "range_test": range_test(),
    }
    with open(path, "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
