"""What can be wrong with S3, as errors. Who finds it, and in which words, is told in `s3_client.py` and `conditional_puts.py`."""


class S3Problem(ValueError):
    """S3 refuses, for a reason that a person has to remove."""


class S3Unreachable(S3Problem):
    """No S3 server answers, or it fails again and again. That may pass, so it is worth another try."""


class UnsafeServer(S3Problem):
    """An S3 server that would lose commits."""
