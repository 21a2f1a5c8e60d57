"""Shapes of train steps: FLOPs, bytes and what rematerialisation does to them."""

from dataclasses import replace

import jax
import pytest

from osjax import models
from osjax.models import lora, velocity
from osjax.ops import conv
from osjax.parallel import mesh as meshes
from osjax.planning import cost, hlo, memory, program, targets
from osjax.planning.hlo import Collective
from osjax.training import optimizer
from osjax.weights.lora import blank
from tests import golden

TINY = {"in_channels": 16, "vec_in_dim": 8, "context_in_dim": 12, "hidden_size": 32, "num_heads": 2}
TINY |= {"depth": 2, "depth_single_blocks": 3, "axes_dim": (4, 6, 6), "patch_size": 2}
CFG = models.config("mmdit", **TINY)


@pytest.mark.parametrize("here", [True, False])
def test_state_takes_three_arrays_a_parameter_over_the_shards(here):
    mesh = meshes.make(2, 4, 1, 1) if here else meshes.absent(2, 4, 1, 1, count=8)
    step = program.train_step(CFG, optimizer.OptimizerConfig(), mesh, velocity.batch_of(CFG, (2, 4, 4, 4), 8, 7, mesh))
    parameters = sum(x.size for x in jax.tree.leaves(step.state.params))
    assert 3 <= program.bytes_per_device(step.state) / (parameters * 4 / 4) < 3.4  # small ones stay whole
    with_average = optimizer.OptimizerConfig(ema_decay=0.9)
    averaged = program.train_step(CFG, with_average, mesh, step.batch)
    assert program.bytes_per_device(averaged.state) > 1.3 * program.bytes_per_device(step.state)


def test_absent_devices_are_checked_like_those_that_are_there():
    assert dict(meshes.absent(-1, 4, 2, 1, count=64).shape) == {"data": 8, "fsdp": 4, "sequence": 2, "tensor": 1}
    with pytest.raises(Exception, match="does not fit 64 devices: the nearest is data=16, fsdp=4"):
        meshes.absent(3, 4, 1, 1, count=64)


def test_rematerialised_blocks_run_again():
    forward, rows, tokens = 1000, 2, 10
    assert cost.executed_flops(CFG, forward, rows, tokens) == 3 * forward
    assert cost.executed_flops(replace(CFG, remat="full"), forward, rows, tokens) == 4 * forward
    some = replace(CFG, remat="full", remat_blocks=(8, 1))
    assert memory.recomputed_blocks(some) == 3
    assert cost.executed_flops(some, forward, rows, tokens) == pytest.approx(3 * forward + forward * 3 / 5)
    spared = replace(CFG, remat="save_attention")
    attention = 4 * rows * tokens**2 * 32 * 5
    assert cost.executed_flops(spared, forward, rows, tokens) == 4 * forward - attention


def test_a_step_is_bound_by_what_takes_longest():
    target = targets.parse("h200x16")
    ways = {"data": 2, "fsdp": 8, "sequence": 1, "tensor": 1}
    sent = [Collective("all-gather", ("fsdp",), 3, 450_000_000_000), Collective("all-reduce", ("data",), 1, 10**11)]
    bound = cost.bound(CFG, 10**12, 16, 100, 10**6, ways, sent, target)
    assert bound.compute == pytest.approx(3 * 10**12 / (16 * 989.4e12))
    assert bound.links == pytest.approx(1 + 2) and bound.by == "links" and bound.seconds == bound.links
    assert bound.mfu(10**12, target) == pytest.approx(bound.compute / bound.links)


