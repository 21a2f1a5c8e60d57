"""Every logical axis has a rule, and every parameter of every model can follow its rules."""

import flax.linen as nn
import jax
import pytest
from jax.sharding import PartitionSpec

from osjax import models
from osjax.parallel import rules
from osjax.types import ACTIVATION_AXES, PARAMETER_AXES, Axis

TABLES = {"transformer": rules.TRANSFORMER, "autoencoder": rules.AUTOENCODER}
tables = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


@tables
def test_every_logical_axis_has_a_rule_and_no_rule_is_idle(table):
    named = {value for name, value in vars(Axis).items() if name.isupper()}
    assert named == set(table) == {*PARAMETER_AXES, *ACTIVATION_AXES}


def test_a_name_without_a_rule_raises():
    assert rules.spec((Axis.BATCH, None, Axis.HEADS)) == PartitionSpec(("data", "fsdp"), None, "tensor")
    with pytest.raises(KeyError, match="'headz' has no rule"):
        rules.spec((Axis.BATCH, "headz"))


def test_the_house_plan_of_axes_holds():
    table = rules.TRANSFORMER
    assert table[Axis.EMBED] == ("fsdp", "sequence") and table[Axis.BATCH] == ("data", "fsdp")
    assert table[Axis.TOKENS] == "sequence" and table[Axis.HEADS] == table[Axis.MLP] == "tensor"


def twice_used(names, table) -> bool:
    axes = [axis for part in rules.spec(names, table) for axis in ((part,) if isinstance(part, str) else part or ())]
    return len(axes) != len(set(axes))


@pytest.mark.parametrize("family, table", [("mmdit", rules.TRANSFORMER), ("dcae", rules.AUTOENCODER)])
def test_every_parameter_is_named_and_no_mesh_axis_is_asked_for_twice(family, table):
    def is_box(x):
        return isinstance(x, nn.LogicallyPartitioned)

    boxes = jax.tree.leaves(models.abstract_params(models.config(family)), is_leaf=is_box)
    assert boxes and all(is_box(x) and len(x.names) == len(x.value.shape) for x in boxes)
    assert not [x.names for x in boxes if twice_used(x.names, table)]
    assert twice_used((Axis.EMBED, Axis.EMBED), table)
