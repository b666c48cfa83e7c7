"""What a student has learnt of its teacher, in pictures and numbers: the command ``tools/analyze.py``."""
