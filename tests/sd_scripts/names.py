"""Print the names of the parts of sd-scripts' models as JSON.

Runs in its environment, without weights.

``python names.py CHECKOUT UNET_CONFIG``: "sd1" maps the keys of an original SD1 checkpoint to those of diffusers;
"sdxl" lists the linear and convolution layers inside modules that LoRA and LyCORIS name by class, with their sizes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

CLASSES = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D")

sys.path.insert(0, sys.argv[1])
from library import model_util, sdxl_original_unet  # noqa: E402  # the path is set above

with torch.device("meta"):
    unet = UNet2DConditionModel.from_config(json.loads(Path(sys.argv[2]).read_text("utf-8")))
    sdxl = sdxl_original_unet.SdxlUNet2DConditionModel()
sd1 = model_util.convert_unet_state_dict_to_sd(False, {name: name for name in unet.state_dict()})
layers = {}
for root, module in sdxl.named_modules():
    if type(module).__name__ in CLASSES:
        for name, layer in module.named_modules():
            if isinstance(layer, torch.nn.Linear):
                layers[f"{root}.{name}"] = [layer.out_features, layer.in_features, 1]
            elif isinstance(layer, torch.nn.Conv2d):
                layers[f"{root}.{name}"] = [layer.out_channels, layer.in_channels, layer.kernel_size[0]]
print("NAMES" + json.dumps({"sd1": sd1, "sdxl": layers}))
