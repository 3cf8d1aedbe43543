"""Work on LoRA files.

Each verb is a module with a function of its name:

>>> from orchestrator.weights.compare import compare
>>> from orchestrator.weights.io.safetensors_io import read_header
>>> from orchestrator.weights.merge import merge
>>> from orchestrator.weights.options import MergeOptions
>>> from orchestrator.weights.families.adapter import adapter
>>> adapter(read_header(EXAMPLE)).family
'lora'
>>> report = merge(EXAMPLE, OUTPUT, MergeOptions("FACE"))
>>> report.preset, report.weights.values[:3]
('FACE', (0.0, 1.0, 1.0))
>>> compare(EXAMPLE, EXAMPLE).cosine
1.0

Every verb takes paths (``io.state_dict.on_arrays`` applies it to a state dict), writes its output whole or not at all, and
raises RecipeError with all problems of a file. Nothing imports torch, except to read pickles.
"""
