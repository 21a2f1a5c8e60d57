"""The released Open-Sora v2, text to video at 768px, 129 frames of 24 a second.

Command:   osjax sample --config=configs/sample/t2v_768.py --prompt "raining, sea"
Hardware:  an accelerator that holds the 11B model (22 GB in bfloat16) and its activations; --offload for one of 40 GB
Files:     in ckpts/, as the original's download leaves them: Open_Sora_v2.safetensors, hunyuan_vae.safetensors,
           google/t5-v1_1-xxl, openai/clip-vit-large-patch14
"""

from ml_collections import ConfigDict

from osjax.configs.sample.options import released


def get_config() -> ConfigDict:
    return released("768px", frames=129)
