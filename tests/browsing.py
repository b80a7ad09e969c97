"""What tests of the screens share, in a browser and without."""

from pathlib import Path

from PIL import Image

SECONDS = 1000  # Playwright counts in milliseconds


def two_faces(examples: Path) -> Image.Image:
    """Both example photos side by side; the face on the right is the larger one."""
    with Image.open(examples / "astronaut.jpg") as left, Image.open(examples / "grace_hopper.jpg") as right:
        photo = Image.new("RGB", (1024, 600), "white")
        photo.paste(left, (0, 0))
        photo.paste(right, (512, 0))
    return photo


def upload(page, path) -> None:
    page.set_input_files("#photo input[type=file]", path)


def wait_for_text(page, selector: str, pattern: str) -> None:
    """Wait until the element shows what the pattern says; pages change piece by piece."""
    matches = "([s, p]) => new RegExp(p).test(document.querySelector(s)?.innerText.trim())"
    page.wait_for_function(matches, arg=[selector, pattern])
