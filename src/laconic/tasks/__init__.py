"""What a vision-language Transformer learns: one module a task, each an objective, its data and its scores.

A task is no training loop: laconic.training.loop trains, laconic.compress.structured slims, and both see a Task.
"""
