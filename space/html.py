"""Pictures made of HTML: bars, tables and figures that screen readers read and dark mode recolours."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

from PIL import Image

from fer_zoo.labels import COLORS


def bars(values: Mapping[str, float], caption: str, digits: int = 1) -> str:
    """A value of 0..1 for every expression, in their fixed order, so that they compare at a glance."""
    best = max(values, key=values.get)
    rows = "".join(
        f'<tr class="{"top" if name == best else ""}"><th scope="row">{name}</th>'
        f'<td><div style="width: {value:.2%}; background: {COLORS[name]}"></div></td>'
        f"<td>{value:.{digits}%}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="bars"><caption>{caption}</caption>{rows}</table>'


def heat_table(
    rows: Mapping[str, Sequence[float]], columns: Sequence[str], corner: str, caption: str, digits: int = 0
) -> str:
    """Values of 0..1 in percent, the larger the darker."""
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td style="--share: {value:.1%}">{100 * value:.{digits}f}</td>' for value in values)
        + "</tr>"
        for name, values in rows.items()
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table class="heat">'
        f'<caption>{caption}</caption><tr><th scope="col">{corner}</th>{head}</tr>{body}</table></div>'
    )


def picture(image: Image.Image, alt: str, **attributes: object) -> str:
    """An image that travels inside the page, so that no file of it is written."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<img alt="{alt}" decoding="sync" src="data:image/jpeg;base64,{data}"{more}>'
