"""Where each tensor of the 3D patch discriminator lives in the Flax tree.

Source: Open-Sora opensora/models/vae/discriminator.py.
The original numbers its layers through, activations and dropouts too: four to a convolution with a norm.
"""

from osjax.models.discriminator import KERNEL, STATISTICS, DiscriminatorConfig
from osjax.weights.rules import SAME, Rule, transpose

FLAX_KERNEL = transpose(2, 3, 4, 1, 0)  # torch (out, in, t, h, w) -> flax (t, h, w, in, out)


def table(cfg: DiscriminatorConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the original's state dict.

    Running statistics and counters of batches are among them.
    """
    rules = _conv(0, "conv0", cfg.input_nc, cfg.width(0))
    rules.append(Rule("main.0.bias", (cfg.width(0),), ("conv0", "bias")))
    for n in range(1, cfg.n_layers + 1):
        place, width = 4 * n - 2, cfg.width(n)
        rules += _conv(place, f"conv{n}", cfg.width(n - 1), width) + _norm(place + 1, f"norm{n}", width)
    last = 4 * cfg.n_layers + 2
    rules += _conv(last, "conv_out", cfg.width(cfg.n_layers), 1)
    return [*rules, Rule(f"main.{last}.bias", (1,), ("conv_out", "bias"))]


def _conv(place: int, name: str, n_in: int, n_out: int) -> list[Rule]:
    return [Rule(f"main.{place}.weight", (n_out, n_in, *KERNEL), (name, "kernel"), FLAX_KERNEL)]


def _norm(place: int, name: str, width: int) -> list[Rule]:
    pairs = {"weight": "scale", "bias": "bias", **{s: s for s in STATISTICS}}
    return [
        Rule(f"main.{place}.{torch}", () if torch == "num_batches_tracked" else (width,), (name, ours), SAME)
        for torch, ours in pairs.items()
    ]
