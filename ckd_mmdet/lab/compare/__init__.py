"""``tools/compare.py``: methods by seeds under one schedule, trained, measured and set side by side."""
