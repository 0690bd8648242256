"""What `make bench` measures: training speed against its peers, the cost of each asset, loading, and a run with nothing to do.

Every number is measured in the run that reports it; nothing here is imported by the product.
"""
