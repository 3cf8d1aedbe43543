"""Read and write files of weights. The only safetensors reader and writer."""
