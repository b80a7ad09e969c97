"""What went wrong, for one-sentence messages."""


def reason(error: Exception) -> str:
    """The first sentence of what an error says, without its full stop; its class where it says nothing."""
    text = getattr(error, "strerror", None) or str(error).strip()  # the system's words, without a path
    return text.partition("\n")[0].split(". ")[0].rstrip(".") or type(error).__name__
