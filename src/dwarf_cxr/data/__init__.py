"""Reading, preparing and serving radiographs with labels and regions."""
