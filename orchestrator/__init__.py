"""Character LoRAs from images to a published release: recipes become plans, plans become files."""
