"""Pictures made of HTML: bars, tables and figures that screen readers read and dark mode recolours."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

from PIL import Image

from fer_zoo.labels import COLORS

# Sorts a table of `sortable_table` by the column whose head is clicked on; again, the other way round.
SORT = """
element.addEventListener("click", ({ target }) => {
  const head = target.closest("th[aria-sort]");
  if (!head) return;
  const body = head.closest("table").tBodies[0], sign = head.ariaSort === "descending" ? 1 : -1;
  for (const other of head.parentElement.cells) other.ariaSort = "none";
  head.ariaSort = sign > 0 ? "ascending" : "descending";
  const text = (row) => row.cells[head.cellIndex].innerText;
  const compare = (a, b) => parseFloat(a) - parseFloat(b) || a.localeCompare(b);
  body.append(...[...body.rows].sort((a, b) => sign * compare(text(a), text(b))));
});
"""


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


def heat_table(rows: Mapping[str, Sequence[float]], columns: Sequence[str], corner: str, caption: str) -> str:
    """Values of 0..1 in percent, the larger the darker."""
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td style="--share: {value:.1%}">{100 * value:.0f}</td>' for value in values)
        + "</tr>"
        for name, values in rows.items()
    )
    table = f'<table class="heat"><tr><th scope="col">{corner}</th>{head}</tr>{body}</table>'
    return scrollable(table, caption)


def sortable_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Rows of HTML cells, the first of each its name; `SORT` brings it to life."""
    head = "".join(f'<th scope="col" aria-sort="none"><button>{name}</button></th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scrollable(table, caption)


def scrollable(table: str, caption: str) -> str:
    """A table that may be wider than the screen, below a caption that is not."""
    return (
        f'<p>{caption}</p><div class="scroll" tabindex="0" role="region" aria-label="{caption}">{table}</div>'
    )


def legend(colors: Mapping[str, str]) -> str:
    """What the colours of a plot mean; Gradio's own legend is cut off where it has no room."""
    entries = "".join(
        f'<li><span style="background: {color}"></span>{name}</li>' for name, color in colors.items()
    )
    return f'<ul class="legend">{entries}</ul>'


def picture(image: Image.Image, alt: str, **attributes: object) -> str:
    """An image that travels inside the page, so that no file of it is written."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<img alt="{alt}" decoding="sync" src="data:image/jpeg;base64,{data}"{more}>'
