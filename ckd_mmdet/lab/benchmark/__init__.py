"""``tools/benchmark.py``: what distillation costs, of several ways to train one student."""
