"""What measures and shows: comparisons, analyses, benchmarks, demos and the data sets they are made of.

Its packages are the extra ``lab``. Nothing outside imports it; the registry names its data set as a string.
"""
