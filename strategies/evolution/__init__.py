"""Evolution: aging populations, generations with crossover, several objectives."""
