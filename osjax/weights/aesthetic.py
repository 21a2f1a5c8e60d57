"""Where each tensor of the published aesthetic predictor lives in the Flax tree."""

from osjax.models.aesthetic import AestheticConfig
from osjax.weights.rules import LINEAR, Rule


def table(cfg: AestheticConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor.

    Published numbers count the dropouts, one behind each layer but the last two.
    """
    widths, rules = (cfg.input_size, *cfg.widths, 1), []
    last = len(widths) - 2
    for n, (inside, outside) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        name = f"layers.{2 * n - (n == last)}"
        rules.append(Rule(f"{name}.weight", (outside, inside), (f"layer{n}", "kernel"), LINEAR))
        rules.append(Rule(f"{name}.bias", (outside,), (f"layer{n}", "bias")))
    return rules
