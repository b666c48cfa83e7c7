"""``report.html``: one file without network, of a matrix or of one training."""
