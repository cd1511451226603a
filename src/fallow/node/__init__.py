"""The agent: the program that lends a computer's capacity to a hub. Owns slots; knows nothing of schedulers or clients."""
