"""A user's script with a mistake in every line that has the name of its kind behind it."""

import osjax

pipe = osjax.Pipeline.from_checkpoint("runs/demo")
osjax.Pipeline.from_checkpoint("runs/demo", dtpye="bfloat16")  # reportCallIssue
osjax.Pipeline.from_checkpoint("runs/demo", offload="yes")  # reportArgumentType
osjax.Pipeline.from_config("configs/sample/t2v_256.py")  # reportArgumentType
pipe("a red circle", refs=3)  # reportArgumentType
pipe(["a red circle"], step=8)  # reportCallIssue
pipe(["a red circle"], steps="8")  # reportArgumentType
osjax.Pipeline.from_checkpoint("runs/demo", settings={"step": 8})  # reportArgumentType
osjax.SampleSettings(step=8)  # reportCallIssue
osjax.SampleSettings(steps="8")  # reportArgumentType
pipe(["a red circle"]).save()  # reportCallIssue
print(pipe(["a red circle"]).videos)  # reportAttributeAccessIssue
osjax.plan("configs/curriculum.py", 64)  # reportArgumentType
print(osjax.models.config("mmdit", hidden_size=256).hidden_sizes)  # reportAttributeAccessIssue
osjax.weights.torch_shapes(osjax.models.config("mmdit"), layout="flux")  # reportArgumentType
osjax.load_configs("configs/smoke.py")  # reportAttributeAccessIssue
