"""What tests that drive a browser share."""

SECONDS = 1000  # Playwright counts in milliseconds


def upload(page, path) -> None:
    page.set_input_files("#photo input[type=file]", path)


def wait_for_text(page, selector: str, pattern: str) -> None:
    """Wait until the element shows what the pattern says; pages change piece by piece."""
    matches = "([s, p]) => new RegExp(p).test(document.querySelector(s)?.innerText.trim())"
    page.wait_for_function(matches, arg=[selector, pattern])
