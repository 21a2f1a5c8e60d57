"""peft itself says what adapters of its own and of ours change; where it can be imported."""

import numpy as np
import pytest

from osjax import weights
from osjax.weights import lora_file
from osjax.weights.leaves import of_params
from osjax.weights.lora_merge import merged
from tests.training import tiny
from tests.weights.test_lora import CONFIGS, adapters

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")


def module():
    """A torch model of nothing but the layers, by the original's names and with their weights."""
    given, root = weights.to_torch(tiny.CONFIG, tiny.host_params()), torch.nn.Module()
    for name, value in given.items():
        if not (name.endswith(".weight") and value.ndim == 2):
            continue
        *path, last = name.removesuffix(".weight").split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at._modules[part]
        layer = torch.nn.Linear(value.shape[1], value.shape[0], bias=False)
        layer.weight.data = torch.from_numpy(np.array(value))
        at.add_module(last, layer)
    return root


def matrices(model):
    return {name: x.detach().numpy() for name, x in model.state_dict().items()}


def ours(folder):
    after = merged(of_params(tiny.host_params()), lora_file.read(folder, tiny.CONFIG)).tree()
    return weights.to_torch(tiny.CONFIG, after)


@pytest.mark.parametrize(
    "settings",
    [
        dict(r=2, lora_alpha=8),
        dict(r=2, lora_alpha=8, alpha_pattern={"q_proj": 32}, rank_pattern={r"double_blocks\.\d+\.txt_.*": 5}),
        dict(r=3, lora_alpha=5, use_rslora=True, alpha_pattern={"^single_blocks.1.linear2": 1, "linear2": 9}),
        dict(r=2, lora_alpha=8, use_dora=True),
        dict(r=3, lora_alpha=5, use_rslora=True, use_dora=True, rank_pattern={"q_proj": 2}),
    ],
)
def test_what_peft_trained_changes_here_what_peft_changes(tmp_path, settings):
    cfg = peft.LoraConfig(target_modules=["q_proj", "v_proj", "linear2", "txt_in"], **settings)
    trained = peft.get_peft_model(module(), cfg)
    torch.manual_seed(0)
    for name, x in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(x)
        if "magnitude" in name:
            x.data *= 1 + torch.rand(x.shape)
    trained.save_pretrained(tmp_path / "p")
    before, got, want = matrices(module()), ours(tmp_path / "p"), matrices(trained.merge_and_unload())
    changed = [name for name in before if np.abs(want[name] - before[name]).max() > 0.1]
    assert len(changed) == 9  # q and v of two streams, q of two single blocks, two linear2, txt_in
    for name in before:
        np.testing.assert_allclose(got[name], want[name], atol=1e-4)


@pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)
def test_what_is_exported_changes_in_peft_what_it_changes_here(tmp_path, cfg):
    given = adapters(cfg)
    lora_file.write(tmp_path / "p", tiny.CONFIG, given)
    got = matrices(peft.PeftModel.from_pretrained(module(), tmp_path / "p").merge_and_unload())
    before, want = matrices(module()), ours(tmp_path / "p")
    for name in before:
        np.testing.assert_allclose(got[name], want[name], atol=1e-4)
    assert sum(np.abs(want[name] - before[name]).max() > 0.1 for name in before) >= 4
