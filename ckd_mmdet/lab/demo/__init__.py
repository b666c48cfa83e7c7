"""``make demo``: a teacher, a student alone and a student with CKD, trained, measured and shown side by side."""