def test_weights_are_gathered_for_each_pass_and_gradients_scattered_once():
    ways, width = {"data": 1, "fsdp": 8, "sequence": 1, "tensor": 1}, 32 * (12 * 2 + 3 * 3 + 2)
    full, parameters = replace(CFG, remat="full"), 1000 + 32 * width  # a thousand beside the modulations'
    rows = 4 * 8 * width * 2

    def sent(cfg, *size, platform="gpu"):
        return [(c.kind, c.axes, c.bytes) for c in cost.collectives_of(cfg, *size, ways, platform)]

    fsdp, shares = ("fsdp",), [2 * 1000 * 3 * 7 // 8, (4 * 1000 + rows) * 7 // 8, 2 * 8 * width * 7 // 8]
    kinds = "all-gather", "reduce-scatter", "all-gather"
    assert sent(full, parameters, 8, 10) == [*zip(kinds, [fsdp] * 3, shares, strict=True)]
    assert sent(full, parameters, 8, 10, platform="tpu")[0][2] == 2 * 1000 * 2 * 7 // 8  # one for two of the passes
    ways = {"data": 2, "fsdp": 4, "sequence": 1, "tensor": 1}
    shared = {(kind, axes): size for kind, axes, size in sent(full, parameters, 8, 10)}
    assert shared["reduce-scatter", fsdp] == (4 * 1000 + rows // 2) * 3 // 4  # a group's own rows
    assert shared["all-gather", ("data", "fsdp")] and shared["all-reduce", ("data",)] == 4 * 1000 // 4
    ways = {"data": 1, "fsdp": 1, "sequence": 2, "tensor": 1}
    exchanged = {kind: size for kind, _, size in sent(replace(CFG, attention="ulysses"), parameters, 4, 10)}
    assert exchanged["all-to-all"] == 5 * 2 * (2 * 4 * 10 * 32) * 4 // 4  # blocks, passes, tokens, q k v, the result
    around = {kind: size for kind, _, size in sent(replace(CFG, attention="ring"), parameters, 4, 10)}
    assert around["collective-permute"] == 5 * 3 * (2 * 4 * 10 * 32) * 2 // 2  # k and v, backward their gradients too


def test_encoding_on_a_mesh_sends_kernels_and_nothing_of_the_clips():
    """Left to itself the compiler splits channels as kernels are stored: all-to-alls, sums and replicated videos."""
    ae_cfg, grid = models.config("dcae", **golden.read_json("manifest_dcae_tiny")["config"]), meshes.make(2, 4)
    with conv.as_native():  # as on accelerators
        compiled = program.encode(models.build(ae_cfg), (8, 64, 64), 8, grid)().compile()
    sent = hlo.collectives(compiled.as_text(), grid)
    kernels = sum(4 * x.size for x in jax.tree.leaves(models.abstract_params(ae_cfg)))
    assert {c.kind for c in sent} == {"all-gather"} and 0 < sum(c.bytes for c in sent) < kernels


# (resolution's latent of one clip, base, remat) -> bytes that XLA's compiler for one H200 gave to the step of the 11B
# model's adapters of rank 16, as docs/finetune.md has them with their command.
COMPILED = {
    ((9, 26, 40, 16), "int8", "full"): 13_955_958_936,
    ((33, 26, 40, 16), "int8", "full"): 16.7e9,
    ((33, 26, 40, 16), "int8", "none"): 54.2e9,
    ((9, 26, 40, 16), "bfloat16", "full"): 25.7e9,
    ((33, 26, 40, 16), "bfloat16", "full"): 28.7e9,
    ((9, 68, 136, 16), "int8", "full"): 22.5e9,
    ((33, 68, 136, 16), "int8", "full"): 49.1e9,
}


def test_arithmetic_of_adapters_is_within_a_tenth_of_the_compiled_step_and_that_of_a_whole_model_is_not():
    model = models.config("mmdit", cond_embed=True)
    mesh, adapters = meshes.absent(1, 1, 1, 1, count=1), lora.LoRAConfig()
    trained = sum(x.size for x in jax.tree.leaves(blank(model, adapters)))
    bases = {dtype: program.base(model, adapters, dtype, mesh)[0] for dtype in ("int8", "bfloat16")}
    for (latent, dtype, remat), compiled in COMPILED.items():
        state = program.bytes_per_device(bases[dtype]) + 3 * 4 * trained
        tokens = latent[0] * latent[1] * latent[2] // 4 + 512
        given = replace(model, remat=remat, remat_blocks=None), trained, state, dict(mesh.shape), 1, tokens
        assert memory.estimate(*given, adapters=True).peak == pytest.approx(compiled, rel=0.1), (latent, dtype, remat)
    assert memory.estimate(*given).peak > 1.15 * compiled
