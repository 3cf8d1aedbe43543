"""Character LoRAs from images to a release, by recipes and plans."""
