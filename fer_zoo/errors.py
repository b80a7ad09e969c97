"""What went wrong, for one-sentence messages."""


def reason(error: Exception) -> str:
    """The first sentence of what an error says, without its full stop; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".")
